// Shows: the object behind a KV binding: its shape, what it takes, what it gives, and the words with which it refuses.
// @kv KV
// @loader LOADER
// > GET /shape
// > GET /get
// > GET /put
// > GET /list
// > GET /bulk
// > GET /serialized
import { WorkerEntrypoint } from "cloudflare:workers";
import { report, text } from "report.js";

export class Svc extends WorkerEntrypoint { echo(x) { return x; } give() { return this.env.KV; } }
// Where an error comes: thrown at once, or as a rejection.
const words = async (f) => {
  let promise;
  try { promise = f(); } catch (e) { return `thrown ${e.constructor.name} ${e.name}: ${e.message}`; }
  try { return text(await promise); } catch (e) { return `${e.constructor.name} ${e.name}: ${e.message}`; }
};
const METHODS = ["get", "list", "put", "getWithMetadata", "delete"];
const parts = {
  async shape(show, { KV: kv }) {
    const prototype = Object.getPrototypeOf(kv);
    await show("tag", Object.prototype.toString.call(kv));
    await show("class", [prototype.constructor.name, typeof globalThis.KvNamespace, Object.getPrototypeOf(prototype) === Object.prototype]);
    await show("own", Reflect.ownKeys(kv));
    await show("names", Reflect.ownKeys(prototype).filter((key) => typeof key === "string").sort());
    for (const name of METHODS) {
      const { value, ...flags } = Object.getOwnPropertyDescriptor(prototype, name);
      await show(name, [value.name, value.length, flags]);
    }
    await show("new", words(() => new prototype.constructor()));
    await show("json", JSON.stringify(kv));
    await show("a property of one's own", () => { kv.x = 1; return kv.x; });
    for (const name of METHODS) await show(`foreign ${name}`, words(() => prototype[name].call({}, "a", "b")));
    await show("detached", words(() => { const { get } = kv; return get("a"); }));
    await show("a promise", [kv.get("a") instanceof Promise, kv.get(["a"]) instanceof Promise, kv.put("a", "") instanceof Promise]);
  },
  async get(show, { KV: kv }) {
    await kv.put("a", "1");
    await kv.put("m", "v", { metadata: { a: 1, "é": "ü" } });
    await kv.put("bad", "{x");
    await kv.put("empty", "");
    const get = (label, ...args) => show(label, words(() => kv.get(...args)));
    await show("no argument", words(() => kv.get()));
    await show("no argument, with metadata", words(() => kv.getWithMetadata()));
    for (const key of ["a", "missing", undefined, null, 5, {}, Symbol("x"), "", ".", "..", "x".repeat(512), "é".repeat(257)]) {
      await get(`key ${String(key).slice(0, 20)}`, key);
    }
    for (const type of ["text", "json", "arrayBuffer", "stream", "wrong", null, undefined, 5]) await get(`type ${type}`, "a", type);
    await get("a wrong type of nothing", "missing", "wrong");
    for (const type of ["text", "json", "arrayBuffer", null, undefined]) await get(`option ${type}`, "a", { type });
    await get("a function", "a", () => {});
    for (const cacheTtl of [30, 5, "60", "x", 61.7, 1e12, Infinity, null]) await get(`cacheTtl ${cacheTtl}`, "a", { cacheTtl });
    await get("bad json", "bad", "json");
    for (const type of ["text", "json", "arrayBuffer", "stream"]) await get(`empty ${type}`, "empty", type);
    await show("empty stream", async () => new Response(await kv.get("empty", "stream")).text());
    await show("stream", async () => new Response(await kv.get("m", "stream")).text());
    for (const key of ["a", "m", "missing"]) await show(`metadata ${key}`, words(() => kv.getWithMetadata(key)));
    await show("metadata order", async () => Object.keys(await kv.getWithMetadata("m", "arrayBuffer")));
  },
  async put(show, { KV: kv }) {
    const put = async (label, ...args) => {
      await show(label, words(() => kv.put(...args)));
      if (args.length > 1) await show(`${label} gives`, words(() => kv.getWithMetadata(args[0] === "" ? "u" : `${args[0]}`)));
    };
    const cyclic = {};
    cyclic.self = cyclic;
    await put("no argument");
    await put("no value", "u");
    for (const value of [undefined, null, 5, true, 5n, "é", ""]) await put(`value ${text(value)}`, "u", value);
    for (const value of [{}, new String("x"), ["x"], new Blob(["x"]), () => {}, new Response("x"), new Map()]) {
      await show(`no value ${Object.prototype.toString.call(value)}`, words(() => kv.put("u", value)));
    }
    await show("symbol", words(() => kv.put("u", Symbol("x"))));
    await put("buffer", "u", new Uint8Array([65, 66]).buffer);
    await put("view", "u", new Uint16Array([65, 66, 67]).subarray(1));
    await put("blob's stream", "u", new Blob(["hello"]).stream());
    await put("stream", "u", new ReadableStream({ start(c) { c.enqueue(new TextEncoder().encode("js")); c.close(); } }));
    await show("failing stream", words(() => kv.put("failing", new ReadableStream({ start(c) { c.error(new RangeError("mine")); } }))));
    // The service sees an end where the stream broke off.
    await kv.delete("failing");
    await show("locked stream", words(() => { const s = new Blob(["x"]).stream(); s.getReader(); return kv.put("u", s); }));
    for (const key of ["", ".", "..", "x".repeat(513), 7, "a/b?c#d%20 é"]) await put(`key ${key}`.slice(0, 20), key, "x");
    for (const metadata of [null, 5, "", [1], { deep: { a: [null] } }, undefined]) await put(`metadata ${text(metadata)}`, "m", "v", { metadata });
    await show("long metadata", words(() => kv.put("m", "v", { metadata: "x".repeat(1023) })));
    await put("longest metadata", "m", "v", { metadata: "x".repeat(1022) });
    await show("bigint metadata", words(() => kv.put("m", "v", { metadata: 1n })));
    await show("cyclic metadata", async () => (await words(() => kv.put("m", "v", { metadata: cyclic }))).slice(0, 40));
    await show("throwing metadata", words(() => kv.put("m", "v", { metadata: { toJSON() { throw new RangeError("mine"); } } })));
    for (const expirationTtl of [60, 59, 0, -1, "60", "x", NaN, null, undefined]) {
      await show(`ttl ${expirationTtl}`, words(() => kv.put("t", "x", { expirationTtl })));
    }
    for (const expiration of [1, 1e12, "x", 2147483647]) await show(`time ${expiration}`, words(() => kv.put("t", "x", { expiration })));
    for (const options of [null, undefined, "text", 5]) await show(`options ${options}`, words(() => kv.put("t", "x", options)));
    for (const key of ["t", "t", "", "..", "x".repeat(600)]) await show(`delete ${key.slice(0, 9)}`, words(() => kv.delete(key)));
    await show("delete nothing", words(() => kv.delete()));
    await show("deleted", words(() => kv.get("t")));
  },
  async list(show, { KV: kv }) {
    for (const key of ["l/b", "l/a", "l/c", "k", "l"]) await kv.put(key, key, { metadata: { key } });
    const list = (label, options) => show(label, words(async () => {
      const { cursor, ...page } = await kv.list(options);
      return JSON.stringify(page) + typeof cursor;
    }));
    await list("prefix", { prefix: "l/" });
    await list("two", { prefix: "l/", limit: 2 });
    await show("order", async () => Object.keys(await kv.list({ prefix: "l/", limit: 2 })));
    await show("rest", async () => {
      const { cursor } = await kv.list({ prefix: "l/", limit: 2 });
      return JSON.stringify(await kv.list({ prefix: "l/", limit: 2, cursor }));
    });
    await list("nothing", { prefix: "zzz" });
    for (const limit of [0, -1, 1, null, "2", 1001]) await list(`limit ${limit}`, { prefix: "l/", limit });
    await list("null", { prefix: null, cursor: null, limit: 2 });
    await list("undefined", { prefix: undefined, cursor: undefined, limit: 2 });
    for (const options of [null, undefined, "text", 5]) await list(`options ${options}`, options);
  },
  async bulk(show, { KV: kv }) {
    await kv.put("b1", "1", { metadata: { a: 1 } });
    await kv.put("b2", "{\"x\":[2]}");
    await kv.put("b3", "text");
    const get = (label, ...args) => show(label, words(() => kv.get(...args)));
    await get("some", ["b1", "nope", "b2"]);
    await get("twice", ["b1", "b1"]);
    await get("json", ["b1", "b2", "nope"], "json");
    await get("no json", ["b3"], "json");
    for (const type of ["text", "arrayBuffer", "stream", "wrong", null, undefined]) await get(`type ${type}`, ["b1"], type);
    await get("option", ["b2"], { type: "json", cacheTtl: 60 });
    await get("none", []);
    await get("too many", Array.from({ length: 101 }, (_, i) => `k${i}`));
    await get("a hundred", Array.from({ length: 100 }, (_, i) => `k${i}`));
    await get("other types", ["b1", null, true]);
    await show("metadata", words(() => kv.getWithMetadata(["b1", "nope", "b2"])));
    await show("metadata json", words(() => kv.getWithMetadata(["b2", "b1"], "json")));
  },
  async serialized(show, { KV: kv, LOADER }, ctx) {
    const load = (env) => ({ compatibilityDate: "2026-01-01", mainModule: "m.js", modules: { "m.js": "export default {}" }, env });
    await show("clone", words(() => structuredClone(kv)));
    await show("env", words(() => LOADER.load(load({ kv }))));
    await show("inside env", words(() => LOADER.load(load({ a: [{ kv }] }))));
    await show("outbound", words(() => LOADER.load({ ...load({}), globalOutbound: kv })));
    await show("argument", words(() => ctx.exports.Svc.echo(kv)));
    await show("return", words(() => ctx.exports.Svc.give()));
    await show("props", words(() => ctx.exports.Svc({ props: { kv } }).echo(1)));
  },
};
export default {
  fetch: (request, env, ctx) => report((show) => parts[new URL(request.url).pathname.slice(1)](show, env, ctx)),
};
