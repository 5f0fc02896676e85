//! Workers that workers load: their limits, their end, and the tails that are told of them.

use std::time::Duration;

use serde_json::{Value, json};

use super::{deployed, get};
use crate::support::atoll::{Atoll, Options, TOKEN, deployment};
use crate::support::worker::{Request, Worker};

/// Deploys a worker with a loader and these bindings.
async fn loader(server: &Atoll, name: &str, source: &str, bindings: Value) {
    let mut body = deployment(&Worker::single(name, source).with_loader("LOADER"));
    body["bindings"] = bindings;
    let answer = server.control_as(TOKEN, "PUT", &format!("/v1/workers/{name}"), Some(body)).await;
    assert!(answer.status < 300, "{name}: {} {}", answer.status, answer.text());
}

const LIMITS: &str = r#"
import { WorkerEntrypoint } from "cloudflare:workers";
export class Echo extends WorkerEntrypoint { echo(x) { return x; } }
const CHILD = `import { WorkerEntrypoint } from "cloudflare:workers";
export default class extends WorkerEntrypoint {
  async calls() { let n = 0; try { for (;;) { await this.env.ECHO.echo(1); n++; } } catch { return n; } }
  spin() { const end = Date.now; let x = 0; for (let i = 0; i < 3e9; i++) x += i; return x; }
  quick() { return "quick"; }
}`;
export default { async fetch(request, { LOADER }, ctx) {
  const load = (limits) => LOADER.load({
    compatibilityDate: "2025-06-01", mainModule: "m.js", modules: { "m.js": CHILD }, env: { ECHO: ctx.exports.Echo }, limits,
  });
  const words = async (f) => { try { return await f(); } catch (error) { return error.message; } };
  const calls = (code, entry) => load(code).getEntrypoint(null, { limits: entry }).calls();
  const spin = (code, entry) => words(() => load(code).getEntrypoint(null, { limits: entry }).spin());
  if (new URL(request.url).pathname === "/calls") {
    const twice = load({ subRequests: 2 });
    return Response.json([
      await calls({ subRequests: 5 }), await calls({ subRequests: 5 }, { subRequests: 3 }), await calls({ subRequests: 3 }, { subRequests: 5 }),
      await calls(undefined, { subRequests: 0 }),
      await twice.getEntrypoint().calls(), await twice.getEntrypoint().calls(),
    ]);
  }
  return Response.json([
    await spin({ cpuMs: 30 }), await spin({ cpuMs: 60000 }, { cpuMs: 30 }), await spin({ cpuMs: 30 }, { cpuMs: 60000 }),
    await words(() => load({ cpuMs: 30 }).getEntrypoint().quick()),
  ]);
} };
"#;

#[tokio::test(flavor = "multi_thread")]
async fn of_two_limits_the_lower_holds_for_each_invocation() {
    let server = Atoll::start(Options::default()).await;
    loader(&server, "limits", &LIMITS.replace("ctx.exports.Echo }", "ctx.exports.Echo({}) }"), json!({}))
        .await;
    assert_eq!(get(&server, "limits", "/calls").await, json!([5, 3, 3, 0, 2, 2]));
    let over = "Worker exceeded CPU time limit.";
    // The worker's own second is not at stake.
    assert_eq!(get(&server, "limits", "/spin").await, json!([over, over, over, "quick"]));
}

/// Loads workers and holds them until it is told to go on; what `dispose` says is let go of at once.
const DISPOSE: &str = r#"
const CHILD = "export default { async fetch(request) { return new Response('ok') } }";
let loaded = false, go;
export default { async fetch(request, { LOADER }) {
  const { pathname } = new URL(request.url);
  if (pathname === "/loaded") return Response.json(loaded);
  if (pathname === "/go") { go = true; return new Response("null"); }
  const late = [];
  loaded = go = false;
  for (let i = 0; i < 30; i++) {
    const worker = LOADER.load({ compatibilityDate: "2025-06-01", mainModule: "m.js", modules: { "m.js": CHILD } });
    const entry = worker.getEntrypoint();
    await (await entry.fetch("http://x/")).text();
    if (pathname === "/hold") continue;
    worker[Symbol.dispose]();
    if (i > 0) continue;
    for (const f of [() => entry.fetch("http://x/"), () => worker.getEntrypoint().fetch("http://x/")]) {
      try { await f(); late.push("answered"); } catch (error) { late.push(error.message); }
    }
    worker[Symbol.dispose]();
  }
  loaded = true;
  while (!go) await new Promise((done) => setTimeout(done, 20));
  return Response.json(late);
} };
"#;

async fn live(server: &Atoll) -> u64 {
    let metrics = server.control("GET", "/metrics", None).await.text();
    let line = metrics.lines().find(|line| line.starts_with("atoll_isolates_live")).expect("a gauge");
    line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).expect("a number") as u64
}

