// Shows: capnweb: one API over HTTP batches and WebSockets, asked by its own client in the same worker.
// > GET /local
// > GET /api
// < 400
import { newHttpBatchRpcSession, newWorkersRpcResponse } from "capnweb";
import { Api, batchCases } from "./api.js";
import { reporter } from "./check.js";

export default {
  fetch(request, env, ctx) {
    if (new URL(request.url).pathname === "/api") return newWorkersRpcResponse(request, new Api());
    return reporter(async (is) => {
      // The client's requests go to this very worker.
      globalThis.fetch = (...args) => ctx.exports.default.fetch(...args);
      await batchCases(is, () => newHttpBatchRpcSession(new Request(new URL("/api", request.url), { method: "POST" })));
    })(request, env, ctx);
  },
};
