//! Values that cross isolates and the wall: one closed format that the gateway, which has no V8, can read too.
//!
//! ```text
//!  JavaScript ──runtime's writer──▶ bytes + capabilities ──runtime's reader──▶ JavaScript
//!                                     │        ▲
//!                                  Value::decode  Value::encode      (host-side capabilities, plain data only)
//! ```
//!
//! A value is one [`Tag`] byte and what the tag says. Every object has a number, counted from 0 in the order in which their
//! tags appear, and [`Tag::Reference`] names one that came before: cycles and shared parts survive between isolates.
//! Lengths and counts are LEB128; a reader never reserves what a count announces before the bytes are there.
//!
//! Why not V8's own format: it cannot write functions or Proxies, which must become stubs, and a process without V8 would have
//! to follow a format that changes with V8.

use std::collections::BTreeMap;

use bytes::Bytes;

/// Largest value, in bytes: what Workers document for arguments and returns.
pub const VALUE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Deepest nesting of a value.
pub const VALUE_DEPTH_MAX: usize = 500;
/// Most parts of a value of plain data: decoded, each takes many times its bytes.
pub const VALUE_PARTS_MAX: usize = 100_000;
/// Most capabilities in one message.
pub const VALUE_CAPABILITIES_MAX: usize = 10_000;

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Tag {
    /// `undefined`.
    Undefined = 0,
    /// `null`.
    Null = 1,
    /// `true`.
    True = 2,
    /// `false`.
    False = 3,
    /// A signed 32-bit integer, zigzag LEB128.
    Int = 4,
    /// A double, little-endian.
    Double = 5,
    /// Sign byte, count of 64-bit words, words little-endian.
    BigInt = 6,
    /// Length, latin-1 letters.
    Latin1 = 7,
    /// Length in code units, UTF-16 little-endian. Lone surrogates may be in it.
    Utf16 = 8,
    /// Number of an earlier object.
    Reference = 9,
    /// A hole of an array.
    Hole = 10,
    /// Object: count, then (string, value) pairs.
    Object = 11,
    /// Object: length, then as many values or holes; count, then (string, value) pairs of further properties.
    Array = 12,
    /// Object: length, then count of (string, value) pairs, indices among them: an array with many holes.
    Sparse = 13,
    /// Object: count, then (value, value) pairs.
    Map = 14,
    /// Object: count, then values.
    Set = 15,
    /// Object: milliseconds since 1970 as a double.
    Date = 16,
    /// Object: length, bytes.
    Buffer = 17,
    /// Object: kind, offset, length in bytes, the buffer.
    View = 18,
    /// Object: name of its class, message (a string or undefined), count, then (string, value) pairs.
    Error = 19,
    /// Object: index into the message's capabilities.
    Capability = 20,
    /// Object: kind, value: what the runtime's scripts make and take apart.
    Special = 21,
}

impl Tag {
    /// The tag of a byte.
    #[must_use]
    pub fn of(byte: u8) -> Option<Self> {
        const ALL: [Tag; 22] = [
            Tag::Undefined,
            Tag::Null,
            Tag::True,
            Tag::False,
            Tag::Int,
            Tag::Double,
            Tag::BigInt,
            Tag::Latin1,
            Tag::Utf16,
            Tag::Reference,
            Tag::Hole,
            Tag::Object,
            Tag::Array,
            Tag::Sparse,
            Tag::Map,
            Tag::Set,
            Tag::Date,
            Tag::Buffer,
            Tag::View,
            Tag::Error,
            Tag::Capability,
            Tag::Special,
        ];
        ALL.get(byte as usize).copied()
    }
}

/// Why bytes are not a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// They end early, go on too long, or name what is not there.
    #[error("The value is malformed.")]
    Malformed,
    /// Nested deeper than [`VALUE_DEPTH_MAX`].
    #[error("The value is nested too deeply.")]
    TooDeep,
    /// Larger than [`VALUE_BYTES_MAX`].
    #[error("The value is too large.")]
    TooLarge,
    /// Something that only isolates can hold: a cycle, a capability, an object of the runtime.
    #[error("The value holds something that this binding cannot take.")]
    NotData,
}

