//! The server: listeners, connections, requests, and an orderly end.
//!
//! ```text
//! accept ─▶ TLS? ─▶ HTTP/1 behind the guard │ HTTP/2 ─▶ serve ─┬─▶ worker: admission ▸ dispatch
//!                                                              └─▶ control API
//! Serving ──shutdown──▶ Draining (no accept, running requests finish) ──done or time out──▶ Closed
//! ```

pub mod body;
mod conn;
mod cron;
mod guard;
mod head;
mod headers;
pub(crate) mod linger;
mod preview;
mod serve;
mod socket;
#[cfg(test)]
mod tests;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use atoll_bindings::crossing::Witness;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

/// For the fuzz targets: how the guard reads a request.
#[doc(hidden)]
pub mod fuzzing {
    /// Whether these bytes are a request head that is let through.
    #[must_use]
    pub fn head(bytes: &[u8]) -> bool {
        super::head::check(bytes).is_ok()
    }

    /// The size in a chunk-size line.
    #[must_use]
    pub fn chunk_size(line: &[u8]) -> Option<u64> {
        super::head::chunk_size(line).ok()
    }
}

pub(crate) use cron::fire;
pub(crate) use serve::{host_fault, limit_text};
pub use tls::TlsError;

use crate::access::{Access, AccessError};
use crate::admission::{Admission, Denied, Kind, Permit};
use crate::audit::Audit;
use crate::bindings::Services;
use crate::config::{Config, Name};
use crate::deploy::outbound::Outbound;
use crate::deploy::{DeployError, Deployer, Reach};
use crate::dispatch::Isolates;
use crate::dispatch::steps::Steps;
use crate::kv::{Kv, KvError};
use crate::observe::Observer;
use crate::route::runner::StepRunner;
use crate::router::Routes;
use crate::sandboxes::Sandboxes;
use crate::store::{Store, StoreError};
use tls::Tls;

/// Pause after a failed accept: without it, running out of file descriptors would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often a draining server looks whether everything ended.
const DRAIN_LOOK: Duration = Duration::from_millis(10);
/// Connections that may wait in the kernel until they are accepted.
const BACKLOG: u32 = 4_096;

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The stored deployments cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Secrets, tokens or signing keys cannot be had.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The key-value store cannot be opened.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// The audit log cannot be opened.
    #[error("cannot open the audit log: {0}")]
    Audit(std::io::Error),
    /// A stored deployment cannot be restored.
    #[error(transparent)]
    Deploy(#[from] DeployError),
}

/// The life of the server, as connections see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Serving,
    Draining,
    Closed,
}

/// Everything a request needs.
pub(crate) struct Gateway {
    pub(crate) config: Config,
    pub(crate) isolates: Arc<dyn Isolates>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) admission: Admission,
    pub(crate) audit: Audit,
    pub(crate) routes: Arc<Routes>,
    pub(crate) deployer: Deployer,
    pub(crate) access: Arc<Access>,
    pub(crate) draining: watch::Receiver<Phase>,
    pub(crate) steps: Steps,
    /// The container sandboxes; `None` if there are none.
    pub(crate) sandboxes: Option<Arc<Sandboxes>>,
}

impl Gateway {
    /// Lets a request in, or tells everybody why not.
    pub(crate) fn admit(&self, tenant: &Name, kind: Kind) -> Result<Permit, Denied> {
        let admitted = match self.isolates.suspended_ms(tenant.as_str()) {
            None => self.admission.enter(tenant, kind),
            Some(left_ms) => {
                let retry_after_s = u32::try_from(left_ms.div_ceil(1_000)).unwrap_or(u32::MAX);
                Err(Denied::Suspended { retry_after_s })
            }
        };
        admitted.inspect_err(|denied| {
            self.observer.denied(tenant.as_str(), *denied);
            self.audit.refused(&tenant.shared(), denied.code());
        })
    }
}

/// A running server. Dropping it stops it without ceremony; [`Server::shutdown`] drains it.
pub struct Server {
    addresses: Vec<SocketAddr>,
    phase: watch::Sender<Phase>,
    connections: Arc<Semaphore>,
    connections_max: u32,
    drain_timeout: Duration,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    gateway: Arc<Gateway>,
}

