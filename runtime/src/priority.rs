//! Who waits for a processor when there are more threads than processors.
//!
//! ```text
//!  gateway, router, an isolate that begins ── short slice ─▶ runs when it wakes, for little time at once
//!  an isolate that computes on, is made   ── long slice  ─▶ runs between those, as long in sum, less often,
//!  for nobody yet, or is taken apart                       and steps aside twice each millisecond
//! ```
//!
//! Linux shares processors fairly whatever the slice; a thread that asks for shorter ones is served sooner (EEVDF, since Linux
//! 6.12; older kernels ignore it). Nobody starves and no privilege is needed, unlike with `nice` or `SCHED_IDLE`. A
//! request of a few hundred microseconds then does not wait, at each of its threads, until a guest that spins has used up its turn.
//!
//! That is not enough: a thread that has just had more than its share, if only by the 50 µs of the message before, is not served
//! before the timer's tick, milliseconds later, even beside an idle processor. So the watchdog interrupts what computes by a signal, in
//! which it yields: what waits goes first, and since Linux 6.18 it has credit for the next time. A signal comes through
//! everywhere: also while an isolate is made, compiles, collects garbage or is in one long builtin, where V8 looks at no request.
//!
//! Source: `sched_setattr(2)`, and `sched/sched-eevdf.rst` of the kernel's documentation.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// CPU time of one invocation from which on its isolate computes, rather than answers, in microseconds.
pub(crate) const LENGTHY_US: u64 = 1_000;
/// Slice of threads that others wait for, in nanoseconds. The kernel takes 0.1 to 100 ms.
const SHORT_NS: u64 = 200_000;
/// Slice of isolates that compute, in nanoseconds. Since Linux 6.18 a yield gives up what is left of it, so that a thread that
/// steps aside each half a millisecond gets about a sixth of what one gets that never does; with 10 ms it was a twentieth, and
/// computing took seconds beside many short requests.
const LONG_NS: u64 = 3_000_000;
/// The signal on which a thread yields: nobody uses it for sockets here, and by default it is ignored.
const ASIDE: libc::c_int = libc::SIGURG;

/// The calling thread, and those that it starts from now on, answer: they are served soon. Without effect where the system
/// has no such thing.
pub fn answer_soon() {
    set_slice(0, SHORT_NS);
}

/// How one thread is served.
#[derive(Debug)]
pub(crate) struct Slices {
    thread: libc::pid_t,
    long: AtomicBool,
}

impl Slices {
    /// The calling thread, which makes an isolate that nobody waits for yet.
    pub(crate) fn of_this_thread() -> Self {
        set_slice(0, LONG_NS);
        // JUSTIFICATION: the number of a thread has no safe form in std.
        // SAFETY: the call has no arguments and cannot fail.
        let thread = unsafe { libc::gettid() };
        Self { thread, long: AtomicBool::new(true) }
    }

    /// Somebody waits for its answer.
    pub(crate) fn answer(&self) {
        if self.long.swap(false, Relaxed) {
            set_slice(self.thread, SHORT_NS);
        }
    }

    /// Lets those that wait for its processor go first, wherever it is.
    pub(crate) fn step_aside(&self) {
        // JUSTIFICATION: std sends no signals.
        // SAFETY: the calls have no pointers. A thread that has ended is an error, or another one of this process, which yields once.
        let _thread_gone = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), self.thread, ASIDE) };
    }

    /// It computes.
    pub(crate) fn compute(&self) {
        if !self.long.swap(true, Relaxed) {
            set_slice(self.thread, LONG_NS);
        }
    }
}

/// From now on threads of this process can be made to step aside. Where somebody else handles the signal, none is.
pub(crate) fn allow_steps_aside() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // JUSTIFICATION: what libraries for signals run on one is a flag or a pipe, and what is needed is the yield itself.
        // SAFETY: all fields are integers or no function, for which zero is a value.
        let (mut before, mut action): (libc::sigaction, libc::sigaction) = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes to the local.
        let failed = unsafe { libc::sigaction(ASIDE, std::ptr::null(), &raw mut before) } != 0;
        if failed || ![libc::SIG_DFL, libc::SIG_IGN].contains(&before.sa_sigaction) {
            return;
        }
        action.sa_sigaction = step_aside as *const () as usize;
        // On the thread's own stack for signals, so that no guest's depth matters, and without an error for calls that it meets.
        action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
        // SAFETY: the kernel reads the local; the handler makes one system call, which is allowed on signals.
        unsafe { libc::sigaction(ASIDE, &raw const action, std::ptr::null_mut()) };
    });
}

extern "C" fn step_aside(_signal: libc::c_int) {
    #[cfg(test)]
    tests::ASIDES.with(|asides| asides.set(asides.get() + 1));
    // SAFETY: the call has no arguments, and on Linux it cannot fail, so that `errno` stays as it was.
    unsafe { libc::sched_yield() };
}

/// Asks for slices of `ns` for a thread of this process, or with 0 for the calling one.
fn set_slice(thread: libc::pid_t, ns: u64) {
    const KEEP_POLICY: u64 = libc::SCHED_FLAG_KEEP_POLICY as u64;
    let size = size_of::<libc::sched_attr>();
    // JUSTIFICATION: neither std nor a library in the tree has these calls.
    // SAFETY: all fields are integers, for which zero is a value.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes at most `size` bytes to the local.
    let failed = unsafe { libc::syscall(libc::SYS_sched_getattr, thread, &raw mut attributes, size, 0) } != 0;
    // Priorities of real time are the operator's business.
    if failed || attributes.sched_policy != libc::SCHED_OTHER.unsigned_abs() {
        return;
    }
    attributes.size = size as u32;
    attributes.sched_flags |= KEEP_POLICY;
    attributes.sched_runtime = ns;
    // SAFETY: the kernel reads `size` bytes of the local. It changes how soon a thread is served, and nothing else.
    let _without_effect = unsafe { libc::syscall(libc::SYS_sched_setattr, thread, &raw const attributes, 0) };
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        /// How often this thread stepped aside.
        pub(crate) static ASIDES: Cell<u32> = const { Cell::new(0) };
    }

    fn slice_ns() -> u64 {
        // SAFETY: as above.
        let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
        let size = size_of::<libc::sched_attr>();
        // SAFETY: as above.
        unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
        attributes.sched_runtime
    }

    /// Kernels before 6.12 tell no slice: then there is nothing to see.
    #[test]
    fn a_thread_that_computes_gets_longer_slices_until_it_answers_again() {
        let before = slice_ns();
        let slices = Slices::of_this_thread();
        if slice_ns() == before {
            return;
        }
        assert_eq!(slice_ns(), LONG_NS);
        slices.answer();
        assert_eq!(slice_ns(), SHORT_NS);
        std::thread::spawn(|| assert_eq!(slice_ns(), SHORT_NS)).join().expect("it inherits");
        slices.compute();
        assert_eq!(slice_ns(), LONG_NS);
    }
}
