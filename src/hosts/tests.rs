//! Supervision of real processes. The hosts are this test binary run again, where `a_host_process` speaks the real protocol and
//! does what the invocation's input says.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use atoll_bindings::link::{Answer, Running, Start, StartEvent, Suspicion, host_over_socket};
use atoll_bindings::seam::*;
use atoll_loader::WorkerCode;
use atoll_loader::limits::Limits;

use super::*;
use crate::telemetry::{Telemetry, TelemetryObserver};

/// The inputs that a host process understands.
mod input {
    pub(super) const PID: &str = "pid";
    pub(super) const HANG: &str = "hang";
    pub(super) const EXIT: &str = "exit";
    pub(super) const CONDEMN: &str = "condemn";
    pub(super) const SILENT: &str = "silent";
    pub(super) const BREACH: &str = "breach";
}

#[test]
#[ignore = "the host process of the tests below"]
fn a_host_process() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(host()).expect("a socket as standard input");
    std::process::exit(0);
}

async fn host() -> io::Result<()> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    let mut endpoint = host_over_socket(UnixStream::from(socket))?;
    let mut beat = tokio::time::interval(Duration::from_millis(50));
    let (mut heartbeat, mut silent, mut hanging) = (Heartbeat::default(), false, Vec::new());
    loop {
        let message = tokio::select! {
            message = endpoint.inbox.recv() => message,
            _ = beat.tick(), if !silent => {
                let _ = endpoint.outbox.send(ToGateway::Heartbeat(heartbeat.clone()));
                continue;
            }
        };
        let done = |invocation| {
            let usage = Usage::default();
            let _ = endpoint.outbox.send(ToGateway::Done { invocation, outcome: Outcome::Done, usage });
        };
        match message {
            None => return Ok(()),
            // What hangs, finishes when asked to; what is condemned, never.
            Some(ToHost::Drain) => hanging.drain(..).for_each(done),
            Some(ToHost::Invoke(invoke)) => {
                let Event::Execute { input } = &invoke.event else { continue };
                let json = std::process::id().to_string();
                let returned = ToGateway::Returned { invocation: invoke.id, json };
                match input.as_str() {
                    input::PID => {
                        let _ = endpoint.outbox.send(returned);
                        done(invoke.id);
                    }
                    input::HANG => hanging.push(invoke.id),
                    input::EXIT => std::process::exit(9),
                    input::CONDEMN => {
                        heartbeat
                            .condemned
                            .push(Condemned { invocation: invoke.id, usage: Usage::default() });
                    }
                    input::SILENT => silent = true,
                    _ => {
                        let _ = endpoint.outbox.send(returned.clone());
                        let _ = endpoint.outbox.send(returned);
                    }
                }
            }
            Some(_) => {}
        }
    }
}

fn config() -> HostsConfig {
    let args = ["--exact", "hosts::tests::a_host_process", "--ignored", "--nocapture", "--test-threads=1"];
    HostsConfig {
        class: HostClass {
            name: String::new(),
            command: HostCommand {
                program: std::env::current_exe().expect("this binary"),
                args: args.map(Into::into).into(),
            },
            active: 1,
            resident_bytes_max: None,
        },
        classes: vec![],
        tenants: HashMap::new(),
        penalties: PenaltyPolicy {
            quarantine_after: 1_000,
            suspend_after: 2_000,
            ..PenaltyPolicy::default()
        },
        start_ms_max: 60_000,
        silence_ms_max: 60_000,
        drain_ms_max: 60_000,
        roll_drain_ms_max: 60_000,
        require_sandbox: false,
    }
}

fn observer() -> Arc<dyn Observer> {
    Arc::new(TelemetryObserver::new(Telemetry::new()))
}

async fn hosts(config: HostsConfig) -> Hosts {
    let hosts = Hosts::spawn(config, observer());
    hosts.until_ready().await;
    hosts.until_standby().await;
    hosts
}

