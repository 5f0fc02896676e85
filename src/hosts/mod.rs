//! Supervision of isolate hosts.
//!
//! ```text
//!  spawn ──▶ starting ── first heartbeat ──▶ standby ──▶ active ── condemned, silent, replaced ──▶ draining ──▶ SIGKILL
//!    ▲                                          └─────────┴──────── process lost ───────────────────────────▶ gone
//!    └──────────────── one for each that left, sooner or later by how long hosts live ◀────────────────────┘
//! ```
//!
//! Each host has one task, which is the only one that moves it along. Work is handed out by [`Hosts::start`], which never waits:
//! it looks at the slots, and takes the standby itself if the active host is lost and its task has not noticed yet. No listener
//! and no connection is touched by any of this: what was inside ends with `HostFault`, everything else never knows.
//!
//! Tenants are of host classes; each class has hosts, a standby and a back-off of its own, so tenants of different classes
//! never share a process. Within a class, a tenant that ends hosts is moved to one of its own (`penalty.rs`). A rolling
//! restart ([`Hosts::roll`]) replaces every host by a new one, and loses nothing: the old one serves until the new one is
//! ready, and then ends what it runs.

mod backoff;
mod blame;
mod cgroup;
mod output;
mod penalty;
mod process;
mod sandbox;
mod slots;
mod status;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use atoll_bindings::link::{CloseReason, Link, LinkDown, Running, Start};
use atoll_bindings::seam::{Condemned, Heartbeat, InvocationId};
use tokio::process::Child;
use tokio::sync::{Notify, oneshot, watch};

use crate::observe::{HostEnd, HostEvent, Observer};

pub use blame::Blame;
pub use penalty::{Penalty, PenaltyPolicy};
pub use process::HostCommand;
pub use sandbox::{Missing, Sandbox};
pub use slots::Place;
pub use status::{HostStatus, HostsStatus, PenaltyStatus};

use backoff::Backoff;
use blame::Ledger;
use cgroup::{Group, Groups};
use process::Spawned;
use slots::{Generation, Host, HostId, Slots};

/// How often a draining host is looked at, in milliseconds.
const DRAIN_LOOK_MS: u64 = 20;

/// Longest wait for the end of a dead host's socket, in milliseconds: a process that it left behind may hold it open.
const LAST_WORDS_MS_MAX: u64 = 1_000;

/// How often penalties are looked through, in milliseconds.
const PENALTIES_LOOK_MS: u64 = 1_000;

/// Hosts that are alike: what is run, how many, how large.
#[derive(Clone, Debug)]
pub struct HostClass {
    /// Its name; empty for the class of those that name none.
    pub name: String,
    /// What is run.
    pub command: HostCommand,
    /// Active hosts; one more stands by. Tenants are spread over them.
    pub active: usize,
    /// Resident memory at which a host ends itself, in bytes: its cgroup's bound is a little above.
    pub resident_bytes_max: Option<u64>,
}

/// How hosts are supervised.
#[derive(Clone, Debug)]
pub struct HostsConfig {
    /// The hosts of tenants that name no class.
    pub class: HostClass,
    /// Further classes.
    pub classes: Vec<HostClass>,
    /// Which of the further classes a tenant is of.
    pub tenants: HashMap<Arc<str>, String>,
    /// What tenants that end hosts are made to do.
    pub penalties: PenaltyPolicy,
    /// Longest time from spawn to the first heartbeat, in milliseconds.
    pub start_ms_max: u64,
    /// Longest silence between heartbeats, in milliseconds.
    pub silence_ms_max: u64,
    /// Longest time for what is inside a replaced host to finish, in milliseconds.
    pub drain_ms_max: u64,
    /// The same for a host that is replaced by a rolling restart, which nobody waits for.
    pub roll_drain_ms_max: u64,
    /// A host that cannot be confined completely is ended before it serves anybody.
    pub require_sandbox: bool,
}

