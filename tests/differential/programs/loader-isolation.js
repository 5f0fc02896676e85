// Shows: dynamic workers share nothing with their parent or with each other.
// @loader LOADER
// @env SECRET "only the parent's"
import { reporter } from "report.js";

const load = (env, source) => env.LOADER.load({
  compatibilityDate: "2026-01-01", mainModule: "m.js", globalOutbound: null, modules: { "m.js": source },
});
const ask = async (worker) => (await worker.getEntrypoint().fetch("https://x/")).text();

export default reporter(async (show, { env }) => {
  const polluter = load(env, `export default { fetch() {
    Object.prototype.polluted = "yes"; globalThis.left = "yes"; Array.prototype.map = null; Response.json = null;
    globalThis.fetch = () => "stolen"; Promise.prototype.then = Promise.prototype.then;
    return new Response("polluted"); } }`);
  await show("polluter", ask(polluter));
  await show("parent", [({}).polluted, globalThis.left, typeof [].map, typeof Response.json]);
  await show("next child", ask(load(env,
    "export default { fetch: () => new Response([({}).polluted, globalThis.left, typeof [].map, typeof Response.json].join()) }")));
  await show("env is only what was given", ask(load(env,
    "export default { fetch: (r, env) => new Response(JSON.stringify([Object.keys(env), env.SECRET, env.LOADER])) }")));
  await show("env is a copy", async () => {
    const given = { list: [1] };
    const worker = env.LOADER.load({
      compatibilityDate: "2026-01-01", mainModule: "m.js", env: { given },
      modules: { "m.js": "export default { fetch(r, env) { env.given.list.push(2); return Response.json(env.given) } }" },
    });
    const seen = await ask(worker);
    return [seen, given.list.length];
  });
  await show("two at once", async () => {
    const source = "let n = 0; export default { async fetch() { n += 1; await null; return new Response(String(n)) } }";
    return Promise.all([ask(load(env, source)), ask(load(env, source)), ask(load(env, source))]);
  });
});