/// Waits for a number of live isolates: heartbeats tell it now and then.
async fn until_live(server: &Atoll, holds: impl Fn(u64) -> bool) -> bool {
    for _ in 0..200 {
        if holds(live(server).await) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disposed_worker_is_let_go_of_at_once() {
    let server = Atoll::start(Options::default()).await;
    loader(&server, "holder", DISPOSE, json!({})).await;
    // Pristine isolates are counted too: 16 when the pool is full, and the worker's own.
    get(&server, "holder", "/loaded").await;
    assert!(until_live(&server, |live| live >= 17).await);
    let ended = "The dynamic worker has ended.";
    for (path, late) in [("/dispose", json!([ended, ended])), ("/hold", json!([]))] {
        let request = Request::new("GET", path);
        let (answer, seen) = tokio::join!(server.send("holder", &request), async {
            while get(&server, "holder", "/loaded").await != true {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let seen = match path {
                "/dispose" => until_live(&server, |live| live <= 22).await,
                _ => until_live(&server, |live| live >= 42).await,
            };
            get(&server, "holder", "/go").await;
            seen
        });
        assert!(seen, "{path}");
        assert_eq!(answer.json(), late, "{path}");
    }
}

const TAILED: &str = r#"
import { WorkerEntrypoint } from "cloudflare:workers";
let told = [];
export class Tail extends WorkerEntrypoint {
  tail(events) { told.push(...events.map((e) => [this.ctx.props.name ?? null, e.outcome, e.event.response?.status ?? null, e.exceptions.length, e.logs.map((l) => l.message)])); }
}
export class Throws extends WorkerEntrypoint { tail() { throw new Error("no"); } }
export class Never extends WorkerEntrypoint { tail() { return new Promise(() => {}); } }
const CHILD = `export default { async fetch(request) {
  const { pathname } = new URL(request.url);
  console.log("at", pathname);
  if (pathname === "/spin") for (;;);
  if (pathname === "/heap") { const all = []; for (;;) all.push(new Array(1e6).fill(all.length)); }
  if (pathname === "/slow") await new Promise((done) => setTimeout(done, 20000));
  return new Response("ok");
} }`;
export default { async fetch(request, { LOADER, LOOPS }, ctx) {
  const { pathname } = new URL(request.url);
  if (pathname === "/told") { const all = told; told = []; return Response.json(all); }
  const { Tail, Throws, Never } = ctx.exports;
  const tails = [Throws, ...(LOOPS ? [LOOPS] : []), Tail({ props: { name: "tail" } })];
  if (pathname === "/never") tails.push(Never);
  const worker = LOADER.load({ compatibilityDate: "2025-06-01", mainModule: "m.js", modules: { "m.js": CHILD }, limits: { cpuMs: 100 }, tails });
  const signal = pathname === "/slow" ? AbortSignal.timeout(100) : undefined;
  try { return await worker.getEntrypoint().fetch(request.url, { signal }); } catch (error) { return new Response(error.message); }
} };
"#;

async fn told(server: &Atoll, worker: &str) -> Value {
    for _ in 0..200 {
        let told = get(server, worker, "/told").await;
        if told != json!([]) {
            return told;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("nobody was told");
}

#[tokio::test(flavor = "multi_thread")]
async fn tails_are_told_however_it_ends_and_one_that_fails_harms_nobody() {
    let server = Atoll::start(Options::default()).await;
    let loops = "export default { tail() { for (;;); }, fetch() { return new Response('alive'); } }";
    deployed(&server, "loops", loops, json!({})).await;
    loader(&server, "tailed", TAILED, json!({ "LOOPS": { "type": "service", "worker": "loops" } })).await;
    for (path, answer, wanted) in [
        ("/ok", "ok", json!([["tail", "ok", 200, 0, [["at", "/ok"]]]])),
        (
            "/spin",
            "Worker exceeded CPU time limit.",
            json!([["tail", "exceededCpu", null, 0, [["at", "/spin"]]]]),
        ),
        (
            "/slow",
            "The operation was aborted due to timeout",
            json!([["tail", "canceled", null, 0, [["at", "/slow"]]]]),
        ),
        ("/never", "ok", json!([["tail", "ok", 200, 0, [["at", "/never"]]]])),
    ] {
        let got = server.send("tailed", &Request::new("GET", path)).await;
        assert_eq!(got.text(), answer, "{path}");
        assert_eq!(told(&server, "tailed").await, wanted, "{path}");
    }
    // The one that loops is another worker: it was stopped at its own limit, and serves on.
    let alive = server.send("loops", &Request::new("GET", "/")).await;
    assert_eq!(alive.text(), "alive");
}

/// A service as a tail: it is told under its own name and account.
#[tokio::test(flavor = "multi_thread")]
async fn another_worker_is_a_tail() {
    let server = Atoll::start(Options::default()).await;
    let keeper = r#"
      let told = [];
      export default {
        tail(events, env, ctx) { told.push(events.map((e) => [e.outcome, e.event.rpcMethod])); console.log("told"); },
        fetch() { return Response.json(told); },
      };"#;
    deployed(&server, "keeper", keeper, json!({})).await;
    let parent = r#"
      const CHILD = `import { WorkerEntrypoint } from "cloudflare:workers";
        export default class extends WorkerEntrypoint { add(a, b) { return a + b; } }`;
      export default { async fetch(request, { LOADER, KEEPER }) {
        const worker = LOADER.load({ compatibilityDate: "2025-06-01", mainModule: "m.js", modules: { "m.js": CHILD }, tails: [KEEPER] });
        return Response.json(await worker.getEntrypoint().add(1, 2));
      } };"#;
    loader(&server, "parent", parent, json!({ "KEEPER": { "type": "service", "worker": "keeper" } })).await;
    assert_eq!(get(&server, "parent", "/").await, 3);
    for _ in 0..200 {
        if get(&server, "keeper", "/").await == json!([[["ok", "add"]]]) {
            let logs = server.control("GET", "/v1/workers/keeper/logs", None).await.text();
            assert!(logs.contains("told"), "{logs}");
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it was not told");
}
