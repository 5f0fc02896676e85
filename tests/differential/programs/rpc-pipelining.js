// Shows: calls on what has not come back yet, their order, and disposal of stubs.
import { WorkerEntrypoint, RpcTarget, RpcStub } from "cloudflare:workers";
import { reporter } from "report.js";

const events = [];
class Counter extends RpcTarget {
  #n = 0;
  constructor(name = "") { super(); this.name = name; }
  inc(by = 1) { return this.#n += by; }
  get value() { return this.#n; }
  sub() { return { deep: { counter: new Counter("sub") } }; }
  [Symbol.dispose]() { events.push(`disposed ${this.name}`); }
}
export class Svc extends WorkerEntrypoint {
  make(name) { return new Counter(name); }
  nested() { return { c: new Counter("nested"), f: (x) => x * 2, n: { d: 5 } }; }
  thrown() { throw new RangeError("boom"); }
  async use(stub) { return await stub.inc(); }
  async keep(stub) { const kept = stub.dup(); const first = await stub.inc(); stub[Symbol.dispose](); return [first, await kept.inc(10)]; }
  give(stub) { return stub; }
  object() { return { x: 1, [Symbol.dispose]() { events.push("disposed object"); } }; }
}
const words = async (f) => {
  try { return await f(); } catch (error) { return `${error.name}: ${error.message} ${error.remote === true}`; }
};
const pause = () => new Promise((done) => setTimeout(done, 30));

export default reporter(async (show, { ctx }) => {
  const s = ctx.exports.Svc;
  const tell = (label, f) => show(label, words(f));
  await tell("paths", async () => [await s.nested().c.inc(5), await s.nested().f(6), await s.nested().n.d, await s.make("a").sub().deep.counter.inc(2)]);
  await tell("missing", () => s.nested().n.zz);
  await tell("missing deeper", () => s.nested().n.zz.yy);
  await tell("no function", () => s.nested().n.d());
  await tell("of what throws", () => s.thrown().foo.bar());
  await tell("order", async () => {
    const p = s.make("order");
    const sent = [p.inc(1), p.inc(2), p.inc(3)];
    const c = await p;
    sent.push(c.inc(4), p.inc(5));
    return Promise.all(sent);
  });
  await tell("disposed", async () => { const c = await s.make("b"); c[Symbol.dispose](); c[Symbol.dispose](); return await c.inc(); });
  await tell("a dup lives on", async () => { const c = await s.make("c"); const d = c.dup(); c[Symbol.dispose](); return [d instanceof RpcStub, await d.inc()]; });
  await tell("disposed promise", async () => { const p = s.make("d"); p[Symbol.dispose](); return await p.inc(); });
  await tell("argument stays the caller's", async () => { const c = await s.make("e"); return [await s.use(c), await s.use(c), await c.inc()]; });
  await tell("kept by dup", async () => s.keep(await s.make("f")));
  await tell("given back", async () => { const c = await s.make("g"); const d = await s.give(c); return [await c.inc(), await d.inc()]; });
  events.length = 0;
  await tell("disposers run", async () => {
    { using c = await s.make("using"); await c.inc(); }
    { using r = await s.nested(); await r.c.inc(); }
    { using o = await s.object(); o.x; }
    await pause();
    return events.slice().sort();
  });
  events.length = 0;
  await tell("parameters are disposed of after the call", async () => { await s.use(new Counter("parameter")); await pause(); return events; });
});
