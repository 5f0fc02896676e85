//! The wall between the gateway and an isolate host, as one small closed set of messages.
//!
//! ```text
//!            ToHost: Bundle Forget Invoke Body Reply Returned Cancel Evict Drain
//!  gateway ───────────────────────────────────────────────────────▶ isolate host
//!          ◀───────────────────────────────────────────────────────
//!            ToGateway: Response Returned Body Call CallMethod OpenService Log Done Heartbeat
//! ```
//!
//! In-process mode moves these values through tokio channels; through the wall they are length-prefixed
//! postcard frames. Both sides run the same code in both modes.
//!
//! Order: messages of one direction arrive in the order sent. For one invocation the host sends at most one
//! `Response` (events that answer with HTTP) or `Returned` (events that answer with a value), any number of
//! `Body`, `Call` and `Log`, and exactly one `Done`, which is last. After `Done` the gateway forgets the
//! invocation's channels and streams; after `Cancel` the host still sends `Done`.
//!
//! A call on another worker (`OpenService`) is answered by an `Invoke` of that worker with the event `Session`: the host
//! joins it with the isolate that waits, and the two talk without the gateway until the session's own `Done`. A `Session`
//! gives no answer to the gateway.
//!
//! Trust: the gateway believes nothing from a host. A [`ChannelId`] means something only together with a live
//! invocation to which the gateway itself granted it.

use std::sync::Arc;

use atoll_loader::bundle::CodeHash;
use atoll_loader::limits::Limits;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Names one invocation on one link, chosen by the gateway, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InvocationId(pub u64);

/// A capability granted to an invocation: an index that only the gateway can resolve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ChannelId(pub u32);

/// One call on a channel, chosen by the host, unique within its invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CallId(pub u32);

/// One streamed body, unique within its invocation. The side that sends the bytes of a body chooses the
/// number: the gateway even ones, the host odd ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StreamId(pub u32);

/// A body, at the head that announces it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// No body at all (a `null` body in the Fetch standard).
    Empty,
    /// The whole body: at most `BODY_INLINE_BYTES_MAX`.
    Inline(Bytes),
    /// Follows as [`BodyFrame`]s. The length is known if the sender declared one.
    Stream {
        /// The stream that carries it.
        id: StreamId,
        /// Declared length in bytes.
        length: Option<u64>,
    },
}

/// One step of a streamed body. `Data`, `End` and `Abort` go with the bytes, `Credit` and `Stop` against them.
/// Data sent never exceeds the credit granted; every stream begins with `BODY_CREDIT_BYTES`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BodyStep {
    /// Bytes, at most `BODY_CHUNK_BYTES_MAX`.
    Data(Bytes),
    /// All bytes were sent.
    End,
    /// The sender failed; no more bytes follow.
    Abort(String),
    /// The receiver consumed this many bytes and will take as many more.
    Credit(u32),
    /// The receiver wants no more; the sender must stop and release its source.
    Stop,
}

/// A step of one body of one invocation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BodyFrame {
    /// Whose body.
    pub invocation: InvocationId,
    /// Which body.
    pub stream: StreamId,
    /// What happened.
    pub step: BodyStep,
}

/// Header fields in order, names in lower case, values as raw bytes (latin-1 for the guest).
pub type Headers = Vec<(Arc<str>, Bytes)>;

/// An HTTP request crossing the seam, either way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpRequest {
    /// Method token, as received.
    pub method: String,
    /// Absolute URL.
    pub url: String,
    /// Header fields.
    pub headers: Headers,
    /// The body.
    pub body: Body,
    /// `manual`, `follow` or `error`; meaningful from host to gateway only.
    pub redirect: Redirect,
}

/// The Fetch standard's redirect mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Redirect {
    /// Follow up to 20 redirects.
    #[default]
    Follow,
    /// Give the redirect response to the guest.
    Manual,
    /// A redirect is a network error.
    Error,
}

