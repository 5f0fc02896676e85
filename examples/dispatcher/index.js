// Runs code that nobody has read: each POST body becomes a worker in an isolate of its own, which gets
// nothing but what is named here. It cannot reach the network, this worker's env, or an earlier request.

const EXAMPLE = `export default {
  async fetch(request, env) {
    let network = "open";
    try { await fetch("https://example.com/"); } catch (error) { network = "blocked: " + error.message; }
    return Response.json({ greeting: env.GREETING, path: new URL(request.url).pathname, network });
  },
};
`;

export default {
  async fetch(request, env) {
    const code = request.method === "POST" ? await request.text() : EXAMPLE;
    let worker;
    try {
      worker = env.LOADER.load({
        compatibilityDate: "2026-11-01",
        mainModule: "main.js",
        modules: { "main.js": code },
        env: { GREETING: "hello from the dispatcher" },
        globalOutbound: null,
      });
      const { pathname } = new URL(request.url);
      return await worker.getEntrypoint().fetch(new Request(`https://guest.invalid${pathname}`));
    } catch (error) {
      // The guest's code did not parse, did not start, threw, or went over its limits.
      return Response.json({ error: `${error.name}: ${error.message}` }, { status: 422 });
    }
  },
};
