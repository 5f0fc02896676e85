//! How deeply a source can make a recursive parser nest, found without recursion.
//!
//! The parser calls itself once per level, so a hostile megabyte of `!` or `(` would overflow any fixed stack and
//! take the process down. This scan reads the source once and gives an upper bound of the nesting: every token
//! that can start a level counts, until a token that surely ends the statement or list element it is in. Where
//! the scan cannot be sure what the source means (is this slash a division?), it says so, and the caller uses the
//! one bound that always holds: no level is shorter than a byte.

/// What the scan found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nesting {
    /// At no point deeper than `levels`, of which at most `brackets` are brackets; deepest at byte `offset`.
    AtMost {
        /// The bound.
        levels: usize,
        /// Brackets open at once.
        brackets: usize,
        /// Where it is reached.
        offset: usize,
    },
    /// Not clear without parsing.
    Unsure,
}

/// Words after which an operand follows, so that a slash begins a regular expression.
const PREFIX_WORDS: &[&str] = &[
    "break",
    "case",
    "catch",
    "class",
    "const",
    "continue",
    "debugger",
    "default",
    "delete",
    "do",
    "else",
    "enum",
    "export",
    "extends",
    "finally",
    "for",
    "function",
    "if",
    "import",
    "in",
    "instanceof",
    "new",
    "return",
    "switch",
    "throw",
    "try",
    "typeof",
    "var",
    "void",
    "while",
    "with",
];
/// Words that are names in some places and keywords in others.
const CONTEXT_WORDS: &[&str] = &[
    "abstract",
    "accessor",
    "as",
    "asserts",
    "async",
    "await",
    "declare",
    "defer",
    "from",
    "get",
    "global",
    "implements",
    "infer",
    "interface",
    "is",
    "keyof",
    "let",
    "module",
    "namespace",
    "of",
    "out",
    "override",
    "package",
    "private",
    "protected",
    "public",
    "readonly",
    "satisfies",
    "set",
    "source",
    "static",
    "type",
    "unique",
    "using",
    "yield",
];
/// Words that continue what came before them.
const CONTINUING_WORDS: &[&str] = &[
    "as",
    "catch",
    "else",
    "extends",
    "finally",
    "from",
    "implements",
    "in",
    "instanceof",
    "is",
    "of",
    "satisfies",
    "while",
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Previous {
    /// Nothing yet, or an operator: an operand follows.
    Operator,
    /// An operand ended: an operator follows, or a new statement.
    Operand,
    /// `)` of `if (…)`, `while (…)`, `for (…)` or `with (…)`: a statement follows.
    Header,
    /// Could be either.
    Ambiguous,
    /// A word that takes an operand.
    Prefix,
    /// A word that may take one.
    Context,
}

struct Frame {
    open: u8,
    is_header: Previous,
    /// Levels begun in this frame since the last separator.
    run: usize,
    /// Levels of this statement that commas ended.
    statement: usize,
    /// Levels of the statement before this one: `else`, and `while` after `do`, go back to it.
    statement_before: usize,
    /// `do` whose `while` has not come.
    dos: usize,
    /// `<` without `>` since the last separator: commas between them do not separate statements.
    angles: usize,
}

/// Ends the scan: the source cannot be read with certainty.
struct Unsure;

struct Scan<'a> {
    source: &'a [u8],
    at: usize,
    frames: Vec<Frame>,
    previous: Previous,
    /// The last word was `if`, `while`, `for`, `with` (`Header`) or `await` (`Ambiguous`).
    header_word: Previous,
    after_dot: bool,
    after_semicolon: bool,
    levels: usize,
    deepest: (usize, usize),
    brackets: usize,
}

/// Bounds the nesting of a JavaScript or TypeScript source (without JSX, whose text this scan cannot read).
pub(crate) fn scan(source: &str) -> Nesting {
    if has_html_comment(source.as_bytes()) {
        return Nesting::Unsure;
    }
    let mut scan = Scan {
        source: source.as_bytes(),
        at: 0,
        frames: vec![Frame::new(b'^', Previous::Operator)],
        previous: Previous::Operator,
        header_word: Previous::Operator,
        after_dot: false,
        after_semicolon: false,
        levels: 0,
        deepest: (0, 0),
        brackets: 0,
    };
    match scan.run() {
        Ok(()) => Nesting::AtMost { levels: scan.deepest.0, brackets: scan.brackets, offset: scan.deepest.1 },
        Err(Unsure) => Nesting::Unsure,
    }
}

