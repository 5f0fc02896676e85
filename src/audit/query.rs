//! Reads one tenant's own records back, page by page, oldest first.
//!
//! A page costs a bounded amount of reading, whatever it finds: a page may hold nothing and still say where to go on.

use std::fmt;
use std::io;
use std::path::Path;
use std::str::FromStr;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::files::{self, LogFile, Piece, Pieces};

/// Bytes read for one page.
const READ_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Records on one page.
pub const PAGE_MAX: usize = 1_000;

/// A place in the log: a file and a line's beginning in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    file: u64,
    offset: u64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.file, self.offset)
    }
}

/// Not a cursor that this log gave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadCursor;

impl FromStr for Cursor {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Self, BadCursor> {
        let number = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            plain.then(|| digits.parse().ok()).flatten().ok_or(BadCursor)
        };
        let (file, offset) = text.split_once('-').ok_or(BadCursor)?;
        Ok(Self { file: number(file)?, offset: number(offset)? })
    }
}

/// What is looked for.
#[derive(Clone, Debug)]
pub struct Query {
    /// Whose records; nobody else's are ever given.
    pub tenant: String,
    /// Not before this time, in milliseconds since 1970.
    pub since_ms: u64,
    /// Only of this worker or execution.
    pub worker: Option<String>,
    /// Only of this kind.
    pub kind: Option<String>,
    /// Most records on the page.
    pub limit: usize,
    /// Where to go on.
    pub cursor: Option<Cursor>,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Page {
    /// Records, each as it is in the log.
    pub records: Vec<Box<RawValue>>,
    /// Where to go on; `None` at the end of the log.
    pub next: Option<Cursor>,
}

/// What decides whether a record is wanted.
#[derive(Deserialize)]
struct Peek<'a> {
    #[serde(borrow)]
    kind: &'a str,
    time: u64,
    #[serde(default)]
    tenant: Option<&'a str>,
    #[serde(default)]
    worker: Option<&'a str>,
}

impl Query {
    fn wants(&self, peek: &Peek<'_>) -> bool {
        let same = |wanted: &Option<String>, is: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| is == Some(wanted))
        };
        peek.tenant == Some(self.tenant.as_str())
            && peek.time >= self.since_ms
            && same(&self.kind, Some(peek.kind))
            && same(&self.worker, peek.worker)
    }
}

/// Reads a page of the log in a folder.
pub fn query(folder: &Path, query: &Query) -> io::Result<Page> {
    let start = query.cursor.unwrap_or_default();
    let files = files::list(folder)?;
    let mut page = Page::default();
    let mut read = 0;
    for (at, file) in files.iter().enumerate() {
        // What a file holds is older than the beginning of the next one.
        let over = match files.get(at + 1) {
            Some(next) if query.since_ms > 0 => begins(next)?.is_some_and(|time| time < query.since_ms),
            _ => false,
        };
        if file.number < start.file || over {
            continue;
        }
        let offset = if file.number == start.file { start.offset } else { 0 };
        let mut pieces = Pieces::open(file, offset)?;
        loop {
            let here = Cursor { file: file.number, offset: pieces.offset() };
            if page.records.len() >= query.limit.min(PAGE_MAX) || read >= READ_BYTES_MAX {
                page.next = Some(here);
                return Ok(page);
            }
            let Some(Piece::Line(line)) = pieces.next()? else { break };
            read += line.len() as u64 + 1;
            // A cursor that points into a line, or a line that was changed, gives nothing here: the verifier tells.
            let Ok(text) = String::from_utf8(line) else { continue };
            let wanted = serde_json::from_str::<Peek<'_>>(&text).is_ok_and(|peek| query.wants(&peek));
            if wanted && let Ok(record) = RawValue::from_string(text) {
                page.records.push(record);
            }
        }
    }
    Ok(page)
}

/// The time at which a file was begun.
fn begins(file: &LogFile) -> io::Result<Option<u64>> {
    let Some(Piece::Line(line)) = Pieces::open(file, 0)?.next()? else { return Ok(None) };
    Ok(serde_json::from_slice::<Peek<'_>>(&line).ok().map(|peek| peek.time))
}
