// Shows: agents: what of it needs no Durable Object: its router and stubs over services, its client, its prompts for schedules.
// > GET /agents/counter/ann
// < ann got GET
// > POST /agents/counter/bo
// + x-block: yes
// < 403
// > GET /agents/other/ann
// < 400
// > GET /elsewhere
// < 404
// > OPTIONS /agents/counter/ann
// < access-control-allow-methods: GET, POST, HEAD, OPTIONS
// > GET /report
import { AgentClient, agentFetch } from "agents/client";
import { getAgentByName, routeAgentRequest } from "agents/routing";
import { getSchedulePrompt, scheduleSchema } from "agents/schedules/parser";
import { WorkerEntrypoint } from "cloudflare:workers";
import { agentClientCases, serveAgent } from "./agent.js";
import { reporter } from "./check.js";

/** Stands for the class of an agent; its name comes with the stub. */
export class Counter extends WorkerEntrypoint {
  __unsafe_ensureInitialized(props) { return props; }
  whoami() { return this.ctx.props.name; }
  add(a, b) { return a + b; }
  async twice(callback) { return [await callback(1), await callback(2)]; }
  fetch(request) {
    if (request.headers.get("upgrade") !== "websocket") return new Response(`${this.ctx.props.name} got ${request.method}`);
    const [client, server] = Object.values(new WebSocketPair());
    server.accept();
    serveAgent(server, this.ctx.props.name);
    return new Response(null, { status: 101, webSocket: client });
  }
}
/** A namespace as far as the package looks at one: a stub for each name. */
const namespaceOf = (ctx) => ({ idFromName: (name) => name, get: (name) => ctx.exports.Counter({ props: { name } }) });

const report = reporter(async (is, env, ctx) => {
  const agent = await getAgentByName(namespaceOf(ctx), "cy", { props: { a: 1 } });
  await is("by name", "cy", agent.whoami());
  await is("call", 5, agent.add(2, 3));
  await is("callback", [10, 20], agent.twice((n) => 10 * n));
  await is("fetch", "cy got PUT", agent.fetch("https://agent/", { method: "PUT" }).then((r) => r.text()));
  await is("schedule", [true, false], [{ description: "swim", when: { type: "delayed", delayInSeconds: 5 } }, { when: 7 }].map((each) => scheduleSchema.safeParse(each).success));
  await is("prompt", true, getSchedulePrompt({ date: new Date(0) }).includes("1970"));
  await is("agentFetch", 404, agentFetch({ agent: "Nobody", name: "x", host: env.FAR }).then((r) => r.status));
  await agentClientCases((label, ...rest) => is(`client: ${label}`, ...rest), AgentClient, { host: env.FAR });
});

export default {
  async fetch(request, env, ctx) {
    if (new URL(request.url).pathname === "/report") return report(request, env, ctx);
    const onBeforeRequest = (asked) => (asked.headers.get("x-block") ? new Response("blocked", { status: 403 }) : undefined);
    const routed = await routeAgentRequest(request, { Counter: namespaceOf(ctx) }, { cors: true, onBeforeRequest });
    return routed ?? new Response("no agent", { status: 404 });
  },
};
