//! What takes rights away: capabilities, the deny list of system calls, Landlock, resource limits.
//!
//! ```text
//!  agent                   uid 0 inside, a handful of capabilities, no_new_privs, deny list
//!  first process, shims    the same, and Landlock
//!  workload                uid 1000 inside, no capability, all of that, resource limits
//! ```
//!
//! A deny list, not an allow list: arbitrary programs run here, and new harmless calls appear with each kernel. What
//! is denied either reaches much kernel code that no sandboxed program needs (bpf, io_uring, userfaultfd, keys,
//! perf, modules) or makes namespaces and mounts, in which a process would be root again.

use std::collections::BTreeMap;

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, Scope,
};
use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs},
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Cmp, SeccompCondition as Condition,
    SeccompFilter, SeccompRule, TargetArch,
};

use crate::{
    error::{Code, Context, Result, SandboxError},
    limits::Limits,
};

/// What the agent keeps: to become the workload's user, to signal it, and to serve a snapshot of all its files.
const KEPT: CapabilitySet = CapabilitySet::SETUID
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::DAC_OVERRIDE);

/// Calls refused with EPERM.
const DENIED: &[i64] = &[
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_fsconfig,
    libc::SYS_fspick,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_mount_setattr,
    SYS_OPEN_TREE_ATTR,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    SYS_QUOTACTL_FD,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_open_by_handle_at,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_fanotify_init,
    libc::SYS_pidfd_getfd,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    libc::SYS_kcmp,
    SYS_STATMOUNT,
    SYS_LISTMOUNT,
    libc::SYS_process_madvise,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

// Same numbers on every architecture; libc lags behind.
const SYS_QUOTACTL_FD: i64 = 443;
const SYS_STATMOUNT: i64 = 457;
const SYS_LISTMOUNT: i64 = 458;
const SYS_OPEN_TREE_ATTR: i64 = 467;
/// The bit that marks the x32 variants of system calls, which would slip past a list of plain numbers.
#[cfg(target_arch = "x86_64")]
const X32_BIT: u32 = 0x4000_0000;

const NAMESPACE_FLAGS: &[i32] = &[
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];
/// Terminal calls that push characters into someone else's input.
const TERMINAL_INJECTION: [u64; 2] = [libc::TIOCSTI, libc::TIOCLINUX];
/// Socket families a program may use; the empty network namespace bounds what they reach. All others (vsock, which is
/// in no namespace; raw packets; kernel crypto) are refused.
const FAMILIES: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

fn system(what: &str, error: impl std::fmt::Display) -> SandboxError {
    SandboxError::new(Code::System, format!("{what}: {error}"))
}

/// Drops all capabilities but the agent's few, for this process and all it will start.
pub(super) fn drop_capabilities() -> Result<()> {
    for bit in 0..63 {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        match rustix::thread::remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL) if bit > 36 => break, // past the kernel's last capability
            Err(error) => return Err(error).context("drop a capability"),
        }
    }
    rustix::thread::clear_ambient_capability_set().context("clear ambient capabilities")?;
    set_exactly(KEPT)
}

/// No capability at all.
pub(super) fn drop_all_capabilities() -> Result<()> {
    set_exactly(CapabilitySet::empty())
}

fn set_exactly(set: CapabilitySet) -> Result<()> {
    let sets = CapabilitySets { effective: set, permitted: set, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).context("set capabilities")
}

/// No gain of rights by any execve from here on, then the deny list. Inherited by everything.
pub(super) fn deny_calls() -> Result<()> {
    set_no_new_privs(true).context("no_new_privs")?;
    for program in filters()? {
        seccompiler::apply_filter(&program).map_err(|error| system("seccomp", error))?;
    }
    Ok(())
}

