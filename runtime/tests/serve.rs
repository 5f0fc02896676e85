//! The runtime behind an in-process link: what a worker does is what comes out.

#![allow(clippy::unwrap_used, reason = "a test says by panicking that something is wrong")]

use std::sync::Arc;

use atoll_bindings::body::RequestBody;
use atoll_bindings::channel::{CallContext, CallFuture, Channel, MethodFuture};
use atoll_bindings::link::{Answer, Ended, Link, Running, Start, StartEvent, in_process};
use atoll_bindings::seam::{CallError, Identity, IsolateKey, MethodError, Outcome};
use atoll_bindings::value::Value;
use atoll_loader::WorkerCode;
use atoll_loader::limits::Limits;
use atoll_runtime::embed::{Env, Loader};
use atoll_runtime::host::{HostConfig, run};
use http_body_util::BodyExt;

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

struct Host {
    link: Link,
    tokio: tokio::runtime::Runtime,
}

impl Host {
    fn start() -> Self {
        let tokio =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (link, endpoint) = tokio.block_on(async { in_process() });
        tokio.spawn(run(endpoint, HostConfig { pool_size: 2, ..HostConfig::default() }));
        Self { link, tokio }
    }

    fn begin(&self, code: WorkerCode, event: StartEvent, limits: Limits) -> Running {
        let _entered = self.tokio.enter();
        self.link
            .start(Start {
                bundle: Arc::new(code.build().unwrap()),
                isolate: IsolateKey::Fresh,
                entrypoint: None,
                props: None,
                event,
                identity: Identity {
                    tenant: "t".into(),
                    worker: "w".into(),
                    traceparent: Some(TRACEPARENT.into()),
                },
                limits,
                env: vec![("LOADER".into(), atoll_bindings::link::Grant::Loader { scope: "t/w".into() })],
                outbound: None,
            })
            .unwrap()
    }

    fn fetch(&self, source: &str) -> Result<(u16, String), Ended> {
        let request = http::Request::get("http://example.com/path?q=1")
            .header("x-a", "b")
            .body(RequestBody::Empty)
            .unwrap();
        let code = WorkerCode::new("worker.js").js("worker.js", source);
        let mut running = self.begin(code, StartEvent::Fetch(request), Limits::default());
        self.tokio.block_on(async {
            match running.answer().await? {
                Answer::Response(response) => {
                    let status = response.status().as_u16();
                    let bytes = response.into_body().collect().await.unwrap().to_bytes();
                    let ended = running.ended().await;
                    assert_eq!(ended.outcome, Outcome::Done);
                    Ok((status, String::from_utf8(bytes.to_vec()).unwrap()))
                }
                Answer::Value(value) => panic!("a value: {value}"),
            }
        })
    }

    fn execute(&self, source: &str, limits: Limits) -> Result<String, Outcome> {
        let code = WorkerCode::new("main.js").js("main.js", source);
        let mut running = self.begin(code, StartEvent::Execute { input: "{\"n\":2}".into() }, limits);
        self.tokio.block_on(async {
            match running.answer().await {
                Ok(Answer::Value(value)) => match running.ended().await.outcome {
                    Outcome::Done => Ok(value),
                    outcome => Err(outcome),
                },
                Ok(Answer::Response(_)) => panic!("a response"),
                Err(ended) => Err(ended.outcome),
            }
        })
    }
}

#[test]
fn a_worker_answers_fetch() {
    let host = Host::start();
    let hello = host.fetch("export default { fetch(request) { return new Response('hello ' + request.url + request.headers.get('x-a')); } }");
    assert_eq!(hello.unwrap(), (200, "hello http://example.com/path?q=1b".into()));
    let later = host.fetch(
        "export default { async fetch() { await new Promise((r) => setTimeout(r, 5)); const d = await crypto.subtle.digest('SHA-256', new TextEncoder().encode('a')); return Response.json({ size: d.byteLength }, { status: 201 }); } }",
    );
    assert_eq!(later.unwrap(), (201, "{\"size\":32}".into()));
    let stream = host.fetch(
        "export default { fetch() { const { readable, writable } = new TransformStream(); (async () => { const w = writable.getWriter(); for (let i = 0; i < 3; i++) await w.write(new TextEncoder().encode('c' + i)); await w.close(); })(); return new Response(readable); } }",
    );
    assert_eq!(stream.unwrap(), (200, "c0c1c2".into()));
}

#[test]
fn a_worker_loads_a_worker() {
    let host = Host::start();
    let answer = host.fetch(
        "export default { async fetch(request, env) {
            const worker = env.LOADER.load({ compatibilityDate: '2025-06-01', mainModule: 'm.js', modules: { 'm.js': 'export default { async fetch(r, env) { let e = null; try { await fetch(\"http://x/\") } catch (error) { e = error.message } return new Response(env.name + \" \" + e) } }' }, env: { name: 'child' }, globalOutbound: null });
            return worker.getEntrypoint().fetch(request);
        } }",
    );
    let (status, text) = answer.unwrap();
    assert_eq!(status, 200);
    assert!(text.starts_with("child This worker is not permitted to access the internet"), "{text}");
}

