//! One isolate: a `JsRuntime` from the startup snapshot, its state, and the loop that serves its inbox.

mod enter;
mod invoke;
mod start;

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::Duration;

use atoll_bindings::seam::{InvocationId, LogLevel, Outcome};
use deno_core::{JsRuntime, PollEventLoopOptions, RuntimeOptions};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::blobs::Blobs;
use crate::host::HostShared;
use crate::image::{Image, disable_dangerous, extensions};
use crate::memory::{External, HeapGuard};
use crate::message::{Inbox, IsolateMsg, Work};
use crate::modules::Modules;
use crate::rejections::Rejections;
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
    /// Before `js`, in the order in which fields are dropped.
    _over: Over,
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

/// Nobody waits for what comes after: the isolate is taken apart.
struct Over(Arc<Slot>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.set_aside(true);
    }
}

/// The flag with which a worker gives its own outbound to workers that do not say.
const INHERIT_FLAG: &str = "dynamic_worker_inherits_outbound";
/// Messages taken from the inbox before the event loop gets a turn.
const BATCH_MAX: usize = 64;
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
        isolate.set_allow_wasm_code_generation_callback(start::deny_wasm_code_generation);
        isolate.set_slot(Rejections::default());
        let heap_guard = HeapGuard::watch(isolate, slot, heap_mib as usize * 1024 * 1024);
        let state =
            IsolateState::new(Arc::clone(host), Arc::clone(slot), external, crate::thread::dead_inbox());
        let state = Rc::new(RefCell::new(state));
        js.op_state().borrow_mut().put(Rc::clone(&state));
        let prelude = start::take_prelude(&mut js);
        Self {
            _over: Over(Arc::clone(slot)),
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
