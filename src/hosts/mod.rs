//! Supervision of isolate hosts.
//!
//! ```text
//!  spawn ──▶ starting ── first heartbeat ──▶ standby ──▶ active ── condemned, silent ──▶ draining ──▶ SIGKILL
//!    ▲                                          └─────────┴──────── process lost ───────────────────────▶ gone
//!    └──────────────── one for each that left, sooner or later by how long hosts live ◀────────────────────┘
//! ```
//!
//! Each host has one task, which is the only one that moves it along. Work is handed out by [`Hosts::start`], which never waits:
//! it looks at the slots, and takes the standby itself if the active host is lost and its task has not noticed yet. No listener
//! and no connection is touched by any of this: what was inside ends with `HostFault`, everything else never knows.

mod backoff;
mod blame;
mod cgroup;
mod output;
mod process;
mod sandbox;
mod slots;
#[cfg(test)]
mod tests;

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
pub use process::HostCommand;
pub use sandbox::{Missing, Sandbox};

use backoff::Backoff;
use blame::Ledger;
use cgroup::{Group, Groups};
use process::Spawned;
use slots::{Host, HostId, Slots};

/// How often a draining host is looked at, in milliseconds.
const DRAIN_LOOK_MS: u64 = 20;

/// Longest wait for the end of a dead host's socket, in milliseconds: a process that it left behind may hold it open.
const LAST_WORDS_MS_MAX: u64 = 1_000;

/// How hosts are supervised.
#[derive(Clone, Debug)]
pub struct HostsConfig {
    /// What is run.
    pub command: HostCommand,
    /// Active hosts; one more stands by. Tenants are spread over them.
    pub active: usize,
    /// Longest time from spawn to the first heartbeat, in milliseconds.
    pub start_ms_max: u64,
    /// Longest silence between heartbeats, in milliseconds.
    pub silence_ms_max: u64,
    /// Longest time for what is inside a replaced host to finish, in milliseconds.
    pub drain_ms_max: u64,
    /// Resident memory at which a host ends itself, in bytes: its cgroup's bound is a little above.
    pub resident_bytes_max: Option<u64>,
    /// A host that cannot be confined completely is ended before it serves anybody.
    pub require_sandbox: bool,
}

