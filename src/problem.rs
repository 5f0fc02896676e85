//! Errors as clients see them: problem+json (RFC 9457) with a stable code.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{Response, StatusCode};
use serde_json::{Map, Value};

use crate::admission::Denied;
use crate::server::body::ReplyBody;

/// One problem, on its way to a client.
#[derive(Clone, Debug)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: Cow<'static, str>,
    extra: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// A problem with its status, its stable code and a sentence for people.
    #[must_use]
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, detail: detail.into(), extra: Map::new(), headers: Vec::new() }
    }

    /// 400.
    #[must_use]
    pub fn bad_request(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", detail)
    }

    /// 404.
    #[must_use]
    pub fn not_found(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    /// 405 with `Allow`.
    #[must_use]
    pub fn method_not_allowed(allow: &'static str) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "This method is not allowed here.")
            .header(ALLOW, HeaderValue::from_static(allow))
    }

    /// 413.
    #[must_use]
    pub fn too_large(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
    }

    /// 422.
    #[must_use]
    pub fn unprocessable(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
    }

    /// 401 with `WWW-Authenticate`; the same for every reason, so that it tells nothing.
    #[must_use]
    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "A valid bearer token is needed.")
            .header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"atoll\""))
    }

    /// 403 with `WWW-Authenticate` naming the missing scope.
    #[must_use]
    pub fn forbidden(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail).header(
            WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"atoll\", error=\"insufficient_scope\""),
        )
    }

    /// 500 for a fault of the gateway itself; the reason goes to the log, not to the client.
    #[must_use]
    pub fn internal(reason: &dyn std::fmt::Display) -> Self {
        tracing::error!(%reason, "internal error");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Something failed inside the gateway.")
    }

    /// Adds a member to the document.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.extra.insert(name.to_owned(), value.into());
        self
    }

    /// Adds a header field.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Tells the client when to come back.
    #[must_use]
    pub fn retry_after(self, seconds: u32) -> Self {
        self.header(RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// The document.
    #[must_use]
    pub fn document(&self) -> Value {
        let mut document = self.extra.clone();
        document.insert("type".into(), "about:blank".into());
        document.insert("title".into(), self.status.canonical_reason().unwrap_or("Error").into());
        document.insert("status".into(), self.status.as_u16().into());
        document.insert("code".into(), self.code.into());
        document.insert("detail".into(), self.detail.as_ref().into());
        Value::Object(document)
    }

    /// The response.
    #[must_use]
    pub fn response(self) -> Response<ReplyBody> {
        let body = self.document().to_string();
        let mut response = Response::new(ReplyBody::full(Bytes::from(body)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        for (name, value) in self.headers {
            headers.insert(name, value);
        }
        response
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        let (status, detail) = match denied {
            Denied::Overloaded => {
                (StatusCode::SERVICE_UNAVAILABLE, "The server is at its limit of running requests.")
            }
            Denied::Concurrency => {
                (StatusCode::TOO_MANY_REQUESTS, "This tenant has too many requests running.")
            }
            Denied::Executions => {
                (StatusCode::TOO_MANY_REQUESTS, "This tenant has too many executions running.")
            }
            Denied::Audit => {
                (StatusCode::SERVICE_UNAVAILABLE, "The audit log cannot take records now, so nothing runs.")
            }
            Denied::Suspended { .. } => (
                StatusCode::TOO_MANY_REQUESTS,
                "This tenant's code ended too many isolate hosts. It is suspended for a while.",
            ),
            Denied::Loads { .. } => (StatusCode::TOO_MANY_REQUESTS, "This tenant starts isolates too fast."),
        };
        Self::new(status, denied.code(), detail).retry_after(denied.retry_after_s())
    }
}
