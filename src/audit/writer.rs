//! The one thread that writes: takes what waits, chains it, writes it, syncs it by policy, and begins new files.
//!
//! ```text
//!  queue ─▶ batch ─▶ lines ─▶ write (again until it works) ─▶ fsync ─▶ checkpoint, if due ─▶ places are free again
//!                       └─ the file is full: checkpoint, new file, which begins with the hash of the last line
//! ```

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::entry::{Entry, Head, Lost};
use super::files::{self, End, LogFile, Torn};
use super::line::{LINE_BYTES_MAX, Link};
use super::stamps::{self, Stamps};
use super::{Shared, WINDOW_MS, note};
use crate::config::{AuditConfig, Fsync};
use crate::deploy::now_ms;

/// Pause between a record and the next batch, so that a busy gateway wakes its writer at most so often.
const BATCH_WAIT: Duration = Duration::from_millis(5);
/// Pause before writing is tried again.
const RETRY_WAIT: Duration = Duration::from_millis(200);
/// Bytes of lines put together before they are written.
const WRITE_BYTES: usize = 256 * 1024;

const _: () = assert!(LINE_BYTES_MAX <= WRITE_BYTES);

pub(super) struct Writer {
    folder: PathBuf,
    config: AuditConfig,
    file: File,
    number: u64,
    /// Bytes of the file, with those that are not written yet.
    bytes: u64,
    link: Link,
    /// Lines to be written.
    pending: Vec<u8>,
    unsynced: bool,
    synced: Instant,
    log: Arc<str>,
    stamps: Stamps,
}

