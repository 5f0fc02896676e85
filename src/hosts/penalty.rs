//! What a tenant is made to do for ending isolate hosts: nothing, live in a host of its own, or wait. Pure policy.
//!
//! ```text
//!                 ended 3, or 3 died around it            ended 20
//!  free ─────────────────────────────────────▶ own host ───────────▶ suspended, each time for twice as long
//!    ▲                                            │  ▲                   │
//!    └───── one is forgotten every 10 s ──────────┘  └── its time is up ─┘
//! ```
//!
//! Hosts are everybody's. Who ends some may do so by accident and only loses its neighbours; who ends many must wait for the
//! sake of the machine. A death with several tenants inside proves nothing, but a tenant that is there every time gets a host
//! of its own as well, where it will be alone when it happens again.

use serde::Deserialize;

/// Largest doubling of a suspension.
const DOUBLINGS_MAX: u32 = 16;

/// When which penalty begins and ends: `[blame]` of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PenaltyPolicy {
    /// Hosts that a tenant ended, or that died around it, until it gets one of its own.
    pub quarantine_after: u32,
    /// Hosts that it ended until it is suspended.
    pub suspend_after: u32,
    /// One of them is forgotten in this time, in seconds.
    pub forget_s: u32,
    /// The first suspension, in seconds.
    pub suspend_s: u32,
    /// The longest, in seconds.
    pub suspend_s_max: u32,
}

impl Default for PenaltyPolicy {
    fn default() -> Self {
        Self { quarantine_after: 3, suspend_after: 20, forget_s: 10, suspend_s: 30, suspend_s_max: 3_600 }
    }
}

impl PenaltyPolicy {
    /// Whether the numbers make sense together.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.quarantine_after >= 1
            && self.suspend_after > self.quarantine_after
            && self.forget_s >= 1
            && (1..=self.suspend_s_max).contains(&self.suspend_s)
    }

    fn forget_ms(&self) -> u64 {
        u64::from(self.forget_s) * 1_000
    }

    fn suspend_ms(&self, before: u32) -> u64 {
        let doubled = u64::from(self.suspend_s) << before.min(DOUBLINGS_MAX);
        doubled.min(self.suspend_s_max.into()) * 1_000
    }
}

/// What holds for a tenant now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Penalty {
    /// Nothing.
    #[default]
    Free,
    /// It runs in a host of its own.
    Quarantined,
    /// It runs nowhere.
    Suspended {
        /// For so long, in milliseconds.
        left_ms: u64,
    },
}

impl Penalty {
    /// As events and metrics say it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Free => "released",
            Self::Quarantined => "quarantined",
            Self::Suspended { .. } => "suspended",
        }
    }

    /// For how long a suspended tenant waits, in whole seconds.
    pub(crate) fn seconds(self) -> Option<u64> {
        match self {
            Self::Suspended { left_ms } => Some(left_ms.div_ceil(1_000)),
            Self::Free | Self::Quarantined => None,
        }
    }
}

/// One tenant's standing. Times are in milliseconds since any fixed moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// Hosts that it ended, as far as they are remembered.
    ended: u32,
    /// Hosts that died around it, the same.
    around: u32,
    /// Until when both were counted down.
    since_ms: u64,
    suspended_until_ms: u64,
    suspensions: u32,
}

impl Standing {
    pub(super) fn new(now_ms: u64) -> Self {
        Self { ended: 0, around: 0, since_ms: now_ms, suspended_until_ms: 0, suspensions: 0 }
    }

    /// It ended a host: its isolate would not stop, or it was alone inside.
    pub(super) fn ended_a_host(&mut self, policy: &PenaltyPolicy, now_ms: u64) {
        self.fade(policy, now_ms);
        self.ended += 1;
        if self.ended >= policy.suspend_after {
            self.suspended_until_ms = now_ms.saturating_add(policy.suspend_ms(self.suspensions));
            self.suspensions = self.suspensions.saturating_add(1);
            // Afterwards it is on probation: in a host of its own, with that much less to go.
            self.ended = policy.quarantine_after;
        }
    }

    /// A host died with it and others inside.
    pub(super) fn was_inside(&mut self, policy: &PenaltyPolicy, now_ms: u64) {
        self.fade(policy, now_ms);
        self.around = (self.around + 1).min(policy.quarantine_after);
    }

