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
use std::time::Instant;

use atoll_bindings::seam::{Condemned, InvocationId, LimitKind, Usage};

use crate::helpers::{self, Helpers};
use crate::message::{Inbox, IsolateMsg};
use crate::priority::{LENGTHY_US, Slices};
use crate::resident::Resident;
use crate::turns::{Begun, Turns};

/// How long a stopped isolate may compute inside V8 before its host is condemned, in milliseconds of its CPU time.
const GRACE_MS: u64 = 250;
/// How long it may collect garbage after the stop, which ends by itself, in milliseconds of its CPU time. One heap
/// limit is often several collections in a row, so they are summed, and not counted as computing.
const GRACE_GC_MS: u64 = 1_000;
/// How long it may stand still inside V8, using no CPU time at all, in milliseconds of wall time. A thread that waits
/// for a busy machine gets a little CPU time in each such span; one that is stuck gets none.
const GRACE_STILL_MS: u64 = 2_000;
/// How long a stopped isolate may stay inside V8 at all, in milliseconds of wall time.
const GRACE_WALL_MS: u64 = 10_000;
const _: () = assert!(GRACE_MS < GRACE_GC_MS && GRACE_STILL_MS < GRACE_WALL_MS);
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
    pub(crate) slices: Slices,
    /// Where it tells that it begins, and whether it is on the watchdog's list.
    begun: OnceLock<Arc<Begun>>,
    listed: AtomicBool,
    /// Its thread works for nobody who waits.
    aside: AtomicBool,
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
    collections: Mutex<Collections>,
    /// CPU time of garbage collections when the verdict fell.
    stopped_collected_us: AtomicU64,
    /// CPU time at the watchdog's last look after the stop, and the host clock when it last had moved.
    still_cpu: AtomicU64,
    still_since: AtomicU64,
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

/// What an isolate did inside V8 since it was stopped, in microseconds.
#[derive(Clone, Copy, Debug, Default)]
struct SinceStop {
    /// CPU time, collections included.
    cpu_us: u64,
    /// CPU time of garbage collections.
    collected_us: u64,
    /// Wall time since its CPU time last moved.
    still_us: u64,
    /// Wall time.
    wall_us: u64,
}

impl SinceStop {
    fn outlasts_its_grace(self) -> bool {
        self.cpu_us.saturating_sub(self.collected_us) > GRACE_MS * 1_000
            || self.collected_us > GRACE_GC_MS * 1_000
            || self.still_us > GRACE_STILL_MS * 1_000
            || self.wall_us > GRACE_WALL_MS * 1_000
    }
}

/// Garbage collections of one isolate, in its CPU time and in microseconds.
#[derive(Debug, Default)]
struct Collections {
    /// When the one under way began.
    began: Option<u64>,
    /// What those that ended took.
    ended_us: u64,
}