impl Writer {
    /// Finds the end of the log, and begins a new file there.
    pub(super) fn open(folder: &Path, config: AuditConfig) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let End { mut link, number, torn, broken } = files::end(folder)?;
        if let Some(path) = broken {
            tracing::error!(path = %path.display(), "the audit log was changed; `atoll audit verify` says where");
        }
        if !torn.is_empty() {
            tracing::warn!(?torn, "the audit log ends in the middle of a record: sealed, and going on");
        }
        stamps::compare(folder, link)?;
        let log = files::log_id(folder)?.map_or_else(note::new_log_id, |log| Ok(log.into()))?;
        let mut head = Vec::new();
        link.append(&head_members(&log, &torn), &mut head);
        let mut file = files::create(folder, number)?;
        file.write_all(&head)?;
        file.sync_data()?;
        Ok(Self {
            folder: folder.to_owned(),
            config,
            file,
            number,
            bytes: head.len() as u64,
            link,
            pending: Vec::new(),
            unsynced: false,
            synced: Instant::now(),
            stamps: Stamps::new(folder, log.clone()),
            log,
        })
    }

    /// Writes until the log is closed.
    pub(super) fn run(mut self, shared: &Arc<Shared>) {
        loop {
            let (batch, closing) = self.wait(shared);
            let taken = batch.len();
            for entry in &batch {
                self.line(entry, shared);
            }
            let dropped = shared.dropped.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                self.line(&Lost { kind: "lost", time: now_ms(), records: dropped }, shared);
            }
            self.write(shared);
            self.sync(shared, closing);
            self.checkpoint(shared, closing);
            shared.release(taken);
            let mut queue = shared.lock();
            queue.done += taken as u64;
            queue.ended = closing && queue.entries.is_empty();
            let ended = queue.ended;
            drop(queue);
            shared.written.notify_all();
            if ended {
                return;
            }
        }
    }

    /// Waits for records, a window's end, or the end. Counts that are due become records.
    fn wait(&self, shared: &Arc<Shared>) -> (Vec<Entry>, bool) {
        let mut queue = shared.lock();
        if queue.entries.is_empty() && !queue.closing {
            let limit = match self.config.fsync {
                Fsync::Interval { ms } if self.unsynced => ms.min(WINDOW_MS),
                _ => WINDOW_MS,
            };
            queue.waiting = true;
            let waited = shared.filled.wait_timeout(queue, Duration::from_millis(limit));
            let (mut woken, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            woken.waiting = false;
            let batch = !timeout.timed_out() && !woken.closing;
            drop(woken);
            if batch {
                std::thread::sleep(BATCH_WAIT);
            }
            queue = shared.lock();
        }
        let counted = if queue.closing { queue.flood.take() } else { queue.flood.due(now_ms()) };
        for counted in counted {
            // Counts are few for each tenant, and must be told: they need no free place, only the same book-keeping.
            shared.places.fetch_add(1, Ordering::Relaxed);
            queue.put(Entry::Counted(Box::new(counted.into())));
        }
        (std::mem::take(&mut queue.entries), queue.closing)
    }

    fn line(&mut self, entry: &impl Serialize, shared: &Shared) {
        let Ok(text) = serde_json::to_string(entry) else { return }; // strings and numbers always can
        let members = &text[1..text.len() - 1];
        let before = self.pending.len();
        let link = self.link;
        self.link.append(members, &mut self.pending);
        let length = self.pending.len() - before;
        if length > LINE_BYTES_MAX {
            // No kind of record can become so long; if one does, the log stays readable and says that something is missing.
            tracing::error!(length, "an audit record is too long");
            self.pending.truncate(before);
            self.link = link;
            shared.dropped.fetch_add(1, Ordering::Relaxed);
            shared.dropped_total.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.bytes += length as u64;
        if self.bytes >= self.config.file_bytes_max {
            self.rotate(shared);
        } else if self.pending.len() >= WRITE_BYTES {
            self.write(shared);
        }
    }

    /// Writes what is pending. Tries until it works: what is pending was promised.
    fn write(&mut self, shared: &Shared) {
        while !self.pending.is_empty() {
            match self.file.write(&self.pending) {
                Ok(count) if count > 0 => {
                    self.pending.drain(..count);
                    self.unsynced = true;
                    works(shared);
                }
                Ok(_) => fails(shared, &io::ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => fails(shared, &error),
            }
        }
    }

    fn sync(&mut self, shared: &Shared, now: bool) {
        let due = match self.config.fsync {
            Fsync::Always => true,
            Fsync::Interval { ms } => self.synced.elapsed() >= Duration::from_millis(ms),
            Fsync::Never => false,
        };
        while self.unsynced && (due || (now && self.config.fsync != Fsync::Never)) {
            match self.file.sync_data() {
                Ok(()) => {
                    self.unsynced = false;
                    self.synced = Instant::now();
                    works(shared);
                }
                Err(error) => fails(shared, &error),
            }
        }
    }

    /// Signs what is written, if that is due. A checkpoint never says more than what is on disk.
    fn checkpoint(&mut self, shared: &Shared, asked: bool) {
        let Some(notary) = shared.notary.get() else { return };
        if !self.stamps.is_due(self.link, asked) {
            return;
        }
        self.sync(shared, true);
        let sync = self.config.fsync != Fsync::Never;
        if let Some(note) = self.stamps.make(self.link, sync, &**notary) {
            *shared.checkpoint.lock().unwrap_or_else(PoisonError::into_inner) = Some(note.into());
        }
    }

    /// Begins the next file.
    fn rotate(&mut self, shared: &Shared) {
        self.write(shared);
        self.sync(shared, true);
        self.checkpoint(shared, true);
        loop {
            match files::create(&self.folder, self.number + 1) {
                Ok(file) => {
                    self.file = file;
                    break;
                }
                Err(error) => fails(shared, &error),
            }
        }
        works(shared);
        self.number += 1;
        self.link.append(&head_members(&self.log, &[]), &mut self.pending);
        self.bytes = self.pending.len() as u64;
        if let Some(most) = self.config.files_max {
            forget(&self.folder, most);
        }
    }
}

/// Removes the oldest files over the bound that the operator set.
fn forget(folder: &Path, most: u64) {
    let Ok(list) = files::list(folder) else { return };
    let over = list.len().saturating_sub(usize::try_from(most).unwrap_or(usize::MAX));
    for LogFile { path, .. } in &list[..over] {
        if let Err(error) = std::fs::remove_file(path) {
            tracing::warn!(%error, path = %path.display(), "an old audit file cannot be removed");
        }
    }
}

fn head_members(log: &str, torn: &[Torn]) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let head = Head { kind: "file", time: now_ms(), version, log, sealed: torn };
    let text = serde_json::to_string(&head).unwrap_or_default(); // strings and numbers always can
    text.get(1..text.len().saturating_sub(1)).unwrap_or_default().to_owned()
}

fn works(shared: &Shared) {
    if shared.failing.swap(false, Ordering::Relaxed) {
        tracing::warn!("the audit log is written again");
    }
}

/// Says it once, and waits before the next try.
fn fails(shared: &Shared, error: &io::Error) {
    if !shared.failing.swap(true, Ordering::Relaxed) {
        tracing::error!(%error, "the audit log cannot be written; nothing is admitted until it can");
    }
    std::thread::sleep(RETRY_WAIT);
}
