//! A peer at the host end of a link. What an invocation does is told by its path or its input.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use atoll_bindings::link::HostEndpoint;
use atoll_bindings::seam::{
    Body, BodyFrame, BodyStep, Event, GuestError, HttpResponse, InvocationId, Invoke, LimitKind, LogLevel,
    LogLine, Outcome, StreamId, ToGateway, ToHost, Usage,
};
use atoll_loader::limits::{BODY_CHUNK_BYTES_MAX, BODY_CREDIT_BYTES};
use bytes::Bytes;
use serde_json::json;
use tokio::sync::mpsc;

/// What the peer did.
#[derive(Clone, Default)]
pub(super) struct Host {
    /// Cancels received for invocations that hang or stream without end.
    pub(super) cancels: Arc<AtomicUsize>,
    /// Invocations received.
    pub(super) invokes: Arc<AtomicUsize>,
    /// Invocations that wait to be released.
    held: Arc<Mutex<Vec<InvocationId>>>,
    outbox: Arc<Mutex<Option<mpsc::UnboundedSender<ToGateway>>>>,
}

impl Host {
    pub(super) fn start(endpoint: HostEndpoint) -> Self {
        let host = Self::default();
        *host.outbox.lock().unwrap() = Some(endpoint.outbox.clone());
        let peer = Peer { host: host.clone(), outbox: endpoint.outbox, live: HashMap::new() };
        tokio::spawn(peer.run(endpoint.inbox));
        host
    }

    /// Answers everything that hangs.
    pub(super) fn release(&self) -> usize {
        let held = std::mem::take(&mut *self.held.lock().unwrap());
        let outbox = self.outbox.lock().unwrap();
        for invocation in &held {
            let response = ToGateway::Response { invocation: *invocation, response: answer(200, "released") };
            let sender = outbox.as_ref().unwrap();
            let _ = sender.send(response);
            let _ = sender.send(done(*invocation, Outcome::Done));
        }
        held.len()
    }
}

struct Peer {
    host: Host,
    outbox: mpsc::UnboundedSender<ToGateway>,
    live: HashMap<InvocationId, Live>,
}

/// A stream without end, or the echo of one.
enum Live {
    Endless { credit: usize },
    Echo { back: Vec<u8> },
    Collect { bytes: usize },
    Hanging,
}

const OUT: StreamId = StreamId(1);

pub(super) fn answer(status: u16, body: &str) -> HttpResponse {
    HttpResponse {
        status,
        status_text: String::new(),
        headers: vec![("content-type".into(), Bytes::from_static(b"text/plain"))],
        body: Body::Inline(Bytes::from(body.to_owned())),
        url: String::new(),
        redirected: false,
    }
}

fn done(invocation: InvocationId, outcome: Outcome) -> ToGateway {
    ToGateway::Done { invocation, outcome, usage: Usage { cpu_us: 7, ..Usage::default() } }
}

fn thrown() -> Outcome {
    let stack = Some("Error: boom\n    at main.js:1:1".to_owned());
    Outcome::GuestError(GuestError { name: "Error".into(), message: "boom".into(), stack })
}

/// What code for Node.js does in an isolate.
fn lacks() -> Outcome {
    let message = "process is not defined".to_owned();
    Outcome::GuestError(GuestError { name: "ReferenceError".into(), message, stack: None })
}

