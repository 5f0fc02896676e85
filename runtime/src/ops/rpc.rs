//! Calls between isolates: what `js/rpc.js` asks.

use atoll_bindings::value::VALUE_BYTES_MAX;
use deno_core::{JsRuntime, OpState, op2};

use super::{Thrown, isolate};
use crate::body::Outgoing;
use crate::rpc::{self, Given, PATH_MAX, Packed, PackedCap, Target, Unread};
use crate::state::{BodyForm, Capability, IsolateState};
use crate::values::uint8_array;

/// Kinds of capabilities in the scripts' flat lists: (kind, number) towards Rust, (kind, number, body, length) from it.
mod kind {
    /// An object that is handed out.
    pub(super) const EXPORT: u32 = 0;
    /// A stub.
    pub(super) const STUB: u32 = 1;
    /// A service.
    pub(super) const SERVICE: u32 = 2;
    /// A body whose bytes flow; 3 plus its form.
    pub(super) const BODY: u32 = 3;
}

fn number_at(scope: &mut v8::PinScope, list: v8::Local<v8::Array>, at: u32) -> u32 {
    list.get_index(scope, at)
        .and_then(|value| value.try_cast::<v8::Uint32>().ok())
        .map_or(u32::MAX, |number| number.value())
}

/// A capability from the scripts' list.
fn packed_cap(isolate: &mut IsolateState, kind: u32, number: u32) -> Option<PackedCap> {
    Some(match kind {
        kind::EXPORT => PackedCap::Stub(isolate.fresh.remove(&number)?),
        kind::STUB => PackedCap::Stub(isolate.imports.get(&number)?.stub.clone()),
        kind::SERVICE => PackedCap::Service(isolate.capabilities.get(&number)?.clone()),
        form => PackedCap::Body(match form.checked_sub(kind::BODY)? {
            0 => Outgoing::Empty,
            2 => Outgoing::Native { number, length: None },
            3 => Outgoing::Stream { number, length: None },
            _ => return None,
        }),
    })
}

/// Writes a value; the number names it. `hook` fills `caps` with (kind, number) while it is asked. `plain` values are kept
/// for as long as the invocation runs. Whatever fails, what was handed out for it is taken back.
#[op2(fast, reentrant)]
#[smi]
pub(crate) fn op_rpc_pack<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    #[smi] owner: u32,
    value: v8::Local<'s, v8::Value>,
    hook: v8::Local<'s, v8::Function>,
    caps: v8::Local<'s, v8::Array>,
    plain: bool,
) -> Result<u32, Thrown> {
    // The guest's getters may run: the state must not be borrowed meanwhile.
    let bytes = {
        v8::tc_scope!(let scope, scope);
        let bytes = rpc::write(scope, value, hook);
        if bytes.is_none() && scope.has_caught() {
            scope.rethrow();
        }
        bytes
    };
    let mut list = Vec::with_capacity(caps.length() as usize / 2);
    for at in (0..caps.length()).step_by(2) {
        list.push((number_at(scope, caps, at), number_at(scope, caps, at + 1)));
    }
    let state = JsRuntime::op_state_from(scope);
    let isolate = isolate(&state.borrow());
    let mut isolate = isolate.borrow_mut();
    let mut packed = Packed { owner, ..Packed::default() };
    for (kind, number) in list {
        if let Some(cap) = packed_cap(&mut isolate, kind, number) {
            packed.caps.push(cap);
        }
    }
    let Some(bytes) = bytes else { return Ok(0) };
    if plain && !isolate.charge_plain(owner, bytes.len()) {
        return Err(Thrown("Too much env and props for one request.".into()));
    }
    packed.bytes = bytes.into();
    let number = isolate.next_number();
    isolate.packed.insert(number, packed);
    Ok(number)
}

/// Gives a written value the object whose release tells that it was disposed of.
#[op2(fast)]
pub(crate) fn op_rpc_dispose_with(state: &mut OpState, #[smi] message: u32, #[smi] export: u32) {
    let isolate = isolate(state);
    let mut isolate = isolate.borrow_mut();
    let disposer = isolate.fresh.remove(&export);
    if let Some(packed) = isolate.packed.get_mut(&message) {
        packed.disposer = disposer;
    }
}

