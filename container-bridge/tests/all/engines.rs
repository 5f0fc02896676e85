//! Docker and Podman for the tests: daemons of our own, with their data, socket and everything else in one temporary
//! directory, started when first needed and removed with it when this process ends, however it ends.

use std::{
    fs,
    io::{Read, Write},
    os::unix::{net::UnixStream, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use atoll_container_bridge::{
    engine::{EngineConfig, Image, Kind as EngineKind, Runtime, UID_BASE_DEFAULT, UIDS_DEFAULT},
    native::NativeConfig,
};

use crate::support::Kind;

/// How long a daemon may take to answer.
const UP: Duration = Duration::from_secs(40);

/// A daemon, and a shell that ends it when its standard input ends.
struct Daemon {
    socket: PathBuf,
    /// The engine's own command line, as far as it says where the daemon's things are.
    cli: Vec<String>,
    _guard: Option<Child>,
}

/// Waits for the end of its input, ends the daemon, removes its mounts and its directory.
const GUARD: &str = r#"
dir=$1; shift
exec </dev/fd/0
"$@" >"$dir/log" 2>&1 </dev/null & daemon=$!
read -r _
kill "$daemon"; wait "$daemon"
grep " $dir/" /proc/self/mounts | cut -d' ' -f2 | sort -r | while read -r mount; do umount -l "$mount"; done
rm -rf "$dir"
"#;

fn installed(program: &str) -> bool {
    ["/usr/bin", "/usr/sbin", "/usr/local/bin"].iter().any(|dir| Path::new(dir).join(program).exists())
}

/// Hybrid control groups (controllers on version 1 beside an empty version 2) confuse crun; runc knows them.
fn podman_runtime() -> &'static str {
    if !installed("crun") || Path::new("/sys/fs/cgroup/unified").exists() { "runc" } else { "crun" }
}

fn start(kind: Kind) -> Result<Daemon, String> {
    let (programs, name) = match kind {
        Kind::Docker => (&["dockerd", "containerd", "runc"][..], "docker"),
        _ => (&["podman", "conmon", "runc"][..], "podman"),
    };
    if !rustix::process::geteuid().is_root() {
        return Err("a daemon of the tests' own needs root".to_owned());
    }
    if let Some(missing) = programs.iter().find(|program| !installed(program)) {
        return Err(format!("{missing} is not installed (scripts/setup.sh test installs it)"));
    }
    // Short: the path of a socket has 107 bytes at most.
    let dir = tempfile::Builder::new().prefix("atoll-").tempdir().map_err(|error| error.to_string())?.keep();
    let socket = dir.join("s");
    let path = |name: &str| dir.join(name).display().to_string();
    let mut cli: Vec<String>;
    let mut command = Command::new("bash");
    command.args(["-c", GUARD, "guard"]).arg(&dir);
    if kind == Kind::Docker {
        let mut config = serde_json::json!({
            "data-root": path("data"), "exec-root": path("exec"), "pidfile": path("pid"),
            "hosts": [format!("unix://{}", socket.display())],
            "iptables": false, "ip6tables": false, "bridge": "none",
            "exec-opts": ["native.cgroupdriver=cgroupfs"],
        });
        if installed("runsc") {
            let args = ["--network=none", "--platform=ptrace", "--file-access=shared"];
            config["runtimes"] =
                serde_json::json!({ "runsc": { "path": "/usr/bin/runsc", "runtimeArgs": args } });
        }
        fs::write(dir.join("daemon.json"), config.to_string()).map_err(|error| error.to_string())?;
        command.args(["dockerd", "--config-file"]).arg(dir.join("daemon.json"));
        cli = vec!["docker".to_owned(), "--host".to_owned(), format!("unix://{}", socket.display())];
    } else {
        let limits = "[containers]\ndefault_ulimits=[\"nofile=1024:1024\",\"nproc=4096:4096\"]\n[engine]\nevents_logger=\"none\"\n";
        fs::write(dir.join("containers.conf"), limits).map_err(|error| error.to_string())?;
        let variable = format!("CONTAINERS_CONF={}", path("containers.conf"));
        cli = vec!["env".to_owned(), variable, "podman".to_owned()];
        cli.extend(["--root".to_owned(), path("data"), "--runroot".to_owned(), path("run")]);
        let more =
            ["--storage-driver", "overlay", "--cgroup-manager", "cgroupfs", "--runtime", podman_runtime()];
        cli.extend(more.map(str::to_owned));
        command.args(&cli).args(["system", "service", "--time=0"]);
        command.arg(format!("unix://{}", socket.display()));
    }
    command.process_group(0); // a signal for the tests' group must not end the guard before its work is done
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let guard = command.spawn().map_err(|error| format!("start {name}: {error}"))?;
    let begun = Instant::now();
    while ask(&socket, "/_ping").is_none() {
        if begun.elapsed() > UP {
            let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
            return Err(format!(
                "{name} does not come up here: {}",
                log.lines().last().unwrap_or("it says nothing")
            ));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(Daemon { socket, cli, _guard: Some(guard) })
}

static INHERITED: OnceLock<PathBuf> = OnceLock::new();

/// Makes this process use a daemon that another process of the tests has started.
pub(crate) fn inherit(socket: &str) {
    INHERITED.set(socket.into()).unwrap();
}

/// What another process of the tests has started.
#[allow(dead_code, reason = "the bench, which shares this file, has one process")]
pub(crate) fn inherited() -> Option<&'static Path> {
    INHERITED.get().map(PathBuf::as_path)
}

fn daemon(kind: Kind) -> &'static Result<Daemon, String> {
    static DOCKER: OnceLock<Result<Daemon, String>> = OnceLock::new();
    static PODMAN: OnceLock<Result<Daemon, String>> = OnceLock::new();
    let cell = if kind == Kind::Docker { &DOCKER } else { &PODMAN };
    cell.get_or_init(|| match INHERITED.get() {
        Some(socket) => Ok(Daemon { socket: socket.clone(), cli: Vec::new(), _guard: None }),
        None => start(kind),
    })
}

/// Why a backend cannot be tested here.
pub(crate) fn missing(kind: Kind) -> Option<String> {
    match kind {
        Kind::Docker | Kind::Podman => daemon(kind).as_ref().err().cloned(),
        _ => None,
    }
}

/// Where the engine answers; empty for what is none.
pub(crate) fn socket(kind: Kind) -> PathBuf {
    match kind {
        Kind::Docker | Kind::Podman => daemon(kind).as_ref().map(|daemon| daemon.socket.clone()).unwrap(),
        _ => PathBuf::new(),
    }
}

/// The engine's own command line for this daemon.
#[allow(dead_code, reason = "for the bench, which shares this file")]
pub(crate) fn cli(kind: Kind) -> Vec<String> {
    daemon(kind).as_ref().map(|daemon| daemon.cli.clone()).unwrap()
}

pub(crate) fn config(kind: Kind, native: &NativeConfig) -> EngineConfig {
    EngineConfig {
        kind: if kind == Kind::Docker { EngineKind::Docker } else { EngineKind::Podman },
        socket: socket(kind),
        program: native.program.clone(),
        args: native.args.clone(),
        state_dir: native.state_dir.clone(),
        image: Image::Host,
        runtime: Runtime::Default,
        uid_base: UID_BASE_DEFAULT,
        uids: UIDS_DEFAULT,
    }
}

/// One request, as simple as can be.
fn ask(socket: &Path, path: &str) -> Option<String> {
    get(socket, path).filter(|answer| answer.lines().next().is_some_and(|line| line.contains("200")))
}

/// The whole answer, whatever its status.
fn get(socket: &Path, path: &str) -> Option<String> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(UP)).ok()?;
    stream.write_all(format!("GET /v1.40{path} HTTP/1.0\r\nHost: engine\r\n\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// Containers of the gateways whose lock files are in this directory.
pub(crate) fn leftovers(kind: Kind, state_dir: &Path) -> Vec<String> {
    if !matches!(kind, Kind::Docker | Kind::Podman) {
        return Vec::new();
    }
    let answer = ask(&socket(kind), "/containers/json?all=1").expect("the engine answers");
    let json = answer.split_once("\r\n\r\n").unwrap().1;
    let all: Vec<serde_json::Value> = serde_json::from_str(json).unwrap();
    let ours =
        |found: &serde_json::Value| found["Labels"].to_string().contains(&*state_dir.to_string_lossy());
    // Docker writes an entry of its list again when news of a container (here: of a memory kill) comes while it is removed. Such an
    // entry has no name, stays until the daemon ends, and stands for nothing that the daemon could show, stop or remove.
    let exists = |found: &&serde_json::Value| {
        let path = format!("/containers/{}/json", found["Id"].as_str().unwrap());
        let answer = get(&socket(kind), &path).expect("the engine answers");
        answer.lines().next().is_none_or(|line| !line.contains(" 404 "))
    };
    all.iter().filter(|found| ours(found)).filter(exists).map(|found| found["Names"].to_string()).collect()
}
