//! Console lines of a deployed worker: the recent ones kept, the live ones told to whoever follows.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use atoll_bindings::seam::LogLine;
use atoll_loader::limits::KIB;
use tokio::sync::broadcast;

use super::LogSink;
use super::trace::Trace;
use crate::observe::Observer;

/// Lines kept for each worker.
pub const RING_LINES_MAX: usize = 1_000;
/// Text kept for each worker, in bytes.
pub const RING_BYTES_MAX: usize = 256 * KIB;
/// Lines a follower may lag behind before it loses some.
const FOLLOW_LINES_MAX: usize = 256;

/// The recent lines of one worker.
#[derive(Debug, Default)]
pub struct LogRing {
    state: Mutex<Ring>,
}

#[derive(Debug, Default)]
struct Ring {
    lines: VecDeque<Arc<LogLine>>,
    bytes: usize,
    live: Option<broadcast::Sender<Arc<LogLine>>>,
}

impl LogRing {
    /// Adds a line, drops the oldest beyond the bounds.
    pub fn push(&self, line: LogLine) {
        let line = Arc::new(line);
        let mut ring = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        ring.bytes += size(&line);
        ring.lines.push_back(line.clone());
        while ring.lines.len() > RING_LINES_MAX || ring.bytes > RING_BYTES_MAX {
            let Some(oldest) = ring.lines.pop_front() else { break };
            ring.bytes -= size(&oldest);
        }
        // With the last follower gone the channel goes too.
        if ring.live.as_ref().is_some_and(|live| live.send(line).is_err()) {
            ring.live = None;
        }
    }

    /// The lines kept, oldest first.
    #[must_use]
    pub fn recent(&self) -> Vec<Arc<LogLine>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).lines.iter().cloned().collect()
    }

    /// The lines kept and those to come, with no gap between.
    #[must_use]
    pub fn follow(&self) -> (Vec<Arc<LogLine>>, broadcast::Receiver<Arc<LogLine>>) {
        let mut ring = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let live = ring.live.get_or_insert_with(|| broadcast::Sender::new(FOLLOW_LINES_MAX)).subscribe();
        (ring.lines.iter().cloned().collect(), live)
    }
}

/// What a line costs, in bytes.
fn size(line: &LogLine) -> usize {
    line.message.len() + line.fields.as_ref().map_or(0, |fields| fields.len())
}

/// The sink of a deployed worker's invocation.
pub struct WorkerLogs {
    /// Whose lines.
    pub tenant: Arc<str>,
    /// Which worker's.
    pub worker: Arc<str>,
    /// In which trace.
    pub trace: Trace,
    /// Where they are kept.
    pub ring: Arc<LogRing>,
    /// Where they are reported.
    pub observer: Arc<dyn Observer>,
}

impl LogSink for WorkerLogs {
    fn line(&mut self, line: LogLine) {
        self.observer.guest_log(&self.tenant, &self.worker, self.trace.id(), &line);
        self.ring.push(line);
    }
}

#[cfg(test)]
mod tests {
    use atoll_bindings::seam::{InvocationId, LogLevel};

    use super::*;

    fn line(message: String) -> LogLine {
        LogLine {
            invocation: InvocationId(1),
            level: LogLevel::Log,
            time_ms: 0,
            message,
            truncated: false,
            fields: None,
        }
    }

    #[test]
    fn a_ring_is_bounded_in_lines_and_bytes() {
        let ring = LogRing::default();
        for number in 0..RING_LINES_MAX + 5 {
            ring.push(line(number.to_string()));
        }
        assert_eq!(ring.recent().len(), RING_LINES_MAX);
        assert_eq!(ring.recent()[0].message, "5");
        for _ in 0..100 {
            ring.push(line("x".repeat(8 * KIB)));
        }
        assert!(ring.recent().iter().map(|line| line.message.len()).sum::<usize>() <= RING_BYTES_MAX);
    }

    #[tokio::test]
    async fn followers_see_what_was_and_what_comes() {
        let ring = LogRing::default();
        ring.push(line("old".into()));
        let (old, mut live) = ring.follow();
        ring.push(line("new".into()));
        assert_eq!(old[0].message, "old");
        assert_eq!(live.recv().await.unwrap().message, "new");
        drop(live);
        ring.push(line("later".into()));
        assert!(ring.state.lock().unwrap().live.is_none());
    }
}
