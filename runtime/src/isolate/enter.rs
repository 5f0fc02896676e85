//! The way into JavaScript and out of it: whose CPU time it is, and what its memory looks like afterwards.

use std::sync::Arc;

use super::{Isolate, Prelude};
use crate::host::HostShared;
use crate::memory;

/// CPU time that starting a worker may take, in milliseconds, whatever its invocation may use.
const STARTUP_CPU_MS: u64 = 1_000;
/// After a turn of this length the isolate's memory is looked at, in microseconds.
const LONG_TURN_US: u64 = 5_000;

impl Isolate {
    pub(super) fn enter(&mut self) {
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

    pub(super) fn exit(&mut self) {
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
    pub(super) fn call_prelude(
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
}
