//! Soak: good and hostile tenants mixed, isolate hosts killed at random, for a while. At the end nothing may be missing.
//!
//! ```text
//!  good clients ──▶ their worker, each request with a trace id of its own ─┐
//!  hostile clients ─▶ /v1/execute with an attack, the same ────────────────┼─▶ one server ─▶ its audit log
//!  a killer ──▶ SIGKILL to a random isolate host, again and again ─────────┘
//! ```
//!
//! `make soak MINUTES=60`; without a number it takes ten seconds, which is how it runs among the other tests.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::audit;
use crate::support::atoll::{Atoll, NEIGHBOUR, NEIGHBOUR_TOKEN, Options, TOKEN, host_name};
use crate::support::client::{Answer, Connection};
use crate::support::memory;
use crate::support::worker::{Request, Worker};

/// How long without a number, in seconds.
const SECONDS: u64 = 10;
/// Clients of the good tenant, and of the hostile one.
const GOOD: u64 = 4;
const HOSTILE: u64 = 2;
/// Pause between two kills, in milliseconds: at least, and at most so much more.
const KILL_MS: u64 = 700;
const KILL_MORE_MS: u64 = 1_300;
/// Growth of the gateway over the second half that is no leak, in KiB.
const GROWTH_KIB_MAX: u64 = 48 * 1024;
/// Besides what hosts were running when they were killed or given up: good answers for each that was lost, at least. What an
/// attack ends is seen only afterwards.
const SERVED_PER_LOST: u64 = 100;
/// A bound on waiting for the end of something, in rounds of 50 ms.
const ROUNDS_MAX: usize = 400;

/// What hostile clients send.
const ATTACKS: &[&str] = &[
    "for(;;);",
    "const a=[];for(;;)a.push(new Array(1000).fill(Math.random()))",
    "const f=()=>queueMicrotask(f);f();await new Promise(()=>{})",
    "Array.prototype.sort.call({length:2**32-1})",
    "Array.prototype.indexOf.call({length:2**53-1},1)",
    "for(let i=0;i<1e5;i++)console.log('x'.repeat(100))",
    "await new Promise(()=>{})",
    "throw new Error('x')",
    "this is no code",
    "const keep=[];for(;;)keep.push(new Blob(['x'.repeat(1e6)]))",
];

/// A small generator, so that a run can be repeated from the seed that it prints.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

/// What every client shares.
struct World {
    stop: AtomicBool,
    next: AtomicU64,
    /// Trace ids of requests that were admitted, as far as their answers say.
    admitted: Mutex<Vec<String>>,
    /// How often each kind of answer came.
    answers: Mutex<BTreeMap<String, u64>>,
    /// What may not happen.
    failures: Mutex<Vec<String>>,
}

impl World {
    fn trace(&self) -> String {
        format!("{:032x}", 0x5eed_0000_0000_0000_u128 + u128::from(self.next.fetch_add(1, Relaxed)))
    }

    fn fail(&self, text: String) {
        self.failures.lock().expect("no panic").push(text);
    }

    fn count(&self, answer: &str) -> u64 {
        self.answers.lock().expect("no panic").get(answer).copied().unwrap_or(0)
    }

    fn took(&self, who: &str, answer: &Answer, trace: String) {
        let code = match answer.status {
            200 => "200".to_owned(),
            status => format!("{status} {}", answer.json()["code"].as_str().unwrap_or("?")),
        };
        let refused = ["tenant_suspended", "too_many", "overloaded", "audit_unavailable"];
        if !refused.iter().any(|refused| code.contains(refused)) {
            self.admitted.lock().expect("no panic").push(trace);
        }
        *self.answers.lock().expect("no panic").entry(format!("{who} {code}")).or_default() += 1;
    }
}

