//! The commands that talk to a server: `deploy`, `execute`, `workers`.

use atoll_bindings::seam::LogLevel;
use http::Method;
use serde_json::{Map, Value, json};

use super::args::remote::{Deploy, Execute, Workers};
use super::client::Api;
use super::exit::{Failure, Kind, Result};
use super::{output, package};

/// `atoll deploy`.
pub(crate) async fn deploy(args: Deploy) -> Result<()> {
    let deployment = package::deployment(&args.path)?;
    let name = worker_name(args.name.as_deref().or(deployment.name.as_deref()))?;
    let body = package::upload(&deployment, &args.hosts);
    let modules = deployment.code.modules.len();
    // Built here first: a mistake is told with the author's file names, and nothing is sent.
    let bundle = deployment.code.build().map_err(|error| Failure::new(Kind::Refused, error))?;
    if args.dry_run {
        let hash = bundle.hash().to_string();
        if args.json {
            output::json_line(&json!({ "name": name, "hash": hash, "modules": modules }));
        } else {
            output::line(&format!("{name}: {modules} modules, {hash}; nothing was sent"));
        }
        return Ok(());
    }
    let api = Api::new(&args.remote)?;
    let answer = api.call(Method::PUT, &worker_path(&name, "")?, Some(&body)).await?;
    if args.json {
        output::json_line(&answer);
        return Ok(());
    }
    match answer["version"].as_u64() {
        Some(version) => output::line(&format!("deployed {name}, version {version}, to {}", api.base())),
        None => output::line(&format!("deployed {name} to {}", api.base())),
    }
    if let Some(path) = answer["path"].as_str() {
        output::line(&format!("  {}{path}", api.base()));
    }
    if let Some(host) = answer["host"].as_str() {
        output::note(&format!("  and at the host name {host}"));
    }
    Ok(())
}

/// `atoll execute`.
pub(crate) async fn execute(args: Execute) -> Result<()> {
    let (code, language) = package::snippet_text(&args.path, args.ts)?;
    let mut body = json!({ "code": code, "language": language });
    if let Some(input) = &args.input {
        body["input"] = package::parse_json("--input", input)?;
    }
    let env: Map<String, Value> = package::env_values(&args.guest)?
        .into_iter()
        .map(|(name, var)| {
            let value = package::value_of(&var);
            (name, value)
        })
        .collect();
    if !env.is_empty() {
        body["env"] = Value::Object(env);
    }
    package::limits(&args.guest)?; // names a mistake before anything is sent
    let limits = package::limit_fields(&args.guest)?;
    if !limits.is_empty() {
        body["limits"] = Value::Object(limits);
    }
    let answer = Api::new(&args.remote)?.call(Method::POST, "/v1/execute", Some(&body)).await?;
    let failed = !answer["ok"].as_bool().unwrap_or(false);
    let code = answer["error"]["code"].as_str().unwrap_or("host_fault");
    let kind = if failed { Failure::kind_of_code(code) } else { None };
    if args.json {
        output::json_line(&answer);
        return kind.map_or(Ok(()), |kind| Err(Failure::silent(kind)));
    }
    answer["logs"].as_array().into_iter().flatten().for_each(show_line);
    match kind {
        None => {
            output::json_line(&answer["result"]);
            Ok(())
        }
        Some(kind) => Err(Failure::new(kind, error_text(&answer["error"], code))),
    }
}

/// An error object as text: the stack if there is one, as it begins with name and message.
fn error_text(error: &Value, code: &str) -> String {
    let text = |key: &str| error[key].as_str().filter(|text| !text.is_empty());
    match (text("stack"), text("name"), text("message")) {
        (Some(stack), ..) => stack.to_owned(),
        (None, Some(name), Some(message)) => format!("{name}: {message} ({code})"),
        (None, None, Some(message)) => format!("{message} ({code})"),
        _ => code.to_owned(),
    }
}

