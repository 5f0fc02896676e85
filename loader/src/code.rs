//! Worker code as it comes in: a description that nothing has checked yet.

use std::sync::Arc;

use bytes::Bytes;

use crate::bundle::Bundle;
use crate::checks::{self, CheckConfig};
use crate::compat::DEFAULT_COMPATIBILITY_DATE;
use crate::error::CodeError;
use crate::limits::Limits;

/// A module's body and what it claims to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModuleSource {
    /// A bare string: the name's ending says what it is.
    Plain(Arc<str>),
    /// An ECMAScript module.
    Js(Arc<str>),
    /// A CommonJS module.
    Cjs(Arc<str>),
    /// A string.
    Text(Arc<str>),
    /// Bytes.
    Data(Bytes),
    /// JSON text.
    Json(Arc<str>),
    /// A Python module: refused.
    Py(Arc<str>),
    /// A WebAssembly binary.
    Wasm(Bytes),
    /// TypeScript, or JavaScript with JSX if the name ends in `x`.
    Ts(Arc<str>),
    /// An object with no kind or several: refused, with the count in the message.
    Ambiguous {
        /// How many kinds it had.
        kinds: usize,
    },
    /// A code cache or snapshot: refused.
    Compiled {
        /// The field that held it.
        field: String,
    },
}

impl ModuleSource {
    /// Its text or bytes as they came; empty for what will be refused.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Plain(text)
            | Self::Js(text)
            | Self::Cjs(text)
            | Self::Text(text)
            | Self::Json(text)
            | Self::Py(text)
            | Self::Ts(text) => text.as_bytes(),
            Self::Data(bytes) | Self::Wasm(bytes) => bytes,
            Self::Ambiguous { .. } | Self::Compiled { .. } => &[],
        }
    }
}

/// Limits that the code asks for; the lower of these and the caller's holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CodeLimits {
    /// CPU time per invocation, in milliseconds.
    pub cpu_ms: Option<u32>,
    /// Subrequests per invocation.
    pub sub_requests: Option<u32>,
}

impl CodeLimits {
    /// What holds: the lower of what the code asks for and what the caller grants.
    #[must_use]
    pub fn within(self, granted: Limits) -> Limits {
        Limits {
            cpu_ms: self.cpu_ms.map_or(granted.cpu_ms, |ms| ms.min(granted.cpu_ms)),
            subrequests: self.sub_requests.map_or(granted.subrequests, |n| n.min(granted.subrequests)),
            ..granted
        }
    }
}

/// Worker code, unchecked. [`WorkerCode::build`] makes a [`Bundle`] of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerCode {
    /// `YYYY-MM-DD`.
    pub compatibility_date: String,
    /// Flags, as given.
    pub compatibility_flags: Vec<String>,
    /// Whether experimental flags are meant.
    pub allow_experimental: bool,
    /// Name of the main module.
    pub main_module: String,
    /// Names and bodies, in the order given.
    pub modules: Vec<(String, ModuleSource)>,
    /// Limits that the code asks for.
    pub limits: CodeLimits,
}

impl WorkerCode {
    /// Code without modules yet, at the default compatibility date.
    #[must_use]
    pub fn new(main_module: impl Into<String>) -> Self {
        Self {
            compatibility_date: DEFAULT_COMPATIBILITY_DATE.to_owned(),
            compatibility_flags: Vec::new(),
            allow_experimental: false,
            main_module: main_module.into(),
            modules: Vec::new(),
            limits: CodeLimits::default(),
        }
    }

    /// Adds a module.
    #[must_use]
    pub fn module(mut self, name: impl Into<String>, source: ModuleSource) -> Self {
        self.modules.push((name.into(), source));
        self
    }

    /// Adds a module whose kind its name says (`.js`, `.ts`, …).
    #[must_use]
    pub fn js(self, name: impl Into<String>, source: impl Into<Arc<str>>) -> Self {
        self.module(name, ModuleSource::Plain(source.into()))
    }

    /// Sets the compatibility date.
    #[must_use]
    pub fn compatibility_date(mut self, date: impl Into<String>) -> Self {
        self.compatibility_date = date.into();
        self
    }

    /// Adds a compatibility flag.
    #[must_use]
    pub fn compatibility_flag(mut self, flag: impl Into<String>) -> Self {
        self.compatibility_flags.push(flag.into());
        self
    }

    /// Checks everything with the default configuration, strips types and makes a bundle.
    ///
    /// # Errors
    /// The first check that refuses the code.
    pub fn build(self) -> Result<Bundle, CodeError> {
        self.build_with(&CheckConfig::default())
    }

    /// Checks everything, the operator's rules included, strips types and makes a bundle.
    ///
    /// # Errors
    /// The first check that refuses the code.
    pub fn build_with(self, config: &CheckConfig) -> Result<Bundle, CodeError> {
        checks::run(self, config)
    }
}
