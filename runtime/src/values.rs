//! Between Rust and JavaScript: arguments for the prelude's functions, bytes and strings, errors.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use atoll_bindings::seam::{EnvValue, GuestError, Headers};
use bytes::Bytes;

use crate::modules::string;
use crate::state::{BodyForm, Capability, IsolateState, Wake};
use crate::thread::EnvSpec;

type Arguments<'s> = Option<Vec<v8::Local<'s, v8::Value>>>;

/// Longest error message and stack that leave an isolate, in bytes.
const ERROR_BYTES_MAX: usize = 16 * 1024;

fn optional<'s>(scope: &mut v8::PinScope<'s, '_>, text: Option<String>) -> Option<v8::Local<'s, v8::Value>> {
    match text {
        Some(text) => Some(string(scope, &text)?.into()),
        None => Some(v8::null(scope).into()),
    }
}

/// JSON text, the number of a message, or null.
pub(crate) fn props_value<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    (text, message): (Option<String>, u32),
) -> Option<v8::Local<'s, v8::Value>> {
    if message > 0 { Some(number(scope, message)) } else { optional(scope, text) }
}

/// Arguments of `onRpc` for a call of an entrypoint's method or property.
pub(crate) fn rpc_entry_arguments<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    id: u32,
    entrypoint: Option<String>,
    props: (Option<String>, u32),
    call: u32,
    path: &[String],
    message: u32,
) -> Arguments<'s> {
    Some(vec![
        number(scope, 0),
        number(scope, id),
        number(scope, call),
        path_array(scope, path)?,
        number(scope, message),
        optional(scope, entrypoint)?,
        props_value(scope, props)?,
    ])
}

/// Arguments of `onRpc` for a tail.
pub(crate) fn tail_arguments<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    id: u32,
    entrypoint: Option<String>,
    props: (Option<String>, u32),
    item: &str,
) -> Arguments<'s> {
    let (call, message) = (number(scope, 0), number(scope, 0));
    Some(vec![
        number(scope, 5),
        number(scope, id),
        call,
        string(scope, item)?.into(),
        message,
        optional(scope, entrypoint)?,
        props_value(scope, props)?,
    ])
}

/// Arguments of `onRpc` for a call on an object that was handed out.
pub(crate) fn rpc_export_arguments<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    export: u32,
    call: u32,
    path: &[String],
    message: u32,
) -> Arguments<'s> {
    let path = path_array(scope, path)?;
    Some(vec![number(scope, 1), number(scope, export), number(scope, call), path, number(scope, message)])
}

fn path_array<'s>(scope: &mut v8::PinScope<'s, '_>, path: &[String]) -> Option<v8::Local<'s, v8::Value>> {
    let names: Option<Vec<v8::Local<v8::Value>>> =
        path.iter().map(|name| Some(string(scope, name)?.into())).collect();
    Some(v8::Array::new_with_elements(scope, &names?).into())
}

fn number<'s>(scope: &mut v8::PinScope<'s, '_>, value: u32) -> v8::Local<'s, v8::Value> {
    v8::Integer::new_from_unsigned(scope, value).into()
}

/// A Uint8Array with a copy of `bytes`; `None` if the isolate may not have that much memory.
pub(crate) fn uint8_array<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    bytes: &[u8],
) -> Option<v8::Local<'s, v8::Value>> {
    // The backing store counts against the isolate's cap: it comes from its allocator.
    let store = v8::ArrayBuffer::new_backing_store(scope, bytes.len());
    for (cell, byte) in store.iter().zip(bytes) {
        cell.set(*byte);
    }
    let buffer = v8::ArrayBuffer::with_backing_store(scope, &store.make_shared());
    Some(v8::Uint8Array::new(scope, buffer, 0, bytes.len())?.into())
}

/// Header fields as one flat array of names and values. Values are UTF-8, as in Workers; one that is not is taken
/// for latin-1, so that no byte is lost.
fn headers_array<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    headers: &Headers,
) -> Option<v8::Local<'s, v8::Value>> {
    let mut flat: Vec<v8::Local<v8::Value>> = Vec::with_capacity(headers.len() * 2);
    for (name, value) in headers {
        flat.push(
            v8::String::new_from_one_byte(scope, name.as_bytes(), v8::NewStringType::Internalized)?.into(),
        );
        let value = match std::str::from_utf8(value) {
            Ok(text) => string(scope, text)?,
            Err(_) => v8::String::new_from_one_byte(scope, value, v8::NewStringType::Normal)?,
        };
        flat.push(value.into());
    }
    Some(v8::Array::new_with_elements(scope, &flat).into())
}

