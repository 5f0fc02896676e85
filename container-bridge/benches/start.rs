//! Start to first output byte on each backend, beside bare bwrap, `docker run` and `podman run`; a command in a running
//! sandbox; many sandboxes at once.
//!
//! `cargo bench -p atoll-container-bridge --bench start`, of some backends only if named: `-- native kubernetes`. Medians of 20, one of each kind per round: everything in one
//! run, as the machine's load changes from run to run. An engine is our own daemon, as in the tests. Kubernetes is the tests'
//! own API server on this machine, whose pods are native sandboxes: its row tells what this backend adds (some calls over
//! TLS, a watch, an exec), and nothing of a real cluster.
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on stops")]

#[allow(dead_code, unused_imports, reason = "the tests' own")]
#[path = "../tests/all/cluster/mod.rs"]
mod cluster;
#[allow(dead_code, reason = "the tests' own")]
#[path = "../tests/all/engines.rs"]
mod engines;

/// What `engines.rs` needs of the tests.
mod support {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Kind {
        #[expect(dead_code, reason = "what the tests have besides engines")]
        Native,
        Docker,
        Podman,
    }
}

use std::{
    io::{Read, Write},
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use atoll_container_bridge::{
    backend::{Backend, SandboxId, SandboxSpec},
    engine::Engine,
    kubernetes::{Access, Kubernetes, KubernetesConfig},
    native::{Native, NativeConfig, UID_BASE_DEFAULT},
    protocol::ExecSpec,
    sandbox::Sandbox,
};
use support::Kind;

const ROUNDS: usize = 20;
const CROWD: usize = 100;
const IMAGE: &str = "localhost/atoll-bench:1";

/// Times of one thing.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    fn median_ms(&self) -> Option<f64> {
        let mut times = self.0.clone();
        times.sort_unstable();
        times.get(times.len() / 2).map(|time| time.as_secs_f64() * 1000.0)
    }
}

/// A backend under measurement.
struct Subject {
    name: &'static str,
    backend: Box<dyn Backend>,
    start: Times,
    exec: Times,
    stop: Times,
}

async fn first_byte(sandbox: &Sandbox) -> Duration {
    let start = Instant::now();
    let mut running = sandbox.exec(ExecSpec::argv(["echo", "x"])).await.unwrap();
    running.next().await.unwrap();
    let took = start.elapsed();
    running.wait().await.unwrap();
    took
}

impl Subject {
    fn new(name: &'static str, backend: impl Backend) -> Self {
        Self {
            name,
            backend: Box::new(backend),
            start: Times::default(),
            exec: Times::default(),
            stop: Times::default(),
        }
    }

    async fn round(&mut self) {
        let start = Instant::now();
        let launched =
            self.backend.launch(&SandboxId::random().unwrap(), &SandboxSpec::default()).await.unwrap();
        let sandbox = Sandbox::new(launched.link.clone());
        let mut running = sandbox.exec(ExecSpec::argv(["echo", "x"])).await.unwrap();
        running.next().await.unwrap();
        self.start.0.push(start.elapsed());
        running.wait().await.unwrap();
        self.exec.0.push(first_byte(&sandbox).await);
        let start = Instant::now();
        launched.instance.stop().await.unwrap();
        self.stop.0.push(start.elapsed());
    }

    /// Many at once: how long they take to be there, and the memory that the kernel charges to one.
    async fn crowd(&self) {
        let start = Instant::now();
        let mut crowd = Vec::new();
        for _ in 0..CROWD {
            let id = SandboxId::random().unwrap();
            let launched = self.backend.launch(&id, &SandboxSpec::default()).await.unwrap();
            Sandbox::new(launched.link.clone()).run(ExecSpec::argv(["true"])).await.unwrap();
            crowd.push(launched);
        }
        let took = start.elapsed().as_secs_f64();
        let mut memory = 0;
        for launched in &crowd {
            memory += launched.instance.reading().await.memory_bytes;
        }
        println!("{CROWD} at once on {}: {took:.1} s, {} KiB each", self.name, memory / CROWD as u64 / 1024);
        for launched in crowd {
            launched.instance.stop().await.unwrap();
        }
    }
}

