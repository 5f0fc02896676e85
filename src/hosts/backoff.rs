//! How long to wait before the next isolate host is spawned: not at all for the first loss, longer and longer while hosts die young.

use std::time::Duration;

/// A host that served this long was healthy, in milliseconds: starting one anew each time costs a small part of that.
const HEALTHY_MS: u64 = 1_000;
/// Losses of young hosts that cost no wait: the standby took over, and its replacement should be there soon.
const FREE_LOSSES: u32 = 2;
/// First wait, in milliseconds.
const WAIT_MS_MIN: u64 = 50;
/// Longest wait, in milliseconds.
const WAIT_MS_MAX: u64 = 5_000;

/// Pure: says how long, does not wait.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    young_losses: u32,
}

impl Backoff {
    /// Notes the end of a host that served this long, from when it was ready; zero if it never was.
    pub(super) fn lost_after(&mut self, served: Duration) {
        let healthy = served >= Duration::from_millis(HEALTHY_MS);
        self.young_losses = if healthy { 0 } else { self.young_losses.saturating_add(1) };
    }

    /// How long to wait before the next spawn.
    pub(super) fn wait(&self) -> Duration {
        match self.young_losses.checked_sub(FREE_LOSSES + 1) {
            None => Duration::ZERO,
            Some(doublings) => {
                let factor = 1_u64.checked_shl(doublings).unwrap_or(u64::MAX);
                Duration::from_millis(WAIT_MS_MIN.saturating_mul(factor).min(WAIT_MS_MAX))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_health_resets_them() {
        let mut backoff = Backoff::default();
        let mut waits = Vec::new();
        for _ in 0..80 {
            waits.push(backoff.wait().as_millis() as u64);
            backoff.lost_after(Duration::from_millis(1));
        }
        assert_eq!(&waits[..6], &[0, 0, 0, 50, 100, 200]);
        assert!(waits.is_sorted());
        assert_eq!(waits.last(), Some(&WAIT_MS_MAX));
        backoff.lost_after(Duration::from_millis(HEALTHY_MS));
        assert_eq!(backoff.wait(), Duration::ZERO);
    }

    /// An hour in which somebody killed a host every second or so had none for three quarters of the time: each was taken for
    /// one that dies young.
    #[test]
    fn hosts_that_served_are_replaced_at_once_however_often_they_are_killed() {
        let mut backoff = Backoff::default();
        for _ in 0..1_000 {
            for served_ms in [HEALTHY_MS, 0, 300] {
                backoff.lost_after(Duration::from_millis(served_ms));
                assert_eq!(backoff.wait(), Duration::ZERO);
            }
        }
    }
}
