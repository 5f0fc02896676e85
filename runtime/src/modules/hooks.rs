//! What V8 calls when JavaScript imports: statically, with `import()`, and for the exports of synthetic modules.

use super::{Modules, string, throw};

/// `with { type: … }` must fit the module; without one anything goes, as in Workers.
fn check_attributes(
    scope: &mut v8::PinScope,
    attributes: v8::Local<v8::FixedArray>,
    stride: usize,
) -> Option<()> {
    for at in (0..attributes.length()).step_by(stride) {
        let key = attributes.get(scope, at)?.try_cast::<v8::Value>().ok()?.to_rust_string_lossy(scope);
        let value = attributes.get(scope, at + 1)?.try_cast::<v8::Value>().ok()?.to_rust_string_lossy(scope);
        if key != "type" || !matches!(value.as_str(), "json" | "text" | "bytes") {
            return throw(scope, &format!("Import attributes are not supported: {key}: {value}"));
        }
    }
    Some(())
}

pub(super) fn resolve_callback<'s>(
    context: v8::Local<'s, v8::Context>,
    specifier: v8::Local<'s, v8::String>,
    attributes: v8::Local<'s, v8::FixedArray>,
    referrer: v8::Local<'s, v8::Module>,
) -> Option<v8::Local<'s, v8::Module>> {
    // SAFETY: V8 calls this on the isolate's thread with a live context.
    v8::callback_scope!(unsafe scope, context);
    let modules = Modules::of(scope)?;
    // Static attributes come as (key, value, source offset).
    check_attributes(scope, attributes, 3)?;
    let referrer = modules.name_of(scope, referrer)?;
    let specifier = specifier.to_rust_string_lossy(scope);
    modules.resolve(scope, &referrer, &specifier)
}

/// `import source x from "./x.wasm"`.
pub(super) fn resolve_source_callback<'s>(
    context: v8::Local<'s, v8::Context>,
    specifier: v8::Local<'s, v8::String>,
    _attributes: v8::Local<'s, v8::FixedArray>,
    referrer: v8::Local<'s, v8::Module>,
) -> Option<v8::Local<'s, v8::Object>> {
    // SAFETY: as in `resolve_callback`.
    v8::callback_scope!(unsafe scope, context);
    let modules = Modules::of(scope)?;
    let referrer = modules.name_of(scope, referrer)?;
    let specifier = specifier.to_rust_string_lossy(scope);
    modules.source(scope, &referrer, &specifier)
}

pub(super) fn evaluate_synthetic<'s>(
    context: v8::Local<'s, v8::Context>,
    module: v8::Local<'s, v8::Module>,
) -> Option<v8::Local<'s, v8::Value>> {
    // SAFETY: as in `resolve_callback`.
    v8::callback_scope!(unsafe scope, context);
    let modules = Modules::of(scope)?;
    let position =
        modules.exports.borrow().iter().position(|(each, _)| v8::Local::new(scope, each) == module)?;
    let (_, exports) = modules.exports.borrow_mut().swap_remove(position);
    for (name, value) in exports {
        let name = string(scope, &name)?;
        let value = v8::Local::new(scope, &value);
        module.set_synthetic_module_export(scope, name, value)?;
    }
    let resolver = v8::PromiseResolver::new(scope)?;
    let undefined = v8::undefined(scope).into();
    resolver.resolve(scope, undefined)?;
    Some(resolver.get_promise(scope).into())
}

pub(super) fn import_dynamically<'s, 'i>(
    scope: &mut v8::PinScope<'s, 'i>,
    options: v8::Local<'s, v8::Data>,
    referrer: v8::Local<'s, v8::Value>,
    specifier: v8::Local<'s, v8::String>,
    attributes: v8::Local<'s, v8::FixedArray>,
) -> Option<v8::Local<'s, v8::Promise>> {
    let phase = v8::ModuleImportPhase::kEvaluation;
    import_phase_dynamically(scope, options, referrer, specifier, phase, attributes)
}

