//! Worker code from JSON, as the control API takes it.
//!
//! The shape is the Worker Loader's: `compatibilityDate`, `mainModule`, `modules`, and the rest optional. A module
//! is a string or an object with one kind; `data` and `wasm` are base64, `json` is any JSON value. Unknown and
//! repeated keys are errors: a key that one parser drops and another obeys is how checks are passed by.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::checks::source::too_deep_at;
use crate::code::{CodeLimits, ModuleSource, WorkerCode};
use crate::limits::{CODE_BYTES_MAX, JSON_DEPTH_MAX, MIB, MODULES_MAX};

/// Largest JSON description, in bytes: base64 takes four bytes for three, escapes take more.
pub const JSON_BYTES_MAX: usize = 2 * CODE_BYTES_MAX + MIB;
/// Fields that would carry compiled code. Never accepted, so they get an error of their own.
const COMPILED_FIELDS: [&str; 6] =
    ["codeCache", "code_cache", "cachedData", "snapshot", "startupSnapshot", "bytecode"];

/// Why JSON is not a description of worker code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Over [`JSON_BYTES_MAX`].
    #[error("the JSON is larger than {JSON_BYTES_MAX} bytes")]
    TooLarge,
    /// Nested deeper than `JSON_DEPTH_MAX`.
    #[error("the JSON is nested deeper than {JSON_DEPTH_MAX} levels")]
    TooDeep,
    /// Not JSON, or not the expected shape.
    #[error("{message} (line {line}, column {column})")]
    Shape {
        /// What is wrong.
        message: String,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
}

impl JsonError {
    /// Stable machine-readable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge => "json_size",
            Self::TooDeep => "json_depth",
            Self::Shape { .. } => "json_shape",
        }
    }
}

/// Reads any JSON type under this module's rules: bounded size and depth, errors with line and column.
///
/// # Errors
/// [`JsonError`], also for whatever `T` refuses.
pub fn parse<'de, T: Deserialize<'de>>(json: &'de [u8]) -> Result<T, JsonError> {
    if json.len() > JSON_BYTES_MAX {
        return Err(JsonError::TooLarge);
    }
    let text = std::str::from_utf8(json).map_err(|_| JsonError::Shape {
        message: "the JSON is not UTF-8".to_owned(),
        line: 1,
        column: 1,
    })?;
    if too_deep_at(text, JSON_DEPTH_MAX).is_some() {
        return Err(JsonError::TooDeep);
    }
    serde_json::from_str(text).map_err(|error| {
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default().to_owned();
        JsonError::Shape { message, line: error.line(), column: error.column() }
    })
}

impl WorkerCode {
    /// Reads a JSON description.
    ///
    /// # Errors
    /// If it is too large, too deep, not JSON or not of the expected shape.
    pub fn from_json(json: &[u8]) -> Result<Self, JsonError> {
        parse(json)
    }
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CodeJson {
    compatibility_date: String,
    #[serde(default)]
    compatibility_flags: Vec<String>,
    #[serde(default)]
    allow_experimental: bool,
    main_module: String,
    modules: Modules,
    #[serde(default)]
    limits: Option<LimitsJson>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LimitsJson {
    cpu_ms: Option<u32>,
    sub_requests: Option<u32>,
}

/// Also usable inside a larger request, but not under `#[serde(flatten)]`, which cannot keep raw JSON.
impl<'de> Deserialize<'de> for WorkerCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let code = CodeJson::deserialize(deserializer)?;
        Ok(Self {
            compatibility_date: code.compatibility_date,
            compatibility_flags: code.compatibility_flags,
            allow_experimental: code.allow_experimental,
            main_module: code.main_module,
            modules: code.modules.0,
            limits: code.limits.map_or_else(CodeLimits::default, |limits| CodeLimits {
                cpu_ms: limits.cpu_ms,
                sub_requests: limits.sub_requests,
            }),
        })
    }
}

/// Names to bodies: `modules` of worker code, also found alone in an execution request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Modules(pub Vec<(String, ModuleSource)>);

