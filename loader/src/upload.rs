//! The Workers upload API's shape: a `metadata` part, and one part per module whose content type is its kind.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use crate::code::{ModuleSource, WorkerCode};
use crate::deployment::{Deployment, Service, kv_wish};
use crate::json;
use crate::multipart::{self, MultipartError, Part};
use crate::wrangler::var;

/// Most bindings of one upload.
const BINDINGS_MAX: usize = 1_000;
/// Most warnings given.
const WARNINGS_MAX: usize = 100;

#[derive(Deserialize)]
struct Metadata {
    main_module: Option<String>,
    body_part: Option<String>,
    compatibility_date: Option<String>,
    #[serde(default)]
    compatibility_flags: Vec<String>,
    #[serde(default)]
    bindings: Vec<Value>,
    #[serde(default)]
    limits: Limits,
}

#[derive(Default, Deserialize)]
struct Limits {
    cpu_ms: Option<u32>,
    subrequests: Option<u32>,
}

/// The bindings that Atoll has. Others are ignored with a warning.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Binding {
    PlainText {
        name: String,
        text: String,
    },
    Json {
        name: String,
        json: Value,
    },
    Service(Service),
    WorkerLoader {
        name: String,
    },
    KvNamespace {
        name: String,
        namespace_id: String,
    },
    /// What only Atoll has, in the shape of its own API.
    Atoll {
        name: String,
        binding: Value,
    },
}

impl Deployment {
    /// Reads an upload. The worker's name is not in it; it is in the URL.
    ///
    /// # Errors
    /// If the body is no multipart form, has no usable metadata, or has a part of an unknown kind.
    pub fn from_multipart(content_type: &str, body: &Bytes) -> Result<Self, MultipartError> {
        let parts = multipart::parse(content_type, body)?;
        let mut seen = HashSet::with_capacity(parts.len());
        if let Some(twice) = parts.iter().find(|part| !seen.insert(part.name.as_str())) {
            return Err(MultipartError::Duplicate(twice.name.clone()));
        }
        let metadata = parts.iter().find(|part| part.name == "metadata").ok_or(MultipartError::NoMetadata)?;
        let metadata: Metadata = json::parse(&metadata.body)?;
        if metadata.body_part.is_some() {
            return Err(MultipartError::ServiceWorker);
        }
        let main = metadata.main_module.ok_or_else(|| shape("missing field `main_module`"))?;
        if metadata.bindings.len() > BINDINGS_MAX {
            return Err(shape("more than 1000 bindings"));
        }
        let mut deployment = Deployment::of(WorkerCode::new(main));
        deployment.code.compatibility_date =
            metadata.compatibility_date.ok_or_else(|| shape("missing field `compatibility_date`"))?;
        deployment.code.compatibility_flags = metadata.compatibility_flags;
        deployment.code.limits.cpu_ms = metadata.limits.cpu_ms;
        deployment.code.limits.sub_requests = metadata.limits.subrequests;
        for binding in metadata.bindings {
            bind(&mut deployment, binding)?;
        }
        deployment.vars.sort_by(|a, b| a.0.cmp(&b.0));
        for part in parts.into_iter().filter(|part| part.name != "metadata") {
            add_module(&mut deployment, part)?;
        }
        Ok(deployment)
    }
}

fn shape(message: &str) -> MultipartError {
    MultipartError::Metadata(json::JsonError::Shape { message: message.to_owned(), line: 1, column: 1 })
}

fn bind(deployment: &mut Deployment, binding: Value) -> Result<(), MultipartError> {
    let kind = binding.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    const KNOWN: [&str; 6] = ["plain_text", "json", "service", "worker_loader", "kv_namespace", "atoll"];
    if !KNOWN.contains(&kind.as_str()) {
        warn(deployment, format!("ignored a binding of type {kind:?}"));
        return Ok(());
    }
    match Binding::deserialize(binding).map_err(|error| shape(&format!("bindings: {error}")))? {
        Binding::PlainText { name, text } => deployment.vars.push((name, var(Value::String(text)))),
        Binding::Json { name, json } => deployment.vars.push((name, var(json))),
        Binding::WorkerLoader { name } => deployment.loaders.push(name),
        Binding::Service(service) => deployment.bindings.push(service.wish()),
        Binding::KvNamespace { name, namespace_id } => {
            deployment.bindings.push((name, kv_wish(namespace_id)));
        }
        Binding::Atoll { name, binding } => deployment.bindings.push((name, binding)),
    }
    Ok(())
}

