// Shows: what stubs, promises of them and properties are; callbacks, targets, visibility and reserved names.
import { WorkerEntrypoint, RpcTarget, RpcStub, RpcPromise, RpcProperty, ServiceStub } from "cloudflare:workers";
import { reporter } from "report.js";

class Counter extends RpcTarget {
  #n = 0;
  hidden = 5;
  inc(by = 1) { return this.#n += by; }
  get value() { return this.#n; }
  get child() { return new Counter(); }
}
export class Svc extends WorkerEntrypoint {
  inst = 7;
  echo(x) { return x; }
  make() { return new Counter(); }
  nested() { return { c: new Counter(), f: (x) => x * 2, n: { d: 5 } }; }
  get prop() { return 42; }
  get objprop() { return { x: { y: 3, f: () => "fy" } }; }
  async callback(f) { return await f(20) + 1; }
  async callTarget(t) { return [await t.inc(), await t.inc(4), await t.value]; }
  typeofs(f) { return [typeof f, f instanceof RpcStub, f instanceof RpcPromise, Object.getPrototypeOf(f) === RpcStub.prototype]; }
  args() { return arguments.length; }
  proxy() { return new Proxy({ a: 5, m() { return 6; } }, {}); }
  proxyTarget() { return new Proxy(new Counter(), {}); }
  props() { return this.ctx.props; }
}
const words = async (f) => {
  try { return await f(); } catch (error) { return `${error.name}: ${error.message} ${error.remote === true}`; }
};
export default reporter(async (show, { ctx }) => {
  const s = ctx.exports.Svc;
  const tell = (label, f) => show(label, words(f));
  await tell("service", () => [typeof s, s instanceof ServiceStub, s.foo instanceof RpcProperty, typeof s.then, typeof s.dup, Object.keys(s)]);
  const p = s.make();
  await tell("promise", () => [typeof p, p instanceof RpcPromise, p instanceof RpcStub, p instanceof Promise, typeof p.then, typeof p.catch, typeof p.finally, String(p)]);
  const c = await p;
  await tell("stub", () => [typeof c, c instanceof RpcStub, typeof c.then, typeof c.dup, c.inc instanceof RpcProperty,
    typeof c.call, typeof c.apply, typeof c.bind, typeof c.name, typeof c.length, typeof c.get, Object.prototype.toString.call(c), Object.keys(c), c.constructor === RpcStub]);
  await tell("calls", async () => [await c.inc(3), await c.value, await c.child.inc()]);
  for (const name of ["hidden", "call", "hasOwnPropertyX"]) await tell(name, () => c[name](1));
  for (const name of ["nope", "inst", "alarm", "webSocketMessage", "webSocketClose", "dup", "prop"]) await tell(name, () => s[name]());
  await tell("properties", async () => [await s.prop, await s.objprop.x.y, await s.objprop.x.f()]);
  await tell("missing property", () => s.nope);
  await tell("missing deep", () => s.objprop.q.r);
  await tell("method as value", async () => { const f = await s.echo; return [typeof f, f instanceof RpcStub, await f(5)]; });
  await tell("nested", async () => {
    const r = await s.nested();
    return [typeof r.c, await r.c.inc(), await r.f(4), r.n.d, Object.getOwnPropertyDescriptor(r, Symbol.dispose).enumerable, Object.keys(r)];
  });
  await tell("callback", () => s.callback((x) => x * 2));
  await tell("callback that throws", () => s.callback(async () => { throw new TypeError("in cb"); }));
  await tell("target", () => s.callTarget(new Counter()));
  await tell("kind of a function", () => s.typeofs(() => {}));
  await tell("kind of a target", () => s.typeofs(new Counter()));
  await tell("arguments", () => s.args(1, 2, 3));
  await tell("proxy", async () => { const o = await s.proxy(); return [typeof o, o instanceof RpcStub, await o.a, await o.m()]; });
  await tell("proxy of a target", () => s.proxyTarget().inc());
  await tell("same function twice", async () => { const f = () => 1; const r = await s.echo([f, f]); return r[0] === r[1]; });
  await tell("class", async () => { const k = await s.echo(class { static z() { return 1; } }); return [typeof k, await k.z()]; });
  await tell("service with props", async () => { const f = await s.echo(ctx.exports.Svc({ props: { z: 1 } })); return [f instanceof ServiceStub, await f.props()]; });
  await tell("loopback as it is", () => s.echo(ctx.exports.Svc));
  await tell("promise as argument", () => s.echo(s.make()));
  await tell("property as argument", () => s.echo(s.prop));
  await tell("own stubs", async () => {
    const a = new RpcStub(new Counter()), b = new RpcStub((x) => x + 1), o = new RpcStub({ a: 1, f() { return 3; } });
    return [a instanceof RpcStub, await a.inc(2), await b(2), await o.a, await o.f()];
  });
  await tell("stub of a number", () => new RpcStub(5));
  await tell("making a promise", () => new RpcPromise());
  await tell("making a property", () => new RpcProperty());
  await tell("making a service", () => new ServiceStub());
  await tell("detached", () => { const f = s.echo; return f(3); });
  await tell("then, catch, finally", async () => [await s.prop.then((x) => x + 1), await s.nope().catch((e) => e.message), await s.echo(1).finally(() => {})]);
  await tell("never throws at once", () => typeof s.echo(Symbol("a")));
  await tell("a forged stub", () => s.echo(Object.create(RpcStub.prototype)));
  await tell("a forged stub called", () => Object.create(RpcStub.prototype).inc?.());
});
