//! Who waits for a processor when there are more threads than processors.
//!
//! ```text
//!  gateway, router, an isolate that begins ── short slice ─▶ runs when it wakes, for little time at once
//!  an isolate that computes on            ── long slice  ─▶ runs between those, as long in sum, less often,
//!                                                          and steps aside each millisecond
//! ```
//!
//! Linux shares processors fairly whatever the slice; a thread that asks for shorter ones is served sooner (EEVDF, since Linux
//! 6.12; older kernels ignore it). Nobody starves and no privilege is needed, unlike with `nice` or `SCHED_IDLE`. A
//! request of a few hundred microseconds then does not wait, at each of its threads, until a guest that spins has used up its turn.
//!
//! That is not enough: a thread that has just had more than its share, if only by the 50 µs of the message before, is not served
//! before the timer's tick, milliseconds later, even beside an idle processor. So the watchdog asks V8 to interrupt what computes, and
//! there it yields: what waits goes first, and since Linux 6.18 it has credit for the next time.
//!
//! Source: `sched_setattr(2)`, and `sched/sched-eevdf.rst` of the kernel's documentation.

use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use crate::watchdog::Slot;

/// CPU time of one invocation from which on its isolate computes, rather than answers, in microseconds.
pub(crate) const LENGTHY_US: u64 = 2_000;
/// Slice of threads that others wait for, in nanoseconds. The kernel takes 0.1 to 100 ms.
const SHORT_NS: u64 = 200_000;
/// Slice of isolates that compute, in nanoseconds.
const LONG_NS: u64 = 10_000_000;

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
    /// It was asked to step aside, and has not yet.
    asked: AtomicBool,
    /// How often it did.
    asides: AtomicU32,
}

impl Slices {
    /// The calling thread, which makes an isolate that nobody waits for yet.
    pub(crate) fn of_this_thread() -> Self {
        set_slice(0, LONG_NS);
        // JUSTIFICATION: the number of a thread has no safe form in std.
        // SAFETY: the call has no arguments and cannot fail.
        let thread = unsafe { libc::gettid() };
        Self {
            thread,
            long: AtomicBool::new(true),
            asked: AtomicBool::default(),
            asides: AtomicU32::default(),
        }
    }

    /// Somebody waits for its answer.
    pub(crate) fn answer(&self) {
        if self.long.swap(false, Relaxed) {
            set_slice(self.thread, SHORT_NS);
        }
    }

    /// How often it stepped aside.
    #[cfg(test)]
    pub(crate) fn asides(&self) -> u32 {
        self.asides.load(Relaxed)
    }

    /// Asks the isolate of this handle, whose thread this is, to step aside when it can.
    pub(crate) fn ask_aside(&self, handle: &v8::IsolateHandle) {
        // V8 keeps each request until it comes to it.
        if !self.asked.swap(true, Relaxed) {
            handle.request_interrupt(step_aside, std::ptr::null_mut());
        }
    }

    /// It computes.
    pub(crate) fn compute(&self) {
        if !self.long.swap(true, Relaxed) {
            set_slice(self.thread, LONG_NS);
        }
    }
}

/// Lets threads that wait for this one's processor go first; V8 calls it in an isolate that was asked.
unsafe extern "C" fn step_aside(isolate: v8::UnsafeRawIsolatePtr, _nothing: *mut c_void) {
    // JUSTIFICATION: V8 has no other way to interrupt JavaScript that goes on.
    // SAFETY: V8 calls this on the isolate's own thread. `Isolate` does not dispose on drop.
    let isolate = unsafe { v8::Isolate::from_raw_isolate_ptr(isolate) };
    if let Some(slot) = isolate.get_slot::<Arc<Slot>>() {
        slot.slices.asked.store(false, Relaxed);
        slot.slices.asides.fetch_add(1, Relaxed);
    }
    std::thread::yield_now();
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
mod tests {
    use super::*;

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
