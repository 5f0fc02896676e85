//! The isolate host: routes what the gateway says to isolates, and keeps what they share.
//!
//! ```text
//!  gateway ──ToHost──▶ router ──IsolateMsg──▶ isolate threads ──ToGateway──▶ gateway
//!                        │                      ▲      │ env.LOADER
//!                        └── pool of pristine ──┘      └── other isolates, by the same messages
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use atoll_bindings::link::HostEndpoint;
use atoll_bindings::seam::{
    CallError, CallId, Event, HEARTBEAT_MS, Heartbeat, InvocationId, Invoke, IsolateKey, Outbound, Outcome,
    StreamId, ToGateway, ToHost, Usage,
};
use atoll_loader::bundle::CodeHash;
use atoll_loader::limits::Limits;
use atoll_loader::{Bundle, CodeError, WorkerCode};
use dashmap::{DashMap, Entry as Slot};
use tokio::sync::mpsc::UnboundedSender;

use crate::message::{Inbox, Invocation, IsolateMsg, Peer, Root, Work};
use crate::modules::Entry;
use crate::pool::Pool;
use crate::resident::{Resident, Trimmer, resident_bytes};
use crate::rpc::Props;
use crate::service::Session;
use crate::state::Capability;
use crate::stream::Route;
use crate::thread::{EnvSpec, IsolateRef, StartSpec};
use crate::watchdog::{Watchdog, now_us};
use crate::worker::NamedWorkers;

/// How a host is set up.
#[derive(Clone, Copy, Debug)]
pub struct HostConfig {
    /// Pristine isolates kept ready.
    pub pool_size: usize,
    /// Most warm and named isolates alive before the least recently used idle one goes.
    pub isolates_max: usize,
    /// A warm or named isolate that nobody used for this long goes, in milliseconds.
    pub idle_ms: u64,
    /// Resident memory of the process beyond which its largest isolate and then the process must go, in bytes.
    pub resident_bytes_max: Option<u64>,
    /// V8 without its compilers, and without WebAssembly. The first host of a process decides it for all.
    pub jitless: bool,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            pool_size: 16,
            isolates_max: 10_000,
            idle_ms: 300_000,
            resident_bytes_max: None,
            jitless: false,
        }
    }
}

/// Most checked bundles of dynamic workers kept for the next load of the same code.
const LOADS_KEPT_MAX: usize = 1_024;

/// What the isolates of one host share.
#[derive(Debug)]
pub(crate) struct HostShared {
    pub(crate) config: HostConfig,
    pub(crate) gateway: UnboundedSender<ToGateway>,
    pub(crate) pool: Pool,
    pub(crate) watchdog: Arc<Watchdog>,
    bundles: DashMap<CodeHash, Arc<Entry>>,
    /// Bundles by the hash of the unchecked code they came from: the same code is not parsed twice.
    loads: DashMap<[u8; 32], Arc<Entry>>,
    pub(crate) named: NamedWorkers,
    warm: DashMap<Arc<str>, Warm>,
    roots: DashMap<InvocationId, IsolateRef>,
    /// Calls and streams of the gateway's that belong to nested isolates. Empty unless workers load workers.
    nested_calls: DashMap<(InvocationId, CallId), Inbox>,
    nested_streams: DashMap<(InvocationId, StreamId), Inbox>,
    nested_next: AtomicU64,
    pub(crate) isolates_live: AtomicU32,
    draining: AtomicUsize,
}

#[derive(Debug)]
struct Warm {
    isolate: IsolateRef,
    used_us: u64,
}

/// Nested invocations have this bit; the gateway's never do.
const NESTED_BIT: u64 = 1 << 63;

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Entry({})", self.bundle.hash())
    }
}

impl HostShared {
    fn start(config: HostConfig, gateway: UnboundedSender<ToGateway>) -> std::io::Result<Arc<Self>> {
        crate::platform::init(config.jitless);
        let alarm = gateway.clone();
        let memory = config.resident_bytes_max.and_then(Resident::watch);
        let watchdog = Watchdog::start(memory, move |watchdog| {
            let heartbeat = Heartbeat { condemned: watchdog.condemned(), ..Heartbeat::default() };
            let _gone = alarm.send(ToGateway::Heartbeat(heartbeat));
        })?;
        let host = Self::new(config, gateway, watchdog);
        Pool::fill(&host);
        Ok(host)
    }

