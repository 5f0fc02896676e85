// The servers that workers call, in Node, on one port: made-up services behind real client libraries, and capnweb, tRPC and MCP.
import { createServer } from "node:http";
import { Readable } from "node:stream";
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import { createHTTPHandler } from "@trpc/server/adapters/standalone";
import { newWebSocketRpcSession, nodeHttpBatchRpcResponse } from "capnweb";
import { exportJWK, importPKCS8, SignJWT } from "jose";
import { WebSocket, WebSocketServer } from "ws";
import { z } from "zod";
import { serveAgent } from "./agent.js";
import { Api } from "./api.js";
import { router } from "./router.js";

// What capnweb compares the state of a socket with; not every version of Node has one.
globalThis.WebSocket ??= WebSocket;

const read = (request) => new Response(Readable.toWeb(request)).text();
const json = (response, status, body, headers = {}) =>
  response.writeHead(status, { "content-type": "application/json", ...headers }).end(JSON.stringify(body));
/** Server-sent events, cut at places that mean nothing. */
async function events(response, list) {
  response.writeHead(200, { "content-type": "text/event-stream" });
  const text = list.map(([name, data]) => `${name ? `event: ${name}\n` : ""}data: ${typeof data === "string" ? data : JSON.stringify(data)}\n\n`).join("");
  for (let at = 0; at < text.length; at += 97) {
    response.write(text.slice(at, at + 97));
    await new Promise((done) => setImmediate(done));
  }
  response.end();
}

const completion = (choice) => ({ id: "chatcmpl-1", object: "chat.completion", created: 1, model: "fake", choices: [{ index: 0, ...choice }], usage: { prompt_tokens: 1, completion_tokens: 2, total_tokens: 3 } });
async function openai(request, response, path) {
  const text = await read(request);
  if (request.headers.authorization !== "Bearer right") return json(response, 401, { error: { message: "no such key", type: "invalid_request_error", code: "invalid_api_key", param: null } }, { "x-request-id": "req_1" });
  if (path === "/models") return json(response, 200, { object: "list", data: [{ id: "fake", object: "model", created: 1, owned_by: "test" }] });
  if (path === "/files") return json(response, 200, { id: "file_1", object: "file", bytes: text.length, filename: /filename="([^"]+)"/.exec(text)?.[1], purpose: /name="purpose"\r\n\r\n(\w+)/.exec(text)?.[1] });
  const body = JSON.parse(text);
  if (body.model === "busy") return json(response, 429, { error: { message: "slow down", type: "rate_limit", code: null, param: null } }, { "retry-after": "1" });
  if (body.model === "broken") return response.writeHead(500).end("not JSON");
  if (body.model === "cut") return void response.writeHead(200, { "content-type": "application/json", "content-length": "100" }).write("{", () => request.socket.destroy());
  if (path === "/embeddings") return json(response, 200, { object: "list", model: "fake", data: [{ object: "embedding", index: 0, embedding: Buffer.from(new Float32Array([0.5, -1]).buffer).toString("base64") }], usage: {} });
  if (body.stream) {
    const chunk = (delta, finish_reason = null) => ["", { id: "chatcmpl-1", object: "chat.completion.chunk", created: 1, model: "fake", choices: [{ index: 0, delta, finish_reason }] }];
    return events(response, [chunk({ role: "assistant", content: "" }), ...["sea ", "and ", "sand ✓"].map((content) => chunk({ content })), chunk({}, "stop"), ["", "[DONE]"]]);
  }
  const asked = body.messages.at(-1);
  if (body.tools && asked.role === "user") {
    return json(response, 200, completion({ finish_reason: "tool_calls", message: { role: "assistant", content: null, tool_calls: [{ id: "call_1", type: "function", function: { name: body.tools[0].function.name, arguments: '{"city":"Oslo"}' } }] } }));
  }
  return json(response, 200, completion({ finish_reason: "stop", message: { role: "assistant", content: `you said ${asked.content}` } }));
}

