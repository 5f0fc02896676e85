// capnweb over WebSockets: a server in the worker, and a client in the worker that calls a server elsewhere.
import { newWebSocketRpcSession, newWorkersRpcResponse, RpcTarget } from "capnweb";

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
export default {
  async fetch(request, env) {
    const url = new URL(request.url);
    if (url.pathname === "/api") return newWorkersRpcResponse(request, new Api());
    using api = newWebSocketRpcSession(`ws://${env.FAR}/`);
    const counter = api.counter();
    const values = await Promise.all([counter.add(2), counter.add(3)]);
    const twice = await api.twice((n) => n * 10);
    const failed = await api.fail().catch((error) => `${error.name}: ${error.message}`);
    return Response.json({ hello: await api.greet("worker"), values, twice, failed });
  },
};
