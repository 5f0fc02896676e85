//! The container sandboxes of this gateway, one per tenant and user, for everybody who uses them.
//!
//! ```text
//!  POST /v1/execute ── steps.rs ────┐
//!  /v1/sandboxes, env.SANDBOX ──────┼─▶ Sandboxes ─▶ Manager (the bridge) ─▶ sandbox ── 127.0.0.1:3128
//!  preview of a port, by its token ─┘       │                                              │
//!                                        Life, one per sandbox: ports, way out ◀── egress.rs
//! ```
//!
//! A sandbox is the tenant's, whoever asks: the owner is made of the tenant that the gateway knows and the user that the caller
//! names, so no caller can name another tenant's. What belongs to one sandbox beyond what the bridge knows (exposed ports, the
//! way out) is its [`Life`], which begins before anybody can use the sandbox and ends with it.

mod bills;
mod egress;
mod lives;
mod steps;
mod tunnel;
mod within;

use std::path::Path;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use atoll_bindings::crossing::{Unwitnessed, Witness};
use atoll_container_bridge::backend::{Backend, SandboxSpec};
use atoll_container_bridge::engine::{Engine, EngineConfig, Image, Kind, Runtime};
use atoll_container_bridge::error::{Code, SandboxError};
use atoll_container_bridge::limits::EGRESS_PORT;
use atoll_container_bridge::manager::{Description, Lease, Manager, ManagerConfig, Owner, Usage};
use atoll_container_bridge::native::{Native, NativeConfig};
use atoll_container_bridge::sandbox::Sandbox;
use dashmap::DashMap;
use tokio::sync::Mutex;

use crate::audit::Audit;
use crate::config::{Config, SandboxBackend, SandboxConfig};
use crate::observe::Observer;
use crate::server::Gateway;

pub(crate) use bills::sum;
pub use egress::Outlet;
pub(crate) use lives::{Exposed, Life};
pub(crate) use within::Rights;

use bills::Bills;
use lives::Lives;

/// The hidden argument with which this program becomes the init of a sandbox.
pub const INIT_ARGUMENT: &str = "sandbox-init";
/// Where below the data directory the sandboxes' state is.
const STATE_FOLDER: &str = "sandboxes";
/// How long the way out may take to be there.
const EGRESS_OPEN: Duration = Duration::from_secs(10);
/// Longest name of a user, in bytes.
const USER_BYTES_MAX: usize = 128;

/// Whether a user may be called so: 1 to 128 visible ASCII characters, and not what a URL takes for a way up.
#[must_use]
pub(crate) fn is_user(user: &str) -> bool {
    !matches!(user, "" | "." | "..")
        && user.len() <= USER_BYTES_MAX
        && user.bytes().all(|b| b.is_ascii_graphic())
}

/// Where previews of ports answer.
#[derive(Clone, Debug)]
pub(crate) struct PreviewBase {
    /// `http` or `https`.
    pub(crate) scheme: &'static str,
    /// The gateway's domain.
    pub(crate) domain: String,
    /// `:port`, or nothing for the scheme's own.
    pub(crate) port: String,
}

impl PreviewBase {
    fn of(config: &Config) -> Self {
        let scheme = if config.tls.is_some() { "https" } else { "http" };
        let port = config.listen.first().map_or(0, std::net::SocketAddr::port);
        let plain = matches!((scheme, port), ("http", 80) | ("https", 443) | (_, 0));
        let port = if plain { String::new() } else { format!(":{port}") };
        Self { scheme, domain: config.base_domain.clone(), port }
    }
}

/// The sandboxes of this gateway.
pub struct Sandboxes {
    bills: Arc<Bills>,
    /// Writes them down.
    keeping: tokio::task::JoinHandle<()>,
    manager: Manager,
    spec: SandboxSpec,
    idle: Duration,
    /// Whose step runs: an entry per user with a step under way or waiting.
    turns: DashMap<Owner, Arc<Mutex<()>>>,
    lives: Arc<Lives>,
    preview: PreviewBase,
    /// Set once, by the server.
    witness: OnceLock<Arc<dyn Witness>>,
    /// The same: what answers for the gateway's own hosts inside.
    gateway: OnceLock<Weak<Gateway>>,
}

