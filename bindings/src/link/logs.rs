//! Console lines of one invocation: few, cut, and nothing at all if nobody writes.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use atoll_loader::limits::LOG_LINE_BYTES_MAX;
use tokio::sync::mpsc;

use super::invocation::Invocation;
use crate::seam::{LogLevel, LogLine};

/// Most lines waiting for the reader.
const LOG_LINES_QUEUED_MAX: usize = 4_096;

/// Where a capability writes lines of the invocation that called it, within that invocation's budget.
#[derive(Clone, Default)]
pub struct Console(Weak<Invocation>);

impl Console {
    pub(super) fn of(invocation: &Arc<Invocation>) -> Self {
        Self(Arc::downgrade(invocation))
    }

    /// Writes a line now. `fields` is a JSON object; it counts like text, and goes if the line is too long with it.
    pub fn line(&self, level: LogLevel, message: String, fields: Option<String>) {
        let Some(invocation) = self.0.upgrade() else { return };
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let fields = fields.map(Into::into);
        let line = LogLine { invocation: invocation.id, level, time_ms, message, truncated: false, fields };
        invocation.lock().logs.push(line);
    }
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Console")
    }
}

#[derive(Debug)]
pub(super) struct Logs {
    /// Lines that came before a reader.
    early: Vec<LogLine>,
    reader: Option<mpsc::Sender<LogLine>>,
    bytes_left: u32,
    dropped: u32,
    /// The next line kept says that lines before it are missing.
    gap: bool,
    open: bool,
    taken: bool,
}

impl Logs {
    pub(super) fn new(bytes_max: u32) -> Self {
        Self {
            early: Vec::new(),
            reader: None,
            bytes_left: bytes_max,
            dropped: 0,
            gap: false,
            open: true,
            taken: false,
        }
    }

    pub(super) fn push(&mut self, mut line: LogLine) {
        if line.message.len() > LOG_LINE_BYTES_MAX {
            line.message.truncate(line.message.floor_char_boundary(LOG_LINE_BYTES_MAX));
            line.truncated = true;
        }
        if line.fields.as_ref().is_some_and(|fields| line.message.len() + fields.len() > LOG_LINE_BYTES_MAX) {
            line.fields = None;
            line.truncated = true;
        }
        line.truncated |= self.gap;
        // An empty line costs memory too.
        let cost = (line.message.len() + line.fields.as_ref().map_or(0, |fields| fields.len())) as u32 + 1;
        let kept = match self.bytes_left.checked_sub(cost) {
            None => false,
            Some(left) => {
                self.bytes_left = left;
                self.keep(line)
            }
        };
        self.gap = !kept;
        self.dropped = self.dropped.saturating_add(u32::from(!kept));
    }

    fn keep(&mut self, line: LogLine) -> bool {
        match &self.reader {
            Some(reader) => reader.try_send(line).is_ok(),
            None if self.taken || self.early.len() >= LOG_LINES_QUEUED_MAX => false,
            None => {
                self.early.push(line);
                true
            }
        }
    }

    /// The reader's end, once. Lines that came before are in it.
    pub(super) fn take(&mut self) -> Option<mpsc::Receiver<LogLine>> {
        if std::mem::replace(&mut self.taken, true) {
            return None;
        }
        let (sender, receiver) = mpsc::channel(LOG_LINES_QUEUED_MAX);
        for line in std::mem::take(&mut self.early) {
            // Fits: the queue is as long as `early` may be.
            let _ = sender.try_send(line);
        }
        if self.open {
            self.reader = Some(sender);
        }
        Some(receiver)
    }

    /// No more lines: the reader sees the end.
    pub(super) fn close(&mut self) {
        self.open = false;
        self.reader = None;
    }

    pub(super) fn dropped(&self) -> u32 {
        self.dropped
    }
}
