// Shows: bodies stream through a dynamic worker in both directions.
// @loader LOADER
// > POST /
// * 4096 0123456789abcdef
export default {
  async fetch(request, env) {
    const worker = env.LOADER.load({
      compatibilityDate: "2026-01-01", mainModule: "m.js",
      modules: { "m.js": "export default { fetch: (r) => new Response(r.body, { headers: { 'x-child': r.method } }) }" },
    });
    return worker.getEntrypoint().fetch(request);
  },
};