/// `import(…)` and `import.source(…)`.
pub(super) fn import_phase_dynamically<'s, 'i>(
    scope: &mut v8::PinScope<'s, 'i>,
    _options: v8::Local<'s, v8::Data>,
    referrer: v8::Local<'s, v8::Value>,
    specifier: v8::Local<'s, v8::String>,
    phase: v8::ModuleImportPhase,
    attributes: v8::Local<'s, v8::FixedArray>,
) -> Option<v8::Local<'s, v8::Promise>> {
    let resolver = v8::PromiseResolver::new(scope)?;
    let promise = resolver.get_promise(scope);
    v8::tc_scope!(let scope, scope);
    let referrer = referrer.to_rust_string_lossy(scope);
    let specifier = specifier.to_rust_string_lossy(scope);
    let finished = match phase {
        v8::ModuleImportPhase::kSource => Modules::of(scope)
            .and_then(|modules| modules.source(scope, &referrer, &specifier))
            .and_then(|source| resolver.resolve(scope, source.into())),
        _ => import(scope, &referrer, &specifier, attributes)
            .and_then(|module| finish_import(scope, module, resolver)),
    };
    if finished.is_none() {
        // Terminated while importing: there is no exception to give.
        let exception = scope.exception()?;
        scope.reset();
        resolver.reject(scope, exception)?;
    }
    Some(promise)
}

/// The module that an `import()` asks for, linked.
fn import<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    referrer: &str,
    specifier: &str,
    attributes: v8::Local<'s, v8::FixedArray>,
) -> Option<v8::Local<'s, v8::Module>> {
    let modules = Modules::of(scope)?;
    check_attributes(scope, attributes, 2)?;
    let module = modules.resolve(scope, referrer, specifier)?;
    if module.get_status() == v8::ModuleStatus::Uninstantiated {
        modules.link(scope, module)?;
    }
    Some(module)
}

/// Evaluates an imported module and settles the promise of its `import()`.
///
/// A module that imports one that is being evaluated right now (two that wait for each other) must let it come back
/// first: V8 aborts the process if asked to evaluate it again in the middle.
fn finish_import<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    module: v8::Local<'s, v8::Module>,
    resolver: v8::Local<'s, v8::PromiseResolver>,
) -> Option<bool> {
    if module.get_status() == v8::ModuleStatus::Evaluating {
        let modules = Modules::of(scope)?;
        let waiting = (v8::Global::new(scope, module), v8::Global::new(scope, resolver));
        modules.waiting.borrow_mut().push_back(waiting);
        let later = v8::Function::builder(finish_waiting_import).build(scope)?;
        scope.enqueue_microtask(later);
        return Some(true);
    }
    let evaluation = module.evaluate(scope)?.try_cast::<v8::Promise>().ok()?;
    let namespace = module.get_module_namespace();
    let fulfilled = v8::Function::builder(return_data).data(namespace).build(scope)?;
    let then = evaluation.then(scope, fulfilled)?;
    resolver.resolve(scope, then.into())
}

/// The microtask of an import that had to wait.
fn finish_waiting_import(
    scope: &mut v8::PinScope,
    _args: v8::FunctionCallbackArguments,
    _result: v8::ReturnValue,
) {
    let waiting = Modules::of(scope).and_then(|modules| modules.waiting.borrow_mut().pop_front());
    if let Some((module, resolver)) = waiting {
        let module = v8::Local::new(scope, module);
        let resolver = v8::Local::new(scope, resolver);
        // What it throws is in the evaluation's promise; only termination leaves nothing.
        let _terminated = finish_import(scope, module, resolver);
    }
}

fn return_data(_scope: &mut v8::PinScope, args: v8::FunctionCallbackArguments, mut result: v8::ReturnValue) {
    result.set(args.data());
}

/// `import.meta` has what Workers give: nothing of the host.
pub(super) extern "C" fn initialize_import_meta(
    _context: v8::Local<v8::Context>,
    _module: v8::Local<v8::Module>,
    _meta: v8::Local<v8::Object>,
) {
}
