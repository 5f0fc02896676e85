//! One sandbox's control group: bounds on memory, processes and CPU, a way to kill everything, and the meter.
//!
//! Version 2 first. On a hybrid machine (controllers on version 1, an empty version 2 beside them) the limits are set
//! on version 1 and the directory in version 2 serves for `cgroup.kill`, which works without any controller.
//! The few files are written here: the crates for this bring a D-Bus client along.
//! Reference: the kernel's `admin-guide/cgroup-v2.rst` and `cgroup-v1/`.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::limits::Limits;

/// Processes that the init itself needs beside the workload's.
pub(crate) const INIT_PIDS: u32 = 24;
/// The period over which CPU quota is counted, in microseconds.
const CPU_PERIOD_US: u64 = 100_000;
/// How often a directory is tried to be removed; its processes may still be on their way out.
const REMOVE_TRIES_MAX: u32 = 200;

/// Directories of one sandbox's control group; nothing exists until [`create`](Self::create).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    /// Version 2 directory: with controllers if `v1` is empty, else only for killing.
    v2: Option<PathBuf>,
    /// Version 1 directories by controller.
    v1: Vec<(String, PathBuf)>,
}

/// What a sandbox has used, as the kernel counted it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// CPU time of all its processes, in microseconds.
    pub cpu_us: u64,
    /// Memory it holds now, in bytes.
    pub memory_bytes: u64,
    /// Most memory it held at once, in bytes.
    pub memory_bytes_peak: u64,
    /// Processes that the kernel ended because the memory was used up.
    pub oom_kills: u64,
}

impl Cgroup {
    /// Where a group of this name would be: under `parent`, or under the group of the calling process.
    ///
    /// # Errors
    /// If a controller that limits need is not mounted.
    pub fn locate(name: &str, parent: Option<&str>) -> io::Result<Self> {
        Self::locate_in(
            &fs::read_to_string("/proc/self/mounts")?,
            &fs::read_to_string("/proc/self/cgroup")?,
            name,
            parent,
        )
    }

    /// The calling process's own group, if its container sees it: at the root of what is mounted.
    #[must_use]
    pub(crate) fn own() -> Option<Self> {
        let root = Path::new("/sys/fs/cgroup");
        if root.join("cpu.stat").exists() {
            return Some(Self { v2: Some(root.to_owned()), v1: Vec::new() });
        }
        let dir = |name: &str| (name.to_owned(), root.join(name));
        let v1 = vec![dir("memory"), dir("cpuacct")];
        v1.iter().all(|(_, dir)| dir.join("cgroup.procs").exists()).then_some(Self { v2: None, v1 })
    }

