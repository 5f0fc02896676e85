//! Sandboxes as containers of an engine on this machine that speaks the Docker Engine API: Docker, or Podman.
//!
//! ```text
//!  launch ─▶ create (409: somebody has this owner's sandbox) ─▶ attach ─▶ start ─▶ set-up, frames … over the attach
//!                │                                                  │            stream, as over a native socket
//!                └── container.rs: no network, no capability,       └── its end is the container's lifeline: standard
//!                    an ordinary user of its own, read-only files       input ends, the init leaves, the engine removes
//! ```
//!
//! Everything goes through the agent; the engine's own exec and archive calls are not used: an exec cannot be killed
//! through the API, and what it started outlives it.
//!
//! The container's name is made from its owner, so the engine itself refuses a second sandbox for one owner, also
//! when another gateway asks. Each gateway holds a lock on a file for as long as it lives and names that file in its
//! containers' labels: a container whose file is not locked has no owner any more.

mod calls;
mod config;
mod container;
mod image;
mod instance;
mod running;
mod stream;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bollard::{
    Docker,
    errors::Error as EngineError,
    query_parameters::{AttachContainerOptions, StartContainerOptions},
};
pub use config::{EngineConfig, Image, Kind, Runtime, UID_BASE_DEFAULT, UIDS_DEFAULT};
use tokio::sync::OnceCell;

use crate::{
    backend::{Backend, BoxFuture, Launched, SandboxId, SandboxSpec},
    error::{Code, Result, SandboxError},
    frame,
    kit::Kit,
    limits::{Limits, START_MAX},
    link::Link,
    owned,
    protocol::{Disk, ExecSpec, Root},
    sandbox::Sandbox,
};

/// How long one call of the engine's API may take, in seconds.
const API_TIMEOUT_S: u64 = 30;
/// How long the probe of a runtime may take.
const PROBE_MAX: Duration = Duration::from_secs(5);
/// The runtime that is probed for: a second kernel, in user space.
const PROBED_RUNTIME: &str = "runsc";
/// The backend for an engine.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    config: EngineConfig,
    client: Docker,
    kit: Kit,
    instance: instance::Lock,
    image: OnceCell<String>,
    runtime: OnceCell<Option<String>>,
}

fn failed(what: &str, error: &EngineError) -> SandboxError {
    let code = match error {
        EngineError::DockerResponseServerError { status_code: 404, message }
            if message.to_lowercase().contains("image") =>
        {
            Code::InvalidArgument
        }
        EngineError::SocketNotFoundError(_) | EngineError::RequestTimeoutError => Code::SandboxUnavailable,
        _ => Code::BackendFailed,
    };
    SandboxError::new(code, format!("{what}: {error}"))
}

fn status(error: &EngineError) -> Option<u16> {
    match error {
        EngineError::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

impl Engine {
    /// Reaches the engine and agrees with it on a version.
    ///
    /// # Errors
    /// If it does not answer, the configuration is wrong, or the state directory cannot be used.
    pub async fn connect(config: EngineConfig) -> Result<Self> {
        if config.uid_base == 0 || config.uids == 0 || config.uid_base.checked_add(config.uids).is_none() {
            let text = "uid_base must not be 0, and there must be at least one uid: root is never used";
            return Err(SandboxError::new(Code::InvalidArgument, text));
        }
        let kit = Kit::of(&config.program)?;
        let instance = instance::Lock::take(&config.state_dir)?;
        let socket = config.socket.to_string_lossy();
        let client = Docker::connect_with_unix(&socket, API_TIMEOUT_S, bollard::API_DEFAULT_VERSION)
            .map_err(|error| failed("reach the engine", &error))?;
        let client = client.negotiate_version().await;
        let client = client.map_err(|error| failed("reach the engine", &error))?;
        let inner = Inner { config, client, kit, instance, image: OnceCell::new(), runtime: OnceCell::new() };
        Ok(Self(Arc::new(inner)))
    }

    /// The runtime that sandboxes get; `None` is the engine's default. Probes when first asked.
    ///
    /// # Errors
    /// If the engine does not answer.
    pub async fn runtime(&self) -> Result<Option<String>> {
        let found = self.0.runtime.get_or_try_init(|| async {
            match &self.0.config.runtime {
                Runtime::Default => Ok(None),
                // Its API leaves the field unread: a weaker wall than asked for would go unnoticed.
                _ if self.0.config.kind == Kind::Podman => Err(SandboxError::new(
                    Code::Unsupported,
                    "Podman's API takes no runtime; make it the default in its containers.conf",
                )),
                Runtime::Named(name) => Ok(Some(name.clone())),
                Runtime::Probe => self.probe().await,
            }
        });
        found.await.cloned()
    }

    async fn probe(&self) -> Result<Option<String>> {
        let info = self.0.client.info().await.map_err(|error| failed("ask the engine", &error))?;
        if !info.runtimes.is_some_and(|all| all.contains_key(PROBED_RUNTIME)) {
            return Ok(None);
        }
        let tried = tokio::time::timeout(PROBE_MAX, self.try_runtime(PROBED_RUNTIME)).await;
        match tried {
            Ok(Ok(())) => return Ok(Some(PROBED_RUNTIME.to_owned())),
            Ok(Err(error)) => tracing::warn!(%error, "{PROBED_RUNTIME} does not work here; not used"),
            Err(_) => tracing::warn!("{PROBED_RUNTIME} does not answer here; not used"),
        }
        Ok(None)
    }

    /// A real sandbox that runs a command and keeps a file.
    async fn try_runtime(&self, runtime: &str) -> Result<()> {
        // Short: if this is given up in the middle of a call, a reaper finds the container expired.
        let limits = Limits { lifetime_ms: 4 * PROBE_MAX.as_millis() as u64, ..Limits::default() };
        let (id, spec) = (SandboxId::random()?, SandboxSpec { limits, ..SandboxSpec::default() });
        let launched = self.0.clone().start(id, spec, Some(runtime.to_owned())).await?;
        let sandbox = Sandbox::new(launched.link.clone());
        sandbox.write("probe", b"probe").await?;
        let done = sandbox.run(ExecSpec::argv(["cat", "probe"])).await?;
        launched.instance.stop().await?;
        if done.stdout == b"probe" {
            return Ok(());
        }
        Err(SandboxError::new(Code::BackendFailed, "a file was not what was written"))
    }
}

impl Backend for Engine {
    fn name(&self) -> &'static str {
        match self.0.config.kind {
            Kind::Docker => "docker",
            Kind::Podman => "podman",
        }
    }

    fn launch<'a>(&'a self, id: &'a SandboxId, spec: &'a SandboxSpec) -> BoxFuture<'a, Result<Launched>> {
        Box::pin(async move {
            let runtime = self.runtime().await?;
            // A task of its own: when nobody waits any more, it still goes on to where the container can be removed.
            let (inner, id, spec) = (Arc::clone(&self.0), id.clone(), spec.clone());
            let starting = tokio::spawn(async move {
                let started = tokio::time::timeout(START_MAX, inner.start(id, spec, runtime)).await;
                started.unwrap_or_else(|_| {
                    Err(SandboxError::new(Code::SandboxUnavailable, "the container did not start in time"))
                })
            });
            starting.await.unwrap_or_else(|_| {
                Err(SandboxError::new(Code::OperationInterrupted, "the start was dropped"))
            })
        })
    }

    fn reap(&self) -> BoxFuture<'_, Result<usize>> {
        Box::pin(self.0.reap())
    }
}