fn duration() -> Duration {
    let minutes = std::env::var("ATOLL_SOAK_MINUTES").ok().and_then(|text| text.parse::<f64>().ok());
    minutes.map_or(Duration::from_secs(SECONDS), |minutes| Duration::from_secs_f64(minutes * 60.0))
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_while_hosts_are_killed_and_tenants_misbehave() {
    let seed =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_nanos();
    let seed = u64::try_from(seed).unwrap_or(1) | 1;
    println!("soak: seed {seed}, {:?}", duration());
    let config = "[audit]\nfile_bytes_max = 1048576\n[blame]\nsuspend_s = 2\nforget_s = 1\n".to_owned();
    let tenant = "limits = { cpu_ms = 50, wall_ms = 2000, heap_mib = 32, external_mib = 16 }".to_owned();
    let options = Options { isolate_hosts: 2, config, tenant, ..Options::default() };
    let mut atoll = Atoll::start(options).await;
    let echo = "export default { fetch: (r) => new Response(r.headers.get('x-id')) }";
    atoll.deploy_as(NEIGHBOUR_TOKEN, &Worker::single("echo", echo)).await;
    let world = Arc::new(World {
        stop: AtomicBool::new(false),
        next: AtomicU64::new(0),
        admitted: Mutex::default(),
        answers: Mutex::default(),
        failures: Mutex::default(),
    });
    let address = atoll.address();
    let mut clients = vec![];
    for _ in 0..GOOD {
        clients.push(tokio::spawn(good(world.clone(), address)));
    }
    for number in 0..HOSTILE {
        clients.push(tokio::spawn(hostile(world.clone(), address, Random(seed + number))));
    }
    let (kills, half_kib) = kill_hosts(&mut atoll, Random(seed)).await;
    world.stop.store(true, Relaxed);
    for client in clients {
        client.await.expect("no panic");
    }
    let growth = resident_kib(atoll.pid()).saturating_sub(half_kib);
    // The listener was never away, and hosts come back.
    assert_eq!(atoll.control("GET", "/healthz", None).await.status, 200);
    serves_again(&atoll).await;
    let folder = atoll.data().join("audit");
    atoll.stop();
    println!("soak: {kills} kills, the gateway grew by {growth} KiB over the second half");
    for (answer, count) in world.answers.lock().expect("no panic").iter() {
        println!("soak: {count:>8} {answer}");
    }
    // A kill fails what its host ran, and nothing else: work that comes while there is no host waits for the next one.
    let (lost, most) =
        (world.count("good 503 host_fault"), kills * GOOD + world.count("good 200") / SERVED_PER_LOST);
    assert!(lost <= most, "{lost} requests of good clients were lost by {kills} kills");
    assert!(growth <= GROWTH_KIB_MAX, "the gateway grew by {growth} KiB");
    assert!(kills > 0);
    let failures = world.failures.lock().expect("no panic").clone();
    assert!(failures.is_empty(), "{} failures: {:?}", failures.len(), &failures[..failures.len().min(10)]);
    complete(&folder, &world.admitted.lock().expect("no panic"));
}

/// Every admitted request has exactly one terminal record, and the chain is whole.
fn complete(folder: &std::path::Path, admitted: &[String]) {
    let (report, well) = audit::verify(folder);
    assert!(well, "{report}");
    let mut told: BTreeMap<String, u64> = BTreeMap::new();
    audit::each_record(folder, |record| {
        if let (Some("execution"), Some(trace)) = (record["kind"].as_str(), record["trace"].as_str()) {
            *told.entry(trace.to_owned()).or_default() += 1;
        }
    });
    let missing: Vec<&String> = admitted.iter().filter(|trace| !told.contains_key(*trace)).collect();
    assert!(
        missing.is_empty(),
        "{} of {} have no record: {:?}",
        missing.len(),
        admitted.len(),
        missing.first()
    );
    let twice: Vec<_> = told.iter().filter(|(_, count)| **count != 1).collect();
    assert!(twice.is_empty(), "{} have more than one record: {:?}", twice.len(), twice.first());
    println!("soak: {} requests, {} records, chain whole: {}", admitted.len(), told.len(), report["lines"]);
}

/// Asks its own worker, over one connection that must never break: the gateway outlives its hosts.
async fn good(world: Arc<World>, address: std::net::SocketAddr) {
    let host = host_name(NEIGHBOUR, "echo");
    let mut connection = match Connection::open(address, &host).await {
        Ok(connection) => connection,
        Err(error) => return world.fail(format!("a listener was lost: {error}")),
    };
    while !world.stop.load(Relaxed) {
        let trace = world.trace();
        let request = Request::new("GET", "/")
            .header("traceparent", &format!("00-{trace}-b7ad6b7169203331-01"))
            .header("x-id", &trace);
        match connection.send(&request).await {
            Err(error) => return world.fail(format!("a good client's connection broke: {error}")),
            Ok(answer) => {
                let own = answer.status == 200 && answer.text() == trace;
                let lost = answer.status == 503 && answer.json()["code"] == "host_fault";
                if !own && !lost {
                    world.fail(format!("{trace} got {} {}", answer.status, answer.text()));
                }
                world.took("good", &answer, trace);
                if lost {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Attacks, one after the other. Each is answered, whatever it does.
async fn hostile(world: Arc<World>, address: std::net::SocketAddr, mut random: Random) {
    while !world.stop.load(Relaxed) {
        let mut connection = match Connection::open(address, "localhost").await {
            Ok(connection) => connection,
            Err(error) => return world.fail(format!("a listener was lost: {error}")),
        };
        let trace = world.trace();
        let code = ATTACKS[usize::try_from(random.next(ATTACKS.len() as u64)).expect("an index")];
        let request = Request::new("POST", "/v1/execute")
            .header("authorization", &format!("Bearer {TOKEN}"))
            .header("content-type", "application/json")
            .header("traceparent", &format!("00-{trace}-b7ad6b7169203331-01"))
            .body(json!({ "code": code }).to_string());
        match connection.send(&request).await {
            Err(error) => world.fail(format!("an attack was not answered: {code}: {error}")),
            Ok(answer) => {
                let typed = answer.status == 200 || answer.json()["code"].is_string();
                if !typed {
                    world.fail(format!("{code} got {} {}", answer.status, answer.text()));
                }
                let pause_ms = match answer.status {
                    429 => 100,
                    503 => 10,
                    _ => 0,
                };
                world.took("hostile", &answer, trace);
                tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            }
        }
    }
}

/// Kills hosts until the time is up; how many, and what the gateway held half way.
async fn kill_hosts(atoll: &mut Atoll, mut random: Random) -> (u64, u64) {
    let (begin, whole) = (Instant::now(), duration());
    let (mut kills, mut half_kib) = (0, 0);
    while begin.elapsed() < whole {
        tokio::time::sleep(Duration::from_millis(KILL_MS + random.next(KILL_MORE_MS))).await;
        assert!(atoll.alive(), "the gateway ended:\n{}", atoll.log());
        if half_kib == 0 && begin.elapsed() >= whole / 2 {
            half_kib = resident_kib(atoll.pid());
        }
        let hosts: Vec<u32> =
            memory::members(atoll.pid()).into_iter().filter(|pid| *pid != atoll.pid()).collect();
        let Some(victim) = (!hosts.is_empty()).then(|| hosts[random.next(hosts.len() as u64) as usize])
        else {
            continue;
        };
        let killed = std::process::Command::new("kill").args(["-9", &victim.to_string()]).status();
        kills += u64::from(killed.is_ok_and(|status| status.success()));
    }
    (kills, half_kib)
}

async fn serves_again(atoll: &Atoll) {
    for _ in 0..ROUNDS_MAX {
        let request = Request::new("GET", "/").header("x-id", "last");
        if atoll.send_to(NEIGHBOUR, "echo", &request).await.status == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no host came back:\n{}", atoll.log());
}

fn resident_kib(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}
