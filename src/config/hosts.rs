//! `[host_class.NAME]` of the configuration: isolate hosts that are alike, for tenants that are.

use serde::Deserialize;

use super::{ConfigError, HOST_MEMORY_MIB_MIN, Name, ensure};

/// Most classes of isolate hosts.
pub(super) const CLASSES_MAX: usize = 16;
/// Most hosts of one class.
const HOSTS_MAX: usize = 64;

/// One class. Tenants of different classes never share a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostClassConfig {
    /// V8 without its compilers: slower, with less that can be wrong in it, and without WebAssembly.
    pub jitless: bool,
    /// Isolate hosts.
    pub hosts: usize,
    /// Resident memory that one of them may hold, in MiB; by default as for all.
    pub memory_mib: Option<u64>,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawHostClass {
    jitless: bool,
    hosts: usize,
    memory_mib: Option<u64>,
}

impl Default for RawHostClass {
    fn default() -> Self {
        Self { jitless: false, hosts: 1, memory_mib: None }
    }
}

impl RawHostClass {
    pub(super) fn check(self, name: &str) -> Result<HostClassConfig, ConfigError> {
        let key = |field: &str| format!("host_class.{name}.{field}");
        ensure(Name::parse(name).is_some(), &key("NAME"), "a class's name is a lower-case DNS label")?;
        ensure((1..=HOSTS_MAX).contains(&self.hosts), &key("hosts"), "must be 1 to 64")?;
        let memory = self.memory_mib.unwrap_or(HOST_MEMORY_MIB_MIN);
        ensure(memory >= HOST_MEMORY_MIB_MIN, &key("memory_mib"), "must be at least 256")?;
        Ok(HostClassConfig { jitless: self.jitless, hosts: self.hosts, memory_mib: self.memory_mib })
    }
}
