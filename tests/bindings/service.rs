//! Service bindings: workers that call workers.

use serde_json::{Value, json};

use super::{deploy, deployed, get};
use crate::support::atoll::{Atoll, NEIGHBOUR, NEIGHBOUR_TOKEN, Options, TOKEN, deployment};
use crate::support::client::Answer;
use crate::support::worker::{Request, Worker};

const CALLEE: &str = r#"
import { WorkerEntrypoint, RpcTarget } from "cloudflare:workers";
let disposed = 0;
class Counter extends RpcTarget {
  #n;
  constructor(n) { super(); this.#n = n; }
  add(by) { return this.#n += by; }
  get value() { return this.#n; }
  twin() { return new Counter(this.#n); }
  [Symbol.dispose]() { disposed++; }
}
export default class extends WorkerEntrypoint {
  async fetch(request) {
    console.log("served", request.method);
    const url = new URL(request.url);
    if (request.headers.get("upgrade") === "websocket") {
      const [theirs, ours] = Object.values(new WebSocketPair());
      ours.accept();
      ours.addEventListener("message", ({ data }) => ours.send(`echo ${data}`));
      return new Response(null, { status: 101, webSocket: theirs });
    }
    if (url.pathname === "/throw") throw new RangeError("from afar");
    if (url.pathname === "/upper") {
      return new Response(request.body.pipeThrough(new TransformStream({
        transform(chunk, out) { out.enqueue(new TextEncoder().encode(new TextDecoder().decode(chunk).toUpperCase())); },
      })));
    }
    return Response.json({ path: url.pathname, method: request.method, body: await request.text(), props: this.ctx.props,
      env: Object.keys(this.env), trace: request.headers.get("traceparent")?.split("-")[1] ?? null }, { status: 201, headers: { "x-callee": "1" } });
  }
  add(a, b) { return a + b; }
  counter(n) { return new Counter(n); }
  disposed() { return disposed; }
  async twice(f, x) { return await f(await f(x)); }
  sum(stream) { return new Response(stream).text().then((text) => text.length); }
  count(n) {
    let at = 0;
    return new ReadableStream({ pull(out) { at++ < n ? out.enqueue(new Uint8Array(1000).fill(65)) : out.close(); } });
  }
  async pass(request) { return new Response(`${request.method} ${await request.text()}`, { status: 202 }); }
  fail() { throw Object.assign(new TypeError("no way"), { code: 7 }); }
  spin() { for (;;); }
  later() { this.ctx.waitUntil(new Promise((done) => setTimeout(done, 20)).then(() => console.log("later"))); return "now"; }
  never() { return new Promise(() => {}); }
}
export class Named extends WorkerEntrypoint {
  who() { return ["named", this.ctx.props]; }
  fetch() { return new Response("named " + JSON.stringify(this.ctx.props)); }
}
export const plain = { fetch() { return new Response("plain"); }, double(n, env, ctx) { return n * 2; } };
"#;

/// Runs the steps of its path with `env` and answers with what they gave.
const CALLER: &str = r#"
const words = async (f) => { try { return await f(); } catch (e) { return `${e.name}: ${e.message}${e.remote ? " (remote)" : ""}`; } };
const steps = {
  async fetch({ OTHER }) {
    const answer = await OTHER.fetch("http://any/where", { method: "POST", body: "hi" });
    return [answer.status, answer.headers.get("x-callee"), await answer.json()];
  },
  async large({ OTHER }) {
    const body = "a".repeat(1_000_000);
    const answer = await OTHER.fetch("http://any/upper", { method: "POST", body });
    const text = await answer.text();
    return [text.length, text === body.toUpperCase()];
  },
  throws: ({ OTHER }) => words(() => OTHER.fetch("http://any/throw")),
  async rpc({ OTHER }) {
    using counter = await OTHER.counter(10);
    const { code } = await OTHER.fail().catch((e) => e);
    const before = await OTHER.counter(1);
    before[Symbol.dispose]();
    return [
      await OTHER.add(1, 2), await counter.add(5), await counter.value, await OTHER.counter(1).twin().add(1),
      await OTHER.twice((n) => n * 3, 2), await words(() => OTHER.fail()), code, await words(() => OTHER.missing()),
      (await OTHER.disposed()) >= 1,
    ];
  },
  async streams({ OTHER }) {
    const up = new Response("x".repeat(700_000)).body;
    const down = await new Response(await OTHER.count(300)).text();
    const answer = await OTHER.pass(new Request("http://any/", { method: "PUT", body: "body" }));
    return [await OTHER.sum(up), down.length, answer.status, await answer.text()];
  },
  async entrypoints({ NAMED, PLAIN, OTHER, GONE }) {
    return [await NAMED.who(), await (await NAMED.fetch("http://x/")).text(), await PLAIN.double(4),
      await (await PLAIN.fetch("http://x/")).text(), await words(() => GONE.who())];
  },
  async socket({ OTHER }) {
    const { webSocket, status } = await OTHER.fetch("http://any/", { headers: { upgrade: "websocket" } });
    webSocket.accept();
    const said = new Promise((done) => webSocket.addEventListener("message", ({ data }) => done(data)));
    webSocket.send("hello");
    const text = await said;
    webSocket.close(1000);
    return [status, text];
  },
  version: ({ OTHER }) => words(async () => await (await OTHER.fetch("http://x/")).text()),
  call: ({ OTHER }) => words(() => OTHER.add(1, 2)),
  spin: ({ OTHER }) => words(() => OTHER.spin()),
  async after({ OTHER }) { return [await words(() => OTHER.spin()), await OTHER.add(2, 2)]; },
  never: ({ OTHER }) => words(() => OTHER.never()),
  later: ({ OTHER }) => OTHER.later(),
  async many({ OTHER }) {
    const all = await Promise.all(Array.from({ length: 40 }, (_, i) => OTHER.add(i, i)));
    return all.reduce((a, b) => a + b);
  },
};
export default {
  async fetch(request, env) { return Response.json((await steps[new URL(request.url).pathname.slice(1)](env)) ?? null); },
};
"#;

fn service(worker: &str) -> Value {
    json!({ "type": "service", "worker": worker })
}

/// A server with the callee `other` and the caller `front`.
async fn pair() -> Atoll {
    let server = Atoll::start(Options::default()).await;
    deployed(&server, "other", CALLEE, json!({})).await;
    deployed(&server, "front", CALLER, bindings()).await;
    server
}

fn bindings() -> Value {
    let entrypoint = |name: &str| json!({ "type": "service", "worker": "other", "entrypoint": name, "props": { "role": name } });
    json!({
        "OTHER": service("other"), "NAMED": entrypoint("Named"), "PLAIN": entrypoint("plain"), "GONE": entrypoint("Gone"),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_calls_another_by_fetch_methods_and_streams() {
    let server = pair().await;
    let fetched =
        json!({ "path": "/where", "method": "POST", "body": "hi", "props": {}, "env": [], "trace": null });
    for (step, wanted) in [
        ("fetch", json!([201, "1", fetched])),
        ("large", json!([1_000_000, true])),
        ("throws", json!("RangeError: from afar (remote)")),
        (
            "rpc",
            json!([
                3,
                15,
                15,
                2,
                18,
                "TypeError: no way (remote)",
                7,
                "TypeError: The RPC receiver does not implement the method \"missing\". (remote)",
                true,
            ]),
        ),
        ("streams", json!([700_000, 300_000, 202, "PUT body"])),
        (
            "entrypoints",
            json!([
                ["named", { "role": "Named" }], "named {\"role\":\"Named\"}", 8, "plain",
                "Error: Worker has no such entrypoint: Gone",
            ]),
        ),
        ("socket", json!([101, "echo hello"])),
        ("many", json!(1560)),
    ] {
        assert_eq!(get(&server, "front", &format!("/{step}")).await, wanted, "{step}");
    }
    // Its lines are its own.
    let logs = server.control("GET", "/v1/workers/other/logs", None).await.text();
    assert!(logs.contains("served POST"), "{logs}");
    let logs = server.control("GET", "/v1/workers/front/logs", None).await.text();
    assert!(!logs.contains("served"), "{logs}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callee_is_in_its_callers_trace() {
    let server = pair().await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let request =
        Request::new("GET", "/fetch").header("traceparent", &format!("00-{trace}-b7ad6b7169203331-01"));
    let answer = server.send("front", &request).await.json();
    assert_eq!(answer[2]["trace"], trace, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_binding_follows_what_is_deployed() {
    let server = Atoll::start(Options::default()).await;
    let version = |n: u32| format!("export default {{ fetch() {{ return new Response('v{n}') }} }}");
    // The callee may come later than its caller.
    deployed(&server, "front", CALLER, json!({ "OTHER": service("other") })).await;
    let missing = json!("Error: There is no worker \"other\". (service_missing)");
    assert_eq!(get(&server, "front", "/version").await, missing);
    deployed(&server, "other", &version(1), json!({})).await;
    assert_eq!(get(&server, "front", "/version").await, "v1");
    deployed(&server, "other", &version(2), json!({})).await;
    assert_eq!(get(&server, "front", "/version").await, "v2");
    let back = server.control("POST", "/v1/workers/other/rollback", None).await;
    assert_eq!(back.status, 200, "{}", back.text());
    assert_eq!(get(&server, "front", "/version").await, "v1");
    assert_eq!(server.control("DELETE", "/v1/workers/other", None).await.status, 204);
    assert_eq!(get(&server, "front", "/version").await, missing);
    deployed(&server, "other", &version(3), json!({})).await;
    assert_eq!(get(&server, "front", "/version").await, "v3");
}

async fn deploy_allowing(server: &Atoll, callers: Value) -> Answer {
    let mut body = deployment(&Worker::single("other", CALLEE));
    body["allowCallers"] = callers;
    server.control_as(NEIGHBOUR_TOKEN, "PUT", "/v1/workers/other", Some(body)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tenant_answers_only_whom_it_names_and_does_not_show_that_it_is_there() {
    let server = Atoll::start(Options::default()).await;
    let target = format!("{NEIGHBOUR}/other");
    for name in ["front", "back"] {
        deployed(&server, name, CALLER, json!({ "OTHER": service(&target) })).await;
    }
    let denied = json!(format!(
        "Error: There is no worker \"{target}\", or it does not allow this caller. (service_not_granted)"
    ));
    // Not there, there, there for somebody else: the same words.
    assert_eq!(get(&server, "front", "/call").await, denied);
    for callers in [json!([]), json!(["acme/back"]), json!(["acme2/*"])] {
        assert_eq!(deploy_allowing(&server, callers.clone()).await.json()["name"], "other", "{callers}");
        assert_eq!(get(&server, "front", "/call").await, denied, "{callers}");
    }
    let told = deploy_allowing(&server, json!(["acme/back", "acme/front"])).await.json();
    assert_eq!(told["allowCallers"], json!(["acme/back", "acme/front"]));
    assert_eq!(get(&server, "front", "/call").await, 3);
    deploy_allowing(&server, json!(["acme/*"])).await;
    assert_eq!(get(&server, "back", "/rpc").await[0], 3);
    // Its lines and its numbers are those of its own tenant.
    get(&server, "front", "/fetch").await;
    let logs = server.control_as(NEIGHBOUR_TOKEN, "GET", "/v1/workers/other/logs", None).await.text();
    assert!(logs.contains("served POST"), "{logs}");
    // The grant ends with the version that gave it.
    deploy_allowing(&server, json!([])).await;
    assert_eq!(get(&server, "front", "/call").await, denied);
    for bad in [json!(["*"]), json!(["acme"]), json!(["*/x"]), json!(["acme/a/b"])] {
        let answer = deploy_allowing(&server, bad.clone()).await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (422, Some("invalid_setting")), "{bad}");
    }
}

/// A worker comes to its caller's process, so one whose tenant may not be there is not called at all.
#[tokio::test(flavor = "multi_thread")]
async fn tenants_of_different_host_classes_do_not_meet_by_a_call() {
    let config = "[host_class.apart]\nhosts = 1\n".to_owned();
    let neighbour = "host_class = \"apart\"".to_owned();
    let server = Atoll::start(Options { config, neighbour, ..Options::default() }).await;
    let target = format!("{NEIGHBOUR}/other");
    deployed(&server, "front", CALLER, json!({ "OTHER": service(&target) })).await;
    deploy_allowing(&server, json!(["acme/*"])).await;
    let answer = get(&server, "front", "/call").await;
    assert!(answer.as_str().is_some_and(|text| text.contains("service_busy")), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_a_service_are_checked() {
    let server = Atoll::start(Options::default()).await;
    for (binding, status) in [
        (json!({ "type": "service" }), 400),
        (json!({ "type": "service", "worker": "a", "tenant": "b" }), 400),
        (json!({ "type": "service", "worker": "a/b/c" }), 422),
        (json!({ "type": "service", "worker": "A" }), 422),
        (json!({ "type": "service", "worker": "a", "props": 1 }), 422),
        (json!({ "type": "service", "worker": "a", "entrypoint": "" }), 422),
    ] {
        let answer = deploy(&server, TOKEN, "w", CALLER, json!({ "OTHER": binding })).await;
        assert_eq!(answer.status, status, "{binding}: {}", answer.text());
    }
}

const CYCLE: &str = r#"
import { WorkerEntrypoint } from "cloudflare:workers";
export default class extends WorkerEntrypoint {
  async fetch(request) {
    const deep = +new URL(request.url).searchParams.get("deep") || 0;
    if (new URL(request.url).pathname === "/once") return Response.json(await this.env.NEXT.name());
    try {
      const answer = await this.env.NEXT.fetch(`http://x/?deep=${deep + 1}`);
      return answer;
    } catch (error) {
      return Response.json([deep, error.message]);
    }
  }
  name() { return "me"; }
  async down(n) {
    try { return await this.env.NEXT.down(n + 1); } catch (error) { return [n, error.message]; }
  }
}
export const rpc = { async fetch(request, env) { return Response.json(await env.NEXT.down(0)); } };
"#;

#[tokio::test(flavor = "multi_thread")]
async fn cycles_work_and_end_at_their_depth() {
    let server = Atoll::start(Options::default()).await;
    deployed(&server, "self", CYCLE, json!({ "NEXT": service("self") })).await;
    deployed(&server, "a", CYCLE, json!({ "NEXT": service("b") })).await;
    deployed(&server, "b", CYCLE, json!({ "NEXT": service("a") })).await;
    for worker in ["self", "a"] {
        assert_eq!(get(&server, worker, "/once").await, "me");
        let end = get(&server, worker, "/").await;
        assert_eq!(end[0], 16, "{end}");
        assert!(end[1].as_str().unwrap().starts_with("Subrequest depth limit exceeded."), "{end}");
    }
    let caller = "export default { async fetch(_, env) { return Response.json(await env.A.down(1)); } }";
    deployed(&server, "start", caller, json!({ "A": service("a") })).await;
    let end = get(&server, "start", "/").await;
    assert_eq!(end[0], 16, "{end}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callee_that_is_stopped_is_an_error_at_its_caller_alone() {
    let server = pair().await;
    assert_eq!(get(&server, "front", "/spin").await, "Error: Worker exceeded CPU time limit.");
    assert_eq!(get(&server, "front", "/after").await, json!(["Error: Worker exceeded CPU time limit.", 4]));
    let never = get(&server, "front", "/never").await;
    assert!(never.as_str().unwrap().contains("code had hung"), "{never}");
    // The metrics tell the callee's end, and that of the caller.
    let metrics = server.control("GET", "/metrics", None).await.text();
    assert!(metrics.contains("limit_cpu"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_callee_leaves_to_wait_until_is_done() {
    let server = pair().await;
    assert_eq!(get(&server, "front", "/later").await, "now");
    for _ in 0..100 {
        let logs = server.control("GET", "/v1/workers/other/logs", None).await.text();
        if logs.contains("later") {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("it was not done");
}

const LENDER: &str = r#"
import { WorkerEntrypoint } from "cloudflare:workers";
export class Own extends WorkerEntrypoint {
  whose() { return `own of ${this.env.NAME} ${JSON.stringify(this.ctx.props)}`; }
}
export default class extends WorkerEntrypoint {
  whose() { return `default of ${this.env.NAME}`; }
  // What comes from another invocation is used there, kept, and used too late.
  async use(service) { return await service.whose(); }
  async both(service) { return [await service.whose(), await this.env.MINE.whose()]; }
  async keep(service) { globalThis.kept = service; return true; }
  async again() { try { return await globalThis.kept.whose(); } catch (error) { return error.message; } }
  async load(service) {
    const worker = this.env.LOADER.load({
      compatibilityDate: "2025-06-01", mainModule: "m.js", env: { S: service }, globalOutbound: service,
      modules: { "m.js": `export default { async fetch(_, env) { return new Response([await env.S.whose(), await (await fetch("http://x/")).text()].join("|")) } }` },
    });
    return await (await worker.getEntrypoint().fetch("http://x/")).text();
  }
  fetch() { return new Response(`fetched ${this.env.NAME}`); }
}
"#;

/// Numbers of channels mean something under one invocation only: each side has other services under the same numbers.
#[tokio::test(flavor = "multi_thread")]
async fn services_and_entrypoints_that_are_passed_on_stay_what_they_are() {
    let server = Atoll::start(Options::default()).await;
    let named = |name: &str, mine: &str| {
        let mut body = deployment(&Worker::single(name, LENDER));
        body["vars"] = json!({ "NAME": name });
        body["loaders"] = json!(["LOADER"]);
        body["bindings"] = json!({ "MINE": service(mine) });
        body
    };
    for (name, mine) in [("red", "red"), ("blue", "blue"), ("borrower", "blue")] {
        let path = format!("/v1/workers/{name}");
        let answer = server.control("PUT", &path, Some(named(name, mine))).await;
        assert!(answer.status < 300, "{}", answer.text());
    }
    // In `front`, number 1 is `red`; in `borrower`, it is `blue`.
    let front = r#"
        import { WorkerEntrypoint } from "cloudflare:workers";
        export class Own extends WorkerEntrypoint {
          async whose() { return `front's own, ${JSON.stringify(this.ctx.props)}, ${await this.env.A.whose()}`; }
          fetch() { return new Response("front's own"); }
        }
        export default {
          async fetch(request, { A, BORROWER }, ctx) {
            const own = ctx.exports.Own({ props: { p: 1 } });
            return Response.json([
              await BORROWER.use(A), await BORROWER.both(A), await BORROWER.use(own), await BORROWER.load(A),
              await BORROWER.load(own), await BORROWER.keep(A), await BORROWER.keep(own),
            ]);
          },
        };"#;
    deployed(&server, "front", front, json!({ "A": service("red"), "BORROWER": service("borrower") })).await;
    let red = "default of red";
    let own = "front's own, {\"p\":1}, default of red";
    let wanted = json!([
        red,
        [red, "default of blue"],
        own,
        format!("{red}|fetched red"),
        format!("{own}|front's own"),
        true,
        true,
    ]);
    assert_eq!(get(&server, "front", "/").await, wanted);
    let late = "export default { async fetch(_, env) { return Response.json(await env.B.again()); } }";
    deployed(&server, "late", late, json!({ "B": service("borrower") })).await;
    let answer = get(&server, "late", "/").await;
    assert!(
        answer.as_str().unwrap().contains("The capability is gone.")
            || answer.as_str().unwrap().contains("different request"),
        "{answer}"
    );
}

/// Calls of workers count as subrequests of whoever makes them, and have a bound over all of them together.
#[tokio::test(flavor = "multi_thread")]
async fn calls_are_counted() {
    let server = pair().await;
    let caller = r#"export default { async fetch(_, { OTHER }) {
      let n = 0;
      try { for (;;) { await OTHER.add(1, 1); n++; } } catch (error) { return Response.json([n, error.message]); }
    } }"#;
    deployed(&server, "eager", caller, json!({ "OTHER": service("other") })).await;
    let end = get(&server, "eager", "/").await;
    assert_eq!(end[0], 50, "{end}");
    assert!(end[1].as_str().unwrap().starts_with("Too many subrequests"), "{end}");
    // A tree: each calls itself twice until it may no more.
    let tree = r#"
      import { WorkerEntrypoint } from "cloudflare:workers";
      export default class extends WorkerEntrypoint {
        async fetch() { return Response.json(await this.grow(0)); }
        async grow() {
          let n = 1, refused = 0;
          for (let i = 0; i < 3; i++) {
            try { const [more, no] = await this.env.ME.grow(); n += more; refused += no; } catch { refused++; }
          }
          return [n, refused];
        }
      }"#;
    deployed(&server, "tree", tree, json!({ "ME": service("tree") })).await;
    let end = get(&server, "tree", "/").await;
    assert_eq!(end[0], 1_001, "{end}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_execution_calls_a_deployed_worker() {
    let server = pair().await;
    let body = json!({
        "code": "return [await env.OTHER.add(2, 3), (await env.OTHER.fetch('http://x/')).status]",
        "bindings": { "OTHER": service("other") },
    });
    let answer = server.execute(body).await.json();
    assert_eq!((&answer["ok"], &answer["result"]), (&json!(true), &json!([5, 201])), "{answer}");
}

/// The callee's isolate host is the caller's: both are lost, the client hears of it, and the next call works.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_dies_during_a_call_is_told_to_the_client() {
    let server = pair().await;
    let slow = r#"import { WorkerEntrypoint } from "cloudflare:workers";
      export default class extends WorkerEntrypoint { async add(a, b) { await new Promise((done) => setTimeout(done, 20_000)); return a + b; } }"#;
    deployed(&server, "other", slow, json!({})).await;
    let call = Request::new("GET", "/call");
    let (_, answer) = tokio::join!(
        async {
            tokio::time::sleep(std::time::Duration::from_millis(700)).await;
            // Each of its threads has children of its own.
            let threads = std::fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
            let children: String = threads
                .map(|thread| std::fs::read_to_string(thread.unwrap().path().join("children")).unwrap())
                .collect();
            // Std can only end processes that it started.
            let killed =
                std::process::Command::new("kill").arg("-KILL").args(children.split_whitespace()).status();
            assert!(killed.unwrap().success());
        },
        server.send("front", &call),
    );
    assert_eq!(
        (answer.status, answer.json()["code"].as_str()),
        (503, Some("host_fault")),
        "{}",
        answer.text()
    );
    deployed(&server, "other", CALLEE, json!({})).await;
    for _ in 0..100 {
        let again = server.send("front", &Request::new("GET", "/call")).await;
        if again.status == 200 {
            assert_eq!(again.json(), 3);
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("no host came back");
}
