//! `env.LOADER`: from a description in JavaScript to a worker in another isolate.

use std::sync::Arc;

use atoll_loader::limits::{ENV_BYTES_MAX, LOADER_DEPTH_MAX};
use atoll_loader::{CodeError, ModuleSource, WorkerCode};
use deno_core::{OpState, op2};

use super::isolate;
use crate::message::Root;
use crate::rpc::Props;
use crate::state::{Capability, IsolateState};
use crate::thread::{EnvSpec, StartSpec};
use crate::trace::TAILS_MAX;
use crate::values::bytes_of;
use crate::worker::{Callee, ChildWorker};

/// Why a worker was not loaded, with the class that JavaScript sees.
#[derive(Debug, thiserror::Error, deno_error::JsError)]
pub(crate) enum LoadRefused {
    #[class(type)]
    #[error("{0}")]
    Type(String),
    #[class(generic)]
    #[error("{0}")]
    Generic(String),
}

/// What the loader's script passes for an omitted `globalOutbound`.
const OUTBOUND_OMITTED: i32 = -2;

fn text_at(scope: &mut v8::PinScope, array: v8::Local<v8::Array>, at: u32) -> String {
    array.get_index(scope, at).map(|value| value.to_rust_string_lossy(scope)).unwrap_or_default()
}

/// Modules from (name, kind, body) triples.
fn modules_of(scope: &mut v8::PinScope, flat: v8::Local<v8::Array>) -> Vec<(String, ModuleSource)> {
    let mut modules = Vec::with_capacity(flat.length() as usize / 3);
    for at in (0..flat.length()).step_by(3) {
        let name = text_at(scope, flat, at);
        let kind = text_at(scope, flat, at + 1);
        let Some(body) = flat.get_index(scope, at + 2) else { continue };
        let text = |scope: &mut v8::PinScope| -> Arc<str> { body.to_rust_string_lossy(scope).into() };
        let source = match kind.as_str() {
            "js" => ModuleSource::Js(text(scope)),
            "cjs" => ModuleSource::Cjs(text(scope)),
            "text" => ModuleSource::Text(text(scope)),
            "json" => ModuleSource::Json(text(scope)),
            "py" => ModuleSource::Py(text(scope)),
            "ts" => ModuleSource::Ts(text(scope)),
            "data" => ModuleSource::Data(bytes_of(scope, body)),
            "wasm" => ModuleSource::Wasm(bytes_of(scope, body)),
            "ambiguous" => ModuleSource::Ambiguous { kinds: text(scope).parse().unwrap_or(0) },
            _ => ModuleSource::Plain(text(scope)),
        };
        modules.push((name, source));
    }
    modules
}

/// `env` from the value that the scripts wrote; 0 for none.
fn env_of(isolate: &mut IsolateState, env: u32) -> Result<EnvSpec, LoadRefused> {
    // Nothing to read: the new isolate then needs no script to read it with.
    let Some(packed) = isolate.packed.remove(&env) else { return Ok(EnvSpec::Named(Vec::new())) };
    let bytes = packed.bytes.len();
    if bytes > ENV_BYTES_MAX {
        return Err(LoadRefused::Generic(format!(
            "Dynamic Worker env size ({bytes} bytes) exceeds the maximum allowed size of {ENV_BYTES_MAX} bytes."
        )));
    }
    Ok(EnvSpec::Given(isolate.seal_plain(packed)))
}

fn outbound_of(isolate: &IsolateState, outbound: i32) -> Option<Capability> {
    match outbound {
        OUTBOUND_OMITTED if isolate.inherits_outbound => isolate.global_outbound.clone(),
        number => u32::try_from(number).ok().and_then(|number| isolate.capabilities.get(&number).cloned()),
    }
}

