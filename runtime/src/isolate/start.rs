//! How a pristine isolate becomes a worker: its modules, its `env`, its top level.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use atoll_bindings::seam::{GuestError, Outcome};
use deno_core::{JsRuntime, PollEventLoopOptions};

use super::{Isolate, Prelude, stopped};
use crate::modules::{Modules, string};
use crate::thread::StartSpec;
use crate::values;
use crate::watchdog::Slot;

impl Isolate {
    pub(super) async fn start(&mut self, spec: StartSpec) -> Result<(), Outcome> {
        self.enter();
        let started = self.evaluate(spec);
        self.exit();
        let (namespace, promise, env) = started?;
        self.await_startup(&promise).await?;
        deno_core::scope!(scope, &mut self.js);
        // `eval` and `new Function` are for start-up only, as in Workers.
        scope.get_current_context().set_allow_generation_from_strings(false);
        let start = v8::Local::new(scope, &self.prelude.start);
        let namespace = v8::Local::new(scope, &namespace);
        let env = v8::Local::new(scope, &env);
        let receiver = v8::undefined(scope).into();
        start.call(scope, receiver, &[namespace.into(), env]).map(drop).ok_or(Outcome::Hung)
    }

    #[expect(clippy::type_complexity, reason = "three handles that only `start` takes apart")]
    pub(super) fn evaluate(
        &mut self,
        spec: StartSpec,
    ) -> Result<(v8::Global<v8::Object>, v8::Global<v8::Promise>, v8::Global<v8::Value>), Outcome> {
        let modules =
            Modules::install(self.js.v8_isolate(), Arc::clone(&spec.entry), self.prelude.load.clone());
        self.modules = Some(Rc::clone(&modules));
        deno_core::scope!(scope, &mut self.js);
        v8::tc_scope!(let scope, scope);
        let make_env = v8::Local::new(scope, &self.prelude.make_env);
        let receiver = v8::undefined(scope).into();
        let env = values::env_arguments(scope, &self.state, spec.env, spec.outbound, spec.traced)
            .and_then(|arguments| make_env.call(scope, receiver, &arguments));
        let Some(env) = env else { return Err(startup_failure(scope, &self.slot)) };
        let env = v8::Global::new(scope, env);
        let started = modules.start(scope);
        scope.perform_microtask_checkpoint();
        match started {
            Some((namespace, promise)) => {
                Ok((v8::Global::new(scope, namespace), v8::Global::new(scope, promise), env))
            }
            None => Err(startup_failure(scope, &self.slot)),
        }
    }

    /// Waits for top-level await, as far as the event loop can bring it.
    pub(super) async fn await_startup(&mut self, promise: &v8::Global<v8::Promise>) -> Result<(), Outcome> {
        loop {
            {
                deno_core::scope!(scope, &mut self.js);
                let promise = v8::Local::new(scope, promise);
                match promise.state() {
                    v8::PromiseState::Fulfilled => return Ok(()),
                    v8::PromiseState::Rejected => {
                        promise.mark_as_handled();
                        let exception = promise.result(scope);
                        return Err(Outcome::GuestError(values::guest_error(scope, exception)));
                    }
                    v8::PromiseState::Pending => {}
                }
            }
            if let Some(verdict) = self.slot.verdict() {
                return Err(stopped(verdict));
            }
            let finished = poll_fn(|cx| {
                self.enter();
                let poll = self.js.poll_event_loop(cx, PollEventLoopOptions::default());
                self.exit();
                match poll {
                    Poll::Ready(result) => Poll::Ready(result.is_ok()),
                    Poll::Pending => Poll::Pending,
                }
            })
            .await;
            let pending = {
                deno_core::scope!(scope, &mut self.js);
                v8::Local::new(scope, promise).state() == v8::PromiseState::Pending
            };
            if finished && pending {
                return Err(Outcome::Hung);
            }
        }
    }
}

fn startup_failure(
    scope: &mut v8::PinnedRef<'_, v8::TryCatch<'_, '_, v8::HandleScope<'_>>>,
    slot: &Slot,
) -> Outcome {
    if let Some(verdict) = slot.verdict() {
        return stopped(verdict);
    }
    match scope.exception() {
        Some(exception) => {
            scope.reset();
            Outcome::GuestError(values::guest_error(scope, exception))
        }
        None => Outcome::GuestError(GuestError {
            name: "Error".into(),
            message: "Failed to start Worker.".into(),
            stack: None,
        }),
    }
}

/// A guest compiles no WebAssembly at run time, as in Workers: modules come with the bundle.
pub(super) unsafe extern "C" fn deny_wasm_code_generation(
    _context: v8::Local<v8::Context>,
    _source: v8::Local<v8::String>,
) -> bool {
    false
}

/// Takes the prelude's functions and removes the last ways from the global object to the host.
pub(super) fn take_prelude(js: &mut JsRuntime) -> Prelude {
    deno_core::scope!(scope, js);
    let global = scope.get_current_context().global(scope);
    let key = |scope: &mut v8::PinScope<'_, '_>, name: &str| {
        v8::Global::new(scope, string(scope, name).unwrap_or_else(|| v8::String::empty(scope)))
    };
    let atoll_key = key(scope, "__atoll");
    let atoll_key = v8::Local::new(scope, atoll_key);
    #[expect(clippy::expect_used, reason = "the snapshot of this very binary has it")]
    let object = global
        .get(scope, atoll_key.into())
        .and_then(|value| value.try_cast::<v8::Object>().ok())
        .expect("the snapshot has the prelude");
    let take = |scope: &mut v8::PinScope<'_, '_>, name: &str| {
        let name = key(scope, name);
        let name = v8::Local::new(scope, name);
        #[expect(clippy::expect_used, reason = "as above")]
        let function = object
            .get(scope, name.into())
            .and_then(|value| value.try_cast::<v8::Function>().ok())
            .expect("the prelude has its functions");
        v8::Global::new(scope, function)
    };
    let prelude = Prelude {
        on_fetch: take(scope, "onFetch"),
        on_scheduled: take(scope, "onScheduled"),
        on_execute: take(scope, "onExecute"),
        start: take(scope, "start"),
        wake: take(scope, "wake"),
        fire_timer: take(scope, "fireTimer"),
        forget: take(scope, "forget"),
        load: take(scope, "load"),
        make_env: take(scope, "makeEnv"),
        on_rpc: take(scope, "onRpc"),
    };
    global.delete(scope, atoll_key.into());
    let deno = key(scope, "Deno");
    let deno = v8::Local::new(scope, deno);
    global.delete(scope, deno.into());
    prelude
}
