//! Why code was refused: one variant, one stable code and one message per check.

use std::sync::Arc;

use crate::limits::{CODE_BYTES_MAX, COMPATIBILITY_FLAGS_MAX, MODULE_NAME_BYTES_MAX, MODULES_MAX};

/// Where a syntax error is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The module's name.
    pub module: Arc<str>,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.module, self.line, self.column)
    }
}

/// What is wrong with a module's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameFault {
    /// Nothing left after normalisation.
    #[error("it is empty")]
    Empty,
    /// Over `MODULE_NAME_BYTES_MAX`.
    #[error("it is longer than {MODULE_NAME_BYTES_MAX} bytes")]
    TooLong,
    /// `..` as a segment.
    #[error("it leaves the bundle's root")]
    Escapes,
    /// A leading `/`.
    #[error("it is absolute")]
    Absolute,
    /// An empty segment, or `.` as an inner segment.
    #[error("it has an empty or '.' segment")]
    EmptySegment,
    /// `%` followed by two hex digits.
    #[error("it is percent-encoded")]
    Percent,
    /// NUL or another control character.
    #[error("it has a control character")]
    Control,
    /// `\`.
    #[error("it has a backslash")]
    Backslash,
    /// A bidirectional control or an invisible character.
    #[error("it has a bidirectional or invisible character")]
    Invisible,
    /// `scheme:`; such specifiers are absolute and never reach the bundle.
    #[error("it looks like a URL")]
    Scheme,
    /// A segment like `__proto__`.
    #[error("it is a property of every JavaScript object")]
    Prototype,
}

/// Why worker code was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// No modules at all.
    #[error("Dynamic Worker code must contain at least one module.")]
    NoModules,
    /// More than `MODULES_MAX`.
    #[error("Worker code contains {count} modules, more than the maximum of {MODULES_MAX}.")]
    TooManyModules {
        /// How many there are.
        count: usize,
    },
    /// Bodies larger than `CODE_BYTES_MAX` in all.
    #[error(
        "Dynamic Worker code size ({bytes} bytes) exceeds the maximum allowed size of {CODE_BYTES_MAX} bytes."
    )]
    TooLarge {
        /// How large they are.
        bytes: usize,
    },
    /// A name that breaks the rules.
    #[error("Module name {name:?} is not allowed: {fault}.")]
    Name {
        /// The name as given, cut if long.
        name: String,
        /// What is wrong.
        fault: NameFault,
    },
    /// Two names that are equal, or differ only by case.
    #[error("Module names {first:?} and {second:?} are the same or differ only by case.")]
    Twins {
        /// One of them.
        first: Arc<str>,
        /// The other.
        second: Arc<str>,
    },
    /// A plain string body under a name that does not say what it is.
    #[error(
        "Module name must end with '.js' or '.py' (or the content must be an object indicating the type explicitly). Got: {0}"
    )]
    UnknownKind(String),
    /// A typed body with no kind or several.
    #[error(
        "Each module must contain exactly one of 'js', 'cjs', 'text', 'data', 'json', 'py', or 'wasm'. Module '{name}' contained {count} properties."
    )]
    KindCount {
        /// The module.
        name: Arc<str>,
        /// How many kinds it had.
        count: usize,
    },
    /// A code cache, compiled code or snapshot from outside: never accepted.
    #[error(
        "Module '{name}' carries '{field}': compiled code and snapshots are never accepted from outside."
    )]
    CompiledCode {
        /// The module, or the place where it was found.
        name: Arc<str>,
        /// The field or content type.
        field: String,
    },
    /// A Python module beside a JavaScript main module.
    #[error("Module \"{0}\" is a Python module, but the main module isn't a Python module.")]
    PythonBesideJavaScript(Arc<str>),
    /// A Python main module.
    #[error("Python workers are not supported yet: the main module \"{0}\" is a Python module.")]
    PythonMain(Arc<str>),
    /// The main module does not exist.
    #[error("Main module name is not present in bundle.")]
    NoMain,
    /// The main module is not an ES module.
    #[error("Main module must be an ES module.")]
    MainKind,
    /// Not a calendar date `YYYY-MM-DD`.
    #[error("Invalid compatibility date: {0}")]
    Date(String),
    /// A date after today.
    #[error("Can't set compatibility date in the future: {0}")]
    DateInFuture(String),
    /// More than `COMPATIBILITY_FLAGS_MAX`.
    #[error(
        "Worker code names {count} compatibility flags, more than the maximum of {COMPATIBILITY_FLAGS_MAX}."
    )]
    TooManyFlags {
        /// How many.
        count: usize,
    },
    /// A flag that nobody knows.
    #[error("No such compatibility flag: {0}")]
    UnknownFlag(String),
    /// The same flag twice.
    #[error("Compatibility flag specified multiple times: {0}")]
    DuplicateFlag(String),
    /// Both sides of one switch.
    #[error("Compatibility flags are mutually contradictory: {enable} vs {disable}")]
    ContradictoryFlags {
        /// The enabling flag.
        enable: &'static str,
        /// The disabling flag.
        disable: &'static str,
    },
    /// An experimental flag without `allowExperimental`.
    #[error(
        "The compatibility flag {0} is experimental and may break or be removed in a future version. To use it, set 'allowExperimental: true'."
    )]
    ExperimentalFlag(&'static str),
    /// `allowExperimental` where the caller may not grant it.
    #[error(
        "'allowExperimental' is only allowed when the calling worker has the 'experimental' compat flag set."
    )]
    ExperimentalNotAllowed,
    /// A source larger than the operator allows.
    #[error(
        "Module \"{name}\" is {bytes} bytes of source, more than the configured maximum of {bytes_max} bytes."
    )]
    SourceTooLarge {
        /// The module.
        name: Arc<str>,
        /// How large.
        bytes: usize,
        /// The operator's bound.
        bytes_max: usize,
    },
    /// A line longer than the operator allows.
    #[error(
        "{place}: this line is {bytes} bytes long, more than the configured maximum of {bytes_max} bytes."
    )]
    LineTooLong {
        /// Which line.
        place: Place,
        /// How long.
        bytes: usize,
        /// The operator's bound.
        bytes_max: usize,
    },
    /// A pattern that the operator forbids.
    #[error("{place}: forbidden pattern {pattern:?}.")]
    Forbidden {
        /// Where.
        place: Place,
        /// The operator's name for it, or the pattern itself.
        pattern: String,
    },
    /// Not JavaScript (or not TypeScript).
    #[error("{place}: SyntaxError: {message}")]
    Syntax {
        /// Where.
        place: Place,
        /// What the parser says.
        message: String,
    },
    /// Nested too deeply to parse safely.
    #[error("{place}: the source is nested too deeply.")]
    TooDeep {
        /// Where it gets too deep.
        place: Place,
    },
    /// A TypeScript source too large to parse safely without knowing how deep it is.
    #[error(
        "Module \"{0}\" is too large and too intricate to strip its types: bundle it to JavaScript first, for example with esbuild."
    )]
    TooIntricate(Arc<str>),
    /// A JSON module that is not JSON, or too deep.
    #[error("{place}: invalid JSON: {message}")]
    Json {
        /// Where.
        place: Place,
        /// What the parser says.
        message: String,
    },
    /// A WebAssembly module without the magic bytes.
    #[error("Module \"{0}\" is not a WebAssembly binary.")]
    Wasm(Arc<str>),
    /// The machine could not give the parser a thread.
    #[error("The syntax check could not start.")]
    CheckUnavailable,
}