/// Checks a worker's code and starts it; the number names it. `named` is (scope, name) or (null, null).
#[op2(fast)]
#[smi]
pub(crate) fn op_worker_load<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    state: &mut OpState,
    #[smi] owner: u32,
    named: v8::Local<'s, v8::Array>,
    #[string] date: String,
    flags: v8::Local<'s, v8::Array>,
    allow_experimental: bool,
    #[string] main: String,
    modules: v8::Local<'s, v8::Array>,
    #[smi] env: u32,
    #[smi] outbound: i32,
    cpu_ms: f64,
    sub_requests: f64,
    tails: v8::Local<'s, v8::Array>,
) -> Result<u32, LoadRefused> {
    let isolate = isolate(state);
    let mut isolate = isolate.borrow_mut();
    let name = named_of(scope, named);
    if isolate.depth + 1 >= LOADER_DEPTH_MAX {
        return Err(LoadRefused::Generic(format!(
            "Dynamic workers may nest at most {LOADER_DEPTH_MAX} deep."
        )));
    }
    let Some(running) = isolate.running.get_mut(&owner) else {
        return Err(LoadRefused::Generic("Workers can only be loaded while a request is served.".into()));
    };
    if !Root::take(&running.root.loads_left, 1) {
        return Err(LoadRefused::Generic("Too many dynamic workers loaded by one request.".into()));
    }
    running.usage.loads += 1;
    let root = running.root.id;
    let mut limits = running.limits;
    lower(&mut limits.cpu_ms, cpu_ms);
    lower(&mut limits.subrequests, sub_requests);
    let flags = (0..flags.length()).map(|at| text_at(scope, flags, at)).collect();
    let main_module = main.clone();
    let mut code = WorkerCode::new(main);
    code.compatibility_date = date;
    code.compatibility_flags = flags;
    code.allow_experimental = allow_experimental;
    code.modules = modules_of(scope, modules);
    let entry = isolate.host.load(code).map_err(|error| match (&error, error.js_class()) {
        (CodeError::NoMain, _) => LoadRefused::Generic(format!(
            "Failed to start Worker:\nUncaught Error: No such module: {main_module}"
        )),
        // Workers find it out when they start the worker.
        (CodeError::MainKind, _) => {
            LoadRefused::Generic(format!("Failed to start Worker:\nUncaught TypeError: {error}"))
        }
        (_, "TypeError") => LoadRefused::Type(error.to_string()),
        _ => LoadRefused::Generic(error.to_string()),
    })?;
    let tails = tails_of(scope, &isolate, tails)?;
    let spec = StartSpec {
        entry,
        env: env_of(&mut isolate, env)?,
        outbound: outbound_of(&isolate, outbound),
        limits,
        traced: !tails.is_empty(),
        depth: isolate.depth + 1,
        single: false,
        root,
        warm_key: None,
    };
    let worker = ChildWorker::start(&isolate.host, spec, tails);
    match name {
        Some((scope, name)) => isolate.host.named.insert(&scope.into(), name, &worker),
        None => {
            if let Some(running) = isolate.running.get_mut(&owner) {
                running.workers.push(Arc::clone(&worker));
            }
        }
    }
    Ok(register(&mut isolate, owner, worker))
}

fn tails_of(
    scope: &mut v8::PinScope,
    isolate: &IsolateState,
    numbers: v8::Local<v8::Array>,
) -> Result<Vec<Capability>, LoadRefused> {
    if numbers.length() as usize > TAILS_MAX {
        return Err(LoadRefused::Generic(format!("A Dynamic Worker may have at most {TAILS_MAX} tails.")));
    }
    let one = |scope: &mut v8::PinScope, at| {
        let number = numbers.get_index(scope, at)?.try_cast::<v8::Uint32>().ok()?.value();
        isolate.capabilities.get(&number).cloned()
    };
    Ok((0..numbers.length()).filter_map(|at| one(scope, at)).collect())
}

fn named_of(scope: &mut v8::PinScope, named: v8::Local<v8::Array>) -> Option<(String, String)> {
    let name = named.get_index(scope, 1).filter(|name| name.is_string())?;
    let name = name.to_rust_string_lossy(scope);
    Some((text_at(scope, named, 0), name))
}

/// A limit that the caller may only lower; negative means: not given.
fn lower(limit: &mut u32, asked: f64) {
    if asked >= 0.0 {
        *limit = (*limit).min(asked as u32);
    }
}

/// Names a worker for one invocation.
fn register(isolate: &mut IsolateState, owner: u32, worker: Arc<ChildWorker>) -> u32 {
    let number = isolate.next_number();
    if let Some(running) = isolate.running.get_mut(&owner) {
        running.numbers.push(number);
        isolate.workers.insert(number, worker);
    }
    number
}

/// The number of a named worker that lives, or 0.
#[op2(fast)]
#[smi]
pub(crate) fn op_worker_find(
    state: &mut OpState,
    #[smi] owner: u32,
    #[string] scope: &str,
    #[string] name: &str,
) -> u32 {
    let isolate = isolate(state);
    let mut isolate = isolate.borrow_mut();
    match isolate.host.named.find(&scope.into(), name) {
        Some(worker) => register(&mut isolate, owner, worker),
        None => 0,
    }
}

/// The capability to call an entrypoint of a worker.
#[op2]
#[smi]
pub(crate) fn op_worker_entrypoint(
    state: &mut OpState,
    #[smi] owner: u32,
    #[smi] worker: u32,
    #[string] name: Option<String>,
    #[smi] props: u32,
    cpu_ms: f64,
    sub_requests: f64,
) -> Result<u32, LoadRefused> {
    let isolate = isolate(state);
    let mut isolate = isolate.borrow_mut();
    let Some(worker) = isolate.workers.get(&worker).map(Arc::clone) else {
        return Err(LoadRefused::Generic("The dynamic worker has ended.".into()));
    };
    let mut limits = worker.limits;
    lower(&mut limits.cpu_ms, cpu_ms);
    lower(&mut limits.subrequests, sub_requests);
    let props = isolate.packed.remove(&props).map(|packed| Props::Message(isolate.seal_plain(packed)));
    let worker = Callee::Child(worker);
    let capability = Capability::Entrypoint { worker, name, props, limits: Some(limits) };
    Ok(isolate.add_capability(owner, capability))
}

/// Frees a worker at once.
#[op2(fast)]
pub(crate) fn op_worker_dispose(state: &mut OpState, #[smi] worker: u32) {
    let isolate = isolate(state);
    let mut isolate = isolate.borrow_mut();
    if let Some(worker) = isolate.workers.remove(&worker) {
        isolate.host.named.remove(&worker);
        for running in isolate.running.values_mut() {
            running.workers.retain(|each| !Arc::ptr_eq(each, &worker));
        }
        worker.release();
    }
}
