//! From a folder, a file or standard input to something that can run or be sent.

use std::io::Read as _;
use std::path::Path;

use atoll_loader::limits::{CODE_BYTES_MAX, Limits};
use atoll_loader::{Deployment, Language, ModuleSource, Snippet, Var, WorkerCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::args::local::Guest;
use super::exit::{Failure, Kind, Result};
use super::output;

/// What a source wants to be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Events such as requests.
    Worker,
    /// One call with an input.
    Function,
}

/// Loads a worker's folder or file, with its configuration; warnings are shown.
pub(crate) fn deployment(path: &Path) -> Result<Deployment> {
    let loaded = Deployment::from_path(path).map_err(|error| match error.code() {
        "folder_io" | "folder_no_main" => {
            Failure::usage(error).hint("`atoll init DIR` makes a worker to begin with")
        }
        _ => Failure::new(Kind::Refused, error),
    })?;
    loaded.warnings.iter().for_each(|text| output::warning(text));
    Ok(loaded)
}

/// The text of a snippet and its language: `-` is standard input.
pub(crate) fn snippet_text(path: &Path, ts: bool) -> Result<(String, Language)> {
    let text = if path == Path::new("-") {
        let mut text = String::new();
        let read = std::io::stdin().lock().take(CODE_BYTES_MAX as u64 + 1).read_to_string(&mut text);
        read.map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    let text = text.map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))?;
    if text.len() > CODE_BYTES_MAX {
        return Err(Failure::new(Kind::Refused, format!("the code is larger than {CODE_BYTES_MAX} bytes")));
    }
    let typed = path.extension().is_some_and(|ending| ["ts", "mts", "tsx"].iter().any(|ts| ending == *ts));
    Ok((text, if ts || typed { Language::Ts } else { Language::Js }))
}

/// What `atoll run` runs, and how: a folder is a worker, a file is what it looks like.
pub(crate) fn runnable(path: &Path, ts: bool) -> Result<(Deployment, Form)> {
    if path.is_dir() {
        return Ok((deployment(path)?, Form::Worker));
    }
    let (text, language) = snippet_text(path, ts)?;
    match looks_like(&text) {
        Some(form) if path != Path::new("-") => Ok((deployment(path)?, form)),
        form => {
            let code =
                Snippet::new(text, language).into_code().map_err(|e| Failure::new(Kind::Refused, e))?;
            Ok((Deployment::of(code), form.unwrap_or(Form::Function)))
        }
    }
}

/// Tells a worker from a function by its default export; `None` if it has none. `--input` and `--request`
/// overrule a wrong guess.
fn looks_like(text: &str) -> Option<Form> {
    let mut form = None;
    for line in text.lines() {
        let line = line.trim_start();
        if let Some(exported) = line.strip_prefix("export default") {
            let exported = exported.trim_start();
            let function = ["function", "async", "("].iter().any(|begin| exported.starts_with(begin));
            form = Some(if function { Form::Function } else { Form::Worker });
        } else if line.starts_with("export {") && line.contains(" as default") {
            form = Some(Form::Worker);
        }
    }
    form
}

/// `env` values from the command line; JSON is checked here, where the mistake can be named.
pub(crate) fn env_values(guest: &Guest) -> Result<Vec<(String, Var)>> {
    let texts = guest.env.iter().map(|(name, text)| Ok((name.clone(), Var::Text(text.clone()))));
    let values = guest.env_json.iter().map(|(name, text)| {
        parse_json(&format!("--env-json {name}"), text)
            .map(|value| (name.clone(), Var::Json(value.to_string())))
    });
    texts.chain(values).collect()
}

/// JSON from a flag.
pub(crate) fn parse_json(flag: &str, text: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|error| {
        Failure::usage(format!("{flag} is not JSON: {error}")).hint("quote it, like '{\"a\": 1}'")
    })
}

/// Limits as the control API writes them, and as [`Limits`] does.
const LIMIT_NAMES: [(&str, &str); 8] = [
    ("cpuMs", "cpu_ms"),
    ("wallMs", "wall_ms"),
    ("heapMib", "heap_mib"),
    ("externalMib", "external_mib"),
    ("subRequests", "subrequests"),
    ("logBytes", "log_bytes"),
    ("responseBytes", "response_bytes"),
    ("loads", "loads"),
];

/// Limits from the command line, as the fields of [`Limits`].
pub(crate) fn limit_fields(guest: &Guest) -> Result<Map<String, Value>> {
    let number = |(name, text): &(String, String)| {
        if !LIMIT_NAMES.iter().any(|(own, _)| own == name) {
            let names: Vec<_> = LIMIT_NAMES.iter().map(|(own, _)| *own).collect();
            return Err(Failure::usage(format!("--limits {name}: it is one of {}", names.join(", "))));
        }
        let value: u64 =
            text.parse().map_err(|_| Failure::usage(format!("--limits {name}: {text} is no number")))?;
        Ok((name.clone(), value.into()))
    };
    guest.limits.iter().map(number).collect()
}

/// Limits from the command line over the defaults.
pub(crate) fn limits(guest: &Guest) -> Result<Limits> {
    let fields: Map<String, Value> = limit_fields(guest)?
        .into_iter()
        .map(|(name, value)| {
            let field = LIMIT_NAMES.iter().find(|(own, _)| *own == name).map_or(&*name, |(_, field)| field);
            (field.to_owned(), value)
        })
        .collect();
    serde_json::from_value(Value::Object(fields))
        .map(|limits: Limits| limits.lower_of(Limits::CEILING))
        .map_err(|error| Failure::usage(format!("--limits: {error}")))
}

