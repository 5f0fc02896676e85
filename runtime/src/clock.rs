//! The time that guests see: it stands still while JavaScript runs, and moves when something arrives.
//!
//! A guest that can measure its own running time can measure caches, and through them what other tenants do (Spectre). So every
//! clock of JavaScript shows the moment at which the current turn began, in whole milliseconds: a message, an answer or a timer
//! begins a turn, and computing does not.
//!
//! V8 asks the C library's `gettimeofday` for the time behind `Date`, `Intl` and `Temporal`, and offers no hook before it. This
//! module defines that function for the whole program: on an isolate's thread it answers with the turn's time, elsewhere with the
//! real one. So no script has to replace `Date`, nothing is paid per isolate, and there is no original that a guest could dig
//! out. `performance` has ops of its own, replaced here too. Rust's own clocks do not pass through it.

use std::cell::Cell;
use std::time::{SystemTime, UNIX_EPOCH};

use deno_core::op2;

#[derive(Clone, Copy)]
struct Turn {
    /// When the current turn began, in milliseconds since 1970. 0 on threads that run no guest.
    now_ms: u64,
    /// When the first one began.
    origin_ms: u64,
}

thread_local! {
    static TURN: Cell<Turn> = const { Cell::new(Turn { now_ms: 0, origin_ms: 0 }) };
}

/// A turn begins: the guest's clocks move. Called on the isolate's thread before JavaScript runs.
pub(crate) fn advance() {
    let real_ms = u64::try_from(real().as_millis()).unwrap_or(u64::MAX);
    let turn = TURN.get();
    // The machine's clock may be set back; what a guest saw stays seen.
    let now_ms = real_ms.max(turn.now_ms);
    let origin_ms = if turn.origin_ms == 0 { now_ms } else { turn.origin_ms };
    TURN.set(Turn { now_ms, origin_ms });
}

fn real() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// `gettimeofday(2)` for this program.
///
/// # Safety
/// As in C: `time` is null or may be written to. The time zone is obsolete and left alone.
// SAFETY: the C library's own function of this name has the same signature and meaning; nothing else in the program defines it.
#[unsafe(no_mangle)]
unsafe extern "C" fn gettimeofday(time: *mut libc::timeval, _zone: *mut libc::c_void) -> libc::c_int {
    let now = match TURN.get().now_ms {
        0 => real(),
        now_ms => std::time::Duration::from_millis(now_ms),
    };
    let value = libc::timeval {
        tv_sec: libc::time_t::try_from(now.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_usec: libc::suseconds_t::from(now.subsec_micros()),
    };
    if !time.is_null() {
        // SAFETY: the caller's promise.
        unsafe { time.write(value) };
    }
    0
}

/// Writes milliseconds as `deno_web`'s script reads them: seconds and nanoseconds.
fn expose(ms: u64, out: &mut [u8]) {
    let seconds = u32::try_from(ms / 1_000).unwrap_or(u32::MAX);
    let nanos = u32::try_from(ms % 1_000).unwrap_or_default() * 1_000_000;
    if let Some((first, second)) = out.split_at_mut_checked(4)
        && let Some(second) = second.get_mut(..4)
    {
        first.copy_from_slice(&seconds.to_ne_bytes());
        second.copy_from_slice(&nanos.to_ne_bytes());
    }
}

/// `performance.now()`: since the isolate's first turn.
#[op2(fast)]
pub(crate) fn op_now(#[buffer] out: &mut [u8]) {
    let turn = TURN.get();
    expose(turn.now_ms.saturating_sub(turn.origin_ms), out);
}

/// `performance.timeOrigin`: when the isolate's first turn began.
#[op2(fast)]
pub(crate) fn op_time_origin(#[buffer] out: &mut [u8]) {
    expose(TURN.get().origin_ms, out);
}
