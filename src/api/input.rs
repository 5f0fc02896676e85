//! What clients send to the control API: bounded, typed, strict.

use std::collections::BTreeMap;
use std::fmt;

use atoll_loader::limits::{JSON_DEPTH_MAX, Limits, MIB};
use atoll_loader::{CodeError, CodeLimits, JSON_BYTES_MAX, JsonError, parse_json};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, Request, StatusCode};
use hyper::body::Incoming;
use serde::Deserialize;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::config::HttpLimits;
use crate::problem::Problem;
use crate::server::body::ClientBody;

/// Largest body of a request that carries code, in bytes.
pub(super) const CODE_BODY_BYTES_MAX: u64 = JSON_BYTES_MAX as u64;
/// Largest body of any other request, in bytes.
pub(super) const SMALL_BODY_BYTES_MAX: u64 = MIB as u64;

/// Reads the whole body within its bounds.
pub(super) async fn read(
    request: Request<Incoming>,
    limits: &HttpLimits,
    bytes_max: u64,
) -> Result<Bytes, Problem> {
    let body = ClientBody::new(request.into_body(), bytes_max, limits.body_timeout);
    body.map_err(|fault| fault.problem())?.collect().await.map_err(|fault| fault.problem())
}

/// The media type of a body, without parameters.
pub(super) fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// 415 unless the body says that it is JSON.
pub(super) fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    match media_type(headers).as_deref() {
        Some("application/json") => Ok(()),
        _ => Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "The body must be application/json.",
        )),
    }
}

/// A small JSON body.
pub(super) async fn small<T: DeserializeOwned>(
    request: Request<Incoming>,
    limits: &HttpLimits,
) -> Result<T, Problem> {
    require_json(request.headers())?;
    parse(&read(request, limits, SMALL_BODY_BYTES_MAX).await?)
}

/// What a client wants to get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Json,
    Events,
}

/// 406 unless one of the two forms is acceptable.
pub(super) fn wanted(headers: &HeaderMap) -> Result<Wanted, Problem> {
    let mut any = false;
    for value in headers.get_all(ACCEPT) {
        for range in value.to_str().unwrap_or_default().split(',') {
            any = true;
            match range.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
                "text/event-stream" => return Ok(Wanted::Events),
                "*/*" | "application/*" | "application/json" | "application/problem+json" => {
                    return Ok(Wanted::Json);
                }
                _ => {}
            }
        }
    }
    if any {
        let detail = "This is available as application/json or text/event-stream.";
        return Err(Problem::new(StatusCode::NOT_ACCEPTABLE, "not_acceptable", detail));
    }
    Ok(Wanted::Json)
}

/// Parses a JSON body: bounded depth, no repeated keys where the type is strict.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    parse_json(body).map_err(|error| match error {
        JsonError::TooLarge => Problem::too_large(error.to_string()),
        JsonError::TooDeep => Problem::new(StatusCode::BAD_REQUEST, "json_depth", error.to_string()),
        JsonError::Shape { .. } => Problem::new(StatusCode::BAD_REQUEST, "json_shape", error.to_string()),
    })
}

/// Refused code, as a client sees it.
pub(super) fn code_problem(error: &CodeError) -> Problem {
    if error.is_host_fault() {
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.code(), error.to_string()).retry_after(1);
    }
    Problem::unprocessable(error.code(), error.to_string()).with("class", error.js_class())
}

/// Limits that a client asks for: each only lowers what it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LimitsInput {
    cpu_ms: Option<u32>,
    wall_ms: Option<u32>,
    heap_mib: Option<u32>,
    external_mib: Option<u32>,
    #[serde(rename = "subRequests")]
    subrequests: Option<u32>,
    log_bytes: Option<u32>,
    response_bytes: Option<u64>,
    loads: Option<u32>,
}

impl LimitsInput {
    /// What code asks for itself.
    pub(super) fn of(limits: CodeLimits) -> Self {
        Self { cpu_ms: limits.cpu_ms, subrequests: limits.sub_requests, ..Self::default() }
    }