/// The body of `PUT /v1/workers/{name}`.
pub(crate) fn upload(deployment: &Deployment, hosts: &[String]) -> Value {
    let mut body = code(&deployment.code);
    let vars: Map<String, Value> =
        deployment.vars.iter().map(|(name, var)| (name.clone(), value_of(var))).collect();
    let mut put = |key: &str, value: Value| {
        let empty = value.is_null()
            || value.as_array().is_some_and(Vec::is_empty)
            || value.as_object().is_some_and(Map::is_empty);
        if !empty {
            body.insert(key.to_owned(), value);
        }
    };
    put("vars", Value::Object(vars));
    put("loaders", json!(deployment.loaders));
    put("bindings", Value::Object(deployment.bindings.iter().cloned().collect()));
    put("crons", json!(deployment.crons));
    put("outbound", json!(deployment.outbound));
    put("egress", json!(deployment.egress));
    put("allowCallers", json!(deployment.allow_callers));
    put("hosts", json!(hosts));
    Value::Object(body)
}

/// A variable as JSON; JSON that the loader checked parses.
pub(crate) fn value_of(var: &Var) -> Value {
    match var {
        Var::Text(text) => Value::String(text.clone()),
        Var::Json(json) => serde_json::from_str(json).unwrap_or(Value::Null),
    }
}

/// Worker code as the control API takes it.
fn code(code: &WorkerCode) -> Map<String, Value> {
    let modules: Map<String, Value> =
        code.modules.iter().map(|(name, source)| (name.clone(), module(source))).collect();
    let mut out = Map::new();
    out.insert("compatibilityDate".into(), json!(code.compatibility_date));
    out.insert("mainModule".into(), json!(code.main_module));
    out.insert("modules".into(), Value::Object(modules));
    if !code.compatibility_flags.is_empty() {
        out.insert("compatibilityFlags".into(), json!(code.compatibility_flags));
    }
    if code.allow_experimental {
        out.insert("allowExperimental".into(), json!(true));
    }
    let limits = [("cpuMs", code.limits.cpu_ms), ("subRequests", code.limits.sub_requests)];
    let limits: Map<String, Value> =
        limits.into_iter().filter_map(|(name, value)| Some((name.to_owned(), json!(value?)))).collect();
    if !limits.is_empty() {
        out.insert("limits".into(), Value::Object(limits));
    }
    out
}

fn module(source: &ModuleSource) -> Value {
    let packed = |bytes: &[u8]| STANDARD.encode(bytes);
    match source {
        ModuleSource::Plain(text) => json!(&**text),
        ModuleSource::Js(text) => json!({ "js": &**text }),
        ModuleSource::Cjs(text) => json!({ "cjs": &**text }),
        ModuleSource::Text(text) => json!({ "text": &**text }),
        ModuleSource::Py(text) => json!({ "py": &**text }),
        ModuleSource::Ts(text) => json!({ "ts": &**text }),
        ModuleSource::Data(bytes) => json!({ "data": packed(bytes) }),
        ModuleSource::Wasm(bytes) => json!({ "wasm": packed(bytes) }),
        // The build before it refused JSON that does not parse; the other two kinds never leave it.
        ModuleSource::Json(text) => {
            json!({ "json": serde_json::from_str::<Value>(text).unwrap_or(Value::Null) })
        }
        ModuleSource::Ambiguous { .. } | ModuleSource::Compiled { .. } => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_what_its_default_export_says() {
        for (text, form) in [
            ("export default { fetch() {} }", Some(Form::Worker)),
            ("import x from 'y';\nexport default class extends W {}", Some(Form::Worker)),
            ("export default async function (input) {}", Some(Form::Function)),
            ("export default (input) => 1", Some(Form::Function)),
            ("var app = 1;\nexport {\n  app as default\n};\nexport { app as default };", Some(Form::Worker)),
            ("return 1", None),
            ("// export default {}\nreturn 1", None),
        ] {
            assert_eq!(looks_like(text), form, "{text}");
        }
    }

    #[test]
    fn every_example_builds_and_its_upload_is_what_the_server_reads() {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
        for name in ["hello", "typescript", "hono", "dispatcher", "streaming", "wasm", "scheduled"] {
            let deployment = deployment(&examples.join(name)).unwrap_or_else(|e| panic!("{name}: {e:?}"));
            assert_eq!(deployment.name.as_deref(), Some(name));
            let body = upload(&deployment, &[]);
            // What is not code is read by the control API; the code must be the loader's own shape.
            let mut code = body.clone();
            for key in ["vars", "loaders", "bindings", "crons", "outbound", "egress", "allowCallers", "hosts"]
            {
                code.as_object_mut().unwrap().remove(key);
            }
            let read =
                WorkerCode::from_json(code.to_string().as_bytes()).unwrap_or_else(|e| panic!("{name}: {e}"));
            let (here, there) = (deployment.code.build().unwrap(), read.build().unwrap());
            assert_eq!(here.hash(), there.hash(), "{name}: the server builds the same bundle");
        }
        let (_, form) = runnable(&examples.join("execute/snippet.js"), false).unwrap();
        assert_eq!(form, Form::Function);
    }

    #[test]
    fn limits_are_checked_and_capped() {
        let guest = |limits: &[(&str, &str)]| Guest {
            env: vec![],
            env_json: vec![],
            limits: limits.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        };
        let given = limits(&guest(&[("cpuMs", "5"), ("heapMib", "4000000"), ("subRequests", "2")])).unwrap();
        assert_eq!((given.cpu_ms, given.heap_mib, given.subrequests), (5, Limits::CEILING.heap_mib, 2));
        for bad in [[("cpuMs", "x")], [("colour", "1")], [("cpuMs", "-1")], [("cpu_ms", "1")]] {
            assert_eq!(limits(&guest(&bad)).unwrap_err().kind, Kind::Usage, "{bad:?}");
        }
    }
}
