//! Which isolates compute right now, and that those who do let others go first, again and again.
//!
//! ```text
//!  Slot::enter, an isolate is being made ──begun──▶ the watchdog's list ──each turn──▶ computes on? it steps aside
//!                                                         └── outside: leaves the list
//! ```
//!
//! When the list was empty for a while, the watchdog sleeps until its next look, or longer if there is nothing to look at; whoever
//! begins then wakes it. So an idle host costs next to nothing.

use std::sync::atomic::{AtomicBool, Ordering::*};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crate::watchdog::Slot;

/// How often the watchdog looks at every isolate.
const TICK: Duration = Duration::from_millis(5);
/// How often while nothing computes.
const QUIET_TICK: Duration = Duration::from_millis(100);
/// How often what computes lets others go first.
const TURN: Duration = Duration::from_micros(500);
/// Turns without anybody after which the watchdog sleeps for longer: so that requests that follow each other need not wake it.
const IDLE_TURNS_MAX: u32 = 20;

/// Where isolates tell that they begin.
#[derive(Debug, Default)]
pub(crate) struct Begun {
    slots: Mutex<Vec<Arc<Slot>>>,
    /// The watchdog waits for somebody to begin.
    waits: AtomicBool,
    watchdog: OnceLock<Thread>,
}

impl Begun {
    /// This isolate is not on the list, and begins.
    pub(crate) fn add(&self, slot: &Arc<Slot>) {
        self.lock().push(Arc::clone(slot));
        if self.waits.swap(false, AcqRel)
            && let Some(watchdog) = self.watchdog.get()
        {
            watchdog.unpark();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Slot>>> {
        // A panic while the list is held leaves it usable.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until somebody begins, or until `end`.
    fn wait(&self, end: Instant) {
        self.waits.store(true, Release);
        if self.lock().is_empty() {
            std::thread::park_timeout(end.saturating_duration_since(Instant::now()));
        }
        self.waits.store(false, Release);
    }
}

/// The watchdog's side.
#[derive(Debug)]
pub(crate) struct Turns {
    begun: Arc<Begun>,
    /// Who was inside at the last turn, or has begun since.
    list: Vec<Arc<Slot>>,
    /// For how many turns nobody was.
    idle: u32,
}

impl Turns {
    /// For the calling thread, which waits.
    pub(crate) fn of_this_thread(begun: &Arc<Begun>) -> Self {
        let _set_once = begun.watchdog.set(std::thread::current());
        Self { begun: Arc::clone(begun), list: Vec::new(), idle: 0 }
    }

    /// Waits until the next look, which has time if it is `quiet`: nothing computes. Meanwhile what begins and computes on lets
    /// others go first.
    pub(crate) fn wait(&mut self, quiet: bool) {
        let began = Instant::now();
        loop {
            let nobody = self.idle > IDLE_TURNS_MAX;
            let end = began + if quiet && nobody { QUIET_TICK } else { TICK };
            if Instant::now() >= end {
                return;
            }
            if nobody {
                self.begun.wait(end)
            } else {
                std::thread::sleep(TURN)
            }
            self.take();
        }
    }

    fn take(&mut self) {
        self.list.append(&mut self.begun.lock());
        self.idle = if self.list.is_empty() { self.idle.saturating_add(1) } else { 0 };
        self.list.retain(|slot| slot.take_turn() || !slot.leave_list());
    }
}
