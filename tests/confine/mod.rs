//! The isolate host's process as the kernel sees it, and attempts to get out of its confinement.
//!
//! A system may refuse some layers; then the host says so, and what is left is tested. The attempts must fail in any case.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::atoll::{Atoll, Options, binary};
use crate::support::memory::members;
use crate::support::worker::{Request, Worker};

/// The signal with which the system call filter ends a process.
const SIGSYS: i32 = 31;
/// Rounds of 20 ms that something may take to happen.
const ROUNDS_MAX: usize = 500;

/// What must come of an attempt in a process that is confined completely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It works: the host needs it.
    Done,
    /// An error, because libraries try it.
    Refused,
    /// The end of the process.
    Killed,
}

/// Every attempt.
const TABLE: &[(&str, Fate)] = &[
    ("nothing", Fate::Done),
    ("thread", Fate::Done),
    ("random", Fate::Done),
    ("read-file", Fate::Refused),
    ("read-proc", Fate::Refused),
    ("list-root", Fate::Refused),
    ("write-file", Fate::Refused),
    ("make-folder", Fate::Killed),
    ("remove-file", Fate::Killed),
    ("tcp-connect", Fate::Killed),
    ("tcp-listen", Fate::Killed),
    ("udp-send", Fate::Killed),
    ("unix-connect", Fate::Killed),
    ("process", Fate::Killed),
    ("exec", Fate::Killed),
    ("fork", Fate::Killed),
    ("kill-parent", Fate::Killed),
    ("ptrace-parent", Fate::Killed),
    ("read-parent-memory", Fate::Killed),
    ("io-uring", Fate::Killed),
    ("user-namespace", Fate::Killed),
    ("mount", Fate::Killed),
    ("chroot", Fate::Killed),
    ("bpf", Fate::Killed),
    ("keyring", Fate::Killed),
    ("memory-file", Fate::Killed),
    ("set-user", Fate::Killed),
    ("raise-limit", Fate::Killed),
    ("clock-set", Fate::Killed),
    ("perf", Fate::Killed),
];

/// What the layers behind the system call filter must refuse when there is no filter.
const BEHIND: &[&str] = &[
    "read-file",
    "read-proc",
    "list-root",
    "write-file",
    "make-folder",
    "tcp-connect",
    "tcp-listen",
    "udp-send",
    "unix-connect",
    "process",
    "exec",
    "ptrace-parent",
    "read-parent-memory",
    "mount",
    "chroot",
    "raise-limit",
    "clock-set",
];

/// Who makes the attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    /// The user who runs the tests.
    Same,
    /// An ordinary user, if that is `root`.
    Ordinary,
}

struct Prober {
    program: PathBuf,
    _folder: tempfile::TempDir,
}

impl Prober {
    /// A copy of the program where every user can run it.
    fn new() -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let program = folder.path().join("atoll");
        std::fs::copy(binary(), &program).expect("a copy");
        for path in [folder.path(), &program] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("permissions");
        }
        Self { program, _folder: folder }
    }

    fn run(&self, who: Who, arguments: &[&str]) -> Output {
        let mut command = match who {
            Who::Same => Command::new(&self.program),
            Who::Ordinary => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid=12345", "--regid=12345", "--clear-groups", "--"]).arg(&self.program);
                command
            }
        };
        command.arg("isolate-host").args(arguments).output().expect("it runs")
    }

    fn probe(&self, who: Who, name: &str, more: &[&str]) -> (Fate, Value) {
        let output = self.run(who, &[&["--probe", name], more].concat());
        if output.status.signal() == Some(SIGSYS) {
            return (Fate::Killed, Value::Null);
        }
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{who:?} {name}: {} {errors}", output.status);
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        (if report["done"] == json!(true) { Fate::Done } else { Fate::Refused }, report)
    }
}

fn everybody() -> Vec<Who> {
    let is_root =
        members(std::process::id()).first().is_some_and(|pid| field(*pid, "Uid").starts_with("0\t"));
    let can_change = Command::new("setpriv").arg("--version").output().is_ok();
    if is_root && can_change { vec![Who::Same, Who::Ordinary] } else { vec![Who::Same] }
}

