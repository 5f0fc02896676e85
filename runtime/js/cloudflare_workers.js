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
// Classes that are addressed by an id: nothing makes instances of them yet, but packages extend it.
class DurableObject {
  ctx;
  env;
  constructor(ctx, env) {
    this.ctx = ctx;
    this.env = env;
  }
}
class RpcTarget {}
// Their code is large, and most workers that have a class make no call.
const rpc = () => host.load("ext:atoll/rpc.js");
const waitUntil = (promise) => host.requireInvocation().waitUntil(promise);
return {
  WorkerEntrypoint, DurableObject, RpcTarget, waitUntil, get env() { return host.getEnv(); },
  get RpcStub() { return rpc().RpcStub; }, get RpcPromise() { return rpc().RpcPromise; },
  get RpcProperty() { return rpc().RpcProperty; }, get ServiceStub() { return rpc().ServiceStub; },
};
})();
