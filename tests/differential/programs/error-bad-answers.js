// Shows: handlers that answer with something else than a response.
// > GET /undefined
// > GET /null
// > GET /text
// > GET /object
// > GET /used
// > GET /ok
export default {
  async fetch(request) {
    switch (new URL(request.url).pathname) {
      case "/undefined": return undefined;
      case "/null": return null;
      case "/text": return "text";
      case "/object": return { status: 200 };
      case "/used": { const r = new Response("x"); await r.text(); return r; }
      default: return new Response("ok");
    }
  },
};