#[test]
fn a_loaded_worker_is_in_its_parents_trace_unless_told_otherwise() {
    let host = Host::start();
    let answer = host.fetch(
        "export default { async fetch(request, env) {
            const child = env.LOADER.load({ compatibilityDate: '2025-06-01', mainModule: 'm.js', modules: { 'm.js': 'export default { fetch: (r) => new Response(r.headers.get(\"traceparent\")) }' }, globalOutbound: null }).getEntrypoint();
            const ask = async (headers) => (await child.fetch('http://x/', { headers })).text();
            return new Response(await ask({}) + ' ' + await ask({ traceparent: 'own' }));
        } }",
    );
    assert_eq!(answer.unwrap(), (200, format!("{TRACEPARENT} own")));
}

#[test]
fn an_execution_returns_a_value_or_the_reason() {
    let host = Host::start();
    let value = host.execute("export default async (input) => ({ doubled: input.n * 2 })", Limits::default());
    assert_eq!(value.unwrap(), "{\"doubled\":4}");
    let limits = Limits { cpu_ms: 50, ..Limits::default() };
    let spin = host.execute("export default () => { for (;;); }", limits);
    assert_eq!(spin.unwrap_err().code(), "limit_cpu");
    let thrown = host.execute("export default () => { throw new TypeError('no') }", Limits::default());
    let Outcome::GuestError(error) = thrown.unwrap_err() else { panic!() };
    assert_eq!((error.name.as_str(), error.message.as_str()), ("TypeError", "no"));
    let asleep = host
        .execute("export default () => new Promise(() => {})", Limits { wall_ms: 50, ..Limits::default() });
    assert_eq!(asleep.unwrap_err().code(), "limit_wall");
    let buffers = host.execute("export default () => { const a = []; try { for (;;) a.push(new ArrayBuffer(1 << 20)); } catch (e) { return [a.length, e.name]; } }", Limits::default());
    let buffers = buffers.unwrap();
    // 128 MiB, less what the runtime itself holds in buffers.
    assert!(buffers == "[127,\"RangeError\"]" || buffers == "[128,\"RangeError\"]", "{buffers}");
}

/// This very loop once ran until the machine was out of memory: TurboFan had unrolled it, and left out the stack
/// check through which termination is seen. The platform's flags keep the check.
#[test]
fn a_growing_heap_is_stopped() {
    let host = Host::start();
    let heap = host.execute(
        "export default () => { const a = []; for (;;) a.push(new Array(1000).fill(1.5)); }",
        Limits::default(),
    );
    assert_eq!(heap.unwrap_err().code(), "limit_heap");
}

/// A capability in Rust, called as a method by guests.
struct Greeter;

impl Channel for Greeter {
    fn fetch(&self, _: CallContext, _: http::Request<RequestBody>) -> CallFuture {
        Box::pin(async { Err(CallError::Denied("no fetch".into())) })
    }

    fn call(&self, context: CallContext, method: &str, arguments: Vec<Value>) -> MethodFuture {
        let unknown = MethodError::unknown(method);
        let known = method == "greet";
        Box::pin(async move {
            let Some(name) = arguments.first().map(|first| first.member("name")).filter(|_| known) else {
                return Err(unknown);
            };
            let text = format!("{} from {}", name.as_text().unwrap_or("nobody"), context.identity.tenant);
            Ok(Value::List(vec![Value::Text(text), Value::Data(vec![1, 2].into())]))
        })
    }

    fn name(&self) -> &str {
        "greeter"
    }
}

#[test]
fn a_capability_in_rust_answers_methods() {
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    tokio.block_on(async {
        let loader = Loader::start().unwrap();
        let code = WorkerCode::new("m.js").js(
            "m.js",
            r#"export default { async run(input, env, ctx) {
                const words = async (f) => { try { return await f(); } catch (e) { return `${e.name}: ${e.message}`; } };
                const [text, data] = await env.GREETER.greet({ name: "Ada", more: [1, { x: null }] });
                return [
                  text, data.byteLength,
                  await words(() => env.GREETER.other()),
                  await words(() => env.GREETER.greet(() => 1)),
                  await words(() => env.GREETER.a.b()),
                  await words(() => env.GREETER.greet(new Uint8Array(300000))),
                  await words(() => env.GREETER.greet(new Map())),
                ];
            } };"#,
        );
        let worker = loader.load(code, None, Env::new().service("GREETER", Arc::new(Greeter))).unwrap();
        let got = worker.execute("null").await.unwrap();
        let plain = "Error: This binding takes method calls with at most 262144 bytes of plain data.";
        let unknown = "TypeError: The RPC receiver does not implement the method \\\"other\\\".";
        let data = "TypeError: The value holds something that this binding cannot take.";
        let want =
            format!("[\"Ada from embed\",2,\"{unknown}\",\"{plain}\",\"{plain}\",\"{plain}\",\"{data}\"]");
        assert_eq!(got, want);
    });
}
