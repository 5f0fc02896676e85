//! User, capabilities and resource limits.

use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Gid, Resource, Rlimit, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};
use rustix::{process, thread};

use super::namespaces::NOBODY;
use super::{Refused, Step as _};

/// Descriptors that the process may have: the socket, its copy, both outputs, what tokio polls with, and room to spare.
const DESCRIPTORS_MAX: u64 = 32;

/// Capabilities that a kernel can have at most.
const CAPABILITIES_MAX: u32 = 64;

/// Gives up every capability for good, and the user `root` with them.
pub(super) fn drop_all() -> Result<(), Refused> {
    thread::set_no_new_privs(true).step("no_new_privs")?;
    drop_bounding_set();
    // The user goes first: it takes the capability that goes next.
    let user = drop_root();
    thread::clear_ambient_capability_set().step("ambient capabilities")?;
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    thread::set_capabilities(None, sets).step("capabilities")?;
    user
}

/// What could not even come back through a program with capabilities. Whoever may not do this has `no_new_privs` all the same.
fn drop_bounding_set() {
    for bit in 0..CAPABILITIES_MAX {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        if thread::remove_capability_from_bounding_set(one) == Err(Errno::INVAL) {
            return; // the kernel knows no further one
        }
    }
}

/// `root` owns files and is exempt from limits even without capabilities: it becomes nobody.
fn drop_root() -> Result<(), Refused> {
    if !process::geteuid().is_root() {
        return Ok(());
    }
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    thread::set_thread_groups(&[]).step("groups")?;
    thread::set_thread_res_gid(group, group, group).step("group")?;
    thread::set_thread_res_uid(user, user, user).step("user")
}

/// Closes what the process inherited beyond its standard streams: whoever started the gateway may have left anything open.
///
/// To be called before the process opens anything of its own.
pub(super) fn close_inherited() -> std::io::Result<()> {
    const FIRST: libc::c_uint = 3;
    // SAFETY: closes descriptors that nothing in this process owns: it has opened none yet.
    let result = unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, 0) };
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

/// No core dump may hold what guests had in memory, no file may be written, and nobody may look inside.
pub(super) fn limit() -> Result<(), Refused> {
    lower(Resource::Core, 0).step("RLIMIT_CORE")?;
    lower(Resource::Fsize, 0).step("RLIMIT_FSIZE")?;
    lower(Resource::Nofile, DESCRIPTORS_MAX).step("RLIMIT_NOFILE")?;
    process::set_dumpable_behavior(DumpableBehavior::NotDumpable).step("PR_SET_DUMPABLE")
}

fn lower(resource: Resource, to: u64) -> Result<(), Errno> {
    let least = |limit: Option<u64>| Some(limit.map_or(to, |limit| limit.min(to)));
    let now = process::getrlimit(resource);
    process::setrlimit(resource, Rlimit { current: least(now.current), maximum: least(now.maximum) })
}
