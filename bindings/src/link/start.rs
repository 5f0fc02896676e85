//! What the gateway says to start an invocation.

use std::fmt;
use std::sync::Arc;

use atoll_loader::bundle::Bundle;
use atoll_loader::limits::Limits;
use bytes::Bytes;

use super::service::Service;
use crate::body::RequestBody;
use crate::channel::Channel;
use crate::seam::{Identity, IsolateKey};

/// Everything about one invocation, before it has a number.
#[derive(Debug)]
pub struct Start {
    /// What runs.
    pub bundle: Arc<Bundle>,
    /// Where it runs.
    pub isolate: IsolateKey,
    /// Named entrypoint; `None` for the default export.
    pub entrypoint: Option<String>,
    /// `ctx.props`, as JSON text.
    pub props: Option<String>,
    /// What happens.
    pub event: StartEvent,
    /// On whose account.
    pub identity: Identity,
    /// What it may use.
    pub limits: Limits,
    /// `env`. The same worker version must always give the same names and kinds in the same order, because a warm
    /// isolate remembers the channel numbers of its first invocation.
    pub env: Vec<(Arc<str>, Grant)>,
    /// Global `fetch()`; `None` denies it.
    pub outbound: Option<Arc<dyn Channel>>,
}

/// What happens to the worker.
#[derive(Debug)]
pub enum StartEvent {
    /// `fetch()`; the URI is absolute.
    Fetch(http::Request<RequestBody>),
    /// `scheduled()`.
    Scheduled {
        /// The cron expression that fired.
        cron: String,
        /// Milliseconds since the Unix epoch.
        time_ms: u64,
    },
    /// The default export called with a JSON value.
    Execute {
        /// JSON text.
        input: String,
    },
    /// What a caller on the same host brings: only for [`super::Opening::start`].
    Session,
}

/// One value of `env`.
#[derive(Clone)]
pub enum Grant {
    /// A string.
    Text(String),
    /// JSON text.
    Json(String),
    /// An ArrayBuffer.
    Data(Bytes),
    /// A Fetcher.
    Channel(Arc<dyn Channel>),
    /// Another worker.
    Service(Arc<dyn Service>),
    /// A namespace of the key-value store.
    Kv(Arc<dyn Channel>),
    /// A Worker Loader.
    Loader {
        /// Cache scope, tenant included.
        scope: Arc<str>,
    },
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Values of `env` may be secret: never in a log.
            Self::Text(_) => f.write_str("Text"),
            Self::Json(_) => f.write_str("Json"),
            Self::Data(_) => f.write_str("Data"),
            Self::Channel(channel) => write!(f, "Channel({})", channel.name()),
            Self::Service(service) => write!(f, "Service({})", service.name()),
            Self::Kv(channel) => write!(f, "Kv({})", channel.name()),
            Self::Loader { scope } => write!(f, "Loader({scope})"),
        }
    }
}

impl fmt::Debug for dyn Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Channel({})", self.name())
    }
}
