//! What the scripts behind `node:` modules ask of Rust: bytes as text, comparisons, names of properties, domain names.

use deno_core::op2;
use deno_core::v8;

use super::{OutOfRange, Thrown};

/// Which text `op_node_encoding_slice` makes; the numbers are `internal/buffer.mjs`'s.
const UTF8: u8 = 0;
const LATIN1: u8 = 1;
const ASCII: u8 = 2;
const UTF16LE: u8 = 3;

/// Part of a buffer as a string. The bytes are copied into V8's heap, so the string is charged like any other.
#[op2]
pub(crate) fn op_node_encoding_slice<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    view: v8::Local<'s, v8::ArrayBufferView>,
    start: v8::Local<'s, v8::Value>,
    end: v8::Local<'s, v8::Value>,
    #[smi] encoding: u8,
) -> Result<v8::Local<'s, v8::Value>, OutOfRange> {
    let length = view.byte_length();
    let start = index(scope, start, 0)?;
    let end = index(scope, end, length)?.max(start);
    if end > length {
        return Err(OutOfRange("Index out of range".into()));
    }
    let bytes = crate::values::bytes_of(scope, view.into());
    // A view that shrank since is shorter now.
    let part = bytes.get(start..end).unwrap_or_default();
    let normal = v8::NewStringType::Normal;
    let text = match encoding {
        UTF8 if part.is_ascii() => v8::String::new_from_one_byte(scope, part, normal),
        UTF8 => v8::String::new_from_utf8(scope, String::from_utf8_lossy(part).as_bytes(), normal),
        LATIN1 => v8::String::new_from_one_byte(scope, part, normal),
        ASCII => {
            let seven: Vec<u8> = part.iter().map(|byte| byte & 0x7f).collect();
            v8::String::new_from_one_byte(scope, &seven, normal)
        }
        UTF16LE => v8::String::new_from_two_byte(scope, &utf16(part), normal),
        _ => return Err(OutOfRange("Invalid type".into())),
    };
    let too_long =
        || OutOfRange(format!("Cannot create a string longer than {:#x} characters", v8::String::MAX_LENGTH));
    text.map(Into::into).ok_or_else(too_long)
}

fn index(scope: &mut v8::PinScope, value: v8::Local<v8::Value>, default: usize) -> Result<usize, OutOfRange> {
    if value.is_undefined() {
        return Ok(default);
    }
    let number = value.integer_value(scope).and_then(|number| usize::try_from(number).ok());
    number.ok_or_else(|| OutOfRange("Index out of range".into()))
}

/// Units in little-endian order; an odd last byte is left out.
fn utf16(bytes: &[u8]) -> Vec<u16> {
    bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect()
}

#[op2(fast)]
pub(crate) fn op_is_ascii(#[buffer] bytes: &[u8]) -> bool {
    bytes.is_ascii()
}

#[op2(fast)]
pub(crate) fn op_is_utf8(#[buffer] bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok()
}

#[op2(fast)]
#[smi]
pub(crate) fn op_node_buffer_compare(#[buffer] a: &[u8], #[buffer] b: &[u8]) -> i32 {
    a.cmp(b) as i32
}

/// Compares two parts; a part that is not in its buffer is an error that names the argument.
#[op2(fast)]
#[smi]
pub(crate) fn op_node_buffer_compare_offset(
    #[buffer] source: &[u8],
    #[buffer] target: &[u8],
    #[smi] source_start: u32,
    #[smi] target_start: u32,
    #[smi] source_end: u32,
    #[smi] target_end: u32,
) -> Result<i32, OutOfRange> {
    let part = |bytes: &'_ [u8], start: u32, end: u32, name: &str| {
        let whole = bytes.len();
        let out = || OutOfRange(format!("The value of \"{name}\" is out of range."));
        let start = start as usize;
        if start > whole { Err(out()) } else { Ok((start, (end as usize).clamp(start, whole))) }
    };
    let (from, to) = part(source, source_start, source_end, "sourceStart")?;
    let (target_from, target_to) = part(target, target_start, target_end, "targetStart")?;
    Ok(source[from..to].cmp(&target[target_from..target_to]) as i32)
}

/// Bytes of one encoding as those of another, as Node's `buffer.transcode` knows them.
#[op2]
pub(crate) fn op_transcode<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    #[buffer] source: &[u8],
    #[string] from: &str,
    #[string] to: &str,
) -> Result<v8::Local<'s, v8::Value>, Thrown> {
    let text = match from {
        "utf8" => String::from_utf8_lossy(source).into_owned(),
        "utf16le" => String::from_utf16_lossy(&utf16(source)),
        "latin1" | "ascii" => source.iter().copied().map(char::from).collect(),
        _ => return Err(Thrown(format!("Unable to transcode Buffer {from}->{to}"))),
    };
    let narrow =
        |most: u32| text.chars().map(|c| if u32::from(c) <= most { c as u8 } else { b'?' }).collect();
    let bytes: Vec<u8> = match to {
        "utf8" => text.into_bytes(),
        "utf16le" => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        "latin1" => narrow(0xff),
        "ascii" => narrow(0x7f),
        _ => return Err(Thrown(format!("Unable to transcode Buffer {from}->{to}"))),
    };
    let buffer = v8::ArrayBuffer::new(scope, bytes.len());
    for (cell, byte) in buffer.get_backing_store().iter().zip(bytes) {
        cell.set(byte);
    }
    let array = v8::Uint8Array::new(scope, buffer, 0, buffer.byte_length());
    array.map(Into::into).ok_or_else(|| Thrown("Unable to transcode Buffer".into()))
}

