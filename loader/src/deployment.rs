//! What is deployed: worker code together with what it asks to be bound to it.

use serde_json::{Value, json};

use crate::code::WorkerCode;

/// A value of `vars`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Var {
    /// A string.
    Text(String),
    /// Anything else, as JSON text.
    Json(String),
}

/// A binding to another worker, as Workers' configuration says it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub(crate) struct Service {
    /// Name in `env`.
    #[serde(alias = "name")]
    pub(crate) binding: String,
    /// Name of the worker.
    pub(crate) service: String,
    /// Its entrypoint; `None` for the default export.
    #[serde(default)]
    pub(crate) entrypoint: Option<String>,
    /// Its `ctx.props`.
    #[serde(default)]
    pub(crate) props: Option<Value>,
}

impl Service {
    /// The wish as a deployment holds it.
    pub(crate) fn wish(self) -> (String, Value) {
        let mut wish = json!({ "type": "service", "worker": self.service });
        if let Some(entrypoint) = self.entrypoint {
            wish["entrypoint"] = entrypoint.into();
        }
        if let Some(props) = self.props {
            wish["props"] = props;
        }
        (self.binding, wish)
    }
}

/// The wish for a namespace of a key-value store.
pub(crate) fn kv_wish(namespace: String) -> Value {
    json!({ "type": "kv", "namespace": namespace })
}

/// Worker code and its configuration, as found in a folder or an upload. Nothing here is granted yet: bindings
/// and hosts are wishes, for whoever deploys to decide on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployment {
    /// The worker's name, if the source says one.
    pub name: Option<String>,
    /// The code, unchecked; `limits.cpu_ms` is in it.
    pub code: WorkerCode,
    /// Plain values for `env`, sorted by name.
    pub vars: Vec<(String, Var)>,
    /// Cron expressions.
    pub crons: Vec<String>,
    /// Names in `env` of Worker Loaders.
    pub loaders: Vec<String>,
    /// Bindings by their names in `env`, in the shape of the control API, whose side alone knows and checks the kinds.
    pub bindings: Vec<(String, Value)>,
    /// Host patterns that global `fetch()` should reach. Empty: none.
    pub outbound: Vec<String>,
    /// The policy class that global `fetch()` should be under.
    pub egress: Option<String>,
    /// Who of other tenants may call it: `TENANT/WORKER` or `TENANT/*`.
    pub allow_callers: Vec<String>,
    /// What was found and ignored, for people.
    pub warnings: Vec<String>,
}

impl Deployment {
    /// Code alone.
    #[must_use]
    pub fn of(code: WorkerCode) -> Self {
        Self {
            name: None,
            code,
            vars: Vec::new(),
            crons: Vec::new(),
            loaders: Vec::new(),
            bindings: Vec::new(),
            outbound: Vec::new(),
            egress: None,
            allow_callers: Vec::new(),
            warnings: Vec::new(),
        }
    }
}
