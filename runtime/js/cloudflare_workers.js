// The module `cloudflare:workers`.
// https://developers.cloudflare.com/workers/runtime-apis/bindings/service-bindings/rpc/
(function () {
"use strict";
const { internals } = __bootstrap;
const host = internals.atoll;

class WorkerEntrypoint {
  ctx;
  env;
  constructor(ctx, env) {
    this.ctx = ctx;
    this.env = env;
  }
}
class RpcTarget {}
const waitUntil = (promise) => host.requireInvocation().waitUntil(promise);
return { WorkerEntrypoint, RpcTarget, waitUntil, get env() { return host.getEnv(); } };
})();