/// Appends LEB128.
pub fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Reads a value's parts in order.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether all was read.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// If there are fewer.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], ValueError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(ValueError::Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    /// One byte.
    ///
    /// # Errors
    /// If there is none.
    pub fn byte(&mut self) -> Result<u8, ValueError> {
        Ok(self.bytes(1)?[0])
    }

    /// A tag.
    ///
    /// # Errors
    /// If there is none.
    pub fn tag(&mut self) -> Result<Tag, ValueError> {
        Tag::of(self.byte()?).ok_or(ValueError::Malformed)
    }

    /// LEB128 that fits in 32 bits.
    ///
    /// # Errors
    /// If it does not.
    pub fn number(&mut self) -> Result<u32, ValueError> {
        let mut number = 0_u64;
        for shift in (0..35).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(number).map_err(|_| ValueError::Malformed);
            }
        }
        Err(ValueError::Malformed)
    }

    /// A count of things, each of which takes at least `bytes_min` bytes.
    ///
    /// # Errors
    /// If so many cannot follow.
    pub fn count(&mut self, bytes_min: usize) -> Result<usize, ValueError> {
        let count = self.number()? as usize;
        if count.saturating_mul(bytes_min) > self.rest.len() { Err(ValueError::Malformed) } else { Ok(count) }
    }

    /// The number behind [`Tag::Int`].
    ///
    /// # Errors
    /// If there is none.
    pub fn int(&mut self) -> Result<i32, ValueError> {
        let zigzag = self.number()?;
        Ok((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed())
    }

    /// The number behind [`Tag::Double`] and [`Tag::Date`].
    ///
    /// # Errors
    /// If there is none.
    pub fn double(&mut self) -> Result<f64, ValueError> {
        let bytes = self.bytes(8)?.try_into().map_err(|_| ValueError::Malformed)?;
        Ok(f64::from_le_bytes(bytes))
    }
}

/// Appends an integer with its tag.
pub fn put_int(out: &mut Vec<u8>, value: i32) {
    out.push(Tag::Int as u8);
    put_number(out, u64::from(((value << 1) ^ (value >> 31)).cast_unsigned()));
}

/// Appends a double with its tag.
pub fn put_double(out: &mut Vec<u8>, value: f64) {
    out.push(Tag::Double as u8);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a string with its tag.
pub fn put_text(out: &mut Vec<u8>, text: &str) {
    if text.is_ascii() {
        out.push(Tag::Latin1 as u8);
        put_number(out, text.len() as u64);
        out.extend_from_slice(text.as_bytes());
    } else {
        out.push(Tag::Utf16 as u8);
        put_number(out, text.encode_utf16().count() as u64);
        out.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
    }
}

/// Plain data, as a capability of the gateway takes and gives it. What JavaScript has beyond this is refused.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// `undefined`.
    #[default]
    Undefined,
    /// `null`.
    Null,
    /// A boolean.
    Bool(bool),
    /// A number, or a Date as its milliseconds.
    Number(f64),
    /// A string; lone surrogates became U+FFFD.
    Text(String),
    /// An ArrayBuffer or a view.
    Data(Bytes),
    /// An array; holes are undefined.
    List(Vec<Value>),
    /// A plain object or a Map with string keys.
    Record(BTreeMap<String, Value>),
}

impl Value {
    /// Reads a value of plain data.
    ///
    /// # Errors
    /// If the bytes are none.
    pub fn decode(bytes: &[u8]) -> Result<Self, ValueError> {
        if bytes.len() > VALUE_BYTES_MAX {
            return Err(ValueError::TooLarge);
        }
        let mut reader = Reader::new(bytes);
        let mut parts = VALUE_PARTS_MAX;
        let value = Self::read(&mut reader, 0, &mut parts)?;
        if reader.is_done() { Ok(value) } else { Err(ValueError::Malformed) }
    }

