//! The service binding: `env.OTHER.fetch(request)`, `env.OTHER.method(…)`, another deployed worker.
//!
//! ```text
//!  OpenService ─▶ Service::open ─▶ routes: which version serves now ─▶ may this caller? ─▶ admission of the callee's tenant
//!                                                                                            │
//!       caller waits ◀── the host joins both ◀── Start of the callee, with its own record ◀──┘
//! ```
//!
//! The callee runs as it would for a client: its own code, `env`, limits, outbound access, logs and record, on its own
//! tenant's account; only its wall time is no longer than what the caller has left. Whom it is called by is decided here for each
//! call, so a deploy, a rollback, a deletion or a changed list of callers holds from the next call on.
//!
//! Workers of one tenant may call each other. Another tenant's worker must name the caller in its own deployment's
//! `allowCallers`; who is not named cannot tell whether the worker exists.

use std::sync::Arc;

use atoll_bindings::channel::CallContext;
use atoll_bindings::link::{self, Grant, Opening, Start, StartEvent};
use atoll_bindings::seam::CallError;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Bound, Place, Under};
use crate::admission::{Admission, Kind};
use crate::config::Name;
use crate::deploy::{DeployError, invalid};
use crate::dispatch::logs::WorkerLogs;
use crate::dispatch::record::Record;
use crate::dispatch::{Deployment, Invocation, Isolates};
use crate::observe::Observer;
use crate::router::Routes;

/// Largest `props` of one binding, as JSON, in bytes.
const PROPS_BYTES_MAX: usize = 16 * 1024;
/// Longest name of an entrypoint, in bytes.
const ENTRYPOINT_BYTES_MAX: usize = 128;
/// Most patterns in `allowCallers`.
pub(crate) const CALLERS_MAX: usize = 100;

/// Its settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// `WORKER` of the same tenant, or `TENANT/WORKER`.
    worker: String,
    /// Which of its entrypoints; the default export by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    entrypoint: Option<String>,
    /// `ctx.props` of the callee: an object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    props: Option<Value>,
}

impl Service {
    pub(super) fn check(&self) -> Result<(), DeployError> {
        if self.target("a").is_none() {
            return Err(invalid("bindings", format!("{:?} is not WORKER or TENANT/WORKER", self.worker)));
        }
        if self.entrypoint.as_ref().is_some_and(|name| name.is_empty() || name.len() > ENTRYPOINT_BYTES_MAX) {
            return Err(invalid("bindings", "`entrypoint` is not a usable name"));
        }
        match &self.props {
            None => Ok(()),
            Some(props) if !props.is_object() => Err(invalid("bindings", "`props` must be an object")),
            Some(props) if props.to_string().len() > PROPS_BYTES_MAX => {
                Err(invalid("bindings", format!("`props` is larger than {PROPS_BYTES_MAX} bytes")))
            }
            Some(_) => Ok(()),
        }
    }

    pub(super) fn bind(&self, place: &Place<'_>) -> Arc<dyn Bound> {
        let target = self.target(place.tenant.name.as_str());
        // A name that was stored was checked before; one that is none leads nowhere.
        let (tenant, worker) = target.unwrap_or_else(|| (String::new(), String::new()));
        Arc::new(Bond(Arc::new(Callee {
            services: Arc::clone(place.services),
            caller: Caller { tenant: place.tenant.name.shared(), worker: place.worker.into() },
            tenant,
            worker,
            entrypoint: self.entrypoint.clone().filter(|name| name != "default"),
            props: self.props.as_ref().map(Value::to_string),
        })))
    }

    /// (tenant, worker), if both are names.
    fn target(&self, own: &str) -> Option<(String, String)> {
        let (tenant, worker) = self.worker.split_once('/').unwrap_or((own, &self.worker));
        (Name::parse(tenant).is_some() && Name::parse(worker).is_some())
            .then(|| (tenant.to_owned(), worker.to_owned()))
    }
}

/// Who may call a worker besides those of its own tenant: `TENANT/WORKER` or `TENANT/*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerPattern {
    tenant: Name,
    /// `None`: all of them.
    worker: Option<Name>,
}

impl CallerPattern {
    /// Reads one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (tenant, worker) = text.split_once('/')?;
        let worker = match worker {
            "*" => None,
            name => Some(Name::parse(name)?),
        };
        Some(Self { tenant: Name::parse(tenant)?, worker })
    }

    fn covers(&self, caller: &Caller) -> bool {
        self.tenant.as_str() == &*caller.tenant
            && self.worker.as_ref().is_none_or(|worker| worker.as_str() == &*caller.worker)
    }
}

/// Who calls.
#[derive(Clone, Debug)]
struct Caller {
    tenant: Arc<str>,
    worker: Arc<str>,
}

/// Whether a worker of `tenant` with this list answers this caller.
fn allows(tenant: &str, list: &[CallerPattern], caller: &Caller) -> bool {
    tenant == &*caller.tenant || list.iter().any(|pattern| pattern.covers(caller))
}

/// What all service bindings need of the gateway.
pub struct Services {
    pub(crate) routes: Arc<Routes>,
    pub(crate) admission: Admission,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) isolates: Arc<dyn Isolates>,
}

struct Bond(Arc<Callee>);

impl Bound for Bond {
    fn grant(&self, _under: Under<'_>) -> Grant {
        Grant::Service(self.0.clone())
    }
}

/// The capability: one entrypoint of one worker, for one caller.
struct Callee {
    services: Arc<Services>,
    caller: Caller,
    tenant: String,
    worker: String,
    entrypoint: Option<String>,
    props: Option<String>,
}

