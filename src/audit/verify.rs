//! The verifier: walks every line of every file, and names the first that is not what was written.
//!
//! It needs nothing of the server: a copy of the folder is enough, and so is the end of a log whose older files were moved
//! away. The chain alone shows neither lines that were cut off its very end nor a log that was computed anew. Checkpoints do:
//!
//! ```text
//!  checkpoint ─ signed by a known key? ─ no ─▶ not to be trusted
//!       └─ its number of lines: more than there are ─▶ cut off │ another hash there ─▶ computed anew │ older than all ─▶ left out
//! ```

use std::collections::HashMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::files::{self, LogFile, Piece, Pieces, Torn};
use super::line::{Hash, Line, Link};
use super::note::{Note, Notes, PublicKey, Worth};
use super::stamps;

/// What was found.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Whether every line is what was written.
    pub ok: bool,
    /// Files read.
    pub files: u64,
    /// Good lines read.
    pub lines: u64,
    /// The number of the first line; not 0 if older files were moved away.
    pub first_seq: Option<u64>,
    /// The number of the last good line.
    pub last_seq: Option<u64>,
    /// The hash of the last good line.
    pub last_hash: Option<String>,
    /// Ends of files that a killed writer left, each named by the file after it.
    pub sealed: u64,
    /// A line that was being written when the writer was killed, or is being written now.
    pub torn: Option<Torn>,
    /// The first line that is wrong.
    pub bad: Option<Bad>,
    /// What the checkpoints say.
    pub checkpoints: Stamped,
}

/// What is known beside the log.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Checkpoints that were kept elsewhere. All of them must be good.
    pub given: Notes,
    /// Who may sign; `None`: signatures are not looked at.
    pub keys: Option<Vec<PublicKey>>,
}

/// What the checkpoints say.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stamped {
    /// Those of the folder, and those given.
    pub read: u64,
    /// Those that saw this log.
    pub matched: u64,
    /// Those about lines that were moved away.
    pub older: u64,
    /// Those with the signature of a known key.
    pub signed: u64,
    /// Pieces of the folder's file that a killed writer left.
    pub unreadable: u64,
    /// Lines under the newest that saw this log: what comes later could be cut off unseen.
    pub covered: Option<u64>,
    /// The first one that is wrong.
    pub bad: Option<BadCheckpoint>,
}

/// A checkpoint that is wrong, or shows that the log is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BadCheckpoint {
    /// What is wrong.
    pub code: Breach,
    /// The lines that it saw; 0 if it cannot be read.
    pub size: u64,
}

/// What a checkpoint shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Breach {
    /// Lines were cut off the end.
    #[error("the log is shorter than it was: records were cut off its end")]
    Truncated,
    /// The chain was computed anew.
    #[error("the log has another hash there: it was computed anew")]
    Rewritten,
    /// It was signed by nobody who is known.
    #[error("it has no signature of a known key")]
    UnknownKey,
    /// Its signature is wrong.
    #[error("its signature is forged")]
    Forged,
    /// It is about another log.
    #[error("it is about another log")]
    Foreign,
    /// It is none.
    #[error("it is no checkpoint")]
    Unreadable,
}

impl Breach {
    /// Whether the checkpoint is wrong, and not the log.
    #[must_use]
    pub fn is_of_the_checkpoint(self) -> bool {
        !matches!(self, Self::Truncated | Self::Rewritten)
    }
}

/// A line that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bad {
    /// In which file.
    pub file: String,
    /// Which line, counted from 1.
    pub line: u64,
    /// What is wrong.
    pub reason: &'static str,
}

/// The members of a file's first line that matter here.
#[derive(Deserialize)]
struct Head {
    kind: String,
    /// Logs of earlier versions have no id.
    #[serde(default)]
    log: Option<String>,
    #[serde(default)]
    sealed: Vec<Torn>,
}

struct Walk {
    report: Report,
    link: Option<Link>,
    /// Ends of files that the next good head must name.
    open: Vec<Torn>,
    /// The log's id.
    log: Option<String>,
    /// The hashes at which a checkpoint saw the log, by the number of lines.
    seen: HashMap<u64, Option<Hash>>,
}

/// Verifies the log in a folder.
pub fn verify(folder: &Path, trust: &Trust) -> io::Result<Report> {
    let report = Report {
        ok: true,
        files: 0,
        lines: 0,
        first_seq: None,
        last_seq: None,
        last_hash: None,
        sealed: 0,
        torn: None,
        bad: None,
        checkpoints: Stamped::default(),
    };
    // Before the log, which may be written meanwhile: it then has at least what they saw.
    let own = stamps::read(folder)?;
    let sizes = own.notes.iter().chain(&trust.given.notes).map(|note| (note.checkpoint.size, None));
    let mut walk = Walk { report, link: None, open: Vec::new(), log: None, seen: sizes.collect() };
    let files = files::list(folder)?;
    for pair in files.windows(2) {
        // Before the files themselves: a file that is not there cannot be walked.
        if pair[0].number + 1 != pair[1].number {
            walk.bad(&pair[1], 0, "the file before it is not there");
        }
    }
    for file in &files {
        if walk.report.bad.is_some() {
            break;
        }
        walk.file(file)?;
    }
    walk.checkpoints(&own, trust);
    let mut report = walk.report;
    report.torn = walk.open.pop();
    report.ok = report.bad.is_none() && report.checkpoints.bad.is_none();
    Ok(report)
}

