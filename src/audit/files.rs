//! The folder of the log: numbered files, each of which begins with the hash of the last line before it.
//!
//! ```text
//!  audit-00000001.jsonl   file ▸ record ▸ record ▸ … ▸ record
//!  audit-00000002.jsonl   file(prev = hash of that record) ▸ record ▸ rec        ← killed in mid-write
//!  audit-00000003.jsonl   file(prev = hash of the last whole line, sealed = [that torn tail]) ▸ …
//! ```
//!
//! No file is ever written again once its writer is gone: a start opens a new one. What a killed writer left without a line's
//! end stays where it is; the next file names its length and its hash, so it is neither lost nor can it be changed.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::line::{Hash, LINE_BYTES_MAX, Line, Link};
use super::note::is_log_id;

/// What a file's name is made of.
const PREFIX: &str = "audit-";
const SUFFIX: &str = ".jsonl";
/// Who may do what with a file: its owner reads and writes.
pub(super) const FILE_MODE: u32 = 0o600;
/// Digits of the number in a file's name.
const DIGITS: usize = 8;

/// One file of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LogFile {
    /// Its number; later files have higher ones.
    pub(super) number: u64,
    /// Where it is.
    pub(super) path: PathBuf,
}

/// The name of the file with this number.
#[must_use]
pub(super) fn file_name(number: u64) -> String {
    format!("{PREFIX}{number:0DIGITS$}{SUFFIX}")
}

/// The files of a folder, in order. Other files in it are none of ours.
pub(super) fn list(folder: &Path) -> io::Result<Vec<LogFile>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX));
        let number = number.filter(|digits| digits.len() >= DIGITS).and_then(|digits| digits.parse().ok());
        if let Some(number) = number
            && entry.file_type()?.is_file()
        {
            files.push(LogFile { number, path: entry.path() });
        }
    }
    files.sort_by_key(|file| file.number);
    Ok(files)
}

/// The end of a file that is no whole line, as the next file names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Torn {
    /// Name of the file.
    pub file: String,
    /// Its length, in bytes.
    pub bytes: u64,
    /// SHA-256 of it, in hexadecimal digits.
    pub sha256: String,
}

/// A piece of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// A line, without its end.
    Line(Vec<u8>),
    /// All that comes after the last line's end.
    Tail(Torn),
    /// A line that is longer than lines are; nothing behind it is read.
    TooLong,
}

/// Reads a file line by line, from any offset.
pub(super) struct Pieces {
    reader: BufReader<File>,
    number: u64,
    offset: u64,
}

impl Pieces {
    /// From a line's beginning.
    pub(super) fn open(file: &LogFile, offset: u64) -> io::Result<Self> {
        let mut opened = File::open(&file.path)?;
        opened.seek(SeekFrom::Start(offset))?;
        let reader = BufReader::with_capacity(LINE_BYTES_MAX, opened);
        Ok(Self { reader, number: file.number, offset })
    }

    /// Where the next piece begins.
    #[must_use]
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next piece; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Piece>> {
        let mut line = Vec::new();
        let read = self.reader.by_ref().take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut line)?;
        self.offset += read as u64;
        if line.last() == Some(&b'\n') {
            line.pop();
            return Ok(Some(Piece::Line(line)));
        }
        if read == 0 {
            return Ok(None);
        }
        self.tail(&line).map(Some)
    }

    /// The rest of the file, which begins with these bytes.
    fn tail(&mut self, begin: &[u8]) -> io::Result<Piece> {
        let mut sha = Sha256::new();
        let mut bytes = begin.len() as u64;
        sha.update(begin);
        loop {
            let more = self.reader.fill_buf()?;
            if more.contains(&b'\n') {
                return Ok(Piece::TooLong);
            }
            let count = more.len();
            if count == 0 {
                break;
            }
            sha.update(more);
            self.reader.consume(count);
            bytes += count as u64;
        }
        self.offset += bytes - begin.len() as u64;
        let sha256 = Hash(sha.finalize().into()).to_string();
        Ok(Piece::Tail(Torn { file: file_name(self.number), bytes, sha256 }))
    }
}

/// Where a log goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// What the next line names.
    pub(super) link: Link,
    /// The number of the next file.
    pub(super) number: u64,
    /// Ends of files behind the last good line.
    pub(super) torn: Vec<Torn>,
    /// A file with a whole line that is not what was written. It stays as it is, for the verifier to find.
    pub(super) broken: Option<PathBuf>,
}

/// Looks for the last good line: in the last file, or in earlier ones if that has none.
pub(super) fn end(folder: &Path) -> io::Result<End> {
    let mut files = list(folder)?;
    let number = files.last().map_or(1, |file| file.number + 1);
    let mut end = End { link: Link::FIRST, number, torn: Vec::new(), broken: None };
    while let Some(file) = files.pop() {
        let mut pieces = Pieces::open(&file, 0)?;
        let mut last = None;
        while let Some(piece) = pieces.next()? {
            let line = match piece {
                Piece::Line(text) => Line::read(&text),
                Piece::Tail(torn) => {
                    end.torn.push(torn);
                    continue;
                }
                Piece::TooLong => None,
            };
            match line {
                Some(line) => last = Some(line),
                None => {
                    end.broken = Some(file.path.clone());
                    break;
                }
            }
        }
        if let Some(last) = last {
            end.link = last.link();
            break;
        }
    }
    end.torn.reverse();
    Ok(end)
}

/// The log's id, as the newest good first line of a file names it.
pub(super) fn log_id(folder: &Path) -> io::Result<Option<String>> {
    #[derive(Deserialize)]
    struct Head {
        log: String,
    }
    for file in list(folder)?.iter().rev() {
        let Some(Piece::Line(text)) = Pieces::open(file, 0)?.next()? else { continue };
        let head = Line::read(&text).and_then(|_| serde_json::from_slice::<Head>(&text).ok());
        if let Some(Head { log }) = head.filter(|head| is_log_id(&head.log)) {
            return Ok(Some(log));
        }
    }
    Ok(None)
}

/// Makes the file with this number; it must not exist.
pub(super) fn create(folder: &Path, number: u64) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // Who did what is for the operator alone.
    options.append(true).create_new(true).mode(FILE_MODE);
    let file = options.open(folder.join(file_name(number)))?;
    // The name is part of what must survive.
    File::open(folder)?.sync_all()?;
    Ok(file)
}
