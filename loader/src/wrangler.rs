//! `wrangler.jsonc`, `wrangler.json` and `wrangler.toml`: the keys that Atoll acts on, and a warning for the rest.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use crate::checks::source::too_deep_at;
use crate::deployment::{Deployment, Service, Var, kv_wish};
use crate::glob;
use crate::jsonc;
use crate::limits::{JSON_DEPTH_MAX, MIB};

/// Largest configuration file, in bytes.
pub const CONFIG_BYTES_MAX: usize = MIB;
/// Most entries of one list or table of a configuration file.
const CONFIG_ENTRIES_MAX: usize = 1_000;
/// Keys that say nothing to a host, so that no warning is due.
const SILENT_KEYS: [&str; 5] = ["$schema", "account_id", "send_metrics", "workers_dev", "keep_vars"];

/// Syntax of a configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigFormat {
    /// JSON with comments and trailing commas.
    Jsonc,
    /// TOML.
    Toml,
}

/// Why a configuration file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Over [`CONFIG_BYTES_MAX`].
    #[error("the configuration is larger than {CONFIG_BYTES_MAX} bytes")]
    TooLarge,
    /// Nested too deeply.
    #[error("the configuration is nested deeper than {JSON_DEPTH_MAX} levels")]
    TooDeep,
    /// A list or table with too many entries.
    #[error("`{0}` has more than {CONFIG_ENTRIES_MAX} entries")]
    TooMany(&'static str),
    /// Wrong syntax, or a key of the wrong type.
    #[error("{0}")]
    Shape(String),
}

/// The kind that a rule gives to files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum RuleType {
    /// An ECMAScript module.
    #[serde(rename = "ESModule")]
    EsModule,
    /// A CommonJS module.
    #[serde(rename = "CommonJS")]
    CommonJs,
    /// A WebAssembly module.
    CompiledWasm,
    /// A string.
    Text,
    /// Bytes.
    Data,
    /// JSON.
    #[serde(rename = "JSON", alias = "Json")]
    Json,
    /// Python: refused later, with the name of the module.
    #[serde(rename = "PythonModule", alias = "PythonRequirement")]
    Python,
}

/// Which files are modules, and of which kind.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Rule {
    /// The kind.
    #[serde(rename = "type")]
    pub kind: RuleType,
    /// Globs over paths relative to the main module's folder.
    pub globs: Vec<String>,
    /// Whether later rules of the same kind still apply; kept for compatibility.
    #[serde(default)]
    pub fallthrough: Option<bool>,
}

impl Rule {
    /// Whether a path matches one of the globs.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        self.globs.iter().any(|pattern| glob::matches(pattern, path))
    }
}

