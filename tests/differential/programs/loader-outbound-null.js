// Shows: a dynamic worker without an outbound cannot fetch, and what it is told.
// @loader LOADER
import { reporter } from "report.js";

export default reporter(async (show, { env }) => {
  const worker = env.LOADER.load({
    compatibilityDate: "2026-01-01", mainModule: "m.js", globalOutbound: null,
    modules: {
      "m.js": `export default { async fetch() {
        try { await fetch("https://example.com/"); return new Response("reached"); }
        catch (error) { return new Response(error.name + ": " + error.message); } } }`,
    },
  });
  await show("denied", async () => (await worker.getEntrypoint().fetch("https://x/")).text());
});
