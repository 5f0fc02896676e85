//! Row 108: what a tenant does too often is counted instead of written one by one. Nothing is lost silently.
//!
//! ```text
//!  crossing ─▶ tenant's bucket ─┬─ a token ─▶ a record of its own
//!                               └─ none ────▶ a count, by what it was ─ every window ─▶ one record for all of it
//! ```
//!
//! Pure: time comes in as an argument.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::admission::Bucket;

/// Different things that are counted for one tenant within a window; what comes on top is counted as one.
const KEYS_MAX: usize = 64;

/// What was done too often.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Deed {
    /// `crossing`, `refused` or `control`.
    pub(super) what: &'static str,
    /// Whose code; empty where that is not known.
    pub(super) worker: Arc<str>,
    /// The capability; empty where there is none.
    pub(super) capability: Arc<str>,
    /// The stable code of what became of it.
    pub(super) code: &'static str,
}

impl Deed {
    /// Everything for which there was no place.
    fn other(what: &'static str) -> Self {
        Self { what, worker: "".into(), capability: "".into(), code: "other" }
    }
}

/// How often, and how much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) count: u64,
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
    pub(super) cost: u64,
    pub(super) first_ms: u64,
    pub(super) last_ms: u64,
}

impl Count {
    fn add(&mut self, other: &Self) {
        if self.count == 0 {
            self.first_ms = other.first_ms;
        }
        self.count = self.count.saturating_add(other.count);
        self.request_bytes = self.request_bytes.saturating_add(other.request_bytes);
        self.response_bytes = self.response_bytes.saturating_add(other.response_bytes);
        self.cost = self.cost.saturating_add(other.cost);
        self.last_ms = other.last_ms;
    }
}

/// One tenant's counts, when their window is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) tenant: Arc<str>,
    pub(super) deed: Deed,
    pub(super) count: Count,
}

/// Who did how much lately.
#[derive(Debug)]
pub(super) struct Flood {
    rate: u32,
    burst: u32,
    window_ms: u64,
    tenants: HashMap<Arc<str>, Tenant>,
    /// When the oldest count began; `None` if nothing is counted.
    since_ms: Option<u64>,
}

#[derive(Debug)]
struct Tenant {
    bucket: Bucket,
    counts: BTreeMap<Deed, Count>,
}

impl Flood {
    pub(super) fn new(rate: u32, burst: u32, window_ms: u64) -> Self {
        Self { rate, burst, window_ms, tenants: HashMap::new(), since_ms: None }
    }

    /// Whether this tenant may have another record of its own now. The keys are configured tenants, so the map is bounded.
    pub(super) fn may_write(&mut self, tenant: &Arc<str>, now_ms: u64) -> bool {
        let (rate, burst) = (self.rate, self.burst);
        self.tenant(tenant, now_ms).bucket.take(rate, burst, now_ms).is_ok()
    }

    /// Counts what has no record of its own.
    pub(super) fn count(&mut self, tenant: &Arc<str>, deed: Deed, count: Count) {
        self.since_ms.get_or_insert(count.last_ms);
        let counts = &mut self.tenant(tenant, count.last_ms).counts;
        let full = counts.len() >= KEYS_MAX && !counts.contains_key(&deed);
        counts.entry(if full { Deed::other(deed.what) } else { deed }).or_default().add(&count);
    }

    /// What was counted, if its window is over.
    pub(super) fn due(&mut self, now_ms: u64) -> Vec<Counted> {
        match self.since_ms {
            Some(since) if now_ms >= since.saturating_add(self.window_ms) => self.take(),
            _ => Vec::new(),
        }
    }

    /// What was counted so far.
    pub(super) fn take(&mut self) -> Vec<Counted> {
        self.since_ms = None;
        let mut counted = Vec::new();
        for (tenant, state) in &mut self.tenants {
            let counts = std::mem::take(&mut state.counts);
            counted.extend(counts.into_iter().map(|(deed, count)| Counted {
                tenant: tenant.clone(),
                deed,
                count,
            }));
        }
        counted
    }

    fn tenant(&mut self, tenant: &Arc<str>, now_ms: u64) -> &mut Tenant {
        let burst = self.burst;
        self.tenants
            .entry(tenant.clone())
            .or_insert_with(|| Tenant { bucket: Bucket::full(burst, now_ms), counts: BTreeMap::new() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn deed(number: u32) -> Deed {
        Deed {
            what: "crossing",
            worker: format!("w{number}").into(),
            capability: "".into(),
            code: "answered",
        }
    }

    proptest! {
        /// Written and counted together are everything that happened, whatever happens when.
        #[test]
        fn nothing_is_lost(
            steps in proptest::collection::vec((0usize..3, 0u32..200, 0u64..400, any::<bool>()), 1..400)
        ) {
            let mut flood = Flood::new(3, 5, 1_000);
            let names: [Arc<str>; 3] = ["a".into(), "b".into(), "c".into()];
            let (mut done, mut kept) = ([0u64; 3], [0u64; 3]);
            let mut now_ms = 0;
            let tell = |counted: Vec<Counted>, kept: &mut [u64; 3]| {
                assert!(counted.len() <= 3 * (KEYS_MAX + 1));
                for one in counted {
                    let at = names.iter().position(|name| *name == one.tenant).unwrap();
                    assert!(one.count.first_ms <= one.count.last_ms);
                    kept[at] += one.count.count;
                }
            };
            let owned: [Arc<str>; 3] = ["a".into(), "b".into(), "c".into()];
            for (tenant, number, wait, look) in steps {
                now_ms += wait;
                done[tenant] += 1;
                if flood.may_write(&owned[tenant], now_ms) {
                    kept[tenant] += 1;
                } else {
                    let one = Count { count: 1, first_ms: now_ms, last_ms: now_ms, ..Count::default() };
                    flood.count(&owned[tenant], deed(number), one);
                }
                if look { tell(flood.due(now_ms), &mut kept); }
            }
            tell(flood.take(), &mut kept);
            prop_assert_eq!(done, kept);
            prop_assert!(flood.due(u64::MAX).is_empty());
        }
    }

    #[test]
    fn a_flood_is_one_record_and_a_neighbour_has_its_own_tokens() {
        let mut flood = Flood::new(1, 2, 1_000);
        let (bad, good): (Arc<str>, Arc<str>) = ("bad".into(), "good".into());
        for now_ms in 0..100 {
            if !flood.may_write(&bad, now_ms) {
                let one = Count { count: 1, cost: 2, first_ms: now_ms, last_ms: now_ms, ..Count::default() };
                flood.count(&bad, deed(0), one);
            }
        }
        assert!(flood.may_write(&good, 100));
        assert!(flood.due(500).is_empty(), "the window is not over");
        let counted = flood.due(2_000);
        assert_eq!(counted.len(), 1);
        assert_eq!((counted[0].count.count, counted[0].count.cost), (98, 196));
    }
}
