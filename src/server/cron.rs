//! Scheduled events: once a minute, whatever is due.

use std::sync::Arc;

use atoll_bindings::link::{Answer, Ended, StartEvent};
use chrono::{DateTime, Utc};
use http::HeaderMap;
use tokio::sync::Semaphore;

use super::Gateway;
use crate::admission::{Denied, Kind};
use crate::deploy::{now_ms, parse_cron};
use crate::dispatch::logs::WorkerLogs;
use crate::dispatch::record::Record;
use crate::dispatch::trace::Execution;
use crate::dispatch::{Deployment, Invocation};

/// Milliseconds in the unit of cron.
const MINUTE_MS: u64 = 60_000;
/// Scheduled events of the ticker running at once; the rest wait.
const FIRES_MAX: usize = 64;

/// Fires what is due at each full minute. A minute that was slept through is not made up for.
pub(super) async fn run(gateway: Arc<Gateway>) {
    let places = Arc::new(Semaphore::new(FIRES_MAX));
    loop {
        let now = now_ms();
        let next = (now / MINUTE_MS + 1) * MINUTE_MS;
        tokio::time::sleep(std::time::Duration::from_millis(next - now)).await;
        for (deployment, cron) in due(gateway.routes.all(), next) {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let gateway = gateway.clone();
            tokio::spawn(async move {
                if let Err(denied) = fire(&gateway, &deployment, cron, next).await {
                    tracing::warn!(worker = %deployment.worker, code = denied.code(), "scheduled event not admitted");
                }
                drop(place);
            });
        }
    }
}

/// Which deployments have an expression that names this minute.
fn due(deployments: Vec<Arc<Deployment>>, time_ms: u64) -> Vec<(Arc<Deployment>, String)> {
    let time = i64::try_from(time_ms).ok().and_then(DateTime::<Utc>::from_timestamp_millis);
    let Some(time) = time else { return Vec::new() };
    let names =
        |cron: &String| parse_cron(cron).is_ok_and(|parsed| parsed.is_time_matching(&time).unwrap_or(false));
    let each = |deployment: Arc<Deployment>| {
        let crons: Vec<String> = deployment.crons.iter().filter(|cron| names(cron)).cloned().collect();
        crons.into_iter().map(move |cron| (deployment.clone(), cron))
    };
    deployments.into_iter().flat_map(each).collect()
}

/// Runs one scheduled event to its end.
pub(crate) async fn fire(
    gateway: &Gateway,
    deployment: &Deployment,
    cron: String,
    time_ms: u64,
) -> Result<Ended, Denied> {
    let (tenant, worker) = (deployment.tenant.shared(), deployment.worker.shared());
    let permit = gateway.admit(&deployment.tenant, Kind::Warm)?;
    let mut trace = gateway.observer.begin(&HeaderMap::new());
    trace.execution = Some(Execution::new(super::execution_id()));
    let observer = gateway.observer.clone();
    let record = Record::new(
        observer.clone(),
        tenant.clone(),
        worker.clone(),
        "scheduled",
        trace.parent.clone(),
        permit,
    )
    .of(&trace);
    let start = deployment.start(StartEvent::Scheduled { cron, time_ms }, &trace);
    let sink = WorkerLogs { tenant, worker, trace, ring: deployment.logs.clone(), observer };
    let invocation = match Invocation::start(&*gateway.isolates, start, sink, record).await {
        Ok(invocation) => invocation,
        Err(ended) => return Ok(*ended),
    };
    match invocation.answer().await {
        Ok((Answer::Value(_) | Answer::Response(_), invocation)) => Ok(invocation.ended().await.0),
        Err((unanswered, _)) => Ok(unanswered.ended),
    }
}