/// (kind, what, length) as the scripts know a body.
fn body_arguments<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    body: BodyForm,
) -> Option<[v8::Local<'s, v8::Value>; 3]> {
    let unknown: v8::Local<v8::Value> = v8::Integer::new(scope, -1).into();
    Some(match body {
        BodyForm::Empty => [number(scope, 0), v8::null(scope).into(), unknown],
        BodyForm::Bytes(bytes) => [number(scope, 1), uint8_array(scope, &bytes)?, unknown],
        BodyForm::Native { number: stream, length } => {
            let length = length.map_or(unknown, |length| v8::Number::new(scope, length as f64).into());
            [number(scope, 2), number(scope, stream), length]
        }
    })
}

#[expect(clippy::too_many_arguments, reason = "the parts of a fetch event, in the order of `onFetch`")]
pub(crate) fn fetch_arguments<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    id: u32,
    entrypoint: Option<String>,
    props: (Option<String>, u32),
    method: &str,
    url: &str,
    headers: &Headers,
    body: BodyForm,
) -> Arguments<'s> {
    let [kind, what, length] = body_arguments(scope, body)?;
    Some(vec![
        number(scope, id),
        optional(scope, entrypoint)?,
        props_value(scope, props)?,
        string(scope, method)?.into(),
        string(scope, url)?.into(),
        headers_array(scope, headers)?,
        kind,
        what,
        length,
    ])
}

pub(crate) fn scheduled_arguments<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    id: u32,
    entrypoint: Option<String>,
    props: (Option<String>, u32),
    cron: &str,
    time_ms: u64,
) -> Arguments<'s> {
    Some(vec![
        number(scope, id),
        optional(scope, entrypoint)?,
        props_value(scope, props)?,
        string(scope, cron)?.into(),
        v8::Number::new(scope, time_ms as f64).into(),
    ])
}

fn set(
    scope: &mut v8::PinScope,
    object: v8::Local<v8::Object>,
    key: &str,
    value: v8::Local<v8::Value>,
) -> Option<()> {
    let key = string(scope, key)?;
    object.set(scope, key.into(), value).map(drop)
}

/// Arguments of `wake`.
pub(crate) fn wake_arguments<'s>(scope: &mut v8::PinScope<'s, '_>, waiter: u32, wake: Wake) -> Arguments<'s> {
    let waiter = number(scope, waiter);
    let reply = v8::Object::new(scope);
    match wake {
        Wake::Stream => return Some(vec![waiter]),
        Wake::Failed { message, denied } => {
            let message = string(scope, &message)?.into();
            set(scope, reply, "error", message)?;
            let denied = v8::Boolean::new(scope, denied).into();
            set(scope, reply, "denied", denied)?;
        }
        Wake::Rpc { message, threw } => {
            let message = number(scope, message);
            set(scope, reply, "rpc", message)?;
            let threw = v8::Boolean::new(scope, threw).into();
            set(scope, reply, "thrown", threw)?;
        }
        Wake::Threw(error) => {
            let name = string(scope, &error.name)?.into();
            let message = string(scope, &error.message)?.into();
            set(scope, reply, "threwName", name)?;
            set(scope, reply, "threw", message)?;
        }
        Wake::Response(response, body) => {
            let [kind, what, length] = body_arguments(scope, body)?;
            let status = number(scope, response.status.into());
            let text = string(scope, &response.status_text)?.into();
            let headers = headers_array(scope, &response.headers)?;
            let url = string(scope, &response.url)?.into();
            let redirected = v8::Boolean::new(scope, response.redirected).into();
            for (key, value) in [
                ("status", status),
                ("statusText", text),
                ("headers", headers),
                ("url", url),
                ("redirected", redirected),
                ("bodyKind", kind),
                ("body", what),
                ("length", length),
            ] {
                set(scope, reply, key, value)?;
            }
        }
    }
    Some(vec![waiter, reply.into()])
}

