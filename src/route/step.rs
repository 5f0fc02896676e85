//! A step: one piece of work, with everything that is known about it before it runs.

use std::collections::BTreeSet;

use atoll_loader::WorkerCode;
use atoll_loader::uses::{self, Use, Uses};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::missing::Missing;

/// What a step is written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// JavaScript.
    #[default]
    #[serde(alias = "javascript")]
    Js,
    /// TypeScript.
    #[serde(alias = "typescript")]
    Ts,
    /// Python.
    #[serde(alias = "py")]
    Python,
    /// A script for `sh`.
    #[serde(alias = "sh", alias = "bash")]
    Shell,
    /// A program with its arguments, one line.
    Command,
}

impl Language {
    /// Every language.
    pub const ALL: [Self; 5] = [Self::Js, Self::Ts, Self::Python, Self::Shell, Self::Command];

    /// As configurations and answers write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Js => "js",
            Self::Ts => "ts",
            Self::Python => "python",
            Self::Shell => "shell",
            Self::Command => "command",
        }
    }

    /// Whether V8 can run it.
    #[must_use]
    pub fn runs_in_isolate(self) -> bool {
        matches!(self, Self::Js | Self::Ts)
    }

    /// The loader's word for it; `None` for what an isolate cannot run.
    #[must_use]
    pub fn of_snippet(self) -> Option<atoll_loader::Language> {
        match self {
            Self::Js => Some(atoll_loader::Language::Js),
            Self::Ts => Some(atoll_loader::Language::Ts),
            Self::Python | Self::Shell | Self::Command => None,
        }
    }
}

/// What a step's author says that it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Need {
    /// Files.
    Filesystem,
    /// Other processes.
    Process,
    /// A native Node.js module, or any other binary.
    NativeModule,
    /// A Python interpreter.
    Python,
    /// Connections other than HTTP requests: TCP, UDP, listening.
    Sockets,
    /// HTTP requests to hosts that it is allowed to reach; both runtimes have them.
    Http,
}

impl Need {
    /// Every need.
    pub const ALL: [Self; 6] =
        [Self::Filesystem, Self::Process, Self::NativeModule, Self::Python, Self::Sockets, Self::Http];

    /// As requests write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Filesystem => "filesystem",
            Self::Process => "process",
            Self::NativeModule => "native-module",
            Self::Python => "python",
            Self::Sockets => "sockets",
            Self::Http => "http",
        }
    }

    /// Whether an isolate can never satisfy it.
    #[must_use]
    pub fn needs_sandbox(self) -> bool {
        self != Self::Http
    }
}

/// The class of network that the needs of a step come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// None.
    None,
    /// HTTP requests through the gateway.
    Http,
    /// Any connection.
    Sockets,
}

/// SHA-256 of a step's language, code and modules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CodeHash(pub [u8; 32]);

impl std::fmt::Display for CodeHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl CodeHash {
    /// The hash of a step's source: of each part with its length, so that no two splits are the same.
    #[must_use]
    pub fn of<'a>(language: Language, parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(language.name());
        for part in parts {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self(hasher.finalize().into())
    }
}

/// The parts of code that make its size and its hash: names and bodies of its modules.
fn parts(code: &WorkerCode) -> impl Iterator<Item = &[u8]> {
    code.modules.iter().flat_map(|(name, source)| [name.as_bytes(), source.bytes()])
}

impl CodeHash {
    /// The hash of worker code: of its main module's name, and of every module.
    #[must_use]
    pub fn of_code(language: Language, code: &WorkerCode) -> Self {
        Self::of(language, std::iter::once(code.main_module.as_bytes()).chain(parts(code)))
    }
}

/// One piece of work, as the policy sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Who asks.
    pub tenant: String,
    /// What it is written in.
    pub language: Language,
    /// What its author declares.
    pub needs: BTreeSet<Need>,
    /// Specifiers of foreign modules that it imports.
    pub imports: BTreeSet<String>,
    /// Telling globals that it uses.
    pub globals: BTreeSet<Use>,
    /// Size of its source and modules, in bytes.
    pub size_bytes: u64,
    /// Memory that it asks for, in MiB.
    pub memory_mib: Option<u32>,
    /// Wall time that it asks for, in milliseconds.
    pub wall_ms: Option<u32>,
    /// What an earlier run of the same code in an isolate lacked.
    pub learned: Option<Missing>,
}

impl Step {
    /// A step about which nothing but its language and size is known.
    #[must_use]
    pub fn new(tenant: impl Into<String>, language: Language, size_bytes: u64) -> Self {
        Self { tenant: tenant.into(), language, size_bytes, ..Self::default() }
    }

    /// Takes over the size of the code and what static analysis finds in it. Code that cannot be analysed is
    /// refused, or found out, where it runs.
    #[must_use]
    pub fn analysed(mut self, code: &WorkerCode) -> Self {
        self.size_bytes = parts(code).map(|part| part.len() as u64).sum();
        if let Ok(Uses { imports, dynamic_imports, requires, globals, .. }) = uses::of(code) {
            self.imports = [imports, dynamic_imports, requires].into_iter().flatten().collect();
            self.globals = globals;
        }
        self
    }

    /// What the step needs that no isolate has, or `None`: nothing may send such a step to an isolate.
    #[must_use]
    pub fn must_have(&self) -> Option<String> {
        if !self.language.runs_in_isolate() {
            return Some(format!("{} does not run in an isolate", self.language.name()));
        }
        let need = self.needs.iter().find(|need| need.needs_sandbox())?;
        Some(format!("it declares a need for {}, which no isolate has", need.name()))
    }

    /// The network that it declares.
    #[must_use]
    pub fn network(&self) -> Network {
        if self.needs.contains(&Need::Sockets) {
            Network::Sockets
        } else if self.needs.contains(&Need::Http) {
            Network::Http
        } else {
            Network::None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_tell_codes_apart() {
        let code = |main: &str, a: &str, b: &str| WorkerCode::new(main).js("a.js", a).js("b.js", b);
        let base = CodeHash::of_code(Language::Js, &code("a.js", "1", "2"));
        assert_eq!(base, CodeHash::of_code(Language::Js, &code("a.js", "1", "2")));
        for other in [
            CodeHash::of_code(Language::Ts, &code("a.js", "1", "2")),
            CodeHash::of_code(Language::Js, &code("b.js", "1", "2")),
            CodeHash::of_code(Language::Js, &code("a.js", "12", "")),
            CodeHash::of_code(Language::Js, &code("a.js", "", "12")),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn analysis_fills_in_size_imports_and_globals() {
        let text = "import 'node:fs'; import('x'); process.exit()";
        let code = WorkerCode::new("a.js").js("a.js", text);
        let step = Step::new("acme", Language::Js, 0).analysed(&code);
        assert_eq!(step.size_bytes, ("a.js".len() + text.len()) as u64);
        assert_eq!(step.imports, ["node:fs".to_owned(), "x".to_owned()].into());
        assert_eq!(step.globals, [Use::Process].into());
        assert_eq!(step.network(), Network::None);
    }

    #[test]
    fn names_are_those_of_json() {
        for language in Language::ALL {
            assert_eq!(serde_json::to_value(language).unwrap(), language.name());
        }
        for need in Need::ALL {
            assert_eq!(serde_json::to_value(need).unwrap(), need.name());
        }
    }
}
