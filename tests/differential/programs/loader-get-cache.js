// Shows: named workers are loaded once, anonymous ones each time.
// @loader LOADER
import { reporter } from "report.js";

export default reporter(async (show, { env }) => {
  let calls = 0;
  const source = () => {
    calls += 1;
    return {
      compatibilityDate: "2026-01-01", mainModule: "m.js",
      modules: { "m.js": "let n = 0; export default { fetch: () => new Response(String(++n)) }" },
    };
  };
  const ask = async (name) => (await env.LOADER.get(name, source).getEntrypoint().fetch("https://x/")).text();
  await show("named", [await ask("one"), await ask("one"), await ask("two")]);
  await show("callback runs", calls);
  await show("anonymous", [await ask(null), await ask(null), await ask(undefined)]);
  await show("callback runs again", calls);
  await show("async callback", async () => {
    const stub = env.LOADER.get("later", async () => { await null; return source(); });
    return (await stub.getEntrypoint().fetch("https://x/")).text();
  });
});
