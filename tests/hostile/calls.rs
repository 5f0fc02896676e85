//! Calls between isolates when one side ends, in every phase; work that never ends; and what a hundred thousand calls leave behind.

use serde_json::Value;

use crate::support::atoll::{Atoll, NEIGHBOUR, NEIGHBOUR_TOKEN, Options};
use crate::support::memory;
use crate::support::worker::{Request, Worker};
use crate::vault::Guarded;

/// Rows of the table that the cases of this file and of `rpc.rs` are. 102 is in `bindings/tests/all/policy.rs`.
pub(super) const ROWS: &[u32] = &[97, 98, 107];
/// What 100,000 calls may add to the memory of all processes, in KiB: five bytes for each, less than any entry of any table.
const GROWTH_KIB_MAX: u64 = 512;
/// How often it is measured: a step of another origin is not there twice, and what leaks grows each time.
const WINDOWS_MAX: u32 = 4;
/// A bound on waiting for something that must happen, in rounds of 100 ms.
const ROUNDS_MAX: usize = 300;

const CALLER: &str = r#"
import { WorkerEntrypoint, RpcTarget } from "cloudflare:workers";
const words = async (f) => { try { const v = await f(); return v === undefined ? "no error" : v; } catch (error) { return `${error?.name}: ${error?.message}`; } };
const child = (source, limits = { cpuMs: 100 }) => ({ compatibilityDate: "2026-01-01", mainModule: "m.js", globalOutbound: null, limits,
  modules: { "m.js": `import { WorkerEntrypoint, RpcTarget } from "cloudflare:workers"; ${source}` } });
const STARTS = "for (;;);";
const CONSTRUCTS = "export default class extends WorkerEntrypoint { constructor(ctx, env) { super(ctx, env); for (;;); } get() { return 1; } }";
const VICTIM = `
  class Disposed extends RpcTarget { [Symbol.dispose]() { for (;;); } ok() { return 1; } }
  const spin = () => { for (;;); };
  export default class extends WorkerEntrypoint {
    disposed() { return new Disposed(); }
    later() { this.ctx.waitUntil((async () => { await null; await new Promise((r) => setTimeout(r, 20)); spin(); })()); return new Disposed(); }
    half() { let n = 0; return new ReadableStream({ type: "bytes", pull(c) { if (n++ === 20) spin(); c.enqueue(new Uint8Array(65536)); } }); }
    bodied() { return new Response(this.half()); }
    async reads(stream) { for await (const chunk of stream) spin(); }
    async writes(writable) { const w = writable.getWriter(); await w.write(new Uint8Array(1)); spin(); }
    async asks(stub) { const got = await stub.get(); spin(); }
    endless() { let cancelled = false; this.constructor.cancelled = false; const own = this.constructor;
      return new ReadableStream({ type: "bytes", pull(c) { c.enqueue(new Uint8Array(65536)); }, cancel(reason) { own.cancelled = String(reason?.message ?? reason); } }); }
    wasCancelled() { return this.constructor.cancelled; }
    make() { return new Counter(); }
    take(f) { return f(1); }
  }
  class Counter extends RpcTarget { #n = 0; inc() { return ++this.#n; } value(x) { return { x, self: new Counter() }; } }`;
class Own extends RpcTarget { get() { return 1; } }
const bytes = () => new ReadableStream({ type: "bytes", pull(c) { c.enqueue(new Uint8Array(65536)); } });
const drain = async (stream) => { let n = 0; for await (const chunk of stream) n += chunk.length; return n; };

async function phases({ LOADER }) {
  const load = (source = VICTIM) => LOADER.load(child(source)).getEntrypoint();
  const kept = load();
  const first = {
    start: await words(() => load(STARTS).get()),
    construct: await words(() => load(CONSTRUCTS).get()),
    stream: await words(async () => drain(await load().half())),
    body: await words(async () => (await (await load().bodied()).arrayBuffer()).byteLength),
    reads: await words(() => load().reads(bytes())),
    writes: await words(() => { let got; return load().writes(new WritableStream({ write(chunk) { got = chunk; } })); }),
    asks: await words(() => load().asks(new Own())),
    waits: await words(async () => { const s = await load().later(); await new Promise((r) => setTimeout(r, 600)); return s.ok(); }),
    disposer: await words(async () => {
      const worker = load(), s = await worker.disposed();
      s[Symbol.dispose]();
      await new Promise((r) => setTimeout(r, 600));
      return "went on";
    }),
    // A worker that is disposed of while calls run.
    freed: await words(async () => {
      const stub = LOADER.load(child(VICTIM));
      const running = stub.getEntrypoint().reads(bytes());
      setTimeout(() => stub[Symbol.dispose](), 20);
      return await running;
    }),
    alive: await words(async () => (await kept.make()).inc()),
  };
  return first;
}
async function cancel({ LOADER }) {
  const worker = LOADER.load(child(VICTIM, { cpuMs: 2000 })).getEntrypoint();
  const reader = (await worker.endless()).getReader();
  await reader.read();
  await reader.cancel(new Error("enough"));
  for (let i = 0; i < 100; i++) {
    const told = await worker.wasCancelled();
    if (told !== false) return { cancelled: typeof told };
    await new Promise((r) => setTimeout(r, 10));
  }
  return { cancelled: "never" };
}
async function many({ LOADER }, ctx, n) {
  const worker = LOADER.get("callee", () => child(VICTIM, { cpuMs: 30000 })).getEntrypoint();
  const stub = await worker.make();
  let sum = 0;
  for (let i = 0; i < n; i++) {
    if (i % 10 === 0) {
      // Objects, stubs both ways, and a property that nobody waits for.
      const got = await stub.value({ i, f: () => i });
      got[Symbol.dispose]();
    } else sum += await stub.inc() > 0 ? 1 : 0;
  }
  return { sum };
}
export default { async fetch(request, env, ctx) {
  const { pathname, searchParams } = new URL(request.url);
  if (pathname === "/eternal") { ctx.waitUntil(new Promise(() => {})); return new Response("answered"); }
  if (pathname === "/busy") { ctx.waitUntil((async () => { for (;;) await new Promise((r) => setTimeout(r, 10)); })()); return new Response("answered"); }
  if (pathname === "/quick") return new Response("quick");
  return Response.json(await { "/phases": phases, "/cancel": cancel, "/many": many }[pathname](env, ctx, +searchParams.get("n")));
} };
"#;

