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
mod config;
mod life;
mod output;
mod penalty;
mod process;
mod sandbox;
mod slots;
mod spawner;
mod status;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use atoll_bindings::link::{CloseReason, Link, LinkDown, Running, Start};
use atoll_bindings::seam::Heartbeat;
use tokio::sync::{Notify, watch};

use crate::observe::Observer;

pub use blame::Blame;
pub use config::{HostClass, HostsConfig};
pub use penalty::{Penalty, PenaltyPolicy};
pub use process::HostCommand;
pub use sandbox::{Missing, Sandbox};
pub use slots::Place;
pub use status::{HostStatus, HostsStatus, PenaltyStatus};

use backoff::Backoff;
use blame::Ledger;
use cgroup::Groups;
use slots::{Generation, Host, HostId, Slots};
use spawner::Spawner;

/// How often penalties are looked through, in milliseconds.
const PENALTIES_LOOK_MS: u64 = 1_000;
/// Longest wait of work for a host that takes the place of a lost one.
const HOST_WAIT_MAX: Duration = Duration::from_secs(2);

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

    /// Resolves when there is a host for this tenant's work, if there is none now and one is on its way; after
    /// [`HOST_WAIT_MAX`] in any case. `None`: there is nothing to wait for.
    pub fn soon(&self, tenant: &str) -> Option<impl Future<Output = ()>> {
        let settled = |hosts: &Self| hosts.takes(tenant) || !hosts.expects(tenant);
        if settled(self) {
            return None;
        }
        Some(async move {
            let _late = tokio::time::timeout(HOST_WAIT_MAX, self.until(settled)).await;
        })
    }

    /// Whether there is a host for this tenant's work, or a reason to refuse it at once.
    fn takes(&self, tenant: &str) -> bool {
        let slots = &self.inner.pool(tenant).slots;
        let penalty = lock(&self.inner.ledger).penalty(tenant, Instant::now());
        match penalty {
            Penalty::Suspended { .. } => return true,
            Penalty::Quarantined => lock(slots).quarantine(&Arc::from(tenant)),
            Penalty::Free => {}
        }
        lock(slots).takes(tenant)
    }

    /// Whether a host of this tenant's class is being started, or will be soon.
    fn expects(&self, tenant: &str) -> bool {
        let pool = self.inner.pool(tenant);
        let starts = pool.starting.load(Ordering::SeqCst) > 0 || lock(&pool.backoff).wait() < HOST_WAIT_MAX;
        starts && !self.inner.stopping.load(Ordering::SeqCst)
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
