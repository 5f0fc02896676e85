//! Where a group is: below the gateway's own for a sandbox to be made, or that of a process that an engine started.
//!
//! ```text
//!  /proc/self/mounts   which hierarchy is mounted where ──┐
//!  /proc/PID/cgroup    the process's group in each ───────┴─▶ a directory per hierarchy
//! ```

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

use super::{Cgroup, v2};

/// Controllers of version 1 that are looked for.
const CONTROLLERS_V1: [&str; 4] = ["memory", "pids", "cpu", "cpuacct"];

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

    /// The group of a container's process, as far as it can be seen from here: for reading only.
    ///
    /// A process number that an engine tells may belong to another namespace, and a group may be outside of what is mounted
    /// here; then a stranger would be read. So the group's path must name the container, and its members must include the process.
    #[must_use]
    pub(crate) fn of_container(pid: u32, container: &str) -> Option<Self> {
        let own = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let found = Self::of_container_in(&fs::read_to_string("/proc/self/mounts").ok()?, &own, container)?;
        let has_it = |dir: &Path| {
            let members = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            members.lines().any(|member| member.parse() == Ok(pid))
        };
        let seen = found.dirs().all(has_it);
        seen.then_some(found)
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

    pub(super) fn locate_in(mounts: &str, own: &str, name: &str, parent: Option<&str>) -> io::Result<Self> {
        let dir = |own: &str| {
            let below = parent.unwrap_or(v2::below(own));
            Path::new(below).join(format!("atoll-{name}"))
        };
        let found = Self::in_hierarchies(mounts, own, dir);
        let has = |name: &str| found.v1.iter().any(|(controller, _)| controller == name);
        if !found.v1.is_empty() && !["memory", "pids", "cpu"].into_iter().all(has) {
            return Err(io::Error::other("cgroup v1 without all of memory, pids and cpu"));
        }
        if found.v1.is_empty() && found.v2.is_none() {
            return Err(io::Error::other("no cgroup hierarchy is mounted"));
        }
        Ok(found)
    }

    fn of_container_in(mounts: &str, own: &str, container: &str) -> Option<Self> {
        let mut found = Self::in_hierarchies(mounts, own, |own| PathBuf::from(own));
        if found.v1.is_empty() {
            return found.v2.as_deref().is_some_and(|dir| names(dir, container)).then_some(found);
        }
        // An engine on version 1 need not use the hierarchy of version 2 that is mounted beside it.
        found.v2 = None;
        found.v1.retain(|(controller, _)| controller == "memory" || controller == "cpuacct");
        let complete = found.v1.len() == 2 && found.v1.iter().all(|(_, dir)| names(dir, container));
        complete.then_some(found)
    }

    /// In each hierarchy that is mounted the directory that `dir` makes of the process's own path there.
    fn in_hierarchies(mounts: &str, own: &str, dir: impl Fn(&str) -> PathBuf) -> Self {
        let in_mount = |mount: &str, own: &str| {
            let below = dir(own);
            Path::new(mount).join(below.strip_prefix("/").unwrap_or(&below))
        };
        let mut found = Self { v2: None, v1: Vec::new() };
        for line in mounts.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            let [_, mount, kind, options, ..] = fields[..] else { continue };
            match kind {
                "cgroup2" if found.v2.is_none() => {
                    found.v2 = own_path(own, "").map(|own| in_mount(mount, own));
                }
                "cgroup" => {
                    for controller in CONTROLLERS_V1 {
                        if options.split(',').any(|option| option == controller)
                            && let Some(own) = own_path(own, controller)
                        {
                            found.v1.push((controller.to_owned(), in_mount(mount, own)));
                        }
                    }
                }
                _ => {}
            }
        }
        found
    }
}

/// The path in a file of lines "9:memory,hugetlb:/path"; version 2, without a controller, is "0::/path".
fn own_path<'a>(own: &'a str, wanted: &str) -> Option<&'a str> {
    own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let hit = if wanted.is_empty() { number == "0" } else { controllers.split(',').any(|c| c == wanted) };
        hit.then_some(path)
    })
}

