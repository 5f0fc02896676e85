//! Threads that compute for one isolate (WebCrypto's), and the CPU clocks of threads.
//!
//! They run native code that `terminate_execution` does not reach. Their time is charged to the isolate; one that goes
//! on after its isolate was stopped condemns the host, like JavaScript that does not stop.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// Helper threads of one isolate.
#[derive(Debug, Default)]
pub(crate) struct Helpers {
    /// Clocks of live ones. At most [`HELPERS_MAX`].
    clocks: Mutex<Vec<libc::clockid_t>>,
    /// As many as `clocks`, for a look without the lock.
    alive: AtomicUsize,
    /// CPU time of those that ended, in microseconds.
    ended_us: AtomicU64,
    /// CPU time at the last call of `busy`, in microseconds.
    seen_us: AtomicU64,
    /// CPU time that was charged, in microseconds.
    taken_us: AtomicU64,
}

/// Most helper threads of one isolate.
pub(crate) const HELPERS_MAX: usize = 1;

impl Helpers {
    /// The calling thread becomes a helper.
    pub(crate) fn begin(&self) {
        self.lock().push(own_clock());
        self.alive.fetch_add(1, Relaxed);
    }

    /// The calling thread is one no more.
    pub(crate) fn end(&self) {
        let own = own_clock();
        self.ended_us.fetch_add(clock_us(own), Relaxed);
        let mut clocks = self.lock();
        if let Some(at) = clocks.iter().position(|clock| *clock == own) {
            clocks.swap_remove(at);
            self.alive.fetch_sub(1, Relaxed);
        }
    }

    pub(crate) fn any(&self) -> bool {
        self.alive.load(Relaxed) > 0
    }

    /// CPU time of all, in microseconds.
    pub(crate) fn cpu_us(&self) -> u64 {
        let ended = self.ended_us.load(Relaxed);
        if !self.any() {
            return ended;
        }
        ended + self.lock().iter().map(|clock| clock_us(*clock)).sum::<u64>()
    }

    /// CPU time since this was last asked.
    pub(crate) fn take_us(&self) -> u64 {
        let now = self.cpu_us();
        now.saturating_sub(self.taken_us.swap(now, Relaxed))
    }

    /// Whether they computed since this was last asked.
    pub(crate) fn busy(&self) -> bool {
        let now = self.cpu_us();
        self.seen_us.swap(now, Relaxed) != now
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<libc::clockid_t>> {
        self.clocks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The CPU clock of the calling thread, readable from others.
pub(crate) fn own_clock() -> libc::clockid_t {
    let mut clock: libc::clockid_t = 0;
    // JUSTIFICATION: the CPU clock of another thread has no safe form in std.
    // SAFETY: `pthread_self` is always valid, and the out pointer is a local.
    let failed = unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &raw mut clock) } != 0;
    debug_assert!(!failed, "a running thread has a CPU clock");
    clock
}

/// What it shows, in microseconds; 0 once its thread is gone.
pub(crate) fn clock_us(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the out pointer is a local; a clock of a thread that is gone makes the call fail, leaving zero.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_of_helpers_counts_while_they_live_and_after() {
        let helpers = std::sync::Arc::new(Helpers::default());
        let thread = std::sync::Arc::clone(&helpers);
        std::thread::spawn(move || {
            thread.begin();
            while thread.cpu_us() < 2_000 {}
            assert!(thread.any() && thread.busy());
            thread.end();
        })
        .join()
        .expect("the thread ends");
        assert!(!helpers.any());
        assert!(helpers.cpu_us() >= 2_000);
    }
}
