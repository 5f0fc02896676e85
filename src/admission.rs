//! Who gets in: pure policy over counts and time, and the thin shared driver around it.
//!
//! ```text
//!  request ─▶ room in the audit log ─▶ global in-flight cap ─▶ tenant's share ─▶ tenant's loads/s ─▶ Permit (released by Drop)
//!                    │ 503                    │ 503                │ 429               │ 429
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::audit::{Audit, Place};
use crate::config::Name;

/// One tenant's share of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TenantPolicy {
    /// Requests in flight at once.
    pub concurrent_max: u32,
    /// Executions in flight at once, counted in `concurrent_max` too.
    pub executions_max: u32,
    /// Fresh isolates per second, sustained.
    pub loads_per_second: u32,
    /// Fresh isolates at once after a quiet time.
    pub loads_burst: u32,
}

impl Default for TenantPolicy {
    fn default() -> Self {
        Self { concurrent_max: 2_000, executions_max: 500, loads_per_second: 2_000, loads_burst: 4_000 }
    }
}

/// Bounds over all tenants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GlobalPolicy {
    /// Requests in flight at once, over all tenants.
    pub in_flight_max: u32,
}

impl Default for GlobalPolicy {
    fn default() -> Self {
        Self { in_flight_max: 16_384 }
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An event of a deployed worker, in its warm isolate.
    Warm,
    /// An execution in a fresh isolate.
    Execution,
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Denied {
    /// The whole gateway is full: not the tenant's fault.
    Overloaded,
    /// The tenant has too many requests in flight.
    Concurrency,
    /// The tenant has too many executions in flight.
    Executions,
    /// The audit log cannot take more, and nothing happens without it.
    Audit,
    /// The tenant ended so many isolate hosts that it must wait, for the sake of the others.
    Suspended {
        /// Until then, in seconds, at least 1.
        retry_after_s: u32,
    },
    /// The tenant starts fresh isolates too fast.
    Loads {
        /// When a token is there again, in seconds, at least 1.
        retry_after_s: u32,
    },
}

impl Denied {
    /// The stable machine-readable code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Overloaded => "overloaded",
            Self::Concurrency => "too_many_requests",
            Self::Executions => "too_many_executions",
            Self::Loads { .. } => "too_many_loads",
            Self::Audit => "audit_unavailable",
            Self::Suspended { .. } => "tenant_suspended",
        }
    }

    /// Seconds for `Retry-After`.
    #[must_use]
    pub fn retry_after_s(self) -> u32 {
        match self {
            Self::Loads { retry_after_s } | Self::Suspended { retry_after_s } => retry_after_s,
            _ => 1,
        }
    }
}

/// A token bucket in whole thousandths of a token: no float drifts, no clock inside.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    milli: u64,
    at_ms: u64,
}

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub fn full(burst: u32, now_ms: u64) -> Self {
        Self { milli: u64::from(burst) * 1_000, at_ms: now_ms }
    }

    /// Takes one token, or says in how many seconds there will be one.
    pub fn take(&mut self, rate: u32, burst: u32, now_ms: u64) -> Result<(), u32> {
        let elapsed_ms = now_ms.saturating_sub(self.at_ms);
        self.at_ms = self.at_ms.max(now_ms);
        // One token per second is one thousandth per millisecond.
        let filled = self.milli.saturating_add(elapsed_ms.saturating_mul(u64::from(rate)));
        self.milli = filled.min(u64::from(burst) * 1_000);
        if self.milli >= 1_000 {
            self.milli -= 1_000;
            return Ok(());
        }
        let wait_ms = (1_000 - self.milli).checked_div(u64::from(rate)).unwrap_or(u64::from(u32::MAX));
        Err(u32::try_from(wait_ms.div_ceil(1_000)).unwrap_or(u32::MAX).max(1))
    }
}

/// One tenant's live numbers.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    policy: TenantPolicy,
    concurrent: u32,
    executions: u32,
    loads: Bucket,
}

