//! A capability: the object behind a number that a guest may call.

use std::future::Future;
use std::pin::Pin;

use crate::body::{ReplyBody, RequestBody};
use crate::seam::{CallError, Identity, InvocationId};

/// Under whose invocation a call happens.
#[derive(Clone, Debug)]
pub struct CallContext {
    /// Who pays and is blamed.
    pub identity: Identity,
    /// The invocation that holds the capability.
    pub invocation: InvocationId,
}

/// What a call resolves to.
pub type CallFuture = Pin<Box<dyn Future<Output = Result<http::Response<ReplyBody>, CallError>> + Send>>;

/// Something a guest may call, granted per invocation. Dropping the future or the reply's body ends the call.
///
/// The request's redirect mode is a [`crate::seam::Redirect`] in its extensions. The reply may carry a [`ReplyMeta`] in its
/// extensions.
pub trait Channel: Send + Sync {
    /// Performs one request.
    fn fetch(&self, context: CallContext, request: http::Request<RequestBody>) -> CallFuture;

    /// For logs and the audit trail, never for decisions.
    fn name(&self) -> &str;
}

/// What the Fetch standard's `Response` knows besides status, headers and body; an extension of the reply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplyMeta {
    /// The final URL after redirects.
    pub url: String,
    /// Whether a redirect was followed.
    pub redirected: bool,
    /// The reason phrase, if it is not the standard one.
    pub status_text: String,
}
