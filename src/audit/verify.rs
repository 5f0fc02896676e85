//! The verifier: walks every line of every file, and names the first that is not what was written.
//!
//! It needs nothing of the server: a copy of the folder is enough, and so is the end of a log whose older files were moved
//! away. What it cannot see is lines cut off the very end; whoever must see that too keeps the last hash elsewhere.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::files::{self, LogFile, Piece, Pieces, Torn};
use super::line::{Hash, Line, Link};

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
    #[serde(default)]
    sealed: Vec<Torn>,
}

struct Walk {
    report: Report,
    link: Option<Link>,
    /// Ends of files that the next good head must name.
    open: Vec<Torn>,
}

/// Verifies the log in a folder.
pub fn verify(folder: &Path) -> io::Result<Report> {
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
    };
    let mut walk = Walk { report, link: None, open: Vec::new() };
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
    let mut report = walk.report;
    report.torn = walk.open.pop();
    report.ok = report.bad.is_none();
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
        self.report.lines += 1;
        self.report.first_seq.get_or_insert(line.seq);
        self.report.last_seq = Some(line.seq);
        self.report.last_hash = Some(line.hash.to_string());
        Ok(())
    }
}
