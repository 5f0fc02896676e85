//! `[audit]` of the configuration.

use serde::Deserialize;

use super::{ConfigError, ensure};

/// Bounds of one file, in bytes.
const FILE_BYTES: std::ops::RangeInclusive<u64> = 4_096..=1024 * 1024 * 1024;
/// Longest time between two syncs, in milliseconds.
const FSYNC_MS_MAX: u64 = 60_000;

/// When what was written is forced to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// After each batch: at most what waits in the queue is lost when the machine loses power.
    Always,
    /// At most this long after a record was written.
    Interval {
        /// In milliseconds.
        ms: u64,
    },
    /// When the system likes. A gateway that is killed still loses nothing that was written.
    Never,
}

/// What happens when the log cannot take more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFull {
    /// Nothing is admitted: 503 `audit_unavailable`.
    Refuse,
    /// Records are dropped, and counted in the log.
    Drop,
}

/// `[audit]`, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditConfig {
    /// Whether there is a log at all.
    pub enabled: bool,
    /// When it is forced to the disk.
    pub fsync: Fsync,
    /// A file that is at least this long is followed by a new one, in bytes.
    pub file_bytes_max: u64,
    /// Files kept, the oldest go first; `None`: all.
    pub files_max: Option<u64>,
    /// What happens when it cannot take more.
    pub on_full: OnFull,
    /// Records of crossings that one tenant has per second, sustained; more are counted.
    pub crossings_per_second: u32,
    /// The same at once, after a quiet time.
    pub crossings_burst: u32,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawFsync {
    Always,
    Interval,
    Never,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawAudit {
    enabled: bool,
    fsync: RawFsync,
    fsync_ms: u64,
    file_bytes_max: u64,
    files_max: Option<u64>,
    on_full: OnFull,
    crossings_per_second: u32,
    crossings_burst: u32,
}

impl Default for RawAudit {
    fn default() -> Self {
        Self {
            enabled: true,
            fsync: RawFsync::Interval,
            fsync_ms: 1_000,
            file_bytes_max: 64 * 1024 * 1024,
            files_max: None,
            on_full: OnFull::Refuse,
            crossings_per_second: 200,
            crossings_burst: 2_000,
        }
    }
}

impl RawAudit {
    pub(super) fn check(self) -> Result<AuditConfig, ConfigError> {
        ensure(
            FILE_BYTES.contains(&self.file_bytes_max),
            "audit.file_bytes_max",
            "must be 4 KiB to 1 GiB, in bytes",
        )?;
        ensure(self.files_max != Some(0), "audit.files_max", "must be at least 1")?;
        ensure(
            (1..=FSYNC_MS_MAX).contains(&self.fsync_ms),
            "audit.fsync_ms",
            "must be 1 to 60000 milliseconds",
        )?;
        ensure(self.crossings_burst > 0, "audit.crossings_burst", "must be at least 1")?;
        let fsync = match self.fsync {
            RawFsync::Always => Fsync::Always,
            RawFsync::Interval => Fsync::Interval { ms: self.fsync_ms },
            RawFsync::Never => Fsync::Never,
        };
        Ok(AuditConfig {
            enabled: self.enabled,
            fsync,
            file_bytes_max: self.file_bytes_max,
            files_max: self.files_max,
            on_full: self.on_full,
            crossings_per_second: self.crossings_per_second,
            crossings_burst: self.crossings_burst,
        })
    }
}
