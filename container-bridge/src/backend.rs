//! What a backend does: make a sandbox, tell what it has used, end it, and clean up after a crash.

use std::{collections::BTreeMap, future::Future, pin::Pin};

use crate::{
    error::{Code, Result, SandboxError},
    limits::Limits,
    link::Link,
    protocol::{Disk, Root},
};

/// A boxed future: backends are chosen at run time.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Whose sandbox it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Who pays and is blamed.
    pub tenant: String,
    /// The tenant's user.
    pub user: String,
}

/// What a sandbox is to be.
#[derive(Clone, Debug)]
pub struct SandboxSpec {
    /// For backends that several gateways share: there is one sandbox per owner in all of them. The
    /// [`Manager`](crate::manager::Manager) sets it.
    pub owner: Option<Owner>,
    /// Bounds for its whole life.
    pub limits: Limits,
    /// Where its files come from.
    pub root: Root,
    /// Where written bytes go.
    pub disk: Disk,
    /// Variables of every command.
    pub env: BTreeMap<String, String>,
}

impl Default for SandboxSpec {
    fn default() -> Self {
        Self {
            owner: None,
            limits: Limits::default(),
            root: Root::Host,
            disk: Disk::Memory,
            env: BTreeMap::new(),
        }
    }
}

/// A name for one sandbox, unique on the machine: letters, digits and '-' only.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SandboxId(String);

impl SandboxId {
    /// A name from random bits.
    ///
    /// # Errors
    /// If the kernel gives no random bytes.
    pub fn random() -> Result<Self> {
        let mut bytes = [0; 10];
        std::fs::File::open("/dev/urandom")
            .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes))
            .map_err(|error| SandboxError::new(Code::System, format!("/dev/urandom: {error}")))?;
        Ok(Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A kind of sandbox.
pub trait Backend: Send + Sync + 'static {
    /// A word for logs.
    fn name(&self) -> &'static str;

    /// Makes a sandbox and waits until its agent is up. When the future is dropped, nothing is left.
    fn launch<'a>(&'a self, id: &'a SandboxId, spec: &'a SandboxSpec) -> BoxFuture<'a, Result<Launched>>;

    /// Removes what earlier processes left behind. Sandboxes of living owners are not touched. Gives how many.
    fn reap(&self) -> BoxFuture<'_, Result<usize>>;

    /// Walls that it could not build so far: it makes no sandbox until they stand. For readiness; the log says why.
    fn missing(&self) -> Vec<&'static str> {
        Vec::new()
    }
}

/// A sandbox that runs.
pub struct Launched {
    /// The way to its agent.
    pub link: Link,
    /// The rest of it.
    pub instance: Box<dyn Instance>,
}

/// The outside of a running sandbox. Dropping it ends the sandbox, if not as gently as [`stop`](Self::stop).
pub trait Instance: Send + Sync {
    /// What it has used so far; zeros for what cannot be read.
    fn reading(&self) -> BoxFuture<'_, crate::cgroup::Reading>;

    /// Ends it and waits until nothing is left.
    fn stop(self: Box<Self>) -> BoxFuture<'static, Result<crate::native::End>>;
}
