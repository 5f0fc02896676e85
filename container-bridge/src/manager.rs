//! One sandbox per tenant and user: made on first use, ended on every path, metered.
//!
//! ```text
//!  acquire(tenant, user) ─▶ table ─▶ driver task, one per sandbox: feeds the life cycle, launches, samples, stops
//!         │                              │
//!         └── Lease (a use) ◀── watch ───┘
//! ```
//!
//! A [`Lease`] is a use: while one lives, the sandbox is not idle; dropping it is the end of the use, also when the
//! caller fails. Dropping the [`Manager`] ends all drivers, each driver's end hangs up its sandbox's socket, and a
//! sandbox without a socket ends by itself. Times are of the monotonic clock ([`tokio::time::Instant`]).

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

pub use crate::backend::Owner;
use crate::{
    backend::{Backend, Launched, SandboxId, SandboxSpec},
    error::{Code, Result, SandboxError},
    lifecycle::{Action, Ending, Event, Lifecycle, State, Terms},
    limits::{ID_BYTES_MAX, IDLE_DEFAULT, SANDBOXES_MAX, SANDBOXES_PER_TENANT_MAX},
    sandbox::Sandbox,
};

/// Time between two samples of a sandbox's memory.
const SAMPLE: Duration = Duration::from_secs(1);
/// Time between two runs of the reaper.
const REAP: Duration = Duration::from_secs(60);
/// Uses that begin or end while the driver is busy.
const USES_QUEUED_MAX: usize = 64;
/// Callers that wait to be told what a sandbox has used.
const ASKS_QUEUED_MAX: usize = 64;

/// A manager's bounds.
#[derive(Clone, Copy, Debug)]
pub struct ManagerConfig {
    /// Most sandboxes at once.
    pub sandboxes_max: usize,
    /// Most sandboxes of one tenant at once.
    pub sandboxes_per_tenant_max: usize,
    /// Longest time without use.
    pub idle: Duration,
}

impl Default for ManagerConfig {
    fn default() -> Self {
        Self {
            sandboxes_max: SANDBOXES_MAX,
            sandboxes_per_tenant_max: SANDBOXES_PER_TENANT_MAX,
            idle: IDLE_DEFAULT,
        }
    }
}

/// What one sandbox has used in its life so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time, in microseconds.
    pub cpu_us: u64,
    /// Memory held over time, in byte-seconds, sampled each second and whenever somebody asks.
    pub memory_byte_seconds: u64,
    /// Memory held at the last look, in bytes.
    pub memory_bytes: u64,
    /// Most memory held at once, in bytes.
    pub memory_bytes_peak: u64,
    /// Processes that were ended because the memory was used up.
    pub oom_kills: u64,
    /// Life so far, in microseconds.
    pub wall_us: u64,
    /// Bytes sent into it.
    pub bytes_in: u64,
    /// Bytes received from it.
    pub bytes_out: u64,
    /// Uses so far.
    pub uses: u64,
}

/// One sandbox from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Its name, unique on the machine.
    pub id: SandboxId,
    /// Where it is in its life.
    pub state: Phase,
    /// Since it was asked for.
    pub age: Duration,
    /// Its longest life.
    pub lifetime: Duration,
    /// What it had used at the last look.
    pub usage: Usage,
}

/// Where a sandbox is in its life, as far as others need to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It is being made.
    Starting,
    /// It can be used.
    Running,
    /// It is being removed.
    Stopping,
}

/// Something worth an audit line. Every use of the bridge is one.
#[allow(missing_docs, reason = "the fields are told by the variants' texts")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditEvent {
    /// A sandbox was made.
    Started { owner: Owner, sandbox: SandboxId },
    /// It could not be made.
    StartFailed { owner: Owner, sandbox: SandboxId, error: SandboxError },
    /// Somebody began to use it.
    Used { owner: Owner, sandbox: SandboxId },
    /// A use was refused because of a bound.
    Refused { owner: Owner, code: Code },
    /// It is over, after using this much.
    Ended { owner: Owner, sandbox: SandboxId, why: Ending, usage: Usage },
}