    /// A host that runs nothing and tells nobody: for the isolate that only makes the snapshot.
    pub(crate) fn detached() -> Arc<Self> {
        #[expect(clippy::disallowed_methods, reason = "its receiver is dropped at once")]
        let (nobody, _) = tokio::sync::mpsc::unbounded_channel();
        Self::new(HostConfig { pool_size: 0, ..HostConfig::default() }, nobody, Arc::default())
    }

    fn new(config: HostConfig, gateway: UnboundedSender<ToGateway>, watchdog: Arc<Watchdog>) -> Arc<Self> {
        Arc::new(Self {
            config,
            gateway,
            pool: Pool::new(config.pool_size),
            watchdog,
            bundles: DashMap::new(),
            loads: DashMap::new(),
            named: NamedWorkers::default(),
            warm: DashMap::new(),
            roots: DashMap::new(),
            nested_calls: DashMap::new(),
            nested_streams: DashMap::new(),
            nested_next: AtomicU64::new(NESTED_BIT),
            isolates_live: AtomicU32::new(0),
            draining: AtomicUsize::new(0),
        })
    }

    pub(crate) fn next_nested(&self) -> InvocationId {
        InvocationId(self.nested_next.fetch_add(1, Relaxed))
    }

    pub(crate) fn remember_call(&self, key: (InvocationId, CallId), inbox: &Inbox) {
        self.nested_calls.insert(key, inbox.clone());
    }

    pub(crate) fn forget_call(&self, key: (InvocationId, CallId)) {
        if !self.nested_calls.is_empty() {
            self.nested_calls.remove(&key);
        }
    }

    /// Streams between the gateway and an isolate that is not its invocation's root need a route.
    pub(crate) fn remember_stream(&self, route: &Route, inbox: &Inbox) {
        if matches!(route.peer, Peer::Gateway(_))
            && self.roots.get(&route.invocation).is_some_and(|root| !root.inbox.same_channel(inbox))
        {
            self.nested_streams.insert((route.invocation, route.stream), inbox.clone());
        }
    }

    pub(crate) fn forget_stream(&self, route: &Route) {
        if !self.nested_streams.is_empty() {
            self.nested_streams.remove(&(route.invocation, route.stream));
        }
    }

    pub(crate) fn forget_root(&self, id: InvocationId) {
        self.roots.remove(&id);
        if !self.nested_calls.is_empty() {
            self.nested_calls.retain(|(root, call), inbox| {
                if *root == id {
                    // The gateway answers no more: whoever was lent the capability must not wait.
                    let result = Err(CallError::Network("The invocation has ended.".into()));
                    let _gone = inbox.send(IsolateMsg::Reply { invocation: id, call: *call, result });
                }
                *root != id
            });
        }
        if !self.nested_streams.is_empty() {
            self.nested_streams.retain(|(root, _), _| *root != id);
        }
    }

    /// A root runs elsewhere than it was first said.
    pub(crate) fn move_root(&self, id: InvocationId, isolate: &IsolateRef) {
        if let Some(mut root) = self.roots.get_mut(&id) {
            *root = isolate.clone();
        }
    }

    fn known(&self, hash: CodeHash) -> Option<Arc<Entry>> {
        self.bundles.get(&hash).map(|entry| Arc::clone(&entry))
    }

    /// Checks code that a worker brings, or finds that the same code was checked before.
    pub(crate) fn load(&self, code: WorkerCode) -> Result<Arc<Entry>, CodeError> {
        let key = code.fingerprint();
        if let Some(entry) = self.loads.get(&key) {
            return Ok(Arc::clone(&entry));
        }
        let entry = Entry::new(Arc::new(code.build()?));
        if self.loads.len() >= LOADS_KEPT_MAX {
            self.loads.clear();
        }
        self.loads.insert(key, Arc::clone(&entry));
        Ok(entry)
    }

    fn refuse(&self, id: InvocationId, reason: &str) {
        let outcome = Outcome::Refused(reason.to_owned());
        let _gone = self.gateway.send(ToGateway::Done { invocation: id, outcome, usage: Usage::default() });
    }

