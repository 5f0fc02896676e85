//! Stacks as the author of the code sees them.
//!
//! V8 asks for the text of `error.stack` when it is first read. Frames of the runtime's own scripts are left out, and
//! frames of a module with a source map name the author's file and line. `Error.prepareStackTrace` works as in every
//! V8 host: a guest's own function gets the call sites instead (the runtime's own are left out there, too).

use atoll_bindings::seam::{GuestError, Outcome};

use crate::modules::{Modules, string};

/// What the runtime's own scripts are called.
const OWN_SCHEME: &str = "ext:";

/// V8's hook for the value of `error.stack`.
pub(crate) fn prepare<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    error: v8::Local<'s, v8::Value>,
    sites: v8::Local<'s, v8::Array>,
) -> v8::Local<'s, v8::Value> {
    let undefined = v8::undefined(scope).into();
    let (sites, lines) = guest_frames(scope, sites);
    match guest_function(scope) {
        Some((receiver, function)) => {
            let sites = v8::Array::new_with_elements(scope, &sites);
            // If it throws, the exception is the guest's to see.
            function.call(scope, receiver, &[error, sites.into()]).unwrap_or(undefined)
        }
        None => text(scope, error, &lines).unwrap_or(undefined),
    }
}

/// `Error` and its `prepareStackTrace`, if the guest set one.
fn guest_function<'s>(
    scope: &mut v8::PinScope<'s, '_>,
) -> Option<(v8::Local<'s, v8::Value>, v8::Local<'s, v8::Function>)> {
    v8::tc_scope!(let scope, scope);
    let global = scope.get_current_context().global(scope);
    let name = string(scope, "Error")?;
    let constructor = global.get(scope, name.into())?.try_cast::<v8::Object>().ok()?;
    let name = string(scope, "prepareStackTrace")?;
    let function = constructor.get(scope, name.into())?.try_cast::<v8::Function>().ok()?;
    Some((constructor.into(), function))
}

/// The frames that are not the runtime's own: call sites and their text.
fn guest_frames<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    sites: v8::Local<'s, v8::Array>,
) -> (Vec<v8::Local<'s, v8::Value>>, Vec<String>) {
    let (mut kept, mut lines) = (Vec::new(), Vec::new());
    for at in 0..sites.length() {
        v8::tc_scope!(let scope, scope);
        let Some(site) = sites.get_index(scope, at) else { continue };
        // A guest may have replaced the call sites' `toString`; what it hides there is its own affair.
        let Some(line) = site.to_string(scope) else { continue };
        let line = line.to_rust_string_lossy(scope);
        if !Frame::of(&line).place.starts_with(OWN_SCHEME) {
            kept.push(site);
            lines.push(line);
        }
    }
    (kept, lines)
}

fn text<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    error: v8::Local<'s, v8::Value>,
    lines: &[String],
) -> Option<v8::Local<'s, v8::Value>> {
    let mut text = header(scope, error);
    let modules = Modules::of(scope);
    for line in lines {
        text.push_str("\n    at ");
        text.push_str(&mapped(line, modules.as_deref()));
    }
    Some(string(scope, &text)?.into())
}

/// `Name: message`, as `Error.prototype.toString` says it.
fn header(scope: &mut v8::PinScope, error: v8::Local<v8::Value>) -> String {
    v8::tc_scope!(let scope, scope);
    let property = |key: &str, default: &str| {
        let value = (|| {
            let key = string(scope, key)?;
            let value = error.try_cast::<v8::Object>().ok()?.get(scope, key.into())?;
            if value.is_undefined() {
                return None;
            }
            Some(value.to_string(scope)?.to_rust_string_lossy(scope))
        })();
        value.unwrap_or_else(|| default.to_owned())
    };
    let name = property("name", "Error");
    let message = property("message", "");
    match (name.is_empty(), message.is_empty()) {
        (true, _) => message,
        (_, true) => name,
        (false, false) => format!("{name}: {message}"),
    }
}

