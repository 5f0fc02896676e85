//! The loader as a Rust API: `loader.load(code, global_outbound, env)`, for programs that embed Atoll.
//!
//! The isolate host runs in this process, without the wall: V8 can abort it on hostile input. Programs that run code
//! of strangers use the `atoll` server, which keeps V8 in processes of its own. Isolates that compute yield on `SIGURG`, for which
//! the process gets a handler, unless it has one already: then they do not yield.
//!
//! ```
//! use atoll_loader::WorkerCode;
//! use atoll_runtime::embed::{Env, Loader};
//!
//! # let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
//! # tokio.block_on(async {
//! let loader = Loader::start().unwrap();
//! let code = WorkerCode::new("main.js")
//!     .js("main.js", "export default { run: (input, env) => `${env.GREETING}, ${input.name}` }");
//! let worker = loader.load(code, None, Env::new().text("GREETING", "Hello")).unwrap();
//! assert_eq!(worker.execute("{\"name\":\"Ada\"}").await.unwrap(), "\"Hello, Ada\"");
//! # });
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use atoll_bindings::body::RequestBody;
use atoll_bindings::channel::Channel;
use atoll_bindings::link::{
    Answer, Ended, Grant, GuestBody, Link, LinkDown, Running, Start, StartEvent, in_process,
};
use atoll_bindings::seam::{Identity, IsolateKey, Outcome, Usage};
use atoll_loader::bundle::Bundle;
use atoll_loader::limits::Limits;
use atoll_loader::{CodeError, WorkerCode};

use crate::host::{HostConfig, run};

/// The names and values that a worker finds in `env`.
#[derive(Clone, Debug, Default)]
pub struct Env(Vec<(Arc<str>, Grant)>);

impl Env {
    /// An empty `env`.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A string.
    #[must_use]
    pub fn text(mut self, name: &str, value: impl Into<String>) -> Self {
        self.0.push((name.into(), Grant::Text(value.into())));
        self
    }

    /// A JSON value, as text.
    #[must_use]
    pub fn json(mut self, name: &str, json: impl Into<String>) -> Self {
        self.0.push((name.into(), Grant::Json(json.into())));
        self
    }

    /// A service: `env.NAME.fetch()` reaches the channel.
    #[must_use]
    pub fn service(mut self, name: &str, channel: Arc<dyn Channel>) -> Self {
        self.0.push((name.into(), Grant::Channel(channel)));
        self
    }

    /// A Worker Loader, so that the worker can load others.
    #[must_use]
    pub fn loader(mut self, name: &str, scope: impl Into<Arc<str>>) -> Self {
        self.0.push((name.into(), Grant::Loader { scope: scope.into() }));
        self
    }
}

/// An isolate host in this process.
#[derive(Debug)]
pub struct Loader {
    link: Link,
    next: AtomicU64,
}

/// Why a request to a worker has no answer.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The invocation ended without one; the outcome says why.
    #[error("{}", .0.outcome.code())]
    Ended(Ended),
    /// The isolate host is gone.
    #[error(transparent)]
    Down(#[from] LinkDown),
}

impl Loader {
    /// Starts the host on a thread of its own. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start() -> std::io::Result<Self> {
        let (link, endpoint) = in_process();
        let tokio = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        std::thread::Builder::new().name("isolate-host".into()).spawn(move || {
            // It ends when the last link is dropped; a host that cannot start closes the link, which callers see.
            let _ended = tokio.block_on(run(endpoint, HostConfig::default()));
        })?;
        Ok(Self { link, next: AtomicU64::new(0) })
    }

    /// Loads a worker with its own isolate, which lives until the [`Worker`] is dropped. With `global_outbound` none,
    /// global `fetch()` throws.
    ///
    /// # Errors
    /// If the code does not pass the checks.
    pub fn load(
        &self,
        code: WorkerCode,
        global_outbound: Option<Arc<dyn Channel>>,
        env: Env,
    ) -> Result<Worker, CodeError> {
        self.load_with(code, global_outbound, env, Limits::default())
    }

    /// As [`Loader::load`], with limits.
    ///
    /// # Errors
    /// If the code does not pass the checks.
    pub fn load_with(
        &self,
        code: WorkerCode,
        global_outbound: Option<Arc<dyn Channel>>,
        env: Env,
        limits: Limits,
    ) -> Result<Worker, CodeError> {
        let bundle = Arc::new(code.build()?);
        let key = format!("embed/{}", self.next.fetch_add(1, Relaxed)).into();
        Ok(Worker { link: self.link.clone(), key, bundle, outbound: global_outbound, env, limits })
    }
}

/// A loaded worker. Its isolate starts with the first request and ends when this is dropped.
#[derive(Debug)]
pub struct Worker {
    link: Link,
    key: Arc<str>,
    bundle: Arc<Bundle>,
    outbound: Option<Arc<dyn Channel>>,
    env: Env,
    limits: Limits,
}

impl Worker {
    /// Calls the worker's `fetch()` handler. The request's URI must be absolute.
    ///
    /// # Errors
    /// If the worker ends without an answer.
    pub async fn fetch(
        &self,
        request: http::Request<RequestBody>,
    ) -> Result<http::Response<GuestBody>, WorkerError> {
        let mut running = self.begin(StartEvent::Fetch(request))?;
        match running.answer().await.map_err(WorkerError::Ended)? {
            Answer::Response(response) => {
                // The body and `waitUntil` work go on after this returns.
                tokio::spawn(running.ended());
                Ok(response)
            }
            Answer::Value(_) => Err(WorkerError::Ended(unexpected())),
        }
    }

    /// Calls the default export (a function, or an object with `run()`) with a JSON value; gives its JSON result.
    ///
    /// # Errors
    /// If the code throws, or reaches a limit.
    pub async fn execute(&self, input: &str) -> Result<String, WorkerError> {
        let mut running = self.begin(StartEvent::Execute { input: input.to_owned() })?;
        match running.answer().await.map_err(WorkerError::Ended)? {
            Answer::Value(value) => Ok(value),
            Answer::Response(_) => Err(WorkerError::Ended(unexpected())),
        }
    }

    fn begin(&self, event: StartEvent) -> Result<Running, LinkDown> {
        self.link.start(Start {
            bundle: Arc::clone(&self.bundle),
            isolate: IsolateKey::Warm(Arc::clone(&self.key)),
            entrypoint: None,
            props: None,
            event,
            identity: Identity { tenant: "embed".into(), worker: Arc::clone(&self.key), traceparent: None },
            limits: self.limits,
            env: self.env.0.clone(),
            outbound: self.outbound.clone(),
        })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.link.evict(Arc::clone(&self.key));
    }
}

fn unexpected() -> Ended {
    Ended { outcome: Outcome::HostFault("the answer has the wrong form".into()), usage: Usage::default() }
}
