//! `atoll kv`: the tenant's key-value namespaces on a server.

use std::io;

use http::Method;
use serde_json::Value;

use super::args::Plain;
use super::args::kv::{Kv, List, OfKey, Put};
use super::client::{Api, Upload, encoded};
use super::exit::Result;
use super::output;

/// `atoll kv`.
pub(crate) async fn kv(command: Kv) -> Result<()> {
    match command {
        Kv::Namespaces(args) => namespaces(args).await,
        Kv::List(args) => list(&args).await,
        Kv::Get(args) => Api::new(&args.remote)?.save(&value_path(&args), &mut io::stdout()).await,
        Kv::Put(args) => put(args).await,
        Kv::Delete(args) => {
            Api::new(&args.remote)?.call(Method::DELETE, &value_path(&args), None).await?;
            output::note(&format!("deleted {}", args.key));
            Ok(())
        }
        Kv::Drop { namespace, remote } => {
            Api::new(&remote)?.call(Method::DELETE, &path(&namespace), None).await?;
            output::note(&format!("deleted {namespace} with all its keys"));
            Ok(())
        }
    }
}

fn path(namespace: &str) -> String {
    format!("/v1/kv/{}", encoded(namespace))
}

fn value_path(of: &OfKey) -> String {
    format!("{}/values/{}", path(&of.namespace), encoded(&of.key))
}

async fn namespaces(args: Plain) -> Result<()> {
    let answer = Api::new(&args.remote)?.call(Method::GET, "/v1/kv", None).await?;
    if args.json {
        output::json_line(&answer);
        return Ok(());
    }
    for namespace in answer["namespaces"].as_array().into_iter().flatten() {
        let name = namespace["name"].as_str().unwrap_or_default();
        let (keys, bytes) = (&namespace["keys"], &namespace["bytes"]);
        output::line(&output::printable(&format!("{name:<32} {keys} keys, {bytes} bytes")));
    }
    Ok(())
}

/// All of them, page by page.
async fn list(args: &List) -> Result<()> {
    let api = Api::new(&args.remote)?;
    let first = format!("{}/keys?prefix={}", path(&args.namespace), encoded(&args.prefix));
    let mut next = first.clone();
    loop {
        let page = api.call(Method::GET, &next, None).await?;
        for key in page["keys"].as_array().into_iter().flatten() {
            match args.json {
                true => output::json_line(key),
                false => output::line(&output::printable(key["name"].as_str().unwrap_or_default())),
            }
        }
        match page["cursor"].as_str() {
            Some(cursor) if page["complete"] == Value::Bool(false) => {
                next = format!("{first}&cursor={}", encoded(cursor));
            }
            _ => return Ok(()),
        }
    }
}

async fn put(args: Put) -> Result<()> {
    let Put { namespace, key, value, path: file, ttl, metadata, remote } = args;
    let mut query = Vec::new();
    query.extend(ttl.map(|ttl| format!("expiration_ttl={ttl}")));
    query.extend(metadata.map(|metadata| format!("metadata={}", encoded(&metadata))));
    let body = match (value, file) {
        (Some(value), _) => Upload::bytes(value.into()),
        (None, file) => Upload::source(file.as_deref().unwrap_or("-"))?,
    };
    let target = format!("{}/values/{}?{}", path(&namespace), encoded(&key), query.join("&"));
    Api::new(&remote)?.upload(Method::PUT, &target, body).await?;
    output::note(&format!("wrote {key}"));
    Ok(())
}