impl HostsConfig {
    /// This executable, and the usual bounds.
    pub fn own() -> io::Result<Self> {
        Ok(Self {
            command: HostCommand::own()?,
            active: 1,
            start_ms_max: 15_000,
            silence_ms_max: 3_000,
            drain_ms_max: 10_000,
            resident_bytes_max: None,
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
    #[error("the gateway shuts down")]
    Shutdown,
}

/// Where invocations run. Cheap to clone.
#[derive(Clone)]
pub struct Hosts {
    inner: Arc<Inner>,
}

struct Inner {
    slots: Mutex<Slots>,
    ledger: Mutex<Ledger>,
    backoff: Mutex<Backoff>,
    starting: AtomicUsize,
    next: AtomicU64,
    lost: AtomicU64,
    /// Wakes the spawner: a host is missing.
    missing: Notify,
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hosts {
    /// Starts the hosts and their supervision, on the current tokio runtime. Returns at once: see [`Hosts::until_ready`].
    #[must_use]
    pub fn spawn(config: HostsConfig, observer: Arc<dyn Observer>) -> Self {
        let inner = Inner::new(config.active);
        tokio::spawn(spawn_missing(Arc::clone(&inner), Arc::new(config), observer));
        Self { inner }
    }

    /// One host in this process, with nothing to supervise.
    #[must_use]
    pub fn in_process(link: Link) -> Self {
        let inner = Inner::new(1);
        lock(&inner.slots).add(Host { id: HostId(0), link });
        inner.sandbox.send_replace(Some(Sandbox::none("guests run in the gateway's process")));
        Self { inner }
    }

    /// Hosts are everybody's: a tenant that ends them faster than they come back waits.
    #[must_use]
    pub fn bars(&self, tenant: &str) -> bool {
        lock(&self.inner.ledger).is_barred(tenant, Instant::now())
    }

    /// Starts an invocation on the host of its tenant. Never waits.
    pub fn start(&self, start: Start) -> Result<Running, LinkDown> {
        if self.bars(&start.identity.tenant) {
            return Err(LinkDown { reason: CloseReason::NotReady });
        }
        let link = lock(&self.inner.slots).pick(&start.identity.tenant);
        link.ok_or(LinkDown { reason: CloseReason::NotReady })?.start(start)
    }

    /// Drops the warm isolate of this name, wherever it is, once it is idle.
    pub fn evict(&self, key: &Arc<str>) {
        for host in lock(&self.inner.slots).active() {
            host.link.evict(Arc::clone(key));
        }
    }

    /// Whether work can be taken now.
    #[must_use]
    pub fn ready(&self) -> bool {
        lock(&self.inner.slots).active().next().is_some()
    }

    /// Whether a standby waits.
    #[must_use]
    pub fn has_standby(&self) -> bool {
        lock(&self.inner.slots).has_standby()
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
        lock(&self.inner.slots).active().map(|host| host.link.heartbeat()).collect()
    }

    /// Invocations that have not ended, on the active hosts.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        lock(&self.inner.slots).active().map(|host| host.link.in_flight()).sum()
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
        self.inner.missing.notify_one();
        self.inner.tasks.closed().await;
        for host in lock(&self.inner.slots).take_all() {
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
    fn new(active: usize) -> Arc<Self> {
        Arc::new(Self {
            slots: Mutex::new(Slots::new(active)),
            ledger: Mutex::default(),
            backoff: Mutex::default(),
            starting: AtomicUsize::new(0),
            next: AtomicU64::new(1),
            lost: AtomicU64::new(0),
            missing: Notify::new(),
            sandbox: watch::Sender::new(None),
            changed: watch::Sender::new(0),
            stopping: AtomicBool::new(false),
            stop: watch::Sender::new(false),
            tasks: watch::Sender::new(()),
        })
    }

    fn changed(&self) {
        self.changed.send_modify(|count| *count += 1);
        self.missing.notify_one();
    }
}

async fn until_stop(stop: &mut watch::Receiver<bool>) {
    // An error means that nobody is left to shut down for: the task's own reference makes that impossible.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Keeps every slot and the standby filled.
async fn spawn_missing(inner: Arc<Inner>, config: Arc<HostsConfig>, observer: Arc<dyn Observer>) {
    let groups = Groups::find();
    loop {
        if inner.stopping.load(Ordering::SeqCst) {
            return;
        }
        let starting = inner.starting.load(Ordering::SeqCst);
        if lock(&inner.slots).missing(starting) == 0 {
            inner.missing.notified().await;
            continue;
        }
        let wait = lock(&inner.backoff).wait();
        if !wait.is_zero() {
            tracing::warn!(wait_ms = wait.as_millis() as u64, "isolate hosts die young; the next one waits");
            tokio::time::sleep(wait).await;
            if inner.stopping.load(Ordering::SeqCst) {
                return;
            }
        }
        match config.command.spawn() {
            Ok(Spawned { link, child, pid, sandbox }) => {
                inner.starting.fetch_add(1, Ordering::SeqCst);
                let id = HostId(inner.next.fetch_add(1, Ordering::Relaxed));
                let group = grouped(&groups, id, pid, config.resident_bytes_max);
                let life = Life {
                    inner: Arc::clone(&inner),
                    config: Arc::clone(&config),
                    observer: Arc::clone(&observer),
                    id,
                    link,
                    child,
                    group,
                    sandbox,
                };
                let alive = inner.tasks.subscribe();
                tokio::spawn(async move {
                    life.run().await;
                    drop(alive);
                });
            }
            Err(error) => {
                tracing::error!(%error, "an isolate host cannot be started");
                lock(&inner.backoff).lost_after(Duration::ZERO);
                // Also before the backoff bites: a program that is not there is not there a moment later.
                tokio::time::sleep(Duration::from_millis(DRAIN_LOOK_MS)).await;
            }
        }
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
    config: Arc<HostsConfig>,
    observer: Arc<dyn Observer>,
    id: HostId,
    link: Link,
    child: Child,
    group: Result<Group, String>,
    sandbox: oneshot::Receiver<Sandbox>,
}

impl Life {
    async fn run(mut self) {
        let born = Instant::now();
        let pid = self.child.id().unwrap_or_default();
        let ready = self.first_heartbeat().await;
        self.inner.starting.fetch_sub(1, Ordering::SeqCst);
        let ready = match ready {
            Ok(()) => self.confined().await,
            fault => fault.map(|()| String::new()),
        };
        let fault = match ready {
            Err(fault) => fault,
            Ok(unconfined) => {
                let start_ms = u64::try_from(born.elapsed().as_millis()).unwrap_or(u64::MAX);
                self.observer.host(&HostEvent::Started { pid, start_ms, unconfined: &unconfined });
                lock(&self.inner.slots).add(Host { id: self.id, link: self.link.clone() });
                self.inner.changed();
                self.watch().await
            }
        };
        lock(&self.inner.slots).remove(self.id);
        if fault != Fault::Shutdown {
            // Where one tenant is to blame, that tenant waits and not the next host.
            if !self.record(&fault, pid) {
                lock(&self.inner.backoff).lost_after(born.elapsed());
            }
            self.inner.lost.fetch_add(1, Ordering::SeqCst);
        }
        self.inner.changed();
        self.end(&fault).await;
    }

    async fn first_heartbeat(&mut self) -> Result<(), Fault> {
        let mut beats = self.link.heartbeats();
        let mut stop = self.inner.stop.subscribe();
        let limit = Duration::from_millis(self.config.start_ms_max);
        tokio::select! {
            _ = beats.changed() => Ok(()),
            reason = self.link.closed() => Err(Fault::Closed(reason)),
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
        let mut beats = self.link.heartbeats();
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
                reason = self.link.closed() => return Fault::Closed(reason),
                exited = self.child.wait() => {
                    // What it said last is still in the socket.
                    let limit = Duration::from_millis(LAST_WORDS_MS_MAX);
                    let _ = tokio::time::timeout(limit, self.link.closed()).await;
                    return match exited {
                        Ok(status) => Fault::Exited(status),
                        Err(_) => Fault::Closed(CloseReason::HostGone),
                    };
                }
                () = tokio::time::sleep(limit) => return Fault::Silent,
                () = until_stop(&mut stop) => return Fault::Shutdown,
            }
        }
    }

    /// Says who was inside. True if one tenant alone is to blame.
    fn record(&self, fault: &Fault, pid: u32) -> bool {
        // Ends what is inside a host that is already dead, so that the link knows who was there.
        if !matches!(fault, Fault::Condemned(_) | Fault::Silent) {
            self.link.close();
        }
        let inside = self.link.inside();
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
            self.link.give_up(named);
        }
        if matches!(fault, Fault::Condemned(_) | Fault::Silent | Fault::Shutdown) {
            self.link.drain();
            let limit = Duration::from_millis(self.config.drain_ms_max);
            tokio::select! {
                _ = tokio::time::timeout(limit, self.drained()) => {}
                _ = self.link.closed() => {}
            }
        }
        self.link.close();
        if let Err(error) = self.child.kill().await {
            tracing::debug!(%error, "an isolate host was gone before it was killed");
        }
        if let Ok(group) = self.group {
            group.ended().await;
        }
    }

    /// Until nothing is inside any more. What is condemned meanwhile is answered and blamed as well.
    async fn drained(&self) {
        let mut known = 0;
        while self.link.in_flight() > 0 {
            let condemned = self.link.heartbeat().condemned;
            if condemned.len() > known {
                known = condemned.len();
                // Those named before are not inside any more, so nobody is blamed twice.
                lock(&self.inner.ledger).condemned(&ids(&condemned), &self.link.inside());
                self.link.give_up(&condemned);
            }
            tokio::time::sleep(Duration::from_millis(DRAIN_LOOK_MS)).await;
        }
    }
}

fn ids(condemned: &[Condemned]) -> Vec<InvocationId> {
    condemned.iter().map(|condemned| condemned.invocation).collect()
}
