//! Following imports from the main module, and finding the modules that rules name.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::{FolderError, Root, kind_of, source_of, too_many};
use crate::code::ModuleSource;
use crate::compat::{self, DEFAULT_COMPATIBILITY_DATE, Experimental};
use crate::imports::{self, Imports};
use crate::name::scheme;
use crate::resolve::{join, node_module};
use crate::syntax::Dialect;
use crate::wrangler::{RuleType, WranglerConfig};

/// Most files and folders looked through for additional modules.
const ENTRIES_MAX: usize = 20_000;
/// Deepest folder looked into, in levels.
const FOLDER_DEPTH_MAX: usize = 32;
/// Endings tried where an import names none, as bundlers do.
const TRIED_ENDINGS: [&str; 10] =
    [".ts", ".tsx", ".js", ".mjs", ".jsx", ".mts", "/index.ts", "/index.tsx", "/index.js", "/index.mjs"];

type Modules = Vec<(String, ModuleSource)>;

struct Collector<'a> {
    root: Root,
    config: &'a WranglerConfig,
    /// Folder of the main module with a `/` at the end; rules are relative to it.
    base: String,
    /// Whether names of Node.js's modules need no `node:`.
    bare_node: bool,
    modules: BTreeMap<String, ModuleSource>,
    queue: VecDeque<String>,
    /// Names that stand for another file: `./a` for `a.ts`.
    aliases: BTreeMap<String, String>,
    has_default: HashMap<String, bool>,
}

/// A relative path as a name: no `.` or `..` segments left. `None` if it leaves the root.
pub(super) fn plain_path(path: &str) -> Option<String> {
    join("", path.trim_start_matches("./")).filter(|path| !path.is_empty())
}

/// Whether the code will run under `nodejs_compat_v2`. A date or a flag that is refused is refused later.
fn has_bare_node(config: &WranglerConfig) -> bool {
    let date = config.compatibility_date.as_deref().unwrap_or(DEFAULT_COMPATIBILITY_DATE);
    let flags = &config.compatibility_flags;
    compat::compile(date, flags, Experimental::Allowed, date).is_ok_and(|found| found.has("nodejs_compat_v2"))
}

pub(super) fn collect(root: Root, main: &str, config: &WranglerConfig) -> Result<Modules, FolderError> {
    let base = main.rfind('/').map_or(String::new(), |at| main[..=at].to_owned());
    let mut collector = Collector {
        root,
        config,
        base,
        bare_node: has_bare_node(config),
        modules: BTreeMap::new(),
        queue: VecDeque::from([main.to_owned()]),
        aliases: BTreeMap::new(),
        has_default: HashMap::new(),
    };
    collector.follow()?;
    if config.finds_additional_modules() {
        collector.find_additional()?;
        collector.follow()?;
    }
    collector.add_aliases()?;
    Ok(collector.modules.into_iter().collect())
}