fn filters() -> Result<Vec<BpfProgram>> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| system("seccomp", error))?;
    let compile = |rules: BTreeMap<i64, Vec<SeccompRule>>, errno: i32| -> Result<BpfProgram> {
        SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno as u32), arch)
            .and_then(TryInto::try_into)
            .map_err(|error| system("seccomp", error))
    };

    let mut denied: BTreeMap<i64, Vec<SeccompRule>> = DENIED.iter().map(|call| (*call, vec![])).collect();
    let clone = NAMESPACE_FLAGS.iter().map(|flag| {
        let flag = u64::from(flag.cast_unsigned());
        rule([Condition::new(0, Len::Qword, Cmp::MaskedEq(flag), flag)])
    });
    denied.insert(libc::SYS_clone, clone.collect::<Result<_>>()?);
    let terminal = TERMINAL_INJECTION.map(|call| rule([Condition::new(1, Len::Dword, Cmp::Eq, call)]));
    denied.insert(libc::SYS_ioctl, terminal.into_iter().collect::<Result<_>>()?);

    let family = |family: &i32| Condition::new(0, Len::Dword, Cmp::Ne, u64::from(family.cast_unsigned()));
    let sockets = vec![rule(FAMILIES.iter().map(family))?];
    let sockets = BTreeMap::from([(libc::SYS_socket, sockets.clone()), (libc::SYS_socketpair, sockets)]);

    // clone3 passes its flags in memory, where a filter cannot look. "No such call" makes libraries use clone.
    let absent = BTreeMap::from([(libc::SYS_clone3, vec![])]);
    Ok(vec![
        #[cfg(target_arch = "x86_64")]
        no_x32(),
        compile(denied, libc::EPERM)?,
        compile(sockets, libc::EAFNOSUPPORT)?,
        compile(absent, libc::ENOSYS)?,
    ])
}

/// All of the conditions together.
fn rule<E: std::fmt::Display>(
    conditions: impl IntoIterator<Item = std::result::Result<Condition, E>>,
) -> Result<SeccompRule> {
    let conditions = conditions.into_iter().collect::<std::result::Result<Vec<_>, E>>();
    let conditions = conditions.map_err(|error| system("seccomp", error))?;
    SeccompRule::new(conditions).map_err(|error| system("seccomp", error))
}

/// Calls by x32 numbers do not exist. seccompiler knows no comparison on the number itself, hence by hand:
/// load the number; at or above the bit: ENOSYS; else: allow.
#[cfg(target_arch = "x86_64")]
fn no_x32() -> BpfProgram {
    use seccompiler::sock_filter;
    let errno = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();
    vec![
        sock_filter { code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, jt: 0, jf: 0, k: 0 },
        sock_filter { code: (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16, jt: 0, jf: 1, k: X32_BIT },
        sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: errno },
        sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW },
    ]
}

/// The second wall around files, applied by the first process to itself and so to all it starts: everything readable,
/// only `writable` directories writable, no device node can be made; signals and abstract sockets stay inside.
///
/// Best effort: kernels without Landlock, or with an older one, have the other walls.
pub(super) fn landlock_rules(writable: &[String]) -> Result<RulesetCreated> {
    let abi = ABI::V6;
    let failed = |error: &dyn std::fmt::Display| system("landlock", error);
    let read = AccessFs::from_read(abi);
    let write = AccessFs::from_all(abi) & !(AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev);
    let device = read | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(abi)))
        .and_then(Ruleset::create)
        .map_err(|error| failed(&error))?;
    let mut add = |path: &str, access: BitFlags<AccessFs>| -> Result<()> {
        let Ok(fd) = PathFd::new(path) else { return Ok(()) }; // not there: nothing to allow
        (&mut rules).add_rule(PathBeneath::new(fd, access)).map(drop).map_err(|error| failed(&error))
    };
    add("/", read)?;
    add("/dev", device)?;
    for path in writable {
        add(path, write)?;
    }
    Ok(rules)
}

/// Limits per process. Only ever lowered, as raising needs a capability that the host may lack.
pub(super) fn lower_resource_limits(limits: &Limits) -> Result<()> {
    let lower = |resource, wanted: u64| {
        let hard = getrlimit(resource).maximum.map_or(wanted, |hard| hard.min(wanted));
        setrlimit(resource, Rlimit { current: Some(hard), maximum: Some(hard) })
            .context("lower a resource limit")
    };
    lower(Resource::Core, 0)?;
    lower(Resource::Nofile, u64::from(limits.open_files))?;
    lower(Resource::Nproc, u64::from(limits.pids))?;
    lower(Resource::Memlock, 64 * 1024)?;
    lower(Resource::Msgqueue, 0)?;
    lower(Resource::Sigpending, 4_096)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_filters_compile() {
        assert!(super::filters().unwrap().iter().all(|program| !program.is_empty()));
    }
}
