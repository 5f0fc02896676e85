// Shows: service bindings: fetch, methods, entrypoints, props, callbacks, stubs, streams, errors, cycles, and what can be passed on.
// @service OTHER callee
// @service NAMED callee#Named {"role":"reader","deep":[1,{"a":null}]}
// @service PLAIN callee#plain
// @service ME self
// @loader LOADER
import { WorkerEntrypoint, RpcTarget, ServiceStub } from "cloudflare:workers";
import { reporter } from "report.js";
const words = async (f) => {
  try { return await f(); } catch (error) { return `${error.name}: ${error.message} ${error.remote === true}`; }
};
export class Own extends WorkerEntrypoint {
  whose() { return ["own", this.ctx.props]; }
  fetch(request) { return new Response(`own ${request.url}`); }
}
export class Back extends WorkerEntrypoint {
  back(n) { return n + 100; }
}
class Target extends RpcTarget {
  #n = 1;
  grow() { return ++this.#n; }
}
const child = (code, extra = {}) => ({ compatibilityDate: "2025-06-01", mainModule: "m.js", modules: { "m.js": code }, globalOutbound: null, ...extra });
export default reporter(async (show, { env, ctx }) => {
  const { OTHER, NAMED, PLAIN } = env;
  const t = (label, f) => show(label, words(f));
  await t("shape", () => [typeof OTHER, OTHER instanceof ServiceStub, Object.prototype.toString.call(OTHER), typeof OTHER.then, typeof OTHER.anything]);
  await t("fetch", async () => {
    const answer = await OTHER.fetch("http://callee.test/a?b=1", { method: "POST", body: "text", headers: { "x-one": "1" } });
    return [answer.status, answer.statusText, answer.headers.get("x-callee"), answer.url, await answer.text()];
  });
  await t("relative", async () => (await OTHER.fetch("/x")).status);
  await t("redirect", async () => { const r = await OTHER.fetch("http://callee.test/redirect"); return [r.status, r.redirected, await r.text()]; });
  await t("manual", async () => { const r = await OTHER.fetch("http://callee.test/redirect", { redirect: "manual" }); return [r.status, r.headers.get("location")]; });
  await t("throws", async () => (await OTHER.fetch("http://callee.test/throw")).status);
  await t("named", async () => [await NAMED.who(), await (await NAMED.fetch("http://x/")).text()]);
  await t("plain", async () => [await PLAIN.double(4), await (await PLAIN.fetch("http://x/")).text()]);
  await t("plain two", () => PLAIN.double(4, 5));
  await t("plain many", () => PLAIN.many(4));
  await t("args", () => OTHER.args(1, "a", { b: [new Date(5), new Map([[1, 2]])] }, undefined, null));
  await t("void", () => OTHER.nothing());
  await t("missing", () => OTHER.missing());
  await t("field", () => OTHER.field);
  await t("getter", () => OTHER.getter);
  await t("error", async () => { try { await OTHER.fail(); } catch (e) { return [e.name, e.message, e.code, e.remote, e instanceof TypeError]; } });
  await t("callback", () => OTHER.twice((n) => n * 3, 2));
  await t("callback throws", () => OTHER.twice(() => { throw new RangeError("mine"); }, 2));
  await t("target", async () => OTHER.useTarget(new Target()));
  await t("counter", async () => { using c = await OTHER.counter(5); return [await c.add(2), await c.value, await c.twin().add(1)]; });
  await t("pipeline", () => OTHER.counter(1).twin().twin().add(4));
  await t("order", async () => { const c = OTHER.counter(0); return Promise.all([c.add(1), c.add(2), c.add(3)]); });
  await t("used after", async () => { const c = await OTHER.counter(5); c[Symbol.dispose](); return c.add(1); });
  await t("stream down", async () => (await new Response(await OTHER.count(100)).text()).length);
  await t("stream up", () => OTHER.sum(new Response("x".repeat(300000)).body));
  await t("request", async () => { const r = await OTHER.pass(new Request("http://x/y", { method: "PUT", body: "b" })); return [r.status, await r.text()]; });
  await t("large", async () => (await (await OTHER.fetch("http://callee.test/", { method: "POST", body: "x".repeat(400000) })).text()).length);
  await t("self", () => env.ME.fetch === undefined ? "none" : "some");
  await t("back", () => OTHER.back());
  await t("hung", () => OTHER.never());
  await t("service as argument", () => OTHER.use(NAMED));
  await t("own as argument", () => OTHER.use(ctx.exports.Own({ props: { p: 1 } })));
  await t("service back", async () => { const s = await OTHER.give(); return [await s.who(), s instanceof ServiceStub]; });
  await t("own echoed", async () => { const s = await OTHER.echo(ctx.exports.Own({ props: { q: 2 } })); return s.whose(); });
  await t("in a child", async () => {
    const w = env.LOADER.load(child(`export default { async fetch(r, env) { return new Response(JSON.stringify([await env.S.who(), await (await fetch("http://out.test/")).text()])); } }`, { env: { S: NAMED }, globalOutbound: NAMED }));
    return (await w.getEntrypoint().fetch("http://x/")).text();
  });
  await t("child by get", async () => {
    const w = env.LOADER.get("c", () => child(`import { WorkerEntrypoint } from "cloudflare:workers"; export default class extends WorkerEntrypoint { async go() { return [await this.env.S.who(), await this.ctx.props.T.args(1)]; } }`, { env: { S: NAMED } }));
    return w.getEntrypoint(null, { props: { T: OTHER } }).go();
  });
  await t("uncalled", () => OTHER.use(ctx.exports.Own));
  await t("clone", () => structuredClone(OTHER));
});
//# worker callee
// @service CALLER self#Back
// @service NAMED callee#Named {"given":true}
import { WorkerEntrypoint, RpcTarget } from "cloudflare:workers";
class Counter extends RpcTarget {
  #n;
  constructor(n) { super(); this.#n = n; }
  add(by) { return this.#n += by; }
  get value() { return this.#n; }
  twin() { return new Counter(this.#n); }
}
export default class extends WorkerEntrypoint {
  field = 1;
  get getter() { return "got"; }
  async fetch(request) {
    const url = new URL(request.url);
    if (url.pathname === "/throw") throw new RangeError("from afar");
    if (url.pathname === "/redirect") return Response.redirect("http://callee.test/there", 302);
    const body = await request.text();
    return new Response(`${request.method} ${request.url} ${request.headers.get("x-one")} ${body}`, { status: 201, headers: { "x-callee": "yes" } });
  }
  args(...args) { return [args.length, args.map((a) => Object.prototype.toString.call(a)).join(), this.ctx.props]; }
  nothing() {}
  fail() { throw Object.assign(new TypeError("no way"), { code: 7 }); }
  async twice(f, x) { return f(await f(x)); }
  async useTarget(target) { return [await target.grow(), await target.grow()]; }
  counter(n) { return new Counter(n); }
  count(n) {
    let at = 0;
    return new ReadableStream({ type: "bytes", pull(out) { at++ < n ? out.enqueue(new Uint8Array(1000).fill(65)) : out.close(); } });
  }
  async sum(stream) { return (await new Response(stream).text()).length; }
  async pass(request) { return new Response(`${request.method} ${request.url} ${await request.text()}`, { status: 202 }); }
  async back() { return this.env.CALLER.back(1); }
  never() { return new Promise(() => {}); }
  async use(service) { return service.who ? [await (service.who)().catch(() => service.whose()), await (await service.fetch("http://used.test/")).text()] : "none"; }
  give() { return this.env.NAMED; }
  echo(value) { return value; }
}
export class Named extends WorkerEntrypoint {
  who() { return ["named", this.ctx.props]; }
  fetch(request) { return new Response(`named ${request.url} ${JSON.stringify(this.ctx.props)}`); }
}
export const plain = {
  fetch() { return new Response("plain"); },
  double(n) { return n * 2; },
  many(a, b, c, d) { return 1; },
};
