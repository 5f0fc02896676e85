//! Workers that workers load: `env.LOADER`'s other half.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use atoll_bindings::seam::Outcome;
use atoll_loader::limits::Limits;
use dashmap::DashMap;

use crate::host::HostShared;
use crate::message::{Inbox, IsolateMsg, Peer};
use crate::state::Capability;
use crate::thread::{IsolateRef, StartSpec};
use crate::watchdog::now_us;

/// A loaded worker: one isolate that serves its invocations until it is released.
#[derive(Debug)]
pub(crate) struct ChildWorker {
    isolate: IsolateRef,
    pub(crate) limits: Limits,
    /// Who is told what its invocations do.
    pub(crate) tails: Vec<Capability>,
    used_us: AtomicU64,
    released: AtomicBool,
}

impl ChildWorker {
    /// Starts the isolate; the code runs on its own thread.
    pub(crate) fn start(host: &Arc<HostShared>, spec: StartSpec, tails: Vec<Capability>) -> Arc<Self> {
        let limits = spec.limits;
        let isolate = crate::pool::spawn(host, spec);
        Arc::new(Self {
            isolate,
            limits,
            tails,
            used_us: AtomicU64::new(now_us()),
            released: AtomicBool::new(false),
        })
    }

    pub(crate) fn peer(&self) -> Peer {
        Peer::Isolate(self.isolate.inbox.clone())
    }

    pub(crate) fn is_over(&self) -> bool {
        self.isolate.is_over()
    }

    /// Sends a message; an invocation that finds no isolate any more is answered here.
    pub(crate) fn send(&self, message: IsolateMsg) {
        self.used_us.store(now_us(), Relaxed);
        match message {
            IsolateMsg::Invoke(invocation) if self.released.load(Relaxed) => {
                invocation.end(ended("dynamic worker"))
            }
            message => deliver(&self.isolate.inbox, message),
        }
    }

    /// Takes no more calls, and ends once what runs is over: at once if nothing does.
    pub(crate) fn release(&self) {
        if !self.released.swap(true, Relaxed) {
            self.send(IsolateMsg::Evict);
        }
    }
}

impl Drop for ChildWorker {
    fn drop(&mut self) {
        self.release();
    }
}

/// A worker of this host that another one may call.
#[derive(Clone, Debug)]
pub(crate) enum Callee {
    /// One that a worker loaded.
    Child(Arc<ChildWorker>),
    /// The worker that gives its own entrypoint away.
    Own(Arc<OwnWorker>),
    /// Another deployed worker, for one session: it has limits, `env` and a record of its own.
    Service(Inbox),
}

/// How to reach a worker through `ctx.exports`: its isolate, or a new one of the same worker if that is gone.
#[derive(Debug)]
pub(crate) struct OwnWorker {
    pub(crate) host: Weak<HostShared>,
    pub(crate) inbox: Inbox,
    pub(crate) limits: Limits,
    /// For workers with a warm isolate, which comes and goes.
    pub(crate) spec: Option<StartSpec>,
}

impl Callee {
    pub(crate) fn limits(&self) -> Limits {
        match self {
            Self::Child(worker) => worker.limits,
            Self::Own(worker) => worker.limits,
            Self::Service(_) => Limits::CEILING,
        }
    }

    /// Who is told what its invocations do.
    pub(crate) fn tails(&self) -> &[Capability] {
        match self {
            Self::Child(worker) => &worker.tails,
            Self::Own(_) | Self::Service(_) => &[],
        }
    }

    pub(crate) fn peer(&self) -> Peer {
        match self {
            Self::Child(worker) => worker.peer(),
            Self::Own(worker) => Peer::Isolate(worker.current()),
            Self::Service(inbox) => Peer::Isolate(inbox.clone()),
        }
    }

    /// Sends a message; an invocation that finds no isolate any more is answered here.
    pub(crate) fn send(&self, message: IsolateMsg) {
        match self {
            Self::Child(worker) => worker.send(message),
            Self::Own(worker) => deliver(&worker.current(), message),
            Self::Service(inbox) => deliver(inbox, message),
        }
    }
}

impl OwnWorker {
    fn current(&self) -> Inbox {
        match (&self.spec, self.host.upgrade()) {
            (Some(spec), Some(host)) if self.inbox.is_closed() => host.isolate_for(spec.clone()).inbox,
            _ => self.inbox.clone(),
        }
    }
}

fn deliver(inbox: &Inbox, message: IsolateMsg) {
    if let Err(lost) = inbox.send(message)
        && let IsolateMsg::Invoke(invocation) = lost.0
    {
        let who = if invocation.session.is_some() { "worker" } else { "dynamic worker" };
        invocation.end(ended(who));
    }
}

fn ended(who: &str) -> Outcome {
    Outcome::HostFault(format!("The {who} has ended."))
}

/// Named workers, by loader scope and name. The scope is the gateway's and contains the tenant and the parent.
#[derive(Debug, Default)]
pub(crate) struct NamedWorkers {
    workers: DashMap<(Arc<str>, String), Arc<ChildWorker>>,
}

impl NamedWorkers {
    /// The live worker of this name. One that ended is forgotten, so that the next load starts afresh.
    pub(crate) fn find(&self, scope: &Arc<str>, name: &str) -> Option<Arc<ChildWorker>> {
        let key = (Arc::clone(scope), name.to_owned());
        self.workers.remove_if(&key, |_, worker| worker.is_over());
        self.workers.get(&key).map(|worker| Arc::clone(&worker))
    }

    pub(crate) fn insert(&self, scope: &Arc<str>, name: String, worker: &Arc<ChildWorker>) {
        self.workers.insert((Arc::clone(scope), name), Arc::clone(worker));
    }

    pub(crate) fn remove(&self, worker: &Arc<ChildWorker>) {
        self.workers.retain(|_, each| !Arc::ptr_eq(each, worker));
    }

    pub(crate) fn clear(&self) {
        self.workers.clear();
    }

    /// Lets go of those that are idle too long, then of the least recently used over the bound.
    pub(crate) fn evict(&self, now_us: u64, idle_us: u64, most: usize) {
        // More owners than this table: an invocation or a stub uses it.
        let idle = |worker: &Arc<ChildWorker>| Arc::strong_count(worker) == 1;
        self.workers.retain(|_, worker| {
            !worker.is_over()
                && (!idle(worker) || now_us.saturating_sub(worker.used_us.load(Relaxed)) < idle_us)
        });
        let over = self.workers.len().saturating_sub(most);
        if over == 0 {
            return;
        }
        let mut ages: Vec<_> = self
            .workers
            .iter()
            .filter(|each| idle(each.value()))
            .map(|each| (each.value().used_us.load(Relaxed), each.key().clone()))
            .collect();
        ages.sort_unstable_by_key(|(used, _)| *used);
        for (_, key) in ages.into_iter().take(over) {
            self.workers.remove(&key);
        }
    }
}