/// An HTTP response crossing the seam, either way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpResponse {
    /// 200 to 599, or 101 for a WebSocket: then the body is what its sender sends through it, as [`crate::socket::parts`],
    /// and the body of the request (a GET with `upgrade: websocket`) what the other side sends.
    pub status: u16,
    /// Reason phrase the guest chose; empty for the standard one.
    pub status_text: String,
    /// Header fields; `set-cookie` may repeat.
    pub headers: Headers,
    /// The body.
    pub body: Body,
    /// The final URL after redirects; empty from host to gateway.
    pub url: String,
    /// Whether a redirect was followed to get here.
    pub redirected: bool,
}

/// What happens to a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// `fetch(request, env, ctx)`; answered by `Response`.
    Fetch(HttpRequest),
    /// `scheduled(controller, env, ctx)`; answered by `Returned`.
    Scheduled {
        /// The cron expression that fired, as configured.
        cron: String,
        /// Scheduled time, milliseconds since the Unix epoch.
        time_ms: u64,
    },
    /// The default export called as `(input, env, ctx)`, its JSON result in `Returned`.
    Execute {
        /// JSON text.
        input: String,
    },
    /// The call that an isolate of the same host waits with, handed over there. Answered to that isolate.
    Session {
        /// The invocation that asked with `OpenService`.
        caller: InvocationId,
        /// Which of its calls.
        call: CallId,
    },
}

/// Which isolate serves an invocation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum IsolateKey {
    /// A pristine isolate, thrown away after this invocation.
    Fresh,
    /// The warm isolate of this name, created at first use. The gateway makes the name from tenant, worker,
    /// version and granted capabilities, so two tenants can never share one.
    Warm(Arc<str>),
}

/// One named value of `env`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EnvValue {
    /// A string (`vars`).
    Text(String),
    /// JSON text, parsed afresh in each isolate.
    Json(String),
    /// Bytes as an ArrayBuffer.
    Data(Bytes),
    /// A Fetcher: `fetch()` on it is a call on the channel.
    Fetcher(ChannelId),
    /// Another worker: each use of it asks for a session with `OpenService`.
    Service(ChannelId),
    /// A namespace of the key-value store: each of its methods is a call on the channel.
    Kv(ChannelId),
    /// A Worker Loader (`env.LOADER`). Loaders with the same scope share named isolates.
    Loader {
        /// Cache scope, made by the gateway, tenant included.
        scope: Arc<str>,
    },
}

/// Where global `fetch()` goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outbound {
    /// Nowhere: it throws.
    Denied,
    /// To this channel.
    Channel(ChannelId),
}

/// Who and what an invocation is, for logs, errors and tracing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Who pays and is blamed.
    pub tenant: Arc<str>,
    /// The worker's name, or the execution's id.
    pub worker: Arc<str>,
    /// W3C `traceparent` of the gateway's span for this invocation.
    pub traceparent: Option<String>,
}

/// Start one invocation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invoke {
    /// Its number.
    pub id: InvocationId,
    /// Where it runs.
    pub isolate: IsolateKey,
    /// What runs; sent before as a `Bundle`.
    pub bundle: CodeHash,
    /// Named entrypoint; `None` for the default export.
    pub entrypoint: Option<String>,
    /// `ctx.props`, as JSON text.
    pub props: Option<String>,
    /// What happens.
    pub event: Event,
    /// On whose account.
    pub identity: Identity,
    /// What it may use.
    pub limits: Limits,
    /// `env`, used when the isolate starts.
    pub env: Vec<(Arc<str>, EnvValue)>,
    /// Global `fetch()`, used when the isolate starts.
    pub outbound: Outbound,
}

