//! Secret proxies by tenant and name: the operator's classes, and those that tenants define themselves.
//!
//! ```text
//!  [proxy.NAME] ─┐                      ┌─ secret: looked up at each use
//!  PUT /v1/… ────┴─▶ rule ─▶ SecretProxy┤─ connections, rates, minted credentials: of this tenant and proxy alone
//!                                       └─ egress class: must allow the request too
//! ```
//!
//! One is made when it is first used, and made again after its settings change. The operator's name wins over a tenant's.

pub mod settings;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use atoll_bindings::egress::{Gate, Grant};
use atoll_bindings::proxy::SecretProxy;
use http::Method;

use super::secrets::Vault;
use super::store::{AccessStore, KeepError};
use crate::config::{Config, Name, Tenant};
use crate::deploy::outbound::Outbound;
use settings::{BadSetting, Parsed, ProxySettings};

/// Why a proxy could not be kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyError {
    /// A setting makes no sense.
    #[error(transparent)]
    Setting(#[from] BadSetting),
    /// Something that this tenant may not do.
    #[error("`{field}`: {reason}")]
    Forbidden {
        /// Which setting.
        field: &'static str,
        /// Why not.
        reason: String,
    },
    /// The operator has one of this name.
    #[error("the operator has a proxy of this name")]
    Taken,
    /// The store failed or refused.
    #[error(transparent)]
    Keep(#[from] KeepError),
}

/// A proxy in use.
pub(crate) struct Live {
    /// `https://host[:port]`.
    pub(crate) base: String,
    /// The capability.
    pub(crate) channel: SecretProxy,
}

/// Whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Operator,
    Tenant,
}

type ByTenant<T> = HashMap<String, BTreeMap<String, T>>;

/// All of them.
pub(crate) struct Proxies {
    tenants: BTreeMap<Name, Arc<Tenant>>,
    operator: BTreeMap<Name, ProxySettings>,
    own: RwLock<ByTenant<ProxySettings>>,
    live: Mutex<ByTenant<Arc<Live>>>,
    outbound: Arc<Outbound>,
    vault: Arc<Vault>,
    store: AccessStore,
    /// One change at a time, so that the table follows the store.
    change: tokio::sync::Mutex<()>,
}

impl Proxies {
    pub(crate) async fn open(
        config: &Config,
        outbound: Arc<Outbound>,
        vault: Arc<Vault>,
        store: AccessStore,
    ) -> Result<Self, KeepError> {
        let mut own: ByTenant<ProxySettings> = HashMap::new();
        for (tenant, name, text) in store.proxies().await? {
            let settings = serde_json::from_str(&text).map_err(|_| KeepError::Damaged("a proxy"))?;
            own.entry(tenant).or_default().insert(name, settings);
        }
        Ok(Self {
            tenants: config.tenants.clone(),
            operator: config.proxies.clone(),
            own: RwLock::new(own),
            live: Mutex::default(),
            outbound,
            vault,
            store,
            change: tokio::sync::Mutex::default(),
        })
    }

    /// A tenant's proxies, the operator's for it first.
    pub(crate) fn list(&self, tenant: &str) -> Vec<(String, Owner, ProxySettings)> {
        let operator = self.operator.iter().filter(|(_, settings)| is_for(settings, tenant));
        let mut list: Vec<_> = operator
            .map(|(name, settings)| {
                // Who else has it is nobody's business.
                let settings = ProxySettings { tenants: Vec::new(), ..settings.clone() };
                (name.to_string(), Owner::Operator, settings)
            })
            .collect();
        let own = self.own.read().unwrap_or_else(PoisonError::into_inner);
        let own = own.get(tenant).into_iter().flatten();
        let shadowed = |name: &str| list.iter().any(|(other, ..)| other == name);
        let own: Vec<_> = own
            .filter(|(name, _)| !shadowed(name))
            .map(|(name, settings)| (name.clone(), Owner::Tenant, settings.clone()))
            .collect();
        list.extend(own);
        list
    }

    /// Whether the tenant has one of this name.
    pub(crate) fn exists(&self, tenant: &str, name: &str) -> bool {
        self.settings(tenant, name).is_some()
    }

    /// Keeps a tenant's own proxy; in force for the next use.
    pub(crate) async fn put(
        &self,
        tenant: &Tenant,
        name: &Name,
        settings: ProxySettings,
    ) -> Result<(), ProxyError> {
        if !settings.tenants.is_empty() {
            let reason = "is for the configuration only".to_owned();
            return Err(ProxyError::Forbidden { field: "tenants", reason });
        }
        if self.operator.get(name).is_some_and(|settings| is_for(settings, tenant.name.as_str())) {
            return Err(ProxyError::Taken);
        }
        let parsed = settings.parse()?;
        self.class(tenant, Owner::Tenant, &settings, &parsed)?;
        let _change = self.change.lock().await;
        let text = serde_json::to_string(&settings).map_err(|_| KeepError::Damaged("a proxy"))?;
        self.store.put_proxy(tenant.name.as_str(), name.as_str(), text).await?;
        let mut own = self.own.write().unwrap_or_else(PoisonError::into_inner);
        own.entry(tenant.name.to_string()).or_default().insert(name.to_string(), settings);
        drop(own);
        self.forget(tenant.name.as_str(), name.as_str());
        Ok(())
    }