impl HostsConfig {
    /// This executable, and the usual bounds.
    pub fn own() -> io::Result<Self> {
        Ok(Self {
            class: HostClass {
                name: String::new(),
                command: HostCommand::own()?,
                active: 1,
                resident_bytes_max: None,
            },
            classes: Vec::new(),
            tenants: HashMap::new(),
            penalties: PenaltyPolicy::default(),
            start_ms_max: 15_000,
            silence_ms_max: 3_000,
            drain_ms_max: 10_000,
            roll_drain_ms_max: 15 * 60_000,
            require_sandbox: false,
        })
    }
}

/// Why a host had to go.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Fault {
    #[error("{0}")]
    Closed(CloseReason),
    #[error("it exited ({0})")]
    Exited(std::process::ExitStatus),
    #[error("isolates would not stop")]
    Condemned(Vec<Condemned>),
    #[error("it was silent for too long")]
    Silent,
    #[error("it did not start in time")]
    NotStarted,
    #[error("it is not confined: {0}")]
    NotConfined(String),
    #[error("it was replaced")]
    Retired,
    #[error("the gateway shuts down")]
    Shutdown,
}

/// Where invocations run. Cheap to clone.
#[derive(Clone)]
pub struct Hosts {
    inner: Arc<Inner>,
}

struct Inner {
    /// One for each class, that of those who name none first.
    pools: Vec<Pool>,
    /// Which pool a tenant is of, if not the first.
    pool_of: HashMap<Arc<str>, usize>,
    ledger: Mutex<Ledger>,
    next: AtomicU64,
    lost: AtomicU64,
    /// Hosts that a restart replaced and that still run something.
    draining: AtomicUsize,
    /// How far the latest host is confined.
    sandbox: watch::Sender<Option<Sandbox>>,
    /// Counts changes of the slots.
    changed: watch::Sender<u64>,
    stopping: AtomicBool,
    /// Tells every host's task to end.
    stop: watch::Sender<bool>,
    /// Tasks of hosts, each of which holds one receiver.
    tasks: watch::Sender<()>,
}

/// The hosts of one class.
struct Pool {
    /// The name of the class.
    class: String,
    slots: Mutex<Slots>,
    backoff: Mutex<Backoff>,
    starting: AtomicUsize,
    /// Wakes the spawner: a host is missing.
    missing: Notify,
}