impl link::Service for Callee {
    fn open(&self, context: CallContext, opening: Opening) {
        let (start, sink, record) = match self.begin(&context) {
            Ok(begun) => begun,
            Err(error) => return opening.refuse(error),
        };
        // If the link is down, everything on it is answered already, and the record says so.
        if let Ok(invocation) = Invocation::begun(opening.start(start), sink, record) {
            invocation.finish_in_background(None);
        }
    }

    fn name(&self) -> &str {
        "service"
    }
}

impl Callee {
    fn begin(&self, context: &CallContext) -> Result<(Start, WorkerLogs, Record), CallError> {
        let deployment = self.find()?;
        let Services { admission, observer, isolates, .. } = &*self.services;
        let tenant = deployment.tenant.shared();
        // The callee comes to its caller's process: not if its own tenant is to wait, or the two must not meet there.
        let suspended = isolates.suspended_ms(&tenant).is_some();
        if suspended || !isolates.may_share(&self.caller.tenant, &tenant) {
            return Err(busy());
        }
        let permit = admission.enter(&deployment.tenant, Kind::Warm).map_err(|denied| {
            observer.denied(&tenant, denied);
            busy()
        })?;
        let trace = observer.begin(&headers(context.identity.traceparent.as_deref()));
        let worker = deployment.worker.shared();
        let mut record = Record::new(
            observer.clone(),
            tenant.clone(),
            worker.clone(),
            "service",
            trace.parent.clone(),
            permit,
        );
        let start = Start {
            entrypoint: self.entrypoint.clone(),
            props: self.props.clone(),
            ..deployment.start(StartEvent::Session, &trace)
        };
        record.runs(&start);
        let observer = observer.clone();
        Ok((start, WorkerLogs { tenant, worker, trace, ring: deployment.logs.clone(), observer }, record))
    }

    /// The version that serves now, if this caller may know of it.
    fn find(&self) -> Result<Arc<Deployment>, CallError> {
        let found = self.services.routes.worker(&self.tenant, &self.worker);
        let found = found.filter(|found| allows(&self.tenant, &found.allow_callers, &self.caller));
        found.ok_or_else(|| {
            CallError::Denied(if self.tenant == *self.caller.tenant {
                format!("There is no worker {:?}. (service_missing)", self.worker)
            } else {
                format!(
                    "There is no worker \"{}/{}\", or it does not allow this caller. (service_not_granted)",
                    self.tenant, self.worker
                )
            })
        })
    }
}

/// The callee's tenant has no place left. A caller of another tenant learns no more than that.
fn busy() -> CallError {
    CallError::Denied("The worker takes no more calls now. (service_busy)".to_owned())
}

/// The caller's place in its trace, as a client would say it.
fn headers(traceparent: Option<&str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(value) = traceparent.and_then(|text| HeaderValue::try_from(text).ok()) {
        headers.insert(HeaderName::from_static("traceparent"), value);
    }
    headers
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn caller(tenant: &str, worker: &str) -> Caller {
        Caller { tenant: tenant.into(), worker: worker.into() }
    }

    fn patterns(list: &[&str]) -> Vec<CallerPattern> {
        list.iter().map(|text| CallerPattern::parse(text).unwrap()).collect()
    }

    #[test]
    fn another_tenant_must_be_named() {
        for (list, who, allowed) in [
            (&[][..], ("acme", "a"), true),
            (&[], ("other", "a"), false),
            (&["other/a"], ("other", "a"), true),
            (&["other/a"], ("other", "ab"), false),
            (&["other/a"], ("others", "a"), false),
            (&["x/y", "other/*"], ("other", "anything"), true),
            (&["other/*"], ("acme2", "a"), false),
        ] {
            let caller = caller(who.0, who.1);
            assert_eq!(allows("acme", &patterns(list), &caller), allowed, "{list:?} {who:?}");
        }
    }

    #[test]
    fn patterns_that_say_too_much_or_nothing_are_refused() {
        for bad in ["", "*", "*/*", "*/a", "a", "a/", "/a", "a/b/c", "A/b", "a/b*", "a/**", "a b/c"] {
            assert_eq!(CallerPattern::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn settings_are_checked() {
        let service = |worker: &str, entrypoint: Option<&str>, props: Option<Value>| Service {
            worker: worker.into(),
            entrypoint: entrypoint.map(Into::into),
            props,
        };
        for good in ["a", "acme/a"] {
            assert!(service(good, Some("X"), Some(serde_json::json!({}))).check().is_ok(), "{good}");
        }
        for bad in ["", "/a", "a/", "a/b/c", "A", "a/*"] {
            assert!(service(bad, None, None).check().is_err(), "{bad}");
        }
        assert!(service("a", Some(""), None).check().is_err());
        assert!(service("a", None, Some(serde_json::json!([1]))).check().is_err());
        assert!(
            service("a", None, Some(serde_json::json!({ "x": "x".repeat(PROPS_BYTES_MAX) })))
                .check()
                .is_err()
        );
    }

    proptest! {
        /// Whatever the list says, nobody gets in whose tenant it does not name.
        #[test]
        fn only_named_tenants_get_in(
            list in proptest::collection::vec(("[a-d]", "[a-d*]"), 0..6),
            who in ("[a-f]", "[a-f]"),
        ) {
            let texts: Vec<String> = list.iter().map(|(tenant, worker)| format!("{tenant}/{worker}")).collect();
            let patterns: Vec<CallerPattern> = texts.iter().filter_map(|text| CallerPattern::parse(text)).collect();
            let named = texts.iter().any(|text| *text == format!("{}/{}", who.0, who.1) || *text == format!("{}/*", who.0));
            prop_assert_eq!(allows("own", &patterns, &caller(&who.0, &who.1)), named);
        }
    }
}
