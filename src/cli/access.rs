//! The commands about secrets and API tokens.

use std::io::Read as _;

use atoll::config::{Config, Overrides};
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::args::access::{Reseal, Secret, Tokens};
use super::client::{Api, Upload};
use super::exit::{Failure, Kind, Result};
use super::output;

/// Longest value that is read, in bytes; the server takes less.
const VALUE_BYTES_MAX: u64 = 1024 * 1024;

/// `atoll secret`.
pub(crate) async fn secret(command: Secret) -> Result<()> {
    match command {
        Secret::Put { name, remote } => {
            let path = path("secrets", &name)?;
            let value = value()?;
            let answer = Api::new(&remote)?
                .upload(Method::PUT, &path, Upload::bytes(Bytes::copy_from_slice(&value)))
                .await?;
            output::note(&format!("{name} has version {}", answer["version"]));
        }
        Secret::List { json, remote } => {
            let answer = Api::new(&remote)?.call(Method::GET, "/v1/secrets", None).await?;
            show(&answer, "secrets", json, |secret| {
                format!("{:<32} version {}", text(secret, "name"), secret["version"])
            });
        }
        Secret::Delete { name, remote } => {
            Api::new(&remote)?.call(Method::DELETE, &path("secrets", &name)?, None).await?;
            output::note(&format!("deleted {name}"));
        }
        Secret::Reseal(args) => reseal(args).await?,
    }
    Ok(())
}

/// `atoll tokens`.
pub(crate) async fn tokens(command: Tokens) -> Result<()> {
    match command {
        Tokens::Create { name, scopes, expires_in_seconds, json, remote } => {
            let mut body = json!({ "name": name, "scopes": scopes });
            if let Some(seconds) = expires_in_seconds {
                body["expiresInSeconds"] = seconds.into();
            }
            let answer = Api::new(&remote)?.call(Method::POST, "/v1/tokens", Some(&body)).await?;
            if json {
                output::json_line(&answer);
            } else {
                output::line(text(&answer, "token"));
                output::note(&format!("its id is {}; the token is not shown again", text(&answer, "id")));
            }
        }
        Tokens::List { json, remote } => {
            let answer = Api::new(&remote)?.call(Method::GET, "/v1/tokens", None).await?;
            show(&answer, "tokens", json, |token| {
                let scopes = token["scopes"].as_array().into_iter().flatten().filter_map(Value::as_str);
                let scopes = scopes.collect::<Vec<_>>().join(" ");
                format!("{} {:<24} {scopes}", text(token, "id"), text(token, "name"))
            });
        }
        Tokens::Revoke { id, remote } => {
            Api::new(&remote)?.call(Method::DELETE, &path("tokens", &id)?, None).await?;
            output::note(&format!("revoked {id}"));
        }
    }
    Ok(())
}

async fn reseal(args: Reseal) -> Result<()> {
    let overrides = Overrides { data_dir: args.data_dir, ..Overrides::default() };
    let config = Config::load(args.config.as_deref(), overrides).map_err(Failure::usage)?;
    let secrets = config.secrets.ok_or_else(|| {
        Failure::usage("the configuration names no master key").hint("see [secrets] in the README")
    })?;
    let count = atoll::access::reseal(&secrets, &config.data_dir).await;
    let count = count.map_err(|error| Failure::new(Kind::Refused, error))?;
    output::note(&format!("{count} secrets are sealed under {:?} now", secrets.current.id));
    Ok(())
}

/// A secret from standard input, without the line end that a shell adds. Never an argument: those are seen by everyone on the
/// machine and kept in histories.
fn value() -> Result<Zeroizing<Vec<u8>>> {
    let mut value = Zeroizing::new(Vec::new());
    let read = std::io::stdin().lock().take(VALUE_BYTES_MAX).read_to_end(&mut value);
    read.map_err(|error| Failure::usage(format!("cannot read the value: {error}")))?;
    if value.last() == Some(&b'\n') {
        value.pop();
        if value.last() == Some(&b'\r') {
            value.pop();
        }
    }
    if value.is_empty() {
        return Err(Failure::usage("standard input holds no value")
            .hint("printf %s \"$VALUE\" | atoll secret put NAME"));
    }
    Ok(value)
}

/// A path of the control API; the name is checked, so it needs no escapes.
fn path(kind: &str, name: &str) -> Result<String> {
    match atoll::config::Name::parse(name) {
        Some(name) => Ok(format!("/v1/{kind}/{name}")),
        None => Err(Failure::usage(format!("{name:?} is not a name"))
            .hint("lower-case letters, digits and hyphens, at most 63")),
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn show(answer: &Value, list: &str, json: bool, line: impl Fn(&Value) -> String) {
    if json {
        return output::json_line(answer);
    }
    for item in answer[list].as_array().into_iter().flatten() {
        output::line(&output::printable(&line(item)));
    }
}
