//! Several keys at once.
//!
//! ```text
//!  POST /bulk/get   ["a","b"]          200   for each key, in order: length of the value, length of the metadata (u32 each,
//!                                            little-endian, u32::MAX: none), the value, the metadata
//! ```
//!
//! Values travel as they are: to read them as JSON costs the guest's time and not the gateway's.

use std::collections::HashSet;
use std::pin::Pin;

use atoll_bindings::body::RequestBody;
use bytes::Bytes;
use http::{Response, StatusCode};
use http_body::Body as _;

use super::{Refused, bad};
use crate::kv::{Entry, KEY_BYTES_MAX, Key, KvError, Namespace, VALUE_BYTES_MAX, Value, ValuesBody};

/// Most keys of one request.
pub(super) const BULK_KEYS_MAX: usize = 100;
/// Largest list of keys, in bytes: each byte of a key may take six as JSON.
const BODY_BYTES_MAX: usize = BULK_KEYS_MAX * (KEY_BYTES_MAX * 6 + 3) + 2;
/// Most bytes of all values together.
const BULK_BYTES_MAX: u64 = VALUE_BYTES_MAX;
/// The length of what is not there.
const NONE: u32 = u32::MAX;

pub(super) async fn get(namespace: &Namespace, body: RequestBody) -> Result<Response<RequestBody>, Refused> {
    let keys = keys(&read(body).await?)?;
    let entries = namespace.get_all(keys).await?;
    let bytes: u64 = entries.iter().flatten().map(|entry| entry.bytes).sum();
    if bytes > BULK_BYTES_MAX {
        let reason = format!("Total size of request exceeds the limit of {}MB", BULK_BYTES_MAX >> 20);
        return Err(Refused::Status(StatusCode::PAYLOAD_TOO_LARGE, reason));
    }
    let mut values = Vec::with_capacity(entries.len() * 3);
    for entry in entries {
        append(&mut values, entry)?;
    }
    Ok(Response::new(RequestBody::stream(ValuesBody::new(values))))
}

async fn read(mut body: RequestBody) -> Result<Vec<u8>, Refused> {
    let mut bytes = Vec::new();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Ok(data) = frame.map_err(|_| Refused::Broken)?.into_data() {
            bytes.extend_from_slice(&data);
        }
        if bytes.len() > BODY_BYTES_MAX {
            return Err(bad("The keys are too long"));
        }
    }
    Ok(bytes)
}

fn keys(body: &[u8]) -> Result<Vec<Key>, Refused> {
    let names: Vec<String> =
        serde_json::from_slice(body).map_err(|_| bad("The keys are no list of strings"))?;
    match names.len() {
        0 => return Err(bad("You must request a minimum of 1 key")),
        1..=BULK_KEYS_MAX => {}
        _ => return Err(bad(format!("You can request a maximum of {BULK_KEYS_MAX} keys"))),
    }
    let mut seen = HashSet::new();
    let names = names.iter().filter(|name| seen.insert(name.as_str()));
    Ok(names.map(|name| Key::parse(name)).collect::<Result<_, _>>()?)
}

fn append(values: &mut Vec<Value>, entry: Option<Entry>) -> Result<(), Refused> {
    let head = |value: u32, metadata: u32| {
        Value::Whole(Bytes::from([value.to_le_bytes(), metadata.to_le_bytes()].concat()))
    };
    let Some(entry) = entry else {
        values.push(head(NONE, NONE));
        return Ok(());
    };
    let too_long = || KvError::Damaged("a length");
    let metadata_bytes = match &entry.metadata {
        None => NONE,
        Some(metadata) => u32::try_from(metadata.len()).map_err(|_| too_long())?,
    };
    values.push(head(u32::try_from(entry.bytes).map_err(|_| too_long())?, metadata_bytes));
    values.push(entry.value);
    values.extend(entry.metadata.map(|metadata| Value::Whole(metadata.into())));
    Ok(())
}