    fn locate_in(mounts: &str, own: &str, name: &str, parent: Option<&str>) -> io::Result<Self> {
        let dir = |mount: &str, own: &str| {
            let below = parent.unwrap_or(own).trim_matches('/');
            Path::new(mount).join(below).join(format!("atoll-{name}"))
        };
        // Lines "9:memory,hugetlb:/path"; version 2 is "0::/path".
        let own_path = |wanted: &str| {
            own.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':');
                let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
                let hit = if wanted.is_empty() {
                    number == "0"
                } else {
                    controllers.split(',').any(|c| c == wanted)
                };
                hit.then_some(path)
            })
        };
        let mut v2 = None;
        let mut v1 = Vec::new();
        for line in mounts.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            let [_, mount, kind, options, ..] = fields[..] else { continue };
            match kind {
                "cgroup2" if v2.is_none() => v2 = own_path("").map(|own| dir(mount, own)),
                "cgroup" => {
                    for controller in ["memory", "pids", "cpu", "cpuacct"] {
                        if options.split(',').any(|option| option == controller)
                            && let Some(own) = own_path(controller)
                        {
                            v1.push((controller.to_owned(), dir(mount, own)));
                        }
                    }
                }
                _ => {}
            }
        }
        let has = |name: &str| v1.iter().any(|(controller, _)| controller == name);
        if !v1.is_empty() && !["memory", "pids", "cpu"].into_iter().all(has) {
            return Err(io::Error::other("cgroup v1 without all of memory, pids and cpu"));
        }
        if v1.is_empty() && v2.is_none() {
            return Err(io::Error::other("no cgroup hierarchy is mounted"));
        }
        Ok(Self { v2, v1 })
    }

    /// Makes the directories and sets the limits.
    ///
    /// # Errors
    /// If any limit cannot be set; what was made is removed again.
    pub fn create(&self, limits: &Limits) -> io::Result<()> {
        let made = self.create_all(limits);
        if made.is_err() {
            self.remove();
        }
        made
    }

    fn create_all(&self, limits: &Limits) -> io::Result<()> {
        for dir in self.dirs() {
            fs::create_dir(dir).map_err(|error| explain(dir, &error))?;
        }
        let pids = (limits.pids + INIT_PIDS).to_string();
        let memory = limits.memory_bytes.to_string();
        let quota_us = u64::from(limits.cpu_millis) * CPU_PERIOD_US / 1000;
        if self.v1.is_empty() {
            let Some(dir) = &self.v2 else { return Err(io::Error::other("no cgroup")) };
            enable_controllers(dir)?;
            write(dir, "memory.max", &memory)?;
            write_if_there(dir, "memory.swap.max", "0")?;
            write(dir, "pids.max", &pids)?;
            return write(dir, "cpu.max", &format!("{quota_us} {CPU_PERIOD_US}"));
        }
        for (controller, dir) in &self.v1 {
            match controller.as_str() {
                "memory" => {
                    write(dir, "memory.limit_in_bytes", &memory)?;
                    write_if_there(dir, "memory.memsw.limit_in_bytes", &memory)?;
                }
                "pids" => write(dir, "pids.max", &pids)?,
                "cpu" => {
                    write(dir, "cpu.cfs_period_us", &CPU_PERIOD_US.to_string())?;
                    write(dir, "cpu.cfs_quota_us", &quota_us.to_string())?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Puts a process (and all its future children) into the group.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn add(&self, pid: i32) -> io::Result<()> {
        for dir in self.dirs() {
            write(dir, "cgroup.procs", &pid.to_string())?;
        }
        Ok(())
    }

    /// Kills everything in the group, as far as it can be found.
    pub fn kill(&self) {
        if let Some(dir) = &self.v2
            && fs::write(dir.join("cgroup.kill"), "1").is_ok()
        {
            return;
        }
        for dir in self.dirs() {
            let Ok(pids) = fs::read_to_string(dir.join("cgroup.procs")) else { continue };
            for pid in
                pids.lines().filter_map(|line| line.parse().ok()).filter_map(rustix::process::Pid::from_raw)
            {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }

    /// Removes the directories; waits a little for processes that are just ending. Says whether all are gone.
    pub fn remove(&self) -> bool {
        let mut gone = true;
        for dir in self.dirs() {
            let mut tries = 0;
            while let Err(error) = fs::remove_dir(dir) {
                if error.kind() == io::ErrorKind::NotFound {
                    break;
                }
                tries += 1;
                if tries > REMOVE_TRIES_MAX {
                    gone = false;
                    break;
                }
                std::thread::sleep(Duration::from_millis(if tries < 20 { 1 } else { 20 }));
            }
        }
        gone
    }

    /// What the group has used; zeros for what cannot be read.
    #[must_use]
    pub fn read(&self) -> Reading {
        let number = |dir: &Path, file: &str| -> Option<u64> {
            fs::read_to_string(dir.join(file)).ok()?.trim().parse().ok()
        };
        // A line "name number" of a file with several.
        let entry = |dir: &Path, file: &str, name: &str| -> Option<u64> {
            let text = fs::read_to_string(dir.join(file)).ok()?;
            text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
        };
        if self.v1.is_empty() {
            let Some(dir) = &self.v2 else { return Reading::default() };
            return Reading {
                cpu_us: entry(dir, "cpu.stat", "usage_usec ").unwrap_or(0),
                memory_bytes: number(dir, "memory.current").unwrap_or(0),
                memory_bytes_peak: number(dir, "memory.peak").unwrap_or(0),
                oom_kills: entry(dir, "memory.events", "oom_kill ").unwrap_or(0),
            };
        }
        let dir = |controller: &str| self.v1.iter().find(|(name, _)| name == controller).map(|(_, dir)| dir);
        let v1 = |controller: &str, file: &str| number(dir(controller)?, file);
        let oom_kills = dir("memory").and_then(|dir| entry(dir, "memory.oom_control", "oom_kill "));
        Reading {
            cpu_us: v1("cpuacct", "cpuacct.usage").unwrap_or(0) / 1000,
            memory_bytes: v1("memory", "memory.usage_in_bytes").unwrap_or(0),
            memory_bytes_peak: v1("memory", "memory.max_usage_in_bytes").unwrap_or(0),
            oom_kills: oom_kills.unwrap_or(0),
        }
    }

    /// All directories of the group.
    pub fn dirs(&self) -> impl Iterator<Item = &Path> {
        self.v2.iter().map(PathBuf::as_path).chain(self.v1.iter().map(|(_, dir)| dir.as_path()))
    }
}

/// Version 2 hands controllers down one level at a time. A group that has both processes and controllers for its
/// children is not allowed, so the gateway must sit in a leaf of its own: the error says how.
fn enable_controllers(dir: &Path) -> io::Result<()> {
    let Some(parent) = dir.parent() else { return Ok(()) };
    let have = fs::read_to_string(parent.join("cgroup.subtree_control")).unwrap_or_default();
    if ["memory", "pids", "cpu"].iter().all(|wanted| have.split_whitespace().any(|c| c == *wanted)) {
        return Ok(());
    }
    write(parent, "cgroup.subtree_control", "+memory +pids +cpu").map_err(|error| {
        io::Error::new(
            error.kind(),
            format!(
                "{error}; give the bridge a delegated cgroup without processes of its own (cgroup_parent)"
            ),
        )
    })
}

fn explain(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn write(dir: &Path, file: &str, value: &str) -> io::Result<()> {
    let path = dir.join(file);
    // Never create: a missing file means a missing controller, and must not pass for a limit.
    let result = fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()));
    result.map_err(|error| explain(&path, &error))
}

fn write_if_there(dir: &Path, file: &str, value: &str) -> io::Result<()> {
    if dir.join(file).exists() { write(dir, file, value) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n";
    const HYBRID: &str = "cgroup /c/memory cgroup rw,memory 0 0\ncgroup /c/cpu cgroup rw,cpu,cpuacct 0 0\n\
                          cgroup /c/pids cgroup rw,pids 0 0\ncgroup2 /c/unified cgroup2 rw 0 0\n";

    #[test]
    fn version_2_alone() {
        let group = Cgroup::locate_in(V2, "0::/a/b\n", "x", None).unwrap();
        assert_eq!(group.dirs().collect::<Vec<_>>(), [Path::new("/sys/fs/cgroup/a/b/atoll-x")]);
    }

    #[test]
    fn hybrid_uses_version_1_for_limits_and_version_2_for_killing() {
        let own = "3:memory:/m\n2:cpu,cpuacct:/\n1:pids:/p\n0::/\n";
        let group = Cgroup::locate_in(HYBRID, own, "x", None).unwrap();
        let dirs: Vec<_> = group.dirs().map(|dir| dir.display().to_string()).collect();
        assert_eq!(
            dirs,
            [
                "/c/unified/atoll-x",
                "/c/memory/m/atoll-x",
                "/c/cpu/atoll-x",
                "/c/cpu/atoll-x",
                "/c/pids/p/atoll-x"
            ]
        );
    }

    #[test]
    fn a_parent_replaces_the_own_group() {
        let group = Cgroup::locate_in(V2, "0::/a/b\n", "x", Some("/svc")).unwrap();
        assert_eq!(group.dirs().collect::<Vec<_>>(), [Path::new("/sys/fs/cgroup/svc/atoll-x")]);
    }

    #[test]
    fn missing_controllers_are_an_error() {
        assert!(
            Cgroup::locate_in("cgroup /c/memory cgroup rw,memory 0 0\n", "3:memory:/\n", "x", None).is_err()
        );
        assert!(Cgroup::locate_in("", "", "x", None).is_err());
    }
}
