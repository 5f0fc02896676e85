//! What the log says: one shape per kind of record, as JSON. Nothing secret is in any of them: no body, no path, no query, no
//! header, no value of `env`; of a token only the beginning of its hash.

use std::collections::BTreeMap;
use std::sync::Arc;

use atoll_bindings::crossing::{Crossing, Minted, Verdict};
use atoll_loader::limits::Limits;
use serde::Serialize;

use super::files::Torn;
use super::flood::{Count, Counted, Deed};
use crate::deploy::now_ms;
use crate::observe::SandboxUsage;

/// Names of capabilities in one record; further ones are counted.
pub(crate) const GRANTED_MAX: usize = 64;

/// Tenants in the record of one isolate host; further ones are counted.
pub(crate) const TENANTS_MAX: usize = 256;

/// One record on its way to the log.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum Entry {
    /// An execution is over.
    Execution(Box<Execution>),
    /// A capability was used, or its use was denied.
    Crossing(Box<Crossed>),
    /// What one tenant did too often to be written one by one.
    Counted(Box<Many>),
    /// Something was changed through the control API.
    Control(Box<Control>),
    /// A sandbox was made, could not be made, or is over.
    Sandbox(Box<Sandbox>),
    /// An isolate host was lost or replaced.
    Host(Box<HostGone>),
    /// A tenant is under a penalty, or not any more.
    Penalty(Box<Penalised>),
}

/// The first line of a file.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Head<'a> {
    pub(super) kind: &'static str,
    pub(super) time: u64,
    /// The version of Atoll that writes.
    pub(super) version: &'static str,
    /// The log's id, the same in all of its files.
    pub(super) log: &'a str,
    pub(super) sealed: &'a [Torn],
}

/// Records that the operator allowed to be dropped.
#[derive(Debug, Serialize)]
pub(super) struct Lost {
    pub(super) kind: &'static str,
    pub(super) time: u64,
    pub(super) records: u64,
}

/// An execution: who, what code, with which rights and bounds, how it ended, what it used.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Execution {
    /// When it ended, in milliseconds since 1970.
    pub(crate) time: u64,
    pub(crate) id: Arc<str>,
    pub(crate) event: &'static str,
    pub(crate) tenant: Arc<str>,
    pub(crate) worker: Arc<str>,
    #[serde(flatten)]
    pub(crate) about: About,
    /// Calls on what it was granted, by the capability's name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) used: BTreeMap<String, u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limits: Option<Bounds>,
    pub(crate) outcome: &'static str,
    pub(crate) elapsed_us: u64,
    pub(crate) cpu_us: u64,
    pub(crate) wall_us: u64,
    pub(crate) heap_bytes_peak: u64,
    pub(crate) external_bytes_peak: u64,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
    #[serde(rename = "subRequests")]
    pub(crate) subrequests: u32,
    pub(crate) loads: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cost: Option<u64>,
    /// The id of its trace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trace: Option<String>,
}

/// What is known of an execution before it runs.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct About {
    /// SHA-256 of the code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<String>,
    /// The beginning of the SHA-256 of the token that asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<String>,
    /// For which of the tenant's users.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<Arc<str>>,
    /// In which sandbox it ran, and what that took beside CPU time.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(crate) step: Option<Stepped>,
    /// Where it ran, and which rule decided it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) route: Option<Routed>,
    /// The capabilities that it was given, as `name in env:capability`; `fetch` is the outbound one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) granted: Vec<String>,
    /// Further capabilities that it was given.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) granted_more: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde asks for")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// What a step took of its sandbox.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stepped {
    pub(crate) sandbox: Arc<str>,
    pub(crate) memory_byte_seconds: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

/// A decision of the router.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Routed {
    pub(crate) runtime: &'static str,
    pub(crate) rule: String,
}

/// The bounds of an execution.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Bounds {
    cpu_ms: u32,
    wall_ms: u32,
    heap_mib: u32,
    external_mib: u32,
    #[serde(rename = "subRequests")]
    subrequests: u32,
    response_bytes: u64,
    loads: u32,
}

impl From<Limits> for Bounds {
    fn from(limits: Limits) -> Self {
        Self {
            cpu_ms: limits.cpu_ms,
            wall_ms: limits.wall_ms,
            heap_mib: limits.heap_mib,
            external_mib: limits.external_mib,
            subrequests: limits.subrequests,
            response_bytes: limits.response_bytes,
            loads: limits.loads,
        }
    }
}

/// A crossing: which capability, under which policy, where to, and what became of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Crossed {
    time: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    execution: Option<Arc<str>>,
    tenant: Arc<str>,
    worker: Arc<str>,
    /// Which API token asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<Arc<str>>,
    /// Whose sandbox it comes from or leads to, and which.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sandbox: Option<Arc<str>>,
    capability: Arc<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<Arc<str>>,
    method: String,
    /// Where to; of a token, for whom.
    origin: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    minted: Option<Token>,
    #[serde(skip_serializing_if = "is_none")]
    redirects: u32,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    request_bytes: u64,
    response_bytes: u64,
    elapsed_us: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<u64>,
}

