//! `atoll sandbox`: the tenant's sandboxes on a server.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::{Map, Value, json};

use super::args::Plain;
use super::args::files::{Cp, Snapshot};
use super::args::sandbox::{Create, Exec, Git, OfUser, Sandbox};
use super::client::{Api, Upload, encoded};
use super::exit::{Failure, Kind, Result};
use super::output;

/// `atoll sandbox`.
pub(crate) async fn sandbox(command: Sandbox) -> Result<()> {
    match command {
        Sandbox::Create(args) => create(args).await,
        Sandbox::List(plain) => list(&plain).await,
        Sandbox::Exec(args) => exec(args).await,
        Sandbox::Ps(args) => processes(&args).await,
        Sandbox::Logs(args) => {
            let path = format!("{}/processes/{}/logs", of(&args.user)?, encoded(&args.process));
            logs(&path, args.follow, &args.plain).await
        }
        Sandbox::Kill(args) => {
            let signal = args.signal.map(|signal| format!("?signal={signal}")).unwrap_or_default();
            let path = format!("{}/processes/{}{signal}", of(&args.user)?, encoded(&args.process));
            let answer = Api::new(&args.plain.remote)?.call(Method::DELETE, &path, None).await?;
            shown(&args.plain, &answer, || format!("{} is {}", text(&answer, "id"), text(&answer, "status")));
            Ok(())
        }
        Sandbox::Cp(args) => copy(args).await,
        Sandbox::Ls(args) => ls(&args.user, &args.path, &args.plain).await,
        Sandbox::Cat(args) => {
            Api::new(&args.plain.remote)?.save(&file(&args.user, &args.path)?, &mut io::stdout()).await
        }
        Sandbox::Write(args) => {
            let path = file(&args.user, &args.path)?;
            let answer = Api::new(&args.plain.remote)?
                .upload(Method::PUT, &path, Upload::reading(io::stdin()))
                .await?;
            if args.plain.json {
                output::json_line(&answer);
            }
            Ok(())
        }
        Sandbox::Rm(args) => {
            let recursive = if args.recursive { "&recursive=true" } else { "" };
            let path = format!("{}{recursive}", file(&args.file.user, &args.file.path)?);
            Api::new(&args.file.plain.remote)?.call(Method::DELETE, &path, None).await.map(drop)
        }
        Sandbox::Git(args) => git(args).await,
        Sandbox::Snapshot(args) => snapshot(args).await,
        Sandbox::Restore(args) => {
            let path = format!("{}/restore", of(&args.user)?);
            Api::new(&args.remote)?.upload(Method::POST, &path, Upload::source(&args.file)?).await.map(drop)
        }
        Sandbox::Expose(args) => {
            let path = format!("{}/ports/{}", of(&args.user)?, args.port);
            let body = args.name.map_or_else(|| json!({}), |name| json!({ "name": name }));
            let api = Api::new(&args.plain.remote)?;
            let answer = api.call(Method::PUT, &path, Some(&body)).await?;
            shown(&args.plain, &answer, || text(&answer, "url"));
            if !args.plain.json {
                output::note(&format!("  and at {}{}", api.base(), text(&answer, "path")));
            }
            Ok(())
        }
        Sandbox::Hide(args) => {
            let path = format!("{}/ports/{}", of(&args.user)?, args.port);
            Api::new(&args.remote)?.call(Method::DELETE, &path, None).await.map(drop)
        }
        Sandbox::Usage(args) => {
            let path = format!("{}/usage", of(&args.user)?);
            output::json_line(&Api::new(&args.plain.remote)?.call(Method::GET, &path, None).await?);
            Ok(())
        }
        Sandbox::Delete(OfUser { user, plain }) => {
            Api::new(&plain.remote)?.call(Method::DELETE, &of(&user)?, None).await?;
            output::note(&format!("deleted {user}"));
            Ok(())
        }
    }
}

