//! Syntax before V8 sees it, and TypeScript to JavaScript, with oxc on a thread whose stack surely suffices.
//!
//! oxc recurses once per nesting level. `nesting` bounds the levels of a source, the bound sizes the stack, and
//! a source whose bound is too high is refused (or, for JavaScript that cannot be bounded, left to V8, which
//! checks its own stack). Stack pages are only taken from the system when they are used.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use oxc_allocator::Allocator;
use oxc_codegen::{Codegen, CodegenOptions};
use oxc_diagnostics::{Diagnostics, OxcDiagnostic};
use oxc_parser::Parser;
use oxc_semantic::SemanticBuilder;
use oxc_span::SourceType;
use oxc_transformer::{JsxRuntime, TransformOptions, Transformer};

use crate::bundle::{Module, ModuleBody};
use crate::checks::source::place;
use crate::checks::{Draft, DraftBody, SyntaxCheck};
use crate::error::CodeError;
use crate::limits::{KIB, MIB};
use crate::nesting::{self, Nesting};

/// Deepest nesting that is parsed, in levels as `nesting` counts them.
const LEVELS_MAX: usize = 8_000;
/// Most brackets that may be open at once. Parsing some nests of brackets takes time that grows with the square
/// of their depth, so this bounds time.
const BRACKETS_OPEN_MAX: usize = 1_000;
/// Largest source that is parsed without knowing its nesting, in bytes: no level is shorter than a byte.
const UNSURE_BYTES_MAX: usize = 64 * KIB;
/// Most opening brackets of such a source; only nested brackets take the parser back and forth.
const UNSURE_BRACKETS_MAX: usize = 4_000;
/// Stack of one level, in bytes. The hungriest construct (nested array types) took 4.3 KiB without optimisation,
/// 1.7 KiB with.
const LEVEL_STACK_BYTES: usize = 16 * KIB;
/// Stack below the first level, in bytes.
const BASE_STACK_BYTES: usize = 2 * MIB;
// Address space, not memory: a page is taken when it is used.
const _: () = assert!(BASE_STACK_BYTES + UNSURE_BYTES_MAX * LEVEL_STACK_BYTES <= 1_100 * MIB);
const _: () = assert!(LEVELS_MAX <= UNSURE_BYTES_MAX);

/// One deep parse at a time: together they could take more memory than one may.
static DEEP_PARSE: Mutex<()> = Mutex::new(());
/// From this many levels on a parse is deep.
const DEEP_LEVELS: usize = 2_000;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Js,
    Cjs,
    Ts,
    Tsx,
    Jsx,
}

/// A source, and how the parser must be run on it.
struct Job<'a> {
    name: &'a Arc<str>,
    text: &'a Arc<str>,
    dialect: Dialect,
}

/// Parses every source and strips the types of TypeScript ones.
pub(crate) fn check_and_strip(drafts: Vec<Draft>, check: SyntaxCheck) -> Result<Vec<Module>, CodeError> {
    let mut levels_max = 0;
    let mut skipped = vec![false; drafts.len()];
    for (draft, skip) in drafts.iter().zip(&mut skipped) {
        let Some(job) = job(draft) else { continue };
        let must_parse = job.dialect.needs_stripping();
        if !must_parse && check == SyntaxCheck::Off {
            *skip = true;
            continue;
        }
        match levels(&job)? {
            Some(levels) => levels_max = levels_max.max(levels),
            None if must_parse => return Err(CodeError::TooIntricate(draft.name.clone())),
            None => *skip = true,
        }
    }
    let nothing_to_parse = drafts.iter().zip(&skipped).all(|(draft, skip)| *skip || job(draft).is_none());
    if nothing_to_parse {
        return drafts.into_iter().map(|draft| finish(draft, true)).collect();
    }
    with_stack(levels_max, || {
        drafts.into_iter().zip(skipped).map(|(draft, skip)| finish(draft, skip)).collect()
    })?
}

fn job(draft: &Draft) -> Option<Job<'_>> {
    let (text, dialect) = match &draft.body {
        DraftBody::Js(text) => (text, Dialect::Js),
        DraftBody::Cjs(text) => (text, Dialect::Cjs),
        DraftBody::Ts(text) => (text, Dialect::of_name(&draft.name)),
        _ => return None,
    };
    Some(Job { name: &draft.name, text, dialect })
}

impl Dialect {
    pub(crate) fn of_name(name: &str) -> Self {
        match name.rsplit_once('.').map(|(_, ending)| ending) {
            Some("tsx") => Self::Tsx,
            Some("jsx") => Self::Jsx,
            _ => Self::Ts,
        }
    }

    fn needs_stripping(self) -> bool {
        matches!(self, Self::Ts | Self::Tsx | Self::Jsx)
    }

    pub(crate) fn source_type(self) -> SourceType {
        match self {
            Self::Js => SourceType::mjs(),
            Self::Cjs => SourceType::cjs(),
            Self::Ts => SourceType::ts(),
            Self::Tsx => SourceType::tsx(),
            Self::Jsx => SourceType::jsx(),
        }
    }
}

