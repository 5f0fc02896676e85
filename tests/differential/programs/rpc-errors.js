// Shows: what of an exception crosses a call, plain-object handlers, and calls that never answer.
import { WorkerEntrypoint } from "cloudflare:workers";
import { reporter } from "report.js";

export class Svc extends WorkerEntrypoint {
  thrown() { throw Object.assign(new RangeError("boom"), { code: 7, obj: { a: 1 } }); }
  custom() { class MyErr extends Error { constructor(m) { super(m); this.name = "MyErr"; } } throw new MyErr("custom"); }
  text() { throw "text"; }
  dom() { throw new DOMException("dm", "AbortError"); }
  async later() { await null; throw new SyntaxError("later"); }
  hangs() { return new Promise(() => {}); }
  async waits() { await new Promise((done) => setTimeout(done, 5)); return "waited"; }
  async relays() { return await this.ctx.exports.Svc.thrown(); }
  getter() { const e = new Error("first"); Object.defineProperty(e, "message", { get: () => "computed", configurable: true }); throw e; }
  hostile() { const e = new Error("x"); Object.defineProperty(e, "message", { get() { throw 1; } }); throw e; }
}
export const handlers = {
  fetch() { return new Response("fetched"); },
  one(a, env, ctx) { return [a, typeof env, typeof ctx]; },
  two(a, b) { return 1; },
  zero() { return "z"; },
  four(a, b, c, d) {},
  value: 5,
};
const words = async (f) => {
  try { return await f(); } catch (e) {
    return `${e.constructor.name} ${e.name}: ${e.message} ${JSON.stringify({ code: e instanceof DOMException ? "dom" : e.code, obj: e.obj, remote: e.remote })}`;
  }
};
export default reporter(async (show, { ctx }) => {
  const s = ctx.exports.Svc, h = ctx.exports.handlers;
  for (const name of ["thrown", "custom", "text", "dom", "later", "hangs", "waits", "relays"]) await show(name, words(() => s[name]()));
  await show("stack is local", async () => { try { await s.thrown(); } catch (e) { return [e.stack.includes("RangeError: boom"), e.stack.includes("thrown")]; } });
  await show("hostile error", async () => { try { await s.hostile(); } catch { return "threw"; } });
  await show("a getter's message", words(() => s.getter()));
  await show("one", words(() => h.one(5)));
  await show("one with two", words(() => h.one(5, 6)));
  await show("one with none", words(() => h.one()));
  await show("two", words(() => h.two(1)));
  await show("zero", words(() => h.zero()));
  await show("zero with one", words(() => h.zero(1)));
  await show("four", words(() => h.four(1)));
  await show("value", words(() => h.value));
  await show("value called", words(() => h.value(1)));
  await show("nothing", words(() => h.nothing(1)));
  await show("fetch", words(async () => (await h.fetch("https://x/")).text()));
});
