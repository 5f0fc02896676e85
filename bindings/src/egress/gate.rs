//! Rates and caps of a policy class: one [`Gate`] per tenant and class, shared by all its deployments.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::crossing::Denial;

/// What a class allows in numbers; `None`: no bound of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// Requests per second, sustained; as many may come at once after a quiet second.
    pub requests_per_second: Option<u32>,
    /// Requests at once, until the end of their answers' bodies.
    pub concurrent_max: Option<u32>,
    /// Largest request body, in bytes.
    pub request_bytes_max: Option<u64>,
    /// Largest response body, in bytes after decoding.
    pub response_bytes_max: Option<u64>,
}

/// The state behind the caps.
#[derive(Debug)]
pub struct Gate {
    caps: Caps,
    bucket: Mutex<Bucket>,
    slots: Option<Arc<Semaphore>>,
    started: Instant,
}

/// Held while a request is under way.
#[derive(Debug)]
pub(crate) struct Slot(#[expect(dead_code, reason = "held for its drop")] Option<OwnedSemaphorePermit>);

impl Slot {
    /// Of no gate.
    pub(crate) fn free() -> Self {
        Self(None)
    }
}

impl Gate {
    /// A gate with nothing used.
    #[must_use]
    pub fn new(caps: Caps) -> Self {
        let slots = caps.concurrent_max.map(|max| Arc::new(Semaphore::new(max as usize)));
        let bucket = Mutex::new(Bucket {
            thousandths: u64::from(caps.requests_per_second.unwrap_or(0)) * 1_000,
            at_ms: 0,
        });
        Self { caps, bucket, slots, started: Instant::now() }
    }

    pub(crate) fn caps(&self) -> Caps {
        self.caps
    }

    /// One request wants through. Never waits: a guest that is told can slow down.
    pub(crate) fn enter(&self) -> Result<Slot, Denial> {
        let permit = match &self.slots {
            None => None,
            Some(slots) => Some(Arc::clone(slots).try_acquire_owned().map_err(|_| Denial::Concurrency)?),
        };
        if let Some(rate) = self.caps.requests_per_second {
            let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
            let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
            if !bucket.take(rate, now_ms) {
                return Err(Denial::Rate);
            }
        }
        Ok(Slot(permit))
    }
}

/// A token bucket in thousandths of a request, so that a millisecond at one request per second counts.
#[derive(Debug)]
struct Bucket {
    thousandths: u64,
    at_ms: u64,
}

impl Bucket {
    fn take(&mut self, per_second: u32, now_ms: u64) -> bool {
        let rate = u64::from(per_second);
        let gained = now_ms.saturating_sub(self.at_ms).saturating_mul(rate);
        self.thousandths = self.thousandths.saturating_add(gained).min(rate * 1_000);
        self.at_ms = self.at_ms.max(now_ms);
        let enough = self.thousandths >= 1_000;
        if enough {
            self.thousandths -= 1_000;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// In any window the bucket lets through at most its burst and what the window's time allows.
        #[test]
        fn never_more_than_rate_and_burst(rate in 1u32..50, steps in prop::collection::vec(0u64..400, 1..200)) {
            let mut bucket = Bucket { thousandths: u64::from(rate) * 1_000, at_ms: 0 };
            let (mut now_ms, mut passed) = (0, 0u64);
            for step in steps {
                now_ms += step;
                passed += u64::from(bucket.take(rate, now_ms));
                prop_assert!(passed * 1_000 <= u64::from(rate) * (1_000 + now_ms));
            }
        }
    }

    #[test]
    fn slots_are_given_back() {
        let gate = Gate::new(Caps { concurrent_max: Some(1), ..Caps::default() });
        let slot = gate.enter().unwrap();
        assert_eq!(gate.enter().unwrap_err(), Denial::Concurrency);
        drop(slot);
        assert!(gate.enter().is_ok());
    }
}