fn add_module(deployment: &mut Deployment, part: Part) -> Result<(), MultipartError> {
    let Part { name, file_name, content_type, body } = part;
    let name = file_name.unwrap_or(name);
    let content_type = content_type.unwrap_or_default();
    let text = |body: &Bytes| -> Result<Arc<str>, MultipartError> {
        std::str::from_utf8(body).map(Arc::from).map_err(|_| MultipartError::NotText(name.clone()))
    };
    let source = match content_type.as_str() {
        "application/javascript+module" | "text/javascript+module" => ModuleSource::Js(text(&body)?),
        "application/javascript" | "text/javascript" if name.ends_with(".js") || name.ends_with(".mjs") => {
            ModuleSource::Js(text(&body)?)
        }
        "application/javascript" | "text/javascript" => ModuleSource::Cjs(text(&body)?),
        "application/typescript+module" | "application/typescript" | "text/typescript" => {
            ModuleSource::Ts(text(&body)?)
        }
        "application/node" | "application/javascript+commonjs" => ModuleSource::Cjs(text(&body)?),
        "application/json" => ModuleSource::Json(text(&body)?),
        "application/wasm" => ModuleSource::Wasm(body),
        "application/octet-stream" => ModuleSource::Data(body),
        "text/plain" | "text/html" | "text/sql" => ModuleSource::Text(text(&body)?),
        "text/x-python" | "text/x-python-requirement" => ModuleSource::Py(text(&body)?),
        "application/source-map" => {
            warn(deployment, format!("ignored the source map {name:?}"));
            return Ok(());
        }
        _ => return Err(MultipartError::UnknownKind { name, content_type }),
    };
    deployment.code.modules.push((name, source));
    Ok(())
}

fn warn(deployment: &mut Deployment, warning: String) {
    if deployment.warnings.len() < WARNINGS_MAX {
        deployment.warnings.push(warning);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deployment::Var;

    const TYPE: &str = "multipart/form-data; boundary=\"X\"";

    fn upload(parts: &[(&str, &str, &str)]) -> Bytes {
        let mut body = String::new();
        for (name, content_type, text) in parts {
            body.push_str(&format!(
                "--X\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{name}\"\r\n\
                 Content-Type: {content_type}\r\n\r\n{text}\r\n"
            ));
        }
        Bytes::from(body + "--X--\r\n")
    }

    const METADATA: &str = r#"{"main_module":"w.js","compatibility_date":"2025-06-01","bindings":[
        {"type":"plain_text","name":"B","text":"b"},{"type":"json","name":"A","json":[1]},
        {"type":"service","name":"S","service":"other"},{"type":"worker_loader","name":"LOADER"},
        {"type":"kv_namespace","name":"K","namespace_id":"x"},{"type":"r2_bucket","name":"R"},
        {"type":"atoll","name":"LOG","binding":{"type":"logger"}}],"limits":{"cpu_ms":7}}"#;

    #[test]
    fn reads_an_upload_and_builds_it() {
        let body = upload(&[
            ("metadata", "application/json", METADATA),
            ("w.js", "application/javascript+module", "import t from './t'; export default t"),
            ("t", "text/plain", "text"),
            ("d", "application/octet-stream", "\0\0"),
            ("c.cjs", "application/javascript", "module.exports = 1"),
            ("w.js.map", "application/source-map", "{}"),
        ]);
        let deployment = Deployment::from_multipart(TYPE, &body).unwrap();
        assert_eq!(deployment.vars[0], ("A".to_owned(), Var::Json("[1]".to_owned())));
        assert_eq!(deployment.vars[1], ("B".to_owned(), Var::Text("b".to_owned())));
        assert_eq!(deployment.loaders, ["LOADER"]);
        let wanted = [
            ("S".to_owned(), serde_json::json!({ "type": "service", "worker": "other" })),
            ("K".to_owned(), kv_wish("x".to_owned())),
            ("LOG".to_owned(), serde_json::json!({ "type": "logger" })),
        ];
        assert_eq!(deployment.bindings, wanted);
        assert_eq!(deployment.code.limits.cpu_ms, Some(7));
        assert_eq!(deployment.warnings.len(), 2);
        let bundle = deployment.code.build().unwrap();
        let kinds: Vec<_> = bundle.modules().iter().map(|m| (&*m.name, m.body.kind())).collect();
        assert_eq!(kinds, [("c.cjs", "cjs"), ("d", "data"), ("t", "text"), ("w.js", "js")]);
    }

    #[test]
    fn refuses_each_wrong_upload_with_its_code() {
        let js = ("w.js", "application/javascript+module", "");
        for (parts, code) in [
            (vec![js], "upload_metadata"),
            (vec![("metadata", "application/json", "{")], "upload_metadata"),
            (vec![("metadata", "application/json", "{\"main_module\":\"w.js\"}")], "upload_metadata"),
            (vec![("metadata", "application/json", "{\"body_part\":\"script\"}")], "upload_metadata"),
            (
                vec![("metadata", "application/json", "{\"main_module\":\"a\",\"main_module\":\"b\"}")],
                "upload_metadata",
            ),
            (vec![("metadata", "application/json", METADATA), js, js], "upload_duplicate"),
            (vec![("metadata", "application/json", METADATA), ("x", "image/png", "")], "upload_kind"),
            (
                vec![("metadata", "application/json", METADATA), ("x", "application/x-v8-code-cache", "")],
                "upload_kind",
            ),
        ] {
            let error = Deployment::from_multipart(TYPE, &upload(&parts)).unwrap_err();
            assert_eq!(error.code(), code, "{error}");
        }
    }
}
