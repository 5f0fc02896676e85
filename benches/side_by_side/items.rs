//! The items of the comparison, (a) to (e) and (g).

use crate::Plan;
use crate::load::{Measured, Until, run};
use crate::servers::{Kind, Server};
use crate::support::worker::Worker;
use crate::table::Table;

const ALL: [Kind; 3] = [Kind::Workerd, Kind::AtollWall, Kind::AtollInProcess];
const BOTH: [Kind; 2] = [Kind::Workerd, Kind::AtollWall];
/// Neighbours that spin in item (d).
const SPINNERS: usize = 8;
/// Loads after which item (e) takes its base: by then every lazy structure exists.
const BASE_LOADS: usize = 1_000;
/// Most loads the oracle is asked for in item (e): it is slower, and its curve is not the question.
const ORACLE_LOADS_MAX: usize = 10_000;

/// Calls of one request of item (g).
const CALLS_PER_REQUEST: usize = 100;
/// Calls of item (g) after which memory is looked at again.
const CALLS_FOR_MEMORY: usize = 10_000;

fn program(name: &str, source: &str) -> Worker {
    Worker::single(name, source)
}

fn dispatcher() -> Worker {
    program("dispatcher", include_str!("../programs/dispatcher.js")).with_loader("LOADER")
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Alternating rounds over servers that all run at once and are idle when it is not their turn.
async fn rounds(
    plan: &Plan,
    kinds: &[Kind],
    worker: &Worker,
    connections: usize,
) -> Vec<(Kind, Vec<Measured>)> {
    let mut servers = vec![];
    for kind in plan.servers(kinds) {
        servers.push((kind, Server::start(kind, std::slice::from_ref(worker), &[]).await, vec![]));
    }
    for _ in 0..plan.rounds {
        for (_, server, seen) in &mut servers {
            let until = Until::Seconds(plan.seconds);
            seen.push(run(&server.target(&worker.name), connections, "/", until).await);
        }
    }
    servers.into_iter().map(|(kind, _, seen)| (kind, seen)).collect()
}

fn row(
    table: &mut Table,
    item: &str,
    name: &str,
    goal: &str,
    seen: &[(Kind, Vec<Measured>)],
    value: impl Fn(&Measured) -> f64,
) {
    let values: Vec<(&str, f64)> =
        seen.iter().map(|(kind, all)| (kind.name(), median(all.iter().map(&value)))).collect();
    table.row(item, name, goal, &values);
}

fn failures(table: &mut Table, item: &str, name: &str, seen: &[(Kind, Vec<Measured>)]) {
    if seen.iter().any(|(_, all)| all.iter().any(|one| one.failed > 0)) {
        row(table, item, &format!("{name}, failed requests"), "0", seen, |one| one.failed as f64);
    }
}

/// (a) A fresh isolate per request, through a dispatcher.
pub(crate) async fn fresh_isolates(plan: &Plan, table: &mut Table) {
    for connections in [1, 8, 64] {
        let seen = rounds(plan, &ALL, &dispatcher(), connections).await;
        let name = |what: &str| format!("fresh isolates, {connections} at once, {what}");
        let goal = |at: usize, text: &'static str| if connections == at { text } else { "" };
        row(table, "a", &name("loads/s"), goal(8, "at least 3"), &seen, Measured::per_second);
        row(table, "a", &name("p50 ms"), goal(1, "at most 0.25"), &seen, |one| one.percentile_ms(50.0));
        row(table, "a", &name("p99 ms"), goal(8, "at most 0.33"), &seen, |one| one.percentile_ms(99.0));
        failures(table, "a", &name("all"), &seen);
    }
    cpu_per_load(plan, table).await;
}

/// CPU time of the whole server per fresh-isolate request, HTTP included.
async fn cpu_per_load(plan: &Plan, table: &mut Table) {
    let mut values = vec![];
    for kind in plan.servers(&ALL) {
        let server = Server::start(kind, &[dispatcher()], &[]).await;
        let target = server.target("dispatcher");
        run(&target, 1, "/", Until::Seconds(plan.seconds / 4.0)).await;
        let before = server.cpu_us();
        let requests = (plan.seconds * 200.0) as usize;
        let seen = run(&target, 1, "/", Until::Requests(requests)).await;
        values.push((kind.name(), (server.cpu_us() - before) as f64 / seen.answered.max(1) as f64 / 1_000.0));
    }
    table.row("a", "fresh isolate, CPU ms of all processes", "", &values);
}

/// (b) Warm hello world.
pub(crate) async fn warm_hello(plan: &Plan, table: &mut Table) {
    let worker = program("hello", include_str!("../programs/hello.js"));
    let seen = rounds(plan, &ALL, &worker, 64).await;
    let goal = "at least 0.8 / 1.0 in-process";
    row(table, "b", "warm hello, 64 connections, requests/s", goal, &seen, Measured::per_second);
    row(table, "b", "warm hello, 64 connections, p50 ms", "", &seen, |one| one.percentile_ms(50.0));
    row(table, "b", "warm hello, 64 connections, p99 ms", "", &seen, |one| one.percentile_ms(99.0));
    failures(table, "b", "warm hello", &seen);
}

/// (c) Memory of live idle isolates: named ones, each asked once, then left alone.
pub(crate) async fn idle_memory(plan: &Plan, table: &mut Table) {
    let (mut resident, mut proportional, mut live) = (vec![], vec![], vec![]);
    for kind in plan.servers(&BOTH) {
        let keeper = program("keeper", include_str!("../programs/keeper.js")).with_loader("LOADER");
        let server = Server::start(kind, &[keeper], &[]).await;
        let target = server.target("keeper");
        for first in 0..10 {
            run(&target, 1, &format!("/warm-up-{first}"), Until::Requests(1)).await;
        }
        let before = server.memory();
        for id in 0..plan.isolates {
            run(&target, 1, &format!("/isolate-{id}"), Until::Requests(1)).await;
        }
        let after = server.memory();
        let each =
            |after: u64, before: u64| after.saturating_sub(before) as f64 / 1024.0 / plan.isolates as f64;
        resident.push((kind.name(), each(after.resident_kib, before.resident_kib)));
        proportional.push((kind.name(), each(after.proportional_kib, before.proportional_kib)));
        live.push((kind.name(), still_live(plan, &server).await));
    }
    let name = |what: &str| format!("{} live idle isolates, {what}", plan.isolates);
    table.row("c", &name("resident MiB each"), "at most 1.3", &resident);
    table.row("c", &name("proportional MiB each"), "", &proportional);
    table.row("c", &name("still live afterwards"), "all", &live);
}

/// How many of the isolates were not replaced: each counts its own requests.
async fn still_live(plan: &Plan, server: &Server) -> f64 {
    let target = server.target("keeper");
    let mut live = 0_u32;
    for id in 0..plan.isolates {
        let path = format!("/isolate-{id}");
        let request = crate::support::worker::Request::new("GET", &path);
        let answer = crate::support::client::send(target.address, &target.host, &request).await;
        live += u32::from(answer.is_ok_and(|answer| answer.text() == "2"));
    }
    f64::from(live)
}

/// (d) Latency of one worker while others spin.
pub(crate) async fn spinning_neighbours(plan: &Plan, table: &mut Table) {
    let (mut p50, mut p99, mut quiet) = (vec![], vec![], vec![]);
    for kind in plan.servers(&BOTH) {
        let hello = program("hello", include_str!("../programs/hello.js"));
        let spinners: Vec<Worker> = (0..SPINNERS)
            .map(|n| program(&format!("spin-{n}"), include_str!("../programs/spin.js")))
            .collect();
        let server = Server::start(kind, &[hello], &spinners).await;
        let target = server.target("hello");
        let alone = run(&target, 1, "/", Until::Seconds(plan.seconds)).await;
        quiet.push((kind.name(), alone.percentile_ms(99.0)));
        let noise: Vec<_> = spinners.iter().map(|worker| server.neighbour(&worker.name)).collect();
        let stop = plan.seconds * 1.5 + 2.0;
        let spinning =
            futures_join(noise.iter().map(|target| run(target, 1, "/", Until::Seconds(stop))).collect());
        let measuring = async {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            run(&target, 1, "/", Until::Seconds(plan.seconds)).await
        };
        let (seen, ()) = tokio::join!(measuring, spinning);
        p50.push((kind.name(), seen.percentile_ms(50.0)));
        p99.push((kind.name(), seen.percentile_ms(99.0)));
    }
    table.row("d", "p99 ms with quiet neighbours", "", &quiet);
    table.row("d", "p50 ms, 8 neighbours spin", "", &p50);
    table.row("d", "p99 ms, 8 neighbours spin", "at most 25 ms", &p99);
}

/// Waits for all, without a dependency for it: they run in one task, in turn.
async fn futures_join<T>(futures: Vec<impl Future<Output = T>>) {
    let mut futures: Vec<_> = futures.into_iter().map(|future| Some(Box::pin(future))).collect();
    std::future::poll_fn(|context| {
        for slot in &mut futures {
            if slot.as_mut().is_some_and(|future| future.as_mut().poll(context).is_ready()) {
                *slot = None;
            }
        }
        if futures.iter().all(Option::is_none) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
}

/// (e) Resident memory after many loads.
pub(crate) async fn memory_after_loads(plan: &Plan, table: &mut Table) {
    let mut columns: Vec<(Kind, Vec<(usize, f64)>)> = vec![];
    for kind in plan.servers(&BOTH) {
        let most = if kind == Kind::Workerd { plan.loads.min(ORACLE_LOADS_MAX) } else { plan.loads };
        let server = Server::start(kind, &[dispatcher()], &[]).await;
        let target = server.target("dispatcher");
        let mib = |server: &Server| server.memory().resident_kib as f64 / 1024.0;
        let mut seen = vec![(0, mib(&server))];
        let mut done = 0;
        for goal in [BASE_LOADS, 10_000, 100_000, 1_000_000].into_iter().filter(|goal| *goal <= most) {
            done += run(&target, 8, "/", Until::Requests(goal - done)).await.answered;
            done = done.max(goal);
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            seen.push((goal, mib(&server)));
        }
        columns.push((kind, seen));
    }
    let Some((_, longest)) = columns.iter().max_by_key(|(_, seen)| seen.len()) else { return };
    for (loads, _) in longest.clone() {
        let at = |seen: &[(usize, f64)]| seen.iter().find(|(at, _)| *at == loads).map(|(_, mib)| *mib);
        let values: Vec<(&str, f64)> =
            columns.iter().filter_map(|(kind, seen)| Some((kind.name(), at(seen)?))).collect();
        table.row("e", &format!("resident MiB after {loads} loads"), "", &values);
    }
    let growth: Vec<(&str, f64)> = columns
        .iter()
        .filter_map(|(kind, seen)| {
            let base = seen.iter().find(|(at, _)| *at == BASE_LOADS)?.1;
            Some((kind.name(), seen.last()?.1 / base))
        })
        .collect();
    table.row("e", "resident at the end / after 1,000 loads", "itself at most 1.1", &growth);
}

/// (g) Calls of methods of another isolate: latency, throughput of two callers, memory.
pub(crate) async fn rpc(plan: &Plan, table: &mut Table) {
    let callers: Vec<Worker> = ["caller-0", "caller-1"]
        .map(|name| program(name, include_str!("../programs/rpc.js")).with_loader("LOADER"))
        .to_vec();
    let (mut latency, mut throughput, mut growth) = (vec![], vec![], vec![]);
    for kind in plan.servers(&ALL) {
        let server = Server::start(kind, &callers, &[]).await;
        let targets: Vec<_> = callers.iter().map(|caller| server.target(&caller.name)).collect();
        let calls = format!("/{CALLS_PER_REQUEST}");
        let until = Until::Seconds(plan.seconds);
        let bare = run(&targets[0], 1, "/0", until).await.percentile_ms(50.0);
        let full = run(&targets[0], 1, &calls, until).await.percentile_ms(50.0);
        latency.push((kind.name(), (full - bare) * 1_000.0 / CALLS_PER_REQUEST as f64));
        let (one, two) = tokio::join!(run(&targets[0], 1, &calls, until), run(&targets[1], 1, &calls, until));
        let both = one.per_second() + two.per_second();
        throughput.push((kind.name(), both * CALLS_PER_REQUEST as f64));
        let mib = || server.memory().resident_kib as f64 / 1_024.0;
        let before = mib();
        let requests = CALLS_FOR_MEMORY / CALLS_PER_REQUEST;
        run(&targets[0], 1, &calls, Until::Requests(requests)).await;
        growth.push((kind.name(), mib() - before));
    }
    table.row("g", "RPC call to another isolate, p50 us", "at most 3", &latency);
    table.row("g", "RPC calls/s, 2 callers", "at least 1", &throughput);
    table.row("g", "MiB more after 10,000 further calls", "itself 0", &growth);
}
