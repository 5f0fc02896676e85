//! What is left after attacks: nothing. And the last line against memory that is counted nowhere.

use std::time::Duration;

use serde_json::json;

use super::{Stage, outcome};
use crate::support::atoll::{NEIGHBOUR, Options};
use crate::support::memory;
use crate::support::worker::Request;

/// Attacks of each kind before anything is compared: caches and allocators are warm then.
const ROUNDS_WARM: usize = 3;
/// Attacks of each kind between the two looks.
const ROUNDS: usize = 15;
/// Growth of the gateway that is no leak, in KiB.
const GATEWAY_GROWTH_KIB_MAX: u64 = 16 * 1024;
/// A bound on waiting for something that must happen, in rounds of 100 ms.
const WAITS_MAX: usize = 300;
/// Isolates that a host keeps ready.
const POOL_SIZE: u64 = 16;
/// Threads of an isolate host beside its isolates': its own, the watchdog's, V8's.
const THREADS_BESIDE_MAX: u64 = 32;

/// Attacks that are stopped in place.
const IN_PLACE: &[&str] = &[
    "for(;;);",
    "const a=[];for(;;)a.push(new Array(1000).fill(Math.random()))",
    "const f=()=>queueMicrotask(f);f();await new Promise(()=>{})",
    "const keep=[];for(;;)keep.push(new Blob(['x'.repeat(1e6)]))",
    "for(let i=0;i<1e7;i++)setTimeout(()=>{},1e9)",
    "throw new Error('x')",
];

/// A number of `/metrics`, if it is there.
async fn metric(stage: &Stage, name: &str) -> Option<u64> {
    let text = stage.atoll.control("GET", "/metrics", None).await.text();
    let line = text.lines().find(|line| line.starts_with(name) && !line.starts_with('#'))?;
    line.rsplit(' ').next()?.parse::<f64>().ok().map(|number| number as u64)
}

pub(super) fn status_field(pid: u32, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
    line.trim().split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

async fn attack(stage: &Stage, rounds: usize) {
    for code in (0..rounds).flat_map(|_| IN_PLACE) {
        let limits = json!({ "cpuMs": 30, "wallMs": 3_000, "heapMib": 32, "externalMib": 16 });
        let answer = stage.atoll.execute(json!({ "code": code, "limits": limits })).await;
        let code = outcome(&answer);
        assert!(code.starts_with("limit_") || code == "guest_error", "{code}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attacks_leave_no_isolate_no_thread_and_no_memory_behind() {
    let stage = Stage::open().await;
    attack(&stage, ROUNDS_WARM).await;
    let gateway = stage.atoll.pid();
    let before = status_field(gateway, "VmRSS:");
    attack(&stage, ROUNDS).await;
    let growth = status_field(gateway, "VmRSS:").saturating_sub(before);
    assert!(growth <= GATEWAY_GROWTH_KIB_MAX, "the gateway grew by {growth} KiB");
    // One more is the neighbour's warm isolate.
    let mut live = None;
    for _ in 0..WAITS_MAX {
        live = metric(&stage, "atoll_isolates_live").await;
        if live.is_some_and(|live| live <= POOL_SIZE + 1) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(live.is_some_and(|live| live <= POOL_SIZE + 1), "isolates alive: {live:?}");
    for host in memory::members(gateway).into_iter().filter(|pid| *pid != gateway) {
        let threads = status_field(host, "Threads:");
        assert!(threads <= POOL_SIZE + 1 + THREADS_BESIDE_MAX, "{threads} threads in an isolate host");
    }
    stage.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_that_limits_allow_ends_at_the_bound_of_the_host() {
    let config = "isolate_host_memory_mib = 300".into();
    // Its own limit would come first.
    let tenant = "limits = { external_mib = 1024 }".into();
    let mut stage = Stage::open_with(Options { config, tenant, ..Options::default() }).await;
    let code = "const keep=[];for(;;){const m=new WebAssembly.Memory({initial:256});\
                new Uint8Array(m.buffer).fill(1);keep.push(m)}";
    let answer = stage.atoll.execute(json!({ "code": code, "limits": { "cpuMs": 1_000 } })).await;
    let ended = outcome(&answer);
    let stopped = ["host_fault", "limit_heap"].contains(&ended.as_str());
    stage.require("24d", "wasm memories without end", stopped, &ended);
    stage.check_others("24d", "wasm memories without end", true).await;
    // The bound holds for the host, not for one tenant: the neighbour goes on.
    let answer = stage.atoll.send_to(NEIGHBOUR, "ping", &Request::new("GET", "/")).await;
    assert_eq!(answer.text(), "pong");
    stage.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_ends_hosts_in_a_row_waits_and_its_neighbour_does_not() {
    /// Attacks after which a tenant must have been told to wait.
    const ATTACKS_MAX: u32 = 300;
    let mut stage = Stage::open_with(Options::default()).await;
    // One of them is forgotten every ten seconds: how many attacks it takes depends on how fast the machine is.
    let mut waits = false;
    for round in 0..ATTACKS_MAX {
        let answer =
            stage.atoll.execute(json!({ "code": "Array.prototype.sort.call({length:2**32-1})" })).await;
        let ended = outcome(&answer);
        let known = ["host_fault", "tenant_suspended"].contains(&ended.as_str());
        stage.require("22b", "hosts ended in a row", known, &format!("{round}: {ended}"));
        let harmless = stage.atoll.execute(json!({ "code": "return 1" })).await;
        waits = outcome(&harmless) == "tenant_suspended";
        if waits {
            let after = harmless.header("retry-after").and_then(|after| after.parse::<u64>().ok());
            stage.require("22b", "suspended", harmless.status == 429, &harmless.status.to_string());
            stage.require("22b", "suspended", after.is_some_and(|after| after >= 1), "no retry-after");
            break;
        }
    }
    stage.require("22b", "hosts ended in a row", waits, "it need not wait");
    stage.check_others("22b", "hosts ended in a row", true).await;
    for _ in 0..10 {
        let answer = stage.atoll.send_to(NEIGHBOUR, "ping", &Request::new("GET", "/")).await;
        stage.require("22b", "the neighbour", answer.status == 200, &answer.status.to_string());
    }
    stage.close();
}
