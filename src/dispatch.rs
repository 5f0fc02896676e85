//! From a deployment and an event to an invocation, and from its end to one terminal event.
//!
//! ```text
//!  admitted ──▶ Start ──▶ Running ──▶ answer ──▶ client
//!     │                      │ logs ──▶ ring, observer
//!     └── Record ────────────┴── end ──▶ observer.finished (exactly once, by Drop if need be)
//! ```

pub mod logs;
pub mod record;
pub mod steps;
pub mod trace;

use std::pin::Pin;
use std::sync::Arc;

use atoll_bindings::channel::Channel;
use atoll_bindings::link::{
    Answer, Ended, Grant, GuestBody, Link, LinkDown, Running, Start, StartEvent, Suspicion,
};
use atoll_bindings::seam::{Heartbeat, Identity, IsolateKey, LogLine, Outcome};
use atoll_loader::bundle::Bundle;
use atoll_loader::limits::Limits;
use http::Response;
use tokio::sync::mpsc;

use crate::bindings::{Bound, CallerPattern, Under};
use crate::config::Name;
use crate::hosts::{Hosts, HostsStatus, Sandbox};
use logs::LogRing;
use record::Record;
use trace::Trace;

/// Where invocations run: one isolate host, or the supervisor of several.
pub trait Isolates: Send + Sync + 'static {
    /// Starts an invocation. Never waits.
    fn start(&self, start: Start) -> Result<Running, LinkDown>;
    /// Resolves when work of this tenant can be taken, or no longer be expected to be; `None`: nothing to wait for.
    fn soon<'a>(&'a self, tenant: &'a str) -> Option<Pin<Box<dyn Future<Output = ()> + Send + 'a>>>;
    /// Drops a warm isolate once it is idle.
    fn evict(&self, key: &Arc<str>);
    /// Whether work can be taken now.
    fn ready(&self) -> bool;
    /// For how long this tenant's work is not taken, in milliseconds.
    fn suspended_ms(&self, tenant: &str) -> Option<u64>;
    /// Whether the code of these two tenants may be in one process.
    fn may_share(&self, one: &str, other: &str) -> bool;
    /// Begins to replace every host by a new one; `false` if there are none. No request is lost by it.
    fn roll(&self) -> bool;
    /// What an operator sees of the hosts.
    fn status(&self) -> HostsStatus;
    /// How far the process that runs guests is confined; `None` while nobody knows.
    fn sandbox(&self) -> Option<Sandbox>;
    /// The latest state of the active hosts.
    fn heartbeats(&self) -> Vec<Heartbeat>;
}

impl Isolates for Link {
    fn start(&self, start: Start) -> Result<Running, LinkDown> {
        Link::start(self, start)
    }

    fn soon<'a>(&'a self, _tenant: &'a str) -> Option<Pin<Box<dyn Future<Output = ()> + Send + 'a>>> {
        None // nobody starts another
    }

    fn evict(&self, key: &Arc<str>) {
        Link::evict(self, key.clone());
    }

    fn ready(&self) -> bool {
        self.close_reason().is_none()
    }

    fn suspended_ms(&self, _tenant: &str) -> Option<u64> {
        None
    }

    fn may_share(&self, _one: &str, _other: &str) -> bool {
        true // there is one process, and no wall
    }

    fn roll(&self) -> bool {
        false
    }

    fn status(&self) -> HostsStatus {
        HostsStatus::default()
    }

    fn sandbox(&self) -> Option<Sandbox> {
        Some(Sandbox::none("guests run in the gateway's process"))
    }

    fn heartbeats(&self) -> Vec<Heartbeat> {
        vec![self.heartbeat()]
    }
}

impl Isolates for Hosts {
    fn start(&self, start: Start) -> Result<Running, LinkDown> {
        Hosts::start(self, start)
    }

    fn soon<'a>(&'a self, tenant: &'a str) -> Option<Pin<Box<dyn Future<Output = ()> + Send + 'a>>> {
        Some(Box::pin(Hosts::soon(self, tenant)?))
    }

    fn evict(&self, key: &Arc<str>) {
        Hosts::evict(self, key);
    }

    fn may_share(&self, one: &str, other: &str) -> bool {
        Hosts::may_share(self, one, other)
    }

    fn roll(&self) -> bool {
        Hosts::roll(self);
        true
    }

    fn status(&self) -> HostsStatus {
        Hosts::status(self)
    }

    fn ready(&self) -> bool {
        Hosts::ready(self)
    }

    fn suspended_ms(&self, tenant: &str) -> Option<u64> {
        Hosts::suspended_ms(self, tenant)
    }

