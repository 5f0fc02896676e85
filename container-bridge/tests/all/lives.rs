//! Lives and deaths: the manager, and hosts that are killed or stopped at every step.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use atoll_container_bridge::{
    backend::SandboxSpec,
    error::Code,
    lifecycle::Ending,
    limits::Limits,
    manager::{AuditEvent, Manager, ManagerConfig, Phase},
    protocol::ExecSpec,
};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    engines,
    support::{Kind, Place, block},
};

async fn manager(place: &Place, config: ManagerConfig) -> (Manager, Arc<Mutex<Vec<AuditEvent>>>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&events);
    let audit = move |event| sink.lock().unwrap().push(event);
    (Manager::new(place.backend().await, config, audit).await.unwrap(), events)
}

fn one_sandbox_per_tenant_and_user(kind: Kind) {
    block(async {
        let place = Place::of(kind);
        let owner = |tenant: &str, user: &str| place.owner(tenant, user);
        let config =
            ManagerConfig { sandboxes_max: 3, sandboxes_per_tenant_max: 2, ..ManagerConfig::default() };
        let (manager, events) = manager(&place, config).await;
        let spec = SandboxSpec::default();
        // Many at once get one; the same user of another tenant another.
        let ann = owner("a", "ann");
        let leases = (0..8).map(|_| manager.acquire(&ann, &spec));
        let leases: Vec<_> = futures_join(leases.collect()).await.into_iter().map(Result::unwrap).collect();
        let other = manager.acquire(&owner("b", "ann"), &spec).await.unwrap();
        leases[0].run(ExecSpec::shell("echo mine > f")).await.unwrap();
        assert!(leases[7].exists("f").await.unwrap() && !other.exists("f").await.unwrap());
        // Bounds, per tenant and in all.
        let _bob = manager.acquire(&owner("a", "bob"), &spec).await.unwrap();
        for (who, code) in [
            (owner("a", "cid"), Code::TenantSandboxesExhausted),
            (owner("c", "cid"), Code::SandboxUnavailable),
            (owner("", "x"), Code::InvalidArgument),
            (owner("a", &"x".repeat(300)), Code::InvalidArgument),
        ] {
            assert_eq!(manager.acquire(&who, &spec).await.err().unwrap().code, code, "{who:?}");
        }
        leases[0].run(ExecSpec::shell("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")).await.unwrap();
        // Ended on demand; calls under way are told; the next use gets a fresh one.
        let cut = tokio::spawn({
            let sandbox = (*leases[0]).clone();
            async move { sandbox.run(ExecSpec::shell("sleep 1000")).await }
        });
        manager.destroy(&ann).await;
        assert_eq!(cut.await.unwrap().unwrap_err().code, Code::OperationInterrupted);
        manager.destroy(&ann).await;
        let fresh = manager.acquire(&ann, &spec).await.unwrap();
        assert!(!fresh.exists("f").await.unwrap());
        assert_eq!(manager.list().len(), 3);
        manager.destroy_all().await;
        assert!(manager.list().is_empty());
        place.assert_clean();
        let events = events.lock().unwrap();
        let ended: Vec<_> = events
            .iter()
            .filter_map(|event| match event {
                AuditEvent::Ended { owner, why, usage, .. } => Some((owner.clone(), *why, *usage)),
                _ => None,
            })
            .collect();
        assert_eq!(ended.len(), 4);
        let (_, why, usage) = ended.iter().find(|(who, ..)| *who == ann).unwrap();
        assert_eq!((*why, usage.uses), (Ending::Destroyed, 8));
        assert!(usage.bytes_out > 0 || usage.wall_us > 0);
        if rustix::process::geteuid().is_root() {
            assert!(usage.cpu_us > 0, "{usage:?}");
        }
    });
}