impl Pool {
    fn new(class: String, active: usize) -> Self {
        Self {
            class,
            slots: Mutex::new(Slots::new(active)),
            backoff: Mutex::default(),
            starting: AtomicUsize::new(0),
            missing: Notify::new(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hosts {
    /// Starts the hosts and their supervision, on the current tokio runtime. Returns at once: see [`Hosts::until_ready`].
    #[must_use]
    pub fn spawn(config: HostsConfig, observer: Arc<dyn Observer>) -> Self {
        let classes: Vec<HostClass> =
            std::iter::once(&config.class).chain(&config.classes).cloned().collect();
        let place = |name: &String| classes.iter().position(|class| class.name == *name);
        // A class that is not there cannot be a tenant's: the configuration was checked.
        let pool_of = config.tenants.iter().filter_map(|(tenant, name)| Some((tenant.clone(), place(name)?)));
        let pools = classes.iter().map(|class| Pool::new(class.name.clone(), class.active)).collect();
        let inner = Inner::new(pools, pool_of.collect(), config.penalties);
        let config = Arc::new(config);
        let groups = Arc::new(Groups::find());
        for (pool, class) in classes.into_iter().enumerate() {
            let spawner = Spawner {
                inner: Arc::clone(&inner),
                pool,
                class,
                config: Arc::clone(&config),
                observer: Arc::clone(&observer),
                groups: Arc::clone(&groups),
            };
            tokio::spawn(spawner.run());
        }
        tokio::spawn(penalise(Arc::clone(&inner), observer));
        Self { inner }
    }

    /// One host in this process, with nothing to supervise.
    #[must_use]
    pub fn in_process(link: Link) -> Self {
        let inner = Inner::new(vec![Pool::new(String::new(), 1)], HashMap::new(), PenaltyPolicy::default());
        let (retire, lease) = Default::default();
        let born = Instant::now();
        let host =
            Host { id: HostId(0), link, generation: Generation::default(), pid: 0, born, retire, lease };
        lock(&inner.pools[0].slots).add(host);
        inner.sandbox.send_replace(Some(Sandbox::none("guests run in the gateway's process")));
        Self { inner }
    }

    /// Whether the code of these two tenants may be in one process: they are of one class, and neither was moved away.
    #[must_use]
    pub fn may_share(&self, one: &str, other: &str) -> bool {
        let free = |tenant| self.penalty(tenant) == Penalty::Free;
        one == other
            || (std::ptr::eq(self.inner.pool(one), self.inner.pool(other)) && free(one) && free(other))
    }

    /// Starts an invocation on the host of its tenant. Never waits.
    pub fn start(&self, start: Start) -> Result<Running, LinkDown> {
        let tenant = &start.identity.tenant;
        let down = LinkDown { reason: CloseReason::NotReady };
        let pool = self.inner.pool(tenant);
        // Hosts are everybody's: a tenant that ends them is moved away, and in the end waits.
        match lock(&self.inner.ledger).penalty(tenant, Instant::now()) {
            Penalty::Free => {}
            Penalty::Quarantined => lock(&pool.slots).quarantine(tenant),
            Penalty::Suspended { .. } => return Err(down),
        }
        let host = lock(&pool.slots).pick(tenant).ok_or(down)?;
        // The lease is held until the invocation is inside: a host that is being replaced waits for it.
        host.link.start(start)
    }

    /// For how long this tenant's work is not taken, in milliseconds.
    #[must_use]
    pub fn suspended_ms(&self, tenant: &str) -> Option<u64> {
        match lock(&self.inner.ledger).penalty(tenant, Instant::now()) {
            Penalty::Suspended { left_ms } => Some(left_ms),
            Penalty::Free | Penalty::Quarantined => None,
        }
    }

    /// What this tenant is made to do now.
    #[must_use]
    pub fn penalty(&self, tenant: &str) -> Penalty {
        lock(&self.inner.ledger).penalty(tenant, Instant::now())
    }

    /// Begins to replace every host by a new one, one after the other in each class. No request is lost by it.
    pub fn roll(&self) {
        tracing::info!("replacing every isolate host");
        for pool in &self.inner.pools {
            lock(&pool.slots).roll();
            pool.missing.notify_one();
        }
    }

    /// Waits until every host was started after the last roll.
    pub async fn until_rolled(&self) {
        self.until(|hosts| hosts.inner.pools.iter().all(|pool| !lock(&pool.slots).has_old())).await;
    }

    /// Drops the warm isolate of this name, wherever it is, once it is idle.
    pub fn evict(&self, key: &Arc<str>) {
        for pool in &self.inner.pools {
            lock(&pool.slots).active().for_each(|host| host.link.evict(Arc::clone(key)));
        }
    }

    /// Whether work can be taken now.
    #[must_use]
    pub fn ready(&self) -> bool {
        // One class that lost everything is not the whole server.
        lock(&self.inner.pools[0].slots).is_ready()
    }

    /// Whether a standby waits.
    #[must_use]
    pub fn has_standby(&self) -> bool {
        self.inner.pools.iter().all(|pool| lock(&pool.slots).has_standby())
    }

    /// Waits until work can be taken.
    pub async fn until_ready(&self) {
        self.until(Self::ready).await;
    }

    /// Waits until a standby waits.
    pub async fn until_standby(&self) {
        self.until(Self::has_standby).await;
    }

    async fn until(&self, holds: impl Fn(&Self) -> bool) {
        let mut changed = self.inner.changed.subscribe();
        while !holds(self) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// The latest state of each active host.
    #[must_use]
    pub fn heartbeats(&self) -> Vec<Heartbeat> {
        let beats = |pool: &Pool| -> Vec<Heartbeat> {
            lock(&pool.slots).active().map(|host| host.link.heartbeat()).collect()
        };
        self.inner.pools.iter().flat_map(beats).collect()
    }

    /// Invocations that have not ended, on the active hosts.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        let inside =
            |pool: &Pool| -> usize { lock(&pool.slots).active().map(|host| host.link.in_flight()).sum() };
        self.inner.pools.iter().map(inside).sum()
    }

    /// Hosts lost or replaced so far.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.inner.lost.load(Ordering::SeqCst)
    }

    /// What is on record about a tenant.
    #[must_use]
    pub fn blame(&self, tenant: &str) -> Blame {
        lock(&self.inner.ledger).of(tenant)
    }

    /// How far the latest host is confined; `None` before the first one said it.
    #[must_use]
    pub fn sandbox(&self) -> Option<Sandbox> {
        self.inner.sandbox.borrow().clone()
    }

    /// Waits until a host said how far it is confined.
    pub async fn until_sandbox(&self) -> Sandbox {
        let mut sandbox = self.inner.sandbox.subscribe();
        match sandbox.wait_for(Option::is_some).await {
            Ok(sandbox) => sandbox.clone().unwrap_or_default(),
            Err(_) => std::future::pending().await, // this handle keeps the sender
        }
    }

    /// Lets what runs finish within the configured time, then ends every host, and waits until all processes are gone.
    pub async fn shutdown(&self) {
        self.inner.stopping.store(true, Ordering::SeqCst);
        self.inner.stop.send_replace(true);
        self.inner.pools.iter().for_each(|pool| pool.missing.notify_one());
        self.inner.tasks.closed().await;
        for host in self.inner.pools.iter().flat_map(|pool| lock(&pool.slots).take_all()) {
            host.link.close();
        }
    }
}

impl fmt::Debug for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hosts")
            .field("ready", &self.ready())
            .field("lost", &self.lost())
            .finish_non_exhaustive()
    }
}

impl Inner {
    fn new(pools: Vec<Pool>, pool_of: HashMap<Arc<str>, usize>, penalties: PenaltyPolicy) -> Arc<Self> {
        Arc::new(Self {
            pools,
            pool_of,
            ledger: Mutex::new(Ledger::new(penalties)),
            next: AtomicU64::new(1),
            lost: AtomicU64::new(0),
            draining: AtomicUsize::new(0),
            sandbox: watch::Sender::new(None),
            changed: watch::Sender::new(0),
            stopping: AtomicBool::new(false),
            stop: watch::Sender::new(false),
            tasks: watch::Sender::new(()),
        })
    }

