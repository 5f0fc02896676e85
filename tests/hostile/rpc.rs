//! Calls between isolates as an attacker makes them: stubs that are forged, foreign or spent, graphs that change or never end,
//! callees that die during a call. Each must be a typed error at the caller, and nobody else may notice.

use serde_json::{Value, json};

use crate::support::atoll::{Atoll, NEIGHBOUR, NEIGHBOUR_TOKEN, Options};
use crate::support::worker::{Request, Worker};
use crate::vault::Guarded;

const ATTACKER: &str = r#"
import { WorkerEntrypoint, RpcTarget, RpcStub, RpcPromise } from "cloudflare:workers";
class Counter extends RpcTarget { #n = 0; inc() { return ++this.#n; } }
let kept;
export class Svc extends WorkerEntrypoint {
  make() { return new Counter(); }
  echo(x) { return x; }
  again() { return this.ctx.exports.Svc.again(); }
  size(list) { return list.length; }
  leave(f) { f(); return "left"; }
  thenable() { return { then: 1, catch: 2, constructor: 3 }; }
}
const child = (source) => ({ compatibilityDate: "2026-01-01", mainModule: "m.js", globalOutbound: null, limits: { cpuMs: 100 },
  modules: { "m.js": `import { WorkerEntrypoint, RpcTarget } from "cloudflare:workers"; ${source}` } });
const VICTIM = `
  class Trap extends RpcTarget {
    spin() { for (;;); }
    get prop() { for (;;); }
    ok() { return 1; }
    [Symbol.dispose]() { for (;;); }
  }
  export default class extends WorkerEntrypoint {
    spin() { for (;;); }
    trap() { return new Trap(); }
    late() { return new Proxy({}, { getOwnPropertyDescriptor() { for (;;); }, get() { for (;;); } }); }
    getter() { return { get a() { for (;;); } }; }
    async callsBack(f) { await f(); for (;;); }
  }`;
const words = async (f) => { try { await f(); return "no error"; } catch (error) { return `${error?.name}: ${error?.message}`; } };

async function stubs(env, ctx) {
  const s = ctx.exports.Svc, stub = await s.make();
  const spent = await s.make();
  spent[Symbol.dispose]();
  let deep = s;
  for (let i = 0; i < 65; i++) deep = deep.a;
  return {
    forged: typeof Object.create(RpcStub.prototype).inc,
    forgedDup: await words(() => RpcStub.prototype.dup.call({})),
    forgedThen: await words(() => RpcPromise.prototype.then.call({ then: 1 })),
    numbers: await words(() => stub.dup.call(5)),
    spent: await words(() => spent.inc()),
    deep: await words(() => deep()),
    foreign: kept === undefined ? "first" : await words(() => kept.inc()),
    keep: ((kept = stub), await stub.inc()),
    polluted: await (async () => {
      const o = await s.echo(JSON.parse('{"__proto__":{"x":1},"then":2,"constructor":3}'));
      return [({}).x === undefined, Object.keys(o).length, o.then];
    })(),
    thenable: Object.keys(await s.thenable()).length,
  };
}
async function graphs(env, ctx) {
  const s = ctx.exports.Svc;
  const nest = (n) => { let x = 1; for (let i = 0; i < n; i++) x = { x }; return x; };
  const cycle = {}; cycle.self = [cycle];
  let reads = 0;
  const shifty = { get a() { return reads++ === 0 ? { get b() { delete shifty.c; return 1; } } : () => {}; }, c: 1 };
  const shrinking = [1, 2, 3];
  Object.defineProperty(shrinking, 0, { enumerable: true, get() { shrinking.length = 1; return 0; } });
  const detaching = { get a() { structuredClone(buffer, { transfer: [buffer] }); return 1; }, b: undefined };
  const buffer = new ArrayBuffer(16);
  detaching.b = new Uint8Array(buffer);
  return {
    deep: await words(() => s.echo(nest(10000))),
    cycle: await words(async () => { const c = await s.echo(cycle); if (c.self[0] !== c) throw new Error("no cycle"); }),
    shifty: await words(() => s.echo(shifty)),
    shrinking: await words(() => s.echo(shrinking)),
    detaching: (await words(() => s.echo(detaching))).split(":")[0],
    sparse: await words(() => s.echo(Object.assign([], { length: 4294967295 }))),
    large: (await words(() => s.echo(new Uint8Array(33 << 20)))).replace(/\d{4,}/, "N"),
    proxies: await words(() => s.echo(new Proxy({}, { ownKeys() { throw new RangeError("trap"); } }))),
    reentrant: await words(() => s.echo({ get a() { s.echo({ get b() { return 1; } }); return 2; } })),
    flood: (await words(() => Promise.all(Array.from({ length: 20 }, () => stubFlood(s))))).slice(0, 20),
  };
}
async function stubFlood(s) {
  const stub = await s.make();
  await Promise.all(Array.from({ length: 500 }, () => stub.inc()));
}
async function props(env, ctx) {
  const large = "x".repeat(1 << 20);
  let made = 0;
  const error = await words(() => { for (; made < 1000; made++) ctx.exports.Svc({ props: { large, made } }); });
  return { made, error };
}
const abandoned = async (env, ctx) => ({ answer: await ctx.exports.Svc.leave(() => new Promise(() => {})) });
async function deaths(env) {
  const load = () => env.LOADER.load(child(VICTIM)).getEntrypoint();
  const trap = async () => load().trap();
  return {
    call: await words(() => load().spin()),
    stub: await words(async () => (await trap()).spin()),
    property: await words(async () => (await trap()).prop),
    getter: await words(() => load().getter()),
    proxy: await words(async () => (await load().late()).x),
    callback: await words(() => load().callsBack(() => 1)),
    after: await words(async () => { const t = await trap(); await t.spin().catch(() => {}); return t.ok(); }),
    pipelined: await words(() => load().spin().a.b()),
  };
}
export default { async fetch(request, env, ctx) {
  const { pathname } = new URL(request.url);
  if (pathname === "/recursion") return Response.json({ recursion: await words(() => ctx.exports.Svc.again()) });
  return Response.json(await { "/stubs": stubs, "/graphs": graphs, "/deaths": deaths, "/props": props, "/abandoned": abandoned }[pathname](env, ctx));
} };
"#;

async fn started() -> Guarded {
    let options =
        Options { tenant: "limits = { cpu_ms = 10000, subrequests = 200 }".into(), ..Options::default() };
    let atoll = Guarded::start(options).await;
    atoll.deploy(&Worker::single("attacker", ATTACKER).with_loader("LOADER")).await;
    let neighbour = "export default { fetch: () => new Response('here') }";
    atoll.deploy_as(NEIGHBOUR_TOKEN, &Worker::single("quiet", neighbour)).await;
    atoll
}

async fn ask(atoll: &Atoll, path: &str) -> Value {
    let answer = atoll.send("attacker", &Request::new("GET", path)).await;
    assert_eq!(answer.status, 200, "{path}: {}\n{}", answer.text(), atoll.log());
    let quiet = atoll.send_to(NEIGHBOUR, "quiet", &Request::new("GET", "/")).await;
    assert_eq!(quiet.text(), "here");
    serde_json::from_str(&answer.text()).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn rpc_stubs_cannot_be_forged_replayed_or_taken_along() {
    let atoll = started().await;
    let first = ask(&atoll, "/stubs").await;
    assert_eq!(first["forged"], "undefined");
    assert_eq!(first["forgedDup"], "TypeError: Illegal invocation");
    assert_eq!(first["forgedThen"], "TypeError: Illegal invocation");
    assert_eq!(first["numbers"], "TypeError: Illegal invocation");
    assert_eq!(first["spent"], "Error: RPC stub used after being disposed.");
    assert_eq!(first["deep"], "Error: RPC pipelined property path is too deep (max 64).");
    assert_eq!(first["polluted"], json!([true, 3, 2]));
    assert_eq!(first["thenable"], 3);
    let second = ask(&atoll, "/stubs").await;
    let foreign = second["foreign"].as_str().unwrap_or_default();
    assert!(foreign.starts_with("Error: Cannot perform I/O on behalf of a different request."), "{second}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rpc_graphs_of_every_shape_are_a_value_or_an_error() {
    let atoll = started().await;
    let got = ask(&atoll, "/graphs").await;
    assert_eq!(got["deep"], "RangeError: Maximum call stack size exceeded");
    assert_eq!(got["detaching"], "DataCloneError");
    let too_large = "Error: Serialized RPC arguments or return values are limited to 32MiB, but the size of this value was: N bytes.";
    assert_eq!(got["large"], too_large);
    assert_eq!(got["flood"], "Error: Too many RPC ");
    for case in ["cycle", "shifty", "shrinking", "sparse", "proxies", "reentrant"] {
        assert_eq!(got[case], "no error", "{case}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rpc_callees_that_die_are_errors_at_the_caller() {
    let atoll = started().await;
    let got = ask(&atoll, "/deaths").await;
    for case in ["call", "stub", "property", "getter", "proxy", "callback", "pipelined"] {
        assert_eq!(got[case], "Error: Worker exceeded CPU time limit.", "{case}: {got}");
    }
    let after = got["after"].as_str().unwrap_or_default();
    assert!(after.starts_with("Error: "), "{after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rpc_recursion_ends_at_the_subrequest_limit() {
    let atoll = started().await;
    let got = ask(&atoll, "/recursion").await;
    let text = got["recursion"].as_str().unwrap_or_default();
    assert!(text.starts_with("Error: Too many subrequests by single Worker invocation."), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rpc_values_that_are_kept_are_bounded_in_bytes() {
    let atoll = started().await;
    let got = ask(&atoll, "/props").await;
    // 64 MiB of them, each a little more than one.
    assert_eq!(got["made"], 63, "{got}");
    let text = got["error"].as_str().unwrap_or_default();
    assert!(text.starts_with("Error: Too much env and props"), "{text}");
}

/// A callee may call back and end without waiting. The function that it called, which never returns, kept its owner alive
/// until the wall time limit: nobody told the owner that the caller was gone.
#[tokio::test(flavor = "multi_thread")]
async fn rpc_calls_that_nobody_waits_for_let_their_owner_end() {
    let atoll = started().await;
    let done = |metrics: &str| -> u64 {
        let line = |line: &str| line.strip_prefix("atoll_invocations_total{code=\"done\"} ")?.parse().ok();
        metrics.lines().find_map(line).unwrap_or(0)
    };
    let before = done(&atoll.control("GET", "/metrics", None).await.text());
    assert_eq!(ask(&atoll, "/abandoned").await["answer"], "left");
    for _ in 0..100 {
        let metrics = atoll.control("GET", "/metrics", None).await.text();
        // Two invocations: this one, and the neighbour's.
        if done(&metrics) == before + 2 {
            return;
        }
        assert!(!metrics.contains("limit_wall"), "{metrics}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("it still runs");
}

/// Names of loaded workers as an attacker chooses them: names of object properties, of other tenants' workers, of nothing.
const NAMER: &str = r#"
const code = () => ({ compatibilityDate: "2026-01-01", mainModule: "m.js", globalOutbound: null,
  modules: { "m.js": "let n = 0; export default { fetch: () => new Response(String(++n)) }" } });
const NAMES = ["__proto__", "constructor", "toString", "", " ", "a\0b", "../shared", "shared/", "SHARED", "shared", "\u202eshared",
  "default/namer", "acme/namer/1/LOADER/shared", "x".repeat(100_000)];
export default { async fetch(request, env) {
  const counts = {};
  for (const [at, name] of NAMES.entries()) {
    try { counts[at] = await (await env.LOADER.get(name, code).getEntrypoint().fetch("https://a/")).text(); }
    catch (error) { counts[at] = `${error.name}: ${error.message}`.slice(0, 100); }
  }
  return Response.json(counts);
} };
"#;

/// Row 97: the same worker of two tenants, with the same code and the same names, twice each. Whoever met another's isolate
/// would count on from its count.
#[tokio::test(flavor = "multi_thread")]
async fn loader_names_lead_to_nobody_elses_isolate() {
    let atoll = Guarded::start(Options::default()).await;
    let worker = Worker::single("namer", NAMER).with_loader("LOADER");
    atoll.deploy(&worker).await;
    atoll.deploy_as(NEIGHBOUR_TOKEN, &worker).await;
    for count in ["1", "2"] {
        for tenant in [crate::support::atoll::TENANT, NEIGHBOUR] {
            let answer = atoll.send_to(tenant, "namer", &Request::new("GET", "/")).await;
            let counts: Value = serde_json::from_str(&answer.text()).expect("JSON");
            let counts = counts.as_object().expect("an object");
            assert!(counts.len() == 14, "{counts:?}");
            for (at, got) in counts {
                let refused = got.as_str().is_some_and(|text| text.starts_with("TypeError: "));
                assert!(got == count || refused, "{tenant} {at}: {got}, not {count}");
            }
        }
    }
}
