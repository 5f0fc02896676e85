// Shows: waitUntil runs after the answer, and the handler's state lives on in the isolate.
// > GET /start
// > GET /start
// > GET /wrong
let finished = 0;
export default {
  async fetch(request, env, ctx) {
    if (request.url.endsWith("/wrong")) {
      ctx.waitUntil(Promise.reject(new Error("ignored by the client")));
      return new Response("answered");
    }
    let resolve;
    const done = new Promise((r) => { resolve = r; });
    ctx.waitUntil(done.then(() => { finished += 1; }));
    resolve();
    await done;
    await null;
    return new Response(`typeof ${typeof ctx.waitUntil} ${typeof ctx.passThroughOnException} finished ${finished > 0}`);
  },
};
