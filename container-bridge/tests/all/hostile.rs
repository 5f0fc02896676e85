//! What hostile code tries inside, one row each, with what comes of it.

use std::time::Duration;

use atoll_container_bridge::{
    backend::SandboxSpec,
    limits::{Limits, MIB},
    native::End,
    protocol::{Disk, ExecSpec},
};

use crate::support::{HANG, Kind, Place, block, cgroups};

/// A row: what is tried, as a shell line, and the text that its output must contain when it was refused.
const ROWS: &[(&str, &str, &str)] = &[
    (
        "host uid 0 is not mapped",
        "awk '{ print ($2 >= 65536) ? \"range\" : \"host\" }' /proc/self/uid_map",
        "range",
    ),
    ("no way back to root", "su -c id >/dev/null 2>&1; test $(id -u) -ge 1000 && echo stays", "stays"),
    ("core_pattern", "sh -c 'echo x > /proc/sys/kernel/core_pattern' 2>&1", "cannot create"),
    ("sysrq", "sh -c 'echo h > /proc/sysrq-trigger' 2>&1", "cannot create"),
    ("kernel memory", "head -c1 /proc/kcore 2>/dev/null | wc -c", "0"),
    ("no sysfs", "ls -A /sys 2>&1 | grep -v 'No such' | wc -l", "0"),
    ("no cgroup files", "find / -name cgroup.procs 2>/dev/null | wc -l", "0"),
    ("no block device", "ls /dev/vda /dev/sda /dev/mem /dev/kmsg 2>&1 | grep -c 'No such'", "4"),
    (
        "make a device",
        "mknod d c 1 3 2>/dev/null; mknod b b 8 0 2>/dev/null; ls d b 2>&1 | grep -c 'No such'",
        "2",
    ),
    ("write to /dev", "touch /dev/new 2>&1", "touch:"),
    ("write to /usr", "touch /usr/new 2>&1", "Read-only"),
    ("host passwords", "cat /etc/shadow 2>&1", "No such file"),
    ("host root's home", "ls /root 2>&1", "No such file"),
    ("nested user namespace", "unshare -U true 2>&1", "not permitted"),
    (
        "mount",
        "perl -e 'my ($a,$b,$c)=(\"none\",\"/tmp\",\"tmpfs\"); syscall(165,$a,$b,$c,0,0); print $!+0'",
        "1",
    ),
    ("setns", "perl -e 'open F,\"<\",\"/proc/self/ns/net\"; syscall(308,fileno(F),0); print $!+0'", "1"),
    ("clone into namespaces", "perl -e 'syscall(56,0x10000000|17,0,0,0,0); print $!+0'", "1"),
    ("clone3", "perl -e 'my $b=\"\\0\"x88; syscall(435,$b,88); print $!+0'", "38"),
    ("pivot_root", "perl -e 'my ($a,$b)=(\".\",\".\"); syscall(155,$a,$b); print $!+0'", "1"),
    ("io_uring", "perl -e 'my $b=\"\\0\"x120; syscall(425,8,$b); print $!+0'", "1"),
    ("keyctl", "perl -e 'syscall(250,0,0,0,0,0); print $!+0'", "1"),
    (
        "add_key",
        "perl -e 'my ($a,$b,$c)=(\"user\",\"a\",\"b\"); syscall(248,$a,$b,$c,1,-3); print $!+0'",
        "1",
    ),
    ("bpf", "perl -e 'my $b=\"\\0\"x120; syscall(321,0,$b,120); print $!+0'", "1"),
    ("userfaultfd", "perl -e 'syscall(323,1); print $!+0'", "1"),
    ("perf_event_open", "perl -e 'my $b=\"\\0\"x120; syscall(298,$b,0,-1,-1,0); print $!+0'", "1"),
    (
        "x32 numbers",
        "perl -e 'my ($a,$b,$c)=(\"none\",\"/tmp\",\"tmpfs\"); syscall(0x40000000|165,$a,$b,$c,0,0); print $!+0'",
        "38",
    ),
    ("open_by_handle_at", "perl -e 'my $b=\"\\0\"x64; syscall(304,3,$b,0); print $!+0'", "1"),
    ("TIOCSTI", "perl -e 'my $c=\"x\"; syscall(16,0,0x5412,$c); print $!+0'", "1"),
    ("TIOCSTI, upper bits set", "perl -e 'my $c=\"x\"; syscall(16,0,0x100005412,$c); print $!+0'", "1"),
    ("vsock", "perl -e 'socket(S,40,1,0) or print $!+0'", "97"),
    ("packet socket", "perl -e 'socket(S,17,3,0) or print $!+0'", "97"),
    ("raw socket", "perl -e 'socket(S,2,3,1) or print $!+0'", "1"),
    ("kill the first process", "kill -9 1 2>&1; kill -9 2 2>&1; sleep 0.1; echo alive", "alive"),
    ("init is invisible", "ls -d /proc/1 /proc/2 2>&1 | grep -c 'No such'", "2"),
    ("trace the init", "perl -e 'syscall(101,16,1,0,0); print $!+0'", "1"),
    (
        "metadata address",
        "perl -MIO::Socket::INET -e 'IO::Socket::INET->new(PeerAddr=>\"169.254.169.254:80\",Timeout=>3) or print $!+0'",
        "101",
    ),
    (
        "outside",
        "perl -MIO::Socket::INET -e 'IO::Socket::INET->new(PeerAddr=>\"1.1.1.1:53\",Timeout=>3) or print $!+0'",
        "101",
    ),
    ("raise a limit", "sh -c 'ulimit -n 100000' 2>&1", "ulimit"),
    ("core dumps", "ulimit -Hc", "0"),
    (
        "set-id programs",
        "cp /bin/sh s; chmod u+s s; ./s -c 'grep NoNewPrivs /proc/self/status | cut -f2'",
        "1",
    ),
    ("descriptors of the init", "ls /proc/self/fd | tr '\\n' ' '", "0 1 2 3 "),
    ("environment of the host", "env | grep -c CARGO || true", "0"),
    ("other sandboxes' abstract sockets", "grep -c '@' /proc/net/unix || true", "0"),
];

