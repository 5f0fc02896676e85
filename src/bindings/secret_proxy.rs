//! A secret proxy as a binding: `env.GITHUB.fetch("https://api.github.com/…")`.
//!
//! ```text
//!  env.GITHUB.fetch(request) ─▶ the proxy of this tenant and name, as it is now ─▶ rule, credential, scrubbing: atoll_bindings::proxy
//! ```
//!
//! The binding holds a name and whose it is. The proxy is looked up at each use, so a changed rule, a new secret or a proxy that
//! was taken away counts for running workers at once.

use std::sync::Arc;

use atoll_bindings::body::RequestBody;
use atoll_bindings::channel::{CallContext, CallFuture, Channel};
use atoll_bindings::link::Grant;
use atoll_bindings::seam::CallError;
use serde::{Deserialize, Serialize};

use super::{Bound, Place, Under};
use crate::access::Access;
use crate::config::Name;
use crate::deploy::{DeployError, invalid};

/// Its settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretProxy {
    /// Name of the proxy: the operator's or the tenant's own.
    proxy: String,
}

impl SecretProxy {
    pub(super) fn check(&self, place: &Place<'_>) -> Result<(), DeployError> {
        if place.access.proxies.exists(place.tenant.name.as_str(), &self.proxy) {
            return Ok(());
        }
        Err(invalid("bindings", format!("there is no proxy {:?}", self.proxy)))
    }

    pub(super) fn bind(&self, place: &Place<'_>) -> Arc<dyn Bound> {
        Arc::new(Named(Arc::new(ByName {
            access: Arc::clone(place.access),
            tenant: place.tenant.name.clone(),
            proxy: self.proxy.clone(),
        })))
    }
}

struct Named(Arc<ByName>);

impl Bound for Named {
    fn grant(&self, under: Under<'_>) -> Grant {
        let channel = Arc::clone(&self.0) as Arc<dyn Channel>;
        Grant::Channel(under.trace.channel(&channel))
    }
}

/// The capability.
struct ByName {
    access: Arc<Access>,
    tenant: Name,
    proxy: String,
}

impl Channel for ByName {
    fn fetch(&self, context: CallContext, request: http::Request<RequestBody>) -> CallFuture {
        match self.access.proxies.find(self.tenant.as_str(), &self.proxy) {
            Some(live) => live.channel.fetch(context, request),
            None => Box::pin(async { Err(CallError::Denied("There is no such proxy.".to_owned())) }),
        }
    }

    fn name(&self) -> &str {
        &self.proxy
    }
}
