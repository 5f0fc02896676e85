//! The inside of a pod in real containers: the program installed from one container into another whose image has no C
//! library, the init behind its socket, and the relay of an exec as its lifeline. The tests' cluster has native sandboxes
//! for pods; here the very command lines of a pod run, by Docker and Podman, as a node's runtime would run them.

use std::{
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use atoll_container_bridge::{
    backend::SandboxId,
    init::relay::{INSTALL, LISTEN, LISTEN_WARM, RELAY},
    kit::Kit,
    limits::Limits,
    link::Link,
    protocol::{Disk, ExecSpec, Root, Setup},
    sandbox::Sandbox,
};
use tokio::{
    io::AsyncWriteExt,
    process::{Child, Command},
};

use crate::{
    containers::busybox,
    engines,
    support::{HANG, Kind, Place, block},
};

/// A container's user: no root, and nobody of this machine.
const USER: &str = "1234567:1234567";

struct Pod {
    kind: Kind,
    name: String,
    /// The volume that both containers see.
    kit: tempfile::TempDir,
    command: Vec<String>,
}

fn engine(kind: Kind) -> Command {
    let cli = engines::cli(kind);
    let mut command = Command::new(&cli[0]);
    command.args(&cli[1..]).stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn done(mut command: Command) -> String {
    let output = command.output().await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&text));
    String::from_utf8_lossy(&text).into_owned()
}

