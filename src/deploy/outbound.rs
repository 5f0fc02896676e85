//! From configuration and a deployment's wishes to the channel behind its `fetch()`.
//!
//! ```text
//!  [egress.NAME] ─ policy, caps ─┐            one Gate per tenant and class: a tenant's deployments share its rates
//!  deployment: class, outbound ──┴─▶ Grant ─▶ Egress: connections of its own
//! ```

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use atoll_bindings::channel::Channel;
use atoll_bindings::crossing::Witness;
use atoll_bindings::egress::{
    Caps, Egress, EgressNet, Gate, Grant, HostPattern, Policy, PrivateAllow, Resolver,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::{DeployError, OUTBOUND_MAX, bounded, invalid};
use crate::config::{Config, EgressClass, Name, Tenant};

/// What outgoing requests share.
pub(crate) struct Outbound {
    net: EgressNet,
    classes: BTreeMap<String, EgressClass>,
    gates: Mutex<HashMap<(Name, String), Arc<Gate>>>,
}

impl Outbound {
    pub(crate) fn new(config: &Config, witness: Arc<dyn Witness>) -> Result<Self, DeployError> {
        let parse = |key, list: &[String]| {
            let one =
                |text: &String| text.parse().map_err(|_| DeployError::Outbound { key, reason: text.clone() });
            list.iter().map(one).collect::<Result<Vec<PrivateAllow>, _>>()
        };
        let allow = parse("allow_private", &config.allow_private)?;
        let deny = parse("deny_addresses", &config.deny_addresses)?;
        let mut roots = Vec::new();
        for path in &config.extra_roots {
            let unusable = |error: rustls::pki_types::pem::Error| DeployError::Outbound {
                key: "extra_roots",
                reason: format!("{}: {error}", path.display()),
            };
            for root in CertificateDer::pem_file_iter(path).map_err(unusable)? {
                roots.push(root.map_err(unusable)?);
            }
        }
        let resolver = if config.name_servers.is_empty() {
            Resolver::system()
        } else {
            let bad = |error: atoll_bindings::egress::ResolverSetupError| DeployError::Outbound {
                key: "name_servers",
                reason: error.to_string(),
            };
            Resolver::with_servers(&config.name_servers).map_err(bad)?
        };
        let net =
            EgressNet::new(allow, roots)?.with_denied(deny).with_resolver(resolver).with_witness(witness);
        Ok(Self { net, classes: config.egress.clone(), gates: Mutex::default() })
    }

    /// A channel for these wishes, if the tenant may have one; `None` if nothing was wished for.
    pub(crate) fn channel(
        &self,
        tenant: &Tenant,
        name: &str,
        class: Option<&str>,
        patterns: &[String],
    ) -> Result<Option<Arc<dyn Channel>>, DeployError> {
        if patterns.is_empty() && class.is_none() {
            return Ok(None);
        }
        if !tenant.outbound {
            let reason = "this tenant has no outbound access".to_owned();
            return Err(DeployError::Forbidden { field: "outbound", reason });
        }
        bounded("outbound", patterns.len(), OUTBOUND_MAX)?;
        let parse = |text: &String| text.parse().map_err(|error| invalid("outbound", error));
        let patterns: Vec<HostPattern> = patterns.iter().map(parse).collect::<Result<_, _>>()?;
        let class = class.or(tenant.egress.first().map(String::as_str));
        let mut policies = Vec::new();
        let (gate, class, tunnels) = match class {
            None => (Arc::new(Gate::new(Caps::default())), None, Arc::default()),
            Some(class) => {
                let grant = self.grant(tenant, class)?;
                policies.extend(grant.policies);
                (grant.gate, grant.class, grant.tunnels)
            }
        };
        if !patterns.is_empty() {
            policies.push(Policy::of(patterns));
        }
        let grant = Grant { policies, class, gate, tunnels };
        Ok(Some(Arc::new(Egress::granted(&self.net, grant, format!("{}/{name}", tenant.name)))))
    }

    /// How the outside is reached.
    pub(crate) fn net(&self) -> &EgressNet {
        &self.net
    }

    /// A class that the tenant may use.
    pub(crate) fn grant(&self, tenant: &Tenant, class: &str) -> Result<Grant, DeployError> {
        if !tenant.egress.iter().any(|own| own == class) {
            let reason = format!("this tenant may not use the class {class:?}");
            return Err(DeployError::Forbidden { field: "egress", reason });
        }
        self.operators_grant(tenant, class)
    }

    /// A class that the operator named for this tenant, in a proxy: the tenant may not use it for anything else.
    pub(crate) fn operators_grant(&self, tenant: &Tenant, class: &str) -> Result<Grant, DeployError> {
        let known = self.classes.get(class);
        let known = known.ok_or_else(|| invalid("egress", format!("there is no class {class:?}")))?;
        // The keys are configured tenants and classes, so the map is bounded.
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        let gate = gates.entry((tenant.name.clone(), class.to_owned()));
        let gate = Arc::clone(gate.or_insert_with(|| Arc::new(Gate::new(known.caps))));
        let tunnels = Arc::clone(&known.tunnels);
        Ok(Grant { policies: vec![known.policy.clone()], class: Some(class.into()), gate, tunnels })
    }
}