    fn pool(&self, tenant: &str) -> &Pool {
        // Most servers have one class, and then nothing is looked up.
        if self.pools.len() == 1 {
            return &self.pools[0];
        }
        &self.pools[self.pool_of.get(tenant).copied().unwrap_or(0)]
    }

    fn changed(&self, pool: usize) {
        self.changed.send_modify(|count| *count += 1);
        self.pools[pool].missing.notify_one();
    }
}

async fn until_stop(stop: &mut watch::Receiver<bool>) {
    // An error means that nobody is left to shut down for: the task's own reference makes that impossible.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Tells penalties as they begin, and ends them when their time is up.
async fn penalise(inner: Arc<Inner>, observer: Arc<dyn Observer>) {
    let mut told: BTreeMap<Arc<str>, Penalty> = BTreeMap::new();
    let mut stop = inner.stop.subscribe();
    let mut ticks = tokio::time::interval(Duration::from_millis(PENALTIES_LOOK_MS));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = until_stop(&mut stop) => return,
        }
        let now = lock(&inner.ledger).penalties(Instant::now());
        for (tenant, penalty) in &now {
            if told.get(tenant).is_none_or(|before| before.name() != penalty.name()) {
                observer.penalty(tenant, *penalty);
            }
        }
        for tenant in told.keys().filter(|tenant| !now.contains_key(*tenant)) {
            observer.penalty(tenant, Penalty::Free);
            let left = lock(&inner.pool(tenant).slots).release(tenant);
            if let Some(host) = left {
                host.retire.notify_one();
            }
        }
        told = now;
    }
}

