//! Namespaces without a network and without files.
//!
//! A process with `CAP_SYS_ADMIN` makes them at once; any other makes a user namespace first, in which it has the capability, where
//! the system lets users do that.

use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::process;
use rustix::thread::UnshareFlags;

use super::{Refused, Step as _};

/// The id that the process has in a user namespace of its own: nobody.
pub(super) const NOBODY: u32 = 65_534;

/// Folders of which one exists on every system; an empty file system is mounted there and becomes the root.
const FOLDERS: [&str; 3] = ["/tmp", "/proc", "/usr"];

/// Leaves the network, the mounts, System V IPC and the host's name behind.
pub(super) fn leave() -> Result<(), Refused> {
    let flags = UnshareFlags::NEWNET | UnshareFlags::NEWNS | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    match unshare(flags) {
        Err(Errno::PERM) => {
            let user = process::geteuid().as_raw();
            let group = process::getegid().as_raw();
            unshare(flags | UnshareFlags::NEWUSER).step("unshare")?;
            name_user(user, group);
            Ok(())
        }
        other => other.step("unshare"),
    }
}

fn unshare(flags: UnshareFlags) -> Result<(), Errno> {
    // SAFETY: the one danger of this call are descriptors that threads no longer share. `FILES` is not among the flags, and the
    // process has one thread.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

/// Gives the process a user and a group in its namespace. Without, it is the overflow user, which is as good: an error is none.
fn name_user(user: u32, group: u32) {
    let _denied = std::fs::write("/proc/self/setgroups", "deny");
    let _denied = std::fs::write("/proc/self/uid_map", format!("{NOBODY} {user} 1"));
    let _denied = std::fs::write("/proc/self/gid_map", format!("{NOBODY} {group} 1"));
}

/// Makes an empty, read-only file system the root of this process.
pub(super) fn empty_root() -> Result<(), Refused> {
    // Refused where `leave` was: the mounts are still everybody's, and stay as they are.
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).step("making mounts private")?;
    let folder = FOLDERS.into_iter().find(|folder| std::path::Path::new(folder).is_dir()).unwrap_or("/");
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let limits = c"size=4k,nr_inodes=1,mode=000";
    rustix::mount::mount("atoll", folder, "tmpfs", flags, limits).step("mounting an empty file system")?;
    process::chdir(folder).step("entering it")?;
    // The old root is stacked on the new one, and then taken away.
    process::pivot_root(".", ".").step("making it the root")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).step("leaving the old root")?;
    process::chdir("/").step("entering the new root")
}