impl Peer {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<ToHost>) {
        while let Some(message) = inbox.recv().await {
            match message {
                ToHost::Invoke(invoke) => {
                    self.host.invokes.fetch_add(1, SeqCst);
                    self.invoke(*invoke);
                }
                ToHost::Body(frame) => self.body(frame),
                ToHost::Cancel { invocation } if self.live.remove(&invocation).is_some() => {
                    self.host.held.lock().unwrap().retain(|held| *held != invocation);
                    self.host.cancels.fetch_add(1, SeqCst);
                    self.say(done(invocation, Outcome::Canceled));
                }
                _ => {}
            }
        }
    }

    fn say(&self, message: ToGateway) {
        let _ = self.outbox.send(message);
    }

    fn log(&self, invocation: InvocationId, message: &str) {
        let level = LogLevel::Info;
        let message = message.to_owned();
        self.say(ToGateway::Log(LogLine {
            invocation,
            level,
            time_ms: 1,
            message,
            truncated: false,
            fields: None,
        }));
    }

    fn invoke(&mut self, invoke: Invoke) {
        let id = invoke.id;
        match &invoke.event {
            Event::Fetch(request) => {
                let path = request.url.split('/').skip(3).collect::<Vec<_>>().join("/");
                let path = path.split('?').next().unwrap_or_default().to_owned();
                self.fetch(id, &path, &invoke);
            }
            Event::Scheduled { cron, .. } => {
                self.log(id, &format!("scheduled {cron}"));
                self.say(ToGateway::Returned { invocation: id, json: "null".into() });
                self.say(done(id, Outcome::Done));
            }
            Event::Execute { input } => self.execute(id, input.clone(), &invoke),
            Event::Session { .. } => panic!("no test here binds another worker"),
        }
    }

    fn fetch(&mut self, id: InvocationId, path: &str, invoke: &Invoke) {
        let Event::Fetch(request) = &invoke.event else { return };
        let outcome = match path {
            "throw" => thrown(),
            "cpu" => Outcome::Limit(LimitKind::Cpu),
            "hung" => Outcome::Hung,
            "refused" => Outcome::Refused("no such entrypoint".into()),
            "fault" => Outcome::HostFault("secret detail".into()),
            "silent" => Outcome::Done,
            "hang" => {
                self.live.insert(id, Live::Hanging);
                self.host.held.lock().unwrap().push(id);
                return;
            }
            "endless" => {
                self.live.insert(id, Live::Endless { credit: BODY_CREDIT_BYTES });
                let body = Body::Stream { id: OUT, length: None };
                self.say(ToGateway::Response {
                    invocation: id,
                    response: HttpResponse { body, ..answer(200, "") },
                });
                return self.fill(id);
            }
            "echo" => return self.echo(id, &request.body),
            // Answers only when it has the whole body.
            "collect" if matches!(request.body, Body::Stream { .. }) => {
                self.live.insert(id, Live::Collect { bytes: 0 });
                return;
            }
            "log" => {
                self.log(id, "line one");
                self.say(ToGateway::Response { invocation: id, response: answer(200, "logged") });
                Outcome::Done
            }
            "headers" => {
                let mut response = answer(299, "x");
                response.status_text = "Fine".into();
                response.headers = [
                    ("connection", "close, x-hop"),
                    ("x-hop", "1"),
                    ("transfer-encoding", "chunked"),
                    ("content-length", "99"),
                    ("set-cookie", "a=1"),
                    ("set-cookie", "b=2"),
                ]
                .map(|(name, value)| (name.into(), Bytes::from(value)))
                .into();
                self.say(ToGateway::Response { invocation: id, response });
                Outcome::Done
            }
            _ => {
                let headers: Vec<_> =
                    request.headers.iter().map(|(n, v)| (n.clone(), String::from_utf8_lossy(v))).collect();
                let env: Vec<_> =
                    invoke.env.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
                let seen = json!({
                    "method": request.method, "url": request.url, "headers": headers, "env": env,
                    "isolate": format!("{:?}", invoke.isolate), "outbound": format!("{:?}", invoke.outbound),
                    "cpu_ms": invoke.limits.cpu_ms,
                });
                self.say(ToGateway::Response { invocation: id, response: answer(200, &seen.to_string()) });
                Outcome::Done
            }
        };
        self.say(done(id, outcome));
    }

    fn echo(&mut self, id: InvocationId, body: &Body) {
        let answer =
            |body| ToGateway::Response { invocation: id, response: HttpResponse { body, ..answer(200, "") } };
        match body {
            Body::Stream { .. } => {
                self.say(answer(Body::Stream { id: OUT, length: None }));
                self.live.insert(id, Live::Echo { back: Vec::new() });
            }
            whole => {
                self.say(answer(whole.clone()));
                self.say(done(id, Outcome::Done));
            }
        }
    }

    fn execute(&mut self, id: InvocationId, input: String, invoke: &Invoke) {
        self.log(id, "running");
        let outcome = match input.as_str() {
            "\"throw\"" => thrown(),
            "\"cpu\"" => Outcome::Limit(LimitKind::Cpu),
            "\"lacks\"" => lacks(),
            "\"calls and lacks\"" => {
                let usage = Usage { subrequests: 1, ..Usage::default() };
                return self.say(ToGateway::Done { invocation: id, outcome: lacks(), usage });
            }
            "\"fault\"" => Outcome::HostFault("secret detail".into()),
            "\"hang\"" => {
                self.live.insert(id, Live::Hanging);
                return;
            }
            _ => {
                let env: Vec<_> =
                    invoke.env.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
                let input: serde_json::Value = serde_json::from_str(&input).unwrap();
                let seen = json!({ "input": input, "env": env, "isolate": format!("{:?}", invoke.isolate), "cpu_ms": invoke.limits.cpu_ms });
                self.say(ToGateway::Returned { invocation: id, json: seen.to_string() });
                Outcome::Done
            }
        };
        self.say(done(id, outcome));
    }

    fn fill(&mut self, id: InvocationId) {
        let mut frames = 0;
        if let Some(Live::Endless { credit }) = self.live.get_mut(&id) {
            while *credit >= BODY_CHUNK_BYTES_MAX {
                *credit -= BODY_CHUNK_BYTES_MAX;
                frames += 1;
            }
        }
        for _ in 0..frames {
            let step = BodyStep::Data(Bytes::from(vec![b'x'; BODY_CHUNK_BYTES_MAX]));
            self.say(ToGateway::Body(BodyFrame { invocation: id, stream: OUT, step }));
        }
    }

    fn body(&mut self, frame: BodyFrame) {
        let id = frame.invocation;
        let say = |stream, step| {
            let _ = self.outbox.send(ToGateway::Body(BodyFrame { invocation: id, stream, step }));
        };
        match (self.live.get_mut(&id), frame.step) {
            (Some(Live::Endless { credit }), BodyStep::Credit(more)) => {
                *credit += more as usize;
                self.fill(id);
            }
            // Everything is kept until the end, so that the test needs no more than the credit of one direction.
            (Some(Live::Echo { back }), BodyStep::Data(bytes)) => {
                say(frame.stream, BodyStep::Credit(u32::try_from(bytes.len()).unwrap()));
                back.extend_from_slice(&bytes);
            }
            (Some(Live::Echo { back }), BodyStep::End) => {
                let whole = std::mem::take(back);
                for piece in whole.chunks(BODY_CHUNK_BYTES_MAX) {
                    say(OUT, BodyStep::Data(Bytes::copy_from_slice(piece)));
                }
                say(OUT, BodyStep::End);
                self.live.remove(&id);
                self.say(done(id, Outcome::Done));
            }
            (Some(Live::Collect { bytes: all }), BodyStep::Data(bytes)) => {
                say(frame.stream, BodyStep::Credit(u32::try_from(bytes.len()).unwrap()));
                *all += bytes.len();
            }
            (Some(Live::Collect { bytes }), BodyStep::End) => {
                let response = answer(200, &bytes.to_string());
                self.live.remove(&id);
                self.say(ToGateway::Response { invocation: id, response });
                self.say(done(id, Outcome::Done));
            }
            (Some(Live::Echo { .. } | Live::Collect { .. }), BodyStep::Abort(_)) => {
                self.live.remove(&id);
                self.say(done(id, thrown()));
            }
            _ => {}
        }
    }
}
