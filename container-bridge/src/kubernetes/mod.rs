//! Sandboxes as pods of a Kubernetes cluster: by way of agent-sandbox (`agents.x-k8s.io`) where that is installed, else
//! plain.
//!
//! ```text
//!  launch ─▶ create Sandbox, Pod or SandboxClaim ─▶ watch until the pod runs ─▶ exec "init --relay" ─▶ frames
//!                │ pod.rs                              │ state.rs, check.rs         │ over a WebSocket
//!                └── no token, no network, no root     └── all its walls?           └── its end is the pod's lifeline: the
//!                                                                                       relay ends, the init leaves
//!  guard, one task per sandbox: waits for its end from whatever side, then removes it
//! ```
//!
//! The object's name is made from its owner, so the cluster itself refuses a second sandbox for one owner, also when
//! another gateway asks. A running pod has a living gateway: without one it ends. So what nobody needs is told by the
//! objects themselves ([`state`]): pods that have ended, that never started, whose time is over, and those of an earlier
//! process of this gateway ([`instance`]).
//!
//! Clocks that end a sandbox, from inside out: the init's own deadline, this gateway's, `activeDeadlineSeconds`, and
//! agent-sandbox's `shutdownTime`.
//!
//! A network policy denies all traffic. It is made and looked after here, and without it nothing starts; that the
//! cluster's network enforces policies cannot be seen from here.

mod access;
mod calls;
mod check;
mod config;
mod failure;
mod guard;
mod instance;
mod pod;
mod state;
mod wall;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

pub use config::{Access, KubernetesConfig, Pull, Toleration, UID_BASE, UIDS, Wall};
use kube::Client;

use crate::{
    backend::{Backend, BoxFuture, Launched, SandboxId, SandboxSpec},
    error::{Code, Result, SandboxError},
    frame,
    kit::Kit,
    link::Link,
    owned,
    protocol::{Disk, Root},
};
use guard::Exec;
use pod::Shape;
use state::Found;

/// The backend for a cluster.
#[derive(Clone)]
pub struct Kubernetes(Arc<Inner>);

struct Inner {
    client: Client,
    config: KubernetesConfig,
    kit: Kit,
    instance: instance::Instance,
    /// Tells this process from an earlier one of the same name.
    incarnation: SandboxId,
    /// What the cluster serves; the last is what sandboxes are asked for as.
    shapes: Vec<Shape>,
    /// Whether the network is denied, as of the last look.
    walled: Mutex<bool>,
    /// Names of the sandboxes that this process holds.
    held: Mutex<HashSet<String>>,
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Kubernetes {
    /// Reaches the cluster, asks what it serves, and denies the sandboxes' network.
    ///
    /// # Errors
    /// If it does not answer, does not know this program, or the configuration is wrong. That the network cannot be
    /// denied is no error here, but one of each launch, until it can.
    pub async fn connect(config: KubernetesConfig) -> Result<Self> {
        config.check()?;
        let kit = Kit::of(&config.program)?;
        let instance = instance::Instance::take(&config.state_dir)?;
        let client = access::client(&config.access).await?;
        let walled = Mutex::new(config.wall == Wall::External);
        let (incarnation, held) = (SandboxId::random()?, Mutex::default());
        let shapes = vec![Shape::Pod];
        let mut inner = Inner { client, config, kit, instance, incarnation, shapes, walled, held };
        if inner.serves(Shape::Sandbox).await? {
            inner.shapes.push(Shape::Sandbox);
        }
        if let Some(pool) = &inner.config.warm_pool {
            if !inner.serves(Shape::Claim).await? {
                let text =
                    format!("the warm pool {pool} needs the extensions of agent-sandbox in the cluster");
                return Err(SandboxError::new(Code::Unsupported, text));
            }
            inner.shapes.push(Shape::Claim);
        }
        if let Err(error) = inner.wall().await {
            tracing::error!(%error, "sandboxes would have a network; none is made");
        }
        Ok(Self(Arc::new(inner)))
    }
}

impl Backend for Kubernetes {
    fn name(&self) -> &'static str {
        "kubernetes"
    }

    fn launch<'a>(&'a self, id: &'a SandboxId, spec: &'a SandboxSpec) -> BoxFuture<'a, Result<Launched>> {
        Box::pin(async move {
            // A task of its own: when nobody waits any more, it still goes on to where the pod can be removed.
            let (inner, id, spec) = (Arc::clone(&self.0), id.clone(), spec.clone());
            let starting = tokio::spawn(async move { inner.start(&id, &spec).await });
            starting.await.unwrap_or_else(|_| {
                Err(SandboxError::new(Code::OperationInterrupted, "the start was dropped"))
            })
        })
    }

    fn reap(&self) -> BoxFuture<'_, Result<usize>> {
        Box::pin(self.0.reap())
    }

    fn missing(&self) -> Vec<&'static str> {
        if *lock(&self.0.walled) { Vec::new() } else { vec!["network_policy"] }
    }
}

