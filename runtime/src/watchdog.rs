//! Limits that hold: one thread looks at every isolate that is inside JavaScript and stops those over budget.
//!
//! ```text
//!  outside ──enter──▶ inside ──over CPU or wall──▶ stopped (sticky verdict + terminate_execution every tick)
//!     ▲                 │                             │
//!     └──────exit───────┘                             ├─ left V8: the isolate's thread reads the verdict and ends
//!                                                     └─ still inside after a grace: condemned; the host is replaced
//! ```
//!
//! V8 forgets a termination once its frames unwind, and JavaScript entered again would run: the verdict is ours
//! and is never taken back, so a stopped isolate is always thrown away.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::*};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use atoll_bindings::seam::{Condemned, InvocationId, LimitKind, Usage};

use crate::helpers::{self, Helpers};
use crate::message::{Inbox, IsolateMsg};
use crate::resident::Resident;

/// How often the watchdog looks, in milliseconds.
const TICK_MS: u64 = 5;
/// How long a stopped isolate may compute inside V8 before its host is condemned, in milliseconds of its CPU time.
const GRACE_MS: u64 = 250;
/// The same in milliseconds of wall time: the machine may be busy.
const GRACE_WALL_MS: u64 = 2_000;
/// The same while V8 collects garbage, which ends by itself, in milliseconds of CPU time.
const GRACE_GC_MS: u64 = 1_000;
/// How long JavaScript may run before its memory is looked at again, in milliseconds.
const SAMPLE_MS: u64 = 20;
/// The part of a growth that is forgotten at each look at the process's memory: half of it after about two seconds.
const GROWTH_FADES_BY: u64 = 64;

/// Why an isolate was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Verdict {
    Cpu = 1,
    Wall = 2,
    Heap = 3,
    Canceled = 4,
    External = 5,
}

impl Verdict {
    fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Cpu,
            2 => Self::Wall,
            3 => Self::Heap,
            4 => Self::Canceled,
            5 => Self::External,
            _ => return None,
        })
    }

    /// The limit behind it; `None` for a cancelled invocation.
    pub(crate) fn limit(self) -> Option<LimitKind> {
        match self {
            Self::Cpu => Some(LimitKind::Cpu),
            Self::Wall => Some(LimitKind::Wall),
            Self::Heap => Some(LimitKind::Heap),
            Self::External => Some(LimitKind::External),
            Self::Canceled => None,
        }
    }
}

/// What the watchdog sees of one isolate. All times are in microseconds.
#[derive(Debug)]
pub(crate) struct Slot {
    handle: OnceLock<v8::IsolateHandle>,
    inbox: OnceLock<Inbox>,
    clock: libc::clockid_t,
    /// Threads that compute for this isolate: their time is its time.
    pub(crate) helpers: Helpers,
    /// 0 while outside JavaScript, else 1 + the host clock's time of entry.
    entered: AtomicU64,
    /// CPU time of the isolate at its last entry.
    entered_cpu: AtomicU64,
    /// CPU time of the isolate when what is inside began.
    began_cpu: AtomicU64,
    /// CPU time of the isolate at which the current entry is over budget.
    cpu_deadline: AtomicU64,
    /// Host clock at which the isolate's earliest wall deadline passes.
    wall_deadline: AtomicU64,
    verdict: AtomicU8,
    /// Host clock when the verdict fell.
    stopped_at: AtomicU64,
    /// CPU time when the verdict fell.
    stopped_cpu: AtomicU64,
    /// Whether V8 collects garbage.
    pub(crate) collecting: AtomicBool,
    condemned: AtomicU8,
    /// Most that V8 said it holds outside its heap, in bytes, and how much that may be.
    pub(crate) external_peak: AtomicU64,
    pub(crate) external_max: AtomicU64,
    /// Heap and external memory when last looked at, in bytes, and when that was.
    pub(crate) memory: AtomicU64,
    pub(crate) sampled_at: AtomicU64,
    /// Growth of the process while this isolate was inside, in bytes, fading.
    growth: AtomicU64,
    /// The root invocation that is inside, for blame.
    inside: AtomicU64,
}

impl Slot {
    /// A slot for the calling thread.
    pub(crate) fn for_this_thread() -> Arc<Self> {
        Arc::new(Self {
            handle: OnceLock::new(),
            inbox: OnceLock::new(),
            clock: helpers::own_clock(),
            helpers: Helpers::default(),
            entered: AtomicU64::new(0),
            entered_cpu: AtomicU64::new(0),
            began_cpu: AtomicU64::new(0),
            cpu_deadline: AtomicU64::new(u64::MAX),
            wall_deadline: AtomicU64::new(u64::MAX),
            verdict: AtomicU8::new(0),
            stopped_at: AtomicU64::new(0),
            stopped_cpu: AtomicU64::new(0),
            collecting: AtomicBool::new(false),
            condemned: AtomicU8::new(0),
            external_peak: AtomicU64::new(0),
            external_max: AtomicU64::new(u64::MAX),
            memory: AtomicU64::new(0),
            sampled_at: AtomicU64::new(0),
            growth: AtomicU64::new(0),
            inside: AtomicU64::new(0),
        })
    }

