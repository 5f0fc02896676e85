//! Promise rejections that nobody handles: console errors, never the end of a worker.

use std::cell::RefCell;

/// Rejections remembered between two looks.
const REJECTIONS_MAX: usize = 32;

/// What was rejected since the last look and is still unhandled.
#[derive(Default)]
pub(crate) struct Rejections(RefCell<Vec<(v8::Global<v8::Promise>, v8::Global<v8::Value>)>>);

/// V8's hook for rejections without, and late, handlers.
pub(crate) extern "C" fn on_reject(message: v8::PromiseRejectMessage) {
    // SAFETY: V8 calls this on the isolate's thread with a live promise.
    v8::callback_scope!(unsafe scope, &message);
    let promise = message.get_promise();
    match message.get_event() {
        v8::PromiseRejectEvent::PromiseRejectWithNoHandler => {
            let Some(value) = message.get_value() else { return };
            let entry = (v8::Global::new(scope, promise), v8::Global::new(scope, value));
            if let Some(rejections) = scope.get_slot::<Rejections>() {
                let mut list = rejections.0.borrow_mut();
                if list.len() < REJECTIONS_MAX {
                    list.push(entry);
                }
            }
        }
        v8::PromiseRejectEvent::PromiseHandlerAddedAfterReject => {
            let promise = v8::Global::new(scope, promise);
            if let Some(rejections) = scope.get_slot::<Rejections>() {
                rejections.0.borrow_mut().retain(|(each, _)| *each != promise);
            }
        }
        v8::PromiseRejectEvent::PromiseRejectAfterResolved
        | v8::PromiseRejectEvent::PromiseResolveAfterResolved => {}
    }
}

/// Text for each rejection that is still unhandled.
pub(crate) fn take_lines(scope: &mut v8::PinScope) -> Vec<String> {
    let list = match scope.get_slot::<Rejections>() {
        Some(rejections) if !rejections.0.borrow().is_empty() => {
            std::mem::take(&mut *rejections.0.borrow_mut())
        }
        _ => return Vec::new(),
    };
    list.into_iter()
        .map(|(_, value)| {
            let value = v8::Local::new(scope, &value);
            let error = crate::values::guest_error(scope, value);
            format!(
                "Uncaught (in promise) {}",
                error.stack.unwrap_or_else(|| format!("{}: {}", error.name, error.message))
            )
        })
        .collect()
}
