// Shows: which values cross a call, what becomes of them, and how the others are refused.
import { WorkerEntrypoint, RpcTarget } from "cloudflare:workers";
import { reporter, text } from "report.js";

class Plain { a = 1; }
export class Echo extends WorkerEntrypoint {
  echo(x) { return x; }
  plain() { return new Plain(); }
  bare() { return Object.create(null); }
  cycle() { const a = { n: 1 }; a.self = a; return a; }
  holes() { return [1, , 3]; }
  symbol() { return Symbol("x"); }
  promise() { return { p: Promise.resolve(1) }; }
  url() { return new URL("https://a/b"); }
  file() { return new File(["x"], "n.txt"); }
  form() { return new FormData(); }
  event() { return new Event("x"); }
  large() { return new Uint8Array(33 * 1024 * 1024); }
  proto() { return JSON.parse('{"__proto__": {"polluted": 1}, "constructor": 2}'); }
}
const words = async (f) => {
  try { return await f(); } catch (error) { return `${error.name}: ${error.message} ${error.remote === true}`; }
};
const kinds = (list) => list.map((x) => `${Object.prototype.toString.call(x)} ${x}`);

export default reporter(async (show, { ctx }) => {
  const svc = ctx.exports.Echo;
  const echo = (label, value, look = (x) => x) => show(label, words(async () => look(await svc.echo(value))));
  await echo("primitives", [undefined, null, true, false, 0, -0, 1.5, NaN, -1, 2 ** 31, -(2 ** 31), "", "é", "€", "\ud800", 5n, -(2n ** 100n)]);
  await echo("object", { a: 1, nested: { b: ["x", { c: null }] } });
  await echo("map and set", new Map([[{ a: 1 }, new Set([1, "x"])]]));
  await echo("date", [new Date(5), new Date(NaN).getTime()]);
  await echo("boxed", [new Number(5), new String("s"), Object(5n), new Boolean(false), /a\/b/gi], kinds);
  await echo("buffers", [new ArrayBuffer(3), new Uint16Array([1, 2]), new DataView(new ArrayBuffer(2)).byteLength]);
  await echo("one buffer, two views", (() => { const b = new Uint8Array([1, 2, 3, 4]); return [b.subarray(1, 2), b]; })(),
    ([a, b]) => [a.buffer === b.buffer, a.byteOffset, a.buffer.byteLength]);
  await echo("shared", (() => { const a = {}; return [a, a]; })(), ([a, b]) => a === b);
  await echo("sparse", Object.assign([], { 5000: "x" }), (a) => [a.length, Object.keys(a)]);
  await echo("array with a name", Object.assign([1], { x: 2 }), (a) => [a.length, a.x]);
  await echo("array subclass", new (class extends Array {})(3), (a) => [a.constructor === Array, a.length]);
  await echo("headers", new Headers({ a: "b" }));
  await echo("request", new Request("https://a/b", { method: "POST", body: "bb", headers: { q: "r" } }),
    async (r) => [r.method, r.url, r.headers.get("q"), await r.text()]);
  await echo("response", new Response("body", { status: 201, headers: { x: "y" } }),
    async (r) => [r.status, r.headers.get("x"), await r.text()]);
  await echo("error", Object.assign(new TypeError("m", { cause: new Error("c") }), { extra: 1 }),
    (e) => [e instanceof TypeError, e.message, e.extra, e.cause.message, Object.keys(e)]);
  await echo("error subclass", new (class Foo extends RangeError {})("m"), (e) => [e.constructor.name, e.name]);
  await echo("aggregate", new AggregateError([new Error("a")], "agg"), (e) => [e.name, e.errors.length]);
  await echo("class instance", new Plain());
  await echo("symbol", Symbol("q"));
  await echo("promise", Promise.resolve(1));
  await echo("weak map", new WeakMap());
  await echo("arguments", (function () { return arguments; })(1));
  await echo("generator", (function* () {})());
  await echo("throwing getter", { get a() { throw new RangeError("getter"); } });
  await echo("getter that grows its object", (() => { const o = { get a() { o.z = 1; delete o.b; return 1; }, b: 2 }; return o; })(), (o) => o.a);
  await echo("getter that shrinks its array", (() => {
    const list = [0, 1, 2, 3];
    Object.defineProperty(list, 0, { get() { list.length = 2; return "g"; }, enumerable: true });
    return list;
  })(), (list) => [list[0], list[1], list[3]]);
  await echo("deep", (() => { let x = 1; for (let i = 0; i < 100; i++) x = [x]; return x; })(), () => "there");
  for (const name of ["plain", "bare", "symbol", "promise", "url", "file", "form", "event", "holes"]) await show(name, words(() => svc[name]()));
  await show("cycle", words(async () => { const a = await svc.cycle(); return [a.self === a, a.n]; }));
  await show("too large", words(() => svc.large().then(text, (e) => { throw Object.assign(new Error(e.message.replace(/\d+ bytes/, "N bytes")), { remote: e.remote }); })));
  await show("names of Object.prototype", words(async () => {
    const o = await svc.proto();
    return [Object.keys(o), Object.getPrototypeOf(o) === Object.prototype, ({}).polluted];
  }));
});
