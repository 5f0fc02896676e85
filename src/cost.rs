//! What an execution costs: whole micro-units of the operator's currency, by a formula that anybody can repeat.
//!
//! ```text
//!  execution = ⌈ request + cpu_ms × CPU time + gib_second × (largest heap + largest external memory) × wall time ⌉
//!  crossing  = ⌈ egress_gib × (body bytes sent + body bytes that came back) ⌉
//! ```
//!
//! The sum is exact until the one rounding at its end. Where whole micro-units are too coarse, the currency's name can be that
//! of a smaller unit: with `currency = "mUSD"`, a price of 300 is 0.3 US dollars for a million.

use atoll_bindings::seam::Usage;
use serde::Deserialize;

/// Bytes in a GiB.
const GIB: u128 = 1 << 30;
/// Microseconds in a millisecond, and in a second.
const US_PER_MS: u128 = 1_000;
const US_PER_S: u128 = 1_000_000;
/// All divisors of the formula together: each part of the sum is a whole number of these.
const PARTS: u128 = GIB * US_PER_S;

/// `[cost]`: prices in micro-units of the currency.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Prices {
    /// What the prices are in. It is shown and not understood.
    pub currency: String,
    /// Of a millisecond of CPU time.
    pub cpu_ms: u32,
    /// Of a GiB of memory for a second.
    pub gib_second: u32,
    /// Of an execution, whatever it does.
    pub request: u32,
    /// Of a GiB over a capability, in either direction.
    pub egress_gib: u32,
}

impl Default for Prices {
    fn default() -> Self {
        Self { currency: "USD".into(), cpu_ms: 0, gib_second: 0, request: 0, egress_gib: 0 }
    }
}

impl Prices {
    /// Of an execution.
    #[must_use]
    pub fn execution(&self, usage: &Usage) -> u64 {
        let memory = u128::from(usage.heap_bytes_peak) + u128::from(usage.external_bytes_peak);
        let request = u128::from(self.request) * PARTS;
        let cpu = u128::from(self.cpu_ms) * u128::from(usage.cpu_us) * (PARTS / US_PER_MS);
        let held = memory.saturating_mul(u128::from(usage.wall_us)).saturating_mul(self.gib_second.into());
        whole(request.saturating_add(cpu).saturating_add(held), PARTS)
    }

    /// Of a use of a capability.
    #[must_use]
    pub fn crossing(&self, request_bytes: u64, response_bytes: u64) -> u64 {
        let bytes = u128::from(request_bytes) + u128::from(response_bytes);
        whole(bytes * u128::from(self.egress_gib), GIB)
    }
}

/// Rounded up; a number that is too large for anybody to pay stays the largest one.
fn whole(parts: u128, of: u128) -> u64 {
    u64::try_from(parts.div_ceil(of)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prices(cpu_ms: u32, gib_second: u32, request: u32, egress_gib: u32) -> Prices {
        Prices { cpu_ms, gib_second, request, egress_gib, ..Prices::default() }
    }

    #[test]
    fn the_formula_is_the_documented_one() {
        let usage = Usage {
            cpu_us: 12_345,
            wall_us: 2_000_000,
            heap_bytes_peak: 1 << 29,
            external_bytes_peak: 1 << 29,
            ..Usage::default()
        };
        assert_eq!(prices(10, 0, 0, 0).execution(&usage), 124, "123.45, rounded up");
        assert_eq!(prices(0, 7, 0, 0).execution(&usage), 14);
        assert_eq!(prices(0, 0, 3, 0).execution(&usage), 3);
        assert_eq!(prices(10, 7, 3, 0).execution(&usage), 141, "140.45, rounded once");
        assert_eq!(prices(0, 0, 0, 90_000).crossing(1 << 29, 1 << 29), 90_000);
        assert_eq!(prices(0, 0, 0, 1).crossing(1, 0), 1);
        assert_eq!(prices(9, 9, 0, 9).execution(&Usage::default()), 0);
    }

    proptest! {
        /// More use never costs less, and no number makes it panic.
        #[test]
        fn more_never_costs_less(a in any::<(u64, u64, u64)>(), b in any::<(u64, u64, u64)>(), p in any::<(u32, u32, u32, u32)>()) {
            let usage = |(cpu_us, wall_us, heap_bytes_peak): (u64, u64, u64)| Usage { cpu_us, wall_us, heap_bytes_peak, ..Usage::default() };
            let prices = prices(p.0, p.1, p.2, p.3);
            let most = (a.0.max(b.0), a.1.max(b.1), a.2.max(b.2));
            prop_assert!(prices.execution(&usage(most)) >= prices.execution(&usage(a)));
            prop_assert!(prices.crossing(most.0, most.1) >= prices.crossing(b.0, b.1));
        }
    }
}