impl std::fmt::Debug for Sandboxes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sandboxes").field("alive", &self.manager.list().len()).finish_non_exhaustive()
    }
}

impl Sandboxes {
    /// Ready to make sandboxes, if the configuration has any; removes what an earlier process left.
    ///
    /// # Errors
    /// If the state directory cannot be made or read, or bounds cannot be set on this machine.
    pub async fn start(config: &Config, observer: Arc<dyn Observer>) -> Result<Option<Self>, SandboxError> {
        let Some(settings) = &config.sandbox else { return Ok(None) };
        let backend = backend(settings, &config.data_dir.join(STATE_FOLDER)).await?;
        let idle = Duration::from_secs(settings.idle_s.into());
        let bounds = ManagerConfig {
            sandboxes_max: settings.sandboxes_max,
            sandboxes_per_tenant_max: settings.sandboxes_per_tenant_max,
            idle,
        };
        let bills = Arc::new(Bills::open(&config.data_dir).await?);
        let lives = Arc::new(Lives::new(observer, Arc::clone(&bills)));
        let told = Arc::clone(&lives);
        let manager = Manager::new(backend, bounds, move |event| told.on(event)).await?;
        let spec = SandboxSpec { limits: settings.limits(), ..SandboxSpec::default() };
        let (turns, preview) = (DashMap::new(), PreviewBase::of(config));
        let keeping = tokio::spawn(Arc::clone(&bills).keep(manager.clone()));
        Ok(Some(Self {
            bills,
            keeping,
            manager,
            spec,
            idle,
            turns,
            lives,
            preview,
            witness: OnceLock::new(),
            gateway: OnceLock::new(),
        }))
    }

    /// Ends all sandboxes.
    pub async fn stop(&self) {
        self.manager.destroy_all().await;
        self.bills.flush(&self.manager).await;
    }

    /// The owner's sandbox, made if there is none. With `outlet`, what runs in it gets that way out, from now on.
    pub(crate) async fn acquire(&self, owner: &Owner, outlet: Option<Outlet>) -> Result<Lease, SandboxError> {
        let lease = match self.manager.acquire(owner, &self.spec).await {
            // Its time was over just now: the next one is new.
            Err(error) if error.code == Code::SandboxGone => self.manager.acquire(owner, &self.spec).await,
            other => other,
        }?;
        if let Some(outlet) = outlet {
            let life = self.life(&lease)?;
            if life.stand(outlet)
                && let Err(error) = self.lead_out(&lease, &life).await
            {
                // The next use tries again.
                life.fall();
                return Err(error);
            }
        }
        Ok(lease)
    }

    /// Opens the way out, and says where it is to every command from now on.
    async fn lead_out(&self, lease: &Lease, life: &Arc<Life>) -> Result<(), SandboxError> {
        self.open_egress(lease, life).await?;
        let mut env: std::collections::BTreeMap<_, _> =
            within::VARIABLES.map(|name| (name.to_owned(), None)).into();
        // What an earlier way out had, and this one has not, is gone.
        env.extend(egress::variables(life).map(|(name, value)| (name, Some(value))));
        lease.set_env(env).await
    }

    /// The owner's sandbox, if there is one.
    pub(crate) async fn find(&self, owner: &Owner) -> Result<Lease, SandboxError> {
        self.manager.find(owner).await
    }

    /// Ends the owner's sandbox and waits until nothing of it is left.
    pub(crate) async fn destroy(&self, owner: &Owner) -> Result<(), SandboxError> {
        self.manager.describe(owner)?;
        self.manager.destroy(owner).await;
        Ok(())
    }

    /// The owner's sandbox from outside.
    pub(crate) fn describe(&self, owner: &Owner) -> Result<Description, SandboxError> {
        self.manager.describe(owner)
    }

    /// The users of a tenant that have a sandbox, in order.
    pub(crate) fn users(&self, tenant: &str) -> Vec<String> {
        let all = self.manager.list().into_iter().filter(|(owner, _)| owner.tenant == tenant);
        let mut users: Vec<String> = all.map(|(owner, _)| owner.user).collect();
        users.sort_unstable();
        users
    }

