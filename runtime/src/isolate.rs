//! One isolate: a `JsRuntime` from the startup snapshot, its state, and the loop that serves its inbox.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::Duration;

use atoll_bindings::seam::{Event, GuestError, HttpRequest, InvocationId, LogLevel, Outcome};
use deno_core::{JsRuntime, PollEventLoopOptions, RuntimeOptions};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::blobs::Blobs;
use crate::host::HostShared;
use crate::image::{Image, disable_dangerous, extensions};
use crate::memory::{self, External, HeapGuard};
use crate::message::{Inbox, Invocation, IsolateMsg, Work};
use crate::modules::{Modules, string};
use crate::rejections::Rejections;
use crate::rpc::RpcCall;
use crate::socket::asks_for_socket;
use crate::state::{IsolateState, Wake};
use crate::thread::StartSpec;
use crate::values;
use crate::watchdog::{Slot, Verdict, now_us};
use crate::worker::{Callee, OwnWorker};

/// Functions of the prelude, taken before guest code runs.
struct Prelude {
    on_fetch: v8::Global<v8::Function>,
    on_scheduled: v8::Global<v8::Function>,
    on_execute: v8::Global<v8::Function>,
    start: v8::Global<v8::Function>,
    wake: v8::Global<v8::Function>,
    fire_timer: v8::Global<v8::Function>,
    forget: v8::Global<v8::Function>,
    load: v8::Global<v8::Function>,
    make_env: v8::Global<v8::Function>,
    on_rpc: v8::Global<v8::Function>,
}

/// An isolate on its thread.
pub(crate) struct Isolate {
    js: JsRuntime,
    prelude: Prelude,
    blobs: Arc<Blobs>,
    /// The invocation for which it started.
    root: InvocationId,
    state: Rc<RefCell<IsolateState>>,
    slot: Arc<Slot>,
    host: Arc<HostShared>,
    /// The event loop may have something to do.
    stirred: bool,
    /// The start is over.
    started: bool,
    /// Until the first invocation ran: what to save code caches from.
    modules: Option<Rc<Modules>>,
    /// After `js`: fields are dropped in order, and V8 may call the guard until the isolate is gone.
    _heap_guard: Box<HeapGuard>,
}

/// The flag with which a worker gives its own outbound to workers that do not say.
const INHERIT_FLAG: &str = "dynamic_worker_inherits_outbound";
/// Messages taken from the inbox before the event loop gets a turn.
const BATCH_MAX: usize = 64;
/// CPU time that starting a worker may take, in milliseconds, whatever its invocation may use.
const STARTUP_CPU_MS: u64 = 1_000;
/// After a turn of this length the isolate's memory is looked at, in microseconds.
const LONG_TURN_US: u64 = 5_000;
/// Timers that may fire before the inbox gets a turn.
const TIMERS_PER_TURN_MAX: usize = 64;

impl Isolate {
    /// A pristine isolate: nothing of any tenant is in it.
    pub(crate) fn create(host: &Arc<HostShared>, slot: &Arc<Slot>, heap_mib: u32) -> Self {
        let external = External::new(usize::MAX);
        let params = v8::CreateParams::default()
            .heap_limits(0, heap_mib as usize * 1024 * 1024)
            .array_buffer_allocator(external.allocator().make_shared());
        let blobs = Blobs::new(&external, slot);
        let mut extensions = extensions(Arc::<Blobs>::clone(&blobs));
        for extension in &mut extensions {
            extension.middleware_fn = Some(Box::new(disable_dangerous));
        }
        let mut js = JsRuntime::new(RuntimeOptions {
            extensions,
            startup_snapshot: Some(Image::get().snapshot),
            skip_op_registration: true,
            create_params: Some(params),
            // What `structuredClone` moves waits here between its two halves; without it nothing is detached.
            shared_array_buffer_store: Some(deno_core::SharedArrayBufferStore::default()),
            ..RuntimeOptions::default()
        });
        let isolate = js.v8_isolate();
        slot.set_handle(isolate.thread_safe_handle());
        isolate.set_allow_atomics_wait(false);
        isolate.set_prepare_stack_trace_callback(crate::stack::prepare);
        isolate.set_promise_reject_callback(crate::rejections::on_reject);
        isolate.set_allow_wasm_code_generation_callback(deny_wasm_code_generation);
        isolate.set_slot(Rejections::default());
        let heap_guard = HeapGuard::watch(isolate, slot, heap_mib as usize * 1024 * 1024);
        let state =
            IsolateState::new(Arc::clone(host), Arc::clone(slot), external, crate::thread::dead_inbox());
        let state = Rc::new(RefCell::new(state));
        js.op_state().borrow_mut().put(Rc::clone(&state));
        let prelude = take_prelude(&mut js);
        Self {
            js,
            prelude,
            blobs,
            root: InvocationId(0),
            state,
            slot: Arc::clone(slot),
            host: Arc::clone(host),
            stirred: false,
            started: false,
            modules: None,
            _heap_guard: heap_guard,
        }
    }

