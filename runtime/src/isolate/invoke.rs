//! What an isolate is asked to run: handlers, calls of entrypoints, calls on what it handed out.

use atoll_bindings::seam::{Event, HttpRequest, Outcome};

use super::Isolate;
use crate::message::{Invocation, Work};
use crate::modules::string;
use crate::rpc::RpcCall;
use crate::socket::asks_for_socket;
use crate::values;

impl Isolate {
    pub(super) fn invoke(&mut self, mut invocation: Invocation, failed: &mut Option<Outcome>) {
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
    pub(super) fn end_hung(&mut self) -> bool {
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
    pub(super) fn call_export(&mut self, export: u32, call: RpcCall) {
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
    pub(super) fn after_invoke(&mut self) {
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
}
