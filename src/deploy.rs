//! From checked code and settings to a stored version and a serving deployment.
//!
//! Store and routes change under one lock, in this order: first what is at rest, then what serves.

pub(crate) mod outbound;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use atoll_bindings::channel::Channel;
use atoll_bindings::crossing::Witness;
use atoll_bindings::egress::EgressSetupError;
use atoll_loader::bundle::Bundle;
use atoll_loader::limits::Limits;
use atoll_loader::{CheckConfig, DecodeError};
use croner::parser::{CronParser, Seconds, Year};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::access::Access;
use crate::bindings::{self, Bindings, BoundNames, CALLERS_MAX, CallerPattern, Place, Services};
use crate::config::{Config, Name, Tenant};
use crate::dispatch::logs::LogRing;
use crate::dispatch::{Deployment, Isolates, Var};
use crate::kv::{Kv, KvError};
use crate::router::Routes;
use crate::sandboxes::Sandboxes;
use crate::store::{NewVersion, Store, StoreError, Version};
use outbound::Outbound;

/// Cron expressions of one worker.
pub const CRONS_MAX: usize = 10;
/// Custom host names of one worker.
pub const HOSTS_MAX: usize = 20;
/// Outbound host patterns of one worker.
pub const OUTBOUND_MAX: usize = 100;
/// Names in a worker's `env`.
pub const VARS_MAX: usize = 128;
/// Longest name in a worker's `env`, in bytes.
const VAR_NAME_BYTES_MAX: usize = 128;

