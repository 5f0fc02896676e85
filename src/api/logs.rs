//! `GET /v1/workers/{name}/logs`: recent console lines, or a live tail.

use std::sync::Arc;

use http::{HeaderMap, Response, StatusCode};
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;

use super::execute::LogOutput;
use super::input::{Wanted, wanted};
use super::{events, json};
use crate::config::{Name, Tenant};
use crate::problem::Problem;
use crate::server::Gateway;
use crate::server::Phase;
use crate::server::body::ReplyBody;

#[derive(Serialize)]
struct LogsOutput {
    logs: Vec<LogOutput>,
}

#[derive(Serialize)]
struct Lost {
    lines: u64,
}

pub(super) fn get(
    gateway: &Arc<Gateway>,
    tenant: &Tenant,
    name: &Name,
    headers: &HeaderMap,
) -> Result<Response<ReplyBody>, Problem> {
    let wanted = wanted(headers)?;
    let deployment = gateway.routes.worker(tenant.name.as_str(), name.as_str());
    let ring = &deployment.ok_or_else(|| Problem::not_found("There is no such worker."))?.logs;
    if wanted == Wanted::Json {
        let logs = ring.recent().iter().map(|line| line.as_ref().into()).collect();
        return Ok(json(StatusCode::OK, &LogsOutput { logs }));
    }
    let (recent, mut live) = ring.follow();
    let (events, response) = events::response();
    let mut draining = gateway.draining.clone();
    tokio::spawn(async move {
        let tail = async {
            for line in recent {
                events.send("log", &LogOutput::from(line.as_ref())).await?;
            }
            loop {
                match live.recv().await {
                    Ok(line) => events.send("log", &LogOutput::from(line.as_ref())).await?,
                    Err(RecvError::Lagged(lines)) => events.send("lost", &Lost { lines }).await?,
                    Err(RecvError::Closed) => return Ok::<(), events::Gone>(()),
                }
            }
        };
        tokio::select! {
            _ = tail => {}
            () = events.gone() => {}
            // A tail has no end of its own; it must not hold up the server's.
            _ = async { draining.wait_for(|phase| *phase >= Phase::Draining).await.map(|_| ()) } => {}
        }
    });
    Ok(response)
}
