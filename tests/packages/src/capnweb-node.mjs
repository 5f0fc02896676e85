// Node's side of capnweb over WebSockets. `client URL HOST`: calls a worker; `server`: prints its port and serves.
import { newWebSocketRpcSession, RpcTarget } from "capnweb";
import { WebSocket, WebSocketServer } from "ws";

// What the package compares the state of a socket with; not every version of Node has one.
globalThis.WebSocket ??= WebSocket;

class Counter extends RpcTarget {
  constructor() { super(); this.value = 0; }
  add(n) { return this.value += n; }
}
class Api extends RpcTarget {
  greet(name) { return `Hello, ${name}!`; }
  counter() { return new Counter(); }
  async twice(callback) { return [await callback(1), await callback(2)]; }
  fail() { throw new RangeError("as asked"); }
}
const [mode, url, host] = process.argv.slice(2);
if (mode === "server") {
  const server = new WebSocketServer({ host: "127.0.0.1", port: 0 });
  server.on("connection", (socket) => newWebSocketRpcSession(socket, new Api()));
  server.on("listening", () => console.log(server.address().port));
  process.stdin.resume().on("end", () => process.exit(0));
} else {
  const socket = new WebSocket(url, { headers: { host } });
  const api = newWebSocketRpcSession(socket);
  const counter = api.counter();
  const values = await Promise.all([counter.add(2), counter.add(3)]);
  const twice = await api.twice((n) => n * 10);
  const failed = await api.fail().catch((error) => `${error.name}: ${error.message}`);
  console.log(JSON.stringify({ hello: await api.greet("Node"), values, twice, failed }));
  process.exit(0);
}