impl Share {
    /// Nothing in flight, a full bucket.
    #[must_use]
    pub fn new(policy: TenantPolicy, now_ms: u64) -> Self {
        Self { policy, concurrent: 0, executions: 0, loads: Bucket::full(policy.loads_burst, now_ms) }
    }

    /// Counts one request in, if the policy allows it; changes nothing otherwise.
    pub fn enter(&mut self, kind: Kind, now_ms: u64) -> Result<(), Denied> {
        if self.concurrent >= self.policy.concurrent_max {
            return Err(Denied::Concurrency);
        }
        if kind == Kind::Execution {
            if self.executions >= self.policy.executions_max {
                return Err(Denied::Executions);
            }
            let taken = self.loads.take(self.policy.loads_per_second, self.policy.loads_burst, now_ms);
            taken.map_err(|retry_after_s| Denied::Loads { retry_after_s })?;
            self.executions += 1;
        }
        self.concurrent += 1;
        Ok(())
    }

    /// Counts it out again.
    pub fn leave(&mut self, kind: Kind) {
        debug_assert!(self.concurrent > 0, "every leave has its enter");
        self.concurrent = self.concurrent.saturating_sub(1);
        if kind == Kind::Execution {
            self.executions = self.executions.saturating_sub(1);
        }
    }
}

/// The driver: one lock per tenant, one atomic for all.
#[derive(Clone)]
pub struct Admission {
    shared: Arc<Shared>,
}

struct Shared {
    audit: Audit,
    global: GlobalPolicy,
    in_flight: std::sync::atomic::AtomicU32,
    tenants: BTreeMap<Name, Mutex<Share>>,
    started: Instant,
}

/// One admitted request; dropping it lets the next one in.
pub struct Permit {
    shared: Arc<Shared>,
    tenant: Name,
    kind: Kind,
    place: Place,
}

impl Admission {
    /// Nothing in flight.
    #[must_use]
    pub fn new(
        global: GlobalPolicy,
        tenants: impl IntoIterator<Item = (Name, TenantPolicy)>,
        audit: Audit,
    ) -> Self {
        let tenants =
            tenants.into_iter().map(|(name, policy)| (name, Mutex::new(Share::new(policy, 0)))).collect();
        let in_flight = std::sync::atomic::AtomicU32::new(0);
        Self { shared: Arc::new(Shared { audit, global, in_flight, tenants, started: Instant::now() }) }
    }

    /// Lets a request of a known tenant in, or says why not. An unknown tenant has no share at all.
    pub fn enter(&self, tenant: &Name, kind: Kind) -> Result<Permit, Denied> {
        use std::sync::atomic::Ordering::Relaxed;
        let share = self.shared.tenants.get(tenant).ok_or(Denied::Concurrency)?;
        let place = self.shared.audit.place().map_err(|_| Denied::Audit)?;
        if self.shared.in_flight.fetch_add(1, Relaxed) >= self.shared.global.in_flight_max {
            self.shared.in_flight.fetch_sub(1, Relaxed);
            return Err(Denied::Overloaded);
        }
        let now_ms = u64::try_from(self.shared.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        // A poisoned lock cannot leave the counts half changed: every change is one plain store.
        let entered = share.lock().unwrap_or_else(PoisonError::into_inner).enter(kind, now_ms);
        if let Err(denied) = entered {
            self.shared.in_flight.fetch_sub(1, Relaxed);
            return Err(denied);
        }
        Ok(Permit { shared: self.shared.clone(), tenant: tenant.clone(), kind, place })
    }

    /// Requests in flight, over all tenants.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.shared.in_flight.load(std::sync::atomic::Ordering::Relaxed)
    }
}