async fn futures_join<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut results = Vec::new();
    // The first makes the sandbox while the others wait for the same one.
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    std::future::poll_fn(|context| {
        let mut index = 0;
        while index < futures.len() {
            match futures[index].as_mut().poll(context) {
                std::task::Poll::Ready(result) => {
                    results.push(result);
                    drop(futures.swap_remove(index));
                }
                std::task::Poll::Pending => index += 1,
            }
        }
        if futures.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    results
}

fn idle_sandboxes_end_and_used_ones_do_not(kind: Kind) {
    block(async {
        let place = Place::of(kind);
        let owner = |tenant: &str, user: &str| place.owner(tenant, user);
        let config = ManagerConfig { idle: Duration::from_millis(300), ..ManagerConfig::default() };
        let (manager, events) = manager(&place, config).await;
        let ann = owner("a", "ann");
        let lease = manager.acquire(&ann, &SandboxSpec::default()).await.unwrap();
        // Longer than the idle time, but in use.
        assert_eq!(lease.run(ExecSpec::shell("sleep 1; echo ok")).await.unwrap().stdout, b"ok\n");
        drop(lease);
        while !manager.list().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        place.assert_clean();
        let events = events.lock().unwrap();
        assert!(matches!(events.last(), Some(AuditEvent::Ended { why: Ending::Idle, .. })), "{events:?}");
    });
}

fn a_lost_sandbox_and_a_failed_start_are_told(kind: Kind) {
    block(async {
        let place = Place::of(kind);
        let owner = |tenant: &str, user: &str| place.owner(tenant, user);
        let (manager, events) = manager(&place, ManagerConfig::default()).await;
        let spec = SandboxSpec {
            limits: Limits { lifetime_ms: 500, ..Limits::default() },
            ..SandboxSpec::default()
        };
        let lease = manager.acquire(&owner("a", "ann"), &spec).await.unwrap();
        lease.gone().await;
        while !manager.list().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let root = atoll_container_bridge::protocol::Root::Directory("/no/such/root".into());
        let spec = SandboxSpec { root, ..SandboxSpec::default() };
        let error = manager.acquire(&owner("a", "bob"), &spec).await.err().unwrap();
        let refused = if kind == Kind::Native { Code::FileNotFound } else { Code::Unsupported };
        assert_eq!(error.code, refused, "{error}");
        while !manager.list().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        place.assert_clean();
        let failed =
            |events: &[AuditEvent]| events.iter().any(|e| matches!(e, AuditEvent::StartFailed { .. }));
        assert!(failed(&events.lock().unwrap()));
        // Dropping the manager ends what is left.
        let lease = manager.acquire(&owner("a", "cid"), &SandboxSpec::default()).await.unwrap();
        drop((manager, lease));
        place.assert_clean();
    });
}

/// Not a test: the host that the tests below kill. Prints a line at each step.
#[test]
fn host() {
    let Some(json) = std::env::var_os("ATOLL_TEST_HOST") else { return };
    let json: serde_json::Value = serde_json::from_str(&json.to_string_lossy()).unwrap();
    let kind = Kind::ALL.iter().copied().find(|kind| format!("{kind:?}") == json["kind"].as_str().unwrap());
    engines::inherit(json["socket"].as_str().unwrap());
    let mut place = Place::of(kind.unwrap());
    place.config.state_dir = json["state"].as_str().unwrap().into();
    place.config.args = vec![json["marker"].as_str().unwrap().to_owned()];
    place.config.uid_base = json["uid"].as_u64().unwrap() as u32;
    block(async {
        println!("step begin");
        let mut all = Vec::new();
        for _ in 0..3 {
            let limits = Limits { lifetime_ms: json["lifetime"].as_u64().unwrap(), ..Limits::default() };
            let sandbox = place.launch(&SandboxSpec { limits, ..SandboxSpec::default() }).await.unwrap();
            println!("step launched");
            sandbox.start("p", ExecSpec::shell("setsid sleep 1000 & sleep 1000")).await.unwrap();
            println!("step started");
            all.push(sandbox);
        }
        println!("step all");
        let first = all.remove(0);
        let _ = first.launched.instance.stop().await;
        println!("step stopped");
        std::future::pending::<()>().await;
    });
}

fn spawn_host(place: &Place, lifetime_ms: u64) -> Child {
    let config = serde_json::json!({
        "state": place.config.state_dir, "marker": place.config.args[0], "uid": place.config.uid_base,
        "lifetime": lifetime_ms, "kind": format!("{:?}", place.kind), "socket": place.address(),
    });
    Command::new(std::env::current_exe().unwrap())
        .args(["lives::host", "--exact", "--nocapture"])
        .env("ATOLL_TEST_HOST", config.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn pid(child: &Child) -> Pid {
    Pid::from_child(child)
}

fn wait_for(child: &mut Child, step: usize) -> BufReader<std::process::ChildStdout> {
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut seen = 0;
    while seen < step {
        let mut line = String::new();
        assert!(lines.read_line(&mut line).unwrap() > 0, "the host ended early");
        // libtest writes its own words on the same line as the first step.
        seen += usize::from(line.contains("step "));
    }
    lines
}

fn a_host_killed_at_any_step_leaves_nothing(kind: Kind) {
    // An engine takes its time for each step.
    let delays_us: &[u64] = if kind == Kind::Native { &[0, 3_000, 12_000] } else { &[0] };
    for step in 1..=9 {
        for delay_us in delays_us {
            let place = Place::of(kind);
            let mut host = spawn_host(&place, 600_000);
            let _lines = wait_for(&mut host, step);
            std::thread::sleep(Duration::from_micros(*delay_us)); // somewhere between this step and the next
            kill_process(pid(&host), Signal::KILL).unwrap();
            host.wait().unwrap();
            // What a start finds is at most a file that was claimed and not yet handed to a keeper; and with an engine a container that
            // was still being made when the host died, which is there only later: a manager looks again each minute.
            block(place.assert_reaped());
        }
    }
}

fn a_stopped_host_does_not_prolong_a_life(kind: Kind) {
    let place = Place::of(kind);
    let mut host = spawn_host(&place, 2_500);
    let _lines = wait_for(&mut host, 7);
    kill_process(pid(&host), Signal::STOP).unwrap();
    place_is_empty_while_stopped(&place, &host);
    kill_process(pid(&host), Signal::KILL).unwrap();
    host.wait().unwrap();
    block(async { place.backend().await.reap().await.unwrap() });
    place.assert_clean();
}

fn place_is_empty_while_stopped(place: &Place, host: &Child) {
    place.assert_nothing_runs();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", host.id())).unwrap();
    assert!(stat.contains(") T "), "the host ran meanwhile: {stat}");
}

#[test]
fn killed_keepers_and_inits_leave_nothing_that_a_reaper_does_not_find() {
    block(async {
        let place = Place::of(Kind::Native);
        for victim in 0..3 {
            let sandbox = place.start().await;
            sandbox.start("p", ExecSpec::shell("setsid sleep 1000 & sleep 1000")).await.unwrap();
            // Keeper, first process, agent: the processes of this place's command line, oldest first.
            let marker = format!("{}\0", place.config.args[0]);
            let mut pids: Vec<i32> = std::fs::read_dir("/proc")
                .unwrap()
                .flatten()
                .filter(|entry| {
                    std::fs::read_to_string(entry.path().join("cmdline"))
                        .is_ok_and(|line| line.contains(&marker))
                })
                .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
                .collect();
            pids.sort_unstable();
            kill_process(Pid::from_raw(pids[victim]).unwrap(), Signal::KILL).unwrap();
            sandbox.gone().await;
            let _ = sandbox.launched.instance.stop().await;
            place.backend().await.reap().await.unwrap();
            place.assert_clean();
        }
    });
}

fn usage_is_measured_when_somebody_asks_and_memory_kills_are_counted(kind: Kind) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: without root there may be no cgroup to read");
        return;
    }
    block(async {
        let place = Place::of(kind);
        let (manager, _events) = manager(&place, ManagerConfig::default()).await;
        let limits = Limits { memory_bytes: 96 << 20, disk_bytes: 16 << 20, ..Limits::default() };
        let (ann, spec) = (place.owner("a", "ann"), SandboxSpec { limits, ..SandboxSpec::default() });
        assert_eq!(manager.find(&ann).await.err().unwrap().code, Code::SandboxNotFound);
        assert_eq!(manager.describe(&ann).unwrap_err().code, Code::SandboxNotFound);
        let lease = manager.acquire(&ann, &spec).await.unwrap();
        assert_eq!(manager.find(&ann).await.unwrap().id(), lease.id());
        let described = manager.describe(&ann).unwrap();
        assert_eq!((&described.id, described.state), (lease.id(), Phase::Running));
        // Each of several short commands within one second is seen.
        let mut before = manager.usage(&ann).await.unwrap();
        for _ in 0..3 {
            lease.run(ExecSpec::shell("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")).await.unwrap();
            let after = manager.usage(&ann).await.unwrap();
            assert!(after.cpu_us > before.cpu_us && after.wall_us > before.wall_us, "{before:?} {after:?}");
            before = after;
        }
        assert_eq!(before.oom_kills, 0);
        let hungry =
            ExecSpec::argv(["sh", "-c", "x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo ${#x}"]);
        let _ended_somehow = lease.run(hungry).await;
        let after = manager.usage(&ann).await.unwrap();
        if kind.is_cluster() {
            // A pod counts in its own control group, and those of the tests' cluster do not see theirs.
            assert!(after.memory_bytes_peak > 0, "{after:?}");
        } else {
            assert!(after.oom_kills > 0 && after.memory_bytes_peak > 80 << 20, "{after:?}");
        }
        manager.destroy_all().await;
        place.assert_clean();
    });
}

#[test]
fn a_reaper_leaves_the_living_alone() {
    block(async {
        let place = Place::of(Kind::Native);
        let sandbox = place.start().await;
        assert_eq!(place.backend().await.reap().await.unwrap(), 0);
        assert_eq!(sandbox.out("echo alive").await, "alive\n");
        // A file of a dead owner, and one that says nothing.
        std::fs::write(place.config.state_dir.join("slot-77.json"), "").unwrap();
        let dead = r#"{"id":"x","cgroup":null,"owner_pid":1,"owner_start_ticks":1,"boot_id":"other"}"#;
        std::fs::write(place.config.state_dir.join("slot-78.json"), dead).unwrap();
        assert_eq!(place.backend().await.reap().await.unwrap(), 2);
        sandbox.stop().await;
    });
}

crate::support::for_each_backend! {
    one_sandbox_per_tenant_and_user,
    usage_is_measured_when_somebody_asks_and_memory_kills_are_counted,
    idle_sandboxes_end_and_used_ones_do_not,
    a_lost_sandbox_and_a_failed_start_are_told,
    a_host_killed_at_any_step_leaves_nothing,
    a_stopped_host_does_not_prolong_a_life,
}

/// How long a pod lives is also its controller's to say.
mod of_controllers {
    use super::*;

    crate::support::for_each_backend! { @ agent_sandbox AgentSandbox
        one_sandbox_per_tenant_and_user
        idle_sandboxes_end_and_used_ones_do_not
        a_lost_sandbox_and_a_failed_start_are_told
        a_host_killed_at_any_step_leaves_nothing
        a_stopped_host_does_not_prolong_a_life
    }
}
