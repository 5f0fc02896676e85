//! `multipart/form-data` (RFC 7578) of a body that is already in memory: parts are slices, nothing is copied.

use bytes::Bytes;
use memchr::memmem;

use crate::limits::{CODE_BYTES_MAX, KIB, MIB, MODULES_MAX};

/// Largest upload, in bytes.
pub const MULTIPART_BYTES_MAX: usize = CODE_BYTES_MAX + 8 * MIB;
/// Most parts: the modules, their source maps, and the metadata.
const PARTS_MAX: usize = 2 * MODULES_MAX + 1;
/// Largest header block of one part, in bytes.
const PART_HEADER_BYTES_MAX: usize = 8 * KIB;
/// Longest boundary (RFC 2046), in bytes.
const BOUNDARY_BYTES_MAX: usize = 70;

/// Why an upload cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MultipartError {
    /// Not `multipart/form-data` with a boundary.
    #[error("the content type is not multipart/form-data with a boundary")]
    ContentType,
    /// Over [`MULTIPART_BYTES_MAX`].
    #[error("the upload is larger than {MULTIPART_BYTES_MAX} bytes")]
    TooLarge,
    /// Too many parts.
    #[error("the upload has more than {PARTS_MAX} parts")]
    TooManyParts,
    /// The body does not follow its boundary.
    #[error("the multipart body is malformed")]
    Malformed,
    /// A part's header is too large or not understood.
    #[error("the header of part {0} is malformed")]
    Header(usize),
    /// Two parts of one name.
    #[error("two parts are named {0:?}")]
    Duplicate(String),
    /// No `metadata` part.
    #[error("there is no \"metadata\" part")]
    NoMetadata,
    /// The `metadata` part.
    #[error("metadata: {0}")]
    Metadata(#[from] crate::json::JsonError),
    /// The shape of a classic, non-module worker.
    #[error(
        "metadata has `body_part`: only module workers are supported, name the main module in `main_module`"
    )]
    ServiceWorker,
    /// A content type that no module kind has.
    #[error("part {name:?} has the content type {content_type:?}, which is no kind of module")]
    UnknownKind {
        /// The part.
        name: String,
        /// Its content type.
        content_type: String,
    },
    /// A source that is not UTF-8.
    #[error("part {0:?} is not UTF-8")]
    NotText(String),
}

impl MultipartError {
    /// Stable machine-readable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::ContentType => "upload_content_type",
            Self::TooLarge => "upload_size",
            Self::TooManyParts => "upload_parts",
            Self::Malformed | Self::Header(_) => "upload_malformed",
            Self::Duplicate(_) => "upload_duplicate",
            Self::NoMetadata | Self::Metadata(_) | Self::ServiceWorker => "upload_metadata",
            Self::UnknownKind { .. } => "upload_kind",
            Self::NotText(_) => "upload_not_text",
        }
    }
}

/// One part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) file_name: Option<String>,
    /// Lower case, without parameters.
    pub(crate) content_type: Option<String>,
    pub(crate) body: Bytes,
}

/// Splits a body into its parts.
pub(crate) fn parse(content_type: &str, body: &Bytes) -> Result<Vec<Part>, MultipartError> {
    if body.len() > MULTIPART_BYTES_MAX {
        return Err(MultipartError::TooLarge);
    }
    let boundary = boundary(content_type).ok_or(MultipartError::ContentType)?;
    let delimiter = format!("\r\n--{boundary}");
    let finder = memmem::Finder::new(delimiter.as_bytes());
    // The first delimiter may stand at the very beginning, without its line break; a preamble is allowed.
    let mut at = if body.starts_with(&delimiter.as_bytes()[2..]) {
        delimiter.len() - 2
    } else {
        finder.find(body).ok_or(MultipartError::Malformed)? + delimiter.len()
    };
    let mut parts = Vec::new();
    loop {
        let rest = &body[at..];
        if rest.starts_with(b"--") {
            return Ok(parts);
        }
        let padding = rest.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
        if !rest[padding..].starts_with(b"\r\n") {
            return Err(MultipartError::Malformed);
        }
        if parts.len() == PARTS_MAX {
            return Err(MultipartError::TooManyParts);
        }
        // The header begins after this line break, which an empty header shares with the blank line.
        let begin = at + padding + 2;
        let end = begin - 2 + finder.find(&body[begin - 2..]).ok_or(MultipartError::Malformed)?;
        parts.push(part(body, begin, end).ok_or(MultipartError::Header(parts.len() + 1))?);
        at = end + delimiter.len();
    }
}

