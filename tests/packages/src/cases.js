// What both Node and workers ask of a server, as clients.

/** An MCP client, connected to the server of mcp.js. */
export async function mcpClientCases(is, client) {
  await is("server", { name: "atoll-test", version: "1.2.3" }, () => client.getServerVersion());
  await is("instructions", "Add things.", () => client.getInstructions());
  await is("tools", ["add", "divide", "count"], client.listTools().then((r) => r.tools.map((tool) => tool.name)));
  await is("schema", ["a", "b"], client.listTools().then((r) => Object.keys(r.tools[0].inputSchema.properties)));
  const call = (name, args, options) => client.callTool({ name, arguments: args }, undefined, options);
  await is("add", { content: [{ type: "text", text: "5" }] }, call("add", { a: 2, b: 3 }));
  await is("structured", { quotient: 2.5 }, call("divide", { a: 5, b: 2 }).then((r) => r.structuredContent));
  await is("a tool throws", [true, "division by zero"], call("divide", { a: 1, b: 0 }).then((r) => [r.isError, r.content[0].text]));
  await is("wrong arguments", true, call("add", { a: "x" }).then((r) => r.isError && r.content[0].text.includes("-32602")));
  await is("no such tool", true, call("none", {}).then((r) => r.isError && r.content[0].text.includes("not found"), (error) => error.message.includes("not found")));
  const progress = [];
  await is("progress", ["counted", [1, 2, 3]], async () => {
    const { content } = await call("count", { to: 3 }, { onprogress: ({ progress: n }) => progress.push(n) });
    return [content[0].text, progress];
  });
  await is("at once", ["2", "4", "6"], Promise.all([1, 2, 3].map((n) => call("add", { a: n, b: n }).then((r) => r.content[0].text))));
  await is("resource", "note 7", client.readResource({ uri: "note://7" }).then((r) => r.contents[0].text));
  await is("prompt", "Greet Ada.", client.getPrompt({ name: "greet", arguments: { name: "Ada" } }).then((r) => r.messages[0].content.text));
}

/** A tRPC client of the server of apis.js. */
export async function trpcClientCases(is, url, { createTRPCClient, httpBatchLink, httpBatchStreamLink, fetch }) {
  const client = (link, user) => createTRPCClient({ links: [link({ url, fetch, headers: user ? { "x-user": user } : {} })] });
  const api = client(httpBatchLink);
  await is("query", "Hello, Ada!", api.greet.query({ name: "Ada" }));
  await is("batch", ["Hello, A!", "Hello, B!"], Promise.all(["A", "B"].map((name) => api.greet.query({ name }))));
  await is("mutation", { text: "swim", by: "ann" }, client(httpBatchLink, "ann").add.mutate({ text: "swim" }));
  await is("middleware", ["UNAUTHORIZED", "who are you?"], api.me.query().catch((error) => [error.data.code, error.message]));
  await is("known", "ann", client(httpBatchLink, "ann").me.query());
  await is("nested", [409, "taken"], api.nested.fails.query().catch((error) => [error.data.httpStatus, error.message]));
  await is("wrong input", "BAD_REQUEST", api.greet.query({ name: 7 }).catch((error) => error.data.code));
  if (!httpBatchStreamLink) return;
  const { now, soon } = await client(httpBatchStreamLink).later.query();
  await is("streamed", [1, 2], async () => [now, await soon]);
}

/** A tRPC subscription, which ends with an event without data. */
export const trpcSubscriptionCase = (is, url, { createTRPCClient, httpSubscriptionLink, EventSource }) =>
  is("subscription", [1, 2, 3], new Promise((resolve, reject) => {
    const got = [];
    const events = createTRPCClient({ links: [httpSubscriptionLink({ url, EventSource })] });
    events.count.subscribe(3, { onData: (n) => got.push(n), onError: reject, onComplete: () => resolve(got) });
  }));
