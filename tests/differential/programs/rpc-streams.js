// Shows: streams, requests and responses as arguments and returns of calls.
import { WorkerEntrypoint } from "cloudflare:workers";
import { reporter } from "report.js";

export class Svc extends WorkerEntrypoint {
  echo(x) { return x; }
  many() {
    let n = 0;
    return new ReadableStream({ type: "bytes", pull(c) { if (n++ < 50) c.enqueue(new Uint8Array(20000).fill(n)); else c.close(); } });
  }
  async read(stream) { return await new Response(stream).text(); }
  async sink(writable) {
    const writer = writable.getWriter();
    for (let i = 0; i < 3; i++) await writer.write(new TextEncoder().encode("c" + i));
    await writer.close();
    return "sunk";
  }
  respond() { return new Response(this.many(), { status: 203, headers: { x: "y" } }); }
  async size(request) { return [request.method, request.headers.get("q"), (await request.arrayBuffer()).byteLength]; }
}
const words = async (f) => {
  try { return await f(); } catch (error) { return `${error.name}: ${error.message} ${error.remote === true}`; }
};
const large = (bytes) => new Blob([new Uint8Array(bytes).fill(120)]).stream();

export default reporter(async (show, { ctx }) => {
  const s = ctx.exports.Svc;
  const tell = (label, f) => show(label, words(f));
  await tell("returned", async () => { let n = 0; for await (const chunk of await s.many()) n += chunk.byteLength; return n; });
  await tell("cancelled", async () => { const r = (await s.many()).getReader(); const { value } = await r.read(); await r.cancel(); return value.byteLength > 0; });
  await tell("small argument", () => s.read(new Blob(["abc"]).stream()));
  await tell("large argument", async () => (await s.read(large(1_000_000))).length);
  await tell("writable", async () => {
    let got = "";
    const writable = new WritableStream({ write(chunk) { got += new TextDecoder().decode(chunk); } });
    return [await s.sink(writable), got];
  });
  await tell("response", async () => { const r = await s.respond(); return [r.status, r.headers.get("x"), (await r.arrayBuffer()).byteLength]; });
  await tell("request", () => s.size(new Request("https://a/", { method: "PUT", headers: { q: "1" }, body: large(300_000) })));
  await tell("locked", () => { const stream = large(1); stream.getReader(); return s.echo(stream); });
  await tell("used", async () => { const r = new Response("x"); await r.text(); return s.echo(r); });
  await tell("there and back", async () => new Response(await s.echo(large(100_000))).arrayBuffer().then((b) => b.byteLength));
});
