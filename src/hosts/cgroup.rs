//! A cgroup of its own for each isolate host: the kernel's bound on its memory and its threads.
//!
//! ```text
//!  v2   OWN/atoll-PID-0           this process, moved there: a group with members cannot hand controllers on
//!       OWN/atoll-PID-1, -2, …    one host each
//!  v1   MEMORY/OWN/atoll-PID-1 and PIDS/OWN/atoll-PID-1
//! ```
//!
//! The resident-memory watch inside the host acts first, and names the tenant; this is the line behind it, which also holds when
//! the host's own code does not. Where the system lets nobody make groups, there is only the watch.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use atoll_container_bridge::cgroup::hand_on;

/// What hosts are bounded by.
const CONTROLLERS: [&str; 2] = ["memory", "pids"];
/// Threads that one host may have: more than its isolates and their helpers ever are.
const TASKS_MAX: u64 = 32_768;
/// The kernel's bound on memory, in percent of what the host's own watch allows: the watch ends the process at 110.
const MEMORY_PERCENT: u64 = 125;
/// How often the removal of a group is tried: its last thread may be a moment behind the end of its process.
const REMOVE_TRIES: u32 = 50;
/// Time between two tries, in milliseconds.
const REMOVE_PAUSE_MS: u64 = 20;

/// Where groups can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Groups {
    /// The unified hierarchy: this process's own group.
    V2(PathBuf),
    /// One hierarchy per controller: this process's groups in `memory` and `pids`.
    V1 { memory: PathBuf, pids: PathBuf },
}

impl Groups {
    /// Finds where this process may make groups, and prepares it.
    pub(super) fn find() -> io::Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let unsupported =
            || io::Error::new(io::ErrorKind::Unsupported, "no controllers for memory and pids are mounted");
        let groups = Self::locate(&mounts, &own).ok_or_else(unsupported)?;
        if let Self::V2(own) = &groups {
            hand_on(own, std::process::id(), &CONTROLLERS)?;
        }
        groups.sweep();
        Ok(groups)
    }

    /// Pure but for looking which controllers a v2 group has.
    fn locate(mounts: &str, own: &str) -> Option<Self> {
        let v2 = mounts.lines().find_map(|line| mount_of(line, |kind, _| kind == "cgroup2"));
        if let (Some(mount), Some(path)) = (v2, own.lines().find_map(|line| line.strip_prefix("0::")))
            && let group = mount.group(path)
            && fs::read_to_string(group.join("cgroup.controllers")).is_ok_and(|text| has_controllers(&text))
        {
            return Some(Self::V2(group));
        }
        let v1 = |controller: &str| {
            let has = |list: &str| list.split(',').any(|name| name == controller);
            let mount = mounts
                .lines()
                .find_map(|line| mount_of(line, |kind, options| kind == "cgroup" && has(options)))?;
            let path = own.lines().find_map(|line| {
                let (names, path) = line.split_once(':')?.1.split_once(':')?;
                has(names).then_some(path)
            })?;
            Some(mount.group(path))
        };
        Some(Self::V1 { memory: v1("memory")?, pids: v1("pids")? })
    }

    fn parents(&self) -> Vec<&Path> {
        match self {
            Self::V2(own) => vec![own],
            Self::V1 { memory, pids } => vec![memory, pids],
        }
    }

    /// Removes what a gateway that was killed left behind. A group with members cannot be removed.
    fn sweep(&self) {
        for parent in self.parents() {
            for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
                if owner(&entry.file_name().to_string_lossy())
                    .is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
                {
                    let _busy = fs::remove_dir(entry.path());
                }
            }
        }
    }

    /// Makes a group for the host of this number.
    pub(super) fn make(&self, number: u64, resident_bytes_max: Option<u64>) -> io::Result<Group> {
        let name = format!("atoll-{}-{number}", std::process::id());
        let mut group = Group { folders: Vec::new() };
        for parent in self.parents() {
            let folder = parent.join(&name);
            fs::create_dir(&folder)?;
            group.folders.push(folder);
        }
        let memory_bytes_max = resident_bytes_max.map(|bytes| bytes / 100 * MEMORY_PERCENT);
        match self {
            Self::V2(_) => group.limit_v2(memory_bytes_max)?,
            Self::V1 { .. } => group.limit_v1(memory_bytes_max)?,
        }
        Ok(group)
    }
}

/// The process in whose name a group was made.
fn owner(name: &str) -> Option<u32> {
    let (pid, number) = name.strip_prefix("atoll-")?.split_once('-')?;
    number.parse::<u64>().ok()?;
    pid.parse().ok()
}

fn has_controllers(list: &str) -> bool {
    CONTROLLERS.iter().all(|wanted| list.split_whitespace().any(|name| name == *wanted))
}

/// A mounted hierarchy.
struct Mount<'a> {
    root: &'a str,
    point: &'a str,
}