    /// Takes a tenant's own proxy away.
    pub(crate) async fn delete(&self, tenant: &str, name: &str) -> Result<(), ProxyError> {
        let _change = self.change.lock().await;
        self.store.delete_proxy(tenant, name).await?;
        let mut own = self.own.write().unwrap_or_else(PoisonError::into_inner);
        own.get_mut(tenant).and_then(|proxies| proxies.remove(name));
        drop(own);
        self.forget(tenant, name);
        Ok(())
    }

    /// The proxy of this name, ready for use.
    pub(crate) fn find(&self, tenant: &str, name: &str) -> Option<Arc<Live>> {
        // The settings are read under the same lock under which a change forgets what was made from them.
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = live.get(tenant).and_then(|proxies| proxies.get(name)) {
            return Some(Arc::clone(found));
        }
        let (owner, settings) = self.settings(tenant, name)?;
        let tenant = self.tenants.get(&Name::parse(tenant)?)?;
        let made = Arc::new(self.make(tenant, name, owner, &settings)?);
        live.entry(tenant.name.to_string()).or_default().insert(name.to_owned(), Arc::clone(&made));
        Some(made)
    }

    fn settings(&self, tenant: &str, name: &str) -> Option<(Owner, ProxySettings)> {
        let operator = Name::parse(name).and_then(|name| self.operator.get(&name));
        if let Some(settings) = operator.filter(|settings| is_for(settings, tenant)) {
            return Some((Owner::Operator, settings.clone()));
        }
        let own = self.own.read().unwrap_or_else(PoisonError::into_inner);
        own.get(tenant)?.get(name).map(|settings| (Owner::Tenant, settings.clone()))
    }

    fn make(&self, tenant: &Tenant, name: &str, owner: Owner, settings: &ProxySettings) -> Option<Live> {
        let unusable = |error: &dyn std::fmt::Display| {
            tracing::error!(tenant = tenant.name.as_str(), proxy = name, %error, "a proxy cannot be used");
        };
        let parsed = settings.parse().inspect_err(|error| unusable(error)).ok()?;
        // The operator may have taken the class away since.
        let class = self.class(tenant, owner, settings, &parsed).inspect_err(|error| unusable(error)).ok()?;
        let (base, gate) = (parsed.base.clone(), Arc::new(Gate::new(parsed.caps)));
        let rule = Arc::new(parsed.rule(name));
        let source = Arc::clone(&self.vault) as Arc<_>;
        let channel = SecretProxy::new(self.outbound.net(), rule, gate, class, tenant.name.shared(), source);
        Some(Live { base, channel })
    }

    /// The class above a proxy. A tenant's own proxy is under the class that it names, else under the tenant's first one, and so
    /// is the endpoint where its credentials are made: a proxy is no way around the operator's policy.
    fn class(
        &self,
        tenant: &Tenant,
        owner: Owner,
        settings: &ProxySettings,
        parsed: &Parsed,
    ) -> Result<Option<Grant>, ProxyError> {
        let no = |reason: String| ProxyError::Forbidden { field: "egress", reason };
        let named = settings.egress.as_deref();
        let class = match owner {
            Owner::Operator => named,
            Owner::Tenant if !tenant.outbound => {
                return Err(no("this tenant has no outbound access".to_owned()));
            }
            Owner::Tenant => named.or(tenant.egress.first().map(String::as_str)),
        };
        let Some(class) = class else { return Ok(None) };
        let grant = match owner {
            Owner::Operator => self.outbound.operators_grant(tenant, class),
            Owner::Tenant => self.outbound.grant(tenant, class),
        };
        let grant = grant.map_err(|error| no(error.to_string()))?;
        if let Some(url) = parsed.minted_at().filter(|_| owner == Owner::Tenant) {
            let denied = grant.policies.iter().find_map(|policy| policy.check(&Method::POST, url).err());
            if let Some(denial) = denied {
                let reason = format!("the class does not allow the token endpoint ({})", denial.code());
                return Err(no(reason));
            }
        }
        Ok(Some(grant))
    }

    fn forget(&self, tenant: &str, name: &str) {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.get_mut(tenant).and_then(|proxies| proxies.remove(name));
    }
}

fn is_for(settings: &ProxySettings, tenant: &str) -> bool {
    settings.tenants.iter().any(|name| name == "*" || name == tenant)
}