    /// What the owner's sandbox has used up to now.
    pub(crate) async fn usage(&self, owner: &Owner) -> Result<Usage, SandboxError> {
        self.manager.usage(owner).await
    }

    /// What the owner's sandboxes that are over have used, also before the gateway started.
    pub(crate) fn spent(&self, owner: &Owner) -> Usage {
        self.lives.spent(owner)
    }

    /// What belongs to a leased sandbox.
    pub(crate) fn life(&self, lease: &Lease) -> Result<Arc<Life>, SandboxError> {
        let gone = || SandboxError::new(Code::SandboxGone, "the sandbox has just ended");
        self.lives.get(lease.id().as_str()).ok_or_else(gone)
    }

    /// What belongs to the owner's sandbox, if there is one.
    pub(crate) fn life_of(&self, owner: &Owner) -> Option<Arc<Life>> {
        self.lives.get(self.manager.describe(owner).ok()?.id.as_str())
    }

    /// Lets a port be seen from outside; the same port has the same token until it is hidden.
    pub(crate) fn expose(
        &self,
        life: &Arc<Life>,
        port: u16,
        name: Option<String>,
    ) -> Result<Exposed, SandboxError> {
        self.lives.expose(life, port, name)
    }

    /// Hides a port again; whether it was exposed.
    pub(crate) fn hide(&self, life: &Life, port: u16) -> bool {
        self.lives.hide(life, port)
    }

    /// The sandbox and the port that a preview's token stands for.
    pub(crate) async fn preview(&self, token: &str) -> Option<(Lease, Arc<Life>, u16)> {
        let (life, port) = self.lives.preview(token)?;
        let lease = self.manager.find(life.owner()).await.ok()?;
        // A successor of the sandbox is another one.
        (lease.id().as_str() == life.id()).then_some((lease, life, port))
    }

    /// Who makes them, and the walls that it could not build so far.
    pub(crate) fn backend(&self) -> (&'static str, Vec<&'static str>) {
        self.manager.backend()
    }

    /// Where previews answer.
    pub(crate) fn preview_base(&self) -> &PreviewBase {
        &self.preview
    }

    /// Where uses are told.
    pub(crate) fn witness(&self) -> Arc<dyn Witness> {
        self.witness.get().cloned().unwrap_or_else(|| Arc::new(Unwitnessed))
    }

    /// From now on, uses and lives are told here.
    pub(crate) fn tell_to(&self, witness: Arc<dyn Witness>, audit: Audit) {
        let _first_wins = self.witness.set(witness);
        self.lives.tell_to(audit);
    }

    /// From now on, this one answers for its own hosts inside.
    pub(crate) fn serve_for(&self, gateway: &Arc<Gateway>) {
        let _first_wins = self.gateway.set(Arc::downgrade(gateway));
    }

    /// Whether this sandbox is alive, this user's, and may use the proxy now.
    pub(crate) fn may_use(&self, tenant: &str, user: &str, id: &str, proxy: &str) -> bool {
        self.lives.get(id).is_some_and(|life| {
            let Owner { tenant: its, user: whose } = life.owner();
            its == tenant && whose == user && life.may_use(proxy)
        })
    }

    /// All that one sandbox can write, in bytes.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.spec.limits.disk_bytes
    }

    /// Longest time without use.
    pub(crate) fn idle(&self) -> Duration {
        self.idle
    }

    /// Lets what runs inside reach its proxy, which asks the life for what it may; once per sandbox.
    async fn open_egress(&self, lease: &Lease, life: &Arc<Life>) -> Result<(), SandboxError> {
        if life.begins_to_serve() {
            let (sandbox, life) = (Sandbox::clone(lease), Arc::clone(life));
            let gateway = self.gateway.get().cloned().unwrap_or_default();
            tokio::spawn(async move {
                let asked = Arc::clone(&life);
                let served = sandbox
                    .serve_egress(move |stream| egress::serve(Arc::clone(&asked), gateway.clone(), stream))
                    .await;
                life.serves_no_more();
                if let Err(error) = served
                    && error.code != Code::OperationInterrupted
                {
                    tracing::warn!(%error, sandbox = life.id(), "a sandbox has no way out");
                }
            });
        }
        lease.wait_for_port(EGRESS_PORT, EGRESS_OPEN).await
    }
}