impl Collector<'_> {
    /// Reads what is in the queue, and what that imports, and so on.
    fn follow(&mut self) -> Result<(), FolderError> {
        while let Some(name) = self.queue.pop_front() {
            if self.modules.contains_key(&name) {
                continue;
            }
            too_many(self.modules.len() + 1)?;
            let kind = kind_of(&name, &self.base, &self.config.rules)
                .ok_or_else(|| FolderError::UnknownKind(name.clone()))?;
            let file = name.strip_suffix("?module").unwrap_or(&name);
            let bytes = self.root.read(file)?;
            let source = source_of(&name, kind, bytes)?;
            let imports = imports_of(&name, &source)?;
            self.has_default.insert(name.clone(), imports.has_default);
            self.modules.insert(name.clone(), source);
            for specifier in imports.required {
                self.import(&name, specifier)?;
            }
            for specifier in imports.optional {
                // What may fail while running is no error before: the code may catch it.
                if let Some(path) = self.relative(&name, &specifier).and_then(|path| self.find(&path)) {
                    self.queue.push_back(path);
                }
            }
        }
        Ok(())
    }

    fn import(&mut self, referrer: &str, specifier: String) -> Result<(), FolderError> {
        if matches!(scheme(&specifier), Some("node" | "cloudflare" | "workerd")) {
            return Ok(());
        }
        let is_node = node_module(&specifier).is_some();
        if is_node && self.bare_node {
            return Ok(());
        }
        let missing = || FolderError::Missing { referrer: referrer.to_owned(), specifier: specifier.clone() };
        if scheme(&specifier).is_some() {
            return Err(missing());
        }
        let is_path = specifier.starts_with(['.', '/']);
        let path = join(referrer, &specifier).ok_or_else(|| FolderError::Escapes(specifier.clone()))?;
        match self.find(&path) {
            Some(found) => {
                self.queue.push_back(found);
                Ok(())
            }
            None if is_path => Err(missing()),
            None if is_node => Err(FolderError::BareBuiltin { referrer: referrer.to_owned(), specifier }),
            None => Err(FolderError::Package { referrer: referrer.to_owned(), specifier }),
        }
    }

    fn relative(&self, referrer: &str, specifier: &str) -> Option<String> {
        if scheme(specifier).is_some() { None } else { join(referrer, specifier) }
    }

    /// The file that a path means. If that is not its exact name, the name becomes an alias.
    fn find(&mut self, path: &str) -> Option<String> {
        if self.root.exists(path.strip_suffix("?module").unwrap_or(path)) {
            return Some(path.to_owned());
        }
        let typed = path.strip_suffix(".js").map(|stem| [format!("{stem}.ts"), format!("{stem}.tsx")]);
        let with_ending = TRIED_ENDINGS.iter().map(|ending| format!("{path}{ending}"));
        let found = typed.into_iter().flatten().chain(with_ending).find(|name| self.root.exists(name))?;
        self.aliases.insert(path.to_owned(), found.clone());
        Some(found)
    }

    /// Names resolve exactly when running, so a name without its ending becomes a module that re-exports.
    fn add_aliases(&mut self) -> Result<(), FolderError> {
        for (alias, target) in std::mem::take(&mut self.aliases) {
            let target_literal = serde_json::Value::from(format!("/{target}")).to_string();
            let mut source = format!("export * from {target_literal};");
            if self.has_default.get(&target).copied().unwrap_or(false) {
                source.push_str(&format!(" export {{ default }} from {target_literal};"));
            }
            self.modules.insert(alias, ModuleSource::Js(Arc::from(source)));
            too_many(self.modules.len())?;
        }
        Ok(())
    }

    /// Queues every file below the base that a rule names.
    fn find_additional(&mut self) -> Result<(), FolderError> {
        let mut entries = 0;
        let mut folders = vec![(self.base.clone(), 0)];
        while let Some((folder, depth)) = folders.pop() {
            let io = |source| FolderError::Io { path: folder.clone(), source };
            for entry in std::fs::read_dir(self.root.path.join(&folder)).map_err(io)? {
                let entry = entry.map_err(io)?;
                entries += 1;
                if entries > ENTRIES_MAX {
                    return Err(FolderError::TooManyEntries(ENTRIES_MAX));
                }
                let file_name = entry.file_name();
                let Some(file_name) = file_name.to_str() else { continue };
                let name = format!("{folder}{file_name}");
                // Links are not followed here: a link to a folder above would never end.
                let kind = entry.file_type().map_err(io)?;
                let is_hidden = file_name.starts_with('.') || file_name == "node_modules";
                if kind.is_dir() && !is_hidden && depth < FOLDER_DEPTH_MAX {
                    folders.push((format!("{name}/"), depth + 1));
                } else if kind.is_file() && self.is_additional(&name) {
                    self.queue.push_back(name);
                }
            }
        }
        // The order of a folder's entries differs between machines.
        self.queue.make_contiguous().sort();
        Ok(())
    }

    fn is_additional(&self, name: &str) -> bool {
        let relative = name.strip_prefix(&self.base).unwrap_or(name);
        let by_rule = self.config.rules.iter().any(|rule| rule.matches(relative));
        let by_ending = matches!(
            kind_of(name, &self.base, &[]),
            Some(RuleType::Text | RuleType::Data | RuleType::CompiledWasm)
        );
        by_rule || by_ending
    }
}

fn imports_of(name: &str, source: &ModuleSource) -> Result<Imports, FolderError> {
    let (text, dialect) = match source {
        ModuleSource::Js(text) => (text, Dialect::Js),
        ModuleSource::Cjs(text) => (text, Dialect::Cjs),
        ModuleSource::Ts(text) => (text, Dialect::of_name(name)),
        _ => return Ok(Imports { has_default: true, ..Imports::default() }),
    };
    Ok(imports::of(&Arc::from(name), text, dialect)?)
}