/// The path of a user's sandbox in the control API.
fn of(user: &str) -> Result<String> {
    if matches!(user, "" | "." | "..") {
        return Err(Failure::usage(format!("{user:?} cannot be a user's id"))
            .hint("give 1 to 128 visible ASCII characters, such as ann or user-1@example.com"));
    }
    Ok(format!("/v1/sandboxes/{}", encoded(user)))
}

/// The path of a file of a user's sandbox in the control API.
fn file(user: &str, path: &str) -> Result<String> {
    Ok(format!("{}/files?path={}", of(user)?, encoded(path)))
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

/// The answer for a program, or a line for a person.
fn shown(plain: &Plain, answer: &Value, line: impl FnOnce() -> String) {
    if plain.json {
        output::json_line(answer);
    } else {
        output::line(&output::printable(&line()));
    }
}

fn variables(env: Vec<(String, String)>) -> Map<String, Value> {
    env.into_iter().map(|(name, value)| (name, value.into())).collect()
}

async fn create(args: Create) -> Result<()> {
    let mut body = json!({
        "outbound": args.outbound,
        "proxies": args.proxies,
        "audiences": args.audiences,
        "env": variables(args.env),
    });
    if let Some(egress) = args.egress {
        body["egress"] = egress.into();
    }
    let answer = Api::new(&args.plain.remote)?.call(Method::PUT, &of(&args.user)?, Some(&body)).await?;
    shown(&args.plain, &answer, || row(&answer));
    Ok(())
}

/// A sandbox in one line.
fn row(sandbox: &Value) -> String {
    let seconds = sandbox["expiresInMs"].as_u64().unwrap_or(0) / 1_000;
    format!("{:<32} {:<9} ends in {seconds} s", text(sandbox, "user"), text(sandbox, "state"))
}

async fn list(plain: &Plain) -> Result<()> {
    let answer = Api::new(&plain.remote)?.call(Method::GET, "/v1/sandboxes", None).await?;
    if plain.json {
        output::json_line(&answer);
        return Ok(());
    }
    let sandboxes = answer["sandboxes"].as_array().map_or(&[][..], Vec::as_slice);
    if sandboxes.is_empty() {
        output::note("no sandboxes; `atoll sandbox exec USER -- COMMAND` makes one");
    }
    sandboxes.iter().for_each(|sandbox| output::line(&output::printable(&row(sandbox))));
    Ok(())
}

async fn exec(args: Exec) -> Result<()> {
    let api = Api::new(&args.remote)?;
    let base = of(&args.user)?;
    // One word that holds more than a word is a line.
    let command = match &args.command[..] {
        [line] if line.contains(char::is_whitespace) => Value::from(line.as_str()),
        argv => argv.into(),
    };
    let mut body = json!({ "command": command, "env": variables(args.env) });
    if let Some(cwd) = args.cwd {
        body["cwd"] = cwd.into();
    }
    if let Some(timeout_ms) = args.timeout_ms {
        body["timeoutMs"] = timeout_ms.into();
    }
    if args.detach {
        if let Some(id) = args.id {
            body["id"] = id.into();
        }
        let answer = api.call(Method::POST, &format!("{base}/processes"), Some(&body)).await?;
        let plain = Plain { json: args.json, remote: args.remote };
        shown(&plain, &answer, || text(&answer, "id"));
        return Ok(());
    }
    let mut path = format!("{base}/exec");
    if let Some(session) = args.session {
        let made = api.call(Method::POST, &format!("{base}/sessions"), Some(&json!({ "id": session }))).await;
        if let Err(failure) = made
            && !failure.message.contains("SESSION_ALREADY_EXISTS")
        {
            return Err(failure);
        }
        path = format!("{base}/sessions/{}/exec", encoded(&session));
    }
    let upload = if args.stdin {
        path = format!("{path}?spec={}", encoded(&spec(body, args.json).to_string()));
        Upload::reading(io::stdin())
    } else {
        Upload::json(&spec(body, args.json))
    };
    if args.json {
        let answer = api.upload(Method::POST, &path, upload).await?;
        output::json_line(&answer);
        return ended(&answer);
    }
    let mut last = Value::Null;
    let events = api.upload_events(&path, upload, |data| {
        let event: Value = serde_json::from_str(data).unwrap_or_default();
        let bytes = || STANDARD.decode(event["data"].as_str().unwrap_or_default()).unwrap_or_default();
        match event["type"].as_str() {
            Some("stdout") => drop(output::bytes(&bytes())),
            Some("stderr") => drop(io::stderr().lock().write_all(&bytes())),
            _ => last = event,
        }
    });
    events.await?;
    ended(&last)
}

/// Bytes pass as they are when they are shown; for a program, text is easier.
fn spec(mut body: Value, json: bool) -> Value {
    if !json {
        body["encoding"] = "base64".into();
    }
    body
}

/// The command's exit code as this command's.
fn ended(last: &Value) -> Result<()> {
    let failed = |message: String| Err(Failure::new(Kind::Refused, message));
    if last["type"] == "error" {
        return failed(format!("{} ({})", text(last, "error"), text(last, "code")));
    }
    if last["timedOut"] == true {
        return Err(Failure::new(Kind::Limit, "its time was over"));
    }
    match last["exitCode"].as_i64() {
        Some(0) => Ok(()),
        Some(code) => Err(Failure::exit(u8::try_from(code).unwrap_or(u8::MAX))),
        None => failed("the server broke off".to_owned()),
    }
}

async fn processes(args: &OfUser) -> Result<()> {
    let path = format!("{}/processes", of(&args.user)?);
    let answer = Api::new(&args.plain.remote)?.call(Method::GET, &path, None).await?;
    if args.plain.json {
        output::json_line(&answer);
        return Ok(());
    }
    for one in answer["processes"].as_array().into_iter().flatten() {
        let code = one["exitCode"].as_i64().map(|code| format!(" ({code})")).unwrap_or_default();
        let status = format!("{}{code}", text(one, "status"));
        output::line(&output::printable(&format!(
            "{:<20} {status:<16} {}",
            text(one, "id"),
            text(one, "command")
        )));
    }
    Ok(())
}

async fn logs(path: &str, follow: bool, plain: &Plain) -> Result<()> {
    let api = Api::new(&plain.remote)?;
    if follow {
        return api
            .events(path, |data| {
                let event: Value = serde_json::from_str(data).unwrap_or_default();
                match event["type"].as_str() {
                    _ if plain.json => output::line(data),
                    Some("stdout") => drop(output::bytes(text(&event, "data").as_bytes())),
                    Some("stderr") => drop(io::stderr().lock().write_all(text(&event, "data").as_bytes())),
                    _ => {}
                }
            })
            .await;
    }
    let answer = api.call(Method::GET, path, None).await?;
    if plain.json {
        output::json_line(&answer);
        return Ok(());
    }
    output::bytes(text(&answer, "stdout").as_bytes());
    let _ = io::stderr().lock().write_all(text(&answer, "stderr").as_bytes());
    Ok(())
}

async fn ls(user: &str, path: &str, plain: &Plain) -> Result<()> {
    let path = format!("{}/files/list?path={}", of(user)?, encoded(path));
    let answer = Api::new(&plain.remote)?.call(Method::GET, &path, None).await?;
    if plain.json {
        output::json_line(&answer);
        return Ok(());
    }
    for file in answer["files"].as_array().into_iter().flatten() {
        let mark = match file["type"].as_str() {
            Some("directory") => "/",
            Some("symlink") => "@",
            _ => "",
        };
        let size = file["size"].as_u64().unwrap_or(0);
        output::line(&output::printable(&format!("{size:>12} {}{mark}", text(file, "name"))));
    }
    Ok(())
}

async fn git(args: Git) -> Result<()> {
    let mut body = json!({ "url": args.repository });
    for (key, value) in [
        ("branch", args.branch.map(Value::from)),
        ("depth", args.depth.map(Value::from)),
        ("targetDir", args.dir.map(Value::from)),
    ] {
        if let Some(value) = value {
            body[key] = value;
        }
    }
    let path = format!("{}/git/checkout", of(&args.user)?);
    let answer = Api::new(&args.plain.remote)?.call(Method::POST, &path, Some(&body)).await?;
    shown(&args.plain, &answer, || {
        format!("checked out {} into {}", text(&answer, "repoUrl"), text(&answer, "targetDir"))
    });
    Ok(())
}

async fn snapshot(args: Snapshot) -> Result<()> {
    let path = format!("{}/snapshot", of(&args.user)?);
    match args.output {
        None => Api::new(&args.remote)?.save(&path, &mut io::stdout()).await,
        Some(name) => Api::new(&args.remote)?.save(&path, &mut created(&name)?).await,
    }
}

fn created(name: &Path) -> Result<File> {
    File::create(name).map_err(|error| Failure::usage(format!("cannot write {}: {error}", name.display())))
}

/// `USER:PATH`, if it is one.
fn remote_side(text: &str) -> Option<(&str, &str)> {
    let (user, path) = text.split_once(':')?;
    // A path with a colon in it is told by its slash before.
    (!user.is_empty() && !path.is_empty() && !user.contains('/')).then_some((user, path))
}

async fn copy(args: Cp) -> Result<()> {
    match (remote_side(&args.from), remote_side(&args.to)) {
        (None, Some((user, path))) => {
            let name =
                Path::new(&args.from).file_name().map_or_else(|| "-".into(), |name| name.to_string_lossy());
            let path = if path.ends_with('/') { format!("{path}{name}") } else { path.to_owned() };
            let body = Upload::source(&args.from)?;
            Api::new(&args.remote)?.upload(Method::PUT, &file(user, &path)?, body).await.map(drop)
        }
        (Some((user, path)), None) if args.to == "-" => {
            Api::new(&args.remote)?.save(&file(user, path)?, &mut io::stdout()).await
        }
        (Some((user, path)), None) => {
            let mut to = Path::new(&args.to).to_owned();
            if to.is_dir() {
                to.push(path.rsplit('/').next().unwrap_or(path));
            }
            Api::new(&args.remote)?.save(&file(user, path)?, &mut created(&to)?).await
        }
        _ => Err(Failure::usage("one side must be USER:PATH, and the other a file here")
            .hint("atoll sandbox cp report.csv ann:report.csv")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_api_are_escaped_once() {
        assert_eq!(of("a b/c@x").unwrap(), "/v1/sandboxes/a%20b%2Fc%40x");
        assert_eq!(file("a", "d/é?&").unwrap(), "/v1/sandboxes/a/files?path=d%2F%C3%A9%3F%26");
        for bad in ["", ".", ".."] {
            assert_eq!(of(bad).unwrap_err().kind, Kind::Usage);
        }
    }

    #[test]
    fn sides_of_a_copy_are_told_apart() {
        assert_eq!(remote_side("ann:x/y"), Some(("ann", "x/y")));
        for here in ["x", "./a:b", "/a:b", "ann:", ":x", "-"] {
            assert_eq!(remote_side(here), None, "{here}");
        }
    }

    #[test]
    fn the_commands_end_is_ours() {
        assert!(ended(&json!({ "exitCode": 0 })).is_ok());
        assert_eq!(ended(&json!({ "exitCode": 7 })).unwrap_err().code(), 7);
        assert_eq!(ended(&json!({ "exitCode": 143, "timedOut": true })).unwrap_err().code(), 3);
        assert_eq!(ended(&json!({ "type": "error", "code": "X", "error": "y" })).unwrap_err().code(), 4);
        assert_eq!(ended(&Value::Null).unwrap_err().code(), 4);
    }
}
