// An agent without a Durable Object: the messages that the npm package `agents` wants of one, on any WebSocket; and a client's cases.

/** Serves one connection. */
export function serveAgent(socket, name) {
  let state = { count: 0 };
  const send = (message) => socket.send(JSON.stringify(message));
  const methods = {
    add: (n) => { state = { count: state.count + n }; send({ type: "cf_agent_state", state }); return state.count; },
    fail: () => { throw new Error("as asked"); },
  };
  socket.addEventListener("message", ({ data }) => {
    const { type, id, method, args, state: given } = JSON.parse(data);
    if (type === "cf_agent_state") state = given;
    if (type !== "rpc") return;
    const answer = (more) => send({ type: "rpc", id, success: true, ...more });
    if (method === "count") {
      for (let n = 1; n <= args[0]; n++) answer({ result: n, done: false });
      return answer({ result: "counted", done: true });
    }
    try {
      answer({ result: methods[method](...args) });
    } catch (error) {
      answer({ success: false, error: error.message });
    }
  });
  send({ type: "cf_agent_identity", name, agent: "counter" });
  send({ type: "cf_agent_state", state });
}

/** What a client asks of it; `options` say where it is. */
export async function agentClientCases(is, AgentClient, options) {
  const updates = [];
  const client = new AgentClient({ agent: "Counter", name: "ann", ...options, onStateUpdate: (state, source) => updates.push([state.count, source]) });
  await client.ready;
  await is("identity", ["ann", "counter", true], [client.name, client.agent, client.identified]);
  await is("call", [2, 5], async () => [await client.call("add", [2]), await client.stub.add(3)]);
  await is("error", "throws Error: as asked", client.call("fail"));
  await is("stream", [[1, 2, 3], "counted"], async () => {
    const chunks = [];
    const result = await client.call("count", [3], { stream: { onChunk: (n) => chunks.push(n) } });
    return [chunks, result];
  });
  client.setState({ count: 40 });
  await is("own state", 42, client.call("add", [2]));
  await is("updates", [[0, "server"], [2, "server"], [5, "server"], [40, "client"], [42, "server"]], updates);
  await is("closed", "throws Error: Connection closed", async () => { const pending = client.call("add", [1]); client.close(); await pending; });
}
