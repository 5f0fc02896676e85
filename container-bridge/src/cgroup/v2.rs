//! Version 2: where groups can be made, and how controllers get there.
//!
//! ```text
//!  OWN                 the gateway's group at its start: hands controllers on, so it may have no members
//!  OWN/atoll-PID-0     the gateway, moved there once, by whoever needs groups first
//!  OWN/atoll-PID-1, …  isolate hosts
//!  OWN/atoll-SANDBOX   one per sandbox
//! ```
//!
//! A group that hands controllers on can have no members of its own (the kernel's `admin-guide/cgroup-v2.rst`, "No Internal Process
//! Constraint"), so a gateway that stays where it was started could bound nothing below.

use std::{fs, io, path::Path};

/// What sandboxes are bounded by.
pub(super) const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];

/// Name of the group into which the process of this number moves itself.
#[must_use]
pub fn leaf(pid: u32) -> String {
    format!("atoll-{pid}-0")
}

/// The group below which groups are made: that of the process, or the one above if the process has moved.
pub(super) fn below(own: &str) -> &str {
    let moved = |name: &str| {
        let pid = name.strip_prefix("atoll-").and_then(|rest| rest.strip_suffix("-0"));
        pid.is_some_and(|pid| pid.parse::<u32>().is_ok())
    };
    match own.rsplit_once('/') {
        Some((above, name)) if moved(name) => above,
        _ => own,
    }
}

/// Lets groups below this one have limits. If the process is in the way, it moves into a group below; that is done only if it is
/// the only member: others are not ours to move.
///
/// # Errors
/// If the kernel refuses, or others are in the way. Then nothing has changed.
pub fn hand_on(own: &Path, pid: u32, controllers: &[&str]) -> io::Result<()> {
    let control = own.join("cgroup.subtree_control");
    let have = fs::read_to_string(&control)?;
    if controllers.iter().all(|wanted| have.split_whitespace().any(|name| name == *wanted)) {
        return Ok(());
    }
    let all = controllers.iter().map(|name| format!("+{name}")).collect::<Vec<_>>().join(" ");
    // The hierarchy's root may have both members and limits below it, and whoever moved before left no member.
    let Err(refused) = fs::write(&control, &all) else { return Ok(()) };
    let members = fs::read_to_string(own.join("cgroup.procs"))?;
    if members.trim().is_empty() {
        return Err(refused);
    }
    if members.split_whitespace().any(|member| member != pid.to_string()) {
        return Err(io::Error::other("this process shares its cgroup with others"));
    }
    let leaf = own.join(leaf(pid));
    fs::create_dir(&leaf)?;
    let moved =
        fs::write(leaf.join("cgroup.procs"), pid.to_string()).and_then(|()| fs::write(&control, &all));
    if moved.is_err() {
        let _back = fs::write(own.join("cgroup.procs"), pid.to_string());
        let _gone = fs::remove_dir(&leaf);
    }
    moved
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    #[test]
    fn a_process_that_moved_makes_groups_beside_itself() {
        for (own, expected) in [
            ("/", "/"),
            ("/system.slice/atoll.service", "/system.slice/atoll.service"),
            ("/system.slice/atoll.service/atoll-7-0", "/system.slice/atoll.service"),
            ("/atoll-7-0", ""),
            ("/a/atoll-7-1", "/a/atoll-7-1"),
            ("/a/atoll-x-0", "/a/atoll-x-0"),
            ("/a/atoll-7-0/b", "/a/atoll-7-0/b"),
        ] {
            assert_eq!(below(own), expected, "{own}");
        }
    }

    /// A group of a real hierarchy with a controller that can be handed on, and processes in it; removed with it.
    struct Real {
        group: std::path::PathBuf,
        controller: String,
        members: Vec<Child>,
    }

    impl Real {
        fn new(name: &str) -> Option<Self> {
            let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
            let mount = mounts.lines().find_map(|line| {
                let mut fields = line.split(' ').skip(1);
                let (mount, kind) = (fields.next()?, fields.next()?);
                (kind == "cgroup2").then(|| mount.to_owned())
            })?;
            let group = Path::new(&mount).join(format!("atoll-test-{}-{name}", std::process::id()));
            fs::create_dir(&group).ok()?;
            let mut real = Self { group, controller: String::new(), members: vec![] };
            let controllers = fs::read_to_string(real.group.join("cgroup.controllers")).ok()?;
            real.controller = controllers.split_whitespace().next()?.to_owned();
            Some(real)
        }

        fn join(&mut self) -> u32 {
            let child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
            fs::write(self.group.join("cgroup.procs"), child.id().to_string()).unwrap();
            let pid = child.id();
            self.members.push(child);
            pid
        }
    }

    impl Drop for Real {
        fn drop(&mut self) {
            for mut child in self.members.drain(..) {
                let pid = child.id();
                let _ended = child.kill().and_then(|()| child.wait());
                let _gone = fs::remove_dir(self.group.join(leaf(pid)));
            }
            let _gone = fs::remove_dir(&self.group);
        }
    }

    /// The kernel's own rules. Skipped where no controller is handed on by the root of version 2.
    #[test]
    fn the_kernel_lets_a_process_hand_controllers_on_by_moving() {
        let (Some(mut alone), Some(mut shared)) = (Real::new("alone"), Real::new("shared")) else {
            eprintln!("SKIPPED: no controller of cgroup version 2 can be handed on here");
            return;
        };
        let pid = alone.join();
        let controllers = [&*alone.controller.clone()];
        let control = alone.group.join("cgroup.subtree_control");
        assert!(fs::write(&control, format!("+{}", controllers[0])).is_err(), "a member is in the way");
        hand_on(&alone.group, pid, &controllers).unwrap();
        assert_eq!(fs::read_to_string(&control).unwrap().trim(), controllers[0]);
        let own = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap();
        assert!(own.ends_with(&leaf(pid)) && !below(own).ends_with(&leaf(pid)), "{own}");
        hand_on(&alone.group, pid, &controllers).unwrap();
        // With others in the group nothing is moved, and nothing is left.
        let (first, _second) = (shared.join(), shared.join());
        hand_on(&shared.group, first, &controllers).unwrap_err();
        assert!(!shared.group.join(leaf(first)).exists());
    }
}
