//! `atoll audit`: verify the log's chain and its checkpoints where they lie, or ask a server for records.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use atoll::access::identity::published_keys;
use atoll::audit::{self, Notes, PublicKey, Report, Trust};
use bytes::Bytes;
use http::Method;
use serde_json::Value;

use super::args::audit::{Audit, AuditQuery, AuditVerify};
use super::client::{self, Api};
use super::exit::{Failure, Kind, Result};
use super::output;

/// Bytes that are read of a file with checkpoints or keys.
const READ_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// `atoll audit`.
pub(crate) async fn audit(command: Audit) -> Result<()> {
    match command {
        Audit::Verify(args) => verify(args).await,
        Audit::Checkpoint { remote } => {
            let mut note = Vec::new();
            Api::new(&remote)?.save("/v1/audit/checkpoint", &mut note).await?;
            // With an empty line behind it, so that notes can be put one behind the other.
            output::line(&String::from_utf8_lossy(&note));
            Ok(())
        }
        Audit::Query(args) => query(args).await,
    }
}

/// Exit code 0: all is what was written; 1: the log is not; 2: there is no log; 4: a checkpoint is none of this log.
async fn verify(args: AuditVerify) -> Result<()> {
    // A data folder is as good as the folder in it.
    let inner = args.folder.join(audit::FOLDER);
    let folder = if inner.is_dir() { inner } else { args.folder };
    let mut trust = Trust { given: Notes::default(), keys: keys(&args.jwks, &folder).await? };
    for path in &args.checkpoints {
        let Notes { notes, unreadable } = Notes::read(&read(path)?);
        if notes.is_empty() && unreadable == 0 {
            return Err(Failure::usage(format!("{} holds no checkpoint", path.display())));
        }
        trust.given.notes.extend(notes);
        trust.given.unreadable += unreadable;
    }
    let cannot = |error| Failure::usage(format!("cannot read the audit log {}: {error}", folder.display()));
    let report = audit::verify(&folder, &trust).map_err(cannot)?;
    if report.files == 0 && report.checkpoints.read == 0 {
        let hint = "give the folder `audit` in the server's data_dir";
        return Err(Failure::usage(format!("{} holds no audit log", folder.display())).hint(hint));
    }
    if args.json {
        output::json_line(
            &serde_json::to_value(&report).map_err(|error| Failure::new(Kind::Internal, error))?,
        );
    } else {
        tell(&report, trust.keys.is_some());
    }
    let failure = match (&report.bad, &report.checkpoints.bad) {
        (None, None) => return Ok(()),
        (Some(bad), _) => {
            Failure::new(Kind::Guest, format!("{} line {}: {}", bad.file, bad.line, bad.reason))
        }
        (None, Some(bad)) => {
            let kind = if bad.code.is_of_the_checkpoint() { Kind::Refused } else { Kind::Guest };
            Failure::new(kind, format!("the checkpoint of {} records: {}", bad.size, bad.code))
        }
    };
    Err(if args.json { Failure::silent(failure.kind) } else { failure })
}

/// Who may sign: those that were named, else those of the data folder, if they can be read.
async fn keys(named: &[String], folder: &Path) -> Result<Option<Vec<PublicKey>>> {
    let mut keys = Vec::new();
    for name in named {
        let text = if name.starts_with("http://") || name.starts_with("https://") {
            client::fetch(name).await?
        } else {
            read(Path::new(name))?
        };
        let set = PublicKey::of_jwks(&text);
        keys.extend(set.ok_or_else(|| {
            Failure::usage(format!("{name} is no JWK set")).hint("a server's is at /.well-known/jwks.json")
        })?);
    }
    if !named.is_empty() {
        return Ok(Some(keys));
    }
    let Some(data_dir) = folder.parent() else { return Ok(None) };
    published_keys(data_dir).or_else(|error| {
        output::warning(&error.to_string());
        Ok(None)
    })
}

fn read(path: &Path) -> Result<Bytes> {
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(READ_BYTES_MAX).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(READ_BYTES_MAX).read_to_end(&mut bytes))
    };
    read.map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))?;
    Ok(bytes.into())
}

fn tell(report: &Report, with_keys: bool) {
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
    let stamps = &report.checkpoints;
    let (read, matched, covered) = (stamps.read, stamps.matched, stamps.covered.unwrap_or(0));
    output::line(&format!("{read} checkpoints, of which {matched} saw this log, up to {covered} records"));
    if !with_keys && read > 0 {
        output::warning("no keys are known, so no signature was looked at: see --jwks");
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
