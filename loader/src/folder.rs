//! A folder, or a single file, to a deployment.
//!
//! ```text
//! wrangler.jsonc | .json | .toml | else (src/)index|worker|main.* ──▶ main module
//! main module ──follow static imports──▶ modules ──(find_additional_modules: rules)──▶ more modules
//! ```
//! Names are paths relative to the folder. Packages are not bundled. Whatever a name or a symbolic link says, no
//! file outside the folder is read.

mod collect;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::code::{ModuleSource, WorkerCode};
use crate::deployment::Deployment;
use crate::error::CodeError;
use crate::limits::{CODE_BYTES_MAX, MODULES_MAX};
use crate::wrangler::{CONFIG_BYTES_MAX, ConfigError, ConfigFormat, Rule, RuleType, WranglerConfig};

/// Configuration files, the first that exists wins.
const CONFIG_FILES: [(&str, ConfigFormat); 3] = [
    ("wrangler.jsonc", ConfigFormat::Jsonc),
    ("wrangler.json", ConfigFormat::Jsonc),
    ("wrangler.toml", ConfigFormat::Toml),
];
/// Where the main module may be if nothing says so, in order.
const MAIN_STEMS: [&str; 6] = ["index", "worker", "main", "src/index", "src/worker", "src/main"];
const MAIN_ENDINGS: [&str; 6] = ["js", "mjs", "ts", "mts", "tsx", "jsx"];

/// Why a folder cannot be loaded. Paths are relative to the folder.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The system refused.
    #[error("{path}: {source}")]
    Io {
        /// Which file or folder.
        path: String,
        /// What it said.
        source: std::io::Error,
    },
    /// The configuration file.
    #[error("{file}: {error}")]
    Config {
        /// Which.
        file: &'static str,
        /// What is wrong.
        error: ConfigError,
    },
    /// No main module.
    #[error(
        "no main module: set `main` in wrangler.jsonc, or name a file index.js, index.ts, worker.js or src/index.ts"
    )]
    NoMain,
    /// A path or link that leads outside.
    #[error("{0} leads out of the folder")]
    Escapes(String),
    /// Not a regular file, or a name that is not UTF-8.
    #[error("{0} is not a regular file with a UTF-8 name")]
    NotAFile(String),
    /// A source that is not UTF-8.
    #[error("{0} is not UTF-8")]
    NotText(String),
    /// An ending that says nothing, and no rule.
    #[error("{0}: unknown kind of module; add a rule for it to the wrangler configuration")]
    UnknownKind(String),
    /// An import of a package.
    #[error(
        "{referrer} imports the package \"{specifier}\", and packages are not bundled here: bundle first, for example with `npx esbuild {referrer} --bundle --format=esm --outfile=dist/worker.js`, and make that file `main`"
    )]
    Package {
        /// Who imports.
        referrer: String,
        /// What.
        specifier: String,
    },
    /// An import of a builtin without its scheme.
    #[error("{referrer} imports \"{specifier}\": write \"node:{specifier}\"")]
    BareBuiltin {
        /// Who imports.
        referrer: String,
        /// What.
        specifier: String,
    },
    /// A relative import of a file that does not exist.
    #[error("No such module \"{specifier}\".\n  imported from \"{referrer}\"")]
    Missing {
        /// Who imports.
        referrer: String,
        /// What.
        specifier: String,
    },
    /// Too many files or folders to look through.
    #[error("the folder has more than {0} files and folders to look through")]
    TooManyEntries(usize),
    /// A rule of worker code.
    #[error(transparent)]
    Code(#[from] CodeError),
}

impl FolderError {
    /// Stable machine-readable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "folder_io",
            Self::Config { .. } => "folder_config",
            Self::NoMain => "folder_no_main",
            Self::Escapes(_) => "folder_escape",
            Self::NotAFile(_) => "folder_not_a_file",
            Self::NotText(_) => "folder_not_text",
            Self::UnknownKind(_) => "folder_kind",
            Self::Package { .. } => "folder_package",
            Self::BareBuiltin { .. } | Self::Missing { .. } => "folder_import",
            Self::TooManyEntries(_) => "folder_entries",
            Self::Code(error) => error.code(),
        }
    }
}

impl Deployment {
    /// Loads a folder, or a single file as the main module of its folder without configuration.
    ///
    /// # Errors
    /// If it cannot be read, has no main module, or imports what it does not have.
    pub fn from_path(path: &Path) -> Result<Self, FolderError> {
        if path.is_dir() { Self::from_folder(path) } else { Self::from_file(path) }
    }

    /// Loads a folder with its `wrangler.jsonc`, `wrangler.json` or `wrangler.toml`, if it has one.
    ///
    /// # Errors
    /// If it cannot be read, has no main module, or imports what it does not have.
    pub fn from_folder(folder: &Path) -> Result<Self, FolderError> {
        let mut root = Root::open(folder)?;
        let config = read_config(&mut root)?;
        let main = match &config.main {
            Some(main) => collect::plain_path(main).ok_or_else(|| FolderError::Escapes(main.clone()))?,
            None => root.guess_main().ok_or(FolderError::NoMain)?,
        };
        load(root, &main, config, Configured::Yes)
    }

