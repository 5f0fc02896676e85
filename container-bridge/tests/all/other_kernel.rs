//! The backends on another kernel, whose control groups are of version 2 alone: bounds in force, not only files written.
//!
//! `scripts/uml.sh` runs this very program in User-Mode Linux.

use std::process::Command;

/// What bounds and meters, for each backend.
const BOUNDED: &str = "hostile::BACKEND::bombs_hit_their_bounds_and_the_sandbox_goes_on";
const METERED: &str = "lives::BACKEND::usage_is_measured_when_somebody_asks_and_memory_kills_are_counted";

/// Runs the tests of these names, or parts of them; what was said, if all passed.
fn there(tests: &[&str]) -> Option<String> {
    let installed =
        ["/usr/bin/linux.uml", "/bin/busybox"].iter().all(|file| std::fs::exists(file).unwrap_or(false));
    if !rustix::process::geteuid().is_root() || !installed {
        eprintln!("SKIPPED: another kernel needs root, user-mode-linux and busybox (scripts/setup.sh test)");
        return None;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/uml.sh");
    let mut command = Command::new(script);
    command.arg(std::env::current_exe().unwrap()).args(tests).args([
        "--test-threads=1",
        "--color=never",
        "--show-output",
    ]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    let controllers = said.lines().next().unwrap_or_default();
    assert!(["cpu", "memory", "pids"].iter().all(|name| controllers.contains(name)), "{said}");
    Some(said)
}

fn passed(said: &str, test: &str, backend: &str) {
    let line = format!("{} ... ok", test.replace("BACKEND", backend));
    assert!(said.contains(&line), "{line}\n{said}");
}

#[test]
fn native_sandboxes_hold_where_control_groups_are_of_version_2() {
    let Some(said) = there(&["native::"]) else { return };
    assert!(!said.contains("cannot make cgroups") && !said.contains("may be no cgroup"), "{said}");
    passed(&said, BOUNDED, "native");
    passed(&said, METERED, "native");
}

/// Apart from the others: an engine moves everybody out of the root group, where native sandboxes would have theirs below.
#[test]
fn containers_hold_where_control_groups_are_of_version_2() {
    let tests: Vec<String> = ["docker", "podman"]
        .iter()
        .flat_map(|engine| [BOUNDED, METERED].map(|test| test.replace("BACKEND", engine)))
        .collect();
    let Some(said) = there(&tests.iter().map(String::as_str).collect::<Vec<_>>()) else { return };
    for (engine, kind) in [("docker", "Docker"), ("podman", "Podman")] {
        // A test that is skipped counts as passed: what this machine has must have run there.
        let skipped = said.lines().find(|line| line.starts_with(&format!("SKIPPED on {kind}")));
        assert!(skipped.is_none_or(|line| line.contains("is not installed")), "{said}");
        passed(&said, BOUNDED, engine);
        passed(&said, METERED, engine);
    }
}
