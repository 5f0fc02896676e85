//! Redirects as the Fetch standard wants them (HTTP-redirect fetch): <https://fetch.spec.whatwg.org/#http-redirect-fetch>.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName};
use http::{Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use url::Url;

use super::remove_gateway_headers;
use crate::body::RequestBody;
use crate::seam::CallError;

/// Most redirects followed for one request.
const REDIRECTS_MAX: u32 = 20;

/// Fields that describe a body, dropped with it.
const OF_THE_BODY: [HeaderName; 4] =
    [header::CONTENT_ENCODING, header::CONTENT_LANGUAGE, header::CONTENT_LOCATION, header::CONTENT_TYPE];
/// Fields that must not reach another origin.
const CREDENTIALS: [HeaderName; 3] = [header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION];

/// Where a request is on its way.
#[derive(Debug)]
pub(super) struct Hops {
    pub(super) url: Url,
    pub(super) followed: u32,
    method: Method,
    headers: HeaderMap,
    /// A body that can be sent again; `None` if there is one that cannot.
    again: Option<Bytes>,
}

impl Hops {
    pub(super) fn new(request: Request<RequestBody>) -> Result<(Self, RequestBody), CallError> {
        let (mut parts, body) = request.into_parts();
        let url = parse(&parts.uri.to_string(), None)?;
        remove_gateway_headers(&mut parts.headers);
        // As Workers' fetch does; a guest that names codings itself gets these, and its answer decoded all the same.
        if !parts.headers.contains_key(header::ACCEPT_ENCODING) {
            parts.headers.insert(header::ACCEPT_ENCODING, http::HeaderValue::from_static("gzip, br"));
        }
        let again = match &body {
            RequestBody::Empty => Some(Bytes::new()),
            RequestBody::Full(bytes) => Some(bytes.clone()),
            RequestBody::Stream(_) => None,
        };
        Ok((Self { url, followed: 0, method: parts.method, headers: parts.headers, again }, body))
    }

    pub(super) fn method(&self) -> &Method {
        &self.method
    }

    /// The request for the current hop.
    pub(super) fn request(&self, body: Option<RequestBody>) -> Result<Request<RequestBody>, CallError> {
        let invalid = || CallError::Invalid("Invalid URL.".to_owned());
        let mut url = self.url.clone();
        url.set_fragment(None);
        let mut request = Request::new(body.unwrap_or_default());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = url.as_str().parse::<Uri>().map_err(|_| invalid())?;
        *request.headers_mut() = self.headers.clone();
        Ok(request)
    }

    pub(super) fn is_redirect(&self, response: &Response<Incoming>) -> bool {
        matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308)
            && response.headers().contains_key(header::LOCATION)
    }

    /// Moves to where a redirect points; returns the body to send there.
    pub(super) fn follow(&mut self, response: Response<Incoming>) -> Result<RequestBody, CallError> {
        let network = |text: &str| CallError::Network(text.to_owned());
        self.followed += 1;
        if self.followed > REDIRECTS_MAX {
            return Err(network("too many redirects"));
        }
        let location = response.headers().get(header::LOCATION).map(|value| value.as_bytes().to_vec());
        let location = String::from_utf8(location.unwrap_or_default())
            .map_err(|_| network("the redirect's location is not a URL"))?;
        let next = parse(&location, Some(&self.url))?;
        let status = response.status();
        let posted = self.method == Method::POST;
        let becomes_get = match status {
            StatusCode::SEE_OTHER => self.method != Method::GET && self.method != Method::HEAD,
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => posted,
            _ => false,
        };
        if becomes_get {
            self.method = Method::GET;
            self.again = Some(Bytes::new());
            OF_THE_BODY.iter().for_each(|name| drop(self.headers.remove(name)));
        }
        let Some(body) = self.again.clone() else {
            return Err(network("a redirect of a request whose body cannot be sent again"));
        };
        if next.origin() != self.url.origin() {
            CREDENTIALS.iter().for_each(|name| drop(self.headers.remove(name)));
        }
        self.url = next;
        Ok(if body.is_empty() { RequestBody::Empty } else { RequestBody::Full(body) })
    }
}

fn parse(text: &str, base: Option<&Url>) -> Result<Url, CallError> {
    let invalid = |_| CallError::Invalid("Invalid URL.".to_owned());
    let mut url = Url::options().base_url(base).parse(text).map_err(invalid)?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(CallError::Invalid("A URL with credentials cannot be fetched.".to_owned()));
    }
    if let Some(base) = base.filter(|_| url.fragment().is_none()) {
        url.set_fragment(base.fragment());
    }
    Ok(url)
}
