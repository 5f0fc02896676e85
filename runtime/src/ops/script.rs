//! Lazy scripts: compiled when first needed, from text that lies outside V8's heap.

use deno_core::op2;

use super::Thrown;
use crate::image::{Image, Script};
use crate::modules::string;

/// Runs a script of the image as a function of `__bootstrap` and gives what it returns.
#[op2(reentrant)]
pub(crate) fn op_script_load<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    #[string] specifier: &str,
    bootstrap: v8::Local<'s, v8::Value>,
) -> Result<v8::Local<'s, v8::Value>, Thrown> {
    let script = Image::get().script(specifier).ok_or_else(|| Thrown(format!("no script {specifier}")))?;
    let function = compile(scope, script).ok_or_else(|| Thrown(format!("cannot compile {specifier}")))?;
    let receiver = v8::undefined(scope).into();
    v8::tc_scope!(let scope, scope);
    let result = function.call(scope, receiver, &[bootstrap]);
    // What ran while loading is compiled now: worth keeping for the next isolate.
    script.cache.get_or_init(|| function.create_code_cache().map(|cache| cache.to_vec()).unwrap_or_default());
    if result.is_none() {
        let why =
            scope.exception().map(|exception| exception.to_rust_string_lossy(scope)).unwrap_or_default();
        return Err(Thrown(format!("{specifier} did not load: {why}")));
    }
    result.ok_or_else(|| Thrown(format!("{specifier} did not load")))
}

fn compile<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    script: &'static Script,
) -> Option<v8::Local<'s, v8::Function>> {
    let source = v8::String::new_external_onebyte_static(scope, script.source.as_bytes())?;
    let name = string(scope, script.specifier)?;
    let origin = v8::ScriptOrigin::new(scope, name.into(), 0, 0, false, -1, None, false, false, false, None);
    let cache = script.cache.get().filter(|cache| !cache.is_empty());
    let (mut source, options) = match cache {
        Some(cache) => (
            v8::script_compiler::Source::new_with_cached_data(
                source,
                Some(&origin),
                v8::CachedData::new(cache),
            ),
            v8::script_compiler::CompileOptions::ConsumeCodeCache,
        ),
        None => (
            v8::script_compiler::Source::new(source, Some(&origin)),
            v8::script_compiler::CompileOptions::NoCompileOptions,
        ),
    };
    let parameter = string(scope, "__bootstrap")?;
    let no_reason = v8::script_compiler::NoCacheReason::NoReason;
    v8::script_compiler::compile_function(scope, &mut source, &[parameter], &[], options, no_reason)
}
