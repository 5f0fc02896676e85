// Shows: a proxy that changes headers and passes bodies through in both directions.
// @loader LOADER
// > POST /upper?x=1
// + content-type: text/plain
// + x-drop: gone
// = some text for the origin
// > GET /missing
// > HEAD /upper
// > POST /big
// * 20000 0123456789
const ORIGIN = `
export default {
  async fetch(request) {
    const url = new URL(request.url);
    if (url.pathname === "/missing") return new Response("nothing here", { status: 404, statusText: "Gone Fishing" });
    if (url.pathname === "/big") return new Response(request.body, { headers: { "x-size": "passed" } });
    const upper = new TransformStream({
      transform(chunk, controller) {
        controller.enqueue(new TextEncoder().encode(new TextDecoder().decode(chunk).toUpperCase()));
      },
    });
    const headers = { "x-query": url.search, "x-dropped": String(request.headers.get("x-drop")), "x-host": url.host };
    return new Response(request.body ? request.body.pipeThrough(upper) : null, { headers });
  },
};`;

export default {
  async fetch(request, env) {
    const origin = env.LOADER.load({
      compatibilityDate: "2026-01-01", mainModule: "m.js", modules: { "m.js": ORIGIN }, globalOutbound: null,
    }).getEntrypoint();
    const url = new URL(request.url);
    url.host = "origin.test";
    const headers = new Headers(request.headers);
    headers.delete("x-drop");
    const answer = await origin.fetch(new Request(url, { method: request.method, headers, body: request.body }));
    const copy = new Response(answer.body, answer);
    copy.headers.set("x-proxied", "yes");
    return copy;
  },
};