impl Walk {
    fn bad(&mut self, file: &LogFile, line: u64, reason: &'static str) {
        let file = files::file_name(file.number);
        self.report.bad.get_or_insert(Bad { file, line, reason });
    }

    fn file(&mut self, file: &LogFile) -> io::Result<()> {
        self.report.files += 1;
        let mut pieces = Pieces::open(file, 0)?;
        let mut number = 0;
        while let Some(piece) = pieces.next()? {
            number += 1;
            let wrong = match piece {
                Piece::Line(text) => self.line(&text, number == 1).err(),
                Piece::TooLong => Some("longer than a line can be"),
                Piece::Tail(torn) => {
                    self.open.push(torn);
                    None
                }
            };
            if let Some(reason) = wrong {
                self.bad(file, number, reason);
                return Ok(());
            }
        }
        Ok(())
    }

    fn line(&mut self, text: &[u8], first: bool) -> Result<(), &'static str> {
        let line = Line::read(text).ok_or("its hash is not that of its text")?;
        if let Some(link) = self.link {
            if line.seq != link.seq {
                return Err("its number does not follow the one before");
            }
            if line.prev != link.prev {
                return Err("it does not name the line before it");
            }
        } else if line.seq == 0 && line.prev != Hash::NONE {
            return Err("the first line of a log names no other");
        }
        if first {
            let head: Head = serde_json::from_slice(text).map_err(|_| "it is not JSON")?;
            if head.kind != "file" {
                return Err("a file begins with a line of kind `file`");
            }
            if head.log.is_some() && self.log.is_some() && head.log != self.log {
                return Err("the file is of another log");
            }
            self.log = head.log.or(self.log.take());
            // Of a file before the first one nothing is known.
            if self.link.is_some() || !self.open.is_empty() {
                if head.sealed != self.open {
                    return Err("it does not name what the file before it ends with");
                }
                self.report.sealed += self.open.len() as u64;
                self.open.clear();
            }
        }
        self.link = Some(line.link());
        if let Some(seen) = self.seen.get_mut(&line.seq.saturating_add(1)) {
            *seen = Some(line.hash);
        }
        self.report.lines += 1;
        self.report.first_seq.get_or_insert(line.seq);
        self.report.last_seq = Some(line.seq);
        self.report.last_hash = Some(line.hash.to_string());
        Ok(())
    }

    /// Compares what checkpoints saw with what there is.
    fn checkpoints(&mut self, own: &Notes, trust: &Trust) {
        let mut out = Stamped {
            read: (own.notes.len() + trust.given.notes.len()) as u64,
            unreadable: own.unreadable,
            ..Stamped::default()
        };
        if trust.given.unreadable > 0 {
            out.bad = Some(BadCheckpoint { code: Breach::Unreadable, size: 0 });
        }
        let newest = own.notes.len().saturating_sub(1);
        let own = own.notes.iter().enumerate().map(|(number, note)| (note, number == newest));
        for (note, must_be_known) in own.chain(trust.given.notes.iter().map(|note| (note, true))) {
            let size = note.checkpoint.size;
            if let Err(code) = self.checkpoint(note, must_be_known, trust.keys.as_deref(), &mut out) {
                out.bad.get_or_insert(BadCheckpoint { code, size });
            }
        }
        self.report.checkpoints = out;
    }

    /// One of them. Older ones of the folder may be by keys that are not published any more; the newest is not.
    fn checkpoint(
        &self,
        note: &Note,
        must_be_known: bool,
        keys: Option<&[PublicKey]>,
        out: &mut Stamped,
    ) -> Result<(), Breach> {
        match keys.map(|keys| note.worth(keys)) {
            Some(Worth::Forged) => return Err(Breach::Forged),
            Some(Worth::UnknownKey) if must_be_known => return Err(Breach::UnknownKey),
            Some(Worth::Signed) => out.signed += 1,
            Some(Worth::UnknownKey) | None => {}
        }
        let seen = &note.checkpoint;
        if self.log.as_deref().is_some_and(|log| *log != *seen.log) {
            return Err(Breach::Foreign);
        }
        let end = self.link.map_or(0, |link| link.seq);
        match self.seen.get(&seen.size).copied().flatten() {
            Some(hash) if hash == seen.hash => {
                out.matched += 1;
                out.covered = out.covered.max(Some(seen.size));
            }
            Some(_) => return Err(Breach::Rewritten),
            // Behind a line that is wrong nothing was read.
            None if seen.size > end && self.report.bad.is_none() => return Err(Breach::Truncated),
            None if seen.size <= end => out.older += 1,
            None => {}
        }
        Ok(())
    }
}
