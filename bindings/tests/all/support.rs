//! A host end that does what the test says, and what every test starts from.

use std::future::Future;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use atoll_bindings::body::{BoxError, RequestBody};
use atoll_bindings::link::{self, Grant, HostEndpoint, Link, Start, StartEvent};
use atoll_bindings::seam::*;
use atoll_loader::WorkerCode;
use atoll_loader::bundle::Bundle;
use atoll_loader::limits::Limits;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use tokio::sync::mpsc;

pub struct Host(pub HostEndpoint);

impl Host {
    pub async fn next(&mut self) -> ToHost {
        self.0.inbox.recv().await.expect("the gateway still speaks")
    }

    /// The next message that is not a bundle.
    pub async fn after_bundle(&mut self) -> ToHost {
        loop {
            match self.next().await {
                ToHost::Bundle { .. } => {}
                other => return other,
            }
        }
    }

    pub async fn invoke(&mut self) -> Invoke {
        match self.after_bundle().await {
            ToHost::Invoke(invoke) => *invoke,
            other => panic!("not an Invoke: {other:?}"),
        }
    }

    pub fn say(&self, message: ToGateway) {
        self.0.outbox.send(message).expect("the link reads");
    }

    pub fn step(&self, invocation: InvocationId, stream: u32, step: BodyStep) {
        self.say(ToGateway::Body(BodyFrame { invocation, stream: StreamId(stream), step }));
    }

    pub fn respond(&self, invocation: InvocationId, body: Body) {
        self.say(ToGateway::Response { invocation, response: response(200, body) });
    }

    pub fn done(&self, invocation: InvocationId) {
        self.say(ToGateway::Done { invocation, outcome: Outcome::Done, usage: usage() });
    }

    pub fn call(&self, invocation: InvocationId, call: u32, channel: u32, body: Body) {
        self.say(ToGateway::Call {
            invocation,
            call: CallId(call),
            channel: ChannelId(channel),
            request: HttpRequest {
                method: "POST".into(),
                url: "https://example.com/x".into(),
                headers: vec![("a".into(), Bytes::from_static(b"b"))],
                body,
                redirect: Redirect::Manual,
            },
        });
    }
}

pub fn usage() -> Usage {
    Usage { cpu_us: 7, ..Usage::default() }
}

pub fn response(status: u16, body: Body) -> HttpResponse {
    HttpResponse {
        status,
        status_text: String::new(),
        headers: vec![],
        body,
        url: String::new(),
        redirected: false,
    }
}

pub fn bundle() -> Arc<Bundle> {
    bundle_of("export default { fetch() {} }")
}

pub fn bundle_of(source: &str) -> Arc<Bundle> {
    let code = WorkerCode::new("main.js").js("main.js", source).compatibility_date("2026-01-01");
    Arc::new(code.build().expect("a worker"))
}

pub fn start(event: StartEvent) -> Start {
    Start {
        bundle: bundle(),
        isolate: IsolateKey::Fresh,
        entrypoint: None,
        props: None,
        event,
        identity: Identity { tenant: "acme".into(), worker: "hello".into(), traceparent: None },
        limits: Limits::default(),
        env: Vec::<(Arc<str>, Grant)>::new(),
        outbound: None,
    }
}

pub fn fetch(body: RequestBody) -> Start {
    let request = http::Request::post("https://hello.example/path?q=1").header("x-a", "1").body(body);
    start(StartEvent::Fetch(request.unwrap()))
}

pub fn execute() -> Start {
    start(StartEvent::Execute { input: "null".into() })
}

pub fn in_process() -> (Link, Host) {
    let (link, endpoint) = link::in_process();
    (link, Host(endpoint))
}

pub fn over_socket() -> (Link, Host) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (link::over_socket(ours).unwrap(), Host(link::host_over_socket(theirs).unwrap()))
}

/// Runs a test over both transports.
pub async fn both<F: Future<Output = ()>>(test: impl Fn(Link, Host) -> F) {
    let (link, host) = in_process();
    test(link, host).await;
    let (link, host) = over_socket();
    test(link, host).await;
}

/// A body that the test feeds.
pub struct Fed(pub mpsc::Receiver<Result<Bytes, &'static str>>);

impl Fed {
    pub fn body() -> (mpsc::Sender<Result<Bytes, &'static str>>, RequestBody) {
        let (feed, receiver) = mpsc::channel(1);
        (feed, RequestBody::Stream(Box::pin(Self(receiver))))
    }
}

impl HttpBody for Fed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0.poll_recv(cx).map(|next| next.map(|result| result.map(Frame::data).map_err(Into::into)))
    }
}
