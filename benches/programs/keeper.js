// One isolate for every name, kept alive; the answer says how often this isolate was asked.
const code = {
  compatibilityDate: "2026-11-01",
  mainModule: "main.js",
  modules: { "main.js": "let asked = 0; export default { fetch: () => new Response(String(++asked)) };" },
  globalOutbound: null,
};

export default {
  fetch: (request, env) => env.LOADER.get(new URL(request.url).pathname, () => code).getEntrypoint().fetch(request),
};
