//! The audit log: one chained record per execution and per crossing, on disk, and a promise that none is missing.
//!
//! ```text
//!  admission ─▶ Place (a promise of room) ─▶ Record ─▶ Place::write ─┐
//!  channel ───▶ ready? ─▶ … ─▶ crossing ─▶ own record, or a count ───┤ queue, bounded by places
//!                                                                    ▼
//!                        one thread: chain ▸ write ▸ fsync by policy ▸ rotate ─▶ data_dir/audit/audit-00000001.jsonl
//!                                    └─ now and then a signed checkpoint ─▶ data_dir/audit/checkpoints.txt, events, API
//! ```
//!
//! **What happens when the disk is slow or full.** A record is a promise, so nothing is admitted for which there would be no
//! room: each request takes a place in the queue before it runs, and gives it back when its record is on disk. Without places,
//! or while writing fails, admission answers 503 `audit_unavailable` and capabilities say `egress_audit`; what already runs
//! goes on, and its records wait in memory. With `on_full = "drop"` requests run anyway, and the number of records that were
//! dropped is written as soon as there is room. Writing is tried again for as long as the gateway lives.
//!
//! Crossings that a tenant makes too often are counted instead of written one by one (`flood.rs`), and so is what could not
//! have a place of its own.

pub(crate) mod entry;
mod files;
mod flood;
mod line;
mod note;
mod query;
mod stamps;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use std::{fmt, io};

use atoll_bindings::crossing::Crossing;

use crate::config::{AuditConfig, OnFull};
use crate::cost::Prices;
use crate::deploy::now_ms;

pub use files::Torn;
pub use line::{Hash, Line};
pub use note::{Checkpoint, Notes, PublicKey};
pub(crate) use note::{Notary, Signed};
pub use query::{BadCursor, Cursor, PAGE_MAX, Page, Query, query};
pub use verify::{Bad, BadCheckpoint, Breach, Report, Stamped, Trust, verify};

use entry::{Control, Crossed, Entry};
use flood::{Count, Deed, Flood};

/// The log's folder within the data folder.
pub const FOLDER: &str = "audit";
/// Records that wait for the disk or for the end of their execution, all together: so many requests can run at once at most.
/// About 1 KiB each.
pub const PLACES_MAX: usize = 32 * 1024;
/// Longest wait for records that are on their way to the disk, where somebody reads the log.
const FLUSH_MAX: Duration = Duration::from_secs(2);
/// Counts of what was done too often are written this often, in milliseconds.
const WINDOW_MS: u64 = 1_000;

/// The log. Cheap to clone; every clone is the same.
#[derive(Clone)]
pub struct Audit(Option<Arc<Handle>>);

/// What keeps the writer alive: when the last one is gone, it writes what waits and ends.
struct Handle(Arc<Shared>);

impl std::ops::Deref for Handle {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.lock().closing = true;
        self.filled.notify_one();
    }
}

pub(super) struct Shared {
    queue: Mutex<Queue>,
    /// Wakes the writer.
    filled: Condvar,
    /// Wakes who waits for the writer.
    written: Condvar,
    /// Places given out: of what runs, and of what waits in the queue.
    places: AtomicUsize,
    failing: AtomicBool,
    /// Records dropped and not yet told in the log.
    dropped: AtomicU64,
    /// The same, over all time.
    dropped_total: AtomicU64,
    prices: Option<Prices>,
    config: AuditConfig,
    /// Who signs checkpoints; without one there are none.
    notary: OnceLock<Arc<dyn Notary>>,
    /// The newest one.
    checkpoint: Mutex<Option<Arc<str>>>,
}

struct Queue {
    entries: Vec<Entry>,
    flood: Flood,
    /// Entries ever put in, and ever written.
    put: u64,
    done: u64,
    /// The writer sleeps and must be woken.
    waiting: bool,
    closing: bool,
    ended: bool,
}

/// The log cannot take more: nothing may happen that it would have to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable;

