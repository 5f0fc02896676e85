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

mod container;
mod image;
mod instance;
mod stream;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bollard::{
    Docker,
    errors::Error as EngineError,
    models::ContainerSummary,
    query_parameters::{
        AttachContainerOptions, CreateContainerOptions, InspectContainerOptions, ListContainersOptions,
        RemoveContainerOptions, StartContainerOptions, StatsOptions, WaitContainerOptions,
    },
};
use futures_util::StreamExt;
use tokio::sync::{OnceCell, watch};

use crate::{
    backend::{Backend, BoxFuture, Instance, Launched, Owner, SandboxId, SandboxSpec},
    cgroup::Reading,
    error::{Code, Context, Result, SandboxError},
    frame,
    kit::Kit,
    limits::STOP_MAX,
    link::Link,
    native::End,
    protocol::{Disk, ExecSpec, Root},
    sandbox::Sandbox,
};

/// First user id of sandboxes, unless configured: above those that systems give to people and services.
pub const UID_BASE_DEFAULT: u32 = 1_000_000;
/// How many user ids there are for sandboxes, unless configured.
pub const UIDS_DEFAULT: u32 = 16_384;
/// How long one call of the engine's API may take, in seconds.
const API_TIMEOUT_S: u64 = 30;
/// How long the readings of a container may take.
const READING_MAX: Duration = Duration::from_secs(2);
/// How long the probe of a runtime may take.
const PROBE_MAX: Duration = Duration::from_secs(5);
/// The runtime that is probed for: a second kernel, in user space.
const PROBED_RUNTIME: &str = "runsc";
/// How long to wait for the end of a container that is being removed, and the time between two looks.
const REMOVAL_MAX: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);
/// A container this long past its deadline is removed whoever its owner is.
const EXPIRED_SLACK: Duration = Duration::from_secs(60);

/// Which engine it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Docker.
    Docker,
    /// Podman's service, which speaks the same API.
    Podman,
}

/// What the containers' files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Image {
    /// The host's `/usr`, `/bin`, `/lib`, read-only, over an image with nothing in it, which this backend makes.
    Host,
    /// An image that the engine has. Nothing is ever pulled.
    Named(String),
}

/// With what the engine runs the containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// What the engine uses by default.
    Default,
    /// `runsc` (gVisor) if the engine has it and a real sandbox works with it, else the default.
    Probe,
    /// This one.
    Named(String),
}

/// How to make containers.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Which engine answers.
    pub kind: Kind,
    /// Its Unix socket.
    pub socket: PathBuf,
    /// The executable that calls [`init::main`](crate::init::main) when started with `args`: usually this program.
    /// The engine must see it under the same path.
    pub program: PathBuf,
    /// Arguments that make it do so.
    pub args: Vec<String>,
    /// Directory for the lock file; made if missing.
    pub state_dir: PathBuf,
    /// What the containers' files are.
    pub image: Image,
    /// With what the engine runs them.
    pub runtime: Runtime,
    /// First user id of sandboxes.
    pub uid_base: u32,
    /// How many there are. A sandbox gets one by chance, so that what the kernel counts per user is seldom shared.
    pub uids: u32,
}

