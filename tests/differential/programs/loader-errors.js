// Shows: the exact words of the loader's refusals.
// @loader LOADER
import { reporter } from "report.js";

const words = async (f) => { try { return await f(); } catch (error) { return `${error.name}: ${error.message}`; } };
const base = { compatibilityDate: "2026-01-01", mainModule: "m.js" };
const ok = "export default { fetch: () => new Response('ok') }";

export default reporter(async (show, { env }) => {
  const load = (code) => words(() => { env.LOADER.load(code); return "loaded"; });
  const run = (code, entrypoint) => words(async () =>
    (await env.LOADER.load(code).getEntrypoint(entrypoint).fetch("https://x/")).text());
  await show("no modules", load({ ...base, modules: {} }));
  await show("unknown extension", load({ ...base, modules: { "m.txt": ok } }));
  await show("two kinds", load({ ...base, modules: { "m.js": { js: ok, text: "x" } } }));
  await show("no kind", load({ ...base, modules: { "m.js": {} } }));
  await show("main is missing", run({ ...base, modules: { "other.js": ok } }));
  await show("bad date", run({ ...base, compatibilityDate: "yesterday", modules: { "m.js": ok } }));
  await show("unknown flag", run({ ...base, compatibilityFlags: ["no_such_flag"], modules: { "m.js": ok } }));
  await show("missing import", run({ ...base, modules: { "m.js": "import './gone.js';" + ok } }));
  await show("startup error", run({ ...base, modules: { "m.js": "throw new RangeError('at startup')" } }));
  await show("no such entrypoint", run({ ...base, modules: { "m.js": ok } }, "Nope"));
  await show("handler error", run({ ...base, modules: { "m.js": "export default { fetch() { throw new TypeError('inside'); } }" } }));
  await show("experimental", load({ ...base, allowExperimental: true, modules: { "m.js": ok } }));
  await show("env function", load({ ...base, env: { f() {} }, modules: { "m.js": ok } }));
  await show("get without a callback", words(() => { env.LOADER.get("x"); }));
});
