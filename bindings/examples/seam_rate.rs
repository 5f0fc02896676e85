//! How much the seam costs: invocations per second through a link whose host answers at once, in one process and over a socket.
//!
//! `cargo run --release -p atoll-bindings --example seam_rate`

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;

use atoll_bindings::body::RequestBody;
use atoll_bindings::link::{self, HostEndpoint, Link, Start, StartEvent};
use atoll_bindings::seam::{Body, HttpResponse, Identity, IsolateKey, Outcome, ToGateway, ToHost, Usage};
use atoll_loader::WorkerCode;
use atoll_loader::bundle::Bundle;
use atoll_loader::limits::Limits;
use bytes::Bytes;

const INVOCATIONS: usize = 400_000;
const AT_ONCE: usize = 64;

fn start(bundle: &Arc<Bundle>) -> Option<Start> {
    let request =
        http::Request::get("https://hello.example/").header("accept", "*/*").body(RequestBody::Empty);
    Some(Start {
        bundle: Arc::clone(bundle),
        isolate: IsolateKey::Warm("acme/hello/1".into()),
        entrypoint: None,
        props: None,
        event: StartEvent::Fetch(request.ok()?),
        identity: Identity { tenant: "acme".into(), worker: "hello".into(), traceparent: None },
        limits: Limits::default(),
        env: vec![],
        outbound: None,
    })
}

/// Answers every invocation at once.
async fn host(mut endpoint: HostEndpoint) {
    while let Some(message) = endpoint.inbox.recv().await {
        let ToHost::Invoke(invoke) = message else { continue };
        let response = HttpResponse {
            status: 200,
            status_text: String::new(),
            headers: vec![("content-type".into(), Bytes::from_static(b"text/plain"))],
            body: Body::Inline(Bytes::from_static(b"Hello, world!")),
            url: String::new(),
            redirected: false,
        };
        let (outcome, usage) = (Outcome::Done, Usage::default());
        let _ = endpoint.outbox.send(ToGateway::Response { invocation: invoke.id, response });
        let _ = endpoint.outbox.send(ToGateway::Done { invocation: invoke.id, outcome, usage });
    }
}

async fn measure(name: &str, link: Link, bundle: Arc<Bundle>) {
    let began = Instant::now();
    let mut clients = Vec::new();
    for _ in 0..AT_ONCE {
        let (link, bundle) = (link.clone(), Arc::clone(&bundle));
        clients.push(tokio::spawn(async move {
            for _ in 0..INVOCATIONS / AT_ONCE {
                let Some(start) = start(&bundle) else { return };
                let Ok(mut running) = link.start(start) else { return };
                let _ = running.answer().await;
                running.ended().await;
            }
        }));
    }
    for client in clients {
        let _ = client.await;
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("{name}: {:.0} invocations/s, three frames each", INVOCATIONS as f64 / seconds);
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let code = WorkerCode::new("main.js").js("main.js", "export default {}").compatibility_date("2026-01-01");
    let bundle = Arc::new(code.build()?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let far = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let (link, endpoint) = link::in_process();
        far.spawn(host(endpoint));
        measure("in process", link, Arc::clone(&bundle)).await;
        let (ours, theirs) = UnixStream::pair()?;
        let endpoint = {
            let _inside = far.enter();
            link::host_over_socket(theirs)?
        };
        far.spawn(host(endpoint));
        measure("over a socket", link::over_socket(ours)?, bundle).await;
        Ok::<(), std::io::Error>(())
    })?;
    Ok(())
}