    /// Becomes a worker and serves until its work is over, or it is stopped.
    pub(crate) async fn serve(
        mut self,
        spec: StartSpec,
        me: &Inbox,
        inbox: &mut UnboundedReceiver<IsolateMsg>,
    ) {
        let single = spec.single;
        {
            let mut state = self.state.borrow_mut();
            state.me = me.clone();
            state.depth = spec.depth;
            state.global_outbound.clone_from(&spec.outbound);
            state.inherits_outbound =
                spec.entry.bundle.compatibility().flags.iter().any(|flag| flag == INHERIT_FLAG);
            state.traced = spec.traced;
            state.flags.clone_from(&spec.entry.bundle.compatibility().flags);
            state.own = Some(Callee::Own(Arc::new(OwnWorker {
                host: Arc::downgrade(&self.host),
                inbox: me.clone(),
                limits: spec.limits,
                spec: spec.warm_key.is_some().then(|| spec.clone()),
            })));
            let external_bytes = spec.limits.external_mib as usize * 1024 * 1024;
            state.external.set_cap(external_bytes);
            self.slot.external_max.store(external_bytes as u64, Relaxed);
            self.slot.set_wall_deadline(now_us() + u64::from(spec.limits.wall_ms) * 1_000);
        }
        self.root = spec.root;
        let by_worker = spec.depth > 0;
        let mut failed = self.start(spec).await.err();
        if let (Some(outcome), Some(_)) = (&failed, self.slot.verdict()) {
            return self.refuse_all(inbox, outcome).await;
        }
        if by_worker {
            failed = failed.map(crate::stack::failed_to_start);
        }
        self.started = true;
        let mut served = false;
        let mut evicted = false;
        loop {
            if let Some(verdict) = self.slot.verdict() {
                self.end_stopped(verdict);
                return;
            }
            let idle = self.state.borrow().running.is_empty();
            if idle && (evicted || (single && served)) {
                return;
            }
            let Some(message) = self.next(inbox).await else { return };
            let mut next = message;
            let mut batch = 0;
            while let Some(message) = next.take() {
                match message {
                    IsolateMsg::Invoke(invocation) => {
                        served = true;
                        self.invoke(*invocation, &mut failed);
                    }
                    IsolateMsg::Evict => evicted = true,
                    other => self.handle(other),
                }
                self.settle();
                batch += 1;
                if batch < BATCH_MAX && self.slot.verdict().is_none() {
                    next = inbox.try_recv().ok();
                }
            }
        }
    }

    /// A start that was stopped is the end of everything that waits for it.
    async fn refuse_all(&mut self, inbox: &mut UnboundedReceiver<IsolateMsg>, outcome: &Outcome) {
        inbox.close();
        while let Some(message) = inbox.recv().await {
            if let IsolateMsg::Invoke(mut invocation) = message {
                let mut state = self.state.borrow_mut();
                let number = state.begin(&mut invocation);
                if let Work::Rpc(call) = invocation.work {
                    call.reply.outcome(outcome);
                }
                state.finish(number, outcome.clone());
            }
        }
    }

