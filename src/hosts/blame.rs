//! Who was inside when a host had to go: a bounded ledger per tenant.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use atoll_bindings::seam::{Identity, InvocationId};

/// Most tenants remembered; beyond it the one with the least on record is forgotten.
const TENANTS_MAX: usize = 10_000;

/// What is on record about one tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Blame {
    /// Its isolate would not stop, and a host was replaced for it.
    pub condemned: u32,
    /// A host died with this tenant alone inside.
    pub died_alone: u32,
    /// A host died with this tenant and others inside.
    pub died_among_others: u32,
}

/// All tenants' records.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    tenants: HashMap<Arc<str>, Blame>,
    /// Hosts that a tenant ended lately, alone.
    recent: HashMap<Arc<str>, Recent>,
}

/// Hosts that one tenant may end in a burst.
const BURST_MAX: u32 = 40;
/// After a burst it may end one more in this time, in milliseconds.
const REGAIN_MS: u64 = 2_000;

#[derive(Clone, Copy, Debug)]
struct Recent {
    ended: u32,
    since: Instant,
}

impl Recent {
    /// Forgets one for every span that passed.
    fn fade(&mut self, now: Instant) {
        let spans = now.saturating_duration_since(self.since).as_millis() as u64 / REGAIN_MS;
        self.ended = self.ended.saturating_sub(u32::try_from(spans).unwrap_or(u32::MAX));
        self.since += Duration::from_millis(spans * REGAIN_MS);
    }
}

impl Ledger {
    /// Notes invocations whose isolates would not stop; returns the tenants to blame.
    pub(super) fn condemned(
        &mut self,
        named: &[InvocationId],
        inside: &[(InvocationId, Identity)],
    ) -> BTreeSet<Arc<str>> {
        let blamed = tenants(inside.iter().filter(|(id, _)| named.contains(id)));
        for tenant in &blamed {
            self.note(tenant, |blame| blame.condemned += 1);
            self.ended_a_host(tenant);
        }
        blamed
    }

    /// Notes everybody inside a host that died; returns the suspects.
    pub(super) fn died(&mut self, inside: &[(InvocationId, Identity)]) -> BTreeSet<Arc<str>> {
        let suspects = tenants(inside.iter());
        let alone = suspects.len() == 1;
        if let (true, Some(tenant)) = (alone, suspects.first()) {
            self.ended_a_host(tenant);
        }
        for tenant in &suspects {
            self.note(tenant, |blame| {
                let count = if alone { &mut blame.died_alone } else { &mut blame.died_among_others };
                *count += 1;
            });
        }
        suspects
    }

    /// Whether this tenant must wait, for the sake of the others.
    pub(super) fn is_barred(&mut self, tenant: &str, now: Instant) -> bool {
        if self.recent.is_empty() {
            return false;
        }
        let Some(recent) = self.recent.get_mut(tenant) else { return false };
        recent.fade(now);
        match recent.ended {
            0 => {
                self.recent.remove(tenant);
                false
            }
            ended => ended >= BURST_MAX,
        }
    }

    fn ended_a_host(&mut self, tenant: &Arc<str>) {
        let now = Instant::now();
        if self.recent.len() >= TENANTS_MAX {
            self.recent.retain(|_, recent| {
                recent.fade(now);
                recent.ended > 0
            });
        }
        let recent = self.recent.entry(Arc::clone(tenant)).or_insert(Recent { ended: 0, since: now });
        recent.fade(now);
        recent.ended = recent.ended.saturating_add(1).min(BURST_MAX);
    }

    pub(super) fn of(&self, tenant: &str) -> Blame {
        self.tenants.get(tenant).copied().unwrap_or_default()
    }

    fn note(&mut self, tenant: &Arc<str>, note: impl FnOnce(&mut Blame)) {
        if self.tenants.len() >= TENANTS_MAX && !self.tenants.contains_key(tenant) {
            let least =
                self.tenants.iter().min_by_key(|(_, blame)| **blame).map(|(tenant, _)| tenant.clone());
            if let Some(least) = least {
                self.tenants.remove(&least);
            }
        }
        note(self.tenants.entry(Arc::clone(tenant)).or_default());
    }
}

fn tenants<'a>(inside: impl Iterator<Item = &'a (InvocationId, Identity)>) -> BTreeSet<Arc<str>> {
    inside.map(|(_, identity)| Arc::clone(&identity.tenant)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inside(tenants: &[&str]) -> Vec<(InvocationId, Identity)> {
        let one = |(id, tenant): (usize, &&str)| {
            let identity = Identity { tenant: (*tenant).into(), worker: "w".into(), traceparent: None };
            (InvocationId(id as u64), identity)
        };
        tenants.iter().enumerate().map(one).collect()
    }

    #[test]
    fn the_named_are_blamed_and_the_others_not() {
        let mut ledger = Ledger::default();
        let blamed = ledger.condemned(&[InvocationId(1)], &inside(&["good", "bad", "good"]));
        assert_eq!(blamed, BTreeSet::from([Arc::from("bad")]));
        assert_eq!(ledger.of("bad").condemned, 1);
        assert_eq!(ledger.of("good"), Blame::default());
    }

    #[test]
    fn a_death_suspects_everybody_inside_once() {
        let mut ledger = Ledger::default();
        ledger.died(&inside(&["a", "b", "a"]));
        ledger.died(&inside(&["a", "a"]));
        ledger.died(&[]);
        assert_eq!(ledger.of("a"), Blame { died_alone: 1, died_among_others: 1, condemned: 0 });
        assert_eq!(ledger.of("b"), Blame { died_among_others: 1, ..Blame::default() });
    }

    #[test]
    fn who_ends_hosts_faster_than_they_come_back_waits_and_nobody_else() {
        let mut ledger = Ledger::default();
        let start = Instant::now();
        for _ in 0..BURST_MAX {
            assert!(!ledger.is_barred("bad", start));
            ledger.died(&inside(&["bad"]));
        }
        assert!(ledger.is_barred("bad", start));
        assert!(!ledger.is_barred("good", start));
        assert!(!ledger.is_barred("bad", start + Duration::from_millis(REGAIN_MS * 3 / 2)));
        assert!(
            !ledger.is_barred("bad", start + Duration::from_millis(REGAIN_MS * u64::from(BURST_MAX) * 2))
        );
        assert!(ledger.recent.is_empty(), "and it is forgotten");
    }

    #[test]
    fn the_ledger_is_bounded_and_keeps_the_worst() {
        let mut ledger = Ledger::default();
        ledger.condemned(&[InvocationId(0)], &inside(&["worst"]));
        for number in 0..TENANTS_MAX + 10 {
            ledger.died(&inside(&[&format!("t{number}"), "other"]));
        }
        assert_eq!(ledger.tenants.len(), TENANTS_MAX);
        assert_eq!(ledger.of("worst").condemned, 1);
    }
}