type Audit = Arc<dyn Fn(AuditEvent) + Send + Sync>;

/// All sandboxes of this process.
#[derive(Clone)]
pub struct Manager(Arc<Inner>);

struct Inner {
    backend: Arc<dyn Backend>,
    config: ManagerConfig,
    audit: Audit,
    table: Mutex<HashMap<Owner, Arc<Entry>>>,
}

struct Entry {
    id: SandboxId,
    events: mpsc::Sender<Event>,
    asks: mpsc::Sender<Ask>,
    status: watch::Receiver<Status>,
    usage: Arc<Meter>,
    began: Instant,
    lifetime: Duration,
}

/// Somebody wants to know what is used now.
type Ask = oneshot::Sender<()>;

impl Entry {
    fn usage(&self) -> Usage {
        Usage { uses: self.usage.uses.load(Ordering::Relaxed), ..*lock(&self.usage.usage) }
    }
}

#[derive(Default)]
struct Meter {
    usage: Mutex<Usage>,
    uses: AtomicU64,
}

#[derive(Clone)]
enum Status {
    Starting,
    Running(Sandbox),
    Over(SandboxError),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Manager {
    /// A manager that has cleaned up after its predecessors. `audit` is called for every event; it must not block.
    ///
    /// # Errors
    /// If the backend cannot look for leftovers.
    pub async fn new(
        backend: Arc<dyn Backend>,
        config: ManagerConfig,
        audit: impl Fn(AuditEvent) + Send + Sync + 'static,
    ) -> Result<Self> {
        let reaped = backend.reap().await?;
        if reaped > 0 {
            tracing::info!(reaped, "removed what dead sandboxes left behind");
        }
        let inner = Arc::new(Inner { backend, config, audit: Arc::new(audit), table: Mutex::default() });
        tokio::spawn(reap_again(Arc::downgrade(&inner)));
        Ok(Self(inner))
    }

    /// The owner's sandbox, made if there is none. Several callers at once get the same one.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`, `TENANT_SANDBOXES_EXHAUSTED`, `SANDBOX_UNAVAILABLE`, and why the backend could not.
    pub async fn acquire(&self, owner: &Owner, spec: &SandboxSpec) -> Result<Lease> {
        let entry = self.0.entry(owner, spec).inspect_err(|error| {
            (self.0.audit)(AuditEvent::Refused { owner: owner.clone(), code: error.code });
        })?;
        self.lease(&entry, owner).await
    }

    /// The owner's sandbox, if there is one.
    ///
    /// # Errors
    /// `SANDBOX_NOT_FOUND`; as [`acquire`](Self::acquire) for one that is just being made.
    pub async fn find(&self, owner: &Owner) -> Result<Lease> {
        let entry = self.existing(owner)?;
        if matches!(*entry.status.borrow(), Status::Over(_)) {
            return Err(none());
        }
        self.lease(&entry, owner).await
    }

    fn existing(&self, owner: &Owner) -> Result<Arc<Entry>> {
        lock(&self.0.table).get(owner).cloned().ok_or_else(none)
    }

    async fn lease(&self, entry: &Entry, owner: &Owner) -> Result<Lease> {
        let mut status = entry.status.clone();
        // Cloned at once: the guard of a watch must not live across an await, or callers could not be spawned.
        let ready =
            status.wait_for(|status| !matches!(status, Status::Starting)).await.map(|status| status.clone());
        let sandbox = match ready {
            Ok(Status::Running(sandbox)) => sandbox,
            Ok(Status::Over(error)) => return Err(error),
            _ => return Err(gone()),
        };
        entry.events.send(Event::UseBegins).await.map_err(|_| gone())?;
        entry.usage.uses.fetch_add(1, Ordering::Relaxed);
        (self.0.audit)(AuditEvent::Used { owner: owner.clone(), sandbox: entry.id.clone() });
        Ok(Lease { sandbox, id: entry.id.clone(), events: entry.events.clone() })
    }

    /// Ends the owner's sandbox and waits until nothing is left. None: nothing to do.
    pub async fn destroy(&self, owner: &Owner) {
        let Some(entry) = lock(&self.0.table).get(owner).cloned() else { return };
        let _ = entry.events.send(Event::Destroy).await;
        let mut status = entry.status.clone();
        // The sender goes away when the driver has finished.
        while status.changed().await.is_ok() {}
    }

    /// Ends all sandboxes and waits for that.
    pub async fn destroy_all(&self) {
        let owners: Vec<_> = lock(&self.0.table).keys().cloned().collect();
        for owner in &owners {
            if let Some(entry) = lock(&self.0.table).get(owner).cloned() {
                let _ = entry.events.try_send(Event::Destroy);
            }
        }
        for owner in &owners {
            self.destroy(owner).await;
        }
    }

    /// What the owner's sandbox has used up to now: it is measured for this call.
    ///
    /// # Errors
    /// `SANDBOX_NOT_FOUND`.
    pub async fn usage(&self, owner: &Owner) -> Result<Usage> {
        let entry = self.existing(owner)?;
        let (ask, measured) = oneshot::channel();
        // Nobody measures one that is just starting or stopping: then the last look stands.
        if matches!(*entry.status.borrow(), Status::Running(_)) && entry.asks.send(ask).await.is_ok() {
            let _ = measured.await;
        }
        Ok(entry.usage())
    }

    /// The owner's sandbox from outside.
    ///
    /// # Errors
    /// `SANDBOX_NOT_FOUND`.
    pub fn describe(&self, owner: &Owner) -> Result<Description> {
        let entry = self.existing(owner)?;
        let state = match *entry.status.borrow() {
            Status::Starting => Phase::Starting,
            Status::Running(_) => Phase::Running,
            Status::Over(_) => Phase::Stopping,
        };
        let (id, usage) = (entry.id.clone(), entry.usage());
        Ok(Description { id, state, age: entry.began.elapsed(), lifetime: entry.lifetime, usage })
    }

    /// The backend's word for logs, and the walls that it could not build so far.
    #[must_use]
    pub fn backend(&self) -> (&'static str, Vec<&'static str>) {
        (self.0.backend.name(), self.0.backend.missing())
    }

    /// Owners of all sandboxes that are not over, with the sandboxes' names.
    #[must_use]
    pub fn list(&self) -> Vec<(Owner, SandboxId)> {
        lock(&self.0.table).iter().map(|(owner, entry)| (owner.clone(), entry.id.clone())).collect()
    }
}

fn none() -> SandboxError {
    SandboxError::new(Code::SandboxNotFound, "this user has no sandbox")
}

fn gone() -> SandboxError {
    SandboxError::new(Code::SandboxGone, "the sandbox has just ended")
}

/// The permission to use a sandbox; its end is the end of the use.
pub struct Lease {
    sandbox: Sandbox,
    id: SandboxId,
    events: mpsc::Sender<Event>,
}

impl Lease {
    /// The sandbox's name, unique on the machine.
    #[must_use]
    pub fn id(&self) -> &SandboxId {
        &self.id
    }
}

impl std::ops::Deref for Lease {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        &self.sandbox
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Err(mpsc::error::TrySendError::Full(event)) = self.events.try_send(Event::UseEnds) {
            // The end of a use must not get lost: a sandbox that is never idle would live to its last second.
            let events = self.events.clone();
            tokio::spawn(async move { events.send(event).await });
        }
    }
}

