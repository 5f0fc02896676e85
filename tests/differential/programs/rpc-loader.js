// Shows: calls between a worker and those that it loads: env, props, outbound, and what cannot be handed over.
// @loader LOADER
import { WorkerEntrypoint, RpcTarget, RpcStub } from "cloudflare:workers";
import { reporter } from "report.js";
const words = async (f) => {
  try { return JSON.stringify(await f()); } catch (error) { return `${error.name}: ${error.message} ${error.remote === true}`; }
};
export class Out extends WorkerEntrypoint { async fetch(r){ return new Response(`out ${r.url} ${JSON.stringify(this.ctx.props)}`); } hello(x){ return "hello "+x+" "+JSON.stringify(this.ctx.props); } }
class Tools extends RpcTarget { #s="secret"; call(name, json){ if (name==="err") throw new TypeError("tool failed"); return JSON.stringify([name, json, this.#s]); } callTool(n, a){ return {n, a, when: new Date(5)}; } [Symbol.dispose](){ log.push("tools disposed"); } }
const log=[];
const child = (code, extra={}) => ({ compatibilityDate: "2025-06-01", compatibilityFlags:["nodejs_compat"], mainModule:"m.js", modules:{"m.js":code}, globalOutbound:null, ...extra });
const C = `import { WorkerEntrypoint, RpcTarget } from "cloudflare:workers"; `;
export default reporter(async (show, { env, ctx }) => {
  const t = (label, f) => show(label, words(f));
  log.length = 0;
  const w = env.LOADER.load(child(C+`
   let kept;
   class Acc extends RpcTarget { constructor(){ super(); this.n=0; } add(x){ return this.n+=x; } get total(){ return this.n; } }
   export default class extends WorkerEntrypoint {
    async evaluate(d, c){ return { a: await d.ns.call("x", "{}"), b: await c.callTool("t", {q:[1,2]}) }; }
    async fails(d){ return await d.ns.call("err","{}"); }
    acc(){ return new Acc(); }
    async later(cb){ const k = cb.dup(); kept = k; return 1; }
    async useKept(){ return await kept(5); }
    spin(){ for(;;); }
    async outf(){ return (await fetch("https://x.y/z")).text(); }
    env(){ return this.env; } async envcall(){ return [await this.env.OUT.hello("b"), await (await this.env.OUT.fetch("https://q/")).text(), this.env.plain, await this.env.deep.x.OUT.hello("deep")]; }
    props(){ return this.ctx.props; } async propscall(){ return await this.ctx.props.svc.hello("p"); }
    hung(){ return new Promise(()=>{}); }
    async timer(){ await new Promise(r=>setTimeout(r,20)); return "timer"; }
    async *gen(){ }
    stream(){ let n=0; return new ReadableStream({ type:"bytes", pull(c){ if (n++<50) c.enqueue(new Uint8Array(20000).fill(n)); else c.close(); } }); }
    async sink(ws){ const w = ws.getWriter(); for (let i=0;i<3;i++) await w.write(new TextEncoder().encode("c"+i)); await w.close(); return "sunk"; }
    bad(){ return { f: Symbol("x") }; }
    log(){ console.log("from child"); console.error("err"); }
   }
   export class Named extends WorkerEntrypoint { who(){ return ["named", this.ctx.props]; } }
  `, { env: { OUT: ctx.exports.Out({props:{from:"env"}}), plain: {a:[1,new Date(1)]}, deep:{x:{OUT: ctx.exports.Out({props:{d:1}})}} }, globalOutbound: ctx.exports.Out }));
  const e = w.getEntrypoint();
  await t("evaluate", ()=>e.evaluate({ns:new Tools()}, new Tools()));
  await new Promise(r=>setTimeout(r,30)); await t("disposals", ()=>log);
  await t("fails", ()=>e.fails({ns:new Tools()}));
  await t("acc", async ()=>{ using a = await e.acc(); return [await a.add(2), await a.add(3), await a.total]; });
  await t("acc pipe", ()=>e.acc().add(7)); await t("acc order", async ()=>{ const a = e.acc(); const r = [a.add(1), a.add(2), a.add(3)]; const b = await a; r.push(b.add(4)); return Promise.all(r); });
  await t("outf", ()=>e.outf()); await t("envcall", ()=>e.envcall()); await t("env", ()=>e.env().then(x=>Object.keys(x)));
  await t("props", ()=>w.getEntrypoint(null,{props:{svc: ctx.exports.Out({props:{deep:2}}), z:1}}).propscall());
  await t("named", ()=>w.getEntrypoint("Named",{props:{z:1}}).who());
  await t("no such", ()=>w.getEntrypoint("Nope").who());
  await t("fn env", ()=>env.LOADER.load(child("",{env:{f(){}}}))); await t("target env", ()=>env.LOADER.load(child("",{env:{f:new Tools()}}))); await t("stub env", ()=>env.LOADER.load(child("",{env:{f:new RpcStub(()=>1)}})));
  await t("stream env", ()=>env.LOADER.load(child("",{env:{f:new Blob(["x"]).stream()}}))); await t("dyn env", ()=>env.LOADER.load(child("",{env:{f:e}}))); await t("dyn arg", ()=>e.evaluate(e)); await t("dyn ret", ()=>e.env().then(x=>e.evaluate({x:e})));
  await t("hung", ()=>e.hung()); await t("timer", ()=>e.timer());
  await t("stream", async ()=>{ const s = await e.stream(); let n=0; for await (const c of s) n+=c.byteLength; return n; });
  await t("stream cancel", async ()=>{ const s = await e.stream(); const r = s.getReader(); const c = await r.read(); await r.cancel(); return c.value.byteLength>0; });
  await t("sink", async ()=>{ let got=""; const ws = new WritableStream({ write(c){ got+=new TextDecoder().decode(c); } }); const r = await e.sink(ws); return [r, got]; });
  await t("kept", async ()=>[await e.later((x)=>x+1)]);
  await t("kept use", ()=>e.useKept());
  await t("bad", ()=>e.bad());
  await t("instance", ()=>[typeof e, typeof e.foo]);
  await t("missing method", ()=>e.nothere(1));
  await t("handlers object", ()=>env.LOADER.get("zz", ()=>child(`export default { one(a){ return a+1; } }`)).getEntrypoint().one(4));
  await t("get throws", ()=>env.LOADER.get("zy", ()=>{ throw new TypeError("cb"); }).getEntrypoint().one(4));
  await t("stub other", async ()=>{ const a = await e.acc(); const w2 = env.LOADER.load(child(C+`export default class extends WorkerEntrypoint { async use(a){ return await a.add(9); } give(f){ return f; } }`)); const e2 = w2.getEntrypoint(); const x = await e2.use(a); const f = await e2.give((z)=>z*3); return [x, await a.total, await f(4)]; });
});