/// `atoll workers`.
pub(crate) async fn workers(args: Workers) -> Result<()> {
    match args {
        Workers::List { json, remote } => {
            let answer = Api::new(&remote)?.call(Method::GET, "/v1/workers", None).await?;
            if json {
                output::json_line(&answer);
            } else {
                list(&answer);
            }
        }
        Workers::Get { name, remote } => {
            output::json_line(&Api::new(&remote)?.call(Method::GET, &worker_path(&name, "")?, None).await?);
        }
        Workers::Versions { name, remote } => {
            output::json_line(
                &Api::new(&remote)?.call(Method::GET, &worker_path(&name, "/versions")?, None).await?,
            );
        }
        Workers::Delete { name, remote } => {
            Api::new(&remote)?.call(Method::DELETE, &worker_path(&name, "")?, None).await?;
            output::note(&format!("deleted {name}"));
        }
        Workers::Rollback { name, version, remote } => {
            let body = version.map_or_else(|| json!({}), |version| json!({ "version": version }));
            let path = worker_path(&name, "/rollback")?;
            output::json_line(&Api::new(&remote)?.call(Method::POST, &path, Some(&body)).await?);
        }
        Workers::Logs { name, follow, json, remote } => {
            let api = Api::new(&remote)?;
            let path = worker_path(&name, "/logs")?;
            let show = |line: &Value| if json { output::line(&line.to_string()) } else { show_line(line) };
            if follow {
                return api.events(&path, |data| serde_json::from_str(data).iter().for_each(show)).await;
            }
            let answer = api.call(Method::GET, &path, None).await?;
            items(&answer, "logs").iter().for_each(show);
        }
    }
    Ok(())
}

/// A list, bare or under its name.
fn items<'a>(answer: &'a Value, name: &str) -> &'a [Value] {
    answer.as_array().or_else(|| answer[name].as_array()).map_or(&[], Vec::as_slice)
}

fn list(answer: &Value) {
    let workers = items(answer, "workers");
    if workers.is_empty() {
        output::note("no workers; `atoll deploy DIR` deploys one");
    }
    for worker in workers {
        let name = worker["name"].as_str().unwrap_or_default();
        let version =
            worker["version"].as_u64().map_or_else(String::new, |version| format!("version {version}"));
        output::line(&output::printable(&format!("{name:<32} {version}")));
    }
}

fn show_line(line: &Value) {
    let level = serde_json::from_value(line["level"].clone()).unwrap_or(LogLevel::Log);
    output::log_line(level, line["message"].as_str().unwrap_or_default());
}

/// The path of a worker in the control API; its name is checked, so it needs no escapes.
fn worker_path(name: &str, rest: &str) -> Result<String> {
    Ok(format!("/v1/workers/{}{rest}", worker_name(Some(name))?))
}

/// A name that the server will take.
pub(crate) fn worker_name(name: Option<&str>) -> Result<String> {
    let hint =
        "give --name, or set `name` in wrangler.jsonc: lower-case letters, digits and hyphens, at most 63";
    let name = name.ok_or_else(|| Failure::usage("the worker has no name").hint(hint))?;
    match atoll::config::Name::parse(name) {
        Some(name) => Ok(name.as_str().to_owned()),
        None => Err(Failure::usage(format!("{name:?} cannot be a worker's name")).hint(hint)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_and_paths_are_safe() {
        assert_eq!(worker_name(Some("a-1")).unwrap(), "a-1");
        for bad in [None, Some(""), Some("A"), Some("../x")] {
            assert!(worker_name(bad).unwrap_err().hint.unwrap().contains("--name"), "{bad:?}");
        }
        assert_eq!(worker_path("a-b", "/logs").unwrap(), "/v1/workers/a-b/logs");
        assert!(worker_path("../x?y", "").is_err());
    }

    #[test]
    fn errors_are_told_by_their_stack_or_message() {
        let stack = json!({ "name": "Error", "message": "m", "stack": "Error: m\n    at main.js:1:1" });
        assert_eq!(error_text(&stack, "guest_error"), "Error: m\n    at main.js:1:1");
        assert_eq!(error_text(&json!({ "message": "too slow" }), "limit_cpu"), "too slow (limit_cpu)");
        assert_eq!(error_text(&Value::Null, "limit_cpu"), "limit_cpu");
    }
}
