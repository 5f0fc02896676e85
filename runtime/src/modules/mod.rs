//! A bundle's modules inside one isolate: compiled when first imported, resolved within the bundle only.
//!
//! V8 asks for a module by (referrer, specifier); the answer is another module of the bundle, a builtin, or the
//! error that Workers give. Nothing here can reach a file or a network.

mod cjs;
mod entry;
mod hooks;

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use atoll_loader::Resolved;
use atoll_loader::bundle::ModuleBody;

pub(crate) use entry::Entry;
use hooks::{evaluate_synthetic, import_dynamically, import_phase_dynamically, initialize_import_meta};
use hooks::{resolve_callback, resolve_source_callback};

/// What a synthetic module exports, by name.
type Exports = Vec<(String, v8::Global<v8::Value>)>;

/// Modules of one isolate.
pub(crate) struct Modules {
    entry: Arc<Entry>,
    /// By index in the bundle.
    compiled: RefCell<HashMap<usize, v8::Global<v8::Module>>>,
    /// Indexes by the identity hash of the compiled module.
    by_hash: RefCell<HashMap<std::num::NonZeroI32, Vec<usize>>>,
    builtins: RefCell<HashMap<String, v8::Global<v8::Module>>>,
    /// Values of modules that are data: the same object for everyone who imports or requires it.
    values: RefCell<HashMap<usize, v8::Global<v8::Value>>>,
    /// Exports of synthetic modules, until V8 evaluates them.
    exports: RefCell<Vec<(v8::Global<v8::Module>, Exports)>>,
    /// `module.exports` of CommonJS modules that ran or are running.
    required: RefCell<HashMap<usize, v8::Global<v8::Object>>>,
    /// Imports of modules that are being evaluated, with the promises that wait for them.
    waiting: RefCell<VecDeque<(v8::Global<v8::Module>, v8::Global<v8::PromiseResolver>)>>,
    /// Calls the prelude's lazy loader.
    load_script: v8::Global<v8::Function>,
}

/// Code smaller than this compiles faster than its cache deserialises, in bytes.
const CACHED_BYTES_MIN: usize = 2 * 1024;

impl Modules {
    /// Puts the modules of `entry` into the isolate's slot and takes over V8's import hooks.
    pub(crate) fn install(
        isolate: &mut v8::OwnedIsolate,
        entry: Arc<Entry>,
        load_script: v8::Global<v8::Function>,
    ) -> Rc<Self> {
        let modules = Rc::new(Self {
            entry,
            compiled: RefCell::default(),
            by_hash: RefCell::default(),
            values: RefCell::default(),
            builtins: RefCell::default(),
            exports: RefCell::default(),
            required: RefCell::default(),
            waiting: RefCell::default(),
            load_script,
        });
        isolate.set_slot(Rc::clone(&modules));
        isolate.set_host_import_module_dynamically_callback(import_dynamically);
        // V8 asks this one first if there is one, and deno_core set its own.
        isolate.set_host_import_module_with_phase_dynamically_callback(import_phase_dynamically);
        isolate.set_host_initialize_import_meta_object_callback(initialize_import_meta);
        modules
    }

    pub(crate) fn of(scope: &v8::PinScope) -> Option<Rc<Self>> {
        scope.get_slot::<Rc<Self>>().cloned()
    }