fn start(tenant: &str, input: &str) -> Start {
    let code = WorkerCode::new("main.js").js("main.js", "export default 1").compatibility_date("2026-01-01");
    Start {
        bundle: Arc::new(code.build().expect("a worker")),
        isolate: IsolateKey::Fresh,
        entrypoint: None,
        props: None,
        event: StartEvent::Execute { input: input.to_owned() },
        identity: Identity { tenant: tenant.into(), worker: "w".into(), traceparent: None },
        limits: Limits::default(),
        env: vec![],
        outbound: None,
    }
}

fn run(hosts: &Hosts, tenant: &str, input: &str) -> Running {
    hosts.start(start(tenant, input)).expect("a host is up")
}

/// The process that serves a tenant.
async fn pid(hosts: &Hosts, tenant: &str) -> u32 {
    match run(hosts, tenant, input::PID).answer().await.expect("an answer") {
        Answer::Value(json) => json.parse().expect("a process id"),
        Answer::Response(_) => panic!("a value was asked for"),
    }
}

fn kill_hard(pid: u32) {
    let status = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
    assert!(status.expect("kill runs").success());
}

async fn gone(pid: u32) {
    while std::path::Path::new(&format!("/proc/{pid}")).exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Until so many hosts are on record as lost.
async fn lost(hosts: &Hosts, count: u64) {
    while hosts.lost() < count {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// No process outlives its supervisor.
async fn ends(hosts: Hosts) {
    let last = pid(&hosts, "z").await;
    hosts.shutdown().await;
    gone(last).await;
    assert_eq!(hosts.start(start("z", input::PID)).expect_err("no host").reason, CloseReason::NotReady);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_host_is_replaced_and_what_was_inside_is_answered() {
    let hosts = hosts(config()).await;
    let first = pid(&hosts, "a").await;
    let mut one = run(&hosts, "a", input::HANG);
    let two = run(&hosts, "b", input::HANG);
    kill_hard(first);
    assert_eq!(one.answer().await.expect_err("lost").outcome.code(), "host_fault");
    assert_eq!(one.suspicion(), Some(Suspicion::AmongOthers));
    assert_eq!(two.ended().await.outcome.code(), "host_fault");
    // At once: nobody waits for the supervisor to notice.
    let second = pid(&hosts, "a").await;
    assert_ne!(second, first);
    lost(&hosts, 1).await;
    hosts.until_standby().await;
    gone(first).await;
    for tenant in ["a", "b"] {
        assert_eq!(hosts.blame(tenant), Blame { died_among_others: 1, ..Blame::default() });
    }
    assert_eq!(hosts.blame("z"), Blame::default());
    assert_eq!(hosts.lost(), 1);
    assert_eq!(pid(&hosts, "a").await, second, "the replacement stands by");
    ends(hosts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_dies_again_and_again_never_takes_the_gateway() {
    let hosts = hosts(config()).await;
    for count in 1..=3 {
        let mut running = run(&hosts, "bad", input::EXIT);
        assert_eq!(running.until_ended().await.outcome.code(), "host_fault");
        assert_eq!(running.suspicion(), Some(Suspicion::Alone));
        lost(&hosts, count).await;
        hosts.until_standby().await;
    }
    assert_eq!(hosts.blame("bad").died_alone, 3);
    pid(&hosts, "good").await;
    ends(hosts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_condemned_host_drains_and_only_the_named_is_blamed() {
    let telemetry = Telemetry::new();
    let hosts = Hosts::spawn(config(), Arc::new(TelemetryObserver::new(telemetry.clone())));
    hosts.until_standby().await;
    let first = pid(&hosts, "good").await;
    let innocent = run(&hosts, "good", input::HANG);
    let mut stuck = run(&hosts, "bad", input::CONDEMN);
    // The one that never stops is answered at once, with its time; the innocent finishes inside the draining host.
    let answer = stuck.until_ended().await;
    assert_eq!(answer.outcome.code(), "host_fault");
    assert!(answer.usage.wall_us > 0);
    assert_eq!(stuck.suspicion(), Some(Suspicion::Condemned));
    assert_eq!(innocent.ended().await.outcome, Outcome::Done);
    gone(first).await;
    assert_ne!(pid(&hosts, "good").await, first);
    assert_eq!(hosts.blame("bad").condemned, 1);
    assert_eq!(hosts.blame("good"), Blame::default());
    hosts.until_standby().await;
    let numbers = telemetry.prometheus();
    for line in ["started_total 3", "condemned_total 1", "lost_total 1"] {
        assert!(numbers.contains(&format!("atoll_isolate_hosts_{line}\n")), "{line}: {numbers}");
    }
    ends(hosts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_host_is_replaced() {
    let hosts = hosts(HostsConfig { silence_ms_max: 2_000, drain_ms_max: 100, ..config() }).await;
    let first = pid(&hosts, "a").await;
    let inside = run(&hosts, "a", input::SILENT);
    assert_eq!(inside.ended().await.outcome.code(), "host_fault");
    gone(first).await;
    assert_ne!(pid(&hosts, "a").await, first);
    ends(hosts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_breaks_the_protocol_is_killed() {
    let hosts = hosts(config()).await;
    let first = pid(&hosts, "a").await;
    let inside = run(&hosts, "a", input::BREACH);
    assert_eq!(inside.ended().await.outcome.code(), "host_fault");
    gone(first).await;
    pid(&hosts, "a").await;
    ends(hosts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_are_spread_and_stay_where_they_are() {
    let mut two = config();
    two.class.active = 2;
    let hosts = Hosts::spawn(two, observer());
    hosts.until_standby().await;
    let mut pids = std::collections::BTreeSet::new();
    for number in 0..16 {
        let tenant = format!("t{number}");
        let first = pid(&hosts, &tenant).await;
        assert_eq!(pid(&hosts, &tenant).await, first);
        pids.insert(first);
    }
    assert_eq!(pids.len(), 2, "the standby takes no work");
    ends(hosts).await;
}

#[tokio::test]
async fn a_program_that_is_not_there_is_an_error_and_not_a_loop() {
    let mut config = config();
    config.class.command.program = "/nowhere/at/all".into();
    let hosts = Hosts::spawn(config, observer());
    tokio::task::yield_now().await;
    assert_eq!(hosts.start(start("a", input::PID)).expect_err("no host").reason, CloseReason::NotReady);
    hosts.shutdown().await;
}

#[tokio::test]
async fn in_process_there_is_nothing_to_supervise() {
    let (link, mut endpoint) = atoll_bindings::link::in_process();
    let hosts = Hosts::in_process(link);
    assert!(hosts.ready());
    let running = run(&hosts, "a", input::PID);
    assert!(matches!(endpoint.inbox.recv().await, Some(ToHost::Bundle { .. })));
    drop(endpoint);
    assert_eq!(running.ended().await.outcome.code(), "host_fault");
    assert!(!hosts.ready());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_confinement_is_required_a_host_without_it_serves_nobody() {
    // The host of these tests does not confine itself.
    let hosts = Hosts::spawn(HostsConfig { require_sandbox: true, ..config() }, observer());
    assert!(!hosts.until_sandbox().await.is_complete());
    lost(&hosts, 1).await;
    assert!(!hosts.ready());
    assert_eq!(hosts.start(start("a", input::PID)).expect_err("no host").reason, CloseReason::NotReady);
    hosts.shutdown().await;
}

/// Rows of a policy in which a test ends soon.
fn penal(config: HostsConfig) -> HostsConfig {
    let penalties =
        PenaltyPolicy { quarantine_after: 2, suspend_after: 4, forget_s: 1, suspend_s: 3, suspend_s_max: 3 };
    HostsConfig { penalties, ..config }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_ends_hosts_is_moved_to_its_own_then_suspended_then_released() {
    let telemetry = Telemetry::new();
    let hosts = Hosts::spawn(penal(config()), Arc::new(TelemetryObserver::new(telemetry.clone())));
    hosts.until_standby().await;
    for count in 1..=2 {
        run(&hosts, "bad", input::EXIT).ended().await;
        lost(&hosts, count).await;
        hosts.until_standby().await;
    }
    assert_eq!(hosts.penalty("bad"), Penalty::Quarantined);
    assert!(!hosts.may_share("bad", "good") && hosts.may_share("bad", "bad"));
    let good = pid(&hosts, "good").await;
    // Its host is its own, from its first request there; how often it ends that, nobody else notices.
    for count in 3..=4 {
        let own = pid(&hosts, "bad").await;
        assert_ne!(own, good);
        run(&hosts, "bad", input::EXIT).ended().await;
        gone(own).await;
        lost(&hosts, count).await;
        hosts.until_standby().await;
        assert_eq!(pid(&hosts, "good").await, good);
    }
    let left_ms = hosts.suspended_ms("bad").expect("suspended");
    assert!((1..=3_000).contains(&left_ms));
    assert_eq!(hosts.suspended_ms("good"), None);
    assert_eq!(hosts.start(start("bad", input::PID)).expect_err("suspended").reason, CloseReason::NotReady);
    while hosts.penalty("bad") != Penalty::Free {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Released by time, it is back among the others.
    let told = |what: &str| telemetry.metrics().penalties.get(what);
    while told("released") == 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(pid(&hosts, "bad").await, good);
    assert!(told("suspended") >= 1);
    ends(hosts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_of_different_classes_never_share_a_process() {
    let mut two = config();
    two.class.active = 2;
    two.classes = vec![HostClass { name: "apart".into(), active: 2, ..two.class.clone() }];
    two.tenants = (0..8).map(|number| (format!("t{number}").into(), "apart".to_owned())).collect();
    let hosts = Hosts::spawn(two, observer());
    hosts.until_ready().await;
    hosts.until_standby().await;
    let (mut apart, mut usual) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
    for number in 0..16 {
        let pid = pid(&hosts, &format!("t{number}")).await;
        if number < 8 {
            apart.insert(pid)
        } else {
            usual.insert(pid)
        };
    }
    assert!(apart.is_disjoint(&usual), "{apart:?} {usual:?}");
    // Nor by a call from one to the other.
    assert!(hosts.may_share("t0", "t7") && hosts.may_share("t8", "t15") && !hosts.may_share("t7", "t8"));
    // Also where a class has lost everything.
    let lost_one = pid(&hosts, "t0").await;
    kill_hard(lost_one);
    gone(lost_one).await;
    let next = pid(&hosts, "t0").await;
    assert!(!usual.contains(&next));
    ends(hosts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_replaces_every_host_and_loses_nothing() {
    let mut two = config();
    two.class.active = 2;
    let hosts = Hosts::spawn(two, observer());
    hosts.until_ready().await;
    hosts.until_standby().await;
    let mut before = std::collections::BTreeSet::new();
    for number in 0..8 {
        before.insert(pid(&hosts, &format!("t{number}")).await);
    }
    // One that runs all the while, and a load without a pause.
    let long = run(&hosts, "t0", input::HANG);
    let load = {
        let hosts = hosts.clone();
        tokio::spawn(async move {
            let mut served = 0u32;
            for number in 0.. {
                pid(&hosts, &format!("t{}", number % 8)).await; // panics at the first that is lost
                served += 1;
                if number > 100 && !hosts.inner.pools.iter().any(|pool| lock(&pool.slots).has_old()) {
                    break;
                }
            }
            served
        })
    };
    hosts.roll();
    hosts.until_rolled().await;
    assert!(load.await.expect("nothing was lost") > 100);
    for number in 0..8 {
        assert!(!before.contains(&pid(&hosts, &format!("t{number}")).await));
    }
    assert_eq!(hosts.lost(), 0, "a replaced host is not a lost one");
    assert_eq!(hosts.penalty("t0"), Penalty::Free);
    drop(long);
    ends(hosts).await;
}
