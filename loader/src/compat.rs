//! Compatibility dates and flags: which behaviour a worker asks for.

mod flags;

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::bundle::Compatibility;
use crate::error::CodeError;
use crate::limits::COMPATIBILITY_FLAGS_MAX;
use flags::{ByDefault as On, SWITCHES};

/// The date for code that names none, where naming one is not required (`execute`, single files).
pub const DEFAULT_COMPATIBILITY_DATE: &str = "2026-08-04";
/// How much of a refused date or flag an error repeats, in characters.
const ECHO_CHARS_MAX: usize = 128;
const SECONDS_PER_DAY: u64 = 86_400;

/// Whether experimental flags may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Experimental {
    /// The code said `allowExperimental`, and may.
    Allowed,
    /// Not.
    Refused,
}

/// Checks a date and flags, and works out what is in force.
///
/// # Errors
/// The first fault: the date, then duplicates, then each known switch, then unknown flags.
pub fn compile(
    date: &str,
    flags: &[String],
    experimental: Experimental,
    today: &str,
) -> Result<Compatibility, CodeError> {
    check_date(date, today)?;
    if flags.len() > COMPATIBILITY_FLAGS_MAX {
        return Err(CodeError::TooManyFlags { count: flags.len() });
    }
    let mut named = BTreeSet::new();
    for flag in flags {
        if !named.insert(flag.as_str()) {
            return Err(CodeError::DuplicateFlag(echo(flag)));
        }
    }
    let mut in_force = BTreeSet::new();
    for switch in SWITCHES {
        let enabled = named.remove(switch.enable);
        let disabled = switch.disable.is_some_and(|flag| named.remove(flag));
        if let (true, true, Some(disable)) = (enabled, disabled, switch.disable) {
            return Err(CodeError::ContradictoryFlags { enable: switch.enable, disable });
        }
        if enabled && switch.default == On::Experimental && experimental == Experimental::Refused {
            return Err(CodeError::ExperimentalFlag(switch.enable));
        }
        let by_default = match switch.default {
            On::Off | On::Experimental => false,
            On::Always => true,
            On::Since(since) => date >= since,
            On::With(since, others) => date >= since && others.iter().any(|other| in_force.contains(other)),
            On::WithOrSince(with, others, since) => {
                date >= since || (date >= with && others.iter().any(|other| in_force.contains(other)))
            }
        };
        if enabled || (by_default && !disabled) {
            in_force.insert(switch.enable);
        }
    }
    if let Some(unknown) = named.first() {
        return Err(CodeError::UnknownFlag(echo(unknown)));
    }
    let flags = in_force.into_iter().map(str::to_owned).collect();
    Ok(Compatibility { date: date.to_owned(), flags })
}

fn check_date(date: &str, today: &str) -> Result<(), CodeError> {
    if !is_calendar_date(date) {
        return Err(CodeError::Date(echo(date)));
    }
    // ISO dates of equal length sort like the days they name.
    if date > today {
        return Err(CodeError::DateInFuture(date.to_owned()));
    }
    Ok(())
}

fn echo(text: &str) -> String {
    text.chars().take(ECHO_CHARS_MAX).collect()
}

fn is_calendar_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    let shape_fits = bytes.len() == 10
        && bytes
            .iter()
            .enumerate()
            .all(|(i, b)| if i == 4 || i == 7 { *b == b'-' } else { b.is_ascii_digit() });
    if !shape_fits {
        return false;
    }
    let number = |range: &[u8]| range.iter().fold(0_u32, |n, digit| n * 10 + u32::from(digit - b'0'));
    let (year, month, day) = (number(&bytes[..4]), number(&bytes[5..7]), number(&bytes[8..]));
    (1..=12).contains(&month) && (1..=days_in_month(year, month)).contains(&day)
}

fn days_in_month(year: u32, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Today's date in UTC as `YYYY-MM-DD`.
#[must_use]
pub fn today_utc() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    date_of_day(seconds / SECONDS_PER_DAY)
}