impl Inner {
    /// Finds the entry or makes one with its driver.
    fn entry(self: &Arc<Self>, owner: &Owner, spec: &SandboxSpec) -> Result<Arc<Entry>> {
        for id in [&owner.tenant, &owner.user] {
            if id.is_empty() || id.len() > ID_BYTES_MAX {
                return Err(SandboxError::new(
                    Code::InvalidArgument,
                    "a tenant or user id has 1 to 256 bytes",
                ));
            }
        }
        spec.limits.check()?;
        let mut table = lock(&self.table);
        if let Some(entry) = table.get(owner)
            && !matches!(*entry.status.borrow(), Status::Over(_))
        {
            return Ok(Arc::clone(entry));
        }
        if table.contains_key(owner) {
            return Err(SandboxError::new(
                Code::SandboxUnavailable,
                "the last sandbox is still being removed",
            ));
        }
        if table.keys().filter(|other| other.tenant == owner.tenant).count()
            >= self.config.sandboxes_per_tenant_max
        {
            return Err(SandboxError::new(
                Code::TenantSandboxesExhausted,
                "the tenant has too many sandboxes",
            ));
        }
        if table.len() >= self.config.sandboxes_max {
            return Err(SandboxError::new(Code::SandboxUnavailable, "the machine has too many sandboxes"));
        }
        let (events, queue) = mpsc::channel(USES_QUEUED_MAX);
        let (asks, asked) = mpsc::channel(ASKS_QUEUED_MAX);
        let (sender, status) = watch::channel(Status::Starting);
        let usage = Arc::new(Meter::default());
        let id = SandboxId::random()?;
        let (began, lifetime) = (Instant::now(), Duration::from_millis(spec.limits.lifetime_ms));
        let meter = Arc::clone(&usage);
        let entry = Arc::new(Entry { id: id.clone(), events, asks, status, usage: meter, began, lifetime });
        table.insert(owner.clone(), Arc::clone(&entry));
        drop(table);
        let driver = Driver {
            manager: Arc::downgrade(self),
            backend: Arc::clone(&self.backend),
            audit: Arc::clone(&self.audit),
            owner: owner.clone(),
            id,
            spec: SandboxSpec { owner: Some(owner.clone()), ..spec.clone() },
            life: Lifecycle::new(Terms { idle: self.config.idle, lifetime }),
            began,
            measured: began,
            status: sender,
            meter: usage,
        };
        tokio::spawn(driver.run(queue, asked));
        Ok(entry)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for entry in lock(&self.table).values() {
            let _ = entry.events.try_send(Event::Destroy);
        }
    }
}