    fn read(reader: &mut Reader, depth: usize, parts: &mut usize) -> Result<Self, ValueError> {
        *parts = parts.checked_sub(1).ok_or(ValueError::TooLarge)?;
        if depth > VALUE_DEPTH_MAX {
            return Err(ValueError::TooDeep);
        }
        Ok(match reader.tag()? {
            Tag::Undefined | Tag::Hole => Self::Undefined,
            Tag::Null => Self::Null,
            Tag::True => Self::Bool(true),
            Tag::False => Self::Bool(false),
            Tag::Int => Self::Number(reader.int()?.into()),
            Tag::Double | Tag::Date => Self::Number(reader.double()?),
            tag @ (Tag::Latin1 | Tag::Utf16) => Self::Text(read_text(reader, tag)?),
            Tag::Object => Self::Record(read_record(reader, depth, parts)?),
            Tag::Array => {
                let count = reader.count(1)?;
                let list =
                    (0..count).map(|_| Self::read(reader, depth + 1, parts)).collect::<Result<_, _>>()?;
                if !read_record(reader, depth, parts)?.is_empty() {
                    return Err(ValueError::NotData);
                }
                Self::List(list)
            }
            Tag::Buffer => {
                let length = reader.number()? as usize;
                Self::Data(Bytes::copy_from_slice(reader.bytes(length)?))
            }
            Tag::View => {
                let _kind = reader.byte()?;
                let (offset, length) = (reader.number()? as usize, reader.number()? as usize);
                let Self::Data(buffer) = Self::read(reader, depth + 1, parts)? else {
                    return Err(ValueError::NotData);
                };
                let end = offset.checked_add(length).filter(|end| *end <= buffer.len());
                Self::Data(buffer.slice(offset..end.ok_or(ValueError::Malformed)?))
            }
            Tag::BigInt | Tag::Reference | Tag::Sparse | Tag::Map | Tag::Set | Tag::Error => {
                return Err(ValueError::NotData);
            }
            Tag::Capability | Tag::Special => return Err(ValueError::NotData),
        })
    }

    /// The bytes of the value.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        self.write(&mut out);
        out.into()
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Undefined => out.push(Tag::Undefined as u8),
            Self::Null => out.push(Tag::Null as u8),
            Self::Bool(true) => out.push(Tag::True as u8),
            Self::Bool(false) => out.push(Tag::False as u8),
            Self::Number(number) => put_double(out, *number),
            Self::Text(text) => put_text(out, text),
            Self::Data(bytes) => {
                out.push(Tag::Buffer as u8);
                put_number(out, bytes.len() as u64);
                out.extend_from_slice(bytes);
            }
            Self::List(list) => {
                out.push(Tag::Array as u8);
                put_number(out, list.len() as u64);
                list.iter().for_each(|value| value.write(out));
                put_number(out, 0);
            }
            Self::Record(record) => {
                out.push(Tag::Object as u8);
                put_number(out, record.len() as u64);
                for (key, value) in record {
                    put_text(out, key);
                    value.write(out);
                }
            }
        }
    }

    /// The string, if it is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A member of a record; `Undefined` if there is none.
    #[must_use]
    pub fn member(&self, name: &str) -> &Self {
        const NONE: &Value = &Value::Undefined;
        match self {
            Self::Record(record) => record.get(name).unwrap_or(NONE),
            _ => NONE,
        }
    }

    /// The number, if it is one.
    #[must_use]
    pub fn as_number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

fn read_text(reader: &mut Reader, tag: Tag) -> Result<String, ValueError> {
    let length = reader.number()? as usize;
    if tag == Tag::Latin1 {
        return Ok(reader.bytes(length)?.iter().map(|byte| char::from(*byte)).collect());
    }
    let units = reader.bytes(length.checked_mul(2).ok_or(ValueError::Malformed)?)?;
    let units = units.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    Ok(char::decode_utf16(units).map(|letter| letter.unwrap_or(char::REPLACEMENT_CHARACTER)).collect())
}

fn read_record(
    reader: &mut Reader,
    depth: usize,
    parts: &mut usize,
) -> Result<BTreeMap<String, Value>, ValueError> {
    // A key has a tag and a length, a value has a tag.
    let count = reader.count(3)?;
    let mut record = BTreeMap::new();
    for _ in 0..count {
        let tag = reader.tag()?;
        if !matches!(tag, Tag::Latin1 | Tag::Utf16) {
            return Err(ValueError::Malformed);
        }
        let key = read_text(reader, tag)?;
        record.insert(key, Value::read(reader, depth + 1, parts)?);
    }
    Ok(record)
}
