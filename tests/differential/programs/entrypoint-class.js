// Shows: a class entrypoint as the default export, with env and ctx.
// @env GREETING "hello"
// > GET /path
// > POST /echo
// = body
import { WorkerEntrypoint } from "cloudflare:workers";

export default class extends WorkerEntrypoint {
  async fetch(request) {
    const url = new URL(request.url);
    if (request.method === "POST") return new Response(request.body);
    return Response.json({
      path: url.pathname,
      greeting: this.env.GREETING,
      waitUntil: typeof this.ctx.waitUntil,
      inherits: this instanceof WorkerEntrypoint,
    });
  }
}
