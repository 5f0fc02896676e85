//! Requests and responses between `http`'s types and the seam's.
//!
//! Towards the host nothing can be wrong. From the host everything is checked, and what is wrong is the guest's mistake (a header
//! value that HTTP cannot carry), not a breach of protocol.

use std::sync::Arc;

use atoll_loader::limits::{HEADER_BYTES_MAX, HEADERS_MAX, URL_BYTES_MAX};
use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode, Uri};

use crate::channel::ReplyMeta;
use crate::seam::{Body, Headers, HttpRequest, HttpResponse, Redirect};

/// Longest method token, in bytes.
const METHOD_BYTES_MAX: usize = 64;
/// Longest reason phrase, in bytes.
const STATUS_TEXT_BYTES_MAX: usize = 512;

/// Why a head from a guest cannot be an HTTP message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadHead {
    #[error("Invalid HTTP method.")]
    Method,
    #[error("Invalid URL.")]
    Url,
    #[error("Invalid HTTP status.")]
    Status,
    #[error("Invalid HTTP reason phrase.")]
    StatusText,
    #[error("Invalid header name.")]
    HeaderName,
    #[error("Invalid value of header \"{0}\".")]
    HeaderValue(HeaderName),
    #[error("Too many headers.")]
    HeaderCount,
    #[error("Headers too large.")]
    HeaderBytes,
}

/// The head of a request towards the guest.
pub(super) fn request_out(parts: &http::request::Parts, body: Body) -> HttpRequest {
    HttpRequest {
        method: parts.method.as_str().to_owned(),
        url: parts.uri.to_string(),
        headers: headers_out(&parts.headers),
        body,
        redirect: Redirect::default(),
    }
}

/// The head of a capability's answer.
pub(super) fn response_out(mut parts: http::response::Parts, body: Body) -> HttpResponse {
    let meta = parts.extensions.remove::<ReplyMeta>().unwrap_or_default();
    HttpResponse {
        status: parts.status.as_u16(),
        status_text: meta.status_text,
        headers: headers_out(&parts.headers),
        body,
        url: meta.url,
        redirected: meta.redirected,
    }
}

fn headers_out(headers: &HeaderMap) -> Headers {
    let field = |(name, value): (&HeaderName, &HeaderValue)| {
        (Arc::from(name.as_str()), Bytes::copy_from_slice(value.as_bytes()))
    };
    headers.iter().map(field).collect()
}

/// A guest's response, body apart.
pub(super) fn response_in(response: HttpResponse) -> Result<(http::Response<()>, Body), BadHead> {
    let mut head = http::Response::new(());
    *head.status_mut() = StatusCode::from_u16(response.status)
        .ok()
        .filter(|status| matches!(status.as_u16(), 101 | 200..600))
        .ok_or(BadHead::Status)?;
    *head.headers_mut() = headers_in(response.headers)?;
    if !response.status_text.is_empty() {
        let text = response.status_text;
        let legal = |byte: u8| matches!(byte, b'\t' | b' '..=b'~' | 0x80..=0xff);
        if text.len() > STATUS_TEXT_BYTES_MAX || !text.bytes().all(legal) {
            return Err(BadHead::StatusText);
        }
        head.extensions_mut().insert(ReplyMeta { status_text: text, ..ReplyMeta::default() });
    }
    Ok((head, response.body))
}

/// A guest's request to a capability, body apart. The redirect mode is in the extensions.
pub(super) fn request_in(request: HttpRequest) -> Result<(http::Request<()>, Body), BadHead> {
    let mut head = http::Request::new(());
    if request.method.len() > METHOD_BYTES_MAX {
        return Err(BadHead::Method);
    }
    *head.method_mut() = Method::from_bytes(request.method.as_bytes()).map_err(|_| BadHead::Method)?;
    if request.url.len() > URL_BYTES_MAX {
        return Err(BadHead::Url);
    }
    let uri: Uri = request.url.parse().map_err(|_| BadHead::Url)?;
    if uri.scheme().is_none() || uri.host().is_none_or(str::is_empty) {
        return Err(BadHead::Url);
    }
    *head.uri_mut() = uri;
    *head.headers_mut() = headers_in(request.headers)?;
    head.extensions_mut().insert(request.redirect);
    Ok((head, request.body))
}

fn headers_in(headers: Headers) -> Result<HeaderMap, BadHead> {
    if headers.len() > HEADERS_MAX {
        return Err(BadHead::HeaderCount);
    }
    let bytes = headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
    if bytes > HEADER_BYTES_MAX {
        return Err(BadHead::HeaderBytes);
    }
    let mut map = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| BadHead::HeaderName)?;
        match HeaderValue::from_maybe_shared(value) {
            Ok(value) => map.append(name, value),
            Err(_) => return Err(BadHead::HeaderValue(name)),
        };
    }
    Ok(map)
}