/// Removes a container by name when it is dropped.
struct Remover {
    inner: Arc<Inner>,
    /// The engine's own id: a name may be another's by now.
    container: Option<String>,
}

impl Drop for Remover {
    fn drop(&mut self) {
        let (Some(container), Ok(runtime)) = (self.container.take(), tokio::runtime::Handle::try_current())
        else {
            return; // without a runtime, the end of the attach stream ends the container
        };
        let inner = Arc::clone(&self.inner);
        runtime.spawn(async move {
            if let Err(error) = inner.remove(&container).await {
                tracing::warn!(%error, container, "a container was not removed");
            }
        });
    }
}

impl Inner {
    async fn start(
        self: Arc<Self>,
        id: SandboxId,
        spec: SandboxSpec,
        runtime: Option<String>,
    ) -> Result<Launched> {
        spec.limits.check()?;
        if spec.root != Root::Host || spec.disk != Disk::Memory {
            let text = "containers have the files of the configured image, and a disk in memory";
            return Err(SandboxError::new(Code::Unsupported, text));
        }
        let image = match &self.config.image {
            Image::Named(name) => name,
            Image::Host => self.image.get_or_try_init(|| image::base(&self.client, &self.config)).await?,
        };
        let labels = container::Labels::new(&id, &spec, self.instance.path());
        let plan = container::Plan {
            config: &self.config,
            kit: &self.kit,
            id: &id,
            limits: &spec.limits,
            image,
            labels,
            runtime,
        };
        let name = owned::name(&id, spec.owner.as_ref());
        let container = self.create(&name, &plan, spec.owner.as_ref()).await?;
        let remover = Remover { inner: Arc::clone(&self), container: Some(container.clone()) };
        let options = AttachContainerOptions {
            stream: true,
            stdin: true,
            stdout: true,
            stderr: true,
            ..Default::default()
        };
        let attached = self.client.attach_container(&container, Some(options)).await;
        let attached = attached.map_err(|error| failed("attach", &error))?;
        // Before the init's own clock, which ends it: what ends later has reached its deadline.
        let deadline = Instant::now() + Duration::from_millis(spec.limits.lifetime_ms);
        let started = self.client.start_container(&container, None::<StartContainerOptions>).await;
        started.map_err(|error| failed("start the container", &error))?;
        let exit = self.watch_exit(&container);
        let group = self.group(&container).await;
        let (input, mut output) = (stream::Demultiplexed::new(attached.output), attached.input);
        let setup = owned::setup(&id, &spec);
        let told = frame::write(&mut output, &setup).await;
        told.map_err(|error| {
            SandboxError::new(Code::BackendFailed, format!("the init does not listen: {error}"))
        })?;
        let link = Link::open(input, output).await?;
        Ok(Launched { link, instance: Box::new(running::Container { remover, group, exit, deadline }) })
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
