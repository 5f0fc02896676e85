//! Namespaces of the key-value store, through real workers.

use serde_json::{Value, json};

use super::{deploy, deployed, get};
use crate::support::atoll::{Atoll, NEIGHBOUR, NEIGHBOUR_TOKEN, Options, TOKEN};
use crate::support::worker::Request;

/// Every operation by its path; the answer is JSON.
const WORKER: &str = r#"
import { WorkerEntrypoint } from "cloudflare:workers";
const words = async (f) => { try { return await f(); } catch (e) { return `${e.constructor.name} ${e.name}: ${e.message}`; } };
const MIB = 1 << 20;
/** Bytes that tell where they are, in chunks. */
function flow(mib, each = 64 * 1024) {
  let at = 0;
  return new ReadableStream({
    pull(controller) {
      if (at === mib * MIB) return controller.close();
      const chunk = new Uint8Array(Math.min(each, mib * MIB - at));
      for (let i = 0; i < chunk.length; i += 4096) new DataView(chunk.buffer).setUint32(i, at + i);
      at += chunk.length;
      controller.enqueue(chunk);
    },
  });
}
/** How much of it came back in order. */
async function verify(stream) {
  let at = 0, rest = new Uint8Array(0), chunks = 0;
  for await (const chunk of stream) {
    chunks++;
    const bytes = new Uint8Array(rest.length + chunk.length);
    bytes.set(rest); bytes.set(chunk, rest.length);
    let i = 0;
    for (; i + 4096 <= bytes.length; i += 4096) {
      if (new DataView(bytes.buffer).getUint32(i) !== at) return `wrong at ${at}`;
      at += 4096;
    }
    rest = bytes.slice(i);
  }
  return { bytes: at + rest.length, streamed: chunks > 10 };
}
export class Svc extends WorkerEntrypoint { echo(x) { return x; } give() { return this.env.KV; } }
const load = (env) => ({ compatibilityDate: "2026-01-01", mainModule: "m.js", modules: { "m.js": "export default {}" }, env });
const paths = {
  put: ({ KV }, q) => KV.put(q.get("k"), q.get("v")),
  get: ({ KV }, q) => KV.get(q.get("k")),
  list: ({ KV }) => KV.list(),
  del: ({ KV }, q) => KV.delete(q.get("k")),
  putStream: ({ KV }, q) => KV.put(q.get("k"), flow(+q.get("mib"))),
  getStream: async ({ KV }, q) => verify(await KV.get(q.get("k"), "stream")),
  getBuffer: async ({ KV }, q) => (await KV.get(q.get("k"), "arrayBuffer")).byteLength,
  putBuffer: ({ KV }, q) => KV.put(q.get("k"), new Uint8Array(+q.get("bytes"))),
  broken: async ({ KV }) => {
    let n = 0;
    const stream = new ReadableStream({ pull(c) { if (n++ > 20) c.error(new RangeError("mine")); else c.enqueue(new Uint8Array(65536)); } });
    return [await words(() => KV.put("broken", stream)), await KV.get("broken")];
  },
  cancelled: async ({ KV }, q) => {
    const reader = (await KV.get(q.get("k"), "stream")).getReader();
    const { value } = await reader.read();
    await reader.cancel();
    return value.length > 0;
  },
  both: async ({ KV, SAME, OTHER }) => { await KV.put("both", "1"); return [await SAME.get("both"), await OTHER.get("both")]; },
  bulk: async ({ KV }) => {
    await KV.put("b1", "x".repeat(40_000), { metadata: { n: 1 } });
    await KV.put("b2", "é");
    const got = await KV.getWithMetadata(["b1", "b2", "b3"]);
    return [got.get("b1").value.length, got.get("b1").metadata, got.get("b2"), got.get("b3"), got.size];
  },
  bulkLarge: async ({ KV }) => {
    for (const k of ["L1", "L2", "L3"]) await KV.put(k, new Uint8Array(10 * MIB));
    const two = await KV.get(["L1", "L2"]);
    return [two.get("L1").length, await words(() => KV.get(["L1", "L2", "L3"]))];
  },
  many: async ({ KV }) => {
    await Promise.all(Array.from({ length: 45 }, (_, i) => KV.put(`n/${String(i).padStart(2, "0")}`, "")));
    const names = [];
    let cursor;
    do {
      const page = await KV.list({ prefix: "n/", limit: 20, cursor });
      names.push(...page.keys.map((key) => key.name));
      cursor = page.cursor;
    } while (cursor);
    return [names.length, names.every((name, i) => i === 0 || names[i - 1] < name)];
  },
  floods: async ({ KV }) => {
    const results = await Promise.allSettled(Array.from({ length: 60 }, () => KV.get("a")));
    return [results.filter((r) => r.status === "fulfilled").length, results.at(-1).reason?.message.slice(0, 20)];
  },
  refusals: async ({ KV, LOADER }, q, ctx) => [
    await words(() => ctx.exports.Svc.echo(KV)), await words(() => ctx.exports.Svc.give()),
    await words(() => ctx.exports.Svc({ props: { KV } }).echo(1)),
    await words(() => structuredClone(KV)), await words(() => LOADER.load(load({ a: [KV] }))),
    await words(() => LOADER.load({ ...load({}), globalOutbound: KV })),
    await words(() => new (KV.constructor)(1)), await words(() => KV.get.call({}, "a")),
    await words(() => KV.fetch("https://kv/a")), await words(() => KV.put("x".repeat(513), "")),
    await words(() => KV.put("k", "v", { metadata: "x".repeat(1023) })), await words(() => KV.put("k", "v", { expirationTtl: 59 })),
    await words(() => KV.put("k", new Uint8Array(25 * MIB + 1))), await words(() => KV.put("k", flow(26))), await KV.get("k"),
  ],
};
export default { async fetch(request, env, ctx) {
  const url = new URL(request.url);
  return Response.json(await words(() => paths[url.pathname.slice(1)](env, url.searchParams, ctx)) ?? null);
} };"#;