impl Drop for Sandboxes {
    fn drop(&mut self) {
        // It holds the manager, whose end is the end of all sandboxes.
        self.keeping.abort();
    }
}

/// What the configuration names as the maker of sandboxes.
async fn backend(config: &SandboxConfig, state_dir: &Path) -> Result<Arc<dyn Backend>, SandboxError> {
    let (kind, socket) = match config.backend {
        SandboxBackend::Native => {
            let mut native = NativeConfig::own_program(INIT_ARGUMENT, state_dir)?;
            native.allow_no_cgroup = config.allow_unbounded;
            return Ok(Arc::new(Native::new(native)?));
        }
        SandboxBackend::Kubernetes => return cluster(config, state_dir).await,
        SandboxBackend::Docker => (Kind::Docker, "/var/run/docker.sock"),
        SandboxBackend::Podman => (Kind::Podman, "/run/podman/podman.sock"),
    };
    let options = &config.engine;
    let socket = options.socket.clone().unwrap_or_else(|| socket.into());
    let mut engine = EngineConfig::own_program(kind, socket, INIT_ARGUMENT, state_dir)?;
    engine.image = options.image.clone().map_or(Image::Host, Image::Named);
    engine.runtime = match options.runtime.as_deref() {
        None => Runtime::Default,
        Some("probe") => Runtime::Probe,
        Some(name) => Runtime::Named(name.to_owned()),
    };
    Ok(Arc::new(Engine::connect(engine).await?))
}

#[cfg(feature = "kubernetes")]
async fn cluster(config: &SandboxConfig, state_dir: &Path) -> Result<Arc<dyn Backend>, SandboxError> {
    use atoll_container_bridge::kubernetes::{Access, Kubernetes, KubernetesConfig, Pull, Toleration, Wall};

    use crate::config::{NetworkPolicy, PullPolicy};
    let missing = || SandboxError::new(Code::InvalidArgument, "[sandbox.kubernetes] is missing");
    let options = config.kubernetes.clone().ok_or_else(missing)?;
    let command = vec![options.program, INIT_ARGUMENT.to_owned()];
    let mut pods = KubernetesConfig::own_program(options.namespace, options.image, command, state_dir)?;
    if let Some(path) = options.kubeconfig {
        pods.access = Access::File(path, options.context);
    }
    pods.agent_image = options.agent_image;
    pods.pull = match options.image_pull_policy {
        PullPolicy::Always => Pull::Always,
        PullPolicy::IfNotPresent => Pull::IfNotPresent,
        PullPolicy::Never => Pull::Never,
    };
    pods.pull_secret = options.image_pull_secret;
    pods.runtime_class = options.runtime_class;
    pods.node_selector = options.node_selector;
    let taint = |taint: crate::config::Toleration| Toleration {
        key: taint.key,
        value: taint.value,
        effect: taint.effect,
    };
    pods.tolerations = options.tolerations.into_iter().map(taint).collect();
    pods.warm_pool = options.warm_pool;
    pods.wall = match options.network_policy {
        NetworkPolicy::Create => Wall::Policy,
        NetworkPolicy::External => Wall::External,
    };
    Ok(Arc::new(Kubernetes::connect(pods).await?))
}

#[cfg(not(feature = "kubernetes"))]
async fn cluster(_config: &SandboxConfig, _state_dir: &Path) -> Result<Arc<dyn Backend>, SandboxError> {
    Err(SandboxError::new(Code::Unsupported, "this build has no Kubernetes (cargo feature `kubernetes`)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_plain_names() {
        for good in ["a", "user-1@example.com", "...", "a/b"] {
            assert!(is_user(good), "{good}");
        }
        for bad in ["", ".", "..", "a b", "a\n", "ä", "a\0", &"x".repeat(USER_BYTES_MAX + 1)] {
            assert!(!is_user(bad), "{bad:?}");
        }
    }
}