impl CodeError {
    /// Stable machine-readable code, one per check.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoModules => "code_no_modules",
            Self::TooManyModules { .. } => "code_module_count",
            Self::TooLarge { .. } => "code_size",
            Self::Name { .. } => "code_module_name",
            Self::Twins { .. } => "code_module_twins",
            Self::UnknownKind(_) | Self::KindCount { .. } => "code_module_kind",
            Self::CompiledCode { .. } => "code_compiled",
            Self::PythonBesideJavaScript(_) | Self::PythonMain(_) => "code_python",
            Self::NoMain | Self::MainKind => "code_main_module",
            Self::Date(_) | Self::DateInFuture(_) => "code_compatibility_date",
            Self::TooManyFlags { .. }
            | Self::UnknownFlag(_)
            | Self::DuplicateFlag(_)
            | Self::ContradictoryFlags { .. } => "code_compatibility_flags",
            Self::ExperimentalFlag(_) | Self::ExperimentalNotAllowed => "code_experimental",
            Self::SourceTooLarge { .. } => "code_source_length",
            Self::LineTooLong { .. } => "code_line_length",
            Self::Forbidden { .. } => "code_forbidden",
            Self::Syntax { .. } => "code_syntax",
            Self::TooDeep { .. } | Self::TooIntricate(_) => "code_nesting",
            Self::Json { .. } => "code_json",
            Self::Wasm(_) => "code_wasm",
            Self::CheckUnavailable => "code_check_unavailable",
        }
    }

    /// The JavaScript class that a worker sees when its `load()` throws this.
    #[must_use]
    pub fn js_class(&self) -> &'static str {
        match self {
            Self::NoModules
            | Self::TooManyModules { .. }
            | Self::Name { .. }
            | Self::Twins { .. }
            | Self::UnknownKind(_)
            | Self::KindCount { .. }
            | Self::CompiledCode { .. }
            | Self::PythonBesideJavaScript(_)
            | Self::PythonMain(_)
            | Self::NoMain
            | Self::MainKind => "TypeError",
            _ => "Error",
        }
    }

    /// Whether the host, and not the code, is at fault; then the same code may be tried again.
    #[must_use]
    pub fn is_host_fault(&self) -> bool {
        matches!(self, Self::CheckUnavailable)
    }
}