impl EngineConfig {
    /// The running program itself as the init, the host's files, and the engine's default runtime.
    ///
    /// # Errors
    /// If the program cannot find its own path.
    pub fn own_program(
        kind: Kind,
        socket: impl Into<PathBuf>,
        subcommand: &str,
        state_dir: impl Into<PathBuf>,
    ) -> Result<Self> {
        Ok(Self {
            kind,
            socket: socket.into(),
            program: std::env::current_exe().context("find the own program")?,
            args: vec![subcommand.to_owned()],
            state_dir: state_dir.into(),
            image: Image::Host,
            runtime: Runtime::Default,
            uid_base: UID_BASE_DEFAULT,
            uids: UIDS_DEFAULT,
        })
    }
}

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
        let inner = Inner {
            config,
            client,
            kit,
            instance,
            image: OnceCell::new(),
            runtime: OnceCell::new(),
        };
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
        let (id, spec) = (SandboxId::random()?, SandboxSpec::default());
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
            let starting = tokio::spawn(inner.start(id, spec, runtime));
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
        let name = container::name(&id, spec.owner.as_ref());
        let container = self.create(&name, &plan, spec.owner.as_ref()).await?;
        let remover = Remover { inner: Arc::clone(&self), container: Some(container.clone()) };
        let options =
            AttachContainerOptions { stream: true, stdin: true, stdout: true, stderr: true, ..Default::default() };
        let attached = self.client.attach_container(&container, Some(options)).await;
        let attached = attached.map_err(|error| failed("attach", &error))?;
        let started = self.client.start_container(&container, None::<StartContainerOptions>).await;
        started.map_err(|error| failed("start the container", &error))?;
        let exit = self.watch_exit(&container);
        let (input, mut output) = (stream::Demultiplexed::new(attached.output), attached.input);
        let setup = container::setup(&id, &spec);
        let told = frame::write(&mut output, &setup).await;
        told.map_err(|error| SandboxError::new(Code::BackendFailed, format!("the init does not listen: {error}")))?;
        let link = Link::open(input, output).await?;
        Ok(Launched { link, instance: Box::new(Container { remover, exit }) })
    }

    /// Creates the container. A name that is taken is waited for if it is being removed, and taken over if nobody
    /// owns it any more.
    async fn create(
        &self,
        name: &str,
        plan: &container::Plan<'_>,
        owner: Option<&Owner>,
    ) -> Result<String> {
        let limit = tokio::time::Instant::now() + REMOVAL_MAX;
        loop {
            let options = CreateContainerOptions { name: Some(name.to_owned()), ..Default::default() };
            match self.client.create_container(Some(options), plan.body()).await {
                Ok(created) => return Ok(created.id),
                Err(error) if status(&error) == Some(409) => {}
                // Podman says it this way.
                Err(error) if error.to_string().contains("already in use") => {}
                Err(error) => return Err(failed("create the container", &error)),
            }
            let found = self.client.inspect_container(name, None::<InspectContainerOptions>).await;
            // Podman's word for a container that has just ended ("stopped") is none of Docker's.
            if matches!(found, Err(EngineError::JsonDataError { .. })) {
                self.remove(name).await?;
            }
            let labels = found.ok().and_then(|found| found.config?.labels);
            let holder = labels.as_ref().and_then(|labels| labels.get(container::LABEL_INSTANCE));
            match holder {
                Some(holder) if Path::new(holder) == self.instance.path() => {} // ours, on its way out
                Some(holder) if !instance::is_alive(Path::new(holder)) => self.remove(name).await?,
                Some(_) => {
                    let whose = owner.map_or_else(|| "no owner".to_owned(), |owner| owner.tenant.clone());
                    let text = format!("another gateway has the sandbox of this user ({whose})");
                    return Err(SandboxError::new(Code::SandboxUnavailable, text));
                }
                None => {}
            }
            if tokio::time::Instant::now() > limit {
                return Err(SandboxError::new(Code::SandboxUnavailable, format!("the name {name} stays taken")));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Removes a container with all its processes and waits until it is gone.
    async fn remove(&self, container: &str) -> Result<()> {
        let limit = tokio::time::Instant::now() + STOP_MAX;
        loop {
            let options = RemoveContainerOptions { force: true, v: true, ..Default::default() };
            let last = match self.client.remove_container(container, Some(options)).await {
                Err(error) if status(&error) == Some(404) => return Ok(()),
                other => other.err(), // perhaps the engine removes it already: look again until it is gone
            };
            match self.client.inspect_container(container, None::<InspectContainerOptions>).await {
                Err(error) if status(&error) == Some(404) => return Ok(()),
                _ if tokio::time::Instant::now() > limit => {
                    let why = last.map_or_else(|| "it is still there".to_owned(), |error| error.to_string());
                    return Err(SandboxError::new(Code::BackendFailed, format!("remove the container: {why}")));
                }
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// The exit code of a container, when it comes.
    fn watch_exit(&self, container: &str) -> watch::Receiver<Option<i64>> {
        let (sender, receiver) = watch::channel(None);
        let (client, container) = (self.client.clone(), container.to_owned());
        tokio::spawn(async move {
            let options = WaitContainerOptions { condition: "not-running".to_owned() };
            let mut waiting = std::pin::pin!(client.wait_container(&container, Some(options)));
            let code = tokio::select! {
                answer = waiting.next() => match answer {
                    Some(Ok(answer)) => answer.status_code,
                    Some(Err(EngineError::DockerContainerWaitError { code, .. })) => code,
                    _ => return,
                },
                () = sender.closed() => return,
            };
            sender.send_replace(Some(code));
        });
        receiver
    }

    async fn list(&self, states: &[&str]) -> Result<Vec<ContainerSummary>> {
        let filters = HashMap::from([
            ("label".to_owned(), vec![container::LABEL_INSTANCE.to_owned()]),
            ("status".to_owned(), states.iter().map(|state| (*state).to_owned()).collect()),
        ]);
        let options = ListContainersOptions { all: true, filters: Some(filters), ..Default::default() };
        let found = self.client.list_containers(Some(options)).await;
        found.map_err(|error| failed("list the containers", &error))
    }

    async fn reap(&self) -> Result<usize> {
        instance::remove_dead(&self.config.state_dir, self.instance.path());
        let mut all = self.list(&["created", "running", "paused"]).await?;
        // A container that has just ended may be in a state that only Podman has a word for; next time it is another.
        all.extend(self.list(&["exited"]).await.unwrap_or_default());
        let mut reaped = 0;
        for found in all {
            let (Some(container), Some(labels)) = (found.id, found.labels) else { continue };
            let Some(holder) = labels.get(container::LABEL_INSTANCE) else { continue };
            let expires = labels.get(container::LABEL_EXPIRES).and_then(|text| text.parse().ok());
            let expired = expires.is_some_and(|at| now().saturating_sub(EXPIRED_SLACK) > Duration::from_secs(at));
            let alive = Path::new(holder) == self.instance.path() || instance::is_alive(Path::new(holder));
            if !expired && alive {
                continue;
            }
            match self.remove(&container).await {
                Ok(()) => reaped += 1,
                Err(error) => tracing::warn!(%error, container, "a dead sandbox's container does not go away"),
            }
        }
        Ok(reaped)
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A running container.
struct Container {
    remover: Remover,
    exit: watch::Receiver<Option<i64>>,
}

impl Instance for Container {
    fn reading(&self) -> BoxFuture<'_, Reading> {
        Box::pin(async {
            let Some(container) = &self.remover.container else { return Reading::default() };
            let options = StatsOptions { stream: false, one_shot: true };
            let mut stats = std::pin::pin!(self.remover.inner.client.stats(container, Some(options)));
            let Ok(Some(Ok(stats))) = tokio::time::timeout(READING_MAX, stats.next()).await else {
                return Reading::default();
            };
            let cpu_ns = stats.cpu_stats.and_then(|cpu| cpu.cpu_usage?.total_usage).unwrap_or(0);
            let memory_bytes = stats.memory_stats.and_then(|memory| memory.usage).unwrap_or(0);
            Reading { cpu_us: cpu_ns / 1000, memory_bytes }
        })
    }

    fn stop(mut self: Box<Self>) -> BoxFuture<'static, Result<End>> {
        Box::pin(async move {
            // What ended by itself has an exit code; what is removed here is told by that.
            let ended = *self.exit.borrow();
            if let Some(container) = self.remover.container.take() {
                self.remover.inner.remove(&container).await?;
            }
            Ok(match ended {
                Some(10) => End::Deadline,
                Some(11) => End::Failed,
                Some(0) | None => End::HostGone,
                Some(_) => End::Killed,
            })
        })
    }
}