fn bindings() -> Value {
    let kv = |namespace: &str| json!({ "type": "kv", "namespace": namespace });
    json!({ "KV": kv("shared"), "SAME": kv("shared"), "OTHER": kv("other") })
}

async fn started(tenant: &str) -> Atoll {
    let options =
        Options { tenant: format!("limits = {{ cpu_ms = 10000 }}\n{tenant}"), ..Options::default() };
    let server = Atoll::start(options).await;
    deployed(&server, "kv", WORKER, bindings()).await;
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_of_a_tenant_share_a_namespace_and_tenants_never() {
    let server = started("").await;
    deployed(&server, "second", WORKER, bindings()).await;
    assert_eq!(get(&server, "kv", "/put?k=a&v=one").await, Value::Null);
    assert_eq!(get(&server, "second", "/get?k=a").await, "one");
    assert_eq!(get(&server, "kv", "/both").await, json!(["1", null]));
    let taken = deploy(&server, NEIGHBOUR_TOKEN, "kv", WORKER, bindings()).await;
    assert!(taken.status < 300, "{}", taken.text());
    let theirs = server.send_to(NEIGHBOUR, "kv", &Request::new("GET", "/list")).await.json();
    assert_eq!(theirs, json!({ "keys": [], "list_complete": true, "cacheStatus": null }));
    // An execution has the same store.
    let code = "export default async (input, { KV }) => KV.get('a')";
    let wish = json!({ "KV": { "type": "kv", "namespace": "shared" } });
    let run = server.execute(json!({ "code": code, "bindings": wish })).await.json();
    assert_eq!(
        (run["result"].as_str(), run["usage"]["subRequests"].as_u64()),
        (Some("one"), Some(1)),
        "{run}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn large_values_flow_and_lists_have_pages() {
    let server = started("").await;
    assert_eq!(get(&server, "kv", "/putStream?k=s&mib=20").await, Value::Null);
    assert_eq!(get(&server, "kv", "/getStream?k=s").await, json!({ "bytes": 20 << 20, "streamed": true }));
    assert_eq!(get(&server, "kv", "/getBuffer?k=s").await, 20 << 20);
    assert_eq!(get(&server, "kv", "/cancelled?k=s").await, true);
    let broken = get(&server, "kv", "/broken").await;
    assert_eq!(broken, json!(["RangeError RangeError: mine", null]));
    for bytes in ["0", "1", "65536", "65537", "1000000", "26214400"] {
        assert_eq!(
            get(&server, "kv", &format!("/putBuffer?k=b&bytes={bytes}")).await,
            Value::Null,
            "{bytes}"
        );
        assert_eq!(get(&server, "kv", "/getBuffer?k=b").await.to_string(), bytes);
    }
    assert_eq!(
        get(&server, "kv", "/bulk").await,
        json!([40_000, { "n": 1 }, { "value": "é", "metadata": null }, null, 3])
    );
    let too_large = "Error Error: KV GET_BULK failed: 413 Total size of request exceeds the limit of 25MB";
    assert_eq!(get(&server, "kv", "/bulkLarge").await, json!([10 << 20, too_large]));
    assert_eq!(get(&server, "kv", "/many").await, json!([45, true]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_is_refused_with_the_words_of_workers() {
    let server =
        Atoll::start(Options { tenant: "limits = { cpu_ms = 10000 }".into(), ..Options::default() }).await;
    let mut body = crate::support::atoll::deployment(
        &crate::support::worker::Worker::single("kv", WORKER).with_loader("LOADER"),
    );
    body["bindings"] = bindings();
    let taken = server.control("PUT", "/v1/workers/kv", Some(body)).await;
    assert!(taken.status < 300, "{}", taken.text());
    let got = get(&server, "kv", "/refusals").await;
    let cloned = "DOMException DataCloneError: A KV namespace binding cannot be serialized.";
    let wanted = [
        cloned,
        cloned,
        cloned,
        cloned,
        cloned,
        "TypeError TypeError: Incorrect type for the 'globalOutbound' field on 'WorkerCode': the provided value is not of type 'Fetcher'.",
        "TypeError TypeError: Illegal constructor",
        "TypeError TypeError: Illegal invocation",
        "TypeError TypeError: KV.fetch is not a function",
        "Error Error: KV PUT failed: 414 UTF-8 encoded length of 513 exceeds key length limit of 512.",
        "Error Error: KV PUT failed: 413 Metadata length of 1025 exceeds limit of 1024.",
        "Error Error: KV PUT failed: 400 Invalid expiration_ttl of 59. Expiration TTL must be at least 60.",
        "Error Error: KV PUT failed: 413 Value length of 26214401 exceeds limit of 26214400.",
        "Error Error: KV PUT failed: 413 Value length of ",
    ];
    for (at, wanted) in wanted.into_iter().enumerate() {
        let got = got[at].as_str().unwrap_or_default();
        assert!(got.starts_with(wanted), "{at}: {got}");
    }
    assert_eq!(got[wanted.len()], Value::Null, "a value that was refused is not there");
    // Each use is a subrequest.
    assert_eq!(get(&server, "kv", "/floods").await, json!([50, "Too many subrequests"]));
    for namespace in [json!("a/b"), json!(""), json!("x".repeat(129)), json!("..")] {
        let bindings = json!({ "KV": { "type": "kv", "namespace": namespace } });
        let answer = deploy(&server, TOKEN, "w", WORKER, bindings).await;
        assert_eq!(
            (answer.status, answer.json()["code"].as_str()),
            (422, Some("invalid_setting")),
            "{namespace}"
        );
    }
    let answer = deploy(&server, TOKEN, "w", WORKER, json!({ "KV": { "type": "kv" } })).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
}

/// Story: a worker that was told that its value is stored must find it, whatever became of the server a moment later.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_stored_survives_a_kill() {
    let mut server = started("").await;
    assert_eq!(get(&server, "kv", "/putStream?k=s&mib=3").await, Value::Null);
    for round in 0..3 {
        assert_eq!(get(&server, "kv", &format!("/put?k=r{round}&v=v{round}")).await, Value::Null);
        // A value on its way when the server dies is not there afterwards.
        let half = Request::new("GET", "/putStream?k=half&mib=24");
        let address = server.address();
        let host = crate::support::atoll::host_name(crate::support::atoll::TENANT, "kv");
        let under_way =
            tokio::spawn(async move { crate::support::client::send(address, &host, &half).await.is_ok() });
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        server.kill_and_restart().await;
        let finished = under_way.await.expect("the task ends");
        assert_eq!(get(&server, "kv", &format!("/get?k=r{round}")).await, format!("v{round}"));
        if !finished {
            let list = get(&server, "kv", "/list").await.to_string();
            let whole = get(&server, "kv", "/getStream?k=half").await;
            let all_or_nothing = !list.contains("half") || whole["bytes"] == 24 << 20;
            assert!(all_or_nothing, "{list} {whole}");
        }
    }
    assert_eq!(get(&server, "kv", "/getStream?k=s").await["bytes"], 3 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_are_the_tenants_and_their_errors_have_a_status() {
    let server = started("kv = { bytes_max = 3000000, keys_max = 50, namespaces_max = 3 }").await;
    let full = get(&server, "kv", "/putStream?k=s&mib=4").await;
    assert_eq!(full, "Error Error: KV PUT failed: 507 The tenant's KV namespaces may hold 3000000 bytes.");
    assert_eq!(get(&server, "kv", "/list").await["keys"], json!([]));
    assert_eq!(get(&server, "kv", "/putStream?k=s&mib=2").await, Value::Null);
    assert_eq!(get(&server, "kv", "/del?k=s").await, Value::Null);
    assert_eq!(get(&server, "kv", "/putStream?k=s&mib=2").await, Value::Null, "deleting makes room");
    let mut three = bindings();
    three["MORE"] = json!({ "type": "kv", "namespace": "third" });
    deployed(&server, "kv", WORKER, three.clone()).await;
    three["YET"] = json!({ "type": "kv", "namespace": "fourth" });
    let answer = deploy(&server, TOKEN, "kv", WORKER, three).await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (422, Some("kv_quota")), "{}", answer.text());
    // The control API tells what is there, and takes a namespace away.
    let told = server.control("GET", "/v1/kv", None).await.json();
    assert_eq!(
        (&told["bytesMax"], &told["namespaces"][1]["name"]),
        (&json!(3_000_000), &json!("shared")),
        "{told}"
    );
    assert_eq!(told["namespaces"][1]["bytes"], (2 << 20) + 1, "{told}");
    let others = server.control_as(NEIGHBOUR_TOKEN, "DELETE", "/v1/kv/shared", None).await;
    assert_eq!(others.status, 404, "{}", others.text());
    assert_eq!(server.control("DELETE", "/v1/kv/shared", None).await.status, 204);
    assert_eq!(server.control("DELETE", "/v1/kv/shared", None).await.status, 404);
    assert_eq!(get(&server, "kv", "/get?k=s").await, Value::Null);
    assert_eq!(get(&server, "kv", "/put?k=s&v=again").await, Value::Null);
    assert_eq!(get(&server, "kv", "/get?k=s").await, "again");
}