/// Room for one record. Dropped unwritten, it is free again.
pub struct Place {
    shared: Option<Arc<Handle>>,
    /// Whether it counts; places beyond the bound do not, and what is written there is dropped.
    counted: bool,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("counted", &self.counted).finish_non_exhaustive()
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audit").field("enabled", &self.0.is_some()).finish_non_exhaustive()
    }
}

impl Audit {
    /// No log at all.
    #[must_use]
    pub fn off() -> Self {
        Self(None)
    }

    /// Opens the log in the data folder, and begins a new file.
    pub fn open(data_dir: &Path, config: AuditConfig, prices: Option<Prices>) -> io::Result<Self> {
        if !config.enabled {
            return Ok(Self::off());
        }
        let folder = data_dir.join(FOLDER);
        let writer = writer::Writer::open(&folder, config)?;
        let queue = Queue {
            entries: Vec::new(),
            flood: Flood::new(config.crossings_per_second, config.crossings_burst, WINDOW_MS),
            put: 0,
            done: 0,
            waiting: false,
            closing: false,
            ended: false,
        };
        let shared = Arc::new(Shared {
            queue: Mutex::new(queue),
            filled: Condvar::new(),
            written: Condvar::new(),
            places: AtomicUsize::new(0),
            failing: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
            dropped_total: AtomicU64::new(0),
            prices,
            config,
            notary: OnceLock::new(),
            checkpoint: Mutex::default(),
        });
        let its = shared.clone();
        std::thread::Builder::new().name("audit".into()).spawn(move || writer.run(&its))?;
        Ok(Self(Some(Arc::new(Handle(shared)))))
    }

    /// From now on checkpoints are made, and signed by this notary. Its keys are not there yet when the log is opened.
    pub(crate) fn sign_with(&self, notary: Arc<dyn Notary>) {
        let Some(shared) = &self.0 else { return };
        if shared.notary.set(notary).is_ok() {
            shared.filled.notify_one();
        }
    }

    /// The newest checkpoint, as a signed note.
    #[must_use]
    pub(crate) fn checkpoint(&self) -> Option<Arc<str>> {
        self.0.as_ref()?.checkpoint.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a record may be promised now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let Some(shared) = &self.0 else { return true };
        shared.config.on_full == OnFull::Drop || !shared.is_full()
    }