fn rows(kind: Kind) {
    block(async {
        let place = Place::of(kind);
        let root = place.separates_users();
        let sandbox = place.start().await;
        let mut wrong = Vec::new();
        for (what, line, refused) in ROWS {
            // As an ordinary user, everything has that one user: the init is visible (not more).
            if !root && matches!(*what, "host uid 0 is not mapped" | "init is invisible") {
                eprintln!("skipped as an ordinary user: {what}");
                continue;
            }
            let done = sandbox.sh(line).await;
            let output = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
            // Numbers (of errors, mostly) are the whole answer; a text may stand in a sentence.
            let number = refused.bytes().all(|byte| byte.is_ascii_digit());
            if (number && output.trim() != *refused) || !output.contains(refused) {
                wrong.push(format!("{what}: wanted {refused:?}, got {output:?}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        sandbox.stop().await;
    });
}

fn host_loopback_and_abstract_sockets_are_elsewhere(kind: Kind) {
    block(async {
        let place = Place::of(kind);
        let host = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = host.local_addr().unwrap().port();
        let sandbox = place.start().await;
        let line = format!(
            "perl -MIO::Socket::INET -e 'IO::Socket::INET->new(PeerAddr=>\"127.0.0.1:{port}\") or print $!+0'"
        );
        assert_eq!(sandbox.out(&line).await, "111"); // ECONNREFUSED
        sandbox.stop().await;
    });
}

fn bombs_hit_their_bounds_and_the_sandbox_goes_on(kind: Kind) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: an ordinary user here cannot make cgroups, so memory is not bounded");
        return;
    }
    block(async {
        let place = Place::of(kind);
        let limits = Limits { memory_bytes: 128 * MIB, disk_bytes: 32 * MIB, pids: 64, ..Limits::default() };
        let sandbox = place.launch(&SandboxSpec { limits, ..SandboxSpec::default() }).await.unwrap();

        // Forks until it cannot; ended with its whole tree by the timeout.
        let bomb = "perl -e 'while (1) { fork }'";
        let spec = ExecSpec { grace_ms: 0, ..ExecSpec::shell(bomb).timeout(Duration::from_millis(700)) };
        assert!(sandbox.run(spec).await.unwrap().exit.timed_out);
        assert_eq!(sandbox.out("ps -A -o comm= | grep -c perl || true").await, "0\n");

        // The kernel kills the hog, not the sandbox.
        let hog = sandbox.sh("perl -e '$x = \"x\" x (1024*1024*400); print length $x'").await;
        assert_ne!(hog.exit.code, 0);
        assert_eq!(sandbox.out("echo alive").await, "alive\n");

        // Disk, shared memory and /tmp share one bound.
        for path in ["/workspace/big", "/tmp/big", "/dev/shm/big", "/home/user/big"] {
            let done =
                sandbox.sh(&format!("head -c 100000000 /dev/zero > {path}; wc -c < {path}; rm {path}")).await;
            let size: u64 = String::from_utf8(done.stdout).unwrap().trim().parse().unwrap();
            assert!(size <= 32 * MIB, "{path}: {size}");
            assert!(String::from_utf8_lossy(&done.stderr).contains("No space"), "{path}");
        }
        // So many small files that their inodes are the bomb. Podman cannot bound their number: there the bound on memory
        // answers, and the whole sandbox may end of it.
        if kind != Kind::Podman {
            let done =
                sandbox.sh("perl -e 'for(1..300000){open F,\">\",$_ or last} print $_; ' ; rm -rf ./*").await;
            assert!(!String::from_utf8(done.stdout).unwrap().contains("300000"));
        }

        // A flood is counted and dropped past its bound.
        let mut spec = ExecSpec::shell("head -c 50000000 /dev/zero");
        spec.output_bytes_max = 1_000_000;
        let done = sandbox.run(spec).await.unwrap();
        assert_eq!((done.stdout.len(), done.exit.dropped_bytes), (1_000_000, 49_000_000));
        assert_eq!(sandbox.out("echo alive").await, "alive\n");
        sandbox.stop().await;
    });
}

/// What `/proc` of the host says about a process inside.
fn seen_from_outside(command: &str) -> String {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let found = processes.filter_map(|entry| {
        let line = std::fs::read_to_string(entry.path().join("cmdline")).ok()?;
        (line == command).then(|| std::fs::read_to_string(entry.path().join("status")).ok())?
    });
    found.last().expect("the command is seen from outside")
}

fn no_process_is_the_hosts_root(kind: Kind) {
    block(async {
        let place = Place::of(kind);
        let sandbox = place.start().await;
        let seconds = format!("{}.{}", 1000, std::process::id() * 10 + kind as u32);
        sandbox.start("p", ExecSpec::argv(["sleep".to_owned(), seconds.clone()])).await.unwrap();
        let status = seen_from_outside(&format!("sleep\0{seconds}\0"));
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        for ids in [field("Uid:"), field("Gid:")] {
            assert_eq!(ids.len(), 4);
            assert!(ids.iter().all(|id| id != "0"), "{status}");
            let own = rustix::process::geteuid();
            assert!(!own.is_root() || ids.iter().all(|id| id.parse::<u32>().unwrap() >= 65_536), "{status}");
        }
        for capabilities in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
            assert_eq!(field(capabilities), ["0000000000000000"], "{capabilities} {status}");
        }
        assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), (vec!["1".to_owned()], vec!["2".to_owned()]));
        sandbox.stop().await;
    });
}