    fn invoke(self: &Arc<Self>, invoke: Invoke) {
        let Some(entry) = self.known(invoke.bundle) else {
            return self.refuse(invoke.id, "the bundle did not arrive before the invocation");
        };
        let root = Root::new(&invoke, self.gateway.clone());
        let spec = StartSpec {
            entry,
            env: EnvSpec::Named(invoke.env),
            outbound: match invoke.outbound {
                Outbound::Denied => None,
                Outbound::Channel(channel) => Some(Capability::Channel(channel)),
            },
            limits: invoke.limits,
            traced: false,
            depth: 0,
            single: invoke.isolate == IsolateKey::Fresh,
            root: invoke.id,
            warm_key: match &invoke.isolate {
                IsolateKey::Warm(key) => Some(Arc::clone(key)),
                IsolateKey::Fresh => None,
            },
        };
        if let Event::Session { caller, call } = invoke.event {
            let granted = (invoke.entrypoint, invoke.props, invoke.limits);
            return self.join(spec, granted, root, (caller, call));
        }
        let invocation = Invocation {
            id: invoke.id,
            root,
            peer: Peer::Gateway(self.gateway.clone()),
            entrypoint: invoke.entrypoint,
            props: invoke.props.map(Props::Json),
            work: Work::Event(invoke.event),
            limits: invoke.limits,
            asked_us: now_us(),
            session: None,
        };
        self.dispatch(spec, invocation);
    }

    /// Brings a session to the isolate whose call waits for it. One that nobody waits for is told to the gateway.
    fn join(
        self: &Arc<Self>,
        spec: StartSpec,
        granted: (Option<String>, Option<String>, Limits),
        root: Arc<Root>,
        (invocation, call): (InvocationId, CallId),
    ) {
        let Some(inbox) = self.waiting_for(invocation, call) else {
            let outcome = Outcome::Canceled;
            let _gone =
                self.gateway.send(ToGateway::Done { invocation: root.id, outcome, usage: Usage::default() });
            return;
        };
        let callee = self.isolate_for(spec.clone());
        self.roots.insert(root.id, callee.clone());
        let session = Box::new(Session::new(self, granted, root, (callee, spec)));
        let _gone = inbox.send(IsolateMsg::Opened { invocation, call, session });
    }

    /// The isolate whose call the gateway answers.
    fn waiting_for(&self, invocation: InvocationId, call: CallId) -> Option<Inbox> {
        let nested = match self.nested_calls.is_empty() {
            true => None,
            false => self.nested_calls.remove(&(invocation, call)).map(|(_, inbox)| inbox),
        };
        nested.or_else(|| self.roots.get(&invocation).map(|root| root.inbox.clone()))
    }

    /// Finds or starts the isolate for an invocation and hands it over.
    pub(crate) fn dispatch(self: &Arc<Self>, spec: StartSpec, invocation: Invocation) {
        let isolate = self.isolate_for(spec);
        // One that a caller of this host made is under a root that is known already.
        let rooted = matches!(invocation.peer, Peer::Gateway(_)) || invocation.session.is_some();
        if rooted {
            self.roots.insert(invocation.root.id, isolate.clone());
        }
        if let Err(lost) = isolate.inbox.send(IsolateMsg::Invoke(Box::new(invocation))) {
            // It ended between the look and the send.
            let IsolateMsg::Invoke(invocation) = lost.0 else { return };
            if rooted {
                self.roots.remove(&invocation.root.id);
            }
            invocation.end(crate::thread::never_served());
        }
    }

    /// The warm isolate of a worker, started if there is none that takes calls; a new one for workers without.
    pub(crate) fn isolate_for(self: &Arc<Self>, spec: StartSpec) -> IsolateRef {
        let Some(key) = spec.warm_key.clone() else { return crate::pool::spawn(self, spec) };
        // One look and one write under one lock: two callers never start two, of which one would never be let go.
        match self.warm.entry(key) {
            Slot::Occupied(mut warm) => {
                if warm.get().isolate.is_over() {
                    warm.get_mut().isolate = crate::pool::spawn(self, spec);
                }
                warm.get_mut().used_us = now_us();
                warm.get().isolate.clone()
            }
            Slot::Vacant(place) => {
                let isolate = crate::pool::spawn(self, spec);
                place.insert(Warm { isolate: isolate.clone(), used_us: now_us() });
                isolate
            }
        }
    }

    /// An isolate ended: it must not be found again.
    pub(crate) fn isolate_ended(&self, warm_key: Option<&Arc<str>>, inbox: &Inbox) {
        if let Some(key) = warm_key {
            self.warm.remove_if(key, |_, warm| warm.isolate.inbox.same_channel(inbox));
        }
    }