impl<'de> Deserialize<'de> for Modules {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ModulesVisitor)
    }
}

struct ModulesVisitor;

impl<'de> Visitor<'de> for ModulesVisitor {
    type Value = Modules;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of modules by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Modules, A::Error> {
        let mut modules = Vec::new();
        // Equal names meet in the twins check of the build; only the count needs a bound here, one over the
        // build's own so that its error is the one seen.
        while let Some((name, ModuleJson(source))) = map.next_entry::<String, ModuleJson>()? {
            modules.push((name, source));
            if modules.len() > 2 * MODULES_MAX {
                return Err(A::Error::custom(format!("more than {} modules", 2 * MODULES_MAX)));
            }
        }
        Ok(Modules(modules))
    }
}

struct ModuleJson(ModuleSource);

impl<'de> Deserialize<'de> for ModuleJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ModuleVisitor).map(Self)
    }
}

struct ModuleVisitor;

impl<'de> Visitor<'de> for ModuleVisitor {
    type Value = ModuleSource;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, or an object with one of js, cjs, text, data, json, py, wasm or ts")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ModuleSource, E> {
        Ok(ModuleSource::Plain(Arc::from(text)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ModuleSource, A::Error> {
        let mut found = None;
        let mut kinds = 0;
        let mut seen: Vec<String> = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            if seen.contains(&key) {
                return Err(A::Error::custom(format!("duplicate field `{key}`")));
            }
            let source = module_value(&key, &mut map)?;
            // Bounded: an unknown key already is an error, so at most all kinds and compiled fields get here.
            seen.push(key);
            kinds += 1;
            if !matches!(found, Some(ModuleSource::Compiled { .. })) {
                found = Some(source);
            }
        }
        match found {
            Some(source) if kinds == 1 || matches!(source, ModuleSource::Compiled { .. }) => Ok(source),
            _ => Ok(ModuleSource::Ambiguous { kinds }),
        }
    }
}

fn module_value<'de, A: MapAccess<'de>>(key: &str, map: &mut A) -> Result<ModuleSource, A::Error> {
    Ok(match key {
        "js" => ModuleSource::Js(map.next_value()?),
        "cjs" => ModuleSource::Cjs(map.next_value()?),
        "ts" => ModuleSource::Ts(map.next_value()?),
        "text" => ModuleSource::Text(map.next_value()?),
        "py" => ModuleSource::Py(map.next_value()?),
        "json" => ModuleSource::Json(Arc::from(map.next_value::<Box<RawValue>>()?.get())),
        "data" => ModuleSource::Data(binary(key, map)?),
        "wasm" => ModuleSource::Wasm(binary(key, map)?),
        key if COMPILED_FIELDS.contains(&key) => {
            map.next_value::<serde::de::IgnoredAny>()?;
            ModuleSource::Compiled { field: key.to_owned() }
        }
        _ => {
            const KINDS: &[&str] = &["js", "cjs", "text", "data", "json", "py", "wasm", "ts"];
            return Err(A::Error::unknown_field(&crate::name::echo(key), KINDS));
        }
    })
}

fn binary<'de, A: MapAccess<'de>>(key: &str, map: &mut A) -> Result<Bytes, A::Error> {
    let text = map.next_value::<std::borrow::Cow<'de, str>>()?;
    let bytes = STANDARD
        .decode(text.as_bytes())
        .map_err(|e| A::Error::custom(format!("`{key}` is not base64: {e}")))?;
    Ok(Bytes::from(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::CodeError;

    fn code(modules: &str) -> String {
        format!(r#"{{"compatibilityDate":"2025-06-01","mainModule":"m.js","modules":{modules}}}"#)
    }

    #[test]
    fn reads_every_kind() {
        let json = r#"{
            "compatibilityDate": "2025-06-01", "compatibilityFlags": ["nodejs_compat"], "allowExperimental": true,
            "mainModule": "m.js", "limits": {"cpuMs": 10, "subRequests": 2},
            "modules": {"m.js": "export default 1", "a": {"js": "1"}, "b": {"cjs": "2"}, "c": {"text": "\u00e9"},
                "d": {"data": "AP8="}, "e": {"json": {"x": [1.0, "\u00e9"]}}, "f": {"py": ""}, "g": {"wasm": "AGFzbQ=="},
                "h": {"ts": "let x: number"}}
        }"#;
        let code = WorkerCode::from_json(json.as_bytes()).unwrap();
        assert_eq!(code.limits, CodeLimits { cpu_ms: Some(10), sub_requests: Some(2) });
        assert!(code.allow_experimental);
        let sources: Vec<_> = code.modules.iter().map(|(_, source)| source.clone()).collect();
        assert_eq!(sources[3], ModuleSource::Text("é".into()));
        assert_eq!(sources[4], ModuleSource::Data(Bytes::from_static(&[0, 255])));
        assert_eq!(sources[5], ModuleSource::Json(r#"{"x": [1.0, "\u00e9"]}"#.into()));
        assert_eq!(sources[7], ModuleSource::Wasm(Bytes::from_static(b"\0asm")));
        assert_eq!(sources.len(), 9);
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for (json, message) in [
            ("{", "EOF while parsing an object (line 1, column 1)"),
            ("[]", "missing field"),
            (r#"{"compatibilityDate":"x","mainModule":"m"}"#, "missing field `modules` (line 1, column 42)"),
            (r#"{"mainModule":"a","mainModule":"b"}"#, "duplicate field `mainModule`"),
            (r#"{"codeCache":""}"#, "unknown field `codeCache`"),
            (&code(r#"{"m.js":{"js":"","js":""}}"#), "duplicate field `js`"),
            (&code(r#"{"m.js":{"mjs":""}}"#), "unknown field `mjs`, expected one of"),
            (&code(r#"{"m.js":{"data":"%"}}"#), "`data` is not base64"),
            (&code(r#"{"m.js":1}"#), "invalid type: integer `1`, expected a string, or an object"),
        ] {
            let error = WorkerCode::from_json(json.as_bytes()).unwrap_err();
            if message != "missing field" {
                assert!(error.to_string().starts_with(message), "{json}: {error}");
            }
            assert_eq!(error.code(), "json_shape");
        }
        assert!(WorkerCode::from_json(b"\"\xff\"").is_err());
    }

    #[test]
    fn a_million_levels_are_refused_without_recursion() {
        for open in ["[", "{\"a\":"] {
            let deep = open.repeat(1_000_000);
            assert_eq!(WorkerCode::from_json(deep.as_bytes()), Err(JsonError::TooDeep));
        }
        let deep = code(&format!(r#"{{"m.js":{{"json":{}}}}}"#, "[".repeat(1_000_000)));
        assert_eq!(WorkerCode::from_json(deep.as_bytes()), Err(JsonError::TooDeep));
    }

    #[test]
    fn ambiguous_compiled_and_repeated_modules_reach_the_build() {
        let build =
            |modules: &str| WorkerCode::from_json(code(modules).as_bytes()).unwrap().build().unwrap_err();
        let kinds = build(r#"{"m.js":{"js":"","text":""}}"#);
        assert_eq!(
            kinds.to_string(),
            "Each module must contain exactly one of 'js', 'cjs', 'text', 'data', 'json', 'py', or 'wasm'. \
             Module 'm.js' contained 2 properties."
        );
        let none = build(r#"{"m.js":{}}"#);
        assert!(none.to_string().ends_with("contained 0 properties."));
        let compiled = build(r#"{"m.js":{"js":"export default 1","codeCache":"AAAA"}}"#);
        assert!(matches!(compiled, CodeError::CompiledCode { .. }), "{compiled}");
        let twice = build(r#"{"m.js":"export default 1","m.js":"export default 2"}"#);
        assert_eq!(twice.code(), "code_module_twins");
    }
}
