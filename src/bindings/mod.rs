//! Bindings: what a deployment asks for in its `env` beside plain values, and what that becomes.
//!
//! ```text
//!  settings (JSON) ──serde──▶ Binding ──check──▶ stored ──bind──▶ Bound ──grant, per invocation──▶ Grant on the seam
//! ```
//!
//! A [`Binding`] is a wish: names and options, checked when it is deployed. A [`Bound`] is the object behind it, made once per
//! served version, which knows whose it is. What it may reach is decided here and never taken from a guest's arguments.
//!
//! To add a kind: a file with its settings (a struct with `deny_unknown_fields`), a `check` and a `bind`; one arm in the enum and
//! in each of its matches; its shape in `openapi.json`.

pub(crate) mod identity;
pub(crate) mod kv;
mod logger;
mod sandbox;
mod secret_proxy;
mod service;

use std::collections::BTreeMap;
use std::sync::Arc;

use atoll_bindings::crossing::Witness;
use atoll_bindings::link::Grant;
use atoll_loader::bundle::CodeHash;
use atoll_loader::limits::Limits;
use serde::{Deserialize, Serialize};

pub use service::{CallerPattern, Services};

pub(crate) use service::CALLERS_MAX;

use crate::access::Access;
use crate::config::{Name, Tenant};
use crate::deploy::outbound::Outbound;
use crate::deploy::{DeployError, invalid};
use crate::dispatch::trace::Trace;
use crate::kv::Kv;
use crate::sandboxes::Sandboxes;

/// Bindings of one deployment.
pub const BINDINGS_MAX: usize = 100;

/// One binding, as the control API and the store write it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Binding {
    /// Structured log lines.
    Logger(logger::Logger),
    /// Linux sandboxes of the tenant's users.
    Sandbox(sandbox::Sandbox),
    /// Another deployed worker.
    Service(service::Service),
    /// A namespace of the key-value store.
    Kv(kv::KvNamespace),
    /// Requests with a credential that the guest does not see.
    SecretProxy(secret_proxy::SecretProxy),
    /// Signed statements of who the invocation is.
    Identity(identity::Identity),
}

impl Binding {
    /// Refuses what makes no sense, or what this tenant may not have.
    fn check(&self, place: &Place<'_>) -> Result<(), DeployError> {
        match self {
            Self::Logger(logger) => logger.check(),
            Self::Sandbox(sandbox) => sandbox.check(place),
            Self::Service(service) => service.check(),
            Self::Kv(kv) => kv.check(),
            Self::SecretProxy(proxy) => proxy.check(place),
            Self::Identity(identity) => identity.check(),
        }
    }

    /// The object behind it.
    fn bind(&self, place: &Place<'_>) -> Arc<dyn Bound> {
        match self {
            Self::Logger(logger) => logger.bind(),
            Self::Sandbox(sandbox) => sandbox.bind(place),
            Self::SecretProxy(proxy) => proxy.bind(place),
            Self::Identity(identity) => identity.bind(place),
            Self::Service(service) => service.bind(place),
            Self::Kv(kv) => kv.bind(place),
        }
    }

    /// Makes what it names, where that is not there before it is first named.
    async fn prepare(&self, place: &Place<'_>) -> Result<(), DeployError> {
        match self {
            Self::Logger(_)
            | Self::Service(_)
            | Self::Sandbox(_)
            | Self::SecretProxy(_)
            | Self::Identity(_) => Ok(()),
            Self::Kv(kv) => kv.prepare(place).await,
        }
    }
}

/// Bindings by their names in `env`.
pub type Bindings = BTreeMap<String, Binding>;

/// What stands behind the bindings of one version, by their names in `env`.
pub(crate) type BoundNames = Vec<(Arc<str>, Arc<dyn Bound>)>;

/// For whom bindings are made.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// Who deploys, pays and is blamed.
    pub tenant: &'a Tenant,
    /// The worker's name, or an execution's id.
    pub worker: &'a str,
    /// The server's sandboxes, if it has any.
    pub(crate) sandboxes: Option<&'a Arc<Sandboxes>>,
    /// What makes channels to the outside.
    pub(crate) outbound: &'a Outbound,
    /// The egress class that its `fetch()` is under.
    pub egress: Option<&'a str>,
    /// Secrets, proxies and identities.
    pub(crate) access: &'a Arc<Access>,
    /// What leads to other workers.
    pub services: &'a Arc<Services>,
    /// The key-value store.
    pub(crate) kv: &'a Kv,
    /// To whom uses are told.
    pub(crate) witness: &'a Arc<dyn Witness>,
}

/// Under which invocation something is granted.
#[derive(Clone, Copy)]
pub struct Under<'a> {
    /// Whose.
    pub tenant: &'a Name,
    /// Its place in its trace.
    pub trace: &'a Trace,
    /// The code that runs.
    pub code: CodeHash,
    /// What it may use.
    pub limits: &'a Limits,
}

/// What a binding became for one version of a worker.
pub trait Bound: Send + Sync {
    /// What one invocation gets. Always of the same form: a warm isolate remembers it from its first invocation.
    fn grant(&self, under: Under<'_>) -> Grant;
}

/// Checks all bindings of a deployment.
pub(crate) fn check(bindings: &Bindings, place: &Place<'_>) -> Result<(), DeployError> {
    if bindings.len() > BINDINGS_MAX {
        return Err(invalid("bindings", format!("at most {BINDINGS_MAX} are allowed")));
    }
    bindings.values().try_for_each(|binding| binding.check(place))
}

/// Makes what stands behind each.
pub(crate) fn bind(bindings: &Bindings, place: &Place<'_>) -> BoundNames {
    bindings.iter().map(|(name, binding)| (name.as_str().into(), binding.bind(place))).collect()
}

/// Makes what bindings of a new version name.
pub(crate) async fn prepare(bindings: &Bindings, place: &Place<'_>) -> Result<(), DeployError> {
    for binding in bindings.values() {
        binding.prepare(place).await?;
    }
    Ok(())
}
