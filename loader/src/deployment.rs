//! What is deployed: worker code together with what it asks to be bound to it.

use crate::code::WorkerCode;

/// A value of `vars`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Var {
    /// A string.
    Text(String),
    /// Anything else, as JSON text.
    Json(String),
}

/// A binding to another worker.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
pub struct Service {
    /// Name in `env`.
    pub binding: String,
    /// Name of the worker.
    pub service: String,
    /// Its entrypoint; `None` for the default export.
    #[serde(default)]
    pub entrypoint: Option<String>,
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
    /// Bindings to other workers.
    pub services: Vec<Service>,
    /// Host patterns that global `fetch()` should reach. Empty: none.
    pub outbound: Vec<String>,
    /// The policy class that global `fetch()` should be under.
    pub egress: Option<String>,
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
            services: Vec::new(),
            outbound: Vec::new(),
            egress: None,
            warnings: Vec::new(),
        }
    }
}