/// Start to first byte of a plain program.
fn program(argv: &[String]) -> Option<Duration> {
    let start = Instant::now();
    let mut command = Command::new(&argv[0]);
    command.args(&argv[1..]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let read = child.stdout.as_mut()?.read_exact(&mut [0]);
    let took = start.elapsed();
    child.wait().ok()?;
    read.ok().map(|()| took)
}

fn bwrap() -> Vec<String> {
    let line = "bwrap --unshare-all --ro-bind /usr /usr --symlink usr/bin /bin --symlink usr/lib /lib --symlink usr/lib64 /lib64 \
                --proc /proc --dev /dev --tmpfs /tmp echo x";
    line.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// The engine's own command line, with an image of busybox; none where there is no static busybox.
fn engine_run(kind: Kind) -> Option<Vec<String>> {
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_path_with_name("/bin/busybox", "bin/busybox").ok()?;
    let mut cli = engines::cli(kind);
    let mut command = Command::new(&cli[0]);
    command.args(&cli[1..]).args(["import", "-", IMAGE]).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
    child.stdin.take()?.write_all(&tar.into_inner().ok()?).ok()?;
    child.wait().ok()?;
    let run = ["run", "--rm", "--network", "none", IMAGE, "/bin/busybox", "echo", "x"];
    cli.extend(run.map(str::to_owned));
    Some(cli)
}

/// Pods of the tests' own cluster.
async fn pods(cluster: &cluster::Cluster, node: &NativeConfig) -> Kubernetes {
    let command = vec!["/usr/local/bin/atoll".to_owned()];
    let (namespace, image) = (cluster::NAMESPACE, "workload:1");
    let mut config = KubernetesConfig::own_program(namespace, image, command, &node.state_dir).unwrap();
    config.access = Access::File(cluster.kubeconfig().to_owned(), None);
    config.program = node.program.clone();
    Kubernetes::connect(config).await.unwrap()
}

#[tokio::main]
async fn main() {
    let named: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let wanted = |name: &str| named.is_empty() || named.iter().any(|one| one == name);
    let dir = tempfile::tempdir().unwrap();
    let config = NativeConfig {
        program: PathBuf::from(env!("CARGO_BIN_EXE_atoll-sandbox-init")),
        args: Vec::new(),
        state_dir: dir.path().to_owned(),
        uid_base: UID_BASE_DEFAULT,
        cgroup_parent: None,
        allow_no_cgroup: !rustix::process::geteuid().is_root(),
    };
    let mut subjects = vec![Subject::new("native", Native::new(config.clone()).unwrap())];
    let mut programs = vec![("bare bwrap", bwrap(), Times::default())];
    for (kind, name, run) in [(Kind::Docker, "docker", "docker run"), (Kind::Podman, "podman", "podman run")]
    {
        if !wanted(name) {
            continue;
        }
        if let Some(why) = engines::missing(kind) {
            println!("{name}: SKIPPED: {why}");
            continue;
        }
        let engine = Engine::connect(engines::config(kind, &config)).await.unwrap();
        subjects.push(Subject::new(name, engine));
        programs.extend(engine_run(kind).map(|argv| (run, argv, Times::default())));
    }
    let cluster = cluster::Cluster::start(&config, cluster::Kit::Plain);
    if wanted("kubernetes") {
        subjects.push(Subject::new("kubernetes*", pods(&cluster, &config).await));
    }
    for _ in 0..ROUNDS {
        for (_, argv, times) in &mut programs {
            times.0.extend(program(argv));
        }
        for subject in &mut subjects {
            subject.round().await;
        }
    }
    println!(
        "{:<14} {:>12} {:>14} {:>12}   (ms, medians of {ROUNDS})",
        "", "first byte", "next command", "stop"
    );
    let cell = |times: &Times| times.median_ms().map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}"));
    for (name, _, times) in &programs {
        println!("{name:<14} {:>12}", cell(times));
    }
    for Subject { name, start, exec, stop, .. } in &subjects {
        println!("{name:<14} {:>12} {:>14} {:>12}", cell(start), cell(exec), cell(stop));
    }
    if wanted("kubernetes") {
        println!("* the tests' own API server, whose pods are native sandboxes on this machine");
    }
    let native = subjects[0].start.median_ms().unwrap_or(f64::NAN);
    for (name, _, times) in &programs {
        if let Some(other) = times.median_ms() {
            println!("native / {name}: {:.2}", native / other);
        }
    }
    for subject in &subjects {
        subject.crowd().await;
    }
}
