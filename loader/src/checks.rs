//! The checks between worker code and a bundle, in order; the first that refuses decides the error.
//!
//! ```text
//! count → size → kind → names → python → main → compatibility → length → forbidden → data → syntax (strips types)
//! ```
//! An operator extends the pipeline with a [`CheckConfig`].

pub(crate) mod source;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;

use crate::bundle::{Bundle, Compatibility, Module, ModuleBody, Parts};
use crate::code::{ModuleSource, WorkerCode};
use crate::compat::{self, Experimental};
use crate::encoding::ENCODED_BYTES_MAX;
use crate::error::CodeError;
use crate::limits::{CODE_BYTES_MAX, MODULES_MAX};
use crate::{name, syntax};

/// Whether sources are parsed before V8 sees them. TypeScript always is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SyntaxCheck {
    /// Every source is parsed: errors come early, with line and column.
    #[default]
    On,
    /// V8 finds the errors of JavaScript: saves time where code is trusted to be well-formed or loaded often.
    Off,
}

/// Text that no source may contain.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForbiddenPattern {
    /// What to look for: plain text, case-sensitive.
    pub text: String,
    /// What the error calls it; the text itself if `None`.
    #[serde(default)]
    pub name: Option<String>,
}

/// What an operator asks of code beyond the fixed rules. Reads from a section of a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CheckConfig {
    /// Largest source of one module, in bytes.
    pub source_bytes_max: usize,
    /// Longest line of a source, in bytes; `None` for no bound (bundlers write long lines).
    pub line_bytes_max: Option<usize>,
    /// Texts that no source may contain.
    pub forbidden: Vec<ForbiddenPattern>,
    /// The syntax check of JavaScript.
    pub syntax: SyntaxCheck,
    /// Whether `allowExperimental` may be granted (the calling worker has the `experimental` flag).
    pub experimental: Experimental,
    /// Today's date as `YYYY-MM-DD`; `None` for the system's.
    #[serde(skip)]
    pub today: Option<String>,
}

impl Default for CheckConfig {
    fn default() -> Self {
        Self {
            source_bytes_max: CODE_BYTES_MAX,
            line_bytes_max: None,
            forbidden: Vec::new(),
            syntax: SyntaxCheck::On,
            experimental: Experimental::Refused,
            today: None,
        }
    }
}

/// A module whose name and kind are settled; its source is not checked yet.
pub(crate) struct Draft {
    pub(crate) name: Arc<str>,
    pub(crate) body: DraftBody,
}

pub(crate) enum DraftBody {
    Js(Arc<str>),
    Cjs(Arc<str>),
    Ts(Arc<str>),
    Text(Arc<str>),
    Data(Bytes),
    Json(Arc<str>),
    Py,
    Wasm(Bytes),
}

pub(crate) fn run(code: WorkerCode, config: &CheckConfig) -> Result<Bundle, CodeError> {
    count(&code)?;
    size(&code)?;
    let mut drafts = kinds(code.modules)?;
    names(&mut drafts)?;
    let main_name = name::normalise(&code.main_module)?;
    python(&drafts, &main_name)?;
    drafts.sort_by(|a, b| a.name.cmp(&b.name));
    let main = main(&drafts, &main_name)?;
    let allow = experimental(code.allow_experimental, config)?;
    let today = config.today.clone().unwrap_or_else(compat::today_utc);
    let compatibility = compat::compile(&code.compatibility_date, &code.compatibility_flags, allow, &today)?;
    for draft in &drafts {
        source::length(draft, config)?;
        source::forbidden(draft, config)?;
        source::data(draft)?;
    }
    let modules = syntax::check_and_strip(drafts, config.syntax)?;
    stripped_size(&modules, &compatibility)?;
    Ok(Bundle::from_parts(Parts { main, modules, compatibility }))
}

fn count(code: &WorkerCode) -> Result<(), CodeError> {
    match code.modules.len() {
        0 => Err(CodeError::NoModules),
        count if count > MODULES_MAX => Err(CodeError::TooManyModules { count }),
        _ => Ok(()),
    }
}

fn size(code: &WorkerCode) -> Result<(), CodeError> {
    let bytes = code.modules.iter().map(|(_, source)| source.bytes().len()).sum();
    if bytes > CODE_BYTES_MAX { Err(CodeError::TooLarge { bytes }) } else { Ok(()) }
}

