//! One sandbox's control group: bounds on memory, processes and CPU, a way to kill everything, and the meter.
//!
//! Version 2 first. On a hybrid machine (controllers on version 1, an empty version 2 beside them) the limits are set
//! on version 1 and the directory in version 2 serves for `cgroup.kill`, which works without any controller.
//! The few files are written here: the crates for this bring a D-Bus client along. What is written where is a list of [`Step`]s.
//! Reference: the kernel's `admin-guide/cgroup-v2.rst` and `cgroup-v1/`.

mod place;
mod v2;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::limits::Limits;

pub use v2::{hand_on, leaf};

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
        self.steps(limits).iter().try_for_each(Step::run)
    }

    /// All that makes the group, in order.
    fn steps(&self, limits: &Limits) -> Vec<Step<'_>> {
        let pids = (limits.pids + INIT_PIDS).to_string();
        let memory = limits.memory_bytes.to_string();
        let quota_us = u64::from(limits.cpu_millis) * CPU_PERIOD_US / 1000;
        let must = |dir, file, value| Step::Set { dir, file, value, needed: true };
        let may = |dir, file, value| Step::Set { dir, file, value, needed: false };
        let mut steps: Vec<_> = self.dirs().map(Step::Make).collect();
        if let (Some(dir), true) = (&self.v2, self.v1.is_empty()) {
            steps.push(Step::HandOnTo(dir));
            steps.push(must(dir, "memory.max", memory));
            // Not there without swap.
            steps.push(may(dir, "memory.swap.max", "0".to_owned()));
            steps.push(must(dir, "pids.max", pids));
            steps.push(must(dir, "cpu.max", format!("{quota_us} {CPU_PERIOD_US}")));
            return steps;
        }
        for (controller, dir) in &self.v1 {
            match controller.as_str() {
                "memory" => {
                    steps.push(must(dir, "memory.limit_in_bytes", memory.clone()));
                    steps.push(may(dir, "memory.memsw.limit_in_bytes", memory.clone()));
                }
                "pids" => steps.push(must(dir, "pids.max", pids.clone())),
                "cpu" => {
                    steps.push(must(dir, "cpu.cfs_period_us", CPU_PERIOD_US.to_string()));
                    steps.push(must(dir, "cpu.cfs_quota_us", quota_us.to_string()));
                }
                _ => {}
            }
        }
        steps
    }

    /// Makes ready for groups on a machine with version 2 alone: this process leaves the group below which they will be. Elsewhere
    /// there is nothing to do.
    ///
    /// # Errors
    /// If the kernel refuses, or other processes are in the group.
    pub fn prepare(parent: Option<&str>) -> io::Result<()> {
        let group = Self::locate("none", parent)?;
        match (&group.v2, group.v1.is_empty()) {
            (Some(dir), true) => hand_on_to(dir),
            _ => Ok(()),
        }
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
            let memory_bytes = number(dir, "memory.current").unwrap_or(0);
            return Reading {
                cpu_us: entry(dir, "cpu.stat", "usage_usec ").unwrap_or(0),
                memory_bytes,
                // From Linux 5.19 on; before, the largest of what was looked at has to do.
                memory_bytes_peak: number(dir, "memory.peak").unwrap_or(memory_bytes),
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

/// One thing to do for a group.
#[derive(Debug, PartialEq, Eq)]
enum Step<'a> {
    /// Make this directory.
    Make(&'a Path),
    /// Version 2: let the group above hand controllers on to it.
    HandOnTo(&'a Path),
    /// Write a value into a file that is there; without `needed`, only if it is.
    Set { dir: &'a Path, file: &'static str, value: String, needed: bool },
}

impl Step<'_> {
    fn run(&self) -> io::Result<()> {
        match self {
            Self::Make(dir) => fs::create_dir(dir).map_err(|error| explain(dir, &error)),
            Self::HandOnTo(dir) => hand_on_to(dir),
            Self::Set { dir, file, value, needed: true } => write(dir, file, value),
            Self::Set { dir, file, value, needed: false } => write_if_there(dir, file, value),
        }
    }
}

/// Version 2 hands controllers down one level at a time.
fn hand_on_to(dir: &Path) -> io::Result<()> {
    let Some(parent) = dir.parent() else { return Ok(()) };
    hand_on(parent, std::process::id(), &v2::CONTROLLERS).map_err(|error| {
        let advice = "give the bridge a delegated cgroup without other processes";
        io::Error::new(error.kind(), format!("{}: {error}; {advice}", parent.display()))
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
    use super::{
        place::tests::{HYBRID, V2},
        *,
    };

    const LIMITS: Limits = Limits {
        memory_bytes: 64 * crate::limits::MIB,
        cpu_millis: 250,
        pids: 100,
        disk_bytes: crate::limits::MIB,
        open_files: 64,
        lifetime_ms: 1,
    };

    #[test]
    fn what_is_written_where() {
        let told = |group: &Cgroup| -> Vec<String> {
            let told = |step: &Step<'_>| match step {
                Step::Make(dir) => format!("mkdir {}", dir.display()),
                Step::HandOnTo(dir) => format!("hand on to {}", dir.display()),
                Step::Set { dir, file, value, needed } => {
                    format!("{}{} = {value}", dir.join(file).display(), if *needed { "" } else { "?" })
                }
            };
            group.steps(&LIMITS).iter().map(told).collect()
        };
        let dir = "/sys/fs/cgroup/a/atoll-x";
        assert_eq!(
            told(&Cgroup::locate_in(V2, "0::/a\n", "x", None).unwrap()),
            [
                format!("mkdir {dir}"),
                format!("hand on to {dir}"),
                format!("{dir}/memory.max = 67108864"),
                format!("{dir}/memory.swap.max? = 0"),
                format!("{dir}/pids.max = 124"),
                format!("{dir}/cpu.max = 25000 100000"),
            ]
        );
        let own = "3:memory:/m\n2:cpu,cpuacct:/\n1:pids:/p\n0::/\n";
        assert_eq!(
            told(&Cgroup::locate_in(HYBRID, own, "x", None).unwrap())[5..],
            [
                "/c/memory/m/atoll-x/memory.limit_in_bytes = 67108864",
                "/c/memory/m/atoll-x/memory.memsw.limit_in_bytes? = 67108864",
                "/c/cpu/atoll-x/cpu.cfs_period_us = 100000",
                "/c/cpu/atoll-x/cpu.cfs_quota_us = 25000",
                "/c/pids/p/atoll-x/pids.max = 124",
            ]
        );
    }

    /// Files as the kernel has them, in an ordinary directory: it shows that values get there, not that the kernel keeps to them.
    #[test]
    fn version_2_limits_and_meters_are_files() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("atoll-x");
        fs::create_dir(&dir).unwrap();
        fs::write(folder.path().join("cgroup.subtree_control"), "cpuset cpu io memory pids\n").unwrap();
        let group = Cgroup { v2: Some(dir.clone()), v1: vec![] };
        let set = || group.steps(&LIMITS).iter().skip(1).try_for_each(Step::run);
        // A controller that is not there must not pass for a limit.
        let error = set().unwrap_err().to_string();
        assert!(error.contains("memory.max"), "{error}");
        for file in ["memory.max", "pids.max", "cpu.max", "cgroup.procs"] {
            fs::write(dir.join(file), "").unwrap();
        }
        set().unwrap();
        group.add(7).unwrap();
        let text = |file: &str| fs::read_to_string(dir.join(file)).unwrap();
        assert_eq!((text("memory.max"), text("pids.max")), ("67108864".into(), "124".into()));
        assert_eq!((text("cpu.max"), text("cgroup.procs")), ("25000 100000".into(), "7".into()));
        assert!(!dir.join("memory.swap.max").exists(), "no file is ever made");
        fs::write(dir.join("cpu.stat"), "usage_usec 1500\nuser_usec 1000\n").unwrap();
        fs::write(dir.join("memory.current"), "4096\n").unwrap();
        fs::write(dir.join("memory.events"), "low 0\noom 3\noom_kill 2\n").unwrap();
        let read = Reading { cpu_us: 1500, memory_bytes: 4096, memory_bytes_peak: 4096, oom_kills: 2 };
        assert_eq!(group.read(), read);
        fs::write(dir.join("memory.peak"), "8192\n").unwrap();
        assert_eq!(group.read(), Reading { memory_bytes_peak: 8192, ..read });
    }
}