/// Why a worker could not be deployed or changed.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// The store failed or refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The stored code does not decode.
    #[error("stored code of {worker}: {source}")]
    Decode {
        /// Whose code.
        worker: String,
        /// Why.
        source: DecodeError,
    },
    /// The stored settings do not parse.
    #[error("stored settings of {worker}: {source}")]
    Settings {
        /// Whose settings.
        worker: String,
        /// Why.
        source: serde_json::Error,
    },
    /// Outbound access cannot be set up.
    #[error(transparent)]
    Egress(#[from] EgressSetupError),
    /// What the operator says of outbound access cannot be used.
    #[error("configuration key `outbound.{key}`: {reason}")]
    Outbound {
        /// Which key.
        key: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The key-value store failed or refused.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// A setting that makes no sense.
    #[error("`{field}`: {reason}")]
    Invalid {
        /// Which setting.
        field: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A setting this tenant may not use.
    #[error("`{field}`: {reason}")]
    Forbidden {
        /// Which setting.
        field: &'static str,
        /// Why not.
        reason: String,
    },
}

/// What a version is besides its code. Stored as JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Strings and JSON values of `env`.
    pub vars: BTreeMap<String, Value>,
    /// Names of Worker Loaders in `env`.
    pub loaders: Vec<String>,
    /// Further bindings in `env`.
    pub bindings: Bindings,
    /// Patterns of hosts that `fetch()` may reach.
    pub outbound: Vec<String>,
    /// Name of the policy class that `fetch()` is under.
    pub egress: Option<String>,
    /// Cron expressions.
    pub crons: Vec<String>,
    /// Custom host names.
    pub hosts: Vec<String>,
    /// Who may call it besides the workers of its own tenant.
    pub allow_callers: Vec<String>,
    /// What one invocation may use, already capped by the tenant's limits.
    pub limits: Limits,
}

/// What bindings lead to.
pub(crate) struct Reach {
    pub(crate) kv: Kv,
    pub(crate) services: Arc<Services>,
    pub(crate) outbound: Arc<Outbound>,
    pub(crate) access: Arc<Access>,
    /// To whom uses are told.
    pub(crate) witness: Arc<dyn Witness>,
    /// `None` if the server has none.
    pub(crate) sandboxes: Option<Arc<Sandboxes>>,
}

/// Deploys, rolls back, deletes.
pub(crate) struct Deployer {
    tenants: BTreeMap<Name, Arc<Tenant>>,
    store: Store,
    routes: Arc<Routes>,
    isolates: Arc<dyn Isolates>,
    reach: Reach,
    checks: CheckConfig,
    /// Only one change at a time, so that routes follow the store.
    change: tokio::sync::Mutex<()>,
    /// Console lines outlive versions.
    logs: Mutex<HashMap<(Name, Name), Arc<LogRing>>>,
}

impl Deployer {
    pub(crate) fn new(config: &Config, store: Store, reach: Reach) -> Self {
        let (routes, isolates) = (reach.services.routes.clone(), reach.services.isolates.clone());
        let (change, logs) = (tokio::sync::Mutex::default(), Mutex::default());
        let (tenants, checks) = (config.tenants.clone(), config.checks.clone());
        Self { tenants, store, routes, isolates, reach, checks, change, logs }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn kv(&self) -> &Kv {
        &self.reach.kv
    }

    /// What the operator asks of code that comes in.
    pub(crate) fn checks(&self) -> CheckConfig {
        self.checks.clone()
    }

    /// Brings back what was active.
    pub(crate) async fn restore(&self) -> Result<(), DeployError> {
        let _change = self.change.lock().await;
        for version in self.store.active(None).await? {
            let (Some(tenant), Some(worker)) = (self.tenant(&version.tenant), Name::parse(&version.worker))
            else {
                tracing::warn!(
                    tenant = version.tenant,
                    worker = version.worker,
                    "its tenant is not configured"
                );
                continue;
            };
            let bundle = self.load(&version).await?;
            self.serve(&tenant, worker, &version, bundle)?;
        }
        Ok(())
    }

    /// Stores a new version and lets it serve.
    pub(crate) async fn deploy(
        &self,
        tenant: &Tenant,
        worker: Name,
        bundle: Arc<Bundle>,
        settings: Settings,
    ) -> Result<Version, DeployError> {
        self.check(tenant, worker.as_str(), &settings)?;
        bindings::prepare(
            &settings.bindings,
            &self.place(tenant, worker.as_str(), settings.egress.as_deref()),
        )
        .await?;
        let _change = self.change.lock().await;
        let json = serde_json::to_string(&settings);
        let new = NewVersion {
            tenant: tenant.name.as_str().into(),
            worker: worker.as_str().into(),
            hash: bundle.hash(),
            encoded: bundle.encode(),
            settings: json.map_err(|source| DeployError::Settings { worker: worker.to_string(), source })?,
            hosts: settings.hosts,
            created_ms: now_ms(),
        };
        let version = self.store.deploy(new).await?;
        self.serve(tenant, worker, &version, bundle)?;
        Ok(version)
    }

    /// Lets an older version serve again.
    pub(crate) async fn rollback(
        &self,
        tenant: &Tenant,
        worker: Name,
        version: Option<u64>,
    ) -> Result<Version, DeployError> {
        let _change = self.change.lock().await;
        let hosts = |settings: &str| serde_json::from_str::<Settings>(settings).unwrap_or_default().hosts;
        let version = self.store.rollback(tenant.name.as_str(), worker.as_str(), version, hosts).await?;
        let bundle = self.load(&version).await?;
        self.serve(tenant, worker, &version, bundle)?;
        Ok(version)
    }

    /// Takes a worker away.
    pub(crate) async fn delete(&self, tenant: &Tenant, worker: &Name) -> Result<(), DeployError> {
        let _change = self.change.lock().await;
        self.store.delete(tenant.name.as_str(), worker.as_str()).await?;
        if let Some(old) = self.routes.remove(&tenant.name, worker) {
            self.isolates.evict(&old.isolate);
        }
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        logs.remove(&(tenant.name.clone(), worker.clone()));
        Ok(())
    }

    /// The channel behind `fetch()`, if the tenant may have what is wished for; `None` for none.
    pub(crate) fn outbound(
        &self,
        tenant: &Tenant,
        name: &str,
        class: Option<&str>,
        patterns: &[String],
    ) -> Result<Option<Arc<dyn Channel>>, DeployError> {
        self.reach.outbound.channel(tenant, name, class, patterns)
    }

    /// What stands behind the bindings of something that is not deployed.
    pub(crate) fn bind(
        &self,
        tenant: &Tenant,
        worker: &str,
        egress: Option<&str>,
        bindings: &Bindings,
    ) -> Result<BoundNames, DeployError> {
        bindings.keys().try_for_each(|name| check_var_name(name))?;
        let place = self.place(tenant, worker, egress);
        bindings::check(bindings, &place)?;
        Ok(bindings::bind(bindings, &place))
    }

    /// For whom bindings are made.
    fn place<'a>(&'a self, tenant: &'a Tenant, worker: &'a str, egress: Option<&'a str>) -> Place<'a> {
        Place {
            tenant,
            worker,
            egress: egress.or(tenant.egress.first().map(String::as_str)),
            access: &self.reach.access,
            services: &self.reach.services,
            kv: &self.reach.kv,
            witness: &self.reach.witness,
            sandboxes: self.reach.sandboxes.as_ref(),
            outbound: &self.reach.outbound,
        }
    }

    fn tenant(&self, name: &str) -> Option<Arc<Tenant>> {
        self.tenants.get(&Name::parse(name)?).cloned()
    }

    async fn load(&self, version: &Version) -> Result<Arc<Bundle>, DeployError> {
        let encoded = self.store.bundle(version.hash).await?;
        let decoded = Bundle::decode(encoded, version.hash);
        let worker = || format!("{}/{}", version.tenant, version.worker);
        Ok(Arc::new(decoded.map_err(|source| DeployError::Decode { worker: worker(), source })?))
    }

    fn serve(
        &self,
        tenant: &Tenant,
        worker: Name,
        version: &Version,
        bundle: Arc<Bundle>,
    ) -> Result<(), DeployError> {
        let settings: Settings = serde_json::from_str(&version.settings)
            .map_err(|source| DeployError::Settings { worker: worker.to_string(), source })?;
        let outbound =
            match self.outbound(tenant, worker.as_str(), settings.egress.as_deref(), &settings.outbound) {
                // The operator took the right or the class away after the deploy: the worker stays, without it.
                Err(DeployError::Forbidden { .. } | DeployError::Invalid { .. }) => None,
                outbound => outbound?,
            };
        let logs = {
            let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
            logs.entry((tenant.name.clone(), worker.clone())).or_default().clone()
        };
        let place = self.place(tenant, worker.as_str(), settings.egress.as_deref());
        let deployment = Arc::new(Deployment {
            isolate: isolate_name(version),
            tenant: tenant.name.clone(),
            version: version.version,
            bundle,
            vars: vars(&settings),
            bindings: bindings::bind(&settings.bindings, &place),
            outbound,
            // What was stored was checked.
            allow_callers: settings
                .allow_callers
                .iter()
                .filter_map(|text| CallerPattern::parse(text))
                .collect(),
            limits: settings.limits.lower_of(tenant.limits),
            crons: settings.crons,
            hosts: settings.hosts,
            logs,
            worker,
        });
        if let Some(old) = self.routes.switch(&deployment).filter(|old| old.isolate != deployment.isolate) {
            self.isolates.evict(&old.isolate);
        }
        Ok(())
    }

    fn check(&self, tenant: &Tenant, worker: &str, settings: &Settings) -> Result<(), DeployError> {
        bounded("crons", settings.crons.len(), CRONS_MAX)?;
        for cron in &settings.crons {
            parse_cron(cron).map_err(|error| invalid("crons", error))?;
        }
        bounded("hosts", settings.hosts.len(), HOSTS_MAX)?;
        for host in &settings.hosts {
            if !crate::config::is_host_name(host) {
                return Err(invalid("hosts", format!("{host:?} is not a lower-case host name")));
            }
            if !tenant.hosts.iter().any(|pattern| host_matches(pattern, host)) {
                let reason = format!("{host} does not belong to this tenant");
                return Err(DeployError::Forbidden { field: "hosts", reason });
            }
        }
        let names = settings.vars.len() + settings.loaders.len() + settings.bindings.len();
        bounded("vars", names, VARS_MAX)?;
        check_names(settings)?;
        let place = self.place(tenant, worker, settings.egress.as_deref());
        bindings::check(&settings.bindings, &place)?;
        bounded("allowCallers", settings.allow_callers.len(), CALLERS_MAX)?;
        for text in &settings.allow_callers {
            if CallerPattern::parse(text).is_none() {
                return Err(invalid("allowCallers", format!("{text:?} is not TENANT/WORKER or TENANT/*")));
            }
        }
        self.outbound(tenant, "check", settings.egress.as_deref(), &settings.outbound).map(|_| ())
    }
}

/// Tenant, worker, version and code name an isolate; the id keeps a worker that was deleted and deployed again
/// apart from the old one.
fn isolate_name(version: &Version) -> Arc<str> {
    format!("{}/{}/{}.{}/{}", version.tenant, version.worker, version.version, version.id, version.hash)
        .into()
}

fn check_names(settings: &Settings) -> Result<(), DeployError> {
    for (index, name) in settings.loaders.iter().enumerate() {
        if settings.vars.contains_key(name) || settings.loaders[..index].contains(name) {
            return Err(invalid("loaders", format!("{name:?} is there twice")));
        }
    }
    for name in settings.bindings.keys() {
        if settings.vars.contains_key(name) || settings.loaders.contains(name) {
            return Err(invalid("bindings", format!("{name:?} is there twice")));
        }
    }
    for name in settings.vars.keys().chain(&settings.loaders).chain(settings.bindings.keys()) {
        check_var_name(name)?;
    }
    Ok(())
}

/// Names of `env` are JavaScript identifiers of ASCII letters, and not the one that objects treat specially.
pub(crate) fn check_var_name(name: &str) -> Result<(), DeployError> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$');
    let first = name.as_bytes().first().is_some_and(|b| !b.is_ascii_digit());
    if !first || name.len() > VAR_NAME_BYTES_MAX || !name.bytes().all(legal) || name == "__proto__" {
        return Err(invalid("env", format!("{name:?} is not a usable name")));
    }
    Ok(())
}

fn vars(settings: &Settings) -> Vec<(Arc<str>, Var)> {
    let var = |(name, value): (&String, &Value)| (name.as_str().into(), to_var(value));
    let loader = |name: &String| (name.as_str().into(), Var::Loader);
    settings.vars.iter().map(var).chain(settings.loaders.iter().map(loader)).collect()
}

/// A string is a string; everything else is JSON.
pub(crate) fn to_var(value: &Value) -> Var {
    match value {
        Value::String(text) => Var::Text(text.clone()),
        other => Var::Json(other.to_string()),
    }
}

/// A cron expression of five fields, as Workers take them.
pub(crate) fn parse_cron(text: &str) -> Result<croner::Cron, croner::errors::CronError> {
    CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build().parse(text)
}

fn host_matches(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => host.strip_suffix(suffix).is_some_and(|front| !front.is_empty()),
        None => pattern == host,
    }
}

