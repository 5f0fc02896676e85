// Shows: the words for what the loader takes for its fields, sizes beyond their bounds included.
// @loader LOADER
import { reporter } from "report.js";
const MAIN = "export default { fetch() { return new Response('ok') } }";
const code = (extra) => ({ compatibilityDate: "2026-01-01", mainModule: "m.js", modules: { "m.js": MAIN }, globalOutbound: null, ...extra });
const words = async (f) => {
  try {
    const made = await f();
    return made?.getEntrypoint ? await (await made.getEntrypoint().fetch("http://x/")).text() : String(made);
  } catch (error) { return `${error.name}: ${error.message}`; }
};
export default reporter(async (show, { env }) => {
  const t = (label, f) => show(label, words(f));
  const load = (label, extra) => t(label, () => env.LOADER.load(code(extra)));
  const get = (label, f) => t(label, () => env.LOADER.get(label, f));
  const entry = (label, options) => t(label, () => ({ getEntrypoint: () => worker.getEntrypoint(null, options) }));
  const worker = env.LOADER.load(code({}));
  await load("typescript", { mainModule: "m.ts", modules: { "m.ts": MAIN } });
  await load("python", { modules: { "m.js": MAIN, x: { py: "1" } } });
  await load("python by name", { modules: { "m.js": MAIN, "x.py": "1" } });
  for (const kind of ["text", "cjs", "json"]) await load(`main is ${kind}`, { mainModule: "x", modules: { x: { [kind]: "1" } } });
  const half = new Uint8Array(33 * 1024 * 1024);
  await load("code size", { modules: { "m.js": MAIN, a: { data: half }, b: { data: half } } });
  const size = (n) => words(() => env.LOADER.load(code({ env: { a: "x".repeat(n) } }))).then((text) => text.replace(/\(\d+ bytes\)/, "(N bytes)"));
  await show("env size", size(1024 * 1024));
  await show("env size below", size(1024 * 1024 - 200));
  await load("date", { compatibilityDate: "2026-13-01" });
  await load("no date", { compatibilityDate: undefined });
  await load("flag twice", { compatibilityFlags: ["nodejs_compat", "nodejs_compat"] });
  await load("contradiction", { compatibilityFlags: ["nodejs_compat", "no_nodejs_compat"] });
  await load("flags", { compatibilityFlags: "x" });
  await load("main is a number", { mainModule: 5 });
  await load("modules", { modules: "x" });
  await load("module is null", { modules: { "m.js": MAIN, x: null } });
  await load("module is a number", { modules: { "m.js": MAIN, x: 5 } });
  await load("json is undefined", { modules: { "m.js": MAIN, x: { json: undefined } } });
  await load("data is text", { modules: { "m.js": MAIN, x: { data: "s" } } });
  await load("wasm is text", { modules: { "m.js": MAIN, x: { wasm: "s" } } });
  await load("text is a number", { modules: { "m.js": MAIN, x: { text: 5 } } });
  await load("env", { env: 5 });
  await load("env is null", { env: null });
  await load("env is undefined", { env: undefined });
  await load("outbound", { globalOutbound: 5 });
  await load("outbound object", { globalOutbound: {} });
  await load("limits", { limits: 5 });
  await load("limits negative", { limits: { cpuMs: -1 } });
  await load("limits text", { limits: { cpuMs: "x" } });
  await load("limits good", { limits: { cpuMs: 500, subRequests: 5 } });
  await t("load nothing", () => env.LOADER.load());
  await t("load number", () => env.LOADER.load(5));
  await entry("entry limits", { limits: { cpuMs: 500 } });
  await entry("entry limits bad", { limits: 5 });
  await entry("entry options bad", 5);
  await entry("entry options null", null);
  await entry("entry props bad", { props: 5 });
  await entry("entry props function", { props: { f() {} } });
  await get("get throws", () => { throw new RangeError("cb"); });
  await get("get rejects", async () => { throw new RangeError("cb"); });
  await get("get number", () => 5);
  await get("get no modules", () => code({ modules: {} }));
  await get("get text", "x");
});