impl Permit {
    /// The room for the record of what was admitted; it is given out once.
    pub(crate) fn take_place(&mut self) -> Place {
        std::mem::replace(&mut self.place, Place::nowhere())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shared.in_flight.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
        if let Some(share) = self.shared.tenants.get(&self.tenant) {
            share.lock().unwrap_or_else(PoisonError::into_inner).leave(self.kind);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy() -> TenantPolicy {
        TenantPolicy { concurrent_max: 5, executions_max: 3, loads_per_second: 2, loads_burst: 4 }
    }

    proptest! {
        /// Against a model that keeps the list of admitted requests: the bounds always hold, a denial always
        /// has its reason, and what left makes room.
        #[test]
        fn a_share_never_exceeds_its_policy(steps in proptest::collection::vec((0u8..3, 0u64..900), 1..200)) {
            let policy = policy();
            let mut share = Share::new(policy, 0);
            let (mut inside, mut now_ms, mut loads) = (Vec::new(), 0, 0u64);
            for (step, wait_ms) in steps {
                now_ms += wait_ms;
                let executions = inside.iter().filter(|kind| **kind == Kind::Execution).count();
                let kind = if step == 0 { Kind::Warm } else { Kind::Execution };
                if step == 2 {
                    if let Some(kind) = inside.pop() { share.leave(kind); }
                    continue;
                }
                match share.enter(kind, now_ms) {
                    Ok(()) => { inside.push(kind); loads += u64::from(kind == Kind::Execution); }
                    Err(Denied::Concurrency) => prop_assert_eq!(inside.len(), 5),
                    Err(Denied::Executions) => prop_assert_eq!(executions, 3),
                    Err(Denied::Loads { retry_after_s }) => prop_assert!(retry_after_s >= 1),
                    Err(Denied::Overloaded | Denied::Audit | Denied::Suspended { .. }) => prop_assert!(false, "a share knows nothing of the others"),
                }
                prop_assert!(inside.len() <= 5);
                prop_assert!(inside.iter().filter(|kind| **kind == Kind::Execution).count() <= 3);
                prop_assert!(loads <= 4 + now_ms * 2 / 1_000, "{} loads in {} ms", loads, now_ms);
            }
        }

        /// Waiting as long as the bucket says is always enough, and time that goes backwards gives nothing.
        #[test]
        fn the_promised_wait_is_enough(rate in 1u32..1_000, burst in 1u32..50, times in proptest::collection::vec(0u64..5_000, 1..100)) {
            let mut bucket = Bucket::full(burst, 0);
            for now_ms in times {
                let now_ms = now_ms.max(bucket.at_ms);
                if let Err(wait_s) = bucket.take(rate, burst, now_ms) {
                    let mut later = bucket;
                    prop_assert!(later.take(rate, burst, now_ms.saturating_sub(1)).is_err());
                    prop_assert!(later.take(rate, burst, now_ms + u64::from(wait_s) * 1_000).is_ok());
                }
            }
        }
    }

    #[test]
    fn the_gateway_as_a_whole_has_a_cap_and_permits_return_by_drop() {
        let (a, b) = (Name::parse("a").unwrap(), Name::parse("b").unwrap());
        let tenants = [(a.clone(), policy()), (b.clone(), policy())];
        let admission = Admission::new(GlobalPolicy { in_flight_max: 2 }, tenants, Audit::off());
        let first = admission.enter(&a, Kind::Warm).ok().unwrap();
        let _second = admission.enter(&b, Kind::Execution).ok().unwrap();
        assert_eq!(admission.enter(&b, Kind::Warm).err(), Some(Denied::Overloaded));
        drop(first);
        assert_eq!(admission.in_flight(), 1);
        assert!(admission.enter(&a, Kind::Warm).is_ok());
        assert_eq!(admission.enter(&Name::parse("c").unwrap(), Kind::Warm).err(), Some(Denied::Concurrency));
    }

    #[test]
    fn a_tenant_with_no_loads_is_told_to_stay_away() {
        let mut share = Share::new(TenantPolicy { loads_per_second: 0, loads_burst: 1, ..policy() }, 0);
        assert_eq!(share.enter(Kind::Execution, 0), Ok(()));
        assert!(
            matches!(share.enter(Kind::Execution, 1 << 40), Err(Denied::Loads { retry_after_s }) if retry_after_s > 1_000)
        );
    }
}
