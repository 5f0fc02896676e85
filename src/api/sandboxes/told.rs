//! Every use of a sandbox is told as a crossing, with who used it and whose it is, when the last byte of its answer is gone.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use atoll_bindings::body::RequestBody;
use atoll_bindings::crossing::{Crossing, OfSandbox, Verdict, Witness};
use atoll_container_bridge::manager::Owner;
use http::{Method, StatusCode};

use super::Caller;
use crate::server::body::{ReplyBody, Watched};

/// What is known while a use goes on; its last holder tells.
pub(super) struct Told(Arc<Telling>);

struct Telling {
    witness: Arc<dyn Witness>,
    crossing: Mutex<Option<Crossing>>,
    started: Instant,
    sent: AtomicU64,
    received: AtomicU64,
}

impl Drop for Telling {
    fn drop(&mut self) {
        let Some(mut crossing) = self.crossing.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        crossing.request_bytes = self.sent.load(Relaxed);
        crossing.response_bytes = self.received.load(Relaxed);
        crossing.elapsed = self.started.elapsed();
        self.witness.crossing(crossing);
    }
}

impl Told {
    pub(super) fn new(caller: &Caller, capability: &'static str, method: &Method, owner: &Owner) -> Self {
        let crossing = Crossing {
            tenant: caller.tenant.shared(),
            worker: Arc::clone(&caller.worker),
            execution: caller.execution.clone(),
            sandbox: Some(OfSandbox { user: owner.user.as_str().into(), id: "".into() }),
            token: caller.token.clone(),
            capability: capability.into(),
            policy: None,
            method: method.clone(),
            origin: format!("sandbox://{}", owner.user),
            minted: None,
            redirects: 0,
            verdict: Verdict::Abandoned,
            request_bytes: 0,
            response_bytes: 0,
            elapsed: Duration::ZERO,
        };
        Self(Arc::new(Telling {
            witness: caller.sandboxes.witness(),
            crossing: Mutex::new(Some(crossing)),
            started: Instant::now(),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
        }))
    }

    fn edit(&self, edit: impl FnOnce(&mut Crossing)) {
        if let Some(crossing) = &mut *self.0.crossing.lock().unwrap_or_else(PoisonError::into_inner) {
            edit(crossing);
        }
    }

    /// Which of the user's sandboxes it was.
    pub(super) fn sandbox(&self, id: &str) {
        self.edit(|crossing| {
            crossing.policy = Some(id.into());
            if let Some(sandbox) = &mut crossing.sandbox {
                sandbox.id = id.into();
            }
        });
    }

    /// A second hand on it, for the answer.
    pub(super) fn outcome(&self) -> Self {
        Self(Arc::clone(&self.0))
    }

    pub(super) fn status(&mut self, status: StatusCode) {
        self.edit(|crossing| crossing.verdict = Verdict::Answered(status.as_u16()));
    }

    pub(super) fn count_request(&self, body: RequestBody) -> RequestBody {
        let telling = Arc::clone(&self.0);
        match body {
            RequestBody::Empty => RequestBody::Empty,
            body => RequestBody::stream(Watched::new(body, move |bytes| {
                telling.sent.fetch_add(bytes, Relaxed);
            })),
        }
    }

    pub(super) fn count_response(self, body: ReplyBody) -> ReplyBody {
        if let ReplyBody::Full(bytes) = &body {
            self.0.received.store(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64), Relaxed);
            return body;
        }
        ReplyBody::stream(Watched::new(body, move |bytes| {
            self.0.received.fetch_add(bytes, Relaxed);
        }))
    }
}

/// A body that keeps something until it is over.
pub(super) fn held<T: Send + Unpin + 'static>(body: ReplyBody, what: T) -> ReplyBody {
    match body {
        ReplyBody::Full(_) => body,
        ReplyBody::Stream(_) => ReplyBody::stream(Watched::new(body, move |_| {
            let _held = &what;
        })),
    }
}
