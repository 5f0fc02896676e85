// capnweb: an RPC server over an HTTP batch, asked by its own client.
import { newHttpBatchRpcResponse, newHttpBatchRpcSession, RpcTarget } from "capnweb";

class User extends RpcTarget {
  constructor(name) { super(); this.name = name; }
  greet(word) { return `${word}, ${this.name}!`; }
}
class Api extends RpcTarget {
  square(n) { return n * n; }
  authenticate(token) {
    if (token !== "good") throw new TypeError("bad token");
    return new User("Ada");
  }
  async map(list, f) { return Promise.all(list.map((n) => f(n))); }
}
export default {
  async fetch(request, env, ctx) {
    const url = new URL(request.url);
    if (url.pathname === "/api") return newHttpBatchRpcResponse(request, new Api());
    // The client's request goes to this very worker.
    globalThis.fetch = (...args) => ctx.exports.default.fetch(...args);
    const batch = () => newHttpBatchRpcSession(new Request(new URL("/api", url), { method: "POST" }));
    const api = batch();
    const user = api.authenticate("good");
    const [nine, hello] = await Promise.all([api.square(3), user.greet("Hello")]);
    const refused = await batch().authenticate("bad").catch((error) => `${error.name}: ${error.message}`);
    return Response.json({ nine, hello, refused });
  },
};
