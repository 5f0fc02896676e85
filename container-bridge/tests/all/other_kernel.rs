//! The native backend on another kernel, whose control groups are of version 2 alone: bounds in force, not only files written.
//!
//! `scripts/uml.sh` runs this very program in User-Mode Linux.

use std::process::Command;

#[test]
fn native_sandboxes_hold_where_control_groups_are_of_version_2() {
    let installed =
        ["/usr/bin/linux.uml", "/bin/busybox"].iter().all(|file| std::fs::exists(file).unwrap_or(false));
    if !rustix::process::geteuid().is_root() || !installed {
        eprintln!("SKIPPED: another kernel needs root, user-mode-linux and busybox (scripts/setup.sh test)");
        return;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/uml.sh");
    let program = std::env::current_exe().unwrap();
    let output = Command::new(script)
        .arg(program)
        .args(["native::", "--test-threads=1", "--color=never"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{errors}");
    let controllers = said.lines().next().unwrap_or_default();
    assert!(["cpu", "memory", "pids"].iter().all(|name| controllers.contains(name)), "{said}");
    assert!(said.contains("bombs_hit_their_bounds_and_the_sandbox_goes_on ... ok"), "{said}");
    assert!(!said.contains("SKIPPED"), "{said}");
}
