//! What people see: colour only on a terminal, and no control codes of a guest on it.

use std::io::{IsTerminal as _, Write as _};

use atoll_bindings::seam::{LogLevel, Usage};
use serde_json::{Value, json};

/// Whether standard error may have colours.
fn colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && std::io::stderr().is_terminal()
}

fn paint(code: &str, text: &str) -> String {
    if colour() { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
}

/// An error and what to do next.
pub(crate) fn error(message: &str, hint: Option<&str>) {
    eprintln!("{} {}", paint("1;31", "error:"), printable(message));
    if let Some(hint) = hint {
        eprintln!("{}  {hint}", paint("1;36", "next:"));
    }
}

/// Something worth knowing.
pub(crate) fn warning(message: &str) {
    eprintln!("{} {}", paint("1;33", "warning:"), printable(message));
}

/// What is going on, for people; never on standard output.
pub(crate) fn note(message: &str) {
    eprintln!("{}", printable(message));
}

/// A guest's console line.
pub(crate) fn log_line(level: LogLevel, message: &str) {
    let (name, code) = match level {
        LogLevel::Debug => ("debug", "2"),
        LogLevel::Log => ("log", "0"),
        LogLevel::Info => ("info", "34"),
        LogLevel::Warn => ("warn", "33"),
        LogLevel::Error => ("error", "31"),
    };
    eprintln!("{} {}", paint(code, &format!("[{name}]")), printable(message));
}

/// Text without control codes, so that nobody else's text can move the cursor or set the title.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => out.push(character),
            control if control.is_control() => out.extend(control.escape_default()),
            other => out.push(other),
        }
    }
    out
}

/// The result: a line of JSON, indented on a terminal.
pub(crate) fn json_line(value: &Value) {
    let text = if std::io::stdout().is_terminal() { format!("{value:#}") } else { value.to_string() };
    line(&text);
}

/// One line on standard output. A reader that left early is no error of ours.
pub(crate) fn line(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Raw bytes on standard output; `false` if nobody reads them any more.
pub(crate) fn bytes(bytes: &[u8]) -> bool {
    std::io::stdout().lock().write_all(bytes).is_ok()
}

/// Usage as the control API shows it.
pub(crate) fn usage(usage: &Usage) -> Value {
    json!({
        "cpuUs": usage.cpu_us,
        "wallUs": usage.wall_us,
        "isolateWaitUs": usage.isolate_wait_us,
        "heapBytesPeak": usage.heap_bytes_peak,
        "externalBytesPeak": usage.external_bytes_peak,
        "subRequests": usage.subrequests,
        "logBytes": usage.log_bytes,
        "loads": usage.loads,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_cannot_drive_the_terminal() {
        assert_eq!(printable("a\u{1b}]0;title\u{7}\tb\r\nü"), "a\\u{1b}]0;title\\u{7}\tb\\r\nü");
    }
}