    /// Loads a single file and what it imports from its own folder.
    ///
    /// # Errors
    /// If it cannot be read, or imports what its folder does not have.
    pub fn from_file(file: &Path) -> Result<Self, FolderError> {
        let shown = || file.display().to_string();
        let name =
            file.file_name().and_then(|name| name.to_str()).ok_or_else(|| FolderError::NotAFile(shown()))?;
        let folder = match file.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        load(Root::open(folder)?, name, WranglerConfig::default(), Configured::No)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Configured {
    Yes,
    No,
}

fn load(
    root: Root,
    main: &str,
    config: WranglerConfig,
    configured: Configured,
) -> Result<Deployment, FolderError> {
    let modules = collect::collect(root, main, &config)?;
    let mut code = WorkerCode::new(main);
    code.modules = modules;
    let mut deployment = Deployment::of(code);
    if configured == Configured::Yes {
        config.apply(&mut deployment);
    }
    Ok(deployment)
}

fn read_config(root: &mut Root) -> Result<WranglerConfig, FolderError> {
    for (file, format) in CONFIG_FILES {
        if !root.exists(file) {
            continue;
        }
        let config_error = |error| FolderError::Config { file, error };
        let bytes = root.read_at_most(file, CONFIG_BYTES_MAX)?;
        let bytes = bytes.ok_or_else(|| config_error(ConfigError::TooLarge))?;
        let text = std::str::from_utf8(&bytes).map_err(|_| FolderError::NotText(file.to_owned()))?;
        return WranglerConfig::parse(text, format).map_err(config_error);
    }
    Ok(WranglerConfig::default())
}

/// The folder, and how much was read of it.
struct Root {
    /// Canonical, so that a canonical path inside begins with it.
    path: PathBuf,
    bytes_read: usize,
}

impl Root {
    fn open(folder: &Path) -> Result<Self, FolderError> {
        let io = |source| FolderError::Io { path: folder.display().to_string(), source };
        Ok(Self { path: folder.canonicalize().map_err(io)?, bytes_read: 0 })
    }

    fn exists(&self, name: &str) -> bool {
        self.path.join(name).is_file()
    }

    fn guess_main(&self) -> Option<String> {
        MAIN_STEMS
            .iter()
            .flat_map(|stem| MAIN_ENDINGS.iter().map(move |ending| format!("{stem}.{ending}")))
            .find(|name| self.exists(name))
    }

    /// Reads a module; the bytes of all modules together are bounded.
    fn read(&mut self, name: &str) -> Result<Bytes, FolderError> {
        let left = CODE_BYTES_MAX - self.bytes_read;
        let too_large = CodeError::TooLarge { bytes: CODE_BYTES_MAX + 1 };
        let bytes = self.read_at_most(name, left)?.ok_or(too_large)?;
        self.bytes_read += bytes.len();
        Ok(bytes)
    }

    /// Reads a regular file inside the folder, or `None` if it is larger than `bytes_max`.
    fn read_at_most(&self, name: &str, bytes_max: usize) -> Result<Option<Bytes>, FolderError> {
        let io = |source| FolderError::Io { path: name.to_owned(), source };
        let path = self.path.join(name).canonicalize().map_err(io)?;
        if !path.starts_with(&self.path) {
            return Err(FolderError::Escapes(name.to_owned()));
        }
        // Looked at before opening, because opening a pipe waits for a writer.
        if !path.metadata().map_err(io)?.is_file() {
            return Err(FolderError::NotAFile(name.to_owned()));
        }
        let mut bytes = Vec::new();
        let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
        File::open(&path).map_err(io)?.take(limit).read_to_end(&mut bytes).map_err(io)?;
        Ok((bytes.len() <= bytes_max).then(|| Bytes::from(bytes)))
    }
}

/// What kind of module a file is: by rule first, then by ending. `None` if nothing says.
fn kind_of(name: &str, base: &str, rules: &[Rule]) -> Option<RuleType> {
    let relative = name.strip_prefix(base).unwrap_or(name);
    if let Some(rule) = rules.iter().find(|rule| rule.matches(relative)) {
        return Some(rule.kind);
    }
    let name = name.strip_suffix("?module").unwrap_or(name);
    match name.rsplit_once('.')?.1 {
        "js" | "mjs" | "ts" | "mts" | "tsx" | "jsx" => Some(RuleType::EsModule),
        "cjs" => Some(RuleType::CommonJs),
        "json" => Some(RuleType::Json),
        "wasm" => Some(RuleType::CompiledWasm),
        "txt" | "html" | "sql" => Some(RuleType::Text),
        "bin" => Some(RuleType::Data),
        "py" => Some(RuleType::Python),
        _ => None,
    }
}

fn is_typed(name: &str) -> bool {
    matches!(name.rsplit_once('.').map(|(_, ending)| ending), Some("ts" | "mts" | "tsx" | "jsx"))
}

fn source_of(name: &str, kind: RuleType, bytes: Bytes) -> Result<ModuleSource, FolderError> {
    let text = |bytes: &Bytes| -> Result<Arc<str>, FolderError> {
        let text = std::str::from_utf8(bytes).map_err(|_| FolderError::NotText(name.to_owned()))?;
        // A byte order mark is no part of a source.
        Ok(Arc::from(text.strip_prefix('\u{feff}').unwrap_or(text)))
    };
    Ok(match kind {
        RuleType::EsModule if is_typed(name) => ModuleSource::Ts(text(&bytes)?),
        RuleType::EsModule => ModuleSource::Js(text(&bytes)?),
        RuleType::CommonJs => ModuleSource::Cjs(text(&bytes)?),
        RuleType::Text => ModuleSource::Text(text(&bytes)?),
        RuleType::Json => ModuleSource::Json(text(&bytes)?),
        RuleType::Python => ModuleSource::Py(text(&bytes)?),
        RuleType::CompiledWasm => ModuleSource::Wasm(bytes),
        RuleType::Data => ModuleSource::Data(bytes),
    })
}

fn too_many(count: usize) -> Result<(), FolderError> {
    if count > MODULES_MAX { Err(CodeError::TooManyModules { count }.into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
