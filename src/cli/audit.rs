//! `atoll audit`: verify the log's chain where it lies, or ask a server for records.

use std::path::PathBuf;

use atoll::audit::{self, Report};
use http::Method;
use serde_json::Value;

use super::args::{Audit, AuditQuery};
use super::client::Api;
use super::exit::{Failure, Kind, Result};
use super::output;

/// `atoll audit`.
pub(crate) async fn audit(command: Audit) -> Result<()> {
    match command {
        Audit::Verify { folder, json } => verify(folder, json),
        Audit::Query(args) => query(args).await,
    }
}

/// Exit code 0: every line is what was written; 1: one is not; 2: there is no log.
fn verify(folder: PathBuf, json: bool) -> Result<()> {
    // A data folder is as good as the folder in it.
    let inner = folder.join(audit::FOLDER);
    let folder = if inner.is_dir() { inner } else { folder };
    let cannot = |error| Failure::usage(format!("cannot read the audit log {}: {error}", folder.display()));
    let report = audit::verify(&folder).map_err(cannot)?;
    if report.files == 0 {
        let hint = "give the folder `audit` in the server's data_dir";
        return Err(Failure::usage(format!("{} holds no audit log", folder.display())).hint(hint));
    }
    if json {
        output::json_line(
            &serde_json::to_value(&report).map_err(|error| Failure::new(Kind::Internal, error))?,
        );
    } else {
        tell(&report);
    }
    match (&report.bad, json) {
        (None, _) => Ok(()),
        (Some(_), true) => Err(Failure::silent(Kind::Guest)),
        (Some(bad), false) => {
            Err(Failure::new(Kind::Guest, format!("{} line {}: {}", bad.file, bad.line, bad.reason)))
        }
    }
}

fn tell(report: &Report) {
    let Report { files, lines, sealed, .. } = report;
    let first = report.first_seq.unwrap_or(0);
    let hash = report.last_hash.as_deref().unwrap_or("-");
    output::line(&format!("{lines} records in {files} files, from number {first}; the last hash is {hash}"));
    if *sealed > 0 {
        output::line(&format!("{sealed} ends of files were left by a killed writer, and sealed"));
    }
    if let Some(torn) = &report.torn {
        output::line(&format!("{} ends in the middle of a record ({} bytes)", torn.file, torn.bytes));
    }
}

async fn query(args: AuditQuery) -> Result<()> {
    let api = Api::new(&args.remote)?;
    let mut cursor: Option<String> = None;
    let mut left = args.limit;
    loop {
        let mut path = format!("/v1/audit?since={}", args.since);
        let pairs = [("worker", &args.worker), ("kind", &args.kind), ("cursor", &cursor)];
        for (name, value) in pairs.iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
            let plain = value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
            if !plain {
                return Err(Failure::usage(format!("{value:?} cannot be a {name}")));
            }
            path.push_str(&format!("&{name}={value}"));
        }
        let answer = api.call(Method::GET, &path, None).await?;
        for record in answer["records"].as_array().into_iter().flatten().take(left) {
            left -= 1;
            output::line(&record.to_string());
        }
        cursor = answer["next"].as_str().map(str::to_owned);
        if cursor.is_none() || left == 0 || answer == Value::Null {
            return Ok(());
        }
    }
}
