//! The system call filter: what the host was seen to need, and nothing else.
//!
//! The list was made by tracing the host under all integration tests. Three answers:
//! - *allowed*: memory, threads, clocks, randomness, and reading and writing what is open;
//! - *an error*: what libraries try and can do without, such as looking for a file with the number of processors;
//! - *the end of the process*: everything else. Nobody calls `socket` or `execve` here by accident.
//!
//! seccomp runs every filter of a process and takes the strictest answer, so each answer is a filter of its own; the one that
//! allows comes last, because it no longer allows to install another.

use std::collections::BTreeMap;

use libc::{c_int, c_long};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use super::{Refused, Step as _};

/// Allowed whatever the arguments.
const ALLOWED: &[c_long] = &[
    // What is open.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_shutdown,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_ppoll,
    // Memory.
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_pkey_alloc,
    libc::SYS_pkey_free,
    libc::SYS_pkey_mprotect,
    // Threads.
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_membarrier,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    // How soon a thread is served: never sooner than a process without privileges may ask for.
    libc::SYS_sched_getattr,
    libc::SYS_sched_setattr,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Signals to itself: stack overflows and aborts.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    // Clocks and randomness.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_sysinfo,
    // Which kernel: V8 asks, and ends the process if nobody answers.
    libc::SYS_uname,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_time,
];

/// Answered with an error, because callers can do without. `ENOSYS` for `clone3`, whose arguments no filter can see: the C
/// library then uses `clone`.
const REFUSED: &[(c_int, &[c_long])] = &[
    (libc::ENOSYS, &[libc::SYS_clone3]),
    (
        libc::EACCES,
        &[
            libc::SYS_openat,
            libc::SYS_openat2,
            libc::SYS_newfstatat,
            libc::SYS_fstat,
            libc::SYS_statx,
            libc::SYS_statfs,
            libc::SYS_faccessat,
            libc::SYS_faccessat2,
            libc::SYS_readlinkat,
            libc::SYS_getcwd,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_open,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_stat,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_lstat,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_access,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_readlink,
        ],
    ),
    (libc::EPERM, &[libc::SYS_setpriority, libc::SYS_sched_setscheduler]),
];

/// Installs the filters on this thread, and with it on all that it starts.
pub(super) fn install() -> Result<(), Refused> {
    for (errno, calls) in REFUSED {
        let rules = calls.iter().map(|&call| (call, vec![])).collect();
        let refuse = SeccompAction::Errno(errno.unsigned_abs());
        apply(rules, SeccompAction::Allow, refuse).step("a filter that refuses")?;
    }
    let refused = REFUSED.iter().flat_map(|(_, calls)| calls.iter());
    let mut rules: BTreeMap<_, _> = ALLOWED.iter().chain(refused).map(|&call| (call, vec![])).collect();
    rules.extend(conditional().step("conditions")?);
    apply(rules, SeccompAction::KillProcess, SeccompAction::Allow).step("the filter that allows")
}

/// Allowed with some arguments only.
fn conditional() -> Result<Vec<(c_long, Vec<SeccompRule>)>, std::io::Error> {
    let one = |argument, value: c_int| {
        SeccompCondition::new(
            argument,
            SeccompCmpArgLen::Dword,
            SeccompCmpOp::Eq,
            u64::from(value.unsigned_abs()),
        )
        .and_then(|condition| SeccompRule::new(vec![condition]))
    };
    let any = |argument, values: &[c_int]| {
        values.iter().map(|&value| one(argument, value)).collect::<Result<Vec<_>, _>>()
    };
    let rules = (|| {
        Ok(vec![
            (libc::SYS_clone, vec![thread_only()?]),
            // To its own threads only: this is how `abort` ends the process, and how what computes is made to step aside.
            (libc::SYS_tgkill, vec![one(0, std::process::id().cast_signed())?]),
            (libc::SYS_prctl, any(0, &[libc::PR_SET_NAME, libc::PR_SET_VMA])?),
            (libc::SYS_ioctl, any(1, &[FIONBIO])?),
            (libc::SYS_fcntl, any(1, &[libc::F_GETFD, libc::F_GETFL, libc::F_SETFL, libc::F_DUPFD_CLOEXEC])?),
            // Of itself, and no new limit: where the main thread's stack ends.
            (libc::SYS_prlimit64, vec![reads_own_limit()?]),
        ])
    })();
    rules.map_err(|error: seccompiler::BackendError| std::io::Error::other(error.to_string()))
}

/// `ioctl` that makes a descriptor non-blocking.
const FIONBIO: c_int = libc::FIONBIO as c_int;

/// A new thread of this process, never a process, never in other namespaces.
fn thread_only() -> Result<SeccompRule, seccompiler::BackendError> {
    const MUST: c_int = libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND;
    const MUST_NOT: c_int = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP
        | libc::CLONE_PTRACE
        | libc::CLONE_VFORK;
    let mask = u64::from((MUST | MUST_NOT).unsigned_abs());
    let op = SeccompCmpOp::MaskedEq(mask);
    let wanted = u64::from(MUST.unsigned_abs());
    SeccompRule::new(vec![SeccompCondition::new(0, SeccompCmpArgLen::Qword, op, wanted)?])
}

fn reads_own_limit() -> Result<SeccompRule, seccompiler::BackendError> {
    let zero = |argument| SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0);
    SeccompRule::new(vec![zero(0)?, zero(2)?])
}

fn apply(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> Result<(), std::io::Error> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(std::io::Error::other)?;
    let filter = SeccompFilter::new(rules, otherwise, matched, arch).map_err(std::io::Error::other)?;
    let program: BpfProgram = filter.try_into().map_err(std::io::Error::other)?;
    seccompiler::apply_filter(&program).map_err(std::io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_call_has_two_answers() {
        let mut seen = HashSet::new();
        let refused = REFUSED.iter().flat_map(|(_, calls)| calls.iter());
        for call in ALLOWED.iter().chain(refused) {
            assert!(seen.insert(*call), "{call}");
        }
        for (call, rules) in conditional().expect("valid conditions") {
            assert!(seen.insert(call) && !rules.is_empty(), "{call}");
        }
    }
}