/// Whether there may be a comment in HTML style, which scripts have and modules do not: `<!--` anywhere, or `-->`
/// with nothing but white space or a comment before it on its line (unlike in `while (n --> 0)`).
fn has_html_comment(source: &[u8]) -> bool {
    let begins_line = |at: usize| {
        let before = source[..at].iter().rev().find(|b| !b" \t\x0b\x0c".contains(b));
        before.is_none_or(|b| b"\r\n/".contains(b) || *b >= 0x80)
    };
    memchr::memmem::find(source, b"<!--").is_some()
        || memchr::memmem::find_iter(source, b"-->").any(begins_line)
}

impl Frame {
    fn new(open: u8, is_header: Previous) -> Self {
        Self { open, is_header, run: 0, statement: 0, statement_before: 0, dos: 0, angles: 0 }
    }
}

impl Scan<'_> {
    fn run(&mut self) -> Result<(), Unsure> {
        if self.source.starts_with(b"#!") {
            self.skip_line();
        }
        while let Some(&byte) = self.source.get(self.at) {
            match byte {
                b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => self.at += 1,
                b'/' => self.slash()?,
                b'"' | b'\'' => self.string(byte)?,
                b'`' => self.open_template()?,
                b'(' | b'[' | b'{' => self.open(byte),
                b')' | b']' | b'}' => self.close(byte)?,
                b'\\' => return Err(Unsure),
                b'0'..=b'9' => self.number(),
                b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'$' => self.word(),
                0x80.. => self.wide()?,
                _ => self.operator(byte),
            }
        }
        if self.frames.len() == 1 { Ok(()) } else { Err(Unsure) }
    }

    fn top(&mut self) -> &mut Frame {
        if self.frames.is_empty() {
            self.frames.push(Frame::new(b'^', Previous::Operator));
        }
        let last = self.frames.len() - 1;
        &mut self.frames[last]
    }

    /// One more level in this frame.
    fn level(&mut self) {
        self.top().run += 1;
        self.levels += 1;
        if self.levels > self.deepest.0 {
            self.deepest = (self.levels, self.at);
        }
    }

    /// A list element ended.
    fn end_element(&mut self) {
        let frame = self.top();
        let run = std::mem::take(&mut frame.run);
        frame.statement += run;
        self.levels -= run;
    }

    /// A statement ended.
    fn end_statement(&mut self) {
        self.end_element();
        let frame = self.top();
        frame.statement_before = std::mem::take(&mut frame.statement);
        frame.angles = 0;
    }

    /// The statement before goes on.
    fn resume_statement(&mut self) {
        let frame = self.top();
        let back = std::mem::take(&mut frame.statement_before);
        frame.run += back;
        self.levels += back;
        if self.levels > self.deepest.0 {
            self.deepest = (self.levels, self.at);
        }
    }

    fn end_token(&mut self, previous: Previous) {
        self.previous = previous;
        self.header_word = Previous::Operator;
        self.after_dot = false;
        self.after_semicolon = false;
    }

    fn operator(&mut self, byte: u8) {
        let next = self.source.get(self.at + 1).copied();
        match byte {
            b';' => self.end_statement(),
            b',' if self.top().angles == 0 => self.end_element(),
            _ => self.level(),
        }
        let frame = self.top();
        match byte {
            b'<' => frame.angles += 1,
            b'>' => frame.angles = frame.angles.saturating_sub(1),
            _ => {}
        }
        let (len, previous) = match (byte, next) {
            (b'+', Some(b'+')) | (b'-', Some(b'-')) => (2, Previous::Ambiguous),
            (b'=', Some(b'>')) => (2, Previous::Operator),
            (b'.', Some(b'.')) => (2, Previous::Operator),
            // A non-null assertion or the end of type arguments, in TypeScript.
            (b'!' | b'>', _) => (1, Previous::Ambiguous),
            _ => (1, Previous::Operator),
        };
        self.at += len;
        self.end_token(previous);
        // The third dot of `...` and a lone one both come here as length 1; only the lone one begins a property.
        let in_spread = byte == b'.' && self.at >= 2 && self.source[self.at - 2] == b'.';
        self.after_dot = (byte == b'.' && len == 1 && !in_spread) || byte == b'#';
        self.after_semicolon = byte == b';';
    }

    fn open(&mut self, byte: u8) {
        self.level();
        let is_header = if byte == b'(' { self.header_word } else { Previous::Operator };
        self.frames.push(Frame::new(byte, is_header));
        self.brackets = self.brackets.max(self.frames.len());
        self.at += 1;
        self.end_token(Previous::Operator);
    }

    fn close(&mut self, byte: u8) -> Result<(), Unsure> {
        let frame = if self.frames.len() > 1 { self.frames.pop() } else { None };
        let frame = frame.ok_or(Unsure)?;
        self.levels -= frame.run;
        self.at += 1;
        match (frame.open, byte) {
            (b'(', b')') if frame.is_header == Previous::Operator => self.end_token(Previous::Operand),
            (b'(', b')') => self.end_token(frame.is_header),
            (b'[', b']') => self.end_token(Previous::Operand),
            (b'{', b'}') => self.end_token(Previous::Ambiguous),
            (b'`', b'}') => self.template_text()?,
            _ => return Err(Unsure),
        }
        Ok(())
    }

    fn open_template(&mut self) -> Result<(), Unsure> {
        self.level();
        self.at += 1;
        self.template_text()
    }

    /// Reads template text up to its end, or into the next substitution.
    fn template_text(&mut self) -> Result<(), Unsure> {
        while let Some(&byte) = self.source.get(self.at) {
            match byte {
                b'\\' => self.at += 2,
                b'`' => {
                    self.at += 1;
                    self.end_token(Previous::Operand);
                    return Ok(());
                }
                b'$' if self.source.get(self.at + 1) == Some(&b'{') => {
                    self.level();
                    self.frames.push(Frame::new(b'`', Previous::Operator));
                    self.at += 2;
                    self.end_token(Previous::Operator);
                    return Ok(());
                }
                _ => self.at += 1,
            }
        }
        Err(Unsure)
    }

    fn string(&mut self, quote: u8) -> Result<(), Unsure> {
        self.at += 1;
        while let Some(&byte) = self.source.get(self.at) {
            match byte {
                b'\\' if self.source[self.at..].starts_with(b"\\\r\n") => self.at += 3,
                b'\\' => self.at += 2,
                b'\n' | b'\r' => return Err(Unsure),
                byte if byte == quote => {
                    self.at += 1;
                    self.end_token(Previous::Operand);
                    return Ok(());
                }
                _ => self.at += 1,
            }
        }
        Err(Unsure)
    }

    fn number(&mut self) {
        while self.source.get(self.at).is_some_and(|b| b.is_ascii_alphanumeric() || b"._".contains(b)) {
            self.at += 1;
        }
        self.end_token(Previous::Operand);
    }

    /// Text outside ASCII: white space, or part of a name.
    fn wide(&mut self) -> Result<(), Unsure> {
        let rest = std::str::from_utf8(&self.source[self.at..]).map_err(|_| Unsure)?;
        match rest.chars().next() {
            Some(c) if c.is_whitespace() || c == '\u{feff}' => self.at += c.len_utf8(),
            Some(_) => self.word(),
            None => return Err(Unsure),
        }
        Ok(())
    }

    fn word(&mut self) {
        let begin = self.at;
        while let Some(&byte) = self.source.get(self.at) {
            let is_space = byte >= 0x80 && self.wide_space_at(self.at);
            if is_space || !(byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80) {
                break;
            }
            self.at += 1;
        }
        let word = std::str::from_utf8(&self.source[begin..self.at]).unwrap_or_default();
        let begins_statement = matches!(self.previous, Previous::Operand | Previous::Ambiguous);
        if self.after_dot {
            self.end_token(Previous::Operand);
            return;
        }
        if begins_statement && self.is_operand_end(begin) && !CONTINUING_WORDS.contains(&word) {
            self.end_statement();
        }
        match word {
            "do" => self.top().dos += 1,
            // Only a semicolon can end a statement too early: nothing else that does comes before these words.
            "else" if self.after_semicolon => self.resume_statement(),
            "while" if self.top().dos > 0 => {
                self.top().dos -= 1;
                if self.after_semicolon {
                    self.resume_statement();
                }
            }
            _ => {}
        }
        let (previous, header_word) = match word {
            "if" | "while" | "for" | "with" => (Previous::Prefix, Previous::Header),
            "await" => (Previous::Context, Previous::Ambiguous),
            word if PREFIX_WORDS.contains(&word) => (Previous::Prefix, Previous::Operator),
            word if CONTEXT_WORDS.contains(&word) => (Previous::Context, Previous::Operator),
            _ => (Previous::Operand, Previous::Operator),
        };
        if previous != Previous::Operand {
            self.level();
        }
        self.end_token(previous);
        self.header_word = header_word;
    }

    /// Whether the token before `begin` surely ended an operand or a block (and is not `++`, `!` or `>`).
    fn is_operand_end(&self, begin: usize) -> bool {
        if self.previous == Previous::Operand {
            return true;
        }
        let before = self.source[..begin].iter().rev().find(|b| !b.is_ascii_whitespace());
        before == Some(&b'}')
    }

    fn wide_space_at(&self, at: usize) -> bool {
        // At most four bytes make a character.
        let end = self.source.len().min(at + 4);
        let chunk = &self.source[at..end];
        let text = match std::str::from_utf8(chunk) {
            Ok(text) => text,
            Err(error) => std::str::from_utf8(&chunk[..error.valid_up_to()]).unwrap_or_default(),
        };
        text.chars().next().is_some_and(|c| c.is_whitespace() || c == '\u{feff}')
    }

    fn slash(&mut self) -> Result<(), Unsure> {
        match self.source.get(self.at + 1) {
            Some(b'/') => self.skip_line(),
            Some(b'*') => {
                let end = memchr::memmem::find(&self.source[self.at + 2..], b"*/").ok_or(Unsure)?;
                self.at += end + 4;
            }
            _ => match self.previous {
                Previous::Operand => self.operator(b'/'),
                Previous::Operator | Previous::Prefix | Previous::Header => self.regex()?,
                Previous::Ambiguous | Previous::Context => {
                    self.harmless_slash()?;
                    self.operator(b'/');
                }
            },
        }
        Ok(())
    }

    fn skip_line(&mut self) {
        let rest = &self.source[self.at..];
        let separator =
            |at: &usize| rest[*at..].starts_with(b"\xe2\x80\xa8") || rest[*at..].starts_with(b"\xe2\x80\xa9");
        let wide_end = memchr::memchr_iter(0xe2, rest).find(separator);
        let end = memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
        self.at += wide_end.map_or(end, |wide| wide.min(end));
    }

    /// Byte after the regular expression that begins here, if it ends on this line.
    fn regex_end(&self) -> Option<usize> {
        let mut at = self.at + 1;
        let mut in_class = false;
        loop {
            match self.source.get(at)? {
                b'\\' if self.source.get(at + 1).is_some_and(|b| !b"\r\n".contains(b)) => at += 1,
                b'\n' | b'\r' | b'\\' => return None,
                b'[' => in_class = true,
                b']' => in_class = false,
                b'/' if !in_class => return Some(at + 1),
                _ => {}
            }
            at += 1;
        }
    }

    fn regex(&mut self) -> Result<(), Unsure> {
        self.at = self.regex_end().ok_or(Unsure)?;
        self.end_token(Previous::Operand);
        Ok(())
    }

    /// Whether a slash that may be a division or a regular expression leads to the same reading after it.
    fn harmless_slash(&self) -> Result<(), Unsure> {
        let Some(end) = self.regex_end() else { return Ok(()) };
        let body = &self.source[self.at + 1..end - 1];
        let is_plain = |b: &u8| b.is_ascii_alphanumeric() || b" \t.,;=+*_$?:&|".contains(b);
        let last_word_begin = body.iter().rposition(|b| !b.is_ascii_alphanumeric()).map_or(0, |at| at + 1);
        let last_word = std::str::from_utf8(&body[last_word_begin..]).unwrap_or_default();
        let ends_in_operand = !last_word.is_empty()
            && !PREFIX_WORDS.contains(&last_word)
            && !CONTEXT_WORDS.contains(&last_word);
        if body.iter().all(is_plain) && ends_in_operand { Ok(()) } else { Err(Unsure) }
    }
}

#[cfg(test)]
mod tests;