/// A line of `/proc/PID/status`.
fn field(pid: u32, name: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

#[test]
fn no_attempt_to_get_out_succeeds() {
    let prober = Prober::new();
    let names = prober.run(Who::Same, &["--probe", "list"]).stdout;
    let names = String::from_utf8(names).expect("UTF-8");
    assert_eq!(names.lines().collect::<Vec<_>>(), TABLE.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    for who in everybody() {
        let (_, plain) = prober.probe(who, "nothing", &[]);
        let filtered = !plain["missing"].to_string().contains("syscalls");
        for &(name, fate) in TABLE {
            let (came, report) = prober.probe(who, name, &[]);
            if filtered {
                assert_eq!(came, fate, "{who:?} {name}: {report}");
            } else {
                assert_eq!(came == Fate::Done, fate == Fate::Done, "{who:?} {name}: {report}");
            }
        }
    }
}

#[test]
fn the_layers_behind_the_filter_hold_alone() {
    let prober = Prober::new();
    for who in everybody() {
        let (_, plain) = prober.probe(who, "nothing", &[]);
        let landlock = !plain["missing"].to_string().contains("landlock");
        for name in BEHIND {
            if *name == "tcp-listen" && !landlock {
                eprintln!("SKIPPED: without Landlock a listener is made, in a network that is empty");
                continue;
            }
            let (came, report) = prober.probe(who, name, &["--without", "syscalls"]);
            assert_eq!(came, Fate::Refused, "{who:?} {name}: {report}");
        }
        // Each of the two that keep files away keeps them away without the other.
        for without in ["landlock", "root"] {
            if without == "root" && !landlock {
                continue; // then there is no other
            }
            let (came, report) =
                prober.probe(who, "read-file", &["--without", "syscalls", "--without", without]);
            assert_eq!(came, Fate::Refused, "{who:?} without {without}: {report}");
        }
    }
}

/// The isolate hosts of a server.
fn hosts(server: &Atoll) -> Vec<u32> {
    let is_host = |pid: &u32| {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
            line.split(|byte| *byte == 0).nth(1).is_some_and(|argument| argument == b"isolate-host")
        })
    };
    members(server.pid()).into_iter().filter(is_host).collect()
}

async fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..ROUNDS_MAX {
        if let Some(found) = look() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it did not happen in time");
}

fn link(path: &str) -> Option<PathBuf> {
    std::fs::read_link(path).ok()
}

async fn readiness(server: &Atoll) -> Value {
    let answer = server.control("GET", "/readyz", None).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    serde_json::from_str(&answer.text()).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hosts_process_has_nothing_to_work_with() {
    let server = Atoll::start(Options::default()).await;
    let code = "export default { fetch: () => new Response('served') };";
    server.deploy(&Worker::single("speaker", code)).await;
    assert_eq!(server.send("speaker", &Request::new("GET", "/")).await.text(), "served");
    let missing = readiness(&server).await["sandbox"]["missing"].to_string();
    let has = |layer: &str| !missing.contains(&format!("\"{layer}\""));
    let metrics = server.control("GET", "/metrics", None).await.text();
    let count = missing.matches("\",\"").count() + usize::from(missing != "[]");
    assert!(metrics.contains(&format!("atoll_isolate_host_layers_missing {count}\n")), "{missing} {metrics}");

    let pid = hosts(&server)[0];
    assert_eq!(field(pid, "NoNewPrivs"), "1");
    for name in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(field(pid, name), "0000000000000000", "{name}");
    }
    assert!(!field(pid, "Uid").split('\t').any(|id| id == "0"), "{}", field(pid, "Uid"));
    assert_eq!(field(pid, "Groups"), "");
    if has("syscalls") {
        assert_eq!(field(pid, "Seccomp"), "2");
        // Also on the threads that run guests.
        for task in std::fs::read_dir(format!("/proc/{pid}/task")).expect("threads").flatten() {
            let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
            assert!(status.is_empty() || status.contains("Seccomp:\t2\n"), "{status}");
        }
    }
    limits(pid);
    // What follows may be seen by root only, because nobody may look into the process.
    let Some(network) = link(&format!("/proc/{pid}/ns/net")) else { return };
    if has("namespaces") {
        assert_ne!(Some(network), link("/proc/self/ns/net"));
        let devices = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).expect("devices");
        let names: Vec<_> = devices.lines().skip(2).filter_map(|line| line.split(':').next()).collect();
        assert!(names.iter().all(|name| name.trim() == "lo"), "{names:?}");
    }
    if has("root") {
        let root = Path::new("/proc").join(pid.to_string()).join("root");
        assert_eq!(std::fs::read_dir(root).expect("its root").count(), 0);
        let mounts = std::fs::read_to_string(format!("/proc/{pid}/mounts")).expect("mounts");
        assert_eq!(mounts.lines().count(), 1, "{mounts}");
    }
    descriptors(pid);
}