impl Mount<'_> {
    /// The folder of a group, given its path as `/proc/self/cgroup` has it. In a container the mount may show only a part of the
    /// hierarchy: a path outside of it is taken for the mount's own group.
    fn group(&self, path: &str) -> PathBuf {
        let inside = path.strip_prefix(self.root.trim_end_matches('/')).unwrap_or("");
        Path::new(self.point).join(inside.trim_start_matches('/'))
    }
}

/// A line of `mountinfo` (proc_pid_mountinfo(5)), if its type and super options are wanted.
fn mount_of(line: &str, wanted: impl Fn(&str, &str) -> bool) -> Option<Mount<'_>> {
    let (front, back) = line.split_once(" - ")?;
    let mut back = back.split(' ');
    let (kind, options) = (back.next()?, back.nth(1)?);
    let mut front = front.split(' ');
    let (root, point) = (front.nth(3)?, front.next()?);
    wanted(kind, options).then_some(Mount { root, point })
}

/// One host's group; removed on drop, once the host is gone.
#[derive(Debug)]
pub(super) struct Group {
    folders: Vec<PathBuf>,
}

impl Group {
    fn limit_v2(&self, memory_bytes_max: Option<u64>) -> io::Result<()> {
        if let Some(bytes) = memory_bytes_max {
            self.write("memory.max", bytes)?;
            self.write("memory.oom.group", 1)?;
            // Not there without swap.
            let _none = self.write("memory.swap.max", 0);
        }
        self.write("pids.max", TASKS_MAX)
    }

    fn limit_v1(&self, memory_bytes_max: Option<u64>) -> io::Result<()> {
        if let Some(bytes) = memory_bytes_max {
            self.write("memory.limit_in_bytes", bytes)?;
            // Memory and swap together; not there where swap is not counted.
            let _none = self.write("memory.memsw.limit_in_bytes", bytes);
        }
        self.write("pids.max", TASKS_MAX)
    }

    /// Writes to the folder that has this file. Opened without creating, so that a missing controller is an error.
    fn write(&self, file: &str, value: u64) -> io::Result<()> {
        let path = self.folders.iter().map(|folder| folder.join(file)).find(|path| path.exists());
        let path =
            path.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("there is no {file}")))?;
        fs::write(path, value.to_string())
    }

    /// Puts a process in.
    pub(super) fn add(&self, pid: u32) -> io::Result<()> {
        self.folders.iter().try_for_each(|folder| fs::write(folder.join("cgroup.procs"), pid.to_string()))
    }

    fn remove(&mut self) {
        self.folders.retain(|folder| match fs::remove_dir(folder) {
            Ok(()) => false,
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        });
    }

    /// Removes the group of a host that ended.
    pub(super) async fn ended(mut self) {
        for _ in 0..REMOVE_TRIES {
            self.remove();
            if self.folders.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(REMOVE_PAUSE_MS)).await;
        }
        tracing::warn!(folders = ?self.folders, "the cgroup of an isolate host that ended cannot be removed");
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.remove();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
        30 23 0:26 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
        31 23 0:27 / /sys/fs/cgroup/pids rw,relatime shared:9 - cgroup cgroup rw,pids\n\
        32 23 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn a_hybrid_system_is_used_through_its_v1_controllers() {
        let own = "9:pids:/a\n5:cpu,memory:/b/c\n0::/nowhere\n";
        let found = Groups::locate(HYBRID, own).expect("found");
        let memory = "/sys/fs/cgroup/memory/b/c".into();
        assert_eq!(found, Groups::V1 { memory, pids: "/sys/fs/cgroup/pids/a".into() });
        assert_eq!(Groups::locate(HYBRID, "0::/\n"), None);
        assert_eq!(Groups::locate("", own), None);
    }

    #[test]
    fn a_unified_system_is_used_where_its_controllers_are() {
        let folder = tempfile::tempdir().expect("a folder");
        let point = folder.path().to_str().expect("UTF-8");
        let mounts = format!("32 23 0:28 /kubepods/x {point} rw - cgroup2 cgroup2 rw\n");
        let own = "0::/kubepods/x/y\n";
        assert_eq!(Groups::locate(&mounts, own), None, "no controllers");
        let group = folder.path().join("y");
        fs::create_dir(&group).expect("a group");
        fs::write(group.join("cgroup.controllers"), "cpuset cpu io memory pids\n").expect("a file");
        assert_eq!(Groups::locate(&mounts, own), Some(Groups::V2(group)));
    }

    #[test]
    fn only_groups_of_gateways_that_are_gone_are_swept() {
        let folder = tempfile::tempdir().expect("a folder");
        let alive = format!("atoll-{}-1", std::process::id());
        for name in [alive.as_str(), "atoll-4194999-7", "atoll-x-1", "other"] {
            fs::create_dir(folder.path().join(name)).expect("a group");
        }
        Groups::V2(folder.path().into()).sweep();
        assert!(folder.path().join(alive).exists() && folder.path().join("atoll-x-1").exists());
        assert!(folder.path().join("other").exists());
        assert!(!folder.path().join("atoll-4194999-7").exists(), "no process has so large a number");
    }
}