/// Throws away a value that was written and is not sent.
#[op2(fast)]
pub(crate) fn op_rpc_drop(state: &mut OpState, #[smi] message: u32) {
    let packed = isolate(state).borrow_mut().packed.remove(&message);
    drop(packed);
}

/// Calls a method (`message` > 0) or gets a property; the number names the answer.
#[op2(fast)]
#[smi]
pub(crate) fn op_rpc_send<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    state: &mut OpState,
    #[smi] owner: u32,
    service: bool,
    #[smi] target: u32,
    path: v8::Local<'s, v8::Array>,
    #[smi] message: u32,
) -> Result<u32, Thrown> {
    let isolate = isolate(state);
    let mut isolate = isolate.borrow_mut();
    let arguments = isolate.packed.remove(&message);
    if path.length() as usize > PATH_MAX {
        return Err(Thrown(format!("RPC pipelined property path is too deep (max {PATH_MAX}).")));
    }
    let path = (0..path.length())
        .filter_map(|at| path.get_index(scope, at)?.try_cast::<v8::String>().ok())
        .map(|name| name.to_rust_string_lossy(scope))
        .collect();
    let target = if service { Target::Capability(target) } else { Target::Stub(target) };
    isolate.rpc(owner, &target, path, arguments).map_err(|refused| Thrown(refused.to_string()))
}

/// Answers a call with a written value; 0: it could not be written, and the caller is told that nobody answers.
#[op2(fast)]
pub(crate) fn op_rpc_return(state: &mut OpState, #[smi] call: u32, #[smi] message: u32, threw: bool) {
    let isolate = isolate(state);
    let mut isolate = isolate.borrow_mut();
    let packed = isolate.packed.remove(&message).unwrap_or_default();
    isolate.rpc_return(call, packed, threw);
}

/// Reads a value that came. `given` gets (kind, number, body, length) for each of its capabilities before `hook` is asked
/// for them.
#[op2(reentrant)]
pub(crate) fn op_rpc_take<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    #[smi] owner: u32,
    #[smi] message: u32,
    parameters: bool,
    hook: v8::Local<'s, v8::Function>,
    given: v8::Local<'s, v8::Array>,
) -> Result<v8::Local<'s, v8::Value>, Thrown> {
    let (bytes, caps) = {
        let state = JsRuntime::op_state_from(scope);
        let isolate = isolate(&state.borrow());
        let mut isolate = isolate.borrow_mut();
        let Some(message) = isolate.messages.remove(&message) else {
            return Err(Thrown("The value is gone.".into()));
        };
        let mut caps = isolate.open(owner, message.caps, message.origin.as_ref(), parameters);
        if let Some(disposer) = message.disposer {
            caps.push(Given::Stub(isolate.import(owner, disposer, false)));
        }
        (message.bytes, caps)
    };
    for (at, cap) in caps.into_iter().enumerate() {
        let at = u32::try_from(at).unwrap_or(u32::MAX) * 4;
        give(scope, given, at, cap).ok_or_else(|| Thrown("Array buffer allocation failed".into()))?;
    }
    if bytes.is_empty() {
        return Ok(v8::undefined(scope).into());
    }
    v8::tc_scope!(let scope, scope);
    match rpc::read(scope, &bytes, hook) {
        Ok(value) => Ok(value),
        Err(Unread::Thrown) if scope.has_caught() => {
            scope.rethrow();
            Ok(v8::undefined(scope).into())
        }
        Err(Unread::Thrown) => Err(Thrown("Array buffer allocation failed".into())),
        Err(Unread::Malformed) => Err(Thrown("The value is malformed.".into())),
    }
}