/// Gateway to isolate host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToHost {
    /// Code, once per hash per host, before its first `Invoke`, and again after a `Forget`. `encoded` is `Bundle::encode`.
    Bundle {
        /// Its name.
        hash: CodeHash,
        /// Its canonical encoding.
        encoded: Bytes,
    },
    /// Code that the host need not keep any more; what runs from it goes on. Keeps the host's memory bounded when every
    /// execution brings new code.
    Forget {
        /// Its name.
        hash: CodeHash,
    },
    /// Run something.
    Invoke(Box<Invoke>),
    /// A step of a request body or of a reply's body, or flow control for the other direction.
    Body(BodyFrame),
    /// The answer to a `Call`.
    Reply {
        /// Whose call.
        invocation: InvocationId,
        /// Which call.
        call: CallId,
        /// What came of it.
        result: Result<HttpResponse, CallError>,
    },
    /// What a method gave; a call that was not performed is answered by `Reply`.
    Returned {
        /// Whose call.
        invocation: InvocationId,
        /// Which call.
        call: CallId,
        /// A [`crate::value::Value`], or what the method threw.
        result: Result<Bytes, MethodError>,
    },
    /// Nobody wants the answer any more: stop everything under this invocation.
    Cancel {
        /// Which.
        invocation: InvocationId,
    },
    /// Drop the warm isolate of this name once it is idle.
    Evict {
        /// Which.
        key: Arc<str>,
    },
    /// Finish what runs, then exit.
    Drain,
}

/// Why a call on a channel failed, as the guest may know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum CallError {
    /// Policy says no.
    #[error("{0}")]
    Denied(String),
    /// The other end could not be reached or broke off.
    #[error("{0}")]
    Network(String),
    /// The guest's request was malformed.
    #[error("{0}")]
    Invalid(String),
}

/// What a method of a capability threw, as the guest sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{name}: {message}")]
pub struct MethodError {
    /// The class: `TypeError` and the like.
    pub name: String,
    /// The text.
    pub message: String,
}

impl MethodError {
    /// A `TypeError`: the guest called it wrongly.
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Self {
        Self { name: "TypeError".to_owned(), message: message.into() }
    }

    /// An `Error`: it did not work.
    #[must_use]
    pub fn failed(message: impl Into<String>) -> Self {
        Self { name: "Error".to_owned(), message: message.into() }
    }

    /// There is no such method.
    #[must_use]
    pub fn unknown(method: &str) -> Self {
        Self::usage(format!("The RPC receiver does not implement the method \"{method}\"."))
    }
}

/// Largest arguments of a method of a capability, in bytes. What is larger goes as the body of a `fetch()` on the same
/// capability, with credit.
pub const METHOD_BYTES_MAX: usize = 256 * 1024;
/// Longest name of a method, in bytes.
pub const METHOD_NAME_BYTES_MAX: usize = 256;

/// How an invocation ended. Each has one stable code for clients: [`Outcome::code`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It answered and finished.
    Done,
    /// The guest threw, or answered with something that is not an answer.
    GuestError(GuestError),
    /// A limit was reached.
    Limit(LimitKind),
    /// It did not start: the code or the request was refused.
    Refused(String),
    /// Cancelled by the caller.
    Canceled,
    /// It waits for something that can never happen.
    Hung,
    /// The isolate host failed, not the guest.
    HostFault(String),
}

/// Which limit ended an invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LimitKind {
    /// CPU milliseconds.
    Cpu,
    /// Wall milliseconds.
    Wall,
    /// V8 heap.
    Heap,
    /// Array buffers and WebAssembly memory.
    External,
    /// Response bytes.
    ResponseBytes,
}

impl Outcome {
    /// The stable machine-readable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::GuestError(_) => "guest_error",
            Self::Limit(LimitKind::Cpu) => "limit_cpu",
            Self::Limit(LimitKind::Wall) => "limit_wall",
            Self::Limit(LimitKind::Heap) => "limit_heap",
            Self::Limit(LimitKind::External) => "limit_external",
            Self::Limit(LimitKind::ResponseBytes) => "limit_response_bytes",
            Self::Refused(_) => "refused",
            Self::Canceled => "canceled",
            Self::Hung => "hung",
            Self::HostFault(_) => "host_fault",
        }
    }
}

/// An exception that reached the top of the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestError {
    /// `error.name`, or the type of what was thrown.
    pub name: String,
    /// `error.message`.
    pub message: String,
    /// Stack with the guest's own file names, source-mapped; no host path.
    pub stack: Option<String>,
}

