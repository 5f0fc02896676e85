//! Which cluster, and how it is to make pods.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use crate::{
    error::{Code, Context, Result, SandboxError},
    limits::START_MAX,
};

/// First user id of sandboxes: above those that systems and images give to people and services.
pub const UID_BASE: u32 = 1_000_000;
/// How many there are: so many that two sandboxes of a node hardly ever share one, and what the kernel counts per user.
pub const UIDS: u32 = 1_000_000_000;
/// Longest name of a namespace (RFC 1123 label), in bytes.
const NAMESPACE_BYTES_MAX: usize = 63;

/// Where the cluster is and who this program is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// As `kubectl` finds it (`KUBECONFIG`, `~/.kube/config`), else the cluster that this program runs in.
    Infer,
    /// The cluster that this program runs in, as its service account.
    InCluster,
    /// What this file says, under its current context or this one.
    File(PathBuf, Option<String>),
}

/// When nodes get images from a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pull {
    /// At each start.
    Always,
    /// When a node has not got the image.
    IfNotPresent,
    /// Not at all: a node that has not got the image makes no sandbox.
    Never,
}

impl Pull {
    /// The cluster's word for it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// Who sees to it that pods have no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wall {
    /// This backend, with a network policy that it makes and looks after. Without it, no sandbox starts.
    Policy,
    /// The operator, by other means.
    External,
}

/// A taint of nodes that pods may be on all the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Toleration {
    /// The taint's key; all if absent.
    pub key: Option<String>,
    /// Its value; any if absent.
    pub value: Option<String>,
    /// Its effect, such as `NoSchedule`; all if absent.
    pub effect: Option<String>,
}

/// How to make pods.
#[derive(Clone, Debug)]
pub struct KubernetesConfig {
    /// Where the cluster is.
    pub access: Access,
    /// The namespace of the pods. Best one that holds nothing else.
    pub namespace: String,
    /// The image of the workload.
    pub image: String,
    /// An image that holds this program; it is copied from there before the workload's container starts. Without, the
    /// workload's own image holds it.
    pub agent_image: Option<String>,
    /// The command in the image with this program that calls [`init::main`](crate::init::main).
    pub command: Vec<String>,
    /// The same program on this machine: from it follows how the copy is started.
    pub program: PathBuf,
    /// When nodes get the images.
    pub pull: Pull,
    /// The secret with the registry's credentials.
    pub pull_secret: Option<String>,
    /// The runtime class, for example `gvisor` or `kata`.
    pub runtime_class: Option<String>,
    /// Labels that a node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Taints that a node may have.
    pub tolerations: Vec<Toleration>,
    /// A warm pool of agent-sandbox to claim pods from, instead of making them.
    pub warm_pool: Option<String>,
    /// Who denies the network.
    pub wall: Wall,
    /// How long a start may take; less than [`START_MAX`], so that the reason is told to whoever waits that long.
    pub start_max: Duration,
    /// Directory for the file that gives this gateway its name; made if missing.
    pub state_dir: PathBuf,
}

impl KubernetesConfig {
    /// This program itself as the init, found at `command` in the images; everything else as it is by default.
    ///
    /// # Errors
    /// If the program cannot find its own path.
    pub fn own_program(
        namespace: impl Into<String>,
        image: impl Into<String>,
        command: Vec<String>,
        state_dir: impl Into<PathBuf>,
    ) -> Result<Self> {
        Ok(Self {
            access: Access::Infer,
            namespace: namespace.into(),
            image: image.into(),
            agent_image: None,
            command,
            program: std::env::current_exe().context("find the own program")?,
            pull: Pull::IfNotPresent,
            pull_secret: None,
            runtime_class: None,
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            warm_pool: None,
            wall: Wall::Policy,
            start_max: START_MAX.saturating_sub(Duration::from_secs(2)),
            state_dir: state_dir.into(),
        })
    }

    pub(super) fn check(&self) -> Result<()> {
        let bad = |text: &str| Err(SandboxError::new(Code::InvalidArgument, text));
        let label = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if self.namespace.is_empty()
            || self.namespace.len() > NAMESPACE_BYTES_MAX
            || !self.namespace.bytes().all(label)
        {
            return bad("the namespace's name has 1 to 63 lower-case letters, digits and '-'");
        }
        if self.image.is_empty() || self.command.is_empty() {
            return bad("pods need an image, and the path of this program in it");
        }
        Ok(())
    }
}