async fn reap_again(manager: Weak<Inner>) {
    loop {
        tokio::time::sleep(REAP).await;
        let Some(manager) = manager.upgrade() else { return };
        if let Err(error) = manager.backend.reap().await {
            tracing::warn!(%error, "cannot look for dead sandboxes");
        }
    }
}

/// Drives one life.
struct Driver {
    manager: Weak<Inner>,
    backend: Arc<dyn Backend>,
    audit: Audit,
    owner: Owner,
    id: SandboxId,
    spec: SandboxSpec,
    life: Lifecycle,
    began: Instant,
    /// When its usage was last looked at.
    measured: Instant,
    status: watch::Sender<Status>,
    meter: Arc<Meter>,
}

impl Driver {
    async fn run(mut self, mut queue: mpsc::Receiver<Event>, mut asks: mpsc::Receiver<Ask>) {
        self.on(Event::Want);
        if let Some(launched) = self.launch(&mut queue).await {
            self.attend(launched, &mut queue, &mut asks).await;
        }
        let why = match self.life.state() {
            State::Gone { why } => why,
            _ => Ending::Lost,
        };
        // The place is free only now, when nothing of the sandbox is left.
        if let Some(manager) = self.manager.upgrade() {
            lock(&manager.table).remove(&self.owner);
        }
        let usage = Usage { uses: self.meter.uses.load(Ordering::Relaxed), ..*lock(&self.meter.usage) };
        (self.audit)(AuditEvent::Ended { owner: self.owner.clone(), sandbox: self.id.clone(), why, usage });
    }