impl Server {
    /// Opens the store, restores what was deployed, listens.
    pub async fn start(
        config: Config,
        isolates: Arc<dyn Isolates>,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, StartError> {
        let audit = open_audit(&config).await?;
        Self::start_with(config, audit, isolates, observer, None, None).await
    }

    /// The same with a log that is open already, with something that runs steps in sandboxes, and with the sandboxes themselves.
    pub async fn start_with(
        config: Config,
        audit: Audit,
        isolates: Arc<dyn Isolates>,
        observer: Arc<dyn Observer>,
        runner: Option<Arc<dyn StepRunner>>,
        sandboxes: Option<Arc<Sandboxes>>,
    ) -> Result<Self, StartError> {
        let tls = config.tls.clone().map(Tls::load).transpose()?.map(Arc::new);
        let store = Store::open(&config.data_dir).await?;
        let kv = Kv::open(&config.data_dir).await?;
        let routes = Arc::new(Routes::default());
        let witness: Arc<dyn Witness> =
            Arc::new(crate::observe::Crossings { observer: observer.clone(), audit: audit.clone() });
        if let Some(sandboxes) = &sandboxes {
            sandboxes.tell_to(witness.clone(), audit.clone());
        }
        let policies = config.tenants.values().map(|tenant| (tenant.name.clone(), tenant.policy));
        let admission = Admission::new(config.admission, policies, audit.clone());
        let services = Services {
            routes: routes.clone(),
            admission: admission.clone(),
            observer: observer.clone(),
            isolates: isolates.clone(),
        };
        let outbound = Arc::new(Outbound::new(&config, witness.clone())?);
        let access =
            Arc::new(Access::open(&config, outbound.clone(), observer.clone(), witness.clone()).await?);
        audit.sign_with(Arc::new(crate::observe::Checkpoints {
            issuer: access.issuer.clone(),
            observer: observer.clone(),
        }));
        let reach = Reach {
            kv,
            services: Arc::new(services),
            outbound,
            access: access.clone(),
            witness,
            sandboxes: sandboxes.clone(),
        };
        let deployer = Deployer::new(&config, store, reach);
        deployer.restore().await?;
        let (phase, draining) = watch::channel(Phase::Serving);
        let connections_max = u32::try_from(config.http.connections_max).unwrap_or(u32::MAX);
        let (listen, drain_timeout) = (config.listen.clone(), config.http.drain_timeout);
        let steps = Steps::new(runner);
        let gateway = Arc::new(Gateway {
            config,
            isolates,
            observer,
            admission,
            audit,
            routes,
            deployer,
            access,
            draining,
            steps,
            sandboxes,
        });
        if let Some(sandboxes) = &gateway.sandboxes {
            sandboxes.serve_for(&gateway);
        }
        let mut server = Self {
            addresses: Vec::new(),
            phase,
            connections: Arc::new(Semaphore::new(connections_max as usize)),
            connections_max,
            drain_timeout,
            tasks: Vec::new(),
            gateway,
        };
        for address in listen {
            server.listen(address, tls.clone())?;
        }
        if let Some(tls) = tls {
            server.tasks.push(tokio::spawn(watch_certificate(tls)));
        }
        server.tasks.push(tokio::spawn(server.gateway.access.issuer.clone().refresh()));
        server.tasks.push(tokio::spawn(server.gateway.access.clone().follow()));
        server.tasks.push(tokio::spawn(cron::run(server.gateway.clone())));
        Ok(server)
    }

    /// The addresses listened on, with the ports that were picked.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The first of them.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// The audit log, to be closed when nothing is left that could write to it.
    #[must_use]
    pub fn audit(&self) -> Audit {
        self.gateway.audit.clone()
    }

    /// Stops accepting, lets running requests finish for the configured time, then closes what is left. Returns
    /// whether everything finished.
    pub async fn shutdown(mut self) -> bool {
        self.phase.send_replace(Phase::Draining);
        for task in self.tasks.drain(..) {
            task.abort();
        }
        let quiet = async {
            // Every connection holds one permit: with all of them, none is left.
            let all = self.connections.acquire_many(self.connections_max).await;
            // Answered requests may still have work of their own (`waitUntil`).
            while self.gateway.admission.in_flight() > 0 {
                tokio::time::sleep(DRAIN_LOOK).await;
            }
            drop(all);
        };
        let finished = tokio::time::timeout(self.drain_timeout, quiet).await.is_ok();
        self.phase.send_replace(Phase::Closed);
        finished
    }

    fn listen(&mut self, address: SocketAddr, tls: Option<Arc<Tls>>) -> Result<(), StartError> {
        let fail = |source| StartError::Listen { address, source };
        let socket =
            if address.is_ipv4() { tokio::net::TcpSocket::new_v4() } else { tokio::net::TcpSocket::new_v6() };
        let socket = socket.map_err(fail)?;
        socket.set_reuseaddr(true).map_err(fail)?;
        socket.bind(address).map_err(fail)?;
        let listener = socket.listen(BACKLOG).map_err(fail)?;
        self.addresses.push(listener.local_addr().map_err(fail)?);
        let accept =
            accept(listener, tls, self.gateway.clone(), self.connections.clone(), self.phase.subscribe());
        self.tasks.push(tokio::spawn(accept));
        Ok(())
    }
}

/// Opens the audit log that the configuration asks for. It reads the last file to its end: not on a thread that moves bytes.
pub async fn open_audit(config: &Config) -> Result<Audit, StartError> {
    let (folder, settings, prices) = (config.data_dir.clone(), config.audit, config.cost.clone());
    match tokio::task::spawn_blocking(move || Audit::open(&folder, settings, prices)).await {
        Ok(opened) => opened.map_err(StartError::Audit),
        Err(error) => Err(StartError::Audit(std::io::Error::other(error))),
    }
}

/// A name for an execution that nobody else has: this process's own random half, then a number.
pub(crate) fn execution_id() -> Arc<str> {
    static PROCESS: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    format!("{:016x}{number:016x}", PROCESS.get_or_init(random_u64)).into()
}

impl Drop for Server {
    fn drop(&mut self) {
        self.phase.send_replace(Phase::Closed);
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn accept(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    gateway: Arc<Gateway>,
    connections: Arc<Semaphore>,
    phase: watch::Receiver<Phase>,
) {
    loop {
        // First a place, then the connection: what has no place waits in the kernel.
        let Ok(place) = connections.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, address)) => {
                let connection = conn::run(gateway.clone(), tls.clone(), stream, address, phase.clone());
                tokio::spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn watch_certificate(tls: Arc<Tls>) {
    loop {
        tokio::time::sleep(tls::RELOAD_INTERVAL).await;
        let tls = tls.clone();
        match tokio::task::spawn_blocking(move || tls.reload()).await {
            Ok(Ok(true)) => tracing::info!("certificate reloaded"),
            Ok(Err(error)) => tracing::warn!(%error, "the new certificate cannot be used; the old one stays"),
            Ok(Ok(false)) | Err(_) => {}
        }
    }
}

/// Eight bytes from the system's generator.
pub(crate) fn random_u64() -> u64 {
    getrandom::u64().unwrap_or_else(|_| {
        // Without entropy nothing can be unguessable: there is no sensible way to go on.
        std::process::abort()
    })
}