/// Own keys that are no array index, with V8's property filter; null if the object threw.
#[op2(reentrant)]
pub(crate) fn op_node_get_own_non_index_properties<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    object: v8::Local<'s, v8::Object>,
    #[smi] filter: u32,
) -> Option<v8::Local<'s, v8::Value>> {
    const FILTERS: [v8::PropertyFilter; 5] = [
        v8::PropertyFilter::ONLY_WRITABLE,
        v8::PropertyFilter::ONLY_ENUMERABLE,
        v8::PropertyFilter::ONLY_CONFIGURABLE,
        v8::PropertyFilter::SKIP_STRINGS,
        v8::PropertyFilter::SKIP_SYMBOLS,
    ];
    let mut property_filter = v8::PropertyFilter::ALL_PROPERTIES;
    for (bit, each) in FILTERS.into_iter().enumerate() {
        if filter & (1 << bit) != 0 {
            property_filter = property_filter | each;
        }
    }
    let args = v8::GetPropertyNamesArgs {
        mode: v8::KeyCollectionMode::OwnOnly,
        property_filter,
        index_filter: v8::IndexFilter::SkipIndices,
        key_conversion: v8::KeyConversionMode::NoNumbers,
    };
    object.get_property_names(scope, args).map(Into::into)
}

// ---- Domain names ----------------------------------------------------------------------------------------

const PUNYCODE_PREFIX: &str = "xn--";

/// Each label of a domain, or of the domain of an e-mail address, through `label`.
fn labels(domain: &str, label: impl Fn(&str) -> Option<String>) -> Result<String, OutOfRange> {
    let (local, domain) = match domain.split_once('@') {
        Some((local, domain)) => (format!("{local}@"), domain),
        None => (String::new(), domain),
    };
    let mapped: Option<Vec<String>> = domain.split('.').map(label).collect();
    mapped.map(|mapped| local + &mapped.join(".")).ok_or_else(|| OutOfRange("Invalid input".into()))
}

#[op2]
#[string]
pub(crate) fn op_node_idna_punycode_to_ascii(#[string] domain: &str) -> Result<String, OutOfRange> {
    labels(domain, |label| {
        if label.is_ascii() {
            return Some(label.to_owned());
        }
        Some(format!("{PUNYCODE_PREFIX}{}", idna::punycode::encode_str(label)?))
    })
}

#[op2]
#[string]
pub(crate) fn op_node_idna_punycode_to_unicode(#[string] domain: &str) -> Result<String, OutOfRange> {
    labels(domain, |label| match label.strip_prefix(PUNYCODE_PREFIX) {
        Some(code) => idna::punycode::decode_to_string(&code.to_lowercase()),
        None => Some(label.to_owned()),
    })
}

#[op2]
#[string]
pub(crate) fn op_node_idna_punycode_decode(#[string] code: &str) -> Result<String, OutOfRange> {
    let basic = code.rfind('-').map_or("", |dash| &code[..dash]);
    if !basic.is_ascii() {
        return Err(OutOfRange("Illegal input >= 0x80 (not a basic code point)".into()));
    }
    idna::punycode::decode_to_string(code).ok_or_else(|| OutOfRange("Invalid input".into()))
}

#[op2]
#[string]
pub(crate) fn op_node_idna_punycode_encode(#[string] label: &str) -> String {
    idna::punycode::encode_str(label).unwrap_or_default()
}

#[op2]
#[string]
pub(crate) fn op_node_idna_to_ascii(#[string] domain: &str) -> String {
    idna::domain_to_ascii(domain).unwrap_or_default()
}

/// The host that a URL with this domain has; empty if there is none.
#[op2]
#[string]
pub(crate) fn op_node_idna_domain_to_ascii(#[string] domain: &str) -> String {
    let domain: String = domain.chars().filter(|letter| !matches!(letter, '\t' | '\n' | '\r')).collect();
    let host = domain.split(['/', '\\', '?', '#']).next().unwrap_or_default();
    url::Host::parse(host).map(|host| host.to_string()).unwrap_or_default()
}

#[op2]
#[string]
pub(crate) fn op_node_idna_domain_to_unicode(#[string] domain: &str) -> String {
    idna::domain_to_unicode(domain).0
}