    fn on(&mut self, event: Event) -> Action {
        self.life.on(event, self.began.elapsed())
    }

    /// Waits for the next event of the life: a queued one, or its next tick.
    async fn next(&self, queue: &mut mpsc::Receiver<Event>) -> Event {
        let tick = self.life.next_tick().map_or_else(|| self.began, |at| self.began + at);
        tokio::select! {
            event = queue.recv() => event.unwrap_or(Event::Destroy),
            () = tokio::time::sleep_until(tick) => Event::Tick,
        }
    }

    async fn launch(&mut self, queue: &mut mpsc::Receiver<Event>) -> Option<Launched> {
        let (backend, id, spec) = (Arc::clone(&self.backend), self.id.clone(), self.spec.clone());
        let mut launching = backend.launch(&id, &spec);
        let result = loop {
            tokio::select! {
                result = &mut launching => break result,
                event = self.next(queue) => {
                    if self.on(event) == Action::AbandonLaunch {
                        break Err(SandboxError::new(Code::SandboxUnavailable, "the start was given up"));
                    }
                }
            }
        };
        match result {
            Ok(launched) => {
                self.on(Event::Started);
                // Told before anybody can use it.
                (self.audit)(AuditEvent::Started { owner: self.owner.clone(), sandbox: self.id.clone() });
                self.status.send_replace(Status::Running(Sandbox::new(launched.link.clone())));
                Some(launched)
            }
            Err(error) => {
                self.on(Event::StartFailed);
                self.status.send_replace(Status::Over(error.clone()));
                let (owner, sandbox) = (self.owner.clone(), self.id.clone());
                (self.audit)(AuditEvent::StartFailed { owner, sandbox, error });
                None
            }
        }
    }

    async fn attend(
        &mut self,
        launched: Launched,
        queue: &mut mpsc::Receiver<Event>,
        asks: &mut mpsc::Receiver<Ask>,
    ) {
        let started = Instant::now();
        self.measured = started;
        let mut sample = tokio::time::interval(SAMPLE);
        loop {
            let event = tokio::select! {
                () = launched.link.closed() => Event::Lost,
                event = self.next(queue) => event,
                _ = sample.tick() => {
                    self.measure(&launched, started).await;
                    continue;
                }
                Some(ask) = asks.recv() => {
                    self.measure(&launched, started).await;
                    let _ = ask.send(());
                    continue;
                }
            };
            if self.on(event) == Action::Stop {
                break;
            }
        }
        self.measure(&launched, started).await;
        self.status.send_replace(Status::Over(gone()));
        launched.link.close();
        if let Err(error) = launched.instance.stop().await {
            tracing::warn!(%error, sandbox = self.id.as_str(), "a sandbox did not stop cleanly");
        }
        self.on(Event::Stopped);
    }

    async fn measure(&mut self, launched: &Launched, started: Instant) {
        let reading = launched.instance.reading().await;
        let (bytes_in, bytes_out) = launched.link.bytes();
        let now = Instant::now();
        let since_us = now.duration_since(self.measured).as_micros();
        self.measured = now;
        let mut usage = lock(&self.meter.usage);
        usage.cpu_us = usage.cpu_us.max(reading.cpu_us);
        let held = u128::from(reading.memory_bytes) * since_us / 1_000_000;
        usage.memory_byte_seconds += u64::try_from(held).unwrap_or(u64::MAX);
        usage.memory_bytes = reading.memory_bytes;
        usage.memory_bytes_peak = usage.memory_bytes_peak.max(reading.memory_bytes_peak);
        usage.oom_kills = usage.oom_kills.max(reading.oom_kills);
        usage.wall_us = started.elapsed().as_micros() as u64;
        (usage.bytes_in, usage.bytes_out) = (bytes_in, bytes_out);
    }
}