/// What an invocation used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time of the isolate's thread, in microseconds, children included.
    pub cpu_us: u64,
    /// Wall time in the host, in microseconds.
    pub wall_us: u64,
    /// Time spent waiting for an isolate, in microseconds.
    pub isolate_wait_us: u64,
    /// Largest V8 heap seen, in bytes.
    pub heap_bytes_peak: u64,
    /// Largest external memory seen, in bytes.
    pub external_bytes_peak: u64,
    /// Calls on channels.
    pub subrequests: u32,
    /// Log bytes written, cut ones included.
    pub log_bytes: u32,
    /// Dynamic workers loaded.
    pub loads: u32,
}

/// Severity of a console line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// `console.debug`, `console.trace`.
    Debug,
    /// `console.log`.
    Log,
    /// `console.info`.
    Info,
    /// `console.warn`.
    Warn,
    /// `console.error` and uncaught exceptions outside the answer.
    Error,
}

/// One console line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Which invocation was running.
    pub invocation: InvocationId,
    /// Severity.
    pub level: LogLevel,
    /// Milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// The formatted text, at most `LOG_LINE_BYTES_MAX`.
    pub message: String,
    /// Whether text was cut, or lines before this one were dropped.
    pub truncated: bool,
    /// A JSON object, of lines that a logger made; it never crosses the wall.
    #[serde(skip)]
    pub fields: Option<Arc<str>>,
}

/// Isolate host to gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToGateway {
    /// The answer to a `Fetch` event.
    Response {
        /// Whose.
        invocation: InvocationId,
        /// The head, and the body if it is inline.
        response: HttpResponse,
    },
    /// The answer to an `Execute` or `Scheduled` event: JSON text.
    Returned {
        /// Whose.
        invocation: InvocationId,
        /// JSON text; `null` for `undefined`.
        json: String,
    },
    /// A step of a response body or of a call's request body, or flow control for the other direction.
    Body(BodyFrame),
    /// The guest uses a capability.
    Call {
        /// Under which invocation.
        invocation: InvocationId,
        /// Its number.
        call: CallId,
        /// The capability.
        channel: ChannelId,
        /// The request.
        request: HttpRequest,
    },
    /// A console line.
    Log(LogLine),
    /// The invocation is over; always the last message about it.
    Done {
        /// Which.
        invocation: InvocationId,
        /// How it ended.
        outcome: Outcome,
        /// What it used.
        usage: Usage,
    },
    /// Sent every `HEARTBEAT_MS` and whenever an isolate is condemned.
    Heartbeat(Heartbeat),
    /// The guest calls a method of a capability. Counted and answered as a `Call`.
    CallMethod {
        /// Under which invocation.
        invocation: InvocationId,
        /// Its number; one sequence with `Call`.
        call: CallId,
        /// The capability.
        channel: ChannelId,
        /// The method's name.
        method: String,
        /// The arguments as a list ([`crate::value::Value`]), at most `METHOD_BYTES_MAX`.
        arguments: Bytes,
    },
    /// The guest calls another worker. Counted as a `Call`; answered by an `Invoke` whose event names the call, or by a
    /// `Reply` that refuses it.
    OpenService {
        /// Under which invocation.
        invocation: InvocationId,
        /// Its number; one sequence with `Call`.
        call: CallId,
        /// The capability.
        channel: ChannelId,
    },
}

/// The host's state, for supervision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Isolates alive, idle and pooled ones included.
    pub isolates_live: u32,
    /// Pristine isolates waiting in the pool.
    pub isolates_pooled: u32,
    /// Resident memory of the host process, in bytes.
    pub resident_bytes: u64,
    /// Invocations whose isolate ignored termination for longer than the grace, or that took the memory which others
    /// need: the host must be replaced, and these are to blame. Once named, they are in every later heartbeat.
    pub condemned: Vec<Condemned>,
}

/// An invocation for which its host must be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condemned {
    /// Which.
    pub invocation: InvocationId,
    /// What it used until it was condemned, as far as another thread can see it.
    pub usage: Usage,
}

/// Interval of [`ToGateway::Heartbeat`], in milliseconds.
pub const HEARTBEAT_MS: u64 = 250;
