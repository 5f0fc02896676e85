//! Other workers as capabilities: not called through the gateway, but opened.
//!
//! ```text
//!  caller's isolate ──OpenService{call, channel}──▶ granted? how deep? how many? ──▶ Service::open(context, Opening)
//!        │                                                                              │ policy of the owner
//!        │◀──joined by the host── Invoke{ event: Session{caller, call}, … } ◀── Opening::start(Start)
//!        └──── fetch, methods, bodies, sockets: inbox to inbox, without the gateway ────▶ callee's isolate
//! ```
//!
//! The session is an invocation like any other: the gateway chose its code, `env`, limits and identity, and hears of its
//! logs, calls and end. What the host decides is only which waiting call meets which session, and it has both in its process
//! anyway. A session exists because the gateway started it for one call of one live invocation that holds the capability.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use atoll_loader::limits::{SERVICE_CALLS_MAX, SERVICE_DEPTH_MAX};

use super::Inner;
use super::calls::{context, counted};
use super::fault::{LinkDown, Violation};
use super::invocation::Invocation;
use super::running::Running;
use super::start::Start;
use crate::channel::CallContext;
use crate::seam::{CallError, CallId, ChannelId, ToHost};

/// What a guest is told when workers call each other without end. The text is that of Workers.
pub const TOO_DEEP: &str = "Subrequest depth limit exceeded. This request recursed through Workers too many times. This can \
                            happen e.g. if you have a Worker or Durable Object that calls other Workers or objects recursively.";
/// What a guest is told when one event caused too many calls of workers.
pub const TOO_MANY: &str = "Too many calls of other Workers under one request.";

/// Another worker that a guest may call, granted per invocation.
pub trait Service: Send + Sync {
    /// Starts an invocation of it for one call, or refuses. Must not wait: the calls of a guest are opened in their order.
    fn open(&self, context: CallContext, opening: Opening);

    /// For logs, never for decisions.
    fn name(&self) -> &str;
}

/// Where an invocation stands among workers that call workers.
#[derive(Clone, Debug, Default)]
pub(super) struct Lineage {
    /// Calls of workers between the first event and this invocation.
    depth: u32,
    /// Calls of workers under that event so far.
    calls: Arc<AtomicU32>,
}

impl Lineage {
    /// The place of a callee, if there may be one more.
    fn next(&self) -> Result<Self, &'static str> {
        if self.depth >= SERVICE_DEPTH_MAX {
            return Err(TOO_DEEP);
        }
        if self.calls.fetch_add(1, Ordering::Relaxed) >= SERVICE_CALLS_MAX {
            return Err(TOO_MANY);
        }
        Ok(Self { depth: self.depth + 1, calls: Arc::clone(&self.calls) })
    }
}

/// The duty to open one call: dropped, it says that the call failed.
pub struct Opening {
    link: Arc<Inner>,
    caller: Arc<Invocation>,
    call: CallId,
    lineage: Lineage,
    answered: bool,
}

impl Opening {
    /// Starts the callee, with the event [`super::StartEvent::Session`], on the host of its caller.
    pub fn start(mut self, start: Start) -> Result<Running, LinkDown> {
        let running = self.link.start_session(start, &self)?;
        self.answered = true;
        Ok(running)
    }

    /// Tells the caller why not.
    pub fn refuse(mut self, error: CallError) {
        self.answer(error);
    }

    pub(super) fn call(&self) -> (crate::seam::InvocationId, CallId) {
        (self.caller.id, self.call)
    }

    pub(super) fn lineage(&self) -> Lineage {
        self.lineage.clone()
    }

    fn answer(&mut self, error: CallError) {
        self.answered = true;
        self.link.send(ToHost::Reply { invocation: self.caller.id, call: self.call, result: Err(error) });
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if !self.answered {
            self.answer(CallError::Network("The call failed.".to_owned()));
        }
    }
}

/// Takes an `OpenService` from the host: the checks of a call, then those of the chain.
pub(super) fn begin(
    link: &Arc<Inner>,
    caller: &Arc<Invocation>,
    call: CallId,
    channel: ChannelId,
) -> Result<(), Violation> {
    let service = caller.service(channel).map(Arc::clone);
    let refused = counted(&mut caller.lock(), &caller.limits, call, service.is_some())?;
    if service.is_none() {
        link.count_forged();
    }
    let place = match refused {
        Some(error) => Err(error),
        None => caller.lineage.next().map_err(|reason| CallError::Denied(reason.to_owned())),
    };
    let (lineage, refused) = match place {
        Ok(lineage) => (lineage, None),
        Err(error) => (Lineage::default(), Some(error)),
    };
    let (link, caller) = (Arc::clone(link), Arc::clone(caller));
    let context = context(&caller);
    let opening = Opening { link, caller, call, lineage, answered: false };
    match (service, refused) {
        (_, Some(error)) => opening.refuse(error),
        (Some(service), None) => service.open(context, opening),
        // Without a service it was refused above; dropping the duty answers too.
        (None, None) => drop(opening),
    }
    Ok(())
}