/// Levels that parsing may take, or `None` if nobody knows.
fn levels(job: &Job<'_>) -> Result<Option<usize>, CodeError> {
    let by_length = job.text.len();
    // The scan cannot read the text between JSX tags.
    let by_scan = match job.dialect {
        Dialect::Tsx | Dialect::Jsx => Nesting::Unsure,
        Dialect::Js | Dialect::Cjs | Dialect::Ts => nesting::scan(job.text),
    };
    match by_scan {
        Nesting::AtMost { levels, brackets, .. } if levels <= LEVELS_MAX && brackets <= BRACKETS_OPEN_MAX => {
            Ok(Some(levels))
        }
        Nesting::AtMost { offset, .. } => {
            Err(CodeError::TooDeep { place: place(job.name, job.text, offset) })
        }
        Nesting::Unsure if by_length <= UNSURE_BYTES_MAX && brackets(job.text) <= UNSURE_BRACKETS_MAX => {
            Ok(Some(by_length))
        }
        Nesting::Unsure => Ok(None),
    }
}

fn brackets(text: &str) -> usize {
    text.bytes().filter(|b| b"([{<`".contains(b)).count()
}

/// Levels that parsing a source may take, or `None` if nobody knows.
pub(crate) fn stack_levels(
    name: &Arc<str>,
    text: &Arc<str>,
    dialect: Dialect,
) -> Result<Option<usize>, CodeError> {
    levels(&Job { name, text, dialect })
}

/// Runs `work` on a thread of its own with stack for so many levels.
pub(crate) fn with_stack<T: Send>(levels: usize, work: impl FnOnce() -> T + Send) -> Result<T, CodeError> {
    let _one_at_a_time =
        (levels >= DEEP_LEVELS).then(|| DEEP_PARSE.lock().unwrap_or_else(PoisonError::into_inner));
    let stack = BASE_STACK_BYTES + levels * LEVEL_STACK_BYTES;
    thread::scope(|scope| {
        let builder = thread::Builder::new().name("atoll-parse".to_owned()).stack_size(stack);
        let handle = builder.spawn_scoped(scope, work).map_err(|_| CodeError::CheckUnavailable)?;
        handle.join().map_err(|_| CodeError::CheckUnavailable)
    })
}

fn finish(draft: Draft, skip: bool) -> Result<Module, CodeError> {
    let checked = match job(&draft) {
        Some(job) if !skip => parse(&job)?,
        _ => None,
    };
    let body = match (draft.body, checked) {
        (DraftBody::Ts(_), Some((stripped, map))) => {
            return Ok(Module { name: draft.name, body: ModuleBody::Js(stripped), source_map: Some(map) });
        }
        // Types are always parsed and stripped; never reached, and harmless: V8 refuses types.
        (DraftBody::Ts(text) | DraftBody::Js(text), _) => ModuleBody::Js(text),
        (DraftBody::Cjs(text), _) => ModuleBody::Cjs(text),
        (DraftBody::Text(text), _) => ModuleBody::Text(text),
        (DraftBody::Json(text), _) => ModuleBody::Json(text),
        (DraftBody::Data(bytes), _) => ModuleBody::Data(bytes),
        (DraftBody::Wasm(bytes), _) => ModuleBody::Wasm(bytes),
        (DraftBody::Py, _) => return Err(CodeError::PythonMain(draft.name)),
    };
    Ok(Module { name: draft.name, body, source_map: None })
}

type Stripped = (Arc<str>, Arc<str>);

fn parse(job: &Job<'_>) -> Result<Option<Stripped>, CodeError> {
    let allocator = Allocator::default();
    let parsed = Parser::new(&allocator, job.text, job.dialect.source_type()).parse();
    refuse_errors(job, parsed.diagnostics.errors())?;
    if parsed.panicked {
        return Err(not_javascript(job.name, job.text));
    }
    if !job.dialect.needs_stripping() {
        return Ok(None);
    }
    let mut program = parsed.program;
    let semantic = SemanticBuilder::new().with_enum_eval(true).build(&program);
    refuse_errors(job, semantic.diagnostics.errors())?;
    let mut options = TransformOptions::default();
    // The automatic runtime would import a package that the bundle does not have.
    options.jsx.runtime = JsxRuntime::Classic;
    let path = PathBuf::from(&**job.name);
    let transformed = Transformer::new(&allocator, &path, &options)
        .build_with_scoping(semantic.semantic.into_scoping(), &mut program);
    refuse_errors(job, transformed.diagnostics.errors())?;
    let printed = Codegen::new()
        .with_options(CodegenOptions { source_map_path: Some(path), ..CodegenOptions::default() })
        .build(&program);
    let map = printed.map.map(|map| {
        let mut map = map;
        // The bundle need not carry the source twice; positions are enough for stacks.
        map.set_source_contents(Vec::new());
        map.to_json_string()
    });
    Ok(Some((Arc::from(printed.code), Arc::from(map.unwrap_or_default()))))
}

fn refuse_errors<'e>(
    job: &Job<'_>,
    mut errors: impl Iterator<Item = &'e OxcDiagnostic>,
) -> Result<(), CodeError> {
    errors.next().map_or(Ok(()), |error| Err(syntax_error(job.name, job.text, error)))
}

/// The first of a parse's errors.
pub(crate) fn first_error(name: &Arc<str>, text: &str, diagnostics: &Diagnostics) -> CodeError {
    match diagnostics.errors().next() {
        Some(error) => syntax_error(name, text, error),
        None => not_javascript(name, text),
    }
}

fn syntax_error(name: &Arc<str>, text: &str, error: &OxcDiagnostic) -> CodeError {
    let offset = error.labels.first().map_or(0, |label| label.offset() as usize);
    CodeError::Syntax { place: place(name, text, offset), message: error.message.to_string() }
}

fn not_javascript(name: &Arc<str>, text: &str) -> CodeError {
    CodeError::Syntax { place: place(name, text, 0), message: "this is not JavaScript".to_owned() }
}