/// The date of a day counted from 1970-01-01, by walking years and months: at most some thousand steps.
fn date_of_day(mut day: u64) -> String {
    let mut year = 1970;
    loop {
        let in_year = (1..=12).map(|month| u64::from(days_in_month(year, month))).sum();
        if day < in_year || year >= 9999 {
            break;
        }
        day -= in_year;
        year += 1;
    }
    let mut month = 1;
    while month < 12 && day >= u64::from(days_in_month(year, month)) {
        day -= u64::from(days_in_month(year, month));
        month += 1;
    }
    format!("{year:04}-{month:02}-{:02}", day + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(date: &str, flags: &[&str]) -> Result<Compatibility, CodeError> {
        let flags: Vec<String> = flags.iter().map(|f| (*f).to_owned()).collect();
        compile(date, &flags, Experimental::Refused, "2026-11-22")
    }

    #[test]
    fn exact_messages() {
        let many = vec!["x".to_owned(); COMPATIBILITY_FLAGS_MAX + 1];
        assert!(compile("2025-01-01", &many, Experimental::Refused, "2026-11-22").is_err());
        for (date, flags, message) in [
            ("2025-13-01", &[][..], "Invalid compatibility date: 2025-13-01"),
            ("2025-02-29", &[], "Invalid compatibility date: 2025-02-29"),
            ("2025-1-1", &[], "Invalid compatibility date: 2025-1-1"),
            ("", &[], "Invalid compatibility date: "),
            ("2026-11-23", &[], "Can't set compatibility date in the future: 2026-11-23"),
            ("2025-01-01", &["nope"], "No such compatibility flag: nope"),
            ("2025-01-01", &["rpc", "rpc"], "Compatibility flag specified multiple times: rpc"),
            (
                "2025-01-01",
                &["no_nodejs_compat", "nodejs_compat"],
                "Compatibility flags are mutually contradictory: nodejs_compat vs no_nodejs_compat",
            ),
            (
                "2025-01-01",
                &["experimental"],
                "The compatibility flag experimental is experimental and may break or be removed in a future \
                 version. To use it, set 'allowExperimental: true'.",
            ),
        ] {
            let error = compiled(date, flags).unwrap_err();
            assert_eq!(error.to_string(), message);
            assert_eq!(error.js_class(), "Error");
        }
    }

    #[test]
    fn dates_imply_flags() {
        let old = compiled("2024-09-22", &["nodejs_compat"]).unwrap();
        assert!(old.has("nodejs_compat") && !old.has("nodejs_compat_v2"));
        let new = compiled("2025-10-01", &["nodejs_compat"]).unwrap();
        assert!(new.has("nodejs_compat_v2") && new.has("enable_nodejs_http_server_modules"));
        assert!(!compiled("2026-08-03", &[]).unwrap().has("nodejs_compat"));
        let implied = compiled(DEFAULT_COMPATIBILITY_DATE, &[]).unwrap();
        assert!(implied.has("nodejs_compat") && implied.has("enable_nodejs_global_timers"));
        let half = compiled("2026-08-04", &["no_nodejs_compat"]).unwrap();
        assert!(half.has("nodejs_compat_v2") && !half.has("enable_nodejs_fs_module"));
        let none = compiled("2026-08-04", &["no_nodejs_compat", "no_nodejs_compat_v2"]).unwrap();
        assert!(!none.flags.iter().any(|flag| flag.starts_with("nodejs_compat")));
        let off = compiled("2025-10-01", &["nodejs_compat", "no_nodejs_compat_v2", "no_rpc"]).unwrap();
        assert!(!off.has("nodejs_compat_v2") && !off.has("rpc") && !off.has("no_rpc"));
        assert!(!compiled("2025-11-16", &[]).unwrap().has("enable_ctx_exports"));
        assert!(compiled("2025-11-17", &[]).unwrap().has("enable_ctx_exports"));
        assert!(!compiled("2026-11-22", &[]).unwrap().has("dynamic_worker_inherits_outbound"));
    }

    #[test]
    fn the_table_has_no_twins_and_sane_dates() {
        let mut seen = BTreeSet::new();
        for switch in SWITCHES {
            assert!(seen.insert(switch.enable), "{}", switch.enable);
            assert!(switch.disable.is_none_or(|flag| seen.insert(flag)), "{:?}", switch.disable);
            match switch.default {
                On::Since(date) => assert!(is_calendar_date(date)),
                On::With(date, others) | On::WithOrSince(date, others, _) => {
                    assert!(is_calendar_date(date));
                    assert!(others.iter().all(|other| seen.contains(other)), "{}", switch.enable);
                }
                On::Off | On::Always | On::Experimental => {}
            }
        }
    }

    #[test]
    fn knows_the_calendar() {
        for (day, date) in [
            (0, "1970-01-01"),
            (59, "1970-03-01"),
            (789, "1972-02-29"),
            (11_016, "2000-02-29"),
            (20_779, "2026-11-22"),
        ] {
            assert_eq!(date_of_day(day), date);
        }
        assert!(is_calendar_date("2024-02-29") && !is_calendar_date("2100-02-29"));
        assert!(is_calendar_date(DEFAULT_COMPATIBILITY_DATE) && is_calendar_date(&today_utc()));
    }
}