/// Keeps every slot of one class, and its standby, filled.
struct Spawner {
    inner: Arc<Inner>,
    pool: usize,
    class: HostClass,
    config: Arc<HostsConfig>,
    observer: Arc<dyn Observer>,
    groups: Arc<io::Result<Groups>>,
}

impl Spawner {
    async fn run(self) {
        let pool = &self.inner.pools[self.pool];
        loop {
            if self.inner.stopping.load(Ordering::SeqCst) {
                return;
            }
            let starting = pool.starting.load(Ordering::SeqCst);
            if lock(&pool.slots).missing(starting) == 0 {
                pool.missing.notified().await;
                continue;
            }
            let wait = lock(&pool.backoff).wait();
            if !wait.is_zero() {
                tracing::warn!(
                    wait_ms = wait.as_millis() as u64,
                    "isolate hosts die young; the next one waits"
                );
                tokio::time::sleep(wait).await;
                if self.inner.stopping.load(Ordering::SeqCst) {
                    return;
                }
            }
            if let Err(error) = self.spawn(pool) {
                tracing::error!(%error, "an isolate host cannot be started");
                lock(&pool.backoff).lost_after(Duration::ZERO);
                // Also before the backoff bites: a program that is not there is not there a moment later.
                tokio::time::sleep(Duration::from_millis(DRAIN_LOOK_MS)).await;
            }
        }
    }

    fn spawn(&self, pool: &Pool) -> io::Result<()> {
        let generation = lock(&pool.slots).generation();
        let Spawned { link, child, pid, sandbox } = self.class.command.spawn()?;
        pool.starting.fetch_add(1, Ordering::SeqCst);
        let id = HostId(self.inner.next.fetch_add(1, Ordering::Relaxed));
        let (retire, lease) = Default::default();
        let life = Life {
            inner: Arc::clone(&self.inner),
            pool: self.pool,
            config: Arc::clone(&self.config),
            observer: Arc::clone(&self.observer),
            host: Host { id, link, generation, pid, born: Instant::now(), retire, lease },
            child,
            group: grouped(&self.groups, id, pid, self.class.resident_bytes_max),
            sandbox,
        };
        let alive = self.inner.tasks.subscribe();
        tokio::spawn(async move {
            life.run().await;
            drop(alive);
        });
        Ok(())
    }
}

/// A cgroup with a host in it, or why there is none.
fn grouped(
    groups: &io::Result<Groups>,
    id: HostId,
    pid: u32,
    resident_bytes_max: Option<u64>,
) -> Result<Group, String> {
    let groups = groups.as_ref().map_err(ToString::to_string)?;
    let group = groups.make(id.0, resident_bytes_max).map_err(|error| error.to_string())?;
    group.add(pid).map_err(|error| error.to_string())?;
    Ok(group)
}

/// One host, from spawn to its end.
struct Life {
    inner: Arc<Inner>,
    pool: usize,
    config: Arc<HostsConfig>,
    observer: Arc<dyn Observer>,
    host: Host,
    child: Child,
    group: Result<Group, String>,
    sandbox: oneshot::Receiver<Sandbox>,
}