/// A configuration file, read.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct WranglerConfig {
    /// The worker's name.
    #[serde(default)]
    pub name: Option<String>,
    /// Path of the main module, relative to the file.
    #[serde(default)]
    pub main: Option<String>,
    /// `YYYY-MM-DD`.
    #[serde(default)]
    pub compatibility_date: Option<String>,
    /// Flags.
    #[serde(default)]
    pub compatibility_flags: Vec<String>,
    /// Plain values for `env`.
    #[serde(default)]
    vars: BTreeMap<String, Value>,
    #[serde(default)]
    triggers: Triggers,
    /// Which files are modules.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// Whether all files that match a rule are modules, and not only imported ones.
    #[serde(default)]
    pub find_additional_modules: Option<bool>,
    /// Whether the main module is already bundled. Atoll never bundles, so this changes only
    /// `find_additional_modules`, as it does elsewhere.
    #[serde(default)]
    pub no_bundle: Option<bool>,
    #[serde(default)]
    worker_loaders: Vec<LoaderBinding>,
    #[serde(default)]
    services: Vec<Service>,
    #[serde(default)]
    kv_namespaces: Vec<KvNamespace>,
    #[serde(default)]
    limits: ConfigLimits,
    #[serde(default)]
    atoll: AtollSection,
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Triggers {
    #[serde(default)]
    crons: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct LoaderBinding {
    binding: String,
}

#[derive(Clone, Debug, Deserialize)]
struct KvNamespace {
    binding: String,
    /// The namespace; without one it has the binding's name.
    id: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct ConfigLimits {
    #[serde(default)]
    cpu_ms: Option<u32>,
    #[serde(default)]
    subrequests: Option<u32>,
}

/// What only Atoll knows.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct AtollSection {
    #[serde(default)]
    outbound: Vec<String>,
    /// Bindings of Atoll's own kinds, in the shape of its API.
    #[serde(default)]
    bindings: BTreeMap<String, Value>,
    #[serde(default)]
    egress: Option<String>,
    #[serde(default)]
    allow_callers: Vec<String>,
}

impl WranglerConfig {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// If it is too large or deep, has wrong syntax, or a known key has the wrong type.
    pub fn parse(text: &str, format: ConfigFormat) -> Result<Self, ConfigError> {
        if text.len() > CONFIG_BYTES_MAX {
            return Err(ConfigError::TooLarge);
        }
        let config: Self = match format {
            ConfigFormat::Jsonc => {
                let json = jsonc::to_json(text);
                if too_deep_at(&json, JSON_DEPTH_MAX).is_some() {
                    return Err(ConfigError::TooDeep);
                }
                serde_json::from_str(&json).map_err(|error| ConfigError::Shape(error.to_string()))?
            }
            ConfigFormat::Toml => toml::from_str(text).map_err(|error| toml_error(text, &error))?,
        };
        config.check_counts()?;
        config.check_names()?;
        Ok(config)
    }

    /// Two bindings of one name would hide each other without a word.
    fn check_names(&self) -> Result<(), ConfigError> {
        let mut names = BTreeSet::new();
        let all = self.services.iter().map(|service| &service.binding);
        let all =
            all.chain(self.kv_namespaces.iter().map(|kv| &kv.binding)).chain(self.atoll.bindings.keys());
        match all.into_iter().find(|name| !names.insert(*name)) {
            Some(name) => Err(ConfigError::Shape(format!("two bindings are named {name:?}"))),
            None => Ok(()),
        }
    }

    fn check_counts(&self) -> Result<(), ConfigError> {
        let lists = [
            ("compatibility_flags", self.compatibility_flags.len()),
            ("vars", self.vars.len()),
            ("triggers.crons", self.triggers.crons.len()),
            ("rules", self.rules.iter().map(|rule| 1 + rule.globs.len()).sum()),
            ("worker_loaders", self.worker_loaders.len()),
            ("services", self.services.len()),
            ("kv_namespaces", self.kv_namespaces.len()),
            ("atoll.bindings", self.atoll.bindings.len()),
            ("atoll.outbound", self.atoll.outbound.len()),
            ("atoll.allow_callers", self.atoll.allow_callers.len()),
        ];
        match lists.into_iter().find(|(_, len)| *len > CONFIG_ENTRIES_MAX) {
            Some((key, _)) => Err(ConfigError::TooMany(key)),
            None => Ok(()),
        }
    }

    /// Whether files that nobody imports are modules too.
    pub(crate) fn finds_additional_modules(&self) -> bool {
        self.find_additional_modules.or(self.no_bundle).unwrap_or(false)
    }

    /// Moves everything but the code into a deployment.
    pub(crate) fn apply(self, deployment: &mut Deployment) {
        if let Some(date) = self.compatibility_date {
            deployment.code.compatibility_date = date;
        } else {
            deployment
                .warnings
                .push(format!("no compatibility_date: using {}", deployment.code.compatibility_date));
        }
        deployment.code.compatibility_flags = self.compatibility_flags;
        deployment.code.limits.cpu_ms = self.limits.cpu_ms;
        deployment.code.limits.sub_requests = self.limits.subrequests;
        deployment.name = self.name;
        deployment.crons = self.triggers.crons;
        deployment.loaders = self.worker_loaders.into_iter().map(|loader| loader.binding).collect();
        let kv = |KvNamespace { binding, id }: KvNamespace| {
            let namespace = id.unwrap_or_else(|| binding.clone());
            (binding, kv_wish(namespace))
        };
        deployment.bindings = self.services.into_iter().map(Service::wish).collect();
        deployment.bindings.extend(self.kv_namespaces.into_iter().map(kv));
        deployment.bindings.extend(self.atoll.bindings);
        deployment.outbound = self.atoll.outbound;
        deployment.egress = self.atoll.egress;
        deployment.allow_callers = self.atoll.allow_callers;
        deployment.vars = self.vars.into_iter().map(|(name, value)| (name, var(value))).collect();
        let ignored = self.other.keys().filter(|key| !SILENT_KEYS.contains(&key.as_str()));
        deployment
            .warnings
            .extend(ignored.take(CONFIG_ENTRIES_MAX).map(|key| format!("ignored key `{key}`")));
    }
}

/// A JSON value as a variable: strings stay strings.
pub(crate) fn var(value: Value) -> Var {
    match value {
        Value::String(text) => Var::Text(text),
        other => Var::Json(other.to_string()),
    }
}

fn toml_error(text: &str, error: &toml::de::Error) -> ConfigError {
    let line =
        error.span().and_then(|span| text.get(..span.start)).map(|before| 1 + before.matches('\n').count());
    ConfigError::Shape(match line {
        Some(line) => format!("{} at line {line}", error.message()),
        None => error.message().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::WorkerCode;

    const TOML: &str = r#"
name = "w"
main = "src/index.ts"
compatibility_date = "2025-06-01"
compatibility_flags = ["nodejs_compat"]
find_additional_modules = true
r2_buckets = []
kv_namespaces = [{ binding = "KV", id = "sessions" }, { binding = "OWN" }]
[vars]
A = "x"
B = { c = [1, true] }
[triggers]
crons = ["*/5 * * * *"]
[[rules]]
type = "Text"
globs = ["**/*.md"]
[[worker_loaders]]
binding = "LOADER"
[[services]]
binding = "OTHER"
service = "other"
entrypoint = "Named"
props = { role = "reader" }
[limits]
cpu_ms = 50
[atoll]
outbound = ["api.example.com", "*.example.org"]
egress = "std"
allow_callers = ["partner/*"]
[atoll.bindings]
LOG = { type = "logger" }
"#;
    const JSONC: &str = r#"{
  "$schema": "x", // comment
  "name": "w", "main": "src/index.ts", "compatibility_date": "2025-06-01",
  "compatibility_flags": ["nodejs_compat"], "find_additional_modules": true, "r2_buckets": [],
  "kv_namespaces": [{ "binding": "KV", "id": "sessions" }, { "binding": "OWN" }],
  "vars": { "A": "x", "B": { "c": [1, true] } }, "triggers": { "crons": ["*/5 * * * *"] },
  "rules": [{ "type": "Text", "globs": ["**/*.md"] }], "worker_loaders": [{ "binding": "LOADER" }],
  "services": [{ "binding": "OTHER", "service": "other", "entrypoint": "Named", "props": { "role": "reader" } }],
  "limits": { "cpu_ms": 50 },
  "atoll": { "outbound": ["api.example.com", "*.example.org"], "egress": "std",
    "allow_callers": ["partner/*"], "bindings": { "LOG": { "type": "logger" } } },
}"#;

    #[test]
    fn both_formats_say_the_same() {
        let read = |text, format| {
            let config = WranglerConfig::parse(text, format).unwrap();
            assert!(config.finds_additional_modules());
            assert!(config.rules[0].matches("docs/a.md") && !config.rules[0].matches("a.txt"));
            let mut deployment = Deployment::of(WorkerCode::new("m"));
            config.apply(&mut deployment);
            deployment
        };
        let from_toml = read(TOML, ConfigFormat::Toml);
        assert_eq!(from_toml, read(JSONC, ConfigFormat::Jsonc));
        assert_eq!(from_toml.name.as_deref(), Some("w"));
        assert_eq!(from_toml.vars[1], ("B".to_owned(), Var::Json(r#"{"c":[1,true]}"#.to_owned())));
        assert_eq!(from_toml.code.limits.cpu_ms, Some(50));
        let props = serde_json::json!({ "role": "reader" });
        let other = serde_json::json!({ "type": "service", "worker": "other", "entrypoint": "Named", "props": props });
        let wanted = [
            ("OTHER".to_owned(), other),
            ("KV".to_owned(), kv_wish("sessions".to_owned())),
            ("OWN".to_owned(), kv_wish("OWN".to_owned())),
            ("LOG".to_owned(), serde_json::json!({ "type": "logger" })),
        ];
        assert_eq!(from_toml.bindings, wanted);
        assert_eq!(from_toml.loaders, ["LOADER"]);
        assert_eq!(from_toml.outbound, ["api.example.com", "*.example.org"]);
        assert_eq!(from_toml.egress.as_deref(), Some("std"));
        assert_eq!(from_toml.allow_callers, ["partner/*"]);
        assert_eq!(from_toml.warnings, ["ignored key `r2_buckets`"]);
    }

    #[test]
    fn wrong_files_are_refused_with_a_place() {
        for (text, format, want) in [
            ("{\"name\": 1}", ConfigFormat::Jsonc, "line 1"),
            ("{\"name\": \"a\", \"name\": \"b\"}", ConfigFormat::Jsonc, "duplicate field `name`"),
            ("\nname = 1", ConfigFormat::Toml, "line 2"),
            ("name = \"a\"\nname = \"b\"", ConfigFormat::Toml, "line 2"),
            (
                "services = [{ binding = \"A\", service = \"b\" }]\nkv_namespaces = [{ binding = \"A\" }]",
                ConfigFormat::Toml,
                "two bindings are named \"A\"",
            ),
            ("[atoll]\nother = 1", ConfigFormat::Toml, "unknown field `other`"),
            ("[[rules]]\ntype = \"Nope\"\nglobs = []", ConfigFormat::Toml, "unknown variant"),
        ] {
            let error = WranglerConfig::parse(text, format).unwrap_err().to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
        let deep = "[".repeat(1_000_000);
        assert_eq!(WranglerConfig::parse(&deep, ConfigFormat::Jsonc).unwrap_err(), ConfigError::TooDeep);
        assert!(WranglerConfig::parse(&format!("a = {deep}"), ConfigFormat::Toml).is_err());
        let many = format!("compatibility_flags = [{}]", "\"x\",".repeat(1_001));
        let error = WranglerConfig::parse(&many, ConfigFormat::Toml).unwrap_err();
        assert_eq!(error, ConfigError::TooMany("compatibility_flags"));
    }
}