fn kinds(modules: Vec<(String, ModuleSource)>) -> Result<Vec<Draft>, CodeError> {
    modules
        .into_iter()
        .map(|(name, source)| {
            let body = kind(&name, source)?;
            Ok(Draft { name: Arc::from(name), body })
        })
        .collect()
}

fn kind(name: &str, source: ModuleSource) -> Result<DraftBody, CodeError> {
    Ok(match source {
        ModuleSource::Plain(text) => plain_kind(name, text)?,
        ModuleSource::Js(text) => DraftBody::Js(text),
        ModuleSource::Cjs(text) => DraftBody::Cjs(text),
        ModuleSource::Ts(text) => DraftBody::Ts(text),
        ModuleSource::Text(text) => DraftBody::Text(text),
        ModuleSource::Data(bytes) => DraftBody::Data(bytes),
        ModuleSource::Json(text) => DraftBody::Json(text),
        ModuleSource::Py(_) => DraftBody::Py,
        ModuleSource::Wasm(bytes) => DraftBody::Wasm(bytes),
        ModuleSource::Ambiguous { kinds } => {
            return Err(CodeError::KindCount { name: Arc::from(name::echo(name)), count: kinds });
        }
        ModuleSource::Compiled { field } => {
            return Err(CodeError::CompiledCode { name: Arc::from(name::echo(name)), field });
        }
    })
}

fn plain_kind(name: &str, text: Arc<str>) -> Result<DraftBody, CodeError> {
    match name.rsplit_once('.').map(|(_, ending)| ending) {
        Some("js") => Ok(DraftBody::Js(text)),
        Some("ts" | "tsx" | "jsx") => Ok(DraftBody::Ts(text)),
        Some("py") => Ok(DraftBody::Py),
        _ => Err(CodeError::UnknownKind(name::echo(name))),
    }
}

fn names(drafts: &mut [Draft]) -> Result<(), CodeError> {
    let mut seen: HashMap<String, Arc<str>> = HashMap::with_capacity(drafts.len());
    for draft in drafts {
        draft.name = name::normalise(&draft.name)?;
        if let Some(first) = seen.insert(name::twin_key(&draft.name), draft.name.clone()) {
            return Err(CodeError::Twins { first, second: draft.name.clone() });
        }
    }
    Ok(())
}

fn python(drafts: &[Draft], main: &str) -> Result<(), CodeError> {
    let is_python = |draft: &&Draft| matches!(draft.body, DraftBody::Py);
    if drafts.iter().filter(is_python).any(|draft| &*draft.name == main) {
        return Err(CodeError::PythonMain(Arc::from(main)));
    }
    match drafts.iter().find(is_python) {
        Some(draft) => Err(CodeError::PythonBesideJavaScript(draft.name.clone())),
        None => Ok(()),
    }
}

/// Index of the main module among sorted drafts.
fn main(drafts: &[Draft], main: &str) -> Result<usize, CodeError> {
    let index = drafts.binary_search_by(|draft| (*draft.name).cmp(main)).map_err(|_| CodeError::NoMain)?;
    match drafts[index].body {
        DraftBody::Js(_) | DraftBody::Ts(_) => Ok(index),
        _ => Err(CodeError::MainKind),
    }
}

fn experimental(asked: bool, config: &CheckConfig) -> Result<Experimental, CodeError> {
    match (asked, config.experimental) {
        (false, _) => Ok(Experimental::Refused),
        (true, Experimental::Allowed) => Ok(Experimental::Allowed),
        (true, Experimental::Refused) => Err(CodeError::ExperimentalNotAllowed),
    }
}

/// Stripping adds source maps; the whole must still fit a frame.
fn stripped_size(modules: &[Module], compatibility: &Compatibility) -> Result<(), CodeError> {
    let flags: usize = compatibility.flags.iter().map(|flag| flag.len() + 4).sum();
    let each =
        |m: &Module| m.name.len() + body_len(&m.body) + m.source_map.as_ref().map_or(0, |map| map.len()) + 16;
    let bytes = flags + 64 + modules.iter().map(each).sum::<usize>();
    if bytes > ENCODED_BYTES_MAX { Err(CodeError::TooLarge { bytes }) } else { Ok(()) }
}

fn body_len(body: &ModuleBody) -> usize {
    body.as_bytes().len()
}

#[cfg(test)]
mod tests;
