//! What an isolate host writes on its standard error, as log lines of the gateway.
//!
//! The host has a pipe and not the gateway's own output: it may write no file and drive no terminal, and a flood of lines ends
//! here. V8 says there why it aborts, and the runtime why it panics.

use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Longest part of a line that is logged, in bytes.
const LINE_BYTES_MAX: usize = 1_024;
/// Most lines logged per [`SPAN_MS`].
const LINES_MAX: u32 = 50;
/// See [`LINES_MAX`], in milliseconds.
const SPAN_MS: u64 = 10_000;

/// Cuts bytes into lines of bounded length and number. No I/O.
#[derive(Debug, Default)]
struct Lines {
    line: Vec<u8>,
    since: Option<Instant>,
    told: u32,
    withheld: u64,
}

impl Lines {
    /// Takes what was read; calls `tell` with each complete line that may be told, and how many were withheld before it.
    fn take(&mut self, bytes: &[u8], now: Instant, mut tell: impl FnMut(&str, u64)) {
        for &byte in bytes {
            if byte != b'\n' {
                if self.line.len() < LINE_BYTES_MAX {
                    self.line.push(byte);
                }
                continue;
            }
            let line = std::mem::take(&mut self.line);
            // V8 puts its last words between lines of `#`.
            if line.iter().all(|&byte| byte == b'#') {
                continue;
            }
            if self.since.is_none_or(|since| now.duration_since(since) >= Duration::from_millis(SPAN_MS)) {
                self.since = Some(now);
                self.told = 0;
            }
            if self.told >= LINES_MAX {
                self.withheld += 1;
                continue;
            }
            self.told += 1;
            tell(&String::from_utf8_lossy(&line), std::mem::take(&mut self.withheld));
        }
    }
}

/// Logs what the host writes until it ends.
pub(super) fn relay(mut output: impl AsyncRead + Unpin + Send + 'static, pid: u32) {
    tokio::spawn(async move {
        let mut lines = Lines::default();
        let mut piece = [0; 1024];
        while let Ok(count @ 1..) = output.read(&mut piece).await {
            lines.take(&piece[..count], Instant::now(), |line, withheld| {
                // As debug text: control codes are escaped.
                tracing::warn!(pid, withheld, line = ?line, "isolate host says");
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_in_length_and_number() {
        let mut lines = Lines::default();
        let start = Instant::now();
        let mut told = Vec::new();
        lines.take(b"one\n\n##\ntw", start, |line, _| told.push(line.to_owned()));
        lines.take(b"o\n", start, |line, _| told.push(line.to_owned()));
        assert_eq!(told, ["one", "two"]);
        let long = [vec![b'x'; 3 * LINE_BYTES_MAX], b"\n".to_vec()].concat();
        lines.take(&long, start, |line, _| assert_eq!(line.len(), LINE_BYTES_MAX));
        let mut count = 0;
        lines.take(&b"a\n".repeat(1_000), start, |_, _| count += 1);
        assert_eq!(count, LINES_MAX - 3);
        let later = start + Duration::from_millis(SPAN_MS);
        lines.take(b"later\n", later, |line, withheld| {
            assert_eq!((line, withheld), ("later", 1_000 - u64::from(LINES_MAX - 3)));
            count += 1;
        });
        assert_eq!(count, LINES_MAX - 2);
    }
}