async fn started(tenant: &str) -> Guarded {
    let atoll = Guarded::start(Options { tenant: tenant.into(), ..Options::default() }).await;
    atoll.deploy(&Worker::single("caller", CALLER).with_loader("LOADER")).await;
    let neighbour = "export default { fetch: () => new Response('here') }";
    atoll.deploy_as(NEIGHBOUR_TOKEN, &Worker::single("quiet", neighbour)).await;
    atoll
}

async fn ask(atoll: &Atoll, path: &str) -> Value {
    let answer = atoll.send("caller", &Request::new("GET", path)).await;
    assert_eq!(answer.status, 200, "{path}: {}\n{}", answer.text(), atoll.log());
    let quiet = atoll.send_to(NEIGHBOUR, "quiet", &Request::new("GET", "/")).await;
    assert_eq!(quiet.text(), "here");
    serde_json::from_str(&answer.text()).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callee_that_ends_in_any_phase_is_an_error_at_its_caller() {
    // A start may take a second of CPU time, which is many seconds on a busy machine.
    let atoll = started("limits = { cpu_ms = 10000, wall_ms = 120000, subrequests = 200 }").await;
    let got = ask(&atoll, "/phases").await;
    for phase in ["start", "construct", "reads", "writes", "asks"] {
        assert_eq!(got[phase], "Error: Worker exceeded CPU time limit.", "{phase}: {got}");
    }
    // What was under way breaks off; it never ends as if it were whole.
    for phase in ["stream", "body", "waits", "freed"] {
        let text = got[phase].as_str().unwrap_or_default();
        assert!(text.contains("Error: ") && text.len() > "TypeError: ".len(), "{phase}: {got}");
    }
    // A disposer runs when nobody waits any more: its end is nobody's error.
    assert_eq!(got["disposer"], "went on", "{got}");
    assert_eq!(got["alive"], 1, "{got}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_its_reader_cancels_is_cancelled_at_its_source() {
    let atoll = started("limits = { cpu_ms = 10000, subrequests = 200 }").await;
    assert_eq!(ask(&atoll, "/cancel").await["cancelled"], "string");
}

/// Row 107: work that was left to `waitUntil` and never ends holds its place until the wall time is over, and no longer.
#[tokio::test(flavor = "multi_thread")]
async fn work_that_never_ends_holds_a_place_for_a_bounded_time() {
    let atoll = started("limits = { wall_ms = 1500 }\nconcurrent_max = 4").await;
    for path in ["/eternal", "/busy"] {
        let mut refused = 0;
        for _ in 0..12 {
            let answer = atoll.send("caller", &Request::new("GET", path)).await;
            refused += u32::from(answer.status == 429);
            assert!(
                answer.text() == "answered" || answer.status == 429,
                "{} {}",
                answer.status,
                answer.text()
            );
            let quiet = atoll.send_to(NEIGHBOUR, "quiet", &Request::new("GET", "/")).await;
            assert_eq!(quiet.text(), "here");
        }
        assert!(path == "/eternal" || refused > 0, "{path}: more than its share was taken");
        let mut round = 0;
        while atoll.send("caller", &Request::new("GET", "/quick")).await.status != 200 {
            round += 1;
            assert!(round < ROUNDS_MAX, "{path} holds its place for ever");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }
}

/// Memory that calls leave behind would be seen in a warm worker: the same callee, call after call. What allocators and code
/// caches take they take in the first calls, which are not counted.
///
/// Story: with the default heap, a process grew by a MiB per 100,000 calls for a long time. It was garbage: V8 collects a small
/// old space late if the heap may become large. With a small heap it stands still, so a leak cannot hide behind it.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_calls_leave_nothing_behind() {
    let atoll = started("limits = { cpu_ms = 30000, wall_ms = 120000, heap_mib = 8 }").await;
    let calls = async || {
        for _ in 0..10 {
            assert_eq!(ask(&atoll, "/many?n=10000").await["sum"], 9_000);
        }
        // Freed memory is given back within the second.
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        memory::tree(atoll.pid()).private_kib
    };
    let mut seen = vec![calls().await];
    for _ in 0..WINDOWS_MAX {
        let (before, after) = (seen[seen.len() - 1], calls().await);
        seen.push(after);
        if after <= before + GROWTH_KIB_MAX {
            return println!("KiB after each 100,000 calls: {seen:?}");
        }
    }
    panic!("it grows with every 100,000 calls, in KiB: {seen:?}");
}
