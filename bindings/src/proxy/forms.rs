//! The forms in which a server may reflect a secret, each as a stream of units to match against.
//!
//! A form turns bytes into units: `%41`, `\u0041`, `&#65;` and `A` are all the unit `a`. A unit remembers where in the stream
//! it began, so that what is found can be masked where it stands. Matching ignores ASCII case but in base64.

/// One form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As it is; NUL bytes between (UTF-16) do not count.
    Raw,
    /// `%41`.
    Percent,
    /// `\u0041`, `\x41`, `\/`.
    Backslash,
    /// `&#65;`, `&#x41;`, `&amp;`.
    Entity,
    /// `41`, with or without separators.
    Hex,
    /// Base64 of either alphabet, with or without line breaks; escapes of JSON and URLs inside it do not count.
    Base64,
}

/// Longest escape of any form, in bytes: `&#x0000041;`, with room for more zeros.
const ESCAPE_BYTES_MAX: usize = 16;

/// A unit and the stream offset at which it begins.
pub(super) type Unit = (u8, u64);

/// Turns bytes into the units of one form.
#[derive(Debug)]
pub(super) struct Units {
    form: Form,
    /// An escape that has begun: its bytes are units of their own if it turns out to be none.
    escape: Vec<u8>,
    escape_at: u64,
}

impl Units {
    pub(super) fn new(form: Form) -> Self {
        Self { form, escape: Vec::with_capacity(ESCAPE_BYTES_MAX), escape_at: 0 }
    }

    /// Where an unfinished escape begins.
    pub(super) fn held(&self) -> Option<u64> {
        (!self.escape.is_empty()).then_some(self.escape_at)
    }

    /// Takes one byte; gives the units that are complete now.
    pub(super) fn feed(&mut self, byte: u8, at: u64, mut each: impl FnMut(Unit)) {
        let opener = match self.form {
            Form::Percent | Form::Base64 => b'%',
            Form::Backslash => b'\\',
            Form::Entity => b'&',
            Form::Raw | Form::Hex => return self.give((byte, at), &mut each),
        };
        if self.escape.is_empty() {
            if byte != opener {
                return self.give((byte, at), &mut each);
            }
            self.escape.push(byte);
            self.escape_at = at;
            return;
        }
        self.escape.push(byte);
        match self.read() {
            Escape::Open if self.escape.len() < ESCAPE_BYTES_MAX => {}
            Escape::Is(unit) => {
                self.escape.clear();
                self.give((unit, self.escape_at), &mut each);
            }
            Escape::Open | Escape::Not => self.spill(&mut each),
        }
    }

    /// What began as an escape and is none: its first byte is a unit, the rest is read again.
    fn spill(&mut self, each: &mut impl FnMut(Unit)) {
        let (bytes, at) = (std::mem::take(&mut self.escape), self.escape_at);
        self.give((bytes[0], at), each);
        for (offset, byte) in (1u64..).zip(&bytes[1..]) {
            self.feed(*byte, at + offset, &mut *each as &mut dyn FnMut(Unit));
        }
    }

    fn give(&self, (byte, at): Unit, each: &mut impl FnMut(Unit)) {
        let unit = match (self.form, byte) {
            (Form::Raw, 0) | (Form::Hex, b':' | b'-' | b' ' | b',') => return,
            (Form::Base64, b'\r' | b'\n' | b'\\') => return,
            (Form::Base64, b'-') => b'+',
            (Form::Base64, b'_') => b'/',
            (Form::Base64, byte) => byte,
            (_, byte) => byte.to_ascii_lowercase(),
        };
        each((unit, at));
    }

    fn read(&self) -> Escape {
        let text = &self.escape[1..];
        match self.form {
            Form::Percent | Form::Base64 => number(text, 2, 16),
            Form::Backslash => match text[0] {
                b'u' if text.get(1) == Some(&b'{') => delimited(&text[2..], b'}', 16),
                b'u' => number(&text[1..], 4, 16),
                b'x' => number(&text[1..], 2, 16),
                b'/' | b'\\' | b'"' | b'\'' => Escape::Is(text[0]),
                b'n' => Escape::Is(b'\n'),
                b'r' => Escape::Is(b'\r'),
                b't' => Escape::Is(b'\t'),
                _ => Escape::Not,
            },
            Form::Entity => match text {
                [b'#'] | [b'#', b'x' | b'X'] => Escape::Open,
                [b'#', b'x' | b'X', digits @ ..] => delimited(digits, b';', 16),
                [b'#', digits @ ..] => delimited(digits, b';', 10),
                name => named(name),
            },
            Form::Raw | Form::Hex => Escape::Not,
        }
    }
}

enum Escape {
    Open,
    Is(u8),
    Not,
}

/// Exactly so many digits.
fn number(digits: &[u8], count: usize, radix: u32) -> Escape {
    match value(digits, radix) {
        None => Escape::Not,
        Some(_) if digits.len() < count => Escape::Open,
        Some(value) => u8::try_from(value).map_or(Escape::Not, Escape::Is),
    }
}

/// Digits up to an end.
fn delimited(digits: &[u8], end: u8, radix: u32) -> Escape {
    match digits.split_last() {
        Some((last, digits)) if *last == end && !digits.is_empty() => {
            value(digits, radix).and_then(|value| u8::try_from(value).ok()).map_or(Escape::Not, Escape::Is)
        }
        _ if value(digits, radix).is_some() => Escape::Open,
        _ => Escape::Not,
    }
}

fn value(digits: &[u8], radix: u32) -> Option<u32> {
    digits
        .iter()
        .try_fold(0u32, |sum, digit| sum.checked_mul(radix)?.checked_add(char::from(*digit).to_digit(radix)?))
}

fn named(name: &[u8]) -> Escape {
    const NAMES: [(&[u8], u8); 5] =
        [(b"amp;", b'&'), (b"lt;", b'<'), (b"gt;", b'>'), (b"quot;", b'"'), (b"apos;", b'\'')];
    if let Some((_, unit)) = NAMES.iter().find(|(own, _)| *own == name) {
        return Escape::Is(*unit);
    }
    if NAMES.iter().any(|(own, _)| own.starts_with(name)) { Escape::Open } else { Escape::Not }
}