fn part(body: &Bytes, begin: usize, end: usize) -> Option<Part> {
    let bytes = body.get(begin..end)?;
    let window = &bytes[..bytes.len().min(PART_HEADER_BYTES_MAX)];
    let header_len = memmem::find(window, b"\r\n\r\n")?;
    let header = std::str::from_utf8(&bytes[..header_len]).ok()?;
    let (mut disposition, mut content_type) = (None, None);
    for line in header.split("\r\n") {
        let (key, value) = line.split_once(':')?;
        let slot = match key.to_ascii_lowercase().as_str() {
            "content-disposition" => &mut disposition,
            "content-type" => &mut content_type,
            // `content-transfer-encoding` is deprecated, and no encoding but the plain one is understood.
            "content-transfer-encoding" if !is_plain_encoding(value) => return None,
            _ => continue,
        };
        if slot.replace(value.trim()).is_some() {
            return None;
        }
    }
    let parameters = parameters(disposition?)?;
    let [(kind, _), parameters @ ..] = parameters.as_slice() else { return None };
    let find = |key: &str| parameters.iter().find(|(k, _)| k == key).map(|(_, value)| value.clone());
    Some(Part {
        name: if kind == "form-data" { find("name")? } else { return None },
        file_name: find("filename"),
        content_type: content_type.map(essence),
        body: body.slice(begin + header_len + 4..end),
    })
}

fn is_plain_encoding(value: &str) -> bool {
    ["binary", "8bit", "7bit"].contains(&value.trim().to_ascii_lowercase().as_str())
}

fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn boundary(content_type: &str) -> Option<String> {
    let parameters = parameters(content_type)?;
    let [(kind, _), parameters @ ..] = parameters.as_slice() else { return None };
    if kind != "multipart/form-data" {
        return None;
    }
    let (_, boundary) = parameters.iter().find(|(key, _)| key == "boundary")?;
    let fits = (1..=BOUNDARY_BYTES_MAX).contains(&boundary.len())
        && boundary.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
        && !boundary.ends_with(' ');
    fits.then(|| boundary.clone())
}

/// `value; key=value; key="value"`: the value first, with an empty text, keys in lower case. A repeated key or
/// anything not understood gives `None`: what two parsers may read differently is refused.
fn parameters(text: &str) -> Option<Vec<(String, String)>> {
    let (value, mut rest) = text.split_at(text.find(';').unwrap_or(text.len()));
    let mut parameters = vec![(value.trim().to_ascii_lowercase(), String::new())];
    while let Some(parameter) = rest.strip_prefix(';') {
        let parameter = parameter.trim_start();
        if parameter.is_empty() {
            return Some(parameters);
        }
        let (key, value) = parameter.split_once('=')?;
        let key = key.trim().to_ascii_lowercase();
        if parameters.iter().any(|(known, _)| *known == key) {
            return None;
        }
        let value_text;
        (value_text, rest) = match value.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let (token, rest) = value.split_at(value.find(';').unwrap_or(value.len()));
                (token.trim().to_owned(), rest)
            }
        };
        parameters.push((key, value_text));
    }
    rest.is_empty().then_some(parameters)
}