    fn sandbox(&self) -> Option<Sandbox> {
        Hosts::sandbox(self)
    }

    fn heartbeats(&self) -> Vec<Heartbeat> {
        Hosts::heartbeats(self)
    }
}

/// A named value of `env` as a deployment holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Var {
    /// A string.
    Text(String),
    /// JSON text.
    Json(String),
    /// A Worker Loader.
    Loader,
}

/// One version of one worker, ready to serve. Never changes; a new version is a new value.
pub struct Deployment {
    /// Whose.
    pub tenant: Name,
    /// Which.
    pub worker: Name,
    /// Its version.
    pub version: u64,
    /// Its code.
    pub bundle: Arc<Bundle>,
    /// The name of its warm isolate.
    pub isolate: Arc<str>,
    /// Its `env`.
    pub vars: Vec<(Arc<str>, Var)>,
    /// Further capabilities of its `env`.
    pub bindings: Vec<(Arc<str>, Arc<dyn Bound>)>,
    /// Where `fetch()` goes.
    pub outbound: Option<Arc<dyn Channel>>,
    /// Who may call it besides the workers of its own tenant.
    pub allow_callers: Vec<CallerPattern>,
    /// What one invocation may use.
    pub limits: Limits,
    /// Its cron expressions.
    pub crons: Vec<String>,
    /// Its custom host names.
    pub hosts: Vec<String>,
    /// Its recent console lines; shared by all versions of the worker.
    pub logs: Arc<LogRing>,
}

impl Deployment {
    /// The invocation of an event.
    #[must_use]
    pub fn start(&self, event: StartEvent, trace: &Trace) -> Start {
        // What a version loaded must not serve another one, which may have been granted other things.
        let scope = |name: &str| format!("{}/{name}", self.isolate).into();
        let grant = |(name, var): &(Arc<str>, Var)| {
            let grant = match var {
                Var::Text(text) => Grant::Text(text.clone()),
                Var::Json(json) => Grant::Json(json.clone()),
                Var::Loader => Grant::Loader { scope: scope(name) },
            };
            (name.clone(), grant)
        };
        let (code, limits) = (self.bundle.hash(), &self.limits);
        let under = Under { tenant: &self.tenant, trace, code, limits };
        let bound = self.bindings.iter().map(|(name, bound)| (name.clone(), bound.grant(under)));
        Start {
            bundle: self.bundle.clone(),
            isolate: IsolateKey::Warm(self.isolate.clone()),
            entrypoint: None,
            props: None,
            event,
            identity: Identity {
                tenant: self.tenant.shared(),
                worker: self.worker.shared(),
                traceparent: trace.parent.as_deref().map(str::to_owned),
            },
            limits: self.limits,
            env: self.vars.iter().map(grant).chain(bound).collect(),
            outbound: self.outbound.as_ref().map(|channel| trace.channel(channel)),
        }
    }
}

/// Takes console lines as they come.
pub trait LogSink: Send + 'static {
    /// One line.
    fn line(&mut self, line: LogLine);
}

/// A started invocation with its record and its logs. Dropped before its end, it is cancelled, and its record is closed when
/// the host has said what was used.
pub struct Invocation<S: LogSink> {
    /// `None` once it is over.
    live: Option<Live<S>>,
}

struct Live<S: LogSink> {
    running: Running,
    lines: Option<mpsc::Receiver<LogLine>>,
    sink: S,
    record: Record,
}

/// An invocation that ended without an answer.
#[derive(Clone, Debug)]
pub struct Unanswered {
    /// How it ended.
    pub ended: Ended,
    /// Whose doing it was, if its host was lost.
    pub suspicion: Option<Suspicion>,
}

impl From<Ended> for Unanswered {
    fn from(ended: Ended) -> Self {
        Self { ended, suspicion: None }
    }
}

impl<S: LogSink> Invocation<S> {
    /// Starts, when there is a host: one that was lost is replaced in a moment. If none can take it, the record is closed and
    /// the outcome returned.
    pub async fn start(
        isolates: &dyn Isolates,
        start: Start,
        sink: S,
        mut record: Record,
    ) -> Result<Self, Box<Ended>> {
        record.runs(&start);
        if let Some(soon) = isolates.soon(&start.identity.tenant) {
            soon.await;
        }
        Self::begun(isolates.start(start), sink, record)
    }

