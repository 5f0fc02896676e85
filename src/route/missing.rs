//! What a step lacked in an isolate, told from the error that it ended with.
//!
//! The error is the guest's own, so it may lie. All that a lie brings is that the liar's own step runs in a
//! sandbox.

use serde::{Deserialize, Serialize};

use super::modules::{self, Offer};

/// Something that an isolate does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Missing {
    /// Files.
    Filesystem,
    /// Processes, or the process's own surroundings.
    Process,
    /// Connections other than HTTP requests.
    Sockets,
    /// A native module.
    NativeModule,
    /// A module that is not part of the step and that the isolate does not offer.
    Module,
    /// Code made from text, or compiled WebAssembly, while running.
    CodeGeneration,
}

impl Missing {
    /// For people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Filesystem => "a filesystem",
            Self::Process => "processes",
            Self::Sockets => "sockets",
            Self::NativeModule => "a native module",
            Self::Module => "a module that is not part of the step",
            Self::CodeGeneration => "code made while running",
        }
    }

    /// What an exception says that was missing; `None` if it says something else.
    #[must_use]
    pub fn of_error(name: &str, message: &str) -> Option<Self> {
        if let Some(specifier) = between(message, "No such module \"", "\"") {
            return of_module(specifier);
        }
        // A function of a `node:` module that an isolate has in name only.
        if let Some(function) =
            message.strip_prefix("The ").and_then(|rest| rest.strip_suffix(" method is not implemented"))
        {
            return of_function(function);
        }
        match name {
            "ReferenceError" => of_global(message.strip_suffix(" is not defined")?),
            // What V8 says where code generation is switched off.
            "EvalError" if message.starts_with("Code generation from strings disallowed") => {
                Some(Self::CodeGeneration)
            }
            "CompileError" if message.contains("Wasm code generation disallowed") => {
                Some(Self::CodeGeneration)
            }
            _ => None,
        }
    }
}

fn of_module(specifier: &str) -> Option<Missing> {
    match modules::offer(specifier) {
        Offer::Needs(missing) => Some(missing),
        Offer::NotOffered if looks_like_a_file(specifier) => None,
        Offer::NotOffered => Some(Missing::Module),
        // Older compatibility dates are without them.
        Offer::Isolate => specifier.starts_with("node:").then_some(Missing::Module),
    }
}

/// `node:fs.readFile`, `crypto.createSign`.
fn of_function(name: &str) -> Option<Missing> {
    let (module, _) = name.split_once('.')?;
    match modules::offer(module) {
        Offer::Needs(missing) => Some(missing),
        Offer::NotOffered | Offer::Isolate => Some(Missing::Module),
    }
}

/// The error names the path that was looked for: `./a.js` is `a.js` in it, and a package stays `left-pad`.
fn looks_like_a_file(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    [".js", ".mjs", ".cjs", ".ts", ".mts", ".tsx", ".jsx", ".json", ".txt", ".wasm"]
        .iter()
        .any(|ending| name.ends_with(ending))
}

fn of_global(name: &str) -> Option<Missing> {
    match name {
        "process" | "Deno" | "Bun" => Some(Missing::Process),
        "require" | "module" | "exports" => Some(Missing::Module),
        "__dirname" | "__filename" => Some(Missing::Filesystem),
        _ => None,
    }
}

fn between<'a>(text: &'a str, begin: &str, end: &str) -> Option<&'a str> {
    let rest = &text[text.find(begin)? + begin.len()..];
    Some(&rest[..rest.find(end)?])
}

/// Whether a step that failed in an isolate may run again in a sandbox: it lacked something there, and running
/// it twice changes nothing outside, because it called nobody or because its author says so.
#[must_use]
pub fn may_repeat(missing: Option<Missing>, subrequests: u32, idempotent: bool) -> bool {
    missing.is_some() && (subrequests == 0 || idempotent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_apart() {
        for (name, message, expect) in [
            ("Error", "No such module \"node:fs\".\n  imported from \"main.js\"", Some(Missing::Filesystem)),
            ("Error", "No such module \"node:child_process\".", Some(Missing::Process)),
            ("Error", "No such module \"fs/promises\".", Some(Missing::Filesystem)),
            ("Error", "No such module \"left-pad\".", Some(Missing::Module)),
            ("Error", "No such module \"node:path\".", Some(Missing::Module)),
            ("Error", "The node:fs.readFile method is not implemented", Some(Missing::Filesystem)),
            ("Error", "The node:http.request method is not implemented", Some(Missing::Sockets)),
            ("Error", "The crypto.createSign method is not implemented", Some(Missing::Module)),
            ("Error", "The method is not implemented", None),
            ("Error", "No such module \"sharp\".", Some(Missing::NativeModule)),
            ("Error", "No such module \"lib/missing.js\".", None),
            ("Error", "No such module \"../x\".", None),
            ("ReferenceError", "process is not defined", Some(Missing::Process)),
            ("ReferenceError", "require is not defined", Some(Missing::Module)),
            ("ReferenceError", "Deno is not defined", Some(Missing::Process)),
            ("ReferenceError", "__dirname is not defined", Some(Missing::Filesystem)),
            ("ReferenceError", "proces is not defined", None),
            ("TypeError", "process is not defined", None),
            (
                "EvalError",
                "Code generation from strings disallowed for this context",
                Some(Missing::CodeGeneration),
            ),
            ("Error", "No such module \"", None),
            ("", "", None),
        ] {
            assert_eq!(Missing::of_error(name, message), expect, "{name}: {message}");
        }
    }

    #[test]
    fn only_what_is_safe_is_repeated() {
        assert!(may_repeat(Some(Missing::Process), 0, false));
        assert!(may_repeat(Some(Missing::Process), 3, true));
        assert!(!may_repeat(Some(Missing::Process), 1, false));
        assert!(!may_repeat(None, 0, true));
    }
}