/// The text up to the closing quote, and what follows. Browsers write `%22` for a quote, others `\"`.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => {
                let rest = text[at + 1..].trim_start();
                return (rest.is_empty() || rest.starts_with(';'))
                    .then_some((value.replace("%22", "\""), rest));
            }
            // Only these two are escapes: Internet Explorer once sent bare backslashes in paths.
            '\\' if text[at + 1..].starts_with(['"', '\\']) => value.push(chars.next()?.1),
            c if c.is_control() => return None,
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=X";

    fn parsed(body: &str) -> Result<Vec<Part>, MultipartError> {
        parse(TYPE, &Bytes::copy_from_slice(body.as_bytes()))
    }

    #[test]
    fn splits_parts_without_copying() {
        let body = Bytes::from_static(
            b"preamble\r\n--X\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--X \r\n\
              content-disposition: form-data; filename=\"b;\\\".js\"; name=b\r\nContent-Type: Text/Plain; charset=utf-8\
              \r\n\r\n\r\n--Y\r\n\r\n--X--\r\nepilogue",
        );
        let parts = parse(TYPE, &body).unwrap();
        assert_eq!(parts.len(), 2);
        assert_eq!((parts[0].name.as_str(), &parts[0].body[..]), ("a", &b"1"[..]));
        assert_eq!(parts[1].file_name.as_deref(), Some("b;\".js"));
        assert_eq!(parts[1].content_type.as_deref(), Some("text/plain"));
        assert_eq!(&parts[1].body[..], b"\r\n--Y\r\n");
        assert!(body.as_ptr_range().contains(&parts[1].body.as_ptr()));
        assert_eq!(parsed("--X--"), Ok(vec![]));
    }

    #[test]
    fn refuses_what_is_malformed() {
        for body in [
            "",
            "--X",
            "--X\r\n",
            "--X\r\n\r\n--X--",
            "--Xy\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--X--",
            "--X\r\nContent-Disposition: form-data; name=a\r\n\r\n1",
            "--X\r\nContent-Disposition: form-data\r\n\r\n1\r\n--X--",
            "--X\r\nContent-Disposition: attachment; name=a\r\n\r\n1\r\n--X--",
            "--X\r\nContent-Disposition: form-data; name=a; name=b\r\n\r\n1\r\n--X--",
            "--X\r\nContent-Disposition: form-data; name=\"a\r\n\r\n1\r\n--X--",
            "--X\r\nContent-Disposition: form-data; name=\"a\" x\r\n\r\n1\r\n--X--",
            "--X\r\nContent-Disposition: form-data; name=a\r\nContent-Disposition: form-data; name=b\r\n\r\n1\r\n--X--",
            "--X\r\nContent-Disposition: form-data; name=a\r\nContent-Transfer-Encoding: base64\r\n\r\n1\r\n--X--",
        ] {
            assert!(parsed(body).is_err(), "{body:?}");
        }
        for content_type in [
            "",
            "multipart/mixed; boundary=X",
            "multipart/form-data",
            "multipart/form-data; boundary=",
            "multipart/form-data; boundary=X; boundary=Y",
            "multipart/form-data; boundary=\"a\u{e9}\"",
        ] {
            assert_eq!(
                parse(content_type, &Bytes::new()),
                Err(MultipartError::ContentType),
                "{content_type}"
            );
        }
        let many =
            "--X\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n".repeat(PARTS_MAX + 1) + "--X--";
        assert_eq!(parsed(&many), Err(MultipartError::TooManyParts));
    }

    proptest! {
        #[test]
        fn never_panics(body in "(--X|\r\n|Content-Disposition: form-data|; name=|a|\"|\\\\|:|--){0,30}") {
            let _ = parsed(&body);
        }

        #[test]
        fn any_content_type_is_safe(content_type in "(multipart/form-data)?[ ;=\"\\\\a-z]{0,20}") {
            let _ = parse(&content_type, &Bytes::from_static(b"--x--"));
        }
    }
}