/// Arguments of `makeEnv`: the capability behind global fetch (or -1), then env as (name, kind, value) triples or as
/// the number of a message.
pub(crate) fn env_arguments<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    state: &Rc<RefCell<IsolateState>>,
    env: EnvSpec,
    outbound: Option<Capability>,
    traced: bool,
) -> Arguments<'s> {
    let traced = v8::Boolean::new(scope, traced).into();
    let capability = |capability: Capability| {
        let mut state = state.borrow_mut();
        state.add_capability(0, capability)
    };
    let outbound = match outbound {
        Some(target) => number(scope, capability(target)),
        None => v8::Integer::new(scope, -1).into(),
    };
    let mut triples: Vec<v8::Local<v8::Value>> = Vec::new();
    let mut add =
        |scope: &mut v8::PinScope<'s, '_>, name: &str, kind: &str, value: v8::Local<'s, v8::Value>| {
            triples.extend([string(scope, name)?.into(), string(scope, kind)?.into(), value]);
            Some(())
        };
    match env {
        EnvSpec::Named(named) => {
            for (name, value) in named {
                let (kind, value): (&str, v8::Local<v8::Value>) = match value {
                    EnvValue::Text(text) => ("text", string(scope, &text)?.into()),
                    EnvValue::Json(text) => ("json", string(scope, &text)?.into()),
                    EnvValue::Data(bytes) => ("data", uint8_array(scope, &bytes)?),
                    EnvValue::Fetcher(channel) => {
                        ("fetcher", number(scope, capability(Capability::Channel(channel))))
                    }
                    EnvValue::Service(channel) => {
                        ("fetcher", number(scope, capability(Capability::Service(channel))))
                    }
                    EnvValue::Kv(channel) => ("kv", number(scope, capability(Capability::Channel(channel)))),
                    EnvValue::Loader { scope: loader } => ("loader", string(scope, &loader)?.into()),
                };
                add(scope, &name, kind, value)?;
            }
        }
        EnvSpec::Given(given) => {
            let message = state.borrow_mut().keep_message(given);
            return Some(vec![outbound, number(scope, message), traced]);
        }
    }
    let env = v8::Array::new_with_elements(scope, &triples).into();
    Some(vec![outbound, env, traced])
}

/// The bytes of a string or a Uint8Array.
pub(crate) fn bytes_of(scope: &mut v8::PinScope, value: v8::Local<v8::Value>) -> Bytes {
    if let Ok(text) = value.try_cast::<v8::String>() {
        return Bytes::from(text.to_rust_string_lossy(scope));
    }
    let Ok(view) = value.try_cast::<v8::ArrayBufferView>() else { return Bytes::new() };
    let mut bytes = vec![0; view.byte_length()];
    let copied = view.copy_contents(&mut bytes);
    bytes.truncate(copied);
    Bytes::from(bytes)
}

/// Header fields from a flat array; anything that is not a string is left out (the scripts checked them).
pub(crate) fn headers_of(scope: &mut v8::PinScope, flat: v8::Local<v8::Array>) -> Headers {
    let mut headers = Vec::with_capacity(flat.length() as usize / 2);
    for at in (0..flat.length()).step_by(2) {
        let pair = flat.get_index(scope, at).zip(flat.get_index(scope, at + 1));
        let Some((name, value)) = pair.and_then(|(name, value)| {
            Some((name.try_cast::<v8::String>().ok()?, value.try_cast::<v8::String>().ok()?))
        }) else {
            continue;
        };
        let name: Arc<str> = name.to_rust_string_lossy(scope).into();
        headers.push((name, Bytes::from(value.to_rust_string_lossy(scope))));
    }
    headers
}

/// An exception as it may leave the isolate. Getters and Proxies of the guest may run here; whatever they do, the
/// result is plain text of bounded size.
pub(crate) fn guest_error(scope: &mut v8::PinScope, exception: v8::Local<v8::Value>) -> GuestError {
    v8::tc_scope!(let scope, scope);
    let cut = |mut text: String| {
        if text.len() > ERROR_BYTES_MAX {
            text.truncate(text.floor_char_boundary(ERROR_BYTES_MAX));
        }
        text
    };
    let Ok(object) = exception.try_cast::<v8::Object>() else {
        let message =
            exception.to_string(scope).map(|text| text.to_rust_string_lossy(scope)).unwrap_or_default();
        return GuestError { name: "Error".into(), message: cut(message), stack: None };
    };
    let mut property = |name: &str| {
        let key = string(scope, name)?;
        let value = object.get(scope, key.into());
        scope.reset();
        let text = value?.try_cast::<v8::String>().ok()?;
        Some(cut(text.to_rust_string_lossy(scope)))
    };
    let name = property("name").unwrap_or_else(|| "Error".into());
    let message = property("message").unwrap_or_default();
    let stack = property("stack");
    GuestError { name, message, stack }
}