/// An object of the cluster that this process holds.
struct Held {
    inner: Arc<Inner>,
    shape: Shape,
    id: SandboxId,
    /// Its name, from when it is asked for: whether it came about may be unknown.
    name: String,
    found: Option<Found>,
}

impl Held {
    async fn remove(mut self) -> Result<()> {
        let found = match self.found.take() {
            Some(found) => Some(found),
            None => self.inner.find(self.shape, &self.name, &self.id).await?,
        };
        match found {
            Some(found) => self.inner.remove(self.shape, &found).await,
            None => Ok(()),
        }
    }
}

impl Drop for Held {
    /// From here on it is nobody's: a reaper finds what could not be removed.
    fn drop(&mut self) {
        lock(&self.inner.held).remove(self.id.as_str());
        let (Some(found), Ok(runtime)) = (self.found.take(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        let (inner, shape) = (Arc::clone(&self.inner), self.shape);
        runtime.spawn(async move {
            if let Err(error) = inner.remove(shape, &found).await {
                tracing::warn!(%error, name = found.name, "a sandbox was not removed from the cluster");
            }
        });
    }
}

impl Inner {
    async fn start(self: Arc<Self>, id: &SandboxId, spec: &SandboxSpec) -> Result<Launched> {
        spec.limits.check()?;
        if spec.root != Root::Host || spec.disk != Disk::Memory {
            let text = "pods have the files of the configured image, and a disk in memory";
            return Err(SandboxError::new(Code::Unsupported, text));
        }
        if !*lock(&self.walled) {
            self.wall().await?;
        }
        let shape = self.shapes.last().copied().unwrap_or(Shape::Pod);
        lock(&self.held).insert(id.as_str().to_owned());
        let name = owned::name(id, spec.owner.as_ref());
        let mut held = Held { inner: Arc::clone(&self), shape, id: id.clone(), name, found: None };
        let way = Mutex::new(None);
        let open = self.open(&mut held, spec, &way);
        let opened = tokio::time::timeout(self.config.start_max, open).await.unwrap_or_else(|_| {
            let late = || SandboxError::new(Code::SandboxUnavailable, "the pod did not start in time");
            Err(lock(&way).take().unwrap_or_else(late))
        });
        match opened {
            Ok((link, process, deadline)) => Ok(guard::guarded(held, link, process, deadline)),
            Err(error) => {
                if let Err(error) = held.remove().await {
                    tracing::warn!(%error, "a sandbox that did not start was not removed from the cluster");
                }
                Err(error)
            }
        }
    }

    /// From nothing to a link. What is made on the way is noted in `held`.
    async fn open(
        &self,
        held: &mut Held,
        spec: &SandboxSpec,
        way: &Mutex<Option<SandboxError>>,
    ) -> Result<(Link, Exec, Instant)> {
        let (id, shape, name) = (held.id.clone(), held.shape, held.name.clone());
        let plan = pod::Plan {
            config: &self.config,
            kit: &self.kit,
            id: &id,
            spec,
            instance: self.instance.name(),
            incarnation: &self.incarnation,
            now: now(),
        };
        let uid = self.create(&name, &plan, shape).await?;
        held.found = Some(Found::created(&name, &uid, &id));
        let pod = self.running(&id, &name, shape, way).await?;
        *lock(way) = None; // what stood in the way does not any more
        let pod = pod.metadata.name.unwrap_or_default();
        let relay = if shape == Shape::Claim { self.pool_relay() } else { plan.relay() };
        let mut process = self.exec(&pod, relay).await?;
        let (Some(mut input), Some(output)) = (process.stdin(), process.stdout()) else {
            return Err(SandboxError::new(Code::BackendFailed, "an exec without streams"));
        };
        let mut exec = Exec::new(process);
        // Before the init's own clock, which ends it: what ends later has reached its deadline.
        let deadline = Instant::now() + Duration::from_millis(spec.limits.lifetime_ms);
        let told = frame::write(&mut input, &owned::setup(&id, spec)).await;
        told.map_err(|error| {
            SandboxError::new(Code::BackendFailed, format!("the init does not listen: {error}"))
        })?;
        let link = tokio::select! {
            biased; // a reason that the init gives is better than that the exec is over
            link = Link::open(output, input) => link?,
            text = &mut exec.over => return Err(SandboxError::new(Code::BackendFailed, text)),
        };
        Ok((link, exec, deadline))
    }

    /// Pods of a pool have the program in their own image.
    fn pool_relay(&self) -> Vec<String> {
        let relay = crate::init::relay::RELAY.to_owned();
        self.config.command.iter().cloned().chain([relay]).collect()
    }
}
