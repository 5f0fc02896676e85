//! Sandboxes from a worker: `env.SANDBOX.get("ann").exec("make test")`.
//!
//! ```text
//!  env.SANDBOX ─ js/sandbox.js ─▶ fetch("http://sandbox/v1/sandboxes/ann/exec") ─Call─▶ Users ─▶ api/sandboxes.rs
//! ```
//!
//! The script speaks the API that clients speak, so both have the same rules, answers and errors. Whose sandboxes they are is
//! decided here: those of the tenant that deployed the worker. Each request is a subrequest of the invocation, its body flows
//! with credit, and it ends with the invocation: then so does the command behind it.

use std::sync::Arc;

use atoll_bindings::body::RequestBody;
use atoll_bindings::channel::{CallContext, CallFuture, Channel};
use atoll_bindings::crossing::ExecutionId;
use atoll_bindings::link::Grant;
use atoll_bindings::seam::ClientKind;
use serde::{Deserialize, Serialize};

use super::{Bound, Place, Under};
use crate::api::sandboxes::{self, Caller};
use crate::config::Name;
use crate::deploy::{DeployError, invalid};
use crate::sandboxes::{Outlet, Rights, Sandboxes};
use crate::server::body::ReplyBody;

/// Its settings: what the sandboxes that the worker uses may reach. Nothing, by default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sandbox {
    /// A policy class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    egress: Option<String>,
    /// Patterns of hosts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    outbound: Vec<String>,
    /// Secret proxies at `http://proxy.atoll/NAME/`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    proxies: Vec<String>,
    /// For whom its identities may be, at `http://identity.atoll/token`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    audiences: Vec<String>,
}

impl Sandbox {
    fn rights(&self) -> Rights {
        Rights { proxies: self.proxies.clone(), audiences: self.audiences.clone() }
    }

    pub(super) fn check(&self, place: &Place<'_>) -> Result<(), DeployError> {
        if place.sandboxes.is_none() {
            return Err(invalid("bindings", "this server has no sandboxes"));
        }
        self.rights().check(place.access, &place.tenant.name).map_err(|text| invalid("bindings", text))?;
        place.outbound.channel(place.tenant, place.worker, self.egress.as_deref(), &self.outbound).map(drop)
    }

    pub(super) fn bind(&self, place: &Place<'_>) -> Arc<dyn Bound> {
        let made = place.outbound.channel(place.tenant, place.worker, self.egress.as_deref(), &self.outbound);
        // The operator took the right away after the deploy: the sandboxes stay, without a way out.
        let channel = made.unwrap_or_default();
        let worker: Arc<str> = place.worker.into();
        let egress = Outlet::with(channel, self.rights(), &place.tenant.name, Arc::clone(&worker));
        Arc::new(Users {
            sandboxes: place.sandboxes.cloned(),
            tenant: place.tenant.name.clone(),
            worker,
            egress,
        })
    }
}

/// The capability: sandboxes of one tenant's users.
#[derive(Clone)]
struct Users {
    /// `None` if the operator took them away after the deploy.
    sandboxes: Option<Arc<Sandboxes>>,
    tenant: Name,
    worker: Arc<str>,
    egress: Option<Outlet>,
}

impl Bound for Users {
    fn grant(&self, under: Under<'_>) -> Grant {
        let channel: Arc<dyn Channel> = Arc::new(self.clone());
        // So that each use says of which execution it is.
        Grant::Client(ClientKind::Sandboxes, under.trace.channel(&channel))
    }
}

impl Channel for Users {
    fn fetch(&self, _context: CallContext, request: http::Request<RequestBody>) -> CallFuture {
        let users = self.clone();
        let execution = request.extensions().get::<ExecutionId>().map(|id| Arc::clone(&id.0));
        Box::pin(async move {
            let Some(sandboxes) = users.sandboxes else {
                return Ok(sandboxes::not_configured().response().map(into_reply));
            };
            let Users { tenant, worker, egress, .. } = users;
            let caller = Caller {
                sandboxes,
                tenant,
                worker,
                token: None,
                execution,
                egress,
                outlets: None,
                draining: None,
            };
            Ok(sandboxes::worker(caller, request).await.map(into_reply))
        })
    }

    fn name(&self) -> &str {
        "sandbox"
    }
}

fn into_reply(body: ReplyBody) -> RequestBody {
    match body {
        ReplyBody::Full(None) => RequestBody::Empty,
        ReplyBody::Full(Some(bytes)) => RequestBody::Full(bytes),
        ReplyBody::Stream(body) => RequestBody::Stream(body),
    }
}