    fn route(self: &Arc<Self>, message: ToHost) {
        match message {
            ToHost::Bundle { hash, encoded } => {
                // One that does not decode is one the gateway never sent: its invocation is refused.
                if let Ok(bundle) = Bundle::decode(encoded, hash) {
                    self.bundles.insert(hash, Entry::new(Arc::new(bundle)));
                }
            }
            ToHost::Forget { hash } => {
                self.bundles.remove(&hash);
            }
            ToHost::Invoke(invoke) => self.invoke(*invoke),
            ToHost::Body(frame) => {
                let key = (frame.invocation, frame.stream);
                let nested =
                    if self.nested_streams.is_empty() { None } else { self.nested_streams.get(&key) };
                let _gone = match nested {
                    Some(inbox) => inbox.send(IsolateMsg::Body(frame)).is_ok(),
                    None => self
                        .roots
                        .get(&frame.invocation)
                        .is_some_and(|root| root.inbox.send(IsolateMsg::Body(frame)).is_ok()),
                };
            }
            ToHost::Reply { invocation, call, result } => {
                let nested = if self.nested_calls.is_empty() {
                    None
                } else {
                    self.nested_calls.remove(&(invocation, call)).map(|(_, inbox)| inbox)
                };
                if let (Some(inbox), Ok(response)) = (&nested, &result)
                    && let atoll_bindings::seam::Body::Stream { id, .. } = response.body
                {
                    self.nested_streams.insert((invocation, id), inbox.clone());
                }
                let inbox = nested.or_else(|| self.roots.get(&invocation).map(|root| root.inbox.clone()));
                if let Some(inbox) = inbox {
                    let _gone = inbox.send(IsolateMsg::Reply { invocation, call, result });
                }
            }
            ToHost::Returned { invocation, call, result } => {
                if let Some(inbox) = self.waiting_for(invocation, call) {
                    let _gone = inbox.send(IsolateMsg::MethodReturned { invocation, call, result });
                }
            }
            ToHost::Cancel { invocation } => {
                if let Some(root) = self.roots.get(&invocation) {
                    root.cancel(invocation);
                }
            }
            ToHost::Evict { key } => {
                if let Some((_, warm)) = self.warm.remove(&key) {
                    let _gone = warm.isolate.inbox.send(IsolateMsg::Evict);
                }
            }
            ToHost::Drain => self.draining.store(1, Relaxed),
        }
    }

    /// Lets go of isolates that nobody used for long, and of the least recently used over the bound.
    fn evict_idle(&self) {
        let now = now_us();
        let idle_us = self.config.idle_ms * 1_000;
        self.warm.retain(|_, warm| {
            let keep = now.saturating_sub(warm.used_us) < idle_us;
            if !keep {
                let _gone = warm.isolate.inbox.send(IsolateMsg::Evict);
            }
            keep
        });
        self.named.evict(now, idle_us, self.config.isolates_max);
    }

    /// Lets every isolate go: the gateway is gone, or wants no more.
    fn end(&self) {
        self.pool.close();
        self.named.clear();
        self.warm.retain(|_, warm| {
            let _gone = warm.isolate.inbox.send(IsolateMsg::Evict);
            false
        });
    }

    fn heartbeat(&self) {
        let heartbeat = Heartbeat {
            isolates_live: self.isolates_live.load(Relaxed),
            isolates_pooled: u32::try_from(self.pool.ready()).unwrap_or(u32::MAX),
            resident_bytes: resident_bytes(),
            condemned: self.watchdog.condemned(),
        };
        let _gone = self.gateway.send(ToGateway::Heartbeat(heartbeat));
    }
}

/// Runs a host until the gateway goes away, or says `Drain` and nothing runs any more.
///
/// # Errors
/// If no thread can be started.
pub async fn run(mut endpoint: HostEndpoint, config: HostConfig) -> std::io::Result<()> {
    let host = HostShared::start(config, endpoint.outbox)?;
    let mut ticks = tokio::time::interval(Duration::from_millis(HEARTBEAT_MS));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut since_sweep = 0;
    let mut trimmer = Trimmer::default();
    let mut refilling = std::pin::pin!(Pool::keep_full(&host));
    loop {
        tokio::select! {
            biased;
            message = endpoint.inbox.recv() => match message {
                Some(message) => host.route(message),
                None => break,
            },
            never = &mut refilling => match never {},
            _ = ticks.tick() => {
                host.heartbeat();
                since_sweep += 1;
                if since_sweep >= SWEEP_TICKS {
                    since_sweep = 0;
                    host.evict_idle();
                    trimmer.sweep(resident_bytes());
                }
                if host.draining.load(Relaxed) > 0 && host.roots.is_empty() {
                    break;
                }
            }
        }
    }
    host.end();
    Ok(())
}

/// Heartbeats between two looks for idle isolates.
const SWEEP_TICKS: u32 = 4;
