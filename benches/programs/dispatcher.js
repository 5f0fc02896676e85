// A fresh isolate for every request.
const code = {
  compatibilityDate: "2026-11-01",
  mainModule: "main.js",
  modules: { "main.js": "export default { fetch: () => new Response('hello world') };" },
  globalOutbound: null,
};

export default {
  fetch: (request, env) => env.LOADER.load(code).getEntrypoint().fetch(request),
};
