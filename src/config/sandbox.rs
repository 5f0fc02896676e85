//! `[sandbox]` of the configuration.

use std::{collections::BTreeMap, path::PathBuf};

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
    /// A Kubernetes cluster; only in a build with the feature `kubernetes`.
    Kubernetes,
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

/// When the nodes of a cluster get images from a registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum PullPolicy {
    /// At each start.
    Always,
    /// When a node has not got the image.
    #[default]
    IfNotPresent,
    /// Not at all.
    Never,
}

/// Who denies the network of pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkPolicy {
    /// Atoll, with a policy of its own; without it, no sandbox starts.
    #[default]
    Create,
    /// The operator, by other means.
    External,
}

/// A taint of nodes that pods may be on all the same. What is absent matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Toleration {
    /// The taint's key.
    pub key: Option<String>,
    /// Its value.
    pub value: Option<String>,
    /// Its effect, such as `NoSchedule`.
    pub effect: Option<String>,
}

/// `[sandbox.kubernetes]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KubernetesOptions {
    /// The namespace of the pods.
    pub namespace: String,
    /// The image of the workload.
    pub image: String,
    /// An image with this program, from which the init is copied; absent: `image` has it.
    pub agent_image: Option<String>,
    /// Where this program is in that image.
    #[serde(default = "program_in_image")]
    pub program: String,
    /// The file that says where the cluster is; absent: as `kubectl` finds it, else the cluster around this program.
    pub kubeconfig: Option<PathBuf>,
    /// The context of that file; absent: its current one.
    pub context: Option<String>,
    /// When nodes get images.
    #[serde(default)]
    pub image_pull_policy: PullPolicy,
    /// The secret with the registry's credentials.
    pub image_pull_secret: Option<String>,
    /// The runtime class, for example `gvisor` or `kata`.
    pub runtime_class: Option<String>,
    /// Labels that a node must have.
    #[serde(default)]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that a node may have.
    #[serde(default)]
    pub tolerations: Vec<Toleration>,
    /// A warm pool of agent-sandbox to claim pods from.
    pub warm_pool: Option<String>,
    /// Who denies the network.
    #[serde(default)]
    pub network_policy: NetworkPolicy,
}

fn program_in_image() -> String {
    "/usr/local/bin/atoll".to_owned()
}

impl KubernetesOptions {
    fn check(&self) -> Result<(), ConfigError> {
        const AT: &str = "sandbox.kubernetes";
        ensure(self.program.starts_with('/'), AT, "has a program that is no absolute path")?;
        ensure(
            self.context.is_none() || self.kubeconfig.is_some(),
            AT,
            "has a context without a kubeconfig",
        )?;
        let pool = self.warm_pool.is_none() || self.agent_image.is_none();
        ensure(
            pool,
            AT,
            "has a warm_pool and an agent_image: pods of a pool have this program in their own image",
        )
    }
}

/// `[sandbox]`: container sandboxes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SandboxConfig {
    /// Who makes them.
    pub backend: SandboxBackend,
    /// For the backends `docker` and `podman`.
    pub engine: EngineOptions,
    /// For the backend `kubernetes`.
    pub kubernetes: Option<KubernetesOptions>,
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
            kubernetes: None,
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
        let cluster = self.backend == SandboxBackend::Kubernetes;
        let text = "is for the backend kubernetes, which needs it: at least a namespace and an image";
        ensure(cluster == self.kubernetes.is_some(), "sandbox.kubernetes", text)?;
        let text = "is kubernetes, which this build has not got (cargo feature `kubernetes`)";
        ensure(!cluster || cfg!(feature = "kubernetes"), "sandbox.backend", text)?;
        self.kubernetes.as_ref().map_or(Ok(()), KubernetesOptions::check)?;
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
            ("backend = \"kubernetes\"", false),
            ("kubernetes = { namespace = \"n\", image = \"i\" }", false),
            ("backend = \"kubernetes\"\nengine = { image = \"i\" }", false),
        ] {
            let parsed: SandboxConfig = toml::from_str(text).expect(text);
            assert_eq!(parsed.checked().is_ok(), good, "{text}");
        }
        assert!(toml::from_str::<SandboxConfig>("backend = \"lxc\"").is_err());
        assert!(toml::from_str::<SandboxConfig>("engine = { pull = true }").is_err());
    }

    #[test]
    fn a_cluster_is_described_or_refused() {
        let whole = r#"
            backend = "kubernetes"
            [kubernetes]
            namespace = "sandboxes"
            image = "registry.example/tools:1"
            agent_image = "registry.example/atoll:1"
            kubeconfig = "/etc/atoll/kubeconfig"
            context = "prod"
            image_pull_policy = "Never"
            runtime_class = "gvisor"
            node_selector = { pool = "sandboxes" }
            tolerations = [{ key = "sandboxes", effect = "NoSchedule" }]
            network_policy = "external"
        "#;
        let parsed: SandboxConfig = toml::from_str(whole).expect(whole);
        assert_eq!(parsed.clone().checked().is_ok(), cfg!(feature = "kubernetes"));
        let options = parsed.kubernetes.expect("a table");
        assert_eq!(
            (options.program.as_str(), options.image_pull_policy),
            ("/usr/local/bin/atoll", PullPolicy::Never)
        );
        assert!(options.check().is_ok());
        let base = r#"namespace = "n", image = "i""#;
        for (text, good) in [
            (base.to_owned(), true),
            (format!("{base}, warm_pool = \"p\""), true),
            (format!("{base}, warm_pool = \"p\", agent_image = \"a\""), false),
            (format!("{base}, context = \"c\""), false),
            (format!("{base}, program = \"atoll\""), false),
        ] {
            let text = format!("kubernetes = {{ {text} }}");
            let parsed: SandboxConfig = toml::from_str(&text).expect(&text);
            assert_eq!(parsed.kubernetes.expect("a table").check().is_ok(), good, "{text}");
        }
        for text in
            ["namespace = \"n\"", "image = \"i\"", "namespace = \"n\", image = \"i\", host_network = true"]
        {
            let text = format!("kubernetes = {{ {text} }}");
            assert!(toml::from_str::<SandboxConfig>(&text).is_err(), "{text}");
        }
    }
}
