//! The process's log: what is written to standard error, in which form, and from whom.

use std::io::IsTerminal as _;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use super::Telemetry;

/// Form of the log on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One readable line per event; colours only on a terminal without `NO_COLOR`.
    Text,
    /// One JSON object per event.
    Json,
}

/// Sets the process's `tracing` subscriber. `filter` is a level (`info`) or `target=level` pairs. Only the
/// first call in a process has an effect; returns whether this was it.
pub fn install(telemetry: &Telemetry, format: LogFormat, filter: &str) -> bool {
    let targets = targets(filter);
    let colour =
        std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && std::io::stderr().is_terminal();
    let text = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colour);
    let lines = match format {
        LogFormat::Text => text.compact().boxed(),
        LogFormat::Json => text.with_ansi(false).json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry()
        .with(lines.with_filter(targets.clone()))
        .with(telemetry.otlp_layer().with_filter(targets))
        .try_init()
        .is_ok()
}

/// A filter that does not parse is no reason not to start: `info`, as if none was given.
fn targets(filter: &str) -> Targets {
    filter.parse().unwrap_or_else(|_| Targets::new().with_default(LevelFilter::INFO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_levels_or_targets_and_nonsense_means_info() {
        for (filter, level) in [("debug", tracing::Level::DEBUG), ("???=!", tracing::Level::INFO)] {
            assert!(targets(filter).would_enable("atoll", &level), "{filter}");
        }
        let targets = targets("warn,atoll::guest=debug");
        assert!(targets.would_enable("atoll::guest", &tracing::Level::DEBUG));
        assert!(!targets.would_enable("atoll::event", &tracing::Level::INFO));
    }
}