fn limits(pid: u32) {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
    for (name, value) in [("Max core file size", "0"), ("Max file size", "0"), ("Max open files", "32")] {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let values: Vec<_> = line.split_whitespace().take(2).collect();
        assert!(line.is_empty() || values == [value, value], "{name} {values:?}");
    }
}

/// Nothing is open but sockets, pipes to the gateway, what tokio waits with, and the kernel's numbers about the process.
fn descriptors(pid: u32) {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors");
    let open: Vec<String> = entries
        .flatten()
        .filter_map(|entry| Some(std::fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned()))
        .collect();
    let kinds = ["socket:[", "pipe:[", "anon_inode:[eventpoll]", "anon_inode:[eventfd]"];
    for target in &open {
        let known = kinds.iter().any(|kind| target.starts_with(kind)) || target.ends_with("/statm");
        assert!(known, "{target} among {open:?}");
    }
    assert!(open.len() < 16, "{open:?}");
}

/// The folders of a process's cgroups, as far as they carry a host's name.
fn groups(pid: u32) -> Vec<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    text.lines().filter(|line| line.contains("/atoll-")).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_has_a_cgroup_of_its_own_which_goes_with_it() {
    let server = Atoll::start(Options::default()).await;
    if readiness(&server).await["sandbox"]["missing"].to_string().contains("cgroup") {
        assert!(server.log().contains("cgroup ("), "the reason is in the log: {}", server.log());
        assert!(std::env::var_os("ATOLL_OTHER_KERNEL").is_none(), "that kernel has them: {}", server.log());
        return;
    }
    let host = hosts(&server)[0];
    let first = groups(host);
    assert!(!first.is_empty());
    let _ = Command::new("kill").args(["-KILL", &host.to_string()]).status();
    let name = first[0].rsplit('/').next().expect("a name").to_owned();
    until(|| (!exists_below(Path::new("/sys/fs/cgroup"), &name, 4)).then_some(())).await;
}

fn exists_below(folder: &Path, name: &str, depth: usize) -> bool {
    let folders = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    folders.filter(|path| path.is_dir() && !path.is_symlink()).any(|path| {
        path.file_name().is_some_and(|found| found == name)
            || (depth > 0 && exists_below(&path, name, depth - 1))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_stand_still_while_a_guest_computes() {
    let server = Atoll::start(Options::default()).await;
    let code = "
        const clocks = () => [Date.now(), new Date().getTime(), Date.parse(Date()), performance.now(),
            new Intl.DateTimeFormat('en', { dateStyle: 'full', timeStyle: 'full', fractionalSecondDigits: undefined }).format(),
            globalThis.Temporal?.Now.instant().epochNanoseconds.toString(), new File([], 'x').lastModified];
        const work = () => { let sum = 0; for (let i = 0; i < 3e7; i++) sum += i % 7; return sum; };
        const before = clocks();
        work();
        await null;
        work();
        const after = clocks();
        await scheduler.wait(20);
        const later = clocks();
        return { before, after, moved: later[0] - after[0], ran: later[3] - after[3], year: new Date().getFullYear() };";
    let answer = server.execute(json!({ "code": code })).await;
    let body: Value = serde_json::from_str(&answer.text()).expect("JSON");
    let result = &body["result"];
    assert!(result.is_object(), "{body}");
    assert_eq!(result["before"], result["after"]);
    assert!(result["moved"].as_i64() >= Some(19), "a timer moves them: {result}");
    assert_eq!(result["moved"], result["ran"]);
    assert!(result["year"].as_i64() >= Some(2026), "{result}");
}

/// Hosts on a kernel whose control groups are of version 2 alone. `scripts/uml.sh` runs this very program there.
#[test]
fn hosts_are_confined_where_control_groups_are_of_version_2() {
    let installed = ["/usr/bin/linux.uml", "/bin/busybox"].iter().all(|file| Path::new(file).exists());
    if std::env::var_os("ATOLL_OTHER_KERNEL").is_some() {
        return; // this is it
    }
    if !field(std::process::id(), "Uid").starts_with("0\t") || !installed {
        eprintln!("SKIPPED: another kernel needs root, user-mode-linux and busybox (scripts/setup.sh test)");
        return;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/uml.sh");
    let program = std::env::current_exe().expect("a path");
    let mut command = Command::new(script);
    let output = command
        .arg(program)
        .args(["confine::", "--test-threads=1", "--color=never"])
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("a_host_has_a_cgroup_of_its_own_which_goes_with_it ... ok"), "{said}");
}
