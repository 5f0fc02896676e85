//! `[sandbox]` of the configuration.

use serde::Deserialize;

use super::{ConfigError, ensure};

/// `[sandbox]`: container sandboxes made by this program itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SandboxConfig {
    /// Memory of one sandbox, its disk included, in MiB.
    pub memory_mib: u32,
    /// What one sandbox can write, in MiB.
    pub disk_mib: u32,
    /// CPU share of one sandbox, in thousandths of a core.
    pub cpu_millis: u32,
    /// Processes and threads of one sandbox.
    pub pids: u32,
    /// Longest life of one sandbox, in seconds.
    pub lifetime_s: u32,
    /// Longest time without use, in seconds.
    pub idle_s: u32,
    /// Sandboxes at once.
    pub sandboxes_max: usize,
    /// Sandboxes of one tenant at once.
    pub sandboxes_per_tenant_max: usize,
    /// Go on where the system does not let memory, processes and CPU be bounded. For development only.
    pub allow_unbounded: bool,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self {
            memory_mib: 512,
            disk_mib: 256,
            cpu_millis: 1_000,
            pids: 256,
            lifetime_s: 600,
            idle_s: 120,
            sandboxes_max: 128,
            sandboxes_per_tenant_max: 32,
            allow_unbounded: false,
        }
    }
}

impl SandboxConfig {
    /// The bounds in the bridge's units.
    #[must_use]
    pub fn limits(&self) -> atoll_container_bridge::limits::Limits {
        const BYTES_PER_MIB: u64 = atoll_container_bridge::limits::MIB;
        atoll_container_bridge::limits::Limits {
            memory_bytes: u64::from(self.memory_mib) * BYTES_PER_MIB,
            cpu_millis: self.cpu_millis,
            pids: self.pids,
            disk_bytes: u64::from(self.disk_mib) * BYTES_PER_MIB,
            lifetime_ms: u64::from(self.lifetime_s) * 1_000,
            ..atoll_container_bridge::limits::Limits::default()
        }
    }

    pub(super) fn checked(self) -> Result<Self, ConfigError> {
        const REASON: &str = "has a bound out of range: memory_mib is at least disk_mib + 32, disk_mib at least 1, cpu_millis 10 to \
                              1024000, pids 16 to 32768, lifetime_s 1 to 86400";
        ensure(self.limits().check().is_ok(), "sandbox", REASON)?;
        Ok(self)
    }
}
