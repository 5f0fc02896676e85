// Shows: @cloudflare/codemode: its executor runs generated code in a dynamic worker and hands it tools as capabilities.
// @loader LOADER
// > GET /tools
// > GET /ends
// > GET /connectors
// > GET /agents
import {
  DynamicWorkerExecutor, generateTypesFromJsonSchema, McpConnector, normalizeCode, OpenApiConnector, resolveProvider,
  runCode, sanitizeToolName, ToolDispatcher, truncateResult,
} from "@cloudflare/codemode";
import { aiTools, createCodeTool, resolveProvider as resolveAiProvider, toolSetConnector } from "@cloudflare/codemode/ai";
import { codeMcpServer, openApiMcpServer } from "@cloudflare/codemode/mcp";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { InMemoryTransport } from "@modelcontextprotocol/sdk/inMemory.js";
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { tool } from "ai";
import { RpcTarget, WorkerEntrypoint } from "cloudflare:workers";
import { z } from "zod";
import { reporter } from "./check.js";

export class Gate extends WorkerEntrypoint {
  fetch(request) { return new Response(`gate ${new URL(request.url).hostname}`); }
}
/** A connector's binding as a service: who it is comes with the stub. */
export class Store extends WorkerEntrypoint {
  callTool(method, args) { return { method, args, user: this.ctx.props.user }; }
}
/** A connector's binding as an object of this isolate. */
class Counter extends RpcTarget {
  #count = 0;
  async callTool(method, args) {
    if (method === "pause") return { __codemode_control__: "pause" };
    if (method === "refuse") return { __codemode_control__: "error", message: "not allowed" };
    if (method === "explode") throw new RangeError("out of range");
    return { method, args, calls: ++this.#count };
  }
}

const provider = (fns, name = "codemode", more = {}) => ({ name, fns, ...more });
const given = (env, options = {}) => new DynamicWorkerExecutor({ loader: env.LOADER, ...options });

async function tools(is, env, ctx) {
  const executor = given(env);
  const result = async (code, fns = {}, on = executor) => {
    const got = await on.execute(code, Array.isArray(fns) ? fns : [provider(fns)]);
    return "error" in got ? got.error : got.result;
  };
  await is("value", 42, result("async () => 42"));
  await is("no providers", 42, result("async () => 42", []));
  await is("raw functions", 4, executor.execute("async () => codemode.half({ n: 8 })", { half: async ({ n }) => n / 2 }).then((r) => r.result));
  await is("one tool", 3, result("async () => await codemode.add({ a: 1, b: 2 })", { add: async ({ a, b }) => a + b }));
  await is("several arguments", [1, "b", [3]], result("async () => codemode.all(1, 'b', [3])", { all: async (...args) => args }));
  await is("one after the other", ["1", { got: "1", list: [1, null, true] }],
    result("async () => { const a = await codemode.one({}); return [a, await codemode.two({ a })]; }",
      { one: async () => "1", two: async ({ a }) => ({ got: a, list: [1, null, true] }) }));
  await is("at once", [1, 4, 9], result("async () => Promise.all([1, 2, 3].map((n) => codemode.square({ n })))", { square: async ({ n }) => n * n }));
  await is("bytes there and back", [true, [1, 2, 250]],
    result("async () => { const b = await codemode.echo({ b: new Uint8Array([1, 2, 250]) }); return [b instanceof Uint8Array, [...b]]; }",
      { echo: async ({ b }) => (b instanceof Uint8Array ? b : "no bytes") }));
  await is("array buffer", 3, result("async () => (await codemode.buffer({})).byteLength", { buffer: async () => new Uint8Array([7, 8, 9]).buffer }));
  await is("a slow tool", "slow", result("async () => await codemode.slow({})",
    { slow: async () => { await new Promise((done) => setTimeout(done, 20)); return "slow"; } }));
  const secret = "key of the host";
  await is("a closure of the host", 15, result("async () => (await codemode.size({}))", { size: async () => secret.length }));
  await is("namespaces", [["a"], 2], result("async () => [await github.list({}), await db.query({ q: 1 })]",
    [provider({ list: async () => ["a"] }, "github"), provider({ query: async ({ q }) => q + 1 }, "db")]));
  await is("a prelude", 21, result("async () => triple(7)", [provider({}, "codemode", { prelude: "const triple = (n) => 3 * n;" })]));
  await is("names made safe", "listed", result("async () => codemode.github_list_issues({})", { "github.list-issues": async () => "listed" }));
  await is("a module", 42, result("async () => { const { twice } = await import('helpers.js'); return twice(21); }", {},
    given(env, { modules: { "helpers.js": "export const twice = (x) => x * 2;", "executor.js": "export default class Evil {}" } })));
  await is("a fence", 2, result("```js\n1 + 1\n```"));
  await is("templates", "hello world", result("async () => `hello ${'world'}`"));
  await is("what a statement becomes", "async () => {\nconst a = 1; return (a)\n}", normalizeCode("const a = 1; a"));
  await is("more than once", [1, 2], async () => [await result("async () => 1"), await result("async () => 2")]);
  await is("nothing left over", "undefined", async () => {
    await result("async () => { globalThis.left = 1; }");
    return result("async () => typeof left");
  });
  await is("no network", "Error: This worker is not permitted to access the internet via global functions like fetch(). It must use capabilities (such as bindings in 'env') to talk to the outside world.",
    result("async () => { try { await fetch('https://example.com/'); } catch (error) { return String(error); } }"));
  await is("a gate", "gate example.com", result("async () => (await fetch('https://example.com/')).text()", {}, given(env, { globalOutbound: ctx.exports.Gate })));
  await is("dispatcher", ['{"result":{"doubled":10}}', '{"error":"Tool \\"none\\" not found"}', '{"error":"broke"}', '{"result":0}'], async () => {
    const calls = new ToolDispatcher({ double: async ({ n }) => ({ doubled: 2 * n }), broken: async () => { throw new Error("broke"); }, count: async (...args) => args.length });
    return [await calls.call("double", '{"n":5}'), await calls.call("none", "{}"), await calls.call("broken", "{}"), await calls.call("count", "")];
  });
  await is("names", ["a_b", "_1st", "class_"], ["a-b", "1st", "class"].map(sanitizeToolName));
  await is("long results", true, JSON.stringify(truncateResult({ rows: Array.from({ length: 5000 }, (_, n) => `row ${n}`) }, { maxChars: 2000 })).length <= 2000);
}

/** How code may end: by itself, by an error, by the executor's timer; and what of the console is kept. */
async function ends(is, env) {
  const executor = given(env);
  const run = (code, fns = {}, on = executor) => on.execute(code, Array.isArray(fns) ? fns : [provider(fns)]);
  const error = async (...args) => (await run(...args)).error;
  await is("the code throws", "from the code", error("async () => { throw new TypeError('from the code'); }"));
  await is("the tool throws", "no such row", error("async () => codemode.fails({})", { fails: async () => { throw new Error("no such row"); } }));
  await is("the tool throws a text", "just text", error("async () => codemode.fails({})", { fails: async () => { throw "just text"; } }));
  await is("the code catches", "caught no such row", async () =>
    (await run("async () => { try { await codemode.fails({}); } catch (error) { return 'caught ' + error.message; } }",
      { fails: async () => { throw new Error("no such row"); } })).result);
  await is("no such tool", 'Tool "nothing" not found', error("async () => await codemode.nothing({})"));
  await is("own timer", "Execution timed out", error("async () => { await new Promise((r) => setTimeout(r, 20000)); }", {}, given(env, { timeout: 50 })));
  await is("a tool too slow", "Execution timed out", error("async () => codemode.never({})", { never: () => new Promise(() => {}) }, given(env, { timeout: 50 })));
  await is("a call not awaited", 1, async () => (await run("async () => { codemode.never({}); return 1; }", { never: () => new Promise(() => {}) })).result);
  await is("logs", { result: 1, logs: ["one [object Object]", "[warn] two", "[error] three 3"] },
    run("async () => { console.log('one', { a: 1 }); console.warn('two'); console.error('three', 3); return 1; }"));
  await is("logs before an error", { error: "late", logs: ["seen"] }, run("async () => { console.log('seen'); throw new Error('late'); }"));
  await is("nothing", ["result", "logs"], async () => Object.keys(await run("async () => {}")));
  await is("kinds of values", true, async () => {
    const { result } = await run("async () => ({ date: new Date(5), map: new Map([[1, 'a']]), set: new Set([2]), big: 10n ** 20n, bytes: new Uint8Array([1]) })");
    return result.date.getTime() === 5 && result.map.get(1) === "a" && result.set.has(2) && result.big === 10n ** 20n && result.bytes[0] === 1;
  });
  await is("a symbol", "throws DataCloneError", run("async () => Symbol('x')").then(() => "cloned", (e) => `throws ${e.name}`));
  await is("a weak map", "throws DataCloneError", run("async () => new WeakMap()").then(() => "cloned", (e) => `throws ${e.name}`));
  await is("syntax", true, run("async () => { return ]; }").then((r) => r.error !== undefined, () => true));
  for (const [name, more] of [["__dispatchers"], ["console"], ["not valid"], ["twice", [provider({}, "twice")]]]) {
    await is(`provider ${name}`, name === "twice" ? 'Duplicate provider name "twice"' : `Provider name "${name}" is ${name === "not valid" ? "not a valid JavaScript identifier" : "reserved"}`,
      error("async () => 1", [provider({}, name), ...(more ?? [])]));
  }
  await is("one name twice", 'Tool names "a-b" and "a_b" both sanitize to "a_b" in provider "codemode"', error("async () => 1", { "a-b": async () => 1, a_b: async () => 2 }));
  await is("runCode", { result: 3, logs: ["said"] }, runCode({ code: "console.log('said'); await codemode.three()", executor, providers: [provider({ three: async () => 3 })] }));
  await is("runCode throws", "throws Error: Code execution failed: no\n\nConsole output:\nsaid", runCode({ code: "async () => { console.log('said'); throw new Error('no'); }", executor, providers: [] }));
  await is("tools that need approval are not given", 'Tool "drop" not found', error("async () => codemode.drop({})",
    [resolveProvider({ tools: { drop: { needsApproval: true, execute: async () => "dropped" }, keep: { execute: async () => 1 } } })]));
}

async function connectors(is, env, ctx) {
  const executor = given(env);
  const run = async (code, connectors, providers = []) => {
    const got = await executor.execute(code, providers, { connectors });
    return "error" in got ? got.error : got.result;
  };
  const counter = { name: "counter", binding: new Counter() };
  await is("an object", [{ method: "add", args: { n: 1 }, calls: 1 }, { method: "add", args: {}, calls: 2 }],
    run("async () => [await counter.add({ n: 1 }), await counter.add({})]", [counter]));
  await is("a service with props", { method: "get", args: { key: "k" }, user: "ann" },
    run("async () => store.get({ key: 'k' })", [{ name: "store", binding: ctx.exports.Store({ props: { user: "ann" } }) }]));
  await is("a pause", "__CODEMODE_PAUSE__", run("async () => counter.pause({})", [counter]));
  await is("a refusal", "not allowed", run("async () => counter.refuse({})", [counter]));
  await is("an exception", "out of range", run("async () => counter.explode({})", [counter]));
  await is("beside a provider", [5, 3], run("async () => [await codemode.five({}), (await counter.last({})).calls]", [counter], [provider({ five: async () => 5 })]));
  await is("one name for both", 'Duplicate name "counter" (connector clashes with provider)', run("async () => 1", [counter], [provider({}, "counter")]));
  await is("bindings", "ann", async () => {
    const got = await given(env, { bindings: { STORE: ctx.exports.Store({ props: { user: "ann" } }), WORD: "w" } })
      .execute("async () => { const { env } = await import('cloudflare:workers'); return (await env.STORE.callTool('x', {})).user; }", []);
    return got.error ?? got.result;
  });
  const spec = {
    openapi: "3.0.0", info: { title: "pets", version: "1" },
    paths: { "/pets/{id}": { get: { operationId: "get_pet", summary: "One pet", parameters: [{ name: "id", in: "path", required: true, schema: { type: "string" } }, { name: "full", in: "query", schema: { type: "boolean" } }] } } },
  };
  class Pets extends OpenApiConnector {
    name() { return "pets"; }
    spec() { return spec; }
    async request(options) { return options; }
  }
  const bound = (connector) => {
    const target = new (class extends RpcTarget {
      callTool(method, args) { return connector.executeTool(method, args, {}); }
    })();
    return { name: connector.name(), binding: target };
  };
  const pets = new Pets(ctx, env);
  await is("an OpenAPI connector", { path: "/pets/7%2F8", method: "GET", params: { full: true } }, run("async () => pets.get_pet({ id: '7/8', full: true })", [bound(pets)]));
  await is("its types", true, (await pets.getTypeScriptTypes()).includes("declare const pets"));
  class Remote extends McpConnector {
    name() { return "remote"; }
    createConnection() {
      return { tools: [{ name: "say-it", inputSchema: { type: "object" } }], client: { callTool: async ({ name, arguments: { text } }) => ({ content: [{ type: "text", text: JSON.stringify({ name, text }) }] }) } };
    }
  }
  await is("an MCP connector", { name: "say-it", text: "hi" }, run("async () => remote.say_it({ text: 'hi' })", [bound(new Remote(ctx, env))]));
  const set = toolSetConnector(ctx, { name: "math", tools: { "by-two": tool({ description: "Doubles", inputSchema: z.object({ n: z.number() }), execute: async ({ n }) => 2 * n }) } });
  await is("a tool set", 8, run("async () => math.by_two({ n: 4 })", [bound(set)]));
  // workerd passes on no more of a ZodError than its name, so only its kind can be compared.
  await is("its schema", true, run("async () => { try { return await math.by_two({ n: 'x' }); } catch (error) { return error instanceof Error; } }", [bound(set)]));
  await is("types", true, generateTypesFromJsonSchema({ add: { description: "Adds", inputSchema: { type: "object", properties: { a: { type: "number" } } } } }).includes("add: (input: AddInput)"));
}

/** What agents are given: one tool that takes code, for the AI SDK and over MCP. */
async function agents(is, env) {
  const executor = given(env);
  const weather = tool({ description: "Weather of a city", inputSchema: z.object({ city: z.string() }), execute: async ({ city }) => ({ city, degrees: city.length }) });
  const code = createCodeTool({ tools: [aiTools({ weather }), { name: "db", tools: { rows: tool({ inputSchema: z.object({}), execute: async () => [1, 2] }) } }], executor });
  await is("described", [true, true], [code.description.includes("weather: (input: WeatherInput)"), code.description.includes("declare const db")]);
  await is("called", { result: [6, 2], logs: ["asking"] },
    code.execute({ code: "async () => { console.log('asking'); return [(await codemode.weather({ city: 'Lisbon' })).degrees, (await db.rows({})).length]; }" }, {}));
  await is("wrong input", true, code.execute({ code: "async () => codemode.weather({ town: 1 })" }, {}).catch((error) => error.message.includes("Code execution failed") && error.message.includes("city")));
  await is("validated", true, resolveAiProvider({ tools: { weather } }).fns.weather({}).catch((error) => /city/.test(error.message)));

  const upstream = new McpServer({ name: "up", version: "1.0.0" });
  upstream.registerTool("add", { description: "Adds", inputSchema: { a: z.number(), b: z.number() } }, async ({ a, b }) => ({ content: [{ type: "text", text: String(a + b) }] }));
  upstream.registerTool("fail", { inputSchema: {} }, async () => ({ isError: true, content: [{ type: "text", text: "broken" }] }));
  const connected = async (server) => {
    const client = new Client({ name: "test", version: "1.0.0" });
    const [near, far] = InMemoryTransport.createLinkedPair();
    await Promise.all([server.connect(far), client.connect(near)]);
    return async (name, code) => {
      const { content, isError } = await client.callTool({ name, arguments: { code } });
      return [content[0].text, isError ?? false];
    };
  };
  const ask = await connected(await codeMcpServer({ server: upstream, executor }));
  await is("MCP", ["5", false], ask("code", "async () => codemode.add({ a: 2, b: 3 })"));
  await is("MCP error", ["Error: broken", true], ask("code", "async () => codemode.fail({})"));
  const spec = { openapi: "3.0.0", info: { title: "t", version: "1" }, paths: { "/a": { get: { parameters: [{ $ref: "#/components/p" }] } } }, components: { p: { name: "q" } } };
  const api = await connected(openApiMcpServer({ spec, executor, request: async (options) => ({ asked: options.path }) }));
  await is("search", [JSON.stringify({ name: "q" }, null, 2), false], api("search", "async () => (await codemode.spec()).paths['/a'].get.parameters[0]"));
  await is("execute", [JSON.stringify({ asked: "/a" }, null, 2), false], api("execute", "async () => codemode.request({ method: 'GET', path: '/a' })"));
}

/** Code that computes for ever. Only where something stops it: the worker's own limits, or lower ones of the loader. */
async function spin(is, env) {
  const lower = { load: (code) => env.LOADER.load({ ...code, limits: { cpuMs: 50 } }) };
  const outcome = (code, loader) => new DynamicWorkerExecutor({ loader, timeout: 5_000 }).execute(code, [provider({})]).then((r) => r.result ?? r.error, (error) => `rejects ${error.message}`);
  await is("synchronous", "rejects Worker exceeded CPU time limit.", outcome("async () => { while (true); }", lower));
  await is("between turns", "rejects Worker exceeded CPU time limit.", outcome("async () => { for (;;) await null; }", lower));
  await is("the next one", 42, outcome("async () => 42", lower));
}

const routes = { "/tools": tools, "/ends": ends, "/connectors": connectors, "/agents": agents, "/spin": spin };
export default {
  fetch: (request, env, ctx) => reporter(routes[new URL(request.url).pathname])(request, env, ctx),
};