/// Whether a path has a part with this in its name, and none that leads out of what is mounted.
fn names(dir: &Path, container: &str) -> bool {
    let mut named = false;
    for part in dir.components() {
        match part {
            Component::ParentDir => return false,
            Component::Normal(name) => named |= name.to_string_lossy().contains(container),
            _ => {}
        }
    }
    named
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) const V2: &str = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n";
    pub(crate) const HYBRID: &str = "cgroup /c/memory cgroup rw,memory 0 0\ncgroup /c/cpu cgroup rw,cpu,cpuacct 0 0\n\
                          cgroup /c/pids cgroup rw,pids 0 0\ncgroup2 /c/unified cgroup2 rw 0 0\n";

    fn shown(group: &Cgroup) -> Vec<String> {
        group.dirs().map(|dir| dir.display().to_string()).collect()
    }

    #[test]
    fn version_2_alone() {
        let group = Cgroup::locate_in(V2, "0::/a/b\n", "x", None).unwrap();
        assert_eq!(shown(&group), ["/sys/fs/cgroup/a/b/atoll-x"]);
        // Isolate hosts were bounded first, so the gateway sits in a leaf: sandboxes go beside it, not into it.
        let group = Cgroup::locate_in(V2, "0::/a/b/atoll-77-0\n", "x", None).unwrap();
        assert_eq!(shown(&group), ["/sys/fs/cgroup/a/b/atoll-x"]);
    }

    #[test]
    fn hybrid_uses_version_1_for_limits_and_version_2_for_killing() {
        let own = "3:memory:/m\n2:cpu,cpuacct:/\n1:pids:/p\n0::/\n";
        let group = Cgroup::locate_in(HYBRID, own, "x", None).unwrap();
        assert_eq!(
            shown(&group),
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
        for parent in ["/svc", "svc/"] {
            let group = Cgroup::locate_in(V2, "0::/a/b\n", "x", Some(parent)).unwrap();
            assert_eq!(shown(&group), ["/sys/fs/cgroup/svc/atoll-x"]);
        }
    }

    #[test]
    fn missing_controllers_are_an_error() {
        assert!(
            Cgroup::locate_in("cgroup /c/memory cgroup rw,memory 0 0\n", "3:memory:/\n", "x", None).is_err()
        );
        assert!(Cgroup::locate_in("", "", "x", None).is_err());
    }

    #[test]
    fn a_containers_group_is_where_its_process_is() {
        let of = |mounts, own: &str| {
            Cgroup::of_container_in(mounts, own, "f00d").as_ref().map(shown).unwrap_or_default()
        };
        // Podman and Docker under systemd; Docker with its own groups on version 1.
        for path in ["/machine.slice/libpod-f00d.scope/container", "/system.slice/docker-f00d.scope"] {
            assert_eq!(of(V2, &format!("0::{path}\n")), [format!("/sys/fs/cgroup{path}")]);
        }
        let own = "3:memory:/docker/f00d\n2:cpu,cpuacct:/docker/f00d\n1:pids:/docker/f00d\n0::/elsewhere\n";
        assert_eq!(of(HYBRID, own), ["/c/memory/docker/f00d", "/c/cpu/docker/f00d"]);
        // A stranger's, one outside of what is mounted here, one whose CPU nobody counts, and nothing.
        assert!(of(V2, "0::/docker/beef\n").is_empty());
        assert!(of(V2, "0::/../docker/f00d\n").is_empty());
        assert!(of(HYBRID, "3:memory:/docker/f00d\n2:cpu,cpuacct:/\n").is_empty());
        assert!(of(HYBRID, "3:memory:/docker/f00d\n").is_empty());
        assert!(of(V2, "").is_empty());
    }

    #[test]
    fn a_process_that_is_not_the_containers_is_not_read() {
        assert_eq!(Cgroup::of_container(std::process::id(), "no-such-container"), None);
        assert_eq!(Cgroup::of_container(u32::MAX, "f00d"), None);
    }
}