    /// Memory in MiB and wall time in milliseconds, as asked.
    pub(super) fn sizes(self) -> (Option<u32>, Option<u32>) {
        (self.heap_mib, self.wall_ms)
    }

    /// The lower of both, field by field.
    pub(super) fn lower(self, base: Limits) -> Limits {
        let asked = Limits {
            cpu_ms: self.cpu_ms.unwrap_or(u32::MAX),
            wall_ms: self.wall_ms.unwrap_or(u32::MAX),
            heap_mib: self.heap_mib.unwrap_or(u32::MAX),
            external_mib: self.external_mib.unwrap_or(u32::MAX),
            subrequests: self.subrequests.unwrap_or(u32::MAX),
            log_bytes: self.log_bytes.unwrap_or(u32::MAX),
            response_bytes: self.response_bytes.unwrap_or(u64::MAX),
            loads: self.loads.unwrap_or(u32::MAX),
        };
        base.lower_of(asked)
    }
}

/// A JSON value in which no key repeats and nothing is nested too deep.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Strict(pub(super) Value);

/// An object of strict values.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct StrictMap(pub(super) BTreeMap<String, Value>);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Nested(0).deserialize(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for StrictMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Nested(0).deserialize(deserializer)? {
            Value::Object(map) => Ok(Self(map.into_iter().collect())),
            _ => Err(D::Error::custom("expected an object")),
        }
    }
}

/// Reads a value at this depth.
#[derive(Clone, Copy)]
struct Nested(usize);

impl Nested {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        let deep = self.0 >= JSON_DEPTH_MAX;
        if deep { Err(E::custom("nested too deep")) } else { Ok(Self(self.0 + 1)) }
    }
}

impl<'de> DeserializeSeed<'de> for Nested {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Nested {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let seed = self.deeper()?;
        let mut values = Vec::new();
        while let Some(value) = access.next_element_seed(seed)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let seed = self.deeper()?;
        let mut map = serde_json::Map::new();
        while let Some(key) = access.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(A::Error::custom(format!("duplicate field `{key}`")));
            }
            let value = access.next_value_seed(seed)?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn repeated_keys_are_refused_at_any_depth() {
        for bad in [r#"{"a":1,"a":2}"#, r#"{"a":[{"b":1,"b":1}]}"#, r#"{"a":1,"\u0061":2}"#] {
            assert_eq!(parse::<Strict>(bad.as_bytes()).unwrap_err().code(), "json_shape", "{bad}");
        }
        let fine = parse::<Strict>(br#"{"a":[null,true,-1,18446744073709551615,1.5,"x",{"a":{}}]}"#).unwrap();
        assert_eq!(fine.0.to_string(), r#"{"a":[null,true,-1,18446744073709551615,1.5,"x",{"a":{}}]}"#);
        assert!(parse::<StrictMap>(b"[]").is_err());
    }

    #[test]
    fn deep_documents_are_refused_before_they_can_hurt() {
        let deep = "[".repeat(1_000_000);
        assert_eq!(parse::<Strict>(deep.as_bytes()).unwrap_err().code(), "json_depth");
    }

    #[test]
    fn limits_can_only_be_lowered() {
        let asked: LimitsInput = serde_json::from_str(r#"{"cpuMs":4000000000,"subRequests":3}"#).unwrap();
        let base = Limits::default();
        assert_eq!(asked.lower(base), Limits { subrequests: 3, ..base });
        for bad in [r#"{"cpu":1}"#, r#"{"cpu_ms":1}"#, r#"{"subrequests":1}"#] {
            assert!(serde_json::from_str::<LimitsInput>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_wanted_is_read_from_accept() {
        for (accept, expected) in [
            (None, Some(Wanted::Json)),
            (Some("*/*"), Some(Wanted::Json)),
            (Some("text/html, application/json;q=0.5"), Some(Wanted::Json)),
            (Some("text/event-stream"), Some(Wanted::Events)),
            (Some("text/html"), None),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(ACCEPT, HeaderValue::from_static(accept));
            }
            assert_eq!(wanted(&headers).ok(), expected, "{accept:?}");
        }
    }
}