    pub(crate) fn set_handle(&self, handle: v8::IsolateHandle) {
        let _already_set = self.handle.set(handle);
    }

    /// CPU time of the isolate's thread and its helpers, in microseconds.
    pub(crate) fn cpu_us(&self) -> u64 {
        helpers::clock_us(self.clock) + self.helpers.cpu_us()
    }

    /// JavaScript begins, with this much CPU spent and left, on behalf of `root`.
    pub(crate) fn enter(&self, spent_us: u64, left_us: u64, root: InvocationId) {
        let cpu = self.cpu_us();
        self.inside.store(root.0, Relaxed);
        self.entered_cpu.store(cpu, Relaxed);
        self.began_cpu.store(cpu.saturating_sub(spent_us), Relaxed);
        self.cpu_deadline.store(cpu.saturating_add(left_us), Relaxed);
        self.entered.store(1 + now_us(), Release);
    }

    /// JavaScript is over; returns the CPU time it took, as far as it was not taken before, and how long ago it began.
    pub(crate) fn exit(&self) -> (u64, u64) {
        let entered = self.entered.swap(0, AcqRel);
        (self.take_cpu_us(), now_us().saturating_sub(entered.saturating_sub(1)))
    }

    /// CPU time since the entry or since this was last asked.
    pub(crate) fn take_cpu_us(&self) -> u64 {
        let _part_of_it = self.helpers.take_us();
        let cpu = self.cpu_us();
        cpu.saturating_sub(self.entered_cpu.swap(cpu, Relaxed))
    }

    /// Whether JavaScript is on the stack.
    pub(crate) fn is_inside(&self) -> bool {
        self.entered.load(Acquire) != 0
    }

    pub(crate) fn set_wall_deadline(&self, at_us: u64) {
        self.wall_deadline.store(at_us, Relaxed);
    }

    /// The sticky verdict.
    pub(crate) fn verdict(&self) -> Option<Verdict> {
        Verdict::from_code(self.verdict.load(Acquire))
    }

    /// Stops the isolate for good. False if it was stopped before.
    pub(crate) fn stop(&self, verdict: Verdict) -> bool {
        let first = self.verdict.compare_exchange(0, verdict as u8, AcqRel, Acquire).is_ok();
        if first {
            self.stopped_cpu.store(self.cpu_us(), Relaxed);
            self.stopped_at.store(now_us(), Release);
        }
        if let Some(handle) = self.handle.get() {
            handle.terminate_execution();
        }
        if first && let Some(inbox) = self.inbox.get() {
            // It may be waiting for a helper: an invocation that nobody knows only makes it look at the verdict.
            let _gone = inbox.send(IsolateMsg::Cancel { invocation: InvocationId(u64::MAX) });
        }
        first
    }

    /// Where the isolate hears of its verdict while it waits.
    pub(crate) fn set_inbox(&self, inbox: &Inbox) {
        let _already_set = self.inbox.set(inbox.clone());
    }

    pub(crate) fn condemn(&self) {
        self.condemned.store(1, Release);
    }

    /// One look; true if the isolate is condemned.
    fn look(&self, now: u64) -> bool {
        let entered = self.entered.load(Acquire);
        if entered == 0 {
            return self.look_at_helpers(now);
        }
        match self.verdict() {
            None => {
                if now >= self.wall_deadline.load(Relaxed) {
                    self.stop(Verdict::Wall);
                } else if self.cpu_us() >= self.cpu_deadline.load(Relaxed)
                    // It may have left, and come back with a new budget, since we looked.
                    && self.entered.load(Acquire) == entered
                {
                    self.stop(Verdict::Cpu);
                } else if now.saturating_sub(self.sampled_at.load(Relaxed).max(entered)) > SAMPLE_MS * 1_000
                    && let Some(handle) = self.handle.get()
                {
                    handle.request_interrupt(crate::memory::sample, std::ptr::null_mut());
                }
                false
            }
            Some(verdict) => {
                self.stop(verdict);
                let since = self.stopped_at.load(Acquire).max(entered - 1);
                let cpu_since = self.stopped_cpu.load(Relaxed).max(self.entered_cpu.load(Relaxed));
                let grace_ms = if self.collecting.load(Relaxed) { GRACE_GC_MS } else { GRACE_MS };
                self.condemned.load(Acquire) != 0
                    || self.cpu_us().saturating_sub(cpu_since) > grace_ms * 1_000
                    || now.saturating_sub(since) > GRACE_WALL_MS * 1_000
            }
        }
    }