const message = (content, stop_reason = "end_turn") => ({ id: "msg_1", type: "message", role: "assistant", model: "fake", content, stop_reason, stop_sequence: null, usage: { input_tokens: 1, output_tokens: 2 } });
async function anthropic(request, response) {
  const body = JSON.parse(await read(request));
  const failed = (status, type, text) => json(response, status, { type: "error", error: { type, message: text } }, { "request-id": "req_2" });
  if (request.headers.authorization !== "Bearer right") return failed(401, "authentication_error", "no such key");
  if (request.headers["anthropic-version"] === undefined) return failed(400, "invalid_request_error", "no version");
  if (body.model === "busy") return failed(529, "overloaded_error", "Overloaded");
  const asked = body.messages.at(-1).content;
  if (body.stream) {
    const steps = [["message_start", { message: { ...message([], null), usage: { input_tokens: 1, output_tokens: 1 } } }], ["content_block_start", { index: 0, content_block: { type: "text", text: "" } }]];
    if (body.model === "fails") return events(response, [...steps, ["error", { error: { type: "overloaded_error", message: "Overloaded" } }]].map(([type, more]) => [type, { type, ...more }]));
    for (const text of ["sea ", "and ", "sand ✓"]) steps.push(["content_block_delta", { index: 0, delta: { type: "text_delta", text } }]);
    steps.push(["content_block_stop", { index: 0 }], ["content_block_start", { index: 1, content_block: { type: "tool_use", id: "toolu_1", name: "weather", input: {} } }]);
    for (const partial_json of ['{"ci', 'ty":"Oslo"}']) steps.push(["content_block_delta", { index: 1, delta: { type: "input_json_delta", partial_json } }]);
    steps.push(["content_block_stop", { index: 1 }], ["message_delta", { delta: { stop_reason: "tool_use", stop_sequence: null }, usage: { output_tokens: 9 } }], ["message_stop", {}]);
    return events(response, steps.map(([type, more]) => [type, { type, ...more }]));
  }
  const result = Array.isArray(asked) ? asked.find((part) => part.type === "tool_result") : undefined;
  if (result) return json(response, 200, message([{ type: "text", text: `it is ${typeof result.content === "string" ? result.content : result.content[0].text}` }]));
  if (body.tools) return json(response, 200, message([{ type: "tool_use", id: "toolu_1", name: body.tools[0].name, input: { city: "Oslo" } }], "tool_use"));
  return json(response, 200, message([{ type: "text", text: `you said ${asked}` }]));
}

async function stripe(request, response, path) {
  const body = Object.fromEntries(new URLSearchParams(await read(request)));
  const query = new URL(request.url, "http://far").searchParams;
  if (request.headers.authorization !== "Bearer sk_test_right") return json(response, 401, { error: { type: "invalid_request_error", message: "Invalid API Key provided" } });
  if (path === "/v1/customers" && request.method === "GET") {
    const from = Number(query.get("starting_after")?.slice(4) ?? 0);
    return json(response, 200, { object: "list", has_more: from < 4, url: path, data: [1, 2].map((n) => ({ id: `cus_${from + n}`, object: "customer" })) });
  }
  if (path === "/v1/customers") return json(response, 200, { id: "cus_1", object: "customer", email: body.email, metadata: { plan: body["metadata[plan]"] }, key: request.headers["idempotency-key"] ?? null });
  if (path === "/v1/charges") return json(response, 402, { error: { type: "card_error", code: "card_declined", decline_code: "insufficient_funds", message: "Your card was declined." } }, { "request-id": "req_3" });
  return json(response, 404, { error: { type: "invalid_request_error", code: "resource_missing", message: `No such thing: ${path}` } });
}

const trpc = createHTTPHandler({
  basePath: "/trpc/",
  createContext: ({ req }) => ({ user: req.headers["x-user"] }),
  router,
});

async function mcp(request, response) {
  const server = new McpServer({ name: "far", version: "1.0.0" });
  server.registerTool("shout", { inputSchema: { text: z.string() } }, async ({ text }) => ({ content: [{ type: "text", text: text.toUpperCase() }] }));
  const transport = new StreamableHTTPServerTransport({ sessionIdGenerator: undefined });
  await server.connect(transport);
  await transport.handleRequest(request, response);
}

const KEY = `-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g
-----END PRIVATE KEY-----`;
async function keys(response, path) {
  const key = await importPKCS8(KEY, "EdDSA", { extractable: true });
  const { d, ...publicJwk } = await exportJWK(key);
  if (path === "/jwks") return json(response, 200, { keys: [{ ...publicJwk, kid: "far", alg: "EdDSA" }] });
  response.end(await new SignJWT({ sub: "far" }).setProtectedHeader({ alg: "EdDSA", kid: "far" }).sign(key));
}

const routes = [
  ["/openai/v1", openai], ["/anthropic/v1/messages", anthropic], ["/trpc", trpc], ["/mcp", mcp],
  ["/capnweb", (request, response) => nodeHttpBatchRpcResponse(request, response, new Api())],
  ["/jwks", (_, response) => keys(response, "/jwks")], ["/token", (_, response) => keys(response, "/token")], ["/v1", (request, response, path) => stripe(request, response, `/v1${path}`)],
];
const server = createServer(async (request, response) => {
  const path = request.url.split("?")[0];
  const [prefix, handle] = routes.find(([each]) => path.startsWith(each)) ?? [];
  if (!handle) return response.writeHead(404).end();
  try {
    await handle(request, response, path.slice(prefix.length));
  } catch (error) {
    console.error(error);
    response.destroy(error);
  }
});
const sockets = new WebSocketServer({ server });
sockets.on("connection", (socket, request) => {
  const [, prefix, , name] = request.url.split("?")[0].split("/");
  if (prefix === "agents") serveAgent(socket, name);
  else newWebSocketRpcSession(socket, new Api());
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
process.stdin.resume().on("end", () => process.exit(0));
