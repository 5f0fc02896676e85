// @cloudflare/codemode: its executor runs generated code in a dynamic worker and hands it tools as capabilities.
import { DynamicWorkerExecutor } from "@cloudflare/codemode";
import { WorkerEntrypoint } from "cloudflare:workers";

export class Gate extends WorkerEntrypoint {
  fetch(request) { return new Response(`gate ${new URL(request.url).hostname}`); }
}
const provider = (fns, name = "codemode", more = {}) => ({ name, fns, ...more });

async function cases(env, ctx) {
  const executor = new DynamicWorkerExecutor({ loader: env.LOADER });
  const fast = new DynamicWorkerExecutor({ loader: env.LOADER, timeout: 100 });
  const gated = new DynamicWorkerExecutor({ loader: env.LOADER, globalOutbound: ctx.exports.Gate });
  const modules = new DynamicWorkerExecutor({ loader: env.LOADER, modules: { "helpers.js": "export const twice = (x) => x * 2;" } });
  const run = async (code, fns = {}, on = executor) => on.execute(code, Array.isArray(fns) ? fns : [provider(fns)]);
  return {
    value: await run("async () => 42"),
    tool: await run("async () => await codemode.add({ a: 1, b: 2 })", { add: async ({ a, b }) => a + b }),
    several: await run("async () => { const a = await codemode.one({}); return [a, await codemode.two({ a })]; }",
      { one: async () => "1", two: async ({ a }) => ({ got: a, list: [1, null, true] }) }),
    parallel: await run("async () => Promise.all([1, 2, 3].map((n) => codemode.square({ n })))", { square: async ({ n }) => n * n }),
    binary: await run("async () => { const b = await codemode.bytes({}); return b instanceof Uint8Array ? [...b] : typeof b; }",
      { bytes: async () => new Uint8Array([1, 2, 250]) }),
    toolError: await run("async () => { try { await codemode.fails({}); } catch (error) { return 'caught ' + error.message; } }",
      { fails: async () => { throw new Error("no such row"); } }),
    codeError: await run("async () => { throw new TypeError('from the code'); }"),
    syntaxError: await run("async () => { return ]; }").then((r) => r.error !== undefined, (e) => e.message.includes("SyntaxError")),
    unknownTool: (await run("async () => await codemode.nothing({})")).error,
    namespaces: await run("async () => [await github.list({}), await db.query({ q: 1 })]",
      [provider({ list: async () => ["a"] }, "github"), provider({ query: async ({ q }) => q + 1 }, "db")]),
    logs: await run("async () => { console.log('one', { a: 1 }); console.warn('two'); console.error('three'); return 1; }"),
    timeout: (await run("async () => { await new Promise(() => {}); }", {}, fast)).error,
    slowTool: await run("async () => await codemode.slow({})", { slow: async () => { await new Promise((done) => setTimeout(done, 20)); return "slow"; } }),
    noNetwork: (await run("async () => (await fetch('https://example.com/')).text()")).error,
    gate: await run("async () => (await fetch('https://example.com/')).text()", {}, gated),
    helper: await run("async () => { const { twice } = await import('helpers.js'); return twice(21); }", {}, modules),
    notCloneable: await run("async () => Symbol('x')").then((r) => r.error !== undefined, (e) => e.name),
    undefinedResult: Object.keys(await run("async () => {}")),
  };
}
export default {
  async fetch(request, env, ctx) {
    return Response.json(await cases(env, ctx));
  },
};