    /// Waits for a message, running timers, expiries and the event loop meanwhile. `None` when nobody can send any
    /// more; `Some(None)` when something else needs a look.
    async fn next(&mut self, inbox: &mut UnboundedReceiver<IsolateMsg>) -> Option<Option<IsolateMsg>> {
        if let Ok(message) = inbox.try_recv() {
            return Some(Some(message));
        }
        if !self.stirred && self.end_hung() {
            return Some(None);
        }
        let deadline = {
            let state = self.state.borrow();
            [state.timer_us, state.earliest_wall_deadline()].into_iter().flatten().min()
        };
        let pause = Duration::from_micros(deadline.map_or(u64::MAX / 2, |at| at.saturating_sub(now_us())));
        let timer = async {
            if deadline.is_some() {
                tokio::time::sleep(pause).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        let stirred = self.stirred;
        tokio::select! {
            biased;
            message = inbox.recv() => message.map(Some),
            () = timer => {
                self.tick();
                Some(None)
            }
            () = poll_fn(|cx| if stirred { self.poll_event_loop(cx) } else { Poll::Pending }) => Some(None),
        }
    }

    /// One turn of Deno's event loop: async ops such as WebCrypto's. Ready when JavaScript may have moved.
    fn poll_event_loop(&mut self, cx: &mut std::task::Context<'_>) -> Poll<()> {
        self.enter();
        let poll = self.js.poll_event_loop(cx, PollEventLoopOptions::default());
        self.exit();
        match poll {
            Poll::Ready(_) => {
                self.stirred = false;
                self.settle();
                Poll::Ready(())
            }
            Poll::Pending => {
                let moved = {
                    let state = self.state.borrow();
                    !state.wakes.is_empty() || !state.ended.is_empty()
                };
                if moved || self.slot.verdict().is_some() {
                    self.settle();
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            }
        }
    }

    /// Due timers and expired invocations.
    fn tick(&mut self) {
        let now = now_us();
        self.state.borrow_mut().expire(now);
        if self.state.borrow().timer_us.is_some_and(|at| at <= now) {
            let mut fired = 0;
            while self.slot.verdict().is_none()
                && fired < TIMERS_PER_TURN_MAX
                && self.call_prelude(|prelude| &prelude.fire_timer, |_, _| Some(vec![]))
            {
                fired += 1;
                self.settle();
            }
        }
        self.settle();
    }

    fn handle(&mut self, message: IsolateMsg) {
        let mut state = self.state.borrow_mut();
        match message {
            IsolateMsg::Rpc { export, call } => {
                drop(state);
                self.call_export(export, call);
            }
            IsolateMsg::Released { export } => {
                let known = state.released(export);
                drop(state);
                if known {
                    self.call_prelude(
                        |prelude| &prelude.on_rpc,
                        |scope, _| {
                            let kind = v8::Integer::new(scope, 2).into();
                            Some(vec![kind, v8::Integer::new_from_unsigned(scope, export).into()])
                        },
                    );
                }
            }
            IsolateMsg::Returned { call, result } => state.returned(call, result),
            IsolateMsg::MethodReturned { invocation, call, result } => {
                state.method_returned((invocation, call), result);
            }
            IsolateMsg::Unwanted { caller, call } => {
                let number = state.unwanted(&caller, call);
                drop(state);
                if let Some(number) = number {
                    self.call_prelude(
                        |prelude| &prelude.on_rpc,
                        |scope, _| {
                            let kind = v8::Integer::new(scope, 4).into();
                            Some(vec![kind, v8::Integer::new_from_unsigned(scope, number).into()])
                        },
                    );
                }
            }
            IsolateMsg::CallerDone { invocation } => state.caller_done(invocation),
            IsolateMsg::Body(frame) => state.body_frame(frame),
            IsolateMsg::Reply { invocation, call, result } => state.reply(invocation, call, result),
            IsolateMsg::ChildDone { invocation, outcome, usage, trace } => {
                state.child_done(invocation, outcome, usage, trace)
            }
            IsolateMsg::Opened { invocation, call, session } => state.opened((invocation, call), *session),
            IsolateMsg::Cancel { invocation } => state.cancel(invocation),
            IsolateMsg::Invoke(_) | IsolateMsg::Evict => {}
        }
    }

    /// Delivers news to JavaScript until there is none, and forgets what ended.
    fn settle(&mut self) {
        loop {
            let (wakes, ended) = {
                let mut state = self.state.borrow_mut();
                (std::mem::take(&mut state.wakes), std::mem::take(&mut state.ended))
            };
            if self.slot.verdict().is_some() || (wakes.is_empty() && ended.is_empty()) {
                break;
            }
            for (number, wake) in wakes {
                if matches!(wake, Wake::Stream) {
                    self.state.borrow_mut().socket_turn(number);
                }
                self.call_prelude(
                    |prelude| &prelude.wake,
                    |scope, _| values::wake_arguments(scope, number, wake),
                );
            }
            let over = self.state.borrow().running.is_empty();
            for number in ended {
                // With nothing left there may be no later turn; a single-use isolate need not tidy up.
                if !over || self.state.borrow().timer_us.is_some() {
                    self.call_prelude(
                        |prelude| &prelude.forget,
                        |scope, _| Some(vec![v8::Integer::new_from_unsigned(scope, number).into()]),
                    );
                }
            }
        }
        self.report_rejections();
    }

    // ---- Entering JavaScript -------------------------------------------------------------------------------

    fn enter(&mut self) {
        crate::clock::advance();
        let helped_us = self.slot.helpers.take_us();
        let mut state = self.state.borrow_mut();
        let current = state.payer();
        let (spent_us, left_us, root) = match state.running.get_mut(&current) {
            None => (0, STARTUP_CPU_MS * 1_000, self.root),
            Some(running) => {
                running.cpu_us += helped_us;
                let limit_us = u64::from(running.limits.cpu_ms) * 1_000;
                (running.cpu_us, limit_us.saturating_sub(running.cpu_us), running.root.id)
            }
        };
        drop(state);
        self.slot.enter(spent_us, left_us, root);
    }

    fn exit(&mut self) {
        let (spent_us, took_us) = self.slot.exit();
        if took_us > LONG_TURN_US || !memory::look_outside(self.js.v8_isolate(), &self.slot) {
            memory::look(self.js.v8_isolate(), &self.slot);
        }
        if self.blobs.want_collection() {
            self.js.v8_isolate().low_memory_notification();
            self.stirred = true;
        }
        let mut state = self.state.borrow_mut();
        let current = state.payer();
        match state.running.get_mut(&current) {
            Some(running) => running.cpu_us += spent_us,
            None if !self.started => state.startup_cpu_us += spent_us,
            None => {}
        }
    }

    /// Calls a function of the prelude, then drains microtasks. True if it returned something true.
    fn call_prelude(
        &mut self,
        function: impl FnOnce(&Prelude) -> &v8::Global<v8::Function>,
        arguments: impl for<'s> FnOnce(
            &mut v8::PinScope<'s, '_>,
            &Arc<HostShared>,
        ) -> Option<Vec<v8::Local<'s, v8::Value>>>,
    ) -> bool {
        self.enter();
        let truthy = {
            deno_core::scope!(scope, &mut self.js);
            v8::tc_scope!(let scope, scope);
            let function = v8::Local::new(scope, function(&self.prelude));
            let receiver = v8::undefined(scope).into();
            let result = match arguments(scope, &self.host) {
                Some(arguments) => function.call(scope, receiver, &arguments),
                None => None,
            };
            let truthy = result.is_some_and(|value| value.boolean_value(scope));
            scope.perform_microtask_checkpoint();
            truthy
        };
        self.stirred = true;
        self.exit();
        truthy
    }

    // ---- Start and invocations ------------------------------------------------------------------------------

    async fn start(&mut self, spec: StartSpec) -> Result<(), Outcome> {
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
    fn evaluate(
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
    async fn await_startup(&mut self, promise: &v8::Global<v8::Promise>) -> Result<(), Outcome> {
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

    fn invoke(&mut self, mut invocation: Invocation, failed: &mut Option<Outcome>) {
        let number = self.state.borrow_mut().begin(&mut invocation);
        if let Some(outcome) = failed {
            if let Work::Rpc(call) = invocation.work {
                call.reply.outcome(outcome);
            }
            self.state.borrow_mut().finish(number, outcome.clone());
            return;
        }
        self.state.borrow_mut().current = number;
        let Invocation { id, peer, entrypoint, props, work, .. } = invocation;
        let props = self.state.borrow_mut().keep_props(props);
        let event = match work {
            Work::Event(event) => event,
            Work::Tail(item) => {
                self.call_prelude(
                    |prelude| &prelude.on_rpc,
                    |scope, _| values::tail_arguments(scope, number, entrypoint, props, &item),
                );
                return self.after_invoke();
            }
            Work::Rpc(RpcCall { path, arguments, reply }) => {
                let (call, message) = {
                    let mut state = self.state.borrow_mut();
                    let message = arguments.map_or(0, |message| state.keep_message(message));
                    (state.answer_later(number, reply), message)
                };
                self.call_prelude(
                    |prelude| &prelude.on_rpc,
                    |scope, _| {
                        values::rpc_entry_arguments(scope, number, entrypoint, props, call, &path, message)
                    },
                );
                return self.after_invoke();
            }
        };
        match event {
            Event::Fetch(request) => {
                let HttpRequest { method, url, headers, body, .. } = request;
                let body = {
                    let mut state = self.state.borrow_mut();
                    let body = state.accept(number, &peer, id, body);
                    if asks_for_socket(&method, &headers) { state.hold_socket(number, body) } else { body }
                };
                self.call_prelude(
                    |prelude| &prelude.on_fetch,
                    |scope, _| {
                        values::fetch_arguments(
                            scope, number, entrypoint, props, &method, &url, &headers, body,
                        )
                    },
                );
            }
            Event::Scheduled { cron, time_ms } => {
                self.call_prelude(
                    |prelude| &prelude.on_scheduled,
                    |scope, _| values::scheduled_arguments(scope, number, entrypoint, props, &cron, time_ms),
                );
            }
            // The router joins sessions with a call; none comes here by itself.
            Event::Session { .. } => self.state.borrow_mut().finish(number, Outcome::Refused(String::new())),
            Event::Execute { input } => {
                self.call_prelude(
                    |prelude| &prelude.on_execute,
                    |scope, _| {
                        Some(vec![
                            v8::Integer::new_from_unsigned(scope, number).into(),
                            string(scope, &input)?.into(),
                        ])
                    },
                );
            }
        }
        self.after_invoke();
    }

    /// Ends sessions that nothing can bring further. True if there was one.
    fn end_hung(&mut self) -> bool {
        let stuck = self.state.borrow().stuck_sessions();
        let mut found = false;
        for number in stuck {
            let has_timer = self.call_prelude(
                |prelude| &prelude.on_rpc,
                |scope, _| {
                    let kind = v8::Integer::new(scope, 3).into();
                    Some(vec![kind, v8::Integer::new_from_unsigned(scope, number).into()])
                },
            );
            // Asking moved nothing: the event loop need not look again.
            self.stirred = false;
            if !has_timer {
                self.state.borrow_mut().finish(number, Outcome::Hung);
                found = true;
            }
        }
        if found {
            self.settle();
        }
        found
    }

    /// A call on an object that this isolate handed out runs under the invocation that did.
    fn call_export(&mut self, export: u32, call: RpcCall) {
        let RpcCall { path, arguments, reply } = call;
        let (call, message) = {
            let mut state = self.state.borrow_mut();
            let Some((owner, call)) = state.incoming(export, reply) else { return };
            state.current = owner;
            (call, arguments.map_or(0, |message| state.keep_message(message)))
        };
        self.call_prelude(
            |prelude| &prelude.on_rpc,
            |scope, _| values::rpc_export_arguments(scope, export, call, &path, message),
        );
    }

    /// Code caches, once the first answer is out, and the heap, where the end of the invocation did not look at it.
    fn after_invoke(&mut self) {
        let mut state = self.state.borrow_mut();
        if !state.running.is_empty() {
            state.note_heap(self.js.v8_isolate());
        }
        drop(state);
        if let Some(modules) = self.modules.take() {
            deno_core::scope!(scope, &mut self.js);
            modules.save_caches(scope);
        }
    }

    /// Every invocation of a stopped isolate ends with the reason.
    fn end_stopped(&mut self, verdict: Verdict) {
        self.state.borrow_mut().finish_all(&stopped(verdict));
    }

    fn report_rejections(&mut self) {
        let lines = {
            deno_core::scope!(scope, &mut self.js);
            crate::rejections::take_lines(scope)
        };
        let mut state = self.state.borrow_mut();
        for line in lines {
            let number = state.payer();
            state.log(number, LogLevel::Error, line);
        }
    }
}

pub(crate) fn stopped(verdict: Verdict) -> Outcome {
    verdict.limit().map_or(Outcome::Canceled, Outcome::Limit)
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
unsafe extern "C" fn deny_wasm_code_generation(
    _context: v8::Local<v8::Context>,
    _source: v8::Local<v8::String>,
) -> bool {
    false
}

/// Takes the prelude's functions and removes the last ways from the global object to the host.
fn take_prelude(js: &mut JsRuntime) -> Prelude {
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