impl Pod {
    /// The first container installs, the second waits for its connection.
    async fn start(place: &Place, listen: &str) -> Self {
        let (kind, program) = (place.kind, &place.config.program);
        let kit = tempfile::tempdir().unwrap();
        std::fs::set_permissions(kit.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let image = busybox(kind).await;
        let mut install = engine(kind);
        install.args([
            "run",
            "--rm",
            "--network",
            "none",
            "--user",
            USER,
            "--cap-drop",
            "ALL",
            "--read-only",
        ]);
        install.args(["-v", &format!("{}:/.atoll", kit.path().display())]);
        // This machine's files for an image with a C library.
        for dir in ["/usr", "/lib", "/lib64"].iter().filter(|dir| Path::new(dir).exists()) {
            let real = std::fs::canonicalize(dir).unwrap();
            install.args(["-v", &format!("{}:{dir}:ro", real.display())]);
        }
        install.args(["-v", &format!("{}:/atoll:ro", program.display()), "--entrypoint", "/atoll", &image]);
        install.args([INSTALL, "/.atoll"]);
        done(install).await;
        let name = format!("{}-pod", place.config.args[0]);
        let mut command = Kit::of(program).unwrap().command("/.atoll");
        command.push(place.config.args[0].clone());
        let mut run = engine(kind);
        run.args(["run", "-d", "--name", &name, "--network", "none", "--user", USER, "--cap-drop", "ALL"]);
        run.args(["--read-only", "--security-opt", "no-new-privileges", "--memory", "512m"]);
        for place in ["/workspace", "/tmp", "/home/user"] {
            run.args(["--tmpfs", &format!("{place}:rw,exec,mode=1777,size=64m")]);
        }
        run.args(["-v", &format!("{}:/.atoll:ro", kit.path().display())]);
        run.args(["--entrypoint", &command[0], &image]).args(&command[1..]).arg(listen);
        done(run).await;
        Self { kind, name, kit, command }
    }

    /// What an exec of the cluster does.
    async fn relay(&self, lifetime: Duration) -> (Child, Link) {
        let mut exec = engine(self.kind);
        exec.args(["exec", "-i", &self.name]).args(&self.command).arg(RELAY);
        let mut relay = exec.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (mut input, output) = (relay.stdin.take().unwrap(), relay.stdout.take().unwrap());
        let limits = Limits { lifetime_ms: lifetime.as_millis() as u64, ..Limits::default() };
        let setup = Setup {
            id: SandboxId::random().unwrap().as_str().to_owned(),
            limits,
            uid_base: None,
            root: Root::Host,
            disk: Disk::Memory,
            env: [("FROM".to_owned(), "pod".to_owned())].into(),
            cgroup: None,
            allow_no_cgroup: false,
        };
        let bytes = postcard::to_stdvec(&setup).unwrap();
        input.write_all(&(bytes.len() as u32).to_le_bytes()).await.unwrap();
        input.write_all(&bytes).await.unwrap();
        let link = Link::open(output, input).await.unwrap();
        (relay, link)
    }

    /// Waits until the container has ended by itself; its exit code.
    async fn end(&self) -> String {
        let begun = Instant::now();
        loop {
            let mut inspect = engine(self.kind);
            inspect.args(["inspect", "--format", "{{.State.Running}} {{.State.ExitCode}}", &self.name]);
            let state = done(inspect).await;
            if let Some(code) = state.trim().strip_prefix("false ") {
                return code.to_owned();
            }
            assert!(begun.elapsed() < HANG, "the container lives on");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn remove(self) {
        let mut remove = engine(self.kind);
        done({
            remove.args(["rm", "-f", &self.name]);
            remove
        })
        .await;
        drop(self.kit);
    }
}

fn the_relay_is_the_lifeline(kind: Kind) {
    block(async {
        let place = Place::of(kind);
        let pod = Pod::start(&place, LISTEN).await;
        let (relay, link) = pod.relay(HANG).await;
        let sandbox = Sandbox::new(link.clone());
        sandbox.write("f", b"kept\n").await.unwrap();
        let done = sandbox
            .run(ExecSpec::shell("busybox cat f; echo $FROM; busybox id -u; busybox ls /usr 2>&1"))
            .await
            .unwrap();
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(text.starts_with("kept\npod\n1234567\n") && text.contains("No such"), "no C library: {text}");
        // The relay carries on while everything else stands still for a snapshot.
        let mut tar = Vec::new();
        let mut snapshot = sandbox.snapshot().await.unwrap();
        while let Some((_, bytes)) = snapshot.next().await.unwrap() {
            tar.extend(bytes);
        }
        assert!(tar.windows(5).any(|window| window == b"kept\n"), "{} bytes", tar.len());
        // What it uses is seen from inside.
        sandbox.run(ExecSpec::shell("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")).await.unwrap();
        let usage = sandbox.usage().await.unwrap();
        assert!(usage.reading.cpu_us > 0 && usage.reading.memory_bytes > 0, "{usage:?}");
        // The workload can neither see into the relay nor end it, nor take its place.
        let spy = "for p in /proc/[0-9]*; do busybox tr '\\0' ' ' < $p/cmdline | busybox grep -q -- --relay && r=${p#/proc/}; done; \
                   busybox kill -9 $r 2>&1; busybox cat /proc/$r/environ 2>&1 | busybox head -c 40; echo; echo alive";
        let done = sandbox.run(ExecSpec::shell(spy)).await.unwrap();
        let text = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
        assert!(text.contains("alive") && text.contains("ermi"), "{text}");
        sandbox.start("p", ExecSpec::shell("busybox sleep 1000 & busybox sleep 1000")).await.unwrap();
        drop(relay); // killed, as by the end of a gateway
        tokio::time::timeout(HANG, link.closed()).await.unwrap();
        assert_eq!(pod.end().await, "0");
        pod.remove().await;
        place.assert_clean();
    });
}

fn the_end_of_the_input_and_the_deadline_end_a_pod(kind: Kind) {
    block(async {
        let place = Place::of(kind);
        for (listen, lifetime, code) in [(LISTEN_WARM, HANG, "0"), (LISTEN, Duration::from_millis(800), "10")]
        {
            let pod = Pod::start(&place, listen).await;
            let (_relay, link) = pod.relay(lifetime).await;
            if lifetime == HANG {
                link.close(); // ends the input
            } else {
                let sandbox = Sandbox::new(link.clone());
                sandbox.start("p", ExecSpec::shell("trap '' TERM; busybox sleep 1000")).await.unwrap();
            }
            assert_eq!(pod.end().await, code);
            pod.remove().await;
        }
        place.assert_clean();
    });
}

crate::support::for_each_engine! {
    the_relay_is_the_lifeline,
    the_end_of_the_input_and_the_deadline_end_a_pod,
}