    /// Whether writing fails now.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.0.as_ref().is_some_and(|shared| shared.failing.load(Ordering::Relaxed))
    }

    /// Records that were dropped since the start.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.as_ref().map_or(0, |shared| shared.dropped_total.load(Ordering::Relaxed))
    }

    /// Room for the record of what is about to run.
    pub fn place(&self) -> Result<Place, Unavailable> {
        let Some(shared) = &self.0 else { return Ok(Place { shared: None, counted: false }) };
        let counted = shared.reserve();
        if !counted && shared.config.on_full == OnFull::Refuse {
            return Err(Unavailable);
        }
        Ok(Place { shared: Some(shared.clone()), counted })
    }

    /// Tells a crossing: as a record of its own, or counted.
    pub(crate) fn crossing(&self, crossing: &Crossing) {
        let Some(shared) = &self.0 else { return };
        let now = now_ms();
        let cost =
            shared.prices.as_ref().map(|p| p.crossing(crossing.request_bytes, crossing.response_bytes));
        let mut queue = shared.lock();
        if queue.flood.may_write(&crossing.tenant, now) && shared.reserve() {
            let entry = Entry::Crossing(Box::new(Crossed::of(crossing, now, cost)));
            shared.put(queue, entry);
            return;
        }
        let deed = Deed {
            what: "crossing",
            worker: crossing.worker.clone(),
            capability: crossing.capability.clone(),
            code: crossing.verdict.code(),
        };
        let count = Count {
            count: 1,
            request_bytes: crossing.request_bytes,
            response_bytes: crossing.response_bytes,
            cost: cost.unwrap_or(0),
            first_ms: now,
            last_ms: now,
        };
        queue.flood.count(&crossing.tenant, deed, count);
    }

    /// Tells a change through the control API; one of a frequent kind is counted if there are too many.
    pub(crate) fn control(&self, place: Place, control: Control, is_frequent: bool) {
        let Some(shared) = &self.0 else { return };
        let now = now_ms();
        if is_frequent && !shared.lock().flood.may_write(&control.tenant, now) {
            let capability = control.action.into();
            let deed = Deed { what: "control", worker: "".into(), capability, code: control.outcome };
            let count = Count { count: 1, first_ms: now, last_ms: now, ..Count::default() };
            return shared.lock().flood.count(&control.tenant, deed, count);
        }
        place.write(Entry::Control(Box::new(control)));
    }

    /// Counts a request that was not admitted.
    pub(crate) fn refused(&self, tenant: &Arc<str>, code: &'static str) {
        let Some(shared) = &self.0 else { return };
        let now = now_ms();
        let deed = Deed { what: "refused", worker: "".into(), capability: "".into(), code };
        let count = Count { count: 1, first_ms: now, last_ms: now, ..Count::default() };
        shared.lock().flood.count(tenant, deed, count);
    }

    /// Writes what has no place reserved: rare things that the gateway itself does.
    pub(crate) fn note(&self, entry: Entry) {
        let Some(shared) = &self.0 else { return };
        Place { shared: Some(shared.clone()), counted: shared.reserve() }.write(entry);
    }

    /// Waits, for a bounded time, until what was told so far is in the files. Blocks.
    pub fn flush(&self) {
        let Some(shared) = &self.0 else { return };
        let deadline = Instant::now() + FLUSH_MAX;
        let mut queue = shared.lock();
        let wanted = queue.put;
        while queue.done < wanted && !queue.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            queue = shared.written.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Writes what waits, counts included, and ends the log, within a bounded time. Blocks.
    pub fn close(&self) {
        let Some(shared) = &self.0 else { return };
        let deadline = Instant::now() + FLUSH_MAX;
        let mut queue = shared.lock();
        queue.closing = true;
        shared.filled.notify_one();
        while !queue.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                tracing::error!("the audit log could not be written to its end");
                return;
            }
            queue = shared.written.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // What is under this lock is consistent between any two statements.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a record into the queue, and wakes the writer if it sleeps.
    fn put(&self, mut queue: MutexGuard<'_, Queue>, entry: Entry) {
        queue.put(entry);
        let asleep = std::mem::take(&mut queue.waiting);
        drop(queue);
        if asleep {
            self.filled.notify_one();
        }
    }

    fn is_full(&self) -> bool {
        self.failing.load(Ordering::Relaxed) || self.places.load(Ordering::Relaxed) >= PLACES_MAX
    }

    /// Takes a place, if there is one.
    fn reserve(&self) -> bool {
        if self.failing.load(Ordering::Relaxed) {
            return false;
        }
        let had = self.places.fetch_add(1, Ordering::Relaxed);
        if had >= PLACES_MAX {
            self.release(1);
        }
        had < PLACES_MAX
    }

    fn release(&self, count: usize) {
        self.places.fetch_sub(count, Ordering::Relaxed);
    }
}

impl Queue {
    fn put(&mut self, entry: Entry) {
        self.entries.push(entry);
        self.put += 1;
    }
}

impl Place {
    /// Room without a log behind it.
    #[must_use]
    pub fn nowhere() -> Self {
        Self { shared: None, counted: false }
    }

    /// What executions cost, if anybody counts.
    pub(crate) fn prices(&self) -> Option<&Prices> {
        self.shared.as_ref()?.prices.as_ref()
    }

    /// Whether anything will be written.
    pub(crate) fn is_real(&self) -> bool {
        self.shared.is_some()
    }

    /// Puts the record on its way.
    pub(crate) fn write(mut self, entry: Entry) {
        let Some(shared) = self.shared.take() else { return };
        if !self.counted {
            shared.dropped.fetch_add(1, Ordering::Relaxed);
            shared.dropped_total.fetch_add(1, Ordering::Relaxed);
            return;
        }
        // From here on the place belongs to the entry: the writer gives it back.
        shared.put(shared.lock(), entry);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let (Some(shared), true) = (&self.shared, self.counted) {
            shared.release(1);
        }
    }
}
