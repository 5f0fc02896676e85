//! Who was inside when a host had to go: a bounded ledger per tenant.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use atoll_bindings::seam::{Identity, InvocationId};

use super::penalty::{Penalty, PenaltyPolicy, Standing};

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
#[derive(Debug)]
pub(super) struct Ledger {
    tenants: HashMap<Arc<str>, Blame>,
    policy: PenaltyPolicy,
    /// Tenants of whom something is remembered for their penalty.
    standings: HashMap<Arc<str>, Standing>,
    started: Instant,
}

impl Ledger {
    pub(super) fn new(policy: PenaltyPolicy) -> Self {
        Self { tenants: HashMap::new(), policy, standings: HashMap::new(), started: Instant::now() }
    }

    /// Notes invocations whose isolates would not stop; returns the tenants to blame.
    pub(super) fn condemned(
        &mut self,
        named: &[InvocationId],
        inside: &[(InvocationId, Identity)],
    ) -> BTreeSet<Arc<str>> {
        let blamed = tenants(inside.iter().filter(|(id, _)| named.contains(id)));
        let now = Instant::now();
        for tenant in &blamed {
            self.note(tenant, |blame| blame.condemned += 1);
            self.stand(tenant, now, Standing::ended_a_host);
        }
        blamed
    }

    /// Notes everybody inside a host that died; returns the suspects.
    pub(super) fn died(&mut self, inside: &[(InvocationId, Identity)]) -> BTreeSet<Arc<str>> {
        let suspects = tenants(inside.iter());
        let alone = suspects.len() == 1;
        let now = Instant::now();
        for tenant in &suspects {
            self.note(tenant, |blame| {
                let count = if alone { &mut blame.died_alone } else { &mut blame.died_among_others };
                *count += 1;
            });
            self.stand(tenant, now, if alone { Standing::ended_a_host } else { Standing::was_inside });
        }
        suspects
    }

    /// What this tenant must do, for the sake of the others.
    pub(super) fn penalty(&mut self, tenant: &str, now: Instant) -> Penalty {
        if self.standings.is_empty() {
            return Penalty::Free;
        }
        let (policy, now_ms) = (self.policy, self.ms(now));
        self.standings.get_mut(tenant).map_or(Penalty::Free, |standing| standing.penalty(&policy, now_ms))
    }

    /// Who is under a penalty now; whoever is under none and has nothing on record is forgotten.
    pub(super) fn penalties(&mut self, now: Instant) -> BTreeMap<Arc<str>, Penalty> {
        self.forget(now);
        let (policy, now_ms) = (self.policy, self.ms(now));
        let each =
            self.standings.iter_mut().map(|(tenant, standing)| (tenant, standing.penalty(&policy, now_ms)));
        let held = each.filter(|(_, penalty)| *penalty != Penalty::Free);
        held.map(|(tenant, penalty)| (Arc::clone(tenant), penalty)).collect()
    }

    fn forget(&mut self, now: Instant) {
        let (policy, now_ms) = (self.policy, self.ms(now));
        self.standings.retain(|_, standing| {
            standing.penalty(&policy, now_ms) != Penalty::Free || !standing.is_clean(now_ms)
        });
    }

    fn stand(&mut self, tenant: &Arc<str>, now: Instant, note: fn(&mut Standing, &PenaltyPolicy, u64)) {
        if self.standings.len() >= TENANTS_MAX {
            self.forget(now);
        }
        let (policy, now_ms) = (self.policy, self.ms(now));
        // The keys are configured tenants, so the map is bounded by itself as well.
        let standing = self.standings.entry(Arc::clone(tenant)).or_insert_with(|| Standing::new(now_ms));
        note(standing, &policy, now_ms);
    }

    fn ms(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.started);
        u64::try_from(passed.as_millis()).unwrap_or(u64::MAX)
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
    use std::time::Duration;

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
        let mut ledger = Ledger::new(PenaltyPolicy::default());
        let blamed = ledger.condemned(&[InvocationId(1)], &inside(&["good", "bad", "good"]));
        assert_eq!(blamed, BTreeSet::from([Arc::from("bad")]));
        assert_eq!(ledger.of("bad").condemned, 1);
        assert_eq!(ledger.of("good"), Blame::default());
    }

    #[test]
    fn a_death_suspects_everybody_inside_once() {
        let mut ledger = Ledger::new(PenaltyPolicy::default());
        ledger.died(&inside(&["a", "b", "a"]));
        ledger.died(&inside(&["a", "a"]));
        ledger.died(&[]);
        assert_eq!(ledger.of("a"), Blame { died_alone: 1, died_among_others: 1, condemned: 0 });
        assert_eq!(ledger.of("b"), Blame { died_among_others: 1, ..Blame::default() });
    }

    #[test]
    fn who_ends_hosts_is_moved_then_waits_then_is_free_again_and_nobody_else() {
        let policy = PenaltyPolicy::default();
        let mut ledger = Ledger::new(policy);
        let start = Instant::now();
        for count in 0..policy.suspend_after {
            let expected =
                if count >= policy.quarantine_after { Penalty::Quarantined } else { Penalty::Free };
            assert_eq!(ledger.penalty("bad", start), expected, "{count}");
            ledger.died(&inside(&["bad"]));
        }
        let Penalty::Suspended { left_ms } = ledger.penalty("bad", start) else { panic!("not suspended") };
        assert!(left_ms <= u64::from(policy.suspend_s) * 1_000 + 1_000);
        assert_eq!(ledger.penalty("good", start), Penalty::Free);
        let later = start + Duration::from_secs(u64::from(policy.suspend_s) + 2);
        assert_eq!(ledger.penalty("bad", later), Penalty::Quarantined, "on probation");
        let late = later + Duration::from_secs(u64::from(policy.forget_s * policy.suspend_after));
        assert_eq!(ledger.penalty("bad", late), Penalty::Free);
        ledger.forget(late);
        assert!(ledger.standings.is_empty(), "and it is forgotten");
    }

    #[test]
    fn who_is_there_whenever_a_host_dies_gets_one_of_its_own_and_is_never_suspended() {
        let policy = PenaltyPolicy::default();
        let mut ledger = Ledger::new(policy);
        for other in 0..policy.suspend_after * 2 {
            ledger.died(&inside(&["always", &format!("t{other}")]));
        }
        assert_eq!(ledger.penalty("always", Instant::now()), Penalty::Quarantined);
        assert_eq!(ledger.penalty("t1", Instant::now()), Penalty::Free);
    }

    #[test]
    fn the_ledger_is_bounded_and_keeps_the_worst() {
        let mut ledger = Ledger::new(PenaltyPolicy::default());
        ledger.condemned(&[InvocationId(0)], &inside(&["worst"]));
        for number in 0..TENANTS_MAX + 10 {
            ledger.died(&inside(&[&format!("t{number}"), "other"]));
        }
        assert_eq!(ledger.tenants.len(), TENANTS_MAX);
        assert_eq!(ledger.of("worst").condemned, 1);
    }
}
