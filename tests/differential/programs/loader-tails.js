// Shows: tails: what is told of an invocation of a loaded worker, in which shape, with what hidden, and what may be a tail.
// @loader LOADER
import { WorkerEntrypoint } from "cloudflare:workers";
import { reporter } from "report.js";
let got = [], wake = () => {};
const tell = (what) => { got.push(what); wake(); };
// Times and stacks differ from run to run.
const plain = (value) => JSON.stringify(value, (key, item) => {
  if (key === "timestamp" || key === "eventTimestamp") return typeof item === "number" && item > 1e12 ? "time" : item;
  if (key === "cpuTime" || key === "wallTime") return typeof item;
  if (key === "stack") return String(item).split("\n")[0].replace(/:\d+:\d+/, "");
  return item;
});
export class T extends WorkerEntrypoint {
  tail(events) {
    tell([this.ctx.props, events.length, plain(events), events.map((e) => [
      Object.prototype.toString.call(e), Object.keys(e).join(), e.event && Object.keys(e.event).join(),
      e.event?.request && [Object.keys(e.event.request).join(), plain(e.event.request.getUnredacted())],
      e.logs.map((l) => Object.keys(l).join()).join("|"), e.exceptions.map((l) => Object.keys(l).join()).join("|"),
    ])]);
  }
}
export const handlers = { tail(events, env, ctx) { tell(["handlers", events.length, arguments.length, typeof env, typeof ctx]); } };
export class Bad extends WorkerEntrypoint { tail() { throw new Error("bad tail"); } }
export class None extends WorkerEntrypoint {}
const CHILD = `import { WorkerEntrypoint } from "cloudflare:workers";
export default class extends WorkerEntrypoint {
  async fetch(request) {
    const { pathname } = new URL(request.url);
    if (pathname === "/throw") throw new RangeError("oops");
    if (pathname === "/reject") { Promise.reject(new TypeError("unhandled")).catch(() => {}); return new Response("x"); }
    if (pathname === "/later") { this.ctx.waitUntil(Promise.reject(new TypeError("in waitUntil"))); return new Response("x"); }
    if (pathname === "/logs") {
      console.log("a", 1, { b: [1] }, null, undefined, () => 1, 5n, new Error("e"), new Map([[1, 2]]), new Date(0), [undefined, 1],
        new (class Foo { x = 1 })(), Object.create(null), NaN, "%s", true);
      console.warn("w"); console.error(new TypeError("x")); console.info(); console.debug("d"); console.group("g"); console.log("in"); console.groupEnd();
      console.count(); console.assert(false, "as"); console.table([{ a: 1 }]);
    }
    return new Response("ok", { status: 203 });
  }
  add(a, b) { console.log("adding"); return a + b; }
  fail() { throw new TypeError("rpc no"); }
}
export class Named extends WorkerEntrypoint { fetch() { return new Response("n"); } }
`;
const code = (extra) => ({ compatibilityDate: "2026-01-01", mainModule: "m.js", modules: { "m.js": CHILD }, globalOutbound: null, ...extra });
const words = async (f) => { try { return await f(); } catch (e) { return `${e.name}: ${e.message}`; } };
export default reporter(async (show, { env, ctx }) => {
  const { T, handlers, Bad, None } = ctx.exports;
  const e = env.LOADER.load(code({ tails: [Bad, None, T({ props: { p: 1 } }), handlers] })).getEntrypoint();
  // Two of them tell.
  const step = async (label, f) => {
    got = [];
    const both = new Promise((done) => { wake = () => got.length === 2 && done(); });
    await show(label, words(f));
    await Promise.race([both, new Promise((done) => setTimeout(done, 2000))]);
    got.sort((a, b) => (a[0] === "handlers") - (b[0] === "handlers"));
    for (const [at, one] of got.entries()) await show(`${label} ${at}`, one);
  };
  const secrets = { authorization: "Bearer x", cookie: "a=b", "x-api-key": "k", "x-plain": "v", "x-jwt": "j", "my-secret": "s", "csrf-token": "t" };
  await step("fetch", async () => (await e.fetch("http://child.test/p?hex=0123456789abcdef0123456789abcdef&id=AbCdEfGh12345678IjKlMn&short=abc-DEF_12", { headers: secrets })).text());
  await step("post", async () => (await e.fetch("http://child.test/0123456789-abcdef-0123456789-abcdef", { method: "POST", body: "b" })).text());
  await step("logs", async () => (await e.fetch("http://child.test/logs")).text());
  await step("throw", async () => (await e.fetch("http://child.test/throw")).text());
  await step("reject", async () => (await e.fetch("http://child.test/reject")).text());
  await step("later", async () => (await e.fetch("http://child.test/later")).text());
  await step("rpc", () => e.add(1, 2));
  await step("rpc throws", () => e.fail());
  await step("rpc missing", () => e.missing());
  const named = env.LOADER.get("named", () => code({ tails: [T, handlers] })).getEntrypoint("Named");
  await step("named", async () => (await named.fetch("http://x/")).text());
  const none = env.LOADER.load(code({ tails: [] })).getEntrypoint();
  await show("empty", words(async () => (await none.fetch("http://x/")).status));
  const load = (tails) => words(() => { env.LOADER.load(code({ tails })); return "loaded"; });
  await show("number", load(5));
  await show("null", load(null));
  await show("object", load([{}]));
  await show("dynamic", load([e]));
  await show("streaming", words(() => { env.LOADER.load(code({ streamingTails: [T] })); return "loaded"; }));
});
