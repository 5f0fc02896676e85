//! Guests' console lines on their way to the operator's log: rate limited per tenant, and what was left out
//! is counted and said.
//!
//! A guest that logs in a loop must not fill a disk or drown its neighbours' lines. Each tenant has a token
//! bucket; when tokens come back, one `suppressed N` line stands for all lines lost in between.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use atoll_bindings::seam::LogLevel;

use super::metrics::Metrics;

/// Lines per second that one tenant may log for long.
pub const LINES_PER_SECOND: u32 = 100;
/// Lines that one tenant may log at once.
pub const LINES_BURST: u32 = 500;
/// Most tenants tracked; beyond it full buckets are forgotten, then all tenants share one bucket.
const TENANTS_TRACKED_MAX: usize = 10_000;

/// Thousandths of a line, so that slow refills add up exactly.
const MILLI: u64 = 1_000;

/// One tenant's allowance. Pure: time comes in as milliseconds since any fixed moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bucket {
    tokens_milli: u64,
    refilled_ms: u64,
    suppressed: u64,
}

/// What to do with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Write it, after a line that says how many were left out, if any were.
    Write { suppressed_before: u64 },
    /// Leave it out.
    Suppress,
}

impl Bucket {
    fn full(now_ms: u64) -> Self {
        Self { tokens_milli: u64::from(LINES_BURST) * MILLI, refilled_ms: now_ms, suppressed: 0 }
    }

    fn take(&mut self, now_ms: u64) -> Verdict {
        let elapsed_ms = now_ms.saturating_sub(self.refilled_ms);
        self.refilled_ms = self.refilled_ms.max(now_ms);
        // lines/s is the same number as milli-lines/ms
        let refill = elapsed_ms.saturating_mul(LINES_PER_SECOND.into());
        self.tokens_milli = self.tokens_milli.saturating_add(refill).min(u64::from(LINES_BURST) * MILLI);
        if self.tokens_milli < MILLI {
            self.suppressed += 1;
            return Verdict::Suppress;
        }
        self.tokens_milli -= MILLI;
        Verdict::Write { suppressed_before: std::mem::take(&mut self.suppressed) }
    }

    fn is_idle(&self, now_ms: u64) -> bool {
        let empty_for_ms = u64::from(LINES_BURST) * MILLI / u64::from(LINES_PER_SECOND);
        self.suppressed == 0 && now_ms.saturating_sub(self.refilled_ms) > empty_for_ms
    }
}

/// The allowances of all tenants.
#[derive(Debug)]
pub(super) struct GuestLog {
    began: Instant,
    buckets: Mutex<HashMap<Arc<str>, Bucket>>,
}

/// One line and where it comes from.
#[derive(Clone, Copy, Debug)]
pub struct GuestLine<'a> {
    /// Who pays.
    pub tenant: &'a str,
    /// Worker's name or execution's id.
    pub worker: &'a str,
    /// The invocation's trace, as 32 hexadecimal digits.
    pub trace: Option<&'a str>,
    /// Severity.
    pub level: LogLevel,
    /// The text.
    pub message: &'a str,
    /// A JSON object, of lines that a logger made.
    pub fields: Option<&'a str>,
    /// Which invocation, on its host.
    pub invocation: u64,
}

impl GuestLog {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), buckets: Mutex::new(HashMap::new()) }
    }

    /// Writes the line to the operator's log if the tenant's allowance permits.
    pub(super) fn write(&self, line: GuestLine<'_>, metrics: &Metrics) {
        metrics.guest_lines.add(level_name(line.level), 1);
        let now_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        match self.judge(line.tenant, now_ms) {
            Verdict::Suppress => metrics.guest_lines_suppressed.add("", 1),
            Verdict::Write { suppressed_before } => {
                if suppressed_before > 0 {
                    tracing::warn!(
                        target: "atoll::guest",
                        tenant = line.tenant,
                        suppressed = suppressed_before,
                        "suppressed {suppressed_before} guest log lines: the tenant logs too fast"
                    );
                }
                emit(line);
            }
        }
    }

    fn judge(&self, tenant: &str, now_ms: u64) -> Verdict {
        // The lock guards plain numbers: a poisoned map is as good as any.
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.get_mut(tenant) {
            return bucket.take(now_ms);
        }
        if buckets.len() >= TENANTS_TRACKED_MAX {
            buckets.retain(|_, bucket| !bucket.is_idle(now_ms));
        }
        let key = if buckets.len() >= TENANTS_TRACKED_MAX { "" } else { tenant };
        buckets.entry(key.into()).or_insert_with(|| Bucket::full(now_ms)).take(now_ms)
    }
}

fn emit(line: GuestLine<'_>) {
    macro_rules! at {
        ($level:ident) => {
            tracing::event!(
                target: "atoll::guest",
                tracing::Level::$level,
                tenant = line.tenant,
                worker = line.worker,
                trace_id = line.trace,
                invocation = line.invocation,
                fields = line.fields, // JSON: control codes are escaped in it
                "{}",
                line.message.escape_debug() // one line per line, and no terminal control codes from a guest
            )
        };
    }
    match line.level {
        LogLevel::Debug => at!(DEBUG),
        LogLevel::Log | LogLevel::Info => at!(INFO),
        LogLevel::Warn => at!(WARN),
        LogLevel::Error => at!(ERROR),
    }
}

fn level_name(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Debug => "debug",
        LogLevel::Log => "log",
        LogLevel::Info => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error => "error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_burst_passes_then_lines_are_counted_and_said() {
        let log = GuestLog::new();
        let tenant = "loud";
        let verdicts: Vec<_> = (0..LINES_BURST + 7).map(|_| log.judge(tenant, 0)).collect();
        let written = verdicts.iter().filter(|v| matches!(v, Verdict::Write { .. })).count();
        assert_eq!(written, LINES_BURST as usize);
        assert_eq!(log.judge("quiet", 0), Verdict::Write { suppressed_before: 0 });
        assert_eq!(log.judge(tenant, 1_000), Verdict::Write { suppressed_before: 7 });
        assert_eq!(log.judge(tenant, 1_000), Verdict::Write { suppressed_before: 0 });
    }

    #[test]
    fn the_table_of_tenants_is_bounded() {
        let log = GuestLog::new();
        for i in 0..TENANTS_TRACKED_MAX + 10 {
            log.judge(&format!("t{i}"), 0);
        }
        assert!(log.buckets.lock().unwrap().len() <= TENANTS_TRACKED_MAX + 1);
        log.judge("late", 1_000_000);
        assert_eq!(log.buckets.lock().unwrap().len(), 1, "idle buckets make room");
    }

    proptest! {
        /// Whatever the times: lines written never exceed burst plus rate, and every line is accounted for.
        #[test]
        fn never_more_than_burst_plus_rate(gaps in proptest::collection::vec(0u64..20, 1..3_000)) {
            let mut bucket = Bucket::full(0);
            let (mut now, mut written, mut said) = (0, 0u64, 0);
            for gap in &gaps {
                now += gap;
                if let Verdict::Write { suppressed_before } = bucket.take(now) {
                    written += 1;
                    said += suppressed_before;
                }
            }
            prop_assert!(written <= u64::from(LINES_BURST) + now * u64::from(LINES_PER_SECOND) / 1_000 + 1);
            prop_assert_eq!(written + said + bucket.suppressed, gaps.len() as u64);
        }
    }
}