#[test]
fn a_disk_image_has_its_bound_and_leaves_nothing() {
    if !rustix::process::geteuid().is_root() || !std::path::Path::new("/dev/loop-control").exists() {
        eprintln!("SKIPPED: a disk image needs root and loop devices");
        return;
    }
    block(async {
        let place = Place::of(Kind::Native);
        let limits = Limits { memory_bytes: 96 * MIB, disk_bytes: 48 * MIB, ..Limits::default() };
        let spec = SandboxSpec { limits, disk: Disk::Image, ..SandboxSpec::default() };
        let sandbox = place.launch(&spec).await.unwrap();
        let done = sandbox.sh("head -c 100000000 /dev/zero > big; stat -f -c %T .").await;
        assert!(String::from_utf8_lossy(&done.stderr).contains("No space"));
        assert_eq!(done.stdout, b"ext2/ext3\n");
        sandbox.stop().await;
        assert!(
            std::fs::read_dir(std::env::temp_dir())
                .unwrap()
                .flatten()
                .all(|entry| { !entry.file_name().to_string_lossy().starts_with("atoll-disk-") })
        );
    });
}

#[test]
fn limits_that_cannot_be_set_refuse_the_start() {
    block(async {
        let mut place = Place::of(Kind::Native);
        place.config.allow_no_cgroup = false;
        place.config.cgroup_parent = Some("/no/such/group".to_owned());
        let error = place.launch(&SandboxSpec::default()).await.err().unwrap();
        assert_eq!(error.code, atoll_container_bridge::error::Code::LimitsUnavailable, "{error}");
        place.assert_clean();
    });
}

fn the_deadline_is_the_inits_own(kind: Kind) {
    block(async {
        let place = Place::of(kind);
        let limits = Limits { lifetime_ms: 700, ..Limits::default() };
        let sandbox = place.launch(&SandboxSpec { limits, ..SandboxSpec::default() }).await.unwrap();
        let error = sandbox.run(ExecSpec::shell("trap '' TERM; sleep 1000")).await.unwrap_err();
        assert_eq!(error.code, atoll_container_bridge::error::Code::OperationInterrupted);
        tokio::time::timeout(HANG, sandbox.gone()).await.unwrap();
        place.assert_clean();
        assert_eq!(sandbox.stop().await, End::Deadline);
    });
}

#[test]
fn cgroups_are_there_and_go_away() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: an ordinary user here cannot make cgroups");
        return;
    }
    block(async {
        use atoll_container_bridge::backend::SandboxId;
        let place = Place::of(Kind::Native);
        let id = SandboxId::random().unwrap();
        let launched = place.backend().await.launch(&id, &SandboxSpec::default()).await.unwrap();
        assert!(!cgroups(id.as_str()).is_empty());
        launched.instance.stop().await.unwrap();
        assert!(cgroups(id.as_str()).is_empty());
        place.assert_clean();
    });
}

crate::support::for_each_backend! {
    rows,
    no_process_is_the_hosts_root,
    host_loopback_and_abstract_sockets_are_elsewhere,
    bombs_hit_their_bounds_and_the_sandbox_goes_on,
    the_deadline_is_the_inits_own,
}