fn bounded(field: &'static str, count: usize, max: usize) -> Result<(), DeployError> {
    if count > max { Err(invalid(field, format!("at most {max} are allowed"))) } else { Ok(()) }
}

pub(crate) fn invalid(field: &'static str, reason: impl ToString) -> DeployError {
    DeployError::Invalid { field, reason: reason.to_string() }
}

pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_belong_to_patterns() {
        for (pattern, host, belongs) in [
            ("a.com", "a.com", true),
            ("a.com", "b.a.com", false),
            ("*.a.com", "b.a.com", true),
            ("*.a.com", "a.com", false),
            ("*.a.com", "ba.com", false),
        ] {
            assert_eq!(host_matches(pattern, host), belongs, "{pattern} {host}");
        }
    }

    #[test]
    fn crons_have_five_fields() {
        for good in ["* * * * *", "*/5 0 1 JAN MON-FRI", "0 0 L * *"] {
            assert!(parse_cron(good).is_ok(), "{good}");
        }
        for bad in ["", "* * * *", "* * * * * *", "61 * * * *", "x"] {
            assert!(parse_cron(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_of_env_are_identifiers() {
        for good in ["A", "_a1", "$x"] {
            assert!(check_var_name(good).is_ok(), "{good}");
        }
        for bad in ["", "1a", "a-b", "__proto__", "ä", "a b"] {
            assert!(check_var_name(bad).is_err(), "{bad}");
        }
    }
}
