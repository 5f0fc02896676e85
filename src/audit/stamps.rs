//! When a checkpoint is due, and the file that holds those of this log.
//!
//! ```text
//!  written and synced ─▶ due? ─▶ sign ─▶ checkpoints.txt ─▶ told: an event, GET /v1/audit/checkpoint
//!                         └─ 4,096 lines or 60 s since the last one, a full file, the end; never without news
//! ```
//!
//! The file is for those who have nothing else: who may change the log may as well cut this file. What is worth something is a
//! checkpoint that was carried elsewhere, by whatever reads the events or asks the API.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::files::FILE_MODE;
use super::line::Link;
use super::note::{Checkpoint, Notary, Note, Notes};
use crate::deploy::now_ms;

/// The file with the checkpoints, and the one before it.
const FILE: &str = "checkpoints.txt";
const FILE_BEFORE: &str = "checkpoints-before.txt";
/// Bytes of the file; then it becomes the one before, in whose place it is put.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Lines of the log after which a checkpoint is due.
pub(super) const CHECKPOINT_LINES: u64 = 4_096;
/// Time after which one is due if there is anything new, in milliseconds.
pub(super) const CHECKPOINT_MS: u64 = 60_000;

/// Whether one is due. Pure.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    /// Lines under the last one of this writer.
    size: u64,
    /// When it was made, or tried.
    at: Option<Instant>,
}

impl Pace {
    fn is_due(&self, size: u64, now: Instant, asked: bool) -> bool {
        let long = |at: Instant| now.saturating_duration_since(at) >= Duration::from_millis(CHECKPOINT_MS);
        size > self.size && (asked || size - self.size >= CHECKPOINT_LINES || self.at.is_none_or(long))
    }
}

/// The checkpoints of a log.
pub(super) struct Stamps {
    folder: PathBuf,
    log: std::sync::Arc<str>,
    pace: Pace,
    failing: bool,
    /// Whether the file ends as it should, as far as this writer knows.
    whole: bool,
}

impl Stamps {
    pub(super) fn new(folder: &Path, log: std::sync::Arc<str>) -> Self {
        Self { folder: folder.to_owned(), log, pace: Pace::default(), failing: false, whole: false }
    }

    /// Whether a log that ends here should have a new one.
    pub(super) fn is_due(&self, end: Link, asked: bool) -> bool {
        self.pace.is_due(end.seq, Instant::now(), asked)
    }

    /// Makes one for a log that ends here and is on disk so far. The log goes on without one, if it cannot be made.
    pub(super) fn make(&mut self, end: Link, sync: bool, notary: &dyn Notary) -> Option<String> {
        let checkpoint =
            Checkpoint { log: self.log.clone(), size: end.seq, hash: end.prev, time_ms: now_ms() };
        let signed = checkpoint.sign(notary).ok_or_else(|| io::Error::other("it cannot be signed"));
        let kept = signed.and_then(|note| append(&self.folder, self.whole, &note, sync).map(|()| note));
        self.whole = kept.is_ok();
        self.pace.at = Some(Instant::now());
        match kept {
            Ok(note) => {
                self.pace.size = end.seq;
                self.failing = false;
                notary.made(&checkpoint, &note);
                Some(note)
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(%error, "no checkpoint of the audit log can be made");
                }
                None
            }
        }
    }
}

fn append(folder: &Path, whole: bool, note: &str, sync: bool) -> io::Result<()> {
    let path = folder.join(FILE);
    let mut file = OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(&path)?;
    let length = file.metadata()?.len();
    // What a killed writer left shall not run into this one.
    let before = if whole || length == 0 { "" } else { "\n\n" };
    file.write_all(format!("{before}{note}\n").as_bytes())?;
    if sync {
        file.sync_data()?;
    }
    if length + note.len() as u64 > FILE_BYTES_MAX {
        std::fs::rename(&path, folder.join(FILE_BEFORE))?;
    }
    Ok(())
}

/// The checkpoints in the folder of a log, oldest first.
pub(super) fn read(folder: &Path) -> io::Result<Notes> {
    let mut out = Notes::default();
    for name in [FILE_BEFORE, FILE] {
        let mut bytes = Vec::new();
        match File::open(folder.join(name)) {
            // One note over the bound at most: a longer file is not ours.
            Ok(file) => file.take(2 * FILE_BYTES_MAX).read_to_end(&mut bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let Notes { notes, unreadable } = Notes::read(&bytes);
        out.notes.extend(notes);
        out.unreadable += unreadable;
    }
    Ok(out)
}

/// Says so if a log that ends here is not the one that its newest checkpoint saw. It goes on: the verifier finds it.
pub(super) fn compare(folder: &Path, end: Link) -> io::Result<()> {
    let newest = read(folder)?.notes.pop();
    if let Some(Note { checkpoint: seen, .. }) = newest
        && (seen.size > end.seq || (seen.size == end.seq && seen.hash != end.prev))
    {
        tracing::error!(%seen, records = end.seq, "the audit log is not what its last checkpoint saw; see `atoll audit verify`");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_due_after_lines_or_time_and_never_without_news() {
        let start = Instant::now();
        let pace = Pace { size: 10, at: Some(start) };
        assert!(Pace::default().is_due(1, start, false), "a start is news");
        assert!(!pace.is_due(11, start, false));
        assert!(pace.is_due(11, start, true));
        assert!(!pace.is_due(10, start + Duration::from_millis(CHECKPOINT_MS), true));
        assert!(pace.is_due(11, start + Duration::from_millis(CHECKPOINT_MS), false));
        assert!(!pace.is_due(9 + CHECKPOINT_LINES, start, false));
        assert!(pace.is_due(10 + CHECKPOINT_LINES, start, false));
    }
}