    /// The same for one that was started, or not, by other means.
    pub fn begun(started: Result<Running, LinkDown>, sink: S, record: Record) -> Result<Self, Box<Ended>> {
        match started {
            Ok(mut running) => {
                let lines = running.take_logs();
                Ok(Self { live: Some(Live { running, lines, sink, record }) })
            }
            Err(down) => {
                let ended =
                    Ended { outcome: Outcome::HostFault(down.to_string()), usage: Default::default() };
                record.finish(&ended);
                Err(Box::new(ended))
            }
        }
    }

    /// Waits for the answer, taking lines meanwhile. An end without an answer closes the record.
    pub async fn answer(mut self) -> Result<(Answer, Self), (Unanswered, Option<S>)> {
        let Some(live) = &mut self.live else { return Err((over().into(), None)) };
        match live.answer().await {
            Ok(answer) => Ok((answer, self)),
            Err(ended) => {
                let suspicion = live.running.suspicion();
                let sink = self.live.take().map(|live| live.close(&ended));
                Err((Unanswered { ended, suspicion }, sink))
            }
        }
    }

    /// Waits for the end, taking lines meanwhile, and closes the record.
    pub async fn ended(mut self) -> (Ended, Option<S>) {
        let Some(live) = &mut self.live else { return (over(), None) };
        let ended = live.until_ended().await;
        let sink = self.live.take().map(|live| live.close(&ended));
        (ended, sink)
    }

    /// Lets the invocation run on to its end after the answer was taken; `cancel` ends it early when its other
    /// half is dropped without a word.
    pub fn finish_in_background(mut self, cancel: Option<tokio::sync::oneshot::Receiver<()>>) {
        if let Some(ended) = self.live.as_ref().and_then(|live| live.running.poll_ended()) {
            if let Some(live) = self.live.take() {
                live.close(&ended);
            }
            return;
        }
        tokio::spawn(async move {
            let Some(cancel) = cancel else {
                self.ended().await;
                return;
            };
            let end = self.ended();
            tokio::pin!(end);
            tokio::select! {
                biased;
                _ = &mut end => {}
                // The client is gone: dropping the invocation cancels it, and its record says so.
                finished = cancel => if finished.is_ok() { end.await; },
            }
        });
    }
}

impl<S: LogSink> Drop for Invocation<S> {
    fn drop(&mut self) {
        let Some(mut live) = self.live.take() else { return };
        live.running.cancel();
        // Without a runtime the process is ending: the record then says cancelled, and nothing about usage.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            let mut ended = live.until_ended().await;
            if ended.outcome == Outcome::Done {
                // It crossed the cancellation on the way; nobody got its answer.
                ended.outcome = Outcome::Canceled;
            }
            live.close(&ended);
        });
    }
}

impl<S: LogSink> Live<S> {
    async fn answer(&mut self) -> Result<Answer, Ended> {
        loop {
            let Some(lines) = &mut self.lines else { return self.running.answer().await };
            tokio::select! {
                biased;
                answer = self.running.answer() => return answer,
                line = lines.recv() => match line {
                    Some(line) => self.sink.line(line),
                    None => self.lines = None,
                },
            }
        }
    }

    async fn until_ended(&mut self) -> Ended {
        loop {
            let Some(lines) = &mut self.lines else { return self.running.until_ended().await };
            tokio::select! {
                biased;
                line = lines.recv() => match line {
                    Some(line) => self.sink.line(line),
                    None => self.lines = None,
                },
                ended = self.running.until_ended() => return ended,
            }
        }
    }

    fn close(mut self, ended: &Ended) -> S {
        drain(&mut self.lines, &mut self.sink);
        self.record.finish(ended);
        self.sink
    }
}

/// The end of what is over already: callers consume the invocation, so they cannot ask twice.
fn over() -> Ended {
    Ended { outcome: Outcome::Canceled, usage: Default::default() }
}

/// Takes the lines that are there already.
fn drain(lines: &mut Option<mpsc::Receiver<LogLine>>, sink: &mut impl LogSink) {
    while let Some(line) = lines.as_mut().and_then(|lines| lines.try_recv().ok()) {
        sink.line(line);
    }
}

/// What a guest answered to a fetch, or how it ended without an answer.
pub async fn fetch<S: LogSink>(
    invocation: Invocation<S>,
) -> Result<(Response<GuestBody>, Invocation<S>), Unanswered> {
    match invocation.answer().await {
        Ok((Answer::Response(response), invocation)) => Ok((response, invocation)),
        // The link only gives values to events that want values.
        Ok((Answer::Value(_), invocation)) => Err(invocation.ended().await.0.into()),
        Err((unanswered, _)) => Err(unanswered),
    }
}
