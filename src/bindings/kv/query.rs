//! Queries of requests to a namespace.

use base64::Engine as _;

use super::{BASE64, LIST_KEYS_MAX, Refused, bad};
use crate::kv::{KEY_BYTES_MAX, ListOptions};

/// Parameters, decoded.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// What does not decode is left out: only the script makes queries, and it encodes all it puts in.
    pub(super) fn parse(query: &str) -> Self {
        let pair = |part: &str| {
            let (name, value) = part.split_once('=')?;
            Some((decode(name)?, decode(value)?))
        };
        Self(query.split('&').filter_map(pair).collect())
    }

    /// The first parameter of this name.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn list_options(&self) -> Result<ListOptions, Refused> {
        let limit = match self.get("key_count_limit") {
            None => LIST_KEYS_MAX,
            Some(text) => {
                let invalid = |wanted| {
                    bad(format!("Invalid key_count_limit of {text}. Please specify an integer {wanted}."))
                };
                match text.parse::<usize>() {
                    Ok(limit @ 1..=LIST_KEYS_MAX) => limit,
                    Ok(limit) if limit > 0 => {
                        return Err(invalid(format!("less than {LIST_KEYS_MAX}")));
                    }
                    _ => return Err(invalid("greater than 0".to_owned())),
                }
            }
        };
        let prefix = self.get("prefix").unwrap_or_default();
        if prefix.len() > KEY_BYTES_MAX {
            let reason = format!(
                "UTF-8 encoded length of {} exceeds key length limit of {KEY_BYTES_MAX}.",
                prefix.len()
            );
            return Err(Refused::Status(http::StatusCode::URI_TOO_LONG, reason));
        }
        // An empty cursor is none: that of a list which is complete.
        let after = match self.get("cursor").filter(|cursor| !cursor.is_empty()) {
            None => None,
            Some(cursor) => {
                let key = BASE64.decode(cursor).ok().filter(|key| key.len() <= KEY_BYTES_MAX);
                Some(key.ok_or_else(|| bad("Invalid cursor."))?)
            }
        };
        Ok(ListOptions { prefix: prefix.as_bytes().to_vec(), after, limit })
    }
}

/// Undoes percent-encoding. `None` if it is none, or not UTF-8.
pub(super) fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        bytes.push((digit()? << 4) | digit()?);
    }
    String::from_utf8(bytes).ok()
}
