// Shows: a worker loads another from code and calls it; state, env and several entrypoints.
// @loader LOADER
import { reporter } from "report.js";

const code = (source, extra) => ({
  compatibilityDate: "2026-01-01", mainModule: "main.js", modules: { "main.js": source }, globalOutbound: null, ...extra,
});

export default reporter(async (show, { env }) => {
  const call = async (worker, init) => (await worker.getEntrypoint().fetch("https://child.example/path?q=1", init)).text();
  await show("hello", call(env.LOADER.load(code("export default { fetch: () => new Response('hello') }"))));
  await show("request", call(env.LOADER.load(code(`export default {
    async fetch(r) { return new Response([r.method, r.url, r.headers.get("x-a"), await r.text()].join(" ")); } }`)),
    { method: "POST", body: "posted", headers: { "x-a": "1" } }));
  await show("env", call(env.LOADER.load(code("export default { fetch: (r, env) => Response.json(env) }",
    { env: { text: "t", number: 1, nested: { list: [1, 2] } } }))));
  await show("modules", call(env.LOADER.load({
    compatibilityDate: "2026-01-01", mainModule: "main.js",
    modules: {
      "main.js": "import t from './t.txt'; import j from './j.json'; import d from './d.bin'; import { x } from './lib/x.js';" +
        "export default { fetch: () => Response.json([t, j, d.byteLength, x]) }",
      "t.txt": { text: "text" }, "j.json": { json: { a: 1 } }, "d.bin": { data: new Uint8Array([1, 2]).buffer },
      "lib/x.js": { js: "export const x = 'x'" },
    },
  })));
  const stateful = env.LOADER.load(code("let n = 0; export default { fetch: () => new Response(String(++n)) }"));
  await show("same stub", [await call(stateful), await call(stateful)]);
  const two = env.LOADER.load(code(`import { WorkerEntrypoint } from "cloudflare:workers";
    export default { fetch: () => new Response("default") };
    export class Named extends WorkerEntrypoint { fetch() { return new Response("named"); } }`));
  await show("named entrypoint", async () => (await two.getEntrypoint("Named").fetch("https://x/")).text());
  await show("props", async () => {
    const worker = env.LOADER.load(code(`import { WorkerEntrypoint } from "cloudflare:workers";
      export default class extends WorkerEntrypoint { fetch() { return Response.json(this.ctx.props); } }`));
    return (await worker.getEntrypoint(null, { props: { who: "you" } }).fetch("https://x/")).text();
  });
  await show("status and headers", async () => {
    const worker = env.LOADER.load(code("export default { fetch: () => new Response('x', { status: 418, headers: { a: 'b' } }) }"));
    const response = await worker.getEntrypoint().fetch("https://x/");
    return [response.status, response.headers.get("a"), await response.text()];
  });
});
