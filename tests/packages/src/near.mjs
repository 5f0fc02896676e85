// Client libraries in Node, against workers: `client BASES`, where BASES is a JSON object of each worker's URL.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { createTRPCClient, httpBatchLink, httpBatchStreamLink, httpSubscriptionLink } from "@trpc/client";
import { AgentClient } from "agents/client";
import { newHttpBatchRpcSession, newWebSocketRpcSession } from "capnweb";
import { WebSocket } from "ws";
import { agentClientCases } from "./agent.js";
import { batchCases, sessionCases } from "./api.js";
import { mcpClientCases, trpcClientCases, trpcSubscriptionCase } from "./cases.js";
import { report } from "./check.js";

// What capnweb compares the state of a socket with; not every version of Node has one.
globalThis.WebSocket ??= WebSocket;

const bases = JSON.parse(process.argv[3]);
const within = (is, name) => (label, ...rest) => is(`${name}: ${label}`, ...rest);

async function mcp(is) {
  const client = new Client({ name: "node", version: "1.0.0" });
  await client.connect(new StreamableHTTPClientTransport(new URL(`${bases.mcp}/mcp`)));
  await mcpClientCases(is, client);
  await client.close();
}

async function capnweb(is) {
  await batchCases(is, () => newHttpBatchRpcSession(`${bases.capnweb}/api`));
  const api = newWebSocketRpcSession(new WebSocket(`${bases.capnweb.replace("http", "ws")}/api`));
  await sessionCases(within(is, "socket"), api);
  api[Symbol.dispose]();
}

/** An upgrade by hono, and its close. */
async function hono(is) {
  const socket = new WebSocket(`${bases.hono.replace("http", "ws")}/socket?name=Ada`);
  const got = [];
  socket.on("open", () => socket.send("quiet"));
  socket.on("message", (data, binary) => {
    got.push(binary ? [...data] : data.toString());
    socket.send(got.length === 1 ? Buffer.from([1, 2]) : "close");
  });
  await is("socket", ["QUIET", [1, 2], 4001, "bye Ada"], new Promise((resolve, reject) => {
    socket.on("close", (code, reason) => resolve([...got, code, reason.toString()]));
    socket.on("error", reject);
  }));
}

async function trpc(is) {
  const url = `${bases.apis}/trpc`;
  await trpcClientCases(is, url, { createTRPCClient, httpBatchLink, httpBatchStreamLink, fetch });
  await trpcSubscriptionCase(is, url, { createTRPCClient, httpSubscriptionLink, EventSource: Events });
}

async function agents(is) {
  const { host, pathname } = new URL(`${bases.agents}/agents/counter/ann`);
  await agentClientCases(is, AgentClient, { host, basePath: pathname.slice(1) });
}

/** As much of an EventSource as tRPC's link wants: Node has none. */
class Events extends EventTarget {
  static CONNECTING = 0; static OPEN = 1; static CLOSED = 2;
  readyState = 0;
  #stop = new AbortController();
  constructor(url) {
    super();
    this.#read(url).catch(() => {});
  }
  async #read(url) {
    const answer = await fetch(url, { headers: { accept: "text/event-stream" }, signal: this.#stop.signal });
    this.readyState = 1;
    this.dispatchEvent(new Event("open"));
    let text = "";
    for await (const part of answer.body.pipeThrough(new TextDecoderStream())) {
      text += part;
      for (let end; (end = text.indexOf("\n\n")) !== -1; text = text.slice(end + 2)) {
        const fields = Object.fromEntries(text.slice(0, end).split("\n").map((line) => line.split(/: ?(.*)/)));
        this.dispatchEvent(new MessageEvent(fields.event ?? "message", { data: fields.data, lastEventId: fields.id ?? "" }));
      }
    }
  }
  close() {
    this.readyState = 2;
    this.#stop.abort();
  }
}

console.log(await report(async (is) => {
  for (const [name, cases] of Object.entries({ mcp, capnweb, hono, trpc, agents })) await cases(within(is, name));
}));
process.exit(0);
