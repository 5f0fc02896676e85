// Shows: blobs and files as arguments and returns of calls, in objects, and in props.
import { WorkerEntrypoint } from "cloudflare:workers";
import { reporter } from "report.js";

export class Svc extends WorkerEntrypoint {
  echo(x) { return x; }
  async read(blob) { return [blob instanceof Blob, blob.type, blob.size, await blob.text()]; }
  make(type) { return new Blob(["from ", "there"], { type }); }
  pair() { const blob = new Blob(["x"]); return [blob, blob]; }
  async fromProps() { return [this.ctx.props.blob instanceof Blob, await this.ctx.props.blob.text()]; }
}
const words = async (f) => {
  try { return await f(); } catch (error) { return `${error.name}: ${error.message} ${error.remote === true}`; }
};

export default reporter(async (show, { ctx }) => {
  const s = ctx.exports.Svc;
  const tell = (label, f) => show(label, words(f));
  await tell("argument", () => s.read(new Blob(["a", "bc"], { type: "text/plain" })));
  await tell("no type", () => s.read(new Blob([new Uint8Array([104, 105])])));
  await tell("empty", () => s.read(new Blob([])));
  await tell("slice", () => s.read(new Blob(["0123456789"]).slice(2, 5, "text/x-part")));
  await tell("returned", async () => { const b = await s.make("text/html"); return [b.constructor.name, b.type, b.size, await b.text()]; });
  await tell("large", async () => (await s.echo(new Blob([new Uint8Array(1_000_000).fill(120)]))).size);
  await tell("too large", async () => (await words(() => s.echo(new Blob([new Uint8Array(33 << 20)])))).replace(/\d{4,}/, "N"));
  await tell("in an object", async () => { const o = await s.echo({ a: [new Blob(["q"])] }); return [o.a[0].size, await o.a[0].text()]; });
  await tell("twice", async () => { const [a, b] = await s.pair(); return [a === b, await a.text()]; });
  await tell("twice in", async () => { const x = new Blob(["x"]); const [a, b] = await s.echo([x, x]); return a === b; });
  await tell("file", async () => {
    const f = await s.echo(new File(["abc"], "n.txt", { type: "text/plain", lastModified: 12 }));
    return [f.constructor.name, f instanceof File, f.name, f.lastModified, f.type, await f.text()];
  });
  await tell("pipelined", () => s.make("a/b").size);
  await tell("props", () => ctx.exports.Svc({ props: { blob: new Blob(["p"]) } }).fromProps());
});
