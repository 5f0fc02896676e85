//! A capability: the object behind a number that a guest may call.
//!
//! ```text
//!  guest: env.NAME.fetch(request)      ──▶ Channel::fetch   bodies flow with credit
//!         env.NAME.method(a, {b: 1})   ──▶ Channel::call    plain data, as Value
//! ```
//!
//! The guest cannot tell a capability written here from an entrypoint of another worker: both are stubs, and both answer
//! `fetch()` and methods. To add one: implement [`Channel`], match the method's name in `call`, take the arguments apart
//! with [`Value`]'s accessors, answer with a [`Value`] or a [`MethodError`] (its `usage`, `failed` and `unknown`), and grant
//! it as [`crate::link::Grant::Channel`]. What is granted is the object itself: keep in it whose it is and what it may reach,
//! and never take either from the arguments. A method that gets no answer because its future panics or is dropped fails for
//! the guest; an invocation that ends drops the futures of its calls.
//!
//! Arguments are bounded (`METHOD_BYTES_MAX`), functions and streams are refused before they are sent; large values travel as
//! bodies of `fetch()`.

use std::future::Future;
use std::pin::Pin;

use crate::body::{ReplyBody, RequestBody};
use crate::link::Console;
use crate::seam::{CallError, Identity, InvocationId, MethodError};
use crate::value::Value;

/// Under whose invocation a call happens.
#[derive(Clone, Debug)]
pub struct CallContext {
    /// Who pays and is blamed.
    pub identity: Identity,
    /// The invocation that holds the capability.
    pub invocation: InvocationId,
    /// Where lines about it go.
    pub console: Console,
}

impl CallContext {
    /// A context whose lines go nowhere.
    #[must_use]
    pub fn new(identity: Identity, invocation: InvocationId) -> Self {
        Self { identity, invocation, console: Console::default() }
    }
}

/// What a call resolves to.
pub type CallFuture = Pin<Box<dyn Future<Output = Result<http::Response<ReplyBody>, CallError>> + Send>>;

/// What a method resolves to.
pub type MethodFuture = Pin<Box<dyn Future<Output = Result<Value, MethodError>> + Send>>;

/// Something a guest may call, granted per invocation. Dropping the future or the reply's body ends the call.
///
/// The request's redirect mode is a [`crate::seam::Redirect`] in its extensions. The reply may carry a [`ReplyMeta`] in its
/// extensions.
pub trait Channel: Send + Sync {
    /// Performs one request.
    fn fetch(&self, context: CallContext, request: http::Request<RequestBody>) -> CallFuture;

    /// Calls a method with plain data. A capability without methods need not say so.
    fn call(&self, context: CallContext, method: &str, arguments: Vec<Value>) -> MethodFuture {
        let _unused = (context, arguments);
        let unknown = MethodError::unknown(method);
        Box::pin(async move { Err(unknown) })
    }

    /// Whether its methods never wait: then [`Channel::call`] runs as soon as the call arrives, in the order of the guest's
    /// calls, also if the guest ends without looking at the answer.
    fn is_immediate(&self) -> bool {
        false
    }

    /// Whether `fetch` takes a request for a WebSocket: a GET with `upgrade: websocket` whose body is what the guest sends, as
    /// [`crate::socket::parts`]. The answer is then a 101 whose body is what the guest gets, or an ordinary answer.
    fn takes_sockets(&self) -> bool {
        false
    }

    /// Whether `fetch` takes a request for a TCP connection: a CONNECT to `tcp://`, `tls://` or `starttls://` whose body is what the
    /// guest sends. The answer is then a 200 whose body is what the guest gets, or an error.
    fn takes_connections(&self) -> bool {
        false
    }

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