    /// What holds now.
    pub(super) fn penalty(&mut self, policy: &PenaltyPolicy, now_ms: u64) -> Penalty {
        self.fade(policy, now_ms);
        if now_ms < self.suspended_until_ms {
            return Penalty::Suspended { left_ms: self.suspended_until_ms - now_ms };
        }
        let most = self.ended.max(self.around);
        if most >= policy.quarantine_after { Penalty::Quarantined } else { Penalty::Free }
    }

    /// Whether nothing is remembered any more.
    pub(super) fn is_clean(&self, now_ms: u64) -> bool {
        self.ended == 0 && self.around == 0 && now_ms >= self.suspended_until_ms
    }

    /// Forgets one of each for every span that passed; while suspended, nothing.
    fn fade(&mut self, policy: &PenaltyPolicy, now_ms: u64) {
        self.since_ms = self.since_ms.max(self.suspended_until_ms.min(now_ms));
        let spans = now_ms.saturating_sub(self.since_ms) / policy.forget_ms();
        self.since_ms += spans * policy.forget_ms();
        let spans = u32::try_from(spans).unwrap_or(u32::MAX);
        self.ended = self.ended.saturating_sub(spans);
        self.around = self.around.saturating_sub(spans);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: PenaltyPolicy = PenaltyPolicy {
        quarantine_after: 3,
        suspend_after: 6,
        forget_s: 10,
        suspend_s: 5,
        suspend_s_max: 17,
    };

    /// The same, one second at a time, with nothing clever in it.
    #[derive(Default)]
    struct Model {
        ended: u32,
        around: u32,
        clock: u32,
        left: u32,
        suspensions: u32,
    }

    impl Model {
        fn second(&mut self) {
            if self.left > 0 {
                self.left -= 1;
                self.clock = 0;
                return;
            }
            self.clock += 1;
            if self.clock == POLICY.forget_s {
                self.clock = 0;
                self.ended = self.ended.saturating_sub(1);
                self.around = self.around.saturating_sub(1);
            }
        }

        fn end(&mut self) {
            self.ended += 1;
            if self.ended == POLICY.suspend_after {
                self.left = (POLICY.suspend_s << self.suspensions).min(POLICY.suspend_s_max);
                self.suspensions += 1;
                self.ended = POLICY.quarantine_after;
            }
        }
    }

    proptest! {
        /// Against the model: the same penalty at every moment, whatever happens when.
        #[test]
        fn the_policy_is_the_model(steps in proptest::collection::vec((0u8..4, 0u32..40), 1..120)) {
            let (mut standing, mut model) = (Standing::new(0), Model::default());
            let mut now_ms = 0;
            for (deed, seconds) in steps {
                // What runs while suspended is what ran before; more than a few seconds of it there are not.
                for _ in 0..seconds { model.second(); }
                now_ms += u64::from(seconds) * 1_000;
                let suspended = model.left > 0;
                match deed {
                    0 | 1 if !suspended => { standing.ended_a_host(&POLICY, now_ms); model.end(); }
                    2 if !suspended => {
                        standing.was_inside(&POLICY, now_ms);
                        model.around = (model.around + 1).min(POLICY.quarantine_after);
                    }
                    _ => {}
                }
                let expected = match (model.left, model.ended.max(model.around)) {
                    (left @ 1.., _) => Penalty::Suspended { left_ms: u64::from(left) * 1_000 },
                    (0, most) if most >= POLICY.quarantine_after => Penalty::Quarantined,
                    _ => Penalty::Free,
                };
                prop_assert_eq!(standing.penalty(&POLICY, now_ms), expected);
            }
            // By time alone everybody gets free again.
            now_ms += 1_000 * u64::from(POLICY.suspend_s_max + POLICY.forget_s * (POLICY.suspend_after + 1));
            prop_assert_eq!(standing.penalty(&POLICY, now_ms), Penalty::Free);
            prop_assert!(standing.is_clean(now_ms));
        }

        /// No suspension is longer than the longest, and no number makes it panic.
        #[test]
        fn suspensions_are_bounded(suspend_s in 1u32..100_000, more in 0u32..100_000, ends in 1usize..100) {
            let policy = PenaltyPolicy { suspend_s, suspend_s_max: suspend_s.saturating_add(more), ..POLICY };
            prop_assert!(policy.is_sound());
            let mut standing = Standing::new(0);
            for _ in 0..ends {
                standing.ended_a_host(&policy, 0);
                if let Penalty::Suspended { left_ms } = standing.penalty(&policy, 0) {
                    prop_assert!(left_ms <= u64::from(policy.suspend_s_max) * 1_000);
                }
            }
        }
    }
}