/// One line of a stack: `f (m.js:1:2)`, or a place alone.
#[derive(Debug, PartialEq, Eq)]
struct Frame<'a> {
    /// What comes before the place: a function's name, or `async `.
    head: &'a str,
    place: &'a str,
    /// The closing bracket.
    tail: &'a str,
}

impl<'a> Frame<'a> {
    fn of(line: &'a str) -> Self {
        if let Some(open) = line.ends_with(')').then(|| line.rfind(" (")).flatten() {
            let (head, rest) = line.split_at(open + 2);
            return Self { head, place: &rest[..rest.len() - 1], tail: ")" };
        }
        match line.strip_prefix("async ") {
            Some(place) => Self { head: "async ", place, tail: "" },
            None => Self { head: "", place: line, tail: "" },
        }
    }

    /// File, line and column, both from 1.
    fn position(&self) -> Option<(&'a str, u32, u32)> {
        let (rest, column) = self.place.rsplit_once(':')?;
        let (file, line) = rest.rsplit_once(':')?;
        Some((file, line.parse().ok()?, column.parse().ok()?))
    }
}

fn mapped(line: &str, modules: Option<&Modules>) -> String {
    let frame = Frame::of(line);
    let author = modules
        .zip(frame.position())
        .and_then(|(modules, (file, line, column))| modules.author_position(file, line, column));
    match author {
        Some((file, line, column)) => format!("{}{file}:{line}:{column}{}", frame.head, frame.tail),
        None => line.to_owned(),
    }
}

/// What a worker's parent is told when the worker does not start: Workers' words for it.
pub(crate) fn failed_to_start(outcome: Outcome) -> Outcome {
    let error = match outcome {
        Outcome::GuestError(error) => error,
        Outcome::Hung => GuestError {
            name: "Error".into(),
            message: "Top-level await in module is unsettled.".into(),
            stack: None,
        },
        other => return other,
    };
    let mut message = format!("Failed to start Worker:\nUncaught {}", error.name);
    if !error.message.is_empty() {
        message.push_str(": ");
        message.push_str(&error.message);
    }
    for line in error.stack.iter().flat_map(|stack| stack.lines()) {
        let Some(line) = line.strip_prefix("    at ") else { continue };
        let frame = Frame::of(line);
        message.push_str("\n  at ");
        message.push_str(frame.place);
        let function = frame.head.trim_end_matches(" (").trim_end();
        if !function.is_empty() && function != "async" {
            message.push_str(" in ");
            message.push_str(function.strip_prefix("async ").unwrap_or(function));
        }
    }
    Outcome::GuestError(GuestError { name: "Error".into(), message, stack: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_a_name_and_a_place() {
        let frame = Frame::of("async Object.fetch (src/index.ts:3:9)");
        assert_eq!(frame, Frame { head: "async Object.fetch (", place: "src/index.ts:3:9", tail: ")" });
        assert_eq!(frame.position(), Some(("src/index.ts", 3, 9)));
        assert_eq!(Frame::of("async m.js:1:7").position(), Some(("m.js", 1, 7)));
        assert_eq!(Frame::of("new Promise (<anonymous>)").position(), None);
    }

    #[test]
    fn a_failed_start_says_where() {
        let stack = "RangeError: at startup\n    at f (m.js:1:7)\n    at m.js:3:1";
        let error =
            GuestError { name: "RangeError".into(), message: "at startup".into(), stack: Some(stack.into()) };
        let Outcome::GuestError(told) = failed_to_start(Outcome::GuestError(error)) else { panic!() };
        assert_eq!(
            told.message,
            "Failed to start Worker:\nUncaught RangeError: at startup\n  at m.js:1:7 in f\n  at m.js:3:1"
        );
        let Outcome::GuestError(told) = failed_to_start(Outcome::Hung) else { panic!() };
        assert!(told.message.ends_with("Uncaught Error: Top-level await in module is unsettled."));
        assert!(matches!(failed_to_start(Outcome::Canceled), Outcome::Canceled));
    }
}
