//! The memory of the whole process, and its bound: the last line when what isolates hold is counted nowhere else.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::OnceLock;

/// Part of the machine's or the container's memory that an isolate host may hold unless told otherwise, in percent.
const SHARE_PERCENT: u64 = 75;
/// What counts as far over the bound, in percent of it.
const FAR_OVER_PERCENT: u64 = 110;
/// Watchdog ticks between two looks.
const TICKS: u32 = 4;

/// Watches this process.
#[derive(Debug)]
pub(crate) struct Resident {
    bytes_max: u64,
    last_bytes: u64,
    ticks: u32,
}

/// What was seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    /// Growth since the last look.
    pub(crate) grown_bytes: u64,
    /// More than it may be.
    pub(crate) over: bool,
    /// So much more that the process must end.
    pub(crate) far_over: bool,
}

impl Resident {
    /// `None` where `/proc` cannot be read.
    pub(crate) fn watch(bytes_max: u64) -> Option<Self> {
        open()?;
        Some(Self { bytes_max, last_bytes: resident_bytes(), ticks: 0 })
    }

    /// To be called at every tick of the watchdog, which are far between while nothing computes; looks at some of them.
    pub(crate) fn look(&mut self) -> Option<Look> {
        self.ticks += 1;
        if self.ticks < TICKS {
            return None;
        }
        self.ticks = 0;
        let bytes = resident_bytes();
        let grown_bytes = bytes.saturating_sub(self.last_bytes);
        self.last_bytes = bytes;
        let far = self.bytes_max.saturating_mul(FAR_OVER_PERCENT) / 100;
        Some(Look { grown_bytes, over: bytes > self.bytes_max, far_over: bytes > far })
    }
}

/// The kernel's numbers about this process, opened once: a confined process can open nothing later.
pub(crate) fn open() -> Option<&'static File> {
    static STATM: OnceLock<Option<File>> = OnceLock::new();
    STATM.get_or_init(|| File::open("/proc/self/statm").ok()).as_ref()
}

/// Resident memory of this process, in bytes; 0 where `/proc` cannot be read.
pub(crate) fn resident_bytes() -> u64 {
    const PAGE_BYTES: u64 = 4_096;
    let mut text = [0; 128];
    let Some(statm) = open() else { return 0 };
    let Ok(length) = statm.read_at(&mut text, 0) else { return 0 };
    let text = std::str::from_utf8(&text[..length]).unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).map_or(0, |pages| pages * PAGE_BYTES)
}

/// Growth of the process after which freed memory is given back, in bytes.
const TRIM_AFTER_BYTES: u64 = 8 * 1024 * 1024;

/// Gives freed memory back to the system. The C library keeps what isolates freed in one arena for each of many threads,
/// and by itself gives back only what lies at an arena's end.
#[derive(Debug, Default)]
pub(crate) struct Trimmer {
    /// Resident memory when it was last given back.
    trimmed_bytes: u64,
}

impl Trimmer {
    /// To be called now and then with the resident memory; works on a thread of its own.
    pub(crate) fn sweep(&mut self, resident_bytes: u64) {
        if resident_bytes < self.trimmed_bytes.saturating_add(TRIM_AFTER_BYTES) {
            // Shrinking counts too: the next growth starts from there.
            self.trimmed_bytes = self.trimmed_bytes.min(resident_bytes);
            return;
        }
        self.trimmed_bytes = resident_bytes;
        tokio::task::spawn_blocking(trim);
    }
}

#[cfg(target_env = "gnu")]
fn trim() {
    // JUSTIFICATION: only the C library can give its own free memory back.
    // SAFETY: `malloc_trim` takes no pointer, locks each arena that it looks at, and may be called on any thread.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
fn trim() {}

/// The usual bound: a share of the container's memory, or of the machine's. `None` if neither is known.
#[must_use]
pub fn default_bytes_max() -> Option<u64> {
    let cgroup = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok())
        .min();
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| machine_bytes(&text));
    let least = [cgroup, machine].into_iter().flatten().min()?;
    Some(least / 100 * SHARE_PERCENT)
}

fn machine_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_this_process_and_its_bound() {
        let mut low = Resident::watch(1).expect("/proc is there");
        let looks: Vec<_> = (0..TICKS).filter_map(|_| low.look()).collect();
        assert_eq!(looks.len(), 1);
        assert!(looks[0].over && looks[0].far_over);
        let mut high = Resident::watch(u64::MAX).expect("/proc is there");
        assert!((0..TICKS).filter_map(|_| high.look()).all(|look| !look.over && !look.far_over));
    }

    #[test]
    fn reads_the_size_of_a_machine() {
        assert_eq!(machine_bytes("MemTotal:       16 kB\nMemFree: 1 kB\n"), Some(16 * 1_024));
        assert_eq!(machine_bytes("MemTotal: many"), None);
    }
}
