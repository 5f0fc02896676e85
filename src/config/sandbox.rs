//! `[sandbox]` of the configuration.

use std::path::PathBuf;

use serde::Deserialize;

use super::{ConfigError, ensure};

/// Who makes the sandboxes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SandboxBackend {
    /// This program itself.
    #[default]
    Native,
    /// Docker on this machine.
    Docker,
    /// Podman's service on this machine.
    Podman,
}

/// `[sandbox.engine]`: for Docker and Podman.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineOptions {
    /// The engine's Unix socket; its usual place if absent.
    pub socket: Option<PathBuf>,
    /// An image that the engine has; nothing is pulled. Absent: the host's `/usr`, read-only.
    pub image: Option<String>,
    /// A runtime of Docker, or `probe`: `runsc` if a real sandbox works with it. Absent: the engine's default.
    pub runtime: Option<String>,
}

/// `[sandbox]`: container sandboxes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SandboxConfig {
    /// Who makes them.
    pub backend: SandboxBackend,
    /// For the backends `docker` and `podman`.
    pub engine: EngineOptions,
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
            backend: SandboxBackend::Native,
            engine: EngineOptions::default(),
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
        let engine = matches!(self.backend, SandboxBackend::Docker | SandboxBackend::Podman);
        let text = "is for the backends docker and podman";
        ensure(engine || self.engine == EngineOptions::default(), "sandbox.engine", text)?;
        let podman = self.backend == SandboxBackend::Podman;
        let text =
            "has a runtime, which Podman's API does not take; make it the default in its containers.conf";
        ensure(!podman || self.engine.runtime.is_none(), "sandbox.engine", text)?;
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_belong_to_their_backend() {
        for (text, good) in [
            ("", true),
            ("backend = \"docker\"", true),
            ("backend = \"docker\"\nengine = { socket = \"/s\", image = \"i\", runtime = \"probe\" }", true),
            ("backend = \"podman\"\nengine = { image = \"i\" }", true),
            ("backend = \"podman\"\nengine = { runtime = \"runsc\" }", false),
            ("engine = { image = \"i\" }", false),
            ("memory_mib = 8", false),
        ] {
            let parsed: SandboxConfig = toml::from_str(text).expect(text);
            assert_eq!(parsed.checked().is_ok(), good, "{text}");
        }
        assert!(toml::from_str::<SandboxConfig>("backend = \"kubernetes\"").is_err());
        assert!(toml::from_str::<SandboxConfig>("engine = { pull = true }").is_err());
    }
}
