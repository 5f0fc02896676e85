//! `atoll hosts`: the isolate hosts of a server, and their rolling restart.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::Value;

use super::args::hosts::{HostsArgs, HostsCommand};
use super::client::Api;
use super::exit::{Failure, Kind, Result};
use super::output;

/// Pause between two looks at a restart.
const LOOK: Duration = Duration::from_millis(200);
/// Longest wait for a restart. It goes on without anybody who waits.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// `atoll hosts`.
pub(crate) async fn hosts(args: HostsArgs) -> Result<()> {
    let (status, json) = match args.command {
        None => (Api::new(&args.remote)?.call(Method::GET, "/v1/hosts", None).await?, args.json),
        Some(HostsCommand::Restart { wait, json, remote }) => {
            (restart(&Api::new(&remote)?, wait).await?, json)
        }
    };
    if json {
        output::json_line(&status);
    } else {
        tell(&status);
    }
    Ok(())
}

async fn restart(api: &Api, wait: bool) -> Result<Value> {
    let mut status = api.call(Method::POST, "/v1/hosts/restart", None).await?;
    if !wait {
        output::note("replacing every isolate host");
        return Ok(status);
    }
    let (wanted, begun) = (status["generation"].as_u64(), Instant::now());
    // A server that was started anew meanwhile counts from 0 again.
    while status["rolling"] == true && status["generation"].as_u64() >= wanted {
        if begun.elapsed() > WAIT_MAX {
            let message = "the isolate hosts are still being replaced";
            return Err(Failure::new(Kind::Unreachable, message).hint("`atoll hosts` shows how far"));
        }
        tokio::time::sleep(LOOK).await;
        status = api.call(Method::GET, "/v1/hosts", None).await?;
    }
    output::note("every isolate host was replaced");
    Ok(status)
}

fn tell(status: &Value) {
    for host in status["hosts"].as_array().into_iter().flatten() {
        let text = |key: &str| host[key].as_str().unwrap_or_default().to_owned();
        let number = |key: &str| host[key].as_u64().unwrap_or_default();
        let class = if text("class").is_empty() { "-".to_owned() } else { text("class") };
        output::line(&output::printable(&format!(
            "{:>5}  pid {:<8} {:<8} class {class:<12} generation {:<3} {:>6} s  {} running, {} isolates, {} MiB",
            number("id"),
            number("pid"),
            text("place"),
            number("generation"),
            number("ageMs") / 1_000,
            number("inFlight"),
            number("isolatesLive"),
            number("residentBytes") >> 20,
        )));
    }
    for penalty in status["penalties"].as_array().into_iter().flatten() {
        let text = |key: &str| penalty[key].as_str().unwrap_or_default();
        output::line(&output::printable(&format!("{} is {}", text("tenant"), text("penalty"))));
    }
    if status["rolling"] == true {
        output::note("a rolling restart is under way");
    }
    if let Some(count @ 1..) = status["draining"].as_u64() {
        output::note(&format!("{count} replaced hosts end what they run"));
    }
}
