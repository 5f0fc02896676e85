//! CommonJS modules: run once, as functions of `exports`, `require` and `module`.

use std::rc::Rc;
use std::sync::Arc;

use atoll_loader::Resolved;
use atoll_loader::bundle::ModuleBody;

use super::{Modules, origin, string, throw};

impl Modules {
    /// Runs a CommonJS module, once, and gives its exports (also half-filled ones, in a cycle, as Node does).
    pub(super) fn require<'s>(
        self: &Rc<Self>,
        scope: &mut v8::PinScope<'s, '_>,
        index: usize,
    ) -> Option<v8::Local<'s, v8::Value>> {
        let exports_key = string(scope, "exports")?;
        if let Some(module) = self.required.borrow().get(&index) {
            return v8::Local::new(scope, module).get(scope, exports_key.into());
        }
        let bundle = Arc::clone(&self.entry.bundle);
        let ModuleBody::Cjs(code) = &bundle.modules()[index].body else { return self.value(scope, index) };
        let name = &bundle.modules()[index].name;
        let module = v8::Object::new(scope);
        let exports = v8::Object::new(scope);
        module.set(scope, exports_key.into(), exports.into())?;
        self.required.borrow_mut().insert(index, v8::Global::new(scope, module));
        let ran = run_cjs(scope, name, code, module, exports);
        if ran.is_none() {
            // As in Node: who requires it next runs it again, and gets the error again.
            self.required.borrow_mut().remove(&index);
        }
        ran?;
        module.get(scope, exports_key.into())
    }
}

/// Runs the code of a CommonJS module as a function of `exports`, `require` and `module`.
fn run_cjs(
    scope: &mut v8::PinScope,
    name: &str,
    code: &str,
    module: v8::Local<v8::Object>,
    exports: v8::Local<v8::Object>,
) -> Option<()> {
    let source = string(scope, code)?;
    let origin = origin(scope, name, false)?;
    let mut source = v8::script_compiler::Source::new(source, Some(&origin));
    let parameters = [string(scope, "exports")?, string(scope, "require")?, string(scope, "module")?];
    let function = v8::script_compiler::compile_function(
        scope,
        &mut source,
        &parameters,
        &[],
        v8::script_compiler::CompileOptions::NoCompileOptions,
        v8::script_compiler::NoCacheReason::NoReason,
    )?;
    let referrer = string(scope, name)?;
    let require = v8::Function::builder(require_callback).data(referrer.into()).build(scope)?;
    function.call(scope, exports.into(), &[exports.into(), require.into(), module.into()]).map(drop)
}

/// `require(specifier)` of a CommonJS module; the callback's data is the referrer's name.
fn require_callback(
    scope: &mut v8::PinScope,
    args: v8::FunctionCallbackArguments,
    mut result: v8::ReturnValue,
) {
    let Some(modules) = Modules::of(scope) else { return };
    let referrer = args.data().to_rust_string_lossy(scope);
    let specifier = args.get(0).to_rust_string_lossy(scope);
    let bundle = Arc::clone(&modules.entry.bundle);
    let value = match bundle.resolve(&referrer, &specifier) {
        Ok(Resolved::Module(index)) => match &bundle.modules()[index].body {
            ModuleBody::Js(_) => throw(
                scope,
                &format!("require() of the ES module \"{specifier}\" is not supported: import it."),
            ),
            _ => modules.require(scope, index),
        },
        Ok(Resolved::Builtin(name)) => require_builtin(&modules, scope, &referrer, name),
        Err(error) => throw(scope, &error.to_string()),
    };
    if let Some(value) = value {
        result.set(value);
    }
}

/// As in Workers: the default export, or everything where there is none.
fn require_builtin<'s>(
    modules: &Modules,
    scope: &mut v8::PinScope<'s, '_>,
    referrer: &str,
    name: &str,
) -> Option<v8::Local<'s, v8::Value>> {
    let exports = modules.builtin_exports(scope, referrer, name)?;
    let key = string(scope, "default")?;
    if exports.has_own_property(scope, key.into())? {
        return exports.get(scope, key.into());
    }
    Some(exports.into())
}