/// A token that was given out, by its id.
#[derive(Debug, Serialize)]
struct Token {
    id: Arc<str>,
    seconds: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde asks for")]
fn is_none(number: &u32) -> bool {
    *number == 0
}

impl Crossed {
    pub(super) fn of(crossing: &Crossing, time: u64, cost: Option<u64>) -> Self {
        let status = match crossing.verdict {
            Verdict::Answered(status) => Some(status),
            Verdict::Denied(_) | Verdict::Failed | Verdict::Abandoned => None,
        };
        Self {
            time,
            execution: crossing.execution.clone(),
            tenant: crossing.tenant.clone(),
            worker: crossing.worker.clone(),
            token: crossing.token.clone(),
            user: crossing.sandbox.as_ref().map(|of| of.user.clone()),
            sandbox: crossing.sandbox.as_ref().map(|of| of.id.clone()).filter(|id| !id.is_empty()),
            capability: crossing.capability.clone(),
            policy: crossing.policy.clone(),
            method: crossing.method.to_string(),
            origin: crossing.origin.clone(),
            minted: crossing.minted.clone().map(|Minted { id, seconds }| Token { id, seconds }),
            redirects: crossing.redirects,
            outcome: crossing.verdict.code(),
            status,
            request_bytes: crossing.request_bytes,
            response_bytes: crossing.response_bytes,
            elapsed_us: u64::try_from(crossing.elapsed.as_micros()).unwrap_or(u64::MAX),
            cost,
        }
    }
}

/// The same for many at once.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Many {
    time: u64,
    tenant: Arc<str>,
    /// `crossing`, `refused` for requests that were not admitted, or `control` with the action as the capability.
    what: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    worker: Arc<str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    capability: Arc<str>,
    outcome: &'static str,
    count: u64,
    since: u64,
    request_bytes: u64,
    response_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<u64>,
}

impl From<Counted> for Many {
    fn from(counted: Counted) -> Self {
        let Counted { tenant, deed: Deed { what, worker, capability, code }, count } = counted;
        let Count { count, request_bytes, response_bytes, cost, first_ms, last_ms } = count;
        Self {
            time: last_ms,
            tenant,
            what,
            worker,
            capability,
            outcome: code,
            count,
            since: first_ms,
            request_bytes,
            response_bytes,
            cost: (cost > 0).then_some(cost),
        }
    }
}

/// A moment in a sandbox's life.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Sandbox {
    time: u64,
    tenant: Arc<str>,
    user: Arc<str>,
    sandbox: Arc<str>,
    /// `started`, why it ended, or the code of why it could not be made.
    outcome: &'static str,
    cpu_us: u64,
    memory_byte_seconds: u64,
    memory_bytes_peak: u64,
    wall_us: u64,
    bytes_in: u64,
    bytes_out: u64,
    uses: u64,
}

impl Sandbox {
    pub(crate) fn new(
        tenant: &str,
        user: &str,
        sandbox: &str,
        outcome: &'static str,
        usage: &SandboxUsage,
    ) -> Self {
        Self {
            time: now_ms(),
            tenant: tenant.into(),
            user: user.into(),
            sandbox: sandbox.into(),
            outcome,
            cpu_us: usage.cpu_us,
            memory_byte_seconds: usage.memory_byte_seconds,
            memory_bytes_peak: usage.memory_bytes_peak,
            wall_us: usage.wall_us,
            bytes_in: usage.bytes_in,
            bytes_out: usage.bytes_out,
            uses: usage.uses,
        }
    }
}

/// A change through the control API.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Control {
    pub(crate) time: u64,
    pub(crate) tenant: Arc<str>,
    /// Of actions about a worker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) worker: Option<String>,
    /// Of other actions: the name or id of what was changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<String>,
    /// The id of an API token, `configured`, or the subject of an identity.
    pub(crate) actor: String,
    /// The name of the action.
    pub(crate) action: &'static str,
    /// The version of a secret, the scopes of a token, the audience of an identity.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) detail: String,
    /// `done`, the code of the problem, or `canceled` if the client went away before it was known.
    pub(crate) outcome: &'static str,
}

/// An isolate host is gone. It is about several tenants, so no tenant reads it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HostGone {
    pub(crate) time: u64,
    /// `lost`, `condemned` if it was replaced because isolates in it would not stop, or `retired` in a rolling restart.
    pub(crate) event: &'static str,
    pub(crate) pid: u32,
    pub(crate) reason: String,
    /// Invocations that were inside.
    pub(crate) inside: usize,
    /// Tenants to blame if it is one or it was condemned, else to suspect.
    pub(crate) tenants: Vec<String>,
    /// Further ones.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) tenants_more: usize,
}

/// What a tenant is made to do for ending isolate hosts has changed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Penalised {
    pub(crate) time: u64,
    pub(crate) tenant: String,
    /// `quarantined`, `suspended` or `released`.
    pub(crate) penalty: &'static str,
    /// For how long it is suspended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seconds: Option<u64>,
}
