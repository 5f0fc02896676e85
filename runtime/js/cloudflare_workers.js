// The module `cloudflare:workers`.
// https://developers.cloudflare.com/workers/runtime-apis/bindings/service-bindings/rpc/
(function () {
"use strict";
const { core, primordials, internals } = __bootstrap;
const host = internals.atoll;
const { ObjectAssign, Proxy, ReflectDefineProperty, ReflectDeleteProperty, ReflectGetOwnPropertyDescriptor, ReflectHas, ReflectOwnKeys, Symbol, TypeError } = primordials;
const { getAsyncContext, setAsyncContext } = core;

class WorkerEntrypoint {
  ctx;
  env;
  constructor(ctx, env) {
    this.ctx = ctx;
    this.env = env;
  }
}
// Classes that are addressed by an id: nothing makes instances of them yet, but packages extend them.
class DurableObject {
  ctx;
  env;
  constructor(ctx, env) {
    this.ctx = ctx;
    this.env = env;
  }
}
class WorkflowEntrypoint {
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

// What `withEnv` and `withExports` put in place, for what they run and for all that this goes on to do.
const kEnv = Symbol("env"), kExports = Symbol("exports");
function within(name, given, run, at) {
  if (typeof run !== "function") {
    throw new TypeError(`Failed to execute '${name}' on 'EnvModule': parameter ${at} is not of type 'function'.`);
  }
  const before = getAsyncContext();
  setAsyncContext(ObjectAssign({ __proto__: null }, before, given));
  try {
    return run();
  } finally {
    setAsyncContext(before);
  }
}
function withEnv(env, run) {
  return within("withEnv", { [kEnv]: env }, run, 2);
}
function withExports(exports, run) {
  return within("withExports", { [kExports]: exports }, run, 2);
}
function withEnvAndExports(env, exports, run) {
  return within("withEnvAndExports", { [kEnv]: env, [kExports]: exports }, run, 3);
}
/** An object that is always the current one: what a module imports is bound once. */
const live = (current) => new Proxy({}, {
  __proto__: null,
  get: (_, key) => current()[key],
  set: (_, key, value) => {
    current()[key] = value;
    return true;
  },
  has: (_, key) => ReflectHas(current(), key),
  deleteProperty: (_, key) => ReflectDeleteProperty(current(), key),
  defineProperty: (_, key, descriptor) => ReflectDefineProperty(current(), key, descriptor),
  ownKeys: () => ReflectOwnKeys(current()),
  getOwnPropertyDescriptor(_, key) {
    const descriptor = ReflectGetOwnPropertyDescriptor(current(), key);
    // The proxy's own target has no such property, so none may be fixed.
    if (descriptor !== undefined) descriptor.configurable = true;
    return descriptor;
  },
});

return {
  WorkerEntrypoint, DurableObject, WorkflowEntrypoint, RpcTarget, waitUntil, withEnv, withExports, withEnvAndExports,
  env: live(() => getAsyncContext()?.[kEnv] ?? host.getEnv() ?? {}),
  exports: live(() => getAsyncContext()?.[kExports] ?? host.getExports()),
  get RpcStub() { return rpc().RpcStub; }, get RpcPromise() { return rpc().RpcPromise; },
  get RpcProperty() { return rpc().RpcProperty; }, get ServiceStub() { return rpc().ServiceStub; },
};
})();
