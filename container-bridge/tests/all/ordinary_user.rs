//! All of these tests again, as an ordinary user, when they run as root.

use std::process::Command;

/// The user without rights.
const NOBODY: &str = "65534";

#[test]
fn everything_works_as_an_ordinary_user() {
    if !rustix::process::geteuid().is_root() {
        return; // this run is it
    }
    let program = std::env::current_exe().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    std::fs::set_permissions(scratch.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let as_nobody = |args: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]).arg(&program).args(args);
        command.env("TMPDIR", scratch.path()).current_dir("/");
        command.output()
    };
    match as_nobody(&["--list"]) {
        Ok(output) if output.status.success() => {}
        other => {
            eprintln!("SKIPPED: an ordinary user cannot run {}: {other:?}", program.display());
            return;
        }
    }
    let output = as_nobody(&["--test-threads=2"]).unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("test result: ok."), "{text}");
}
