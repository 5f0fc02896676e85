//! What the sandbox uses, seen from inside: for hosts that see no control group of it, as in a cluster.
//!
//! Where the container shows its own control group, that is read. Else CPU time is what ended commands have used, told
//! by their shims, and what the living have used; memory is what the living hold, and the disk.

use std::{
    fs,
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::param::{clock_ticks_per_second, page_size};

use crate::{
    cgroup::{Cgroup, Reading},
    error::{Context, Result},
    init::WORKSPACE,
    protocol::InsideUsage,
};

/// What is over and so no longer to be seen.
#[derive(Default)]
pub(super) struct Meter {
    /// CPU time of commands that have ended, in milliseconds.
    ended_cpu_ms: AtomicU64,
}

impl Meter {
    /// A command and all that it had started are over.
    pub(super) fn ended(&self, cpu_ms: u32) {
        self.ended_cpu_ms.fetch_add(cpu_ms.into(), Ordering::Relaxed);
    }
}

/// Called on the main thread: it sees the processes of every user.
pub(super) fn usage(meter: &Meter) -> Result<InsideUsage> {
    let disk = rustix::fs::statvfs(WORKSPACE).context(WORKSPACE)?;
    let disk_bytes = disk.f_blocks.saturating_mul(disk.f_frsize);
    let free = disk.f_bfree.saturating_mul(disk.f_frsize);
    let disk_used_bytes = disk_bytes.saturating_sub(free);
    let (mut processes, mut ticks, mut memory_bytes) = (0, 0u64, disk_used_bytes);
    for entry in fs::read_dir("/proc").context("/proc")?.flatten() {
        if !entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        processes += 1;
        let read = |name: &str| fs::read_to_string(entry.path().join(name)).unwrap_or_default();
        ticks = ticks.saturating_add(cpu_ticks(&read("stat")).unwrap_or(0));
        memory_bytes = memory_bytes.saturating_add(resident_pages(&read("statm")) * page_size() as u64);
    }
    let reading = Cgroup::own().map_or_else(
        || {
            let living_us = ticks.saturating_mul(1_000_000) / clock_ticks_per_second().max(1);
            let cpu_us =
                meter.ended_cpu_ms.load(Ordering::Relaxed).saturating_mul(1000).saturating_add(living_us);
            Reading { cpu_us, memory_bytes, memory_bytes_peak: memory_bytes, oom_kills: 0 }
        },
        |own| own.read(),
    );
    Ok(InsideUsage { processes, disk_used_bytes, disk_bytes, reading })
}

/// A process's own time and that of the children that it has collected (proc(5), fields 14 to 17 of `stat`).
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().skip(11).take(4).map(|field| field.parse::<u64>().ok()).sum()
}

/// Pages that nobody else has (proc(5), `statm`: resident without shared).
fn resident_pages(statm: &str) -> u64 {
    let mut fields = statm.split_whitespace().skip(1).map(|field| field.parse::<u64>().unwrap_or(0));
    fields.next().unwrap_or(0).saturating_sub(fields.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_writes_is_read() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 9 8 7 6 100 20 3 4 20 0 1 0 55 1 2";
        assert_eq!((cpu_ticks(stat), cpu_ticks(""), cpu_ticks("1 (x) S")), (Some(127), None, Some(0)));
        assert_eq!((resident_pages("90 40 15 1 0 2 0"), resident_pages("")), (25, 0));
        assert!(cpu_ticks(&fs::read_to_string("/proc/self/stat").unwrap()).is_some());
    }

    #[test]
    fn what_ended_is_not_forgotten() {
        let meter = Meter::default();
        meter.ended(40);
        meter.ended(2);
        assert_eq!(meter.ended_cpu_ms.load(Ordering::Relaxed), 42);
    }
}