impl Life {
    async fn run(mut self) {
        let born = Instant::now();
        let pid = self.child.id().unwrap_or_default();
        let ready = self.first_heartbeat().await;
        self.pool().starting.fetch_sub(1, Ordering::SeqCst);
        let ready = match ready {
            Ok(()) => self.confined().await,
            fault => fault.map(|()| String::new()),
        };
        let fault = match ready {
            Err(fault) => fault,
            Ok(unconfined) => {
                let start_ms = u64::try_from(born.elapsed().as_millis()).unwrap_or(u64::MAX);
                self.observer.host(&HostEvent::Started { pid, start_ms, unconfined: &unconfined });
                let displaced = lock(&self.pool().slots).add(self.host.clone());
                self.inner.changed(self.pool);
                if let Some(host) = displaced {
                    host.retire.notify_one();
                }
                self.watch().await
            }
        };
        lock(&self.pool().slots).remove(self.host.id);
        if fault == Fault::Retired {
            let inside = self.host.link.in_flight();
            let end = HostEnd { pid, reason: &fault.to_string(), inside, tenants: "" };
            self.observer.host(&HostEvent::Retired(end));
        }
        if !matches!(fault, Fault::Shutdown | Fault::Retired) {
            // Where one tenant is to blame, that tenant waits and not the next host.
            if !self.record(&fault, pid) {
                lock(&self.pool().backoff).lost_after(born.elapsed());
            }
            self.inner.lost.fetch_add(1, Ordering::SeqCst);
        }
        self.inner.changed(self.pool);
        self.end(&fault).await;
    }

    fn pool(&self) -> &Pool {
        &self.inner.pools[self.pool]
    }

    async fn first_heartbeat(&mut self) -> Result<(), Fault> {
        let mut beats = self.host.link.heartbeats();
        let mut stop = self.inner.stop.subscribe();
        let limit = Duration::from_millis(self.config.start_ms_max);
        tokio::select! {
            _ = beats.changed() => Ok(()),
            reason = self.host.link.closed() => Err(Fault::Closed(reason)),
            () = tokio::time::sleep(limit) => Err(Fault::NotStarted),
            () = until_stop(&mut stop) => Err(Fault::Shutdown),
        }
    }

    /// How far the host is confined: the names of what is missing, if that is allowed.
    async fn confined(&mut self) -> Result<String, Fault> {
        let limit = Duration::from_millis(LAST_WORDS_MS_MAX);
        let mut sandbox = match tokio::time::timeout(limit, &mut self.sandbox).await {
            Ok(Ok(sandbox)) => sandbox,
            Ok(Err(_)) | Err(_) => Sandbox::none("the host does not say"),
        };
        if let Err(reason) = &self.group {
            sandbox.missing.push(Missing { layer: "cgroup".into(), reason: reason.clone() });
        }
        let (names, reasons) = (sandbox.names(), sandbox.reasons());
        let changed = self.inner.sandbox.send_replace(Some(sandbox.clone())) != Some(sandbox);
        if names.is_empty() {
            return Ok(names);
        }
        if self.config.require_sandbox {
            return Err(Fault::NotConfined(reasons));
        }
        if changed {
            tracing::warn!(missing = %reasons, "isolate hosts are not confined completely");
        }
        Ok(names)
    }

    /// Until something is wrong with it.
    async fn watch(&mut self) -> Fault {
        let mut beats = self.host.link.heartbeats();
        let mut stop = self.inner.stop.subscribe();
        let limit = Duration::from_millis(self.config.silence_ms_max);
        loop {
            let condemned = beats.borrow_and_update().condemned.clone();
            if !condemned.is_empty() {
                return Fault::Condemned(condemned);
            }
            tokio::select! {
                changed = beats.changed() => if changed.is_err() {
                    return Fault::Closed(CloseReason::Closed);
                },
                reason = self.host.link.closed() => return Fault::Closed(reason),
                exited = self.child.wait() => {
                    // What it said last is still in the socket.
                    let limit = Duration::from_millis(LAST_WORDS_MS_MAX);
                    let _ = tokio::time::timeout(limit, self.host.link.closed()).await;
                    return match exited {
                        Ok(status) => Fault::Exited(status),
                        Err(_) => Fault::Closed(CloseReason::HostGone),
                    };
                }
                () = tokio::time::sleep(limit) => return Fault::Silent,
                () = self.host.retire.notified() => return Fault::Retired,
                () = until_stop(&mut stop) => return Fault::Shutdown,
            }
        }
    }

