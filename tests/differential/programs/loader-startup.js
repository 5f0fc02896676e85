// Shows: what a parent learns when a worker that it loads cannot start.
// @loader LOADER
import { reporter } from "report.js";

const words = async (f) => { try { return await f(); } catch (error) { return `${error.name}: ${error.message}`; } };
const ok = "export default { fetch: () => new Response('ok') };";

export default reporter(async (show, { env }) => {
  const run = (modules) => words(async () => (await env.LOADER.load({
    compatibilityDate: "2026-01-01", mainModule: "m.js", modules,
  }).getEntrypoint().fetch("https://x/")).text());
  await show("deep", run({ "m.js": "function f() {\n  throw new TypeError('deep');\n}\nf();" + ok }));
  await show("not an error", run({ "m.js": "throw 'a string';" + ok }));
  await show("rejected", run({ "m.js": "await Promise.reject(new Error('later'));" + ok }));
  await show("in a module", run({ "m.js": "import './lib/x.js';" + ok, "lib/x.js": "null.f;" }));
  await show("syntax", (await run({ "m.js": "export default {" })).split("\n")[0]);
  await show("no such export", (await run({ "m.js": "import { a } from './a.js';" + ok, "a.js": "" })).split("\n").slice(0, 2));
  await show("cjs", run({ "m.js": "import x from './x.cjs'; export default { fetch: () => Response.json(x) }", "x.cjs": { cjs: "exports.y = require('./z.cjs').z" }, "z.cjs": { cjs: "exports.z = 1" } }));
  await show("cjs missing", (await run({ "m.js": "import x from './x.cjs';" + ok, "x.cjs": { cjs: "require('./gone.cjs')" } })).split("\n").slice(0, 2));
  await show("fetch at start", (await run({ "m.js": "await fetch('https://x/');" + ok })).split(".")[0]);
  await show("awaits", run({ "m.js": "const x = await Promise.resolve('top'); export default { fetch: () => new Response(x) }" }));
  await show("never", run({ "m.js": "await new Promise(() => {});" + ok }));
  await show("no fetch", run({ "m.js": "export default {};" }));
  await show("no default", run({ "m.js": "export const x = 1;" }));
});