impl Slot {
    /// A slot for the calling thread.
    pub(crate) fn for_this_thread() -> Arc<Self> {
        Arc::new(Self {
            handle: OnceLock::new(),
            inbox: OnceLock::new(),
            clock: helpers::own_clock(),
            slices: Slices::of_this_thread(),
            begun: OnceLock::new(),
            listed: AtomicBool::new(false),
            aside: AtomicBool::new(false),
            helpers: Helpers::default(),
            entered: AtomicU64::new(0),
            entered_cpu: AtomicU64::new(0),
            began_cpu: AtomicU64::new(0),
            cpu_deadline: AtomicU64::new(u64::MAX),
            wall_deadline: AtomicU64::new(u64::MAX),
            verdict: AtomicU8::new(0),
            stopped_at: AtomicU64::new(0),
            stopped_cpu: AtomicU64::new(0),
            collections: Mutex::default(),
            stopped_collected_us: AtomicU64::new(0),
            still_cpu: AtomicU64::new(0),
            still_since: AtomicU64::new(0),
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
    pub(crate) fn enter(self: &Arc<Self>, spent_us: u64, left_us: u64, root: InvocationId) {
        if spent_us < LENGTHY_US {
            self.slices.answer();
        }
        let cpu = self.cpu_us();
        self.inside.store(root.0, Relaxed);
        self.entered_cpu.store(cpu, Relaxed);
        self.began_cpu.store(cpu.saturating_sub(spent_us), Relaxed);
        self.cpu_deadline.store(cpu.saturating_add(left_us), Relaxed);
        self.entered.store(1 + now_us(), SeqCst);
        self.begin();
    }

    /// It is on the watchdog's list from now on. One order of all these stores and looks: who leaves the list sees who begins, or
    /// who begins sees that it has left.
    fn begin(self: &Arc<Self>) {
        if !self.listed.swap(true, SeqCst)
            && let Some(begun) = self.begun.get()
        {
            begun.add(self);
        }
    }

    /// Whether its thread works for nobody who waits: it makes an isolate ahead, or takes one apart.
    pub(crate) fn set_aside(self: &Arc<Self>, aside: bool) {
        self.aside.store(aside, SeqCst);
        if aside {
            self.slices.compute();
            self.begin();
        }
    }

    /// Takes it from the watchdog's list; false if it has just begun again.
    pub(crate) fn leave_list(&self) -> bool {
        self.listed.store(false, SeqCst);
        let begun = self.entered.load(SeqCst) != 0 || self.aside.load(SeqCst);
        !begun || self.listed.swap(true, SeqCst)
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
            self.stopped_collected_us.store(self.collected_us(), Relaxed);
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

    /// If it computes on, it is served after those that answer, and lets them go first now. False if it is outside.
    pub(crate) fn take_turn(&self) -> bool {
        if self.aside.load(Acquire) {
            self.slices.step_aside();
            return true;
        }
        if !self.is_inside() {
            return false;
        }
        if self.cpu_us().saturating_sub(self.began_cpu.load(Relaxed)) > LENGTHY_US {
            self.slices.compute();
            self.slices.step_aside();
        }
        true
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
                let cpu = self.cpu_us();
                if now >= self.wall_deadline.load(Relaxed) {
                    self.stop(Verdict::Wall);
                } else if cpu >= self.cpu_deadline.load(Relaxed)
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
                self.condemned.load(Acquire) != 0 || self.outlasts_its_grace(now, entered - 1)
            }
        }
    }

    /// Whether an isolate that was stopped, and is inside since `entered_at`, must be given up.
    fn outlasts_its_grace(&self, now: u64, entered_at: u64) -> bool {
        let cpu = self.cpu_us();
        let since = self.stopped_at.load(Acquire).max(entered_at);
        if self.still_cpu.swap(cpu, Relaxed) != cpu {
            self.still_since.store(now, Relaxed);
        }
        SinceStop {
            cpu_us: cpu.saturating_sub(self.stopped_cpu.load(Relaxed).max(self.entered_cpu.load(Relaxed))),
            collected_us: self.collected_us().saturating_sub(self.stopped_collected_us.load(Relaxed)),
            still_us: now.saturating_sub(self.still_since.load(Relaxed).max(since)),
            wall_us: now.saturating_sub(since),
        }
        .outlasts_its_grace()
    }

    /// V8 begins to collect garbage.
    pub(crate) fn collection_begins(&self) {
        lock(&self.collections).began = Some(self.cpu_us());
    }

    /// V8 collected garbage.
    pub(crate) fn collection_ends(&self) {
        let cpu = self.cpu_us();
        let mut collections = lock(&self.collections);
        let began = collections.began.take().unwrap_or(cpu);
        collections.ended_us += cpu.saturating_sub(began);
    }

    /// CPU time of all collections, of one under way too, in microseconds.
    fn collected_us(&self) -> u64 {
        let cpu = self.cpu_us();
        let collections = lock(&self.collections);
        collections.ended_us + collections.began.map_or(0, |began| cpu.saturating_sub(began))
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
    begun: Arc<Begun>,
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
        crate::priority::allow_steps_aside();
        let watchdog = Arc::new(Self::default());
        let weak = Arc::downgrade(&watchdog);
        std::thread::Builder::new().name("watchdog".into()).spawn(move || {
            let mut memory = memory;
            let mut turns = weak.upgrade().map(|watchdog| Turns::of_this_thread(&watchdog.begun));
            while let Some(watchdog) = weak.upgrade() {
                let mut grew = watchdog.tick();
                if let Some(memory) = &mut memory {
                    grew |= watchdog.look_at_memory(memory);
                }
                if grew {
                    on_condemned(&watchdog);
                }
                let quiet = watchdog.is_quiet();
                drop(watchdog);
                if let Some(turns) = &mut turns {
                    turns.wait(quiet);
                }
            }
        })?;
        Ok(watchdog)
    }

    pub(crate) fn add(&self, slot: &Arc<Slot>) {
        let _one_host = slot.begun.set(Arc::clone(&self.begun));
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

    /// Whether nothing computes: no JavaScript, and no helper.
    fn is_quiet(&self) -> bool {
        lock(&self.slots).iter().all(|slot| !slot.is_inside() && !slot.helpers.any())
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A guest that filled its heap and was stopped spent its grace in several collections in a row. Between two of
    /// them it did not look like collecting, and its host was given up although it would have left V8 a moment later.
    #[test]
    fn collections_in_a_row_are_not_computing() {
        let slot = Slot::for_this_thread();
        assert!(slot.stop(Verdict::Cpu));
        let spin_until = |cpu_us: u64| while slot.cpu_us() < cpu_us {};
        let began = slot.cpu_us();
        for part in 1..=3 {
            slot.collection_begins();
            spin_until(began + part * 100_000);
            slot.collection_ends();
        }
        assert!(slot.collected_us() >= 299_000);
        assert!(!slot.outlasts_its_grace(now_us(), 0));
        spin_until(began + 900_000);
        assert!(slot.outlasts_its_grace(now_us(), 0), "600 ms of computing after the stop");
    }

    fn spin_ms(ms: u64) {
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(ms) {}
    }

    /// A neighbour waited for 3 ms behind an isolate that was made for the pool: nothing in V8 interrupts that.
    #[test]
    fn work_that_nobody_waits_for_lets_others_go_first_also_outside_v8() {
        let asides = || crate::priority::tests::ASIDES.get();
        let slot = Slot::for_this_thread();
        let watchdog = Watchdog::start(None, |_| {}).unwrap();
        watchdog.add(&slot);
        // Computes until it has stepped aside some times; it never ends if nobody makes it.
        let spin_on = |times: u32| {
            let (before, began) = (asides(), Instant::now());
            while asides() < before + times {
                assert!(began.elapsed() < Duration::from_secs(60), "{} times", asides() - before);
            }
        };
        slot.set_aside(true);
        spin_on(6);
        slot.set_aside(false);
        // Time to leave the list, and then it is on it again.
        std::thread::sleep(Duration::from_millis(100));
        let before = asides();
        spin_ms(100);
        assert_eq!(asides(), before, "outside it is left alone");
        slot.enter(0, u64::MAX / 2, InvocationId(1));
        spin_on(6);
        slot.exit();
        watchdog.remove(&slot);
    }

    /// On two processors a request waited up to the timer's tick, 4 ms, behind a guest that spun.
    #[test]
    fn what_computes_on_lets_others_go_first_until_it_is_stopped() {
        crate::platform::init(false);
        let mut isolate = v8::Isolate::new(v8::CreateParams::default());
        let slot = Slot::for_this_thread();
        slot.set_handle(isolate.thread_safe_handle());
        let watchdog = Watchdog::start(None, |_| {}).unwrap();
        watchdog.add(&slot);
        v8::scope!(let scope, &mut isolate);
        let context = v8::Context::new(scope, v8::ContextOptions::default());
        let scope = &mut v8::ContextScope::new(scope, context);
        let code = v8::String::new(scope, "for (;;);").unwrap();
        let script = v8::Script::compile(scope, code, None).unwrap();
        slot.enter(0, 100_000, InvocationId(1));
        assert!(script.run(scope).is_none());
        slot.exit();
        assert_eq!(slot.verdict(), Some(Verdict::Cpu));
        // Of about 190 that it had the time for.
        let asides = crate::priority::tests::ASIDES.get();
        assert!(asides > 5, "{asides}");
    }

    #[test]
    fn each_part_of_the_grace_ends() {
        let fine =
            SinceStop { cpu_us: 1_200_000, collected_us: 1_000_000, still_us: 2_000_000, wall_us: 9_000_000 };
        assert!(!fine.outlasts_its_grace());
        assert!(SinceStop { cpu_us: 1_250_001, ..fine }.outlasts_its_grace());
        assert!(SinceStop { collected_us: 1_000_001, ..fine }.outlasts_its_grace());
        assert!(SinceStop { still_us: 2_000_001, ..fine }.outlasts_its_grace());
        assert!(SinceStop { wall_us: 10_000_001, ..fine }.outlasts_its_grace());
    }
}