    /// Compiles, links and starts to evaluate the main module. The value is the evaluation's promise.
    pub(crate) fn start<'s>(
        self: &Rc<Self>,
        scope: &mut v8::PinScope<'s, '_>,
    ) -> Option<(v8::Local<'s, v8::Object>, v8::Local<'s, v8::Promise>)> {
        let main = self.module(scope, self.entry.bundle.main_index())?;
        self.link(scope, main)?;
        let promise = main.evaluate(scope)?.try_cast::<v8::Promise>().ok()?;
        let namespace = main.get_module_namespace().try_cast::<v8::Object>().ok()?;
        Some((namespace, promise))
    }

    fn link(&self, scope: &mut v8::PinScope, module: v8::Local<v8::Module>) -> Option<()> {
        module
            .instantiate_module2(scope, resolve_callback, resolve_source_callback)
            .filter(|linked| *linked)
            .map(drop)
    }

    /// Leaves code caches behind for the next isolate with the same bundle.
    pub(crate) fn save_caches(&self, scope: &mut v8::PinScope) {
        for (&index, module) in &*self.compiled.borrow() {
            let module = v8::Local::new(scope, module);
            let body = &self.entry.bundle.modules()[index].body;
            if !matches!(body, ModuleBody::Js(code) if code.len() >= CACHED_BYTES_MIN)
                || !module.is_source_text_module()
            {
                continue;
            }
            self.entry.caches[index].get_or_init(|| {
                module
                    .get_unbound_module_script(scope)
                    .create_code_cache()
                    .map(|cache| cache.to_vec())
                    .unwrap_or_default()
            });
        }
    }

    fn module<'s>(
        self: &Rc<Self>,
        scope: &mut v8::PinScope<'s, '_>,
        index: usize,
    ) -> Option<v8::Local<'s, v8::Module>> {
        if let Some(module) = self.compiled.borrow().get(&index) {
            return Some(v8::Local::new(scope, module));
        }
        let bundle = Arc::clone(&self.entry.bundle);
        let module = &bundle.modules()[index];
        let compiled = match &module.body {
            ModuleBody::Js(code) => self.compile(scope, index, &module.name, code)?,
            ModuleBody::Cjs(_) => {
                let exports = self.require(scope, index)?;
                self.synthetic(scope, &module.name, vec![("default".into(), exports)])
            }
            ModuleBody::Text(_) | ModuleBody::Data(_) | ModuleBody::Json(_) | ModuleBody::Wasm(_) => {
                let value = self.value(scope, index)?;
                self.synthetic(scope, &module.name, vec![("default".into(), value)])
            }
        };
        self.by_hash.borrow_mut().entry(compiled.get_identity_hash()).or_default().push(index);
        self.compiled.borrow_mut().insert(index, v8::Global::new(scope, compiled));
        Some(compiled)
    }

    fn compile<'s>(
        &self,
        scope: &mut v8::PinScope<'s, '_>,
        index: usize,
        name: &str,
        code: &str,
    ) -> Option<v8::Local<'s, v8::Module>> {
        let source = string(scope, code)?;
        let origin = origin(scope, name, true)?;
        let cache = self.entry.caches[index].get().filter(|cache| !cache.is_empty());
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
        let no_reason = v8::script_compiler::NoCacheReason::NoReason;
        v8::script_compiler::compile_module2(scope, &mut source, options, no_reason)
    }

    /// The value of a module that is data, made when first asked for.
    fn value<'s>(&self, scope: &mut v8::PinScope<'s, '_>, index: usize) -> Option<v8::Local<'s, v8::Value>> {
        if let Some(value) = self.values.borrow().get(&index) {
            return Some(v8::Local::new(scope, value));
        }
        let value = self.make_value(scope, index)?;
        self.values.borrow_mut().insert(index, v8::Global::new(scope, value));
        Some(value)
    }

    fn make_value<'s>(
        &self,
        scope: &mut v8::PinScope<'s, '_>,
        index: usize,
    ) -> Option<v8::Local<'s, v8::Value>> {
        match &self.entry.bundle.modules()[index].body {
            ModuleBody::Text(text) => Some(string(scope, text)?.into()),
            ModuleBody::Json(text) => {
                let text = string(scope, text)?;
                v8::json::parse(scope, text)
            }
            ModuleBody::Data(bytes) => {
                let buffer = v8::ArrayBuffer::new(scope, bytes.len());
                let store = buffer.get_backing_store();
                for (cell, byte) in store.iter().zip(bytes.iter()) {
                    cell.set(*byte);
                }
                Some(buffer.into())
            }
            ModuleBody::Wasm(_) if crate::platform::is_jitless() => throw(
                scope,
                "WebAssembly is not available here: this host class is without compilers (jitless)",
            ),
            ModuleBody::Wasm(bytes) => {
                let module = match self.entry.wasm[index].get() {
                    Some(compiled) => v8::WasmModuleObject::from_compiled_module(scope, compiled)?,
                    None => {
                        let module = v8::WasmModuleObject::compile(scope, bytes)?;
                        let _raced = self.entry.wasm[index].set(module.get_compiled_module());
                        module
                    }
                };
                Some(module.into())
            }
            ModuleBody::Js(_) | ModuleBody::Cjs(_) => None,
        }
    }

    fn synthetic<'s>(
        &self,
        scope: &mut v8::PinScope<'s, '_>,
        name: &str,
        exports: Vec<(String, v8::Local<'s, v8::Value>)>,
    ) -> v8::Local<'s, v8::Module> {
        let name = string(scope, name).unwrap_or_else(|| v8::String::empty(scope));
        let names: Vec<_> = exports.iter().filter_map(|(name, _)| string(scope, name)).collect();
        let module = v8::Module::create_synthetic_module(scope, name, &names, evaluate_synthetic);
        let exports =
            exports.into_iter().map(|(name, value)| (name, v8::Global::new(scope, value))).collect();
        self.exports.borrow_mut().push((v8::Global::new(scope, module), exports));
        module
    }

    /// A module of the runtime; throws if there is none of that name.
    fn builtin<'s>(
        &self,
        scope: &mut v8::PinScope<'s, '_>,
        referrer: &str,
        specifier: &str,
    ) -> Option<v8::Local<'s, v8::Module>> {
        if let Some(module) = self.builtins.borrow().get(specifier) {
            return Some(v8::Local::new(scope, module));
        }
        let object = self.builtin_exports(scope, referrer, specifier)?;
        let names = object.get_own_property_names(scope, v8::GetPropertyNamesArgs::default())?;
        let mut exports = Vec::new();
        for at in 0..names.length() {
            let name = names.get_index(scope, at)?;
            exports.push((name.to_rust_string_lossy(scope), object.get(scope, name)?));
        }
        let module = self.synthetic(scope, specifier, exports);
        self.builtins.borrow_mut().insert(specifier.to_owned(), v8::Global::new(scope, module));
        Some(module)
    }

    /// What a module of the runtime exports; throws if there is none of that name.
    fn builtin_exports<'s>(
        &self,
        scope: &mut v8::PinScope<'s, '_>,
        referrer: &str,
        specifier: &str,
    ) -> Option<v8::Local<'s, v8::Object>> {
        match specifier {
            "cloudflare:sockets" => return self.script(scope, "ext:atoll/sockets.js"),
            "cloudflare:workers" => return self.script(scope, "ext:atoll/cloudflare_workers.js"),
            _ => {}
        }
        if specifier.starts_with("node:") {
            let node = self.script(scope, "ext:atoll/node/modules.js")?;
            let key = string(scope, "load")?.into();
            let load = node.get(scope, key)?.try_cast::<v8::Function>().ok()?;
            let name = string(scope, specifier)?.into();
            let found = load.call(scope, node.into(), &[name])?;
            if !found.is_undefined() {
                return found.try_cast::<v8::Object>().ok();
            }
        }
        throw(scope, &format!("No such module \"{specifier}\".\n  imported from \"{referrer}\""))
    }

    /// What a lazy script returned.
    fn script<'s>(&self, scope: &mut v8::PinScope<'s, '_>, name: &str) -> Option<v8::Local<'s, v8::Object>> {
        let load = v8::Local::new(scope, &self.load_script);
        let name = string(scope, name)?.into();
        let undefined = v8::undefined(scope).into();
        load.call(scope, undefined, &[name])?.try_cast::<v8::Object>().ok()
    }

    /// The module behind a specifier; throws what Workers throw if there is none.
    fn resolve<'s>(
        self: &Rc<Self>,
        scope: &mut v8::PinScope<'s, '_>,
        referrer: &str,
        specifier: &str,
    ) -> Option<v8::Local<'s, v8::Module>> {
        let bundle = Arc::clone(&self.entry.bundle);
        match bundle.resolve(referrer, specifier) {
            Ok(Resolved::Module(index)) => self.module(scope, index),
            Ok(Resolved::Builtin(name)) => self.builtin(scope, referrer, name),
            Err(error) => throw(scope, &error.to_string()),
        }
    }

    /// Where in the author's file a position (line and column from 1) of a module comes from.
    pub(crate) fn author_position(&self, file: &str, line: u32, column: u32) -> Option<(String, u32, u32)> {
        let index = self.entry.bundle.index_of(file)?;
        let token =
            self.entry.source_map(index)?.lookup_token(line.checked_sub(1)?, column.checked_sub(1)?)?;
        let (line, column) = (token.get_src_line().checked_add(1)?, token.get_src_col().checked_add(1)?);
        Some((token.get_source().unwrap_or(file).to_owned(), line, column))
    }

    /// The `WebAssembly.Module` behind a specifier of a source-phase import.
    fn source<'s>(
        &self,
        scope: &mut v8::PinScope<'s, '_>,
        referrer: &str,
        specifier: &str,
    ) -> Option<v8::Local<'s, v8::Object>> {
        let bundle = &self.entry.bundle;
        match bundle.resolve(referrer, specifier) {
            Ok(Resolved::Module(index)) if matches!(bundle.modules()[index].body, ModuleBody::Wasm(_)) => {
                self.value(scope, index)?.try_cast::<v8::Object>().ok()
            }
            Ok(_) => throw(scope, &format!("Source phase import not available for module: {specifier}")),
            Err(error) => throw(scope, &error.to_string()),
        }
    }

    /// The bundle's name of a compiled module.
    fn name_of(&self, scope: &mut v8::PinScope, module: v8::Local<v8::Module>) -> Option<Arc<str>> {
        let compiled = self.compiled.borrow();
        let by_hash = self.by_hash.borrow();
        let index = by_hash
            .get(&module.get_identity_hash())?
            .iter()
            .find(|index| compiled.get(index).is_some_and(|each| v8::Local::new(scope, each) == module))?;
        Some(Arc::clone(&self.entry.bundle.modules()[*index].name))
    }
}

/// A V8 string; `None` if it is longer than V8 can hold.
pub(crate) fn string<'s>(scope: &v8::PinScope<'s, '_, ()>, text: &str) -> Option<v8::Local<'s, v8::String>> {
    if text.is_ascii() {
        v8::String::new_from_one_byte(scope, text.as_bytes(), v8::NewStringType::Normal)
    } else {
        v8::String::new(scope, text)
    }
}

fn origin<'s>(scope: &mut v8::PinScope<'s, '_>, name: &str, is_module: bool) -> Option<v8::ScriptOrigin<'s>> {
    let name = string(scope, name)?;
    Some(v8::ScriptOrigin::new(scope, name.into(), 0, 0, false, -1, None, false, false, is_module, None))
}

fn throw<T>(scope: &mut v8::PinScope, message: &str) -> Option<T> {
    let message = string(scope, message)?;
    let error = v8::Exception::error(scope, message);
    scope.throw_exception(error);
    None
}
