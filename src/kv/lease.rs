//! Who reads a large value, so that nobody removes it meanwhile.
//!
//! ```text
//!  reader: take(7) ──▶ read its pieces ──▶ drop          remover: claim(7)? only if nobody has it
//!             └─ refused once it is claimed                          │
//!                                                         in the same transaction: its rows go
//! ```
//!
//! A reader learns a value's number from its entry before it has a lease, so it looks again afterwards whether the value is there.
//! A claim stands until its transaction is over; numbers are never given twice, so afterwards it is of no use to anybody.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

/// Values that are read or written, and values that are being removed.
#[derive(Debug, Default)]
pub(super) struct Leases(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    held: HashMap<i64, u32>,
    claimed: HashSet<i64>,
}

/// Keeps one value from being removed.
#[derive(Debug)]
pub(super) struct Lease {
    leases: Arc<Leases>,
    value: i64,
}

impl Leases {
    /// `None` if the value is being removed.
    pub(super) fn take(leases: &Arc<Self>, value: i64) -> Option<Lease> {
        let mut state = leases.state();
        if state.claimed.contains(&value) {
            return None;
        }
        *state.held.entry(value).or_default() += 1;
        Some(Lease { leases: Arc::clone(leases), value })
    }

    /// Whether the value may be removed, in the transaction that is open.
    pub(super) fn claim(&self, value: i64) -> bool {
        let mut state = self.state();
        let free = !state.held.contains_key(&value);
        if free {
            state.claimed.insert(value);
        }
        free
    }

    /// The transaction is over.
    pub(super) fn settle(&self) {
        self.state().claimed.clear();
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    pub(super) fn value(&self) -> i64 {
        self.value
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = self.leases.state();
        if let Some(count) = state.held.get_mut(&self.value) {
            *count -= 1;
            if *count == 0 {
                state.held.remove(&self.value);
            }
        }
    }
}
