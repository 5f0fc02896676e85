//! (h) What an attack costs everybody else: how soon a spinning guest is stopped, how long a neighbour waits when its host has
//! to be replaced, and what it notices of a tenant that attacks all the while. Atoll only: workerd has no limits to stop at.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::Plan;
use crate::support::atoll::{Atoll, NEIGHBOUR, NEIGHBOUR_TOKEN, Options, host_name};
use crate::support::client::Connection;
use crate::support::worker::{Request, Worker};
use crate::table::Table;

/// CPU budget of what spins, in milliseconds.
const BUDGET_MS: u64 = 100;
/// Attacks of each kind for each second of the plan.
const ATTACKS_PER_SECOND: f64 = 5.0;
/// With and without an attack in turns, so that what else the machine does is in both: attacks of one turn, and a quiet turn.
const ATTACKS_PER_TURN: usize = 5;
const QUIET_TURN: Duration = Duration::from_millis(ATTACKS_PER_TURN as u64 * (BUDGET_MS + 10));
/// After an attack, before it is quiet: its isolates are taken apart, and others made.
const PAUSE_AFTER: Duration = Duration::from_millis(50);
/// Pause between two questions of the neighbour.
const PAUSE: Duration = Duration::from_millis(2);
/// Nobody is moved or suspended: what is measured is the usual host.
const PATIENT: &str = "[blame]\nquarantine_after = 100000\nsuspend_after = 200000\n";
const SPIN: &str = "for(;;);";
const STUCK: &str = "Array.prototype.indexOf.call({length:2**53-1},1)";

/// The neighbour's answers: when each came, and how long it took.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<(Instant, Duration)>>>);

impl Seen {
    fn take(&self) -> Vec<(Instant, Duration)> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn ask(server: std::net::SocketAddr, seen: Seen, stop: Arc<AtomicBool>) {
    let host = host_name(NEIGHBOUR, "ping");
    let mut connection = Connection::open(server, &host).await.expect("a listener");
    while !stop.load(Relaxed) {
        let begin = Instant::now();
        let answer = connection.send(&Request::new("GET", "/")).await.expect("an answer");
        if answer.status == 200 {
            let mut list = seen.0.lock().unwrap_or_else(PoisonError::into_inner);
            list.push((Instant::now(), begin.elapsed()));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn percentile_ms(mut values: Vec<f64>, percent: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() as f64 * percent / 100.0) as usize;
    values.get(at.min(values.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

fn p99_ms(seen: &[(Instant, Duration)]) -> f64 {
    percentile_ms(seen.iter().map(|(_, took)| took.as_secs_f64() * 1e3).collect(), 99.0)
}

/// Runs an attack; its time, without the wait for an isolate, in milliseconds.
async fn attack(atoll: &Atoll, code: &str) -> f64 {
    let begin = Instant::now();
    let answer = atoll.execute(json!({ "code": code, "limits": { "cpuMs": BUDGET_MS } })).await;
    let took = begin.elapsed().as_secs_f64() * 1e3;
    took - answer.json()["usage"]["isolateWaitUs"].as_f64().unwrap_or(0.0) / 1e3
}

/// The item.
pub(crate) async fn stopping(plan: &Plan, table: &mut Table) {
    let atoll = Atoll::start(Options { config: PATIENT.into(), ..Options::default() }).await;
    let pong = "export default { fetch: () => new Response('pong') }";
    atoll.deploy_as(NEIGHBOUR_TOKEN, &Worker::single("ping", pong)).await;
    let attacks = (plan.seconds * ATTACKS_PER_SECOND).ceil() as usize;
    let (seen, stop) = (Seen::default(), Arc::new(AtomicBool::new(false)));
    let asking = tokio::spawn(ask(atoll.address(), seen.clone(), stop.clone()));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (mut alone, mut attacked, mut over) = (vec![], vec![], vec![]);
    for _ in 0..attacks.div_ceil(ATTACKS_PER_TURN) {
        tokio::time::sleep(PAUSE_AFTER).await;
        seen.take();
        tokio::time::sleep(QUIET_TURN).await;
        alone.extend(seen.take());
        for _ in 0..ATTACKS_PER_TURN {
            over.push(attack(&atoll, SPIN).await - BUDGET_MS as f64);
        }
        attacked.extend(seen.take());
    }
    let (alone, attacked) = (p99_ms(&alone), p99_ms(&attacked));
    let mut gaps = vec![];
    for _ in 0..attacks {
        seen.take();
        attack(&atoll, STUCK).await;
        // Until the neighbour was served again, and a standby is there for the next one.
        tokio::time::sleep(Duration::from_millis(700)).await;
        let list = seen.take();
        let between = list.windows(2).map(|pair| (pair[1].0 - pair[0].0).as_secs_f64() * 1e3);
        gaps.push(between.fold(0.0, f64::max));
    }
    stop.store(true, Relaxed);
    asking.await.expect("no panic");
    let one = |value: f64| [("atoll", value)];
    table.row(
        "h",
        "ms from a spent CPU budget to the error, p50",
        "at most 50 ms",
        &one(percentile_ms(over.clone(), 50.0)),
    );
    table.row("h", "… p99", "", &one(percentile_ms(over, 99.0)));
    table.row(
        "h",
        "ms without an answer while a host is replaced, p50",
        "at most 250 ms",
        &one(percentile_ms(gaps.clone(), 50.0)),
    );
    table.row("h", "… worst", "", &one(percentile_ms(gaps, 100.0)));
    table.row("h", "neighbour's p99 ms, without an attack", "", &one(alone));
    table.row("h", "… under attack", "", &one(attacked));
    table.row(
        "h",
        "neighbour's p99 under attack over that without",
        "at most 1.5",
        &one(attacked / alone.max(1e-6)),
    );
}
