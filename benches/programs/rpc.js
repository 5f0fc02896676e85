// A caller: `GET /N` makes N calls of a method of another isolate, one after the other.
const CALLEE = `
import { WorkerEntrypoint } from "cloudflare:workers";
export default class extends WorkerEntrypoint {
  add(a, b) { return a + b; }
}`;

export default {
  async fetch(request, env) {
    const callee = env.LOADER.get("callee", () => ({
      compatibilityDate: "2026-01-01",
      mainModule: "callee.js",
      modules: { "callee.js": CALLEE },
      globalOutbound: null,
    })).getEntrypoint();
    const calls = Number(new URL(request.url).pathname.slice(1));
    let sum = 0;
    for (let n = 0; n < calls; n++) sum = await callee.add(sum, 1);
    return sum === calls ? new Response("ok") : new Response("wrong", { status: 500 });
  },
};