fn give(scope: &mut v8::PinScope, given: v8::Local<v8::Array>, at: u32, cap: Given) -> Option<()> {
    let undefined: v8::Local<v8::Value> = v8::undefined(scope).into();
    let mut entry = [undefined; 4];
    match cap {
        Given::Stub(stub) => {
            entry[0] = v8::Integer::new_from_unsigned(scope, kind::STUB).into();
            entry[1] = v8::Integer::new_from_unsigned(scope, stub).into();
        }
        Given::Service(service) => {
            entry[0] = v8::Integer::new_from_unsigned(scope, kind::SERVICE).into();
            entry[1] = v8::Integer::new_from_unsigned(scope, service).into();
        }
        Given::Body(form) => {
            let (form, what, length) = match form {
                BodyForm::Empty => (0, undefined, None),
                BodyForm::Bytes(bytes) => (1, uint8_array(scope, &bytes)?, None),
                BodyForm::Native { number: stream, length } => {
                    (2, v8::Integer::new_from_unsigned(scope, stream).into(), length)
                }
            };
            entry[0] = v8::Integer::new_from_unsigned(scope, kind::BODY).into();
            entry[1] = v8::Integer::new_from_unsigned(scope, form).into();
            entry[2] = what;
            entry[3] = v8::Number::new(scope, length.map_or(-1.0, |length| length as f64)).into();
        }
    }
    for (offset, value) in (0..).zip(entry) {
        given.set_index(scope, at + offset, value)?;
    }
    Some(())
}

/// Names an object that is handed out.
#[op2(fast)]
#[smi]
pub(crate) fn op_rpc_export(state: &mut OpState, #[smi] owner: u32) -> Result<u32, Thrown> {
    isolate(state).borrow_mut().export(owner).map_err(|refused| Thrown(refused.to_string()))
}

/// A stub in this isolate for an object of its own; 0 if it is gone.
#[op2(fast)]
#[smi]
pub(crate) fn op_rpc_own_stub(state: &mut OpState, #[smi] owner: u32, #[smi] export: u32) -> u32 {
    let isolate = isolate(state);
    let mut isolate = isolate.borrow_mut();
    match isolate.fresh.remove(&export) {
        Some(stub) => isolate.import(owner, stub, false),
        None => 0,
    }
}

/// A second number for the same stub; 0 if it is gone.
#[op2(fast)]
#[smi]
pub(crate) fn op_rpc_dup(state: &mut OpState, #[smi] stub: u32) -> u32 {
    isolate(state).borrow_mut().duplicate(stub).unwrap_or(0)
}

/// The holder wants a stub no more.
#[op2(fast)]
pub(crate) fn op_rpc_release(state: &mut OpState, #[smi] stub: u32) {
    isolate(state).borrow_mut().release(stub);
}

/// The capability of an entrypoint of this very worker. `props` is a written value, or 0.
#[op2]
#[smi]
pub(crate) fn op_rpc_own_entrypoint(
    state: &mut OpState,
    #[smi] owner: u32,
    #[string] name: Option<String>,
    #[smi] props: u32,
) -> Result<u32, Thrown> {
    let isolate = isolate(state);
    let mut isolate = isolate.borrow_mut();
    let props = isolate.packed.remove(&props).map(|packed| rpc::Props::Message(isolate.seal_plain(packed)));
    let Some(worker) = isolate.own.clone() else { return Err(Thrown("The worker has not started.".into())) };
    let capability = Capability::Entrypoint { worker, name, props, limits: None };
    Ok(isolate.add_capability(owner, capability))
}

/// Whether a compatibility flag is in force.
#[op2(fast)]
pub(crate) fn op_rpc_flag(state: &mut OpState, #[string] name: &str) -> bool {
    isolate(state).borrow().flags.iter().any(|flag| flag == name)
}

/// The bytes of a blob's parts, whose ids come in order, as one Uint8Array. A part that is gone counts as empty.
#[op2]
pub(crate) fn op_rpc_blob<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    state: &mut OpState,
    ids: v8::Local<'s, v8::Array>,
) -> Result<v8::Local<'s, v8::Value>, Thrown> {
    let mut bytes = Vec::new();
    for at in 0..ids.length() {
        let id = ids.get_index(scope, at).map(|id| id.to_rust_string_lossy(scope));
        let Some(id) = id.and_then(|id| id.parse().ok()) else { continue };
        crate::blobs::append(state, &id, &mut bytes);
        if bytes.len() > VALUE_BYTES_MAX {
            return Err(Thrown(rpc::too_large(bytes.len())));
        }
    }
    uint8_array(scope, &bytes).ok_or_else(|| Thrown("Array buffer allocation failed".into()))
}