    /// Outside JavaScript, only helpers can spend: native computations, which nothing but the end of the process stops.
    fn look_at_helpers(&self, now: u64) -> bool {
        if !self.helpers.any() {
            return false;
        }
        if self.verdict().is_none() {
            if self.cpu_us() >= self.cpu_deadline.load(Relaxed) {
                self.stop(Verdict::Cpu);
            } else if now >= self.wall_deadline.load(Relaxed) {
                self.stop(Verdict::Wall);
            }
            return false;
        }
        self.helpers.busy() && now.saturating_sub(self.stopped_at.load(Acquire)) > GRACE_MS * 1_000
    }

    /// What another thread can see of the use.
    fn condemned(&self, now: u64) -> Condemned {
        let began = self.entered.load(Acquire).saturating_sub(1);
        let usage = Usage {
            cpu_us: self.cpu_us().saturating_sub(self.began_cpu.load(Relaxed)),
            wall_us: if began == 0 { 0 } else { now.saturating_sub(began) },
            external_bytes_peak: self.external_peak.load(Relaxed),
            ..Usage::default()
        };
        Condemned { invocation: InvocationId(self.inside.load(Relaxed)), usage }
    }

    /// How much of the process's memory is probably this isolate's.
    fn weight(&self) -> u64 {
        self.memory.load(Relaxed).max(self.growth.load(Relaxed))
    }
}

/// Microseconds on the host's monotonic clock.
pub(crate) fn now_us() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_micros() as u64
}

/// The thread that looks, and the isolates it looks at.
#[derive(Debug, Default)]
pub(crate) struct Watchdog {
    slots: Mutex<Vec<Arc<Slot>>>,
    /// Everything condemned so far; each invocation once.
    condemned: Mutex<Vec<Condemned>>,
}

/// Most condemned invocations kept: a host with one is about to go.
const CONDEMNED_MAX: usize = 1_024;

/// A panic while a list is held leaves it usable.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Watchdog {
    /// Starts the thread; `on_condemned` is told when [`Watchdog::condemned`] grew.
    pub(crate) fn start(
        memory: Option<Resident>,
        on_condemned: impl Fn(&Self) + Send + 'static,
    ) -> std::io::Result<Arc<Self>> {
        let watchdog = Arc::new(Self { slots: Mutex::new(Vec::new()), condemned: Mutex::default() });
        let weak = Arc::downgrade(&watchdog);
        std::thread::Builder::new().name("watchdog".into()).spawn(move || {
            let mut memory = memory;
            while let Some(watchdog) = weak.upgrade() {
                let mut grew = watchdog.tick();
                if let Some(memory) = &mut memory {
                    grew |= watchdog.look_at_memory(memory);
                }
                if grew {
                    on_condemned(&watchdog);
                }
                drop(watchdog);
                std::thread::sleep(Duration::from_millis(TICK_MS));
            }
        })?;
        Ok(watchdog)
    }

    pub(crate) fn add(&self, slot: &Arc<Slot>) {
        lock(&self.slots).push(Arc::clone(slot));
    }

    pub(crate) fn remove(&self, slot: &Arc<Slot>) {
        let mut slots = lock(&self.slots);
        if let Some(at) = slots.iter().position(|each| Arc::ptr_eq(each, slot)) {
            slots.swap_remove(at);
        }
    }

    /// Invocations for which this host must be replaced.
    pub(crate) fn condemned(&self) -> Vec<Condemned> {
        lock(&self.condemned).clone()
    }

    /// True if somebody was condemned who was not before.
    fn tick(&self) -> bool {
        let now = now_us();
        let found: Vec<Condemned> =
            lock(&self.slots).iter().filter(|slot| slot.look(now)).map(|slot| slot.condemned(now)).collect();
        self.note(found)
    }

    fn note(&self, found: Vec<Condemned>) -> bool {
        let mut condemned = lock(&self.condemned);
        let before = condemned.len();
        for one in found {
            if condemned.len() < CONDEMNED_MAX
                && condemned.iter().all(|known| known.invocation != one.invocation)
            {
                condemned.push(one);
            }
        }
        condemned.len() > before
    }

    /// Ends the largest isolate, and with it this host, when the process holds more than it may.
    fn look_at_memory(&self, memory: &mut Resident) -> bool {
        let Some(look) = memory.look() else { return false };
        let slots = lock(&self.slots);
        let inside: Vec<_> = slots.iter().filter(|slot| slot.is_inside()).collect();
        let share = look.grown_bytes / inside.len().max(1) as u64;
        for slot in slots.iter() {
            let growth = slot.growth.load(Relaxed);
            slot.growth.store(growth - growth / GROWTH_FADES_BY, Relaxed);
        }
        for slot in &inside {
            slot.growth.fetch_add(share, Relaxed);
        }
        if look.far_over {
            // Nothing helped: better this process than one that the system picks.
            std::process::abort();
        }
        let Some(largest) = slots.iter().filter(|_| look.over).max_by_key(|slot| slot.weight()) else {
            return false;
        };
        largest.stop(Verdict::Heap);
        largest.condemn();
        let found = largest.condemned(now_us());
        drop(slots);
        self.note(vec![found])
    }
}
