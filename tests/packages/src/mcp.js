// Shows: an MCP server over streamable HTTP, without sessions: the SDK's web-standard transport in a worker.
// > GET /local
// > POST /mcp
// + content-type: application/json
// + accept: application/json, text/event-stream
// = {"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add","arguments":{"a":2,"b":3}}}
// < content-type: text/event-stream
// < event: message\ndata: {"result":{"content":[{"type":"text","text":"5"}]
// > POST /json
// + content-type: application/json
// + accept: application/json, text/event-stream
// = {"jsonrpc":"2.0","id":1,"method":"tools/list"}
// < 200
// < content-type: application/json
// < "name":"add"
// > POST /json
// + content-type: application/json
// + accept: application/json
// = {"jsonrpc":"2.0","id":1,"method":"tools/list"}
// < 406
// > POST /json
// + content-type: text/plain
// + accept: application/json, text/event-stream
// = {}
// < 415
// > POST /json
// + content-type: application/json
// + accept: application/json, text/event-stream
// = {"jsonrpc":
// < 400
// < Parse error
// > POST /json
// + content-type: application/json
// + accept: application/json, text/event-stream
// + mcp-protocol-version: 1999-01-01
// = {"jsonrpc":"2.0","id":1,"method":"tools/list"}
// < 400
// < Unsupported protocol version
// > PUT /mcp
// < 405
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { McpServer, ResourceTemplate } from "@modelcontextprotocol/sdk/server/mcp.js";
import { WebStandardStreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/webStandardStreamableHttp.js";
import { CfWorkerJsonSchemaValidator } from "@modelcontextprotocol/sdk/validation/cfworker";
import { z } from "zod";
import { reporter } from "./check.js";
import { mcpClientCases } from "./cases.js";

function server() {
  const made = new McpServer({ name: "atoll-test", version: "1.2.3" }, { instructions: "Add things.", jsonSchemaValidator: new CfWorkerJsonSchemaValidator() });
  made.registerTool("add", { title: "Adds", description: "Adds two numbers", inputSchema: { a: z.number(), b: z.number() }, annotations: { readOnlyHint: true } },
    async ({ a, b }) => ({ content: [{ type: "text", text: String(a + b) }] }));
  made.registerTool("divide", { inputSchema: { a: z.number(), b: z.number() }, outputSchema: { quotient: z.number() } }, async ({ a, b }) => {
    if (b === 0) throw new Error("division by zero");
    return { content: [{ type: "text", text: String(a / b) }], structuredContent: { quotient: a / b } };
  });
  made.registerTool("count", { inputSchema: { to: z.number().int() } }, async ({ to }, { _meta, sendNotification }) => {
    for (let n = 1; n <= to; n++) {
      await sendNotification({ method: "notifications/progress", params: { progressToken: _meta.progressToken, progress: n, total: to } });
      await new Promise((done) => setTimeout(done, 1));
    }
    return { content: [{ type: "text", text: "counted" }] };
  });
  made.registerResource("note", new ResourceTemplate("note://{id}", { list: undefined }), {}, async (uri, { id }) => ({ contents: [{ uri: uri.href, text: `note ${id}` }] }));
  made.registerPrompt("greet", { argsSchema: { name: z.string() } }, ({ name }) => ({ messages: [{ role: "user", content: { type: "text", text: `Greet ${name}.` } }] }));
  return made;
}
async function serve(request, enableJsonResponse) {
  const transport = new WebStandardStreamableHTTPServerTransport({ sessionIdGenerator: undefined, enableJsonResponse });
  await server().connect(transport);
  return transport.handleRequest(request);
}
export default {
  async fetch(request, env, ctx) {
    const { pathname } = new URL(request.url);
    if (pathname !== "/local") return serve(request, pathname === "/json");
    // The SDK's client in the same worker, without a network in between.
    return reporter(async (is) => {
      const client = new Client({ name: "local", version: "1.0.0" }, { jsonSchemaValidator: new CfWorkerJsonSchemaValidator() });
      await client.connect(new StreamableHTTPClientTransport(new URL("/mcp", request.url), { fetch: (url, init) => serve(new Request(url, init)) }));
      await mcpClientCases(is, client);
      await client.close();
    })(request, env, ctx);
  },
};
