//! Start to first output byte: a native sandbox beside bare bwrap, and a command in a running sandbox.
//!
//! `cargo bench -p atoll-container-bridge --bench start`. Medians of 20; everything in one run, as the machine's load
//! changes from run to run.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use atoll_container_bridge::{
    backend::{Backend, SandboxId, SandboxSpec},
    native::{Native, NativeConfig, UID_BASE_DEFAULT},
    protocol::ExecSpec,
    sandbox::Sandbox,
};

const RUNS: usize = 20;
const CROWD: usize = 100;

fn median(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    format!("{:7.1} ms", times[times.len() / 2].as_secs_f64() * 1000.0)
}

fn bwrap() -> Option<Duration> {
    let start = Instant::now();
    let status = Command::new("bwrap")
        .args(["--unshare-all", "--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin"])
        .args(["--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64"])
        .args(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "echo", "x"])
        .stdout(Stdio::null())
        .status();
    status.ok().filter(std::process::ExitStatus::success).map(|_| start.elapsed())
}

#[tokio::main]
async fn main() {
    let dir = tempfile::tempdir().expect("a directory");
    let native = Native::new(NativeConfig {
        program: PathBuf::from(env!("CARGO_BIN_EXE_atoll-sandbox-init")),
        args: Vec::new(),
        state_dir: dir.path().to_owned(),
        uid_base: UID_BASE_DEFAULT,
        cgroup_parent: None,
        allow_no_cgroup: !rustix::process::geteuid().is_root(),
    })
    .expect("the native backend");
    let (mut starts, mut stops, mut execs, mut others) = (vec![], vec![], vec![], vec![]);
    for _ in 0..RUNS {
        others.extend(bwrap());
        let start = Instant::now();
        let id = SandboxId::random().expect("an id");
        let launched = native.launch(&id, &SandboxSpec::default()).await.expect("a sandbox");
        let sandbox = Sandbox::new(launched.link.clone());
        let mut running = sandbox.exec(ExecSpec::argv(["echo", "x"])).await.expect("a command");
        running.next().await.expect("output");
        starts.push(start.elapsed());
        running.wait().await.expect("an end");
        let start = Instant::now();
        let mut running = sandbox.exec(ExecSpec::argv(["echo", "x"])).await.expect("a command");
        running.next().await.expect("output");
        execs.push(start.elapsed());
        let start = Instant::now();
        launched.instance.stop().await.expect("a clean stop");
        stops.push(start.elapsed());
    }
    println!("native: start to first byte      {}", median(starts));
    println!("native: command in a running one {}", median(execs));
    println!("native: stop, all removed        {}", median(stops));
    if others.is_empty() {
        println!("bwrap: not on this machine");
    } else {
        println!("bwrap: start to end              {}", median(others));
    }

    let start = Instant::now();
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        let id = SandboxId::random().expect("an id");
        let launched = native.launch(&id, &SandboxSpec::default()).await.expect("a sandbox");
        Sandbox::new(launched.link.clone()).run(ExecSpec::argv(["true"])).await.expect("a command");
        crowd.push(launched);
    }
    let mut memory = 0;
    for launched in &crowd {
        memory += launched.instance.reading().await.memory_bytes;
    }
    println!(
        "{CROWD} at once: {:.1} s, {} KiB each",
        start.elapsed().as_secs_f64(),
        memory / CROWD as u64 / 1024
    );
    for launched in crowd {
        launched.instance.stop().await.expect("a clean stop");
    }
}
