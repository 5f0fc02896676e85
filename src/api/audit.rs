//! `GET /v1/audit`: a tenant's own records of the audit log, oldest first, page by page. `GET /v1/audit/checkpoint`: the newest
//! checkpoint of the whole log, for whoever keeps it elsewhere.

use std::sync::Arc;

use http::{Response, StatusCode};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::Semaphore;

use super::{json, text};
use crate::audit::{self, Cursor, FOLDER, PAGE_MAX, Query};
use crate::config::{NAME_BYTES_MAX, Tenant};
use crate::problem::Problem;
use crate::server::Gateway;
use crate::server::body::ReplyBody;

/// Pages read from the disk at once; further clients wait.
const READERS_MAX: usize = 2;
static READERS: Semaphore = Semaphore::const_new(READERS_MAX);

/// Records on a page, where the client does not say.
const PAGE_DEFAULT: usize = 100;

#[derive(Serialize)]
struct AuditOutput {
    records: Vec<Box<RawValue>>,
    /// Where to go on; absent at the end of the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

pub(super) async fn get(
    gateway: &Arc<Gateway>,
    tenant: &Tenant,
    target: Option<&str>,
) -> Result<Response<ReplyBody>, Problem> {
    let query = parse(tenant.name.as_str(), target.unwrap_or_default())?;
    if !gateway.config.audit.enabled {
        return Err(Problem::not_found("This server keeps no audit log."));
    }
    let folder = gateway.config.data_dir.join(FOLDER);
    let log = gateway.audit.clone();
    let _place = READERS.acquire().await.map_err(|error| Problem::internal(&error))?;
    let read = tokio::task::spawn_blocking(move || {
        // What just ended shall be there.
        log.flush();
        audit::query(&folder, &query)
    });
    let page = read.await.map_err(|error| Problem::internal(&error))?;
    let page = page.map_err(|error| Problem::internal(&error))?;
    let next = page.next.map(|cursor| cursor.to_string());
    Ok(json(StatusCode::OK, &AuditOutput { records: page.records, next }))
}

/// The signed note as it is, so that it can be kept and verified as it is.
pub(super) fn checkpoint(gateway: &Gateway) -> Result<Response<ReplyBody>, Problem> {
    let note = gateway.audit.checkpoint();
    let note = note.ok_or_else(|| Problem::not_found("This server has no checkpoint of an audit log."))?;
    Ok(text("text/plain; charset=utf-8", note.to_string()))
}

/// Reads `since`, `worker`, `kind`, `limit` and `cursor`, each at most once. No value that means anything needs an escape.
fn parse(tenant: &str, target: &str) -> Result<Query, Problem> {
    let bad = |detail: &'static str| Problem::unprocessable("audit_query", detail);
    let (mut since, mut worker, mut kind, mut limit, mut cursor) = (None, None, None, None, None);
    for pair in target.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let slot = match name {
            "since" => &mut since,
            "worker" => &mut worker,
            "kind" => &mut kind,
            "limit" => &mut limit,
            "cursor" => &mut cursor,
            _ => return Err(bad("The parameters are `since`, `worker`, `kind`, `limit` and `cursor`.")),
        };
        let plain = value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if slot.is_some() || value.is_empty() || value.len() > NAME_BYTES_MAX || !plain {
            return Err(bad("Each parameter may be given once, as a plain name or number."));
        }
        *slot = Some(value);
    }
    let number = |text: &str| text.parse::<u64>().ok();
    let limit = match limit {
        None => PAGE_DEFAULT,
        Some(text) => number(text)
            .and_then(|limit| usize::try_from(limit).ok())
            .filter(|limit| (1..=PAGE_MAX).contains(limit))
            .ok_or_else(|| bad("`limit` is 1 to 1000."))?,
    };
    let since_ms = match since {
        None => 0,
        Some(text) => number(text).ok_or_else(|| bad("`since` is in milliseconds since 1970."))?,
    };
    let cursor = cursor.map(str::parse::<Cursor>).transpose();
    Ok(Query {
        tenant: tenant.to_owned(),
        since_ms,
        worker: worker.map(str::to_owned),
        kind: kind.map(str::to_owned),
        limit,
        cursor: cursor.map_err(|_| bad("`cursor` is what `next` of a page said."))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_strictly() {
        let query = parse("t", "since=5&worker=w-1&kind=execution&limit=7&cursor=3-12").unwrap();
        assert_eq!((query.since_ms, query.limit, query.worker.as_deref()), (5, 7, Some("w-1")));
        assert_eq!(query.cursor.map(|cursor| cursor.to_string()).as_deref(), Some("3-12"));
        assert_eq!(parse("t", "").unwrap().limit, PAGE_DEFAULT);
        for bad in [
            "tenant=other",
            "worker=a&worker=b",
            "worker=%2e",
            "worker=",
            "limit=0",
            "limit=1001",
            "limit=x",
            "since=-1",
            "cursor=1",
            "cursor=-",
            "cursor=1-x",
            "cursor=99999999999999999999-1",
            "x",
        ] {
            assert_eq!(parse("t", bad).unwrap_err().code(), "audit_query", "{bad}");
        }
    }
}