    /// Says who was inside. True if one tenant alone is to blame.
    fn record(&self, fault: &Fault, pid: u32) -> bool {
        // Ends what is inside a host that is already dead, so that the link knows who was there.
        if !matches!(fault, Fault::Condemned(_) | Fault::Silent) {
            self.host.link.close();
        }
        let inside = self.host.link.inside();
        let tenants = {
            let mut ledger = lock(&self.inner.ledger);
            match fault {
                Fault::Condemned(named) => ledger.condemned(&ids(named), &inside),
                _ => ledger.died(&inside),
            }
        };
        let one = tenants.len() == 1;
        let tenants: Vec<_> = tenants.iter().map(AsRef::as_ref).collect();
        let tenants = tenants.join(" ");
        let reason = fault.to_string();
        let end = HostEnd { pid, reason: &reason, inside: inside.len(), tenants: &tenants };
        self.observer.host(&match fault {
            Fault::Condemned(_) => HostEvent::Condemned(end),
            _ => HostEvent::Lost(end),
        });
        one
    }

    /// Answers the condemned at once, lets the good ones finish, then kills.
    async fn end(mut self, fault: &Fault) {
        if let Fault::Condemned(named) = fault {
            self.host.link.give_up(named);
        }
        if *fault == Fault::Retired {
            self.inner.draining.fetch_add(1, Ordering::SeqCst);
            self.retired().await;
            self.inner.draining.fetch_sub(1, Ordering::SeqCst);
        }
        if matches!(fault, Fault::Condemned(_) | Fault::Silent | Fault::Shutdown) {
            self.host.link.drain();
            let limit = Duration::from_millis(self.config.drain_ms_max);
            tokio::select! {
                _ = tokio::time::timeout(limit, self.drained()) => {}
                _ = self.host.link.closed() => {}
            }
        }
        self.host.link.close();
        if let Err(error) = self.child.kill().await {
            tracing::debug!(%error, "an isolate host was gone before it was killed");
        }
        if let Ok(group) = self.group {
            group.ended().await;
        }
    }

    /// Until nobody starts anything there any more and all that runs has ended, or the gateway shuts down.
    async fn retired(&self) {
        let mut stop = self.inner.stop.subscribe();
        let mut limit = Duration::from_millis(self.config.roll_drain_ms_max);
        let ended = async {
            // Out of its place, nobody gets a new lease: only this task's own is left.
            while Arc::strong_count(&self.host.lease) > 1 {
                tokio::time::sleep(Duration::from_millis(DRAIN_LOOK_MS)).await;
            }
            self.drained().await;
        };
        tokio::pin!(ended);
        tokio::select! {
            _ = tokio::time::timeout(limit, &mut ended) => return,
            _ = self.host.link.closed() => return,
            () = until_stop(&mut stop) => {}
        }
        self.host.link.drain();
        limit = Duration::from_millis(self.config.drain_ms_max);
        tokio::select! {
            _ = tokio::time::timeout(limit, ended) => {}
            _ = self.host.link.closed() => {}
        }
    }

    /// Until nothing is inside any more. What is condemned meanwhile is answered and blamed as well.
    async fn drained(&self) {
        let mut known = 0;
        while self.host.link.in_flight() > 0 {
            let condemned = self.host.link.heartbeat().condemned;
            if condemned.len() > known {
                known = condemned.len();
                // Those named before are not inside any more, so nobody is blamed twice.
                lock(&self.inner.ledger).condemned(&ids(&condemned), &self.host.link.inside());
                self.host.link.give_up(&condemned);
            }
            tokio::time::sleep(Duration::from_millis(DRAIN_LOOK_MS)).await;
        }
    }
}

fn ids(condemned: &[Condemned]) -> Vec<InvocationId> {
    condemned.iter().map(|condemned| condemned.invocation).collect()
}
