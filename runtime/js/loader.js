// env.LOADER: workers that workers load.
// https://developers.cloudflare.com/workers/runtime-apis/bindings/worker-loader/
(function () {
"use strict";
const { core, primordials, internals } = __bootstrap;
const host = internals.atoll;
const { op_worker_load, op_worker_find, op_worker_dispose } = core.ops;
const {
  ArrayBufferIsView, ArrayIsArray, ArrayPrototypePush, JSONStringify, ObjectKeys, PromisePrototypeThen, PromiseResolve,
  SafeArrayIterator, String, Symbol, TypeError, Uint8Array, TypedArrayPrototypeSlice,
} = primordials;

const KINDS = ["js", "cjs", "text", "data", "json", "py", "wasm", "ts"];

function field(object, name, type, check, required) {
  const value = object[name];
  if (value === undefined && !required) return undefined;
  if (!check(value)) {
    throw new TypeError(`Incorrect type for the '${name}' field on 'WorkerCode': the provided value is not of type '${type}'.`);
  }
  return value;
}
const isString = (value) => typeof value === "string";

function moduleBytes(value, name, kind) {
  if (ArrayBufferIsView(value)) return TypedArrayPrototypeSlice(new Uint8Array(value.buffer, value.byteOffset, value.byteLength));
  if (core.isAnyArrayBuffer(value)) return TypedArrayPrototypeSlice(new Uint8Array(value));
  throw new TypeError(`Incorrect type for the '${kind}' field on 'Module': the provided value is not of type 'ArrayBuffer'.`);
}
/** One module as (name, kind, body). */
function moduleTriple(name, content) {
  if (typeof content === "string") return [name, "plain", content];
  if (content === null || typeof content !== "object") {
    throw new TypeError(`Incorrect type for the 'modules' field on 'WorkerCode': the provided value is not of type 'string or Module'.`);
  }
  const given = [];
  for (const kind of new SafeArrayIterator(KINDS)) if (content[kind] !== undefined) ArrayPrototypePush(given, kind);
  if (given.length !== 1) return [name, "ambiguous", `${given.length}`];
  const kind = given[0], value = content[kind];
  switch (kind) {
    case "data": return [name, kind, moduleBytes(value, name, kind)];
    case "wasm": return [name, kind, moduleBytes(value, name, kind)];
    case "json": return [name, kind, JSONStringify(value) ?? "null"];
    default:
      if (typeof value !== "string") throw new TypeError(`Incorrect type for the '${kind}' field on 'Module': the provided value is not of type 'string'.`);
      return [name, kind, value];
  }
}

const rpc = () => host.load("ext:atoll/rpc.js");
function outboundOf(code) {
  const value = code.globalOutbound;
  if (value === undefined) return -2; // the host decides by the parent's compatibility flags
  if (value === null) return -1;
  const capability = rpc().capabilityOf(value);
  if (capability === undefined) {
    throw new TypeError("Incorrect type for the 'globalOutbound' field on 'WorkerCode': the provided value is not of type 'Fetcher'.");
  }
  return capability;
}
function tailsOf(code) {
  const tails = field(code, "tails", "Array", ArrayIsArray, false) ?? [];
  const numbers = [];
  for (let i = 0; i < tails.length; i++) {
    const capability = rpc().capabilityOf(tails[i]);
    if (capability === undefined) {
      throw new TypeError(`Incorrect type for array element ${i}: the provided value is not of type 'Fetcher'.`);
    }
    ArrayPrototypePush(numbers, capability);
  }
  const streaming = field(code, "streamingTails", "Array", ArrayIsArray, false) ?? [];
  if (streaming.length > 0) {
    throw new primordials.Error(code.allowExperimental === true ? "Streaming tail workers are not supported." :
      "Streaming tail workers are experimental. You must pass the option 'allowExperimental: true' to the worker loader to use them");
  }
  return numbers;
}
function limitsOf(limits) {
  const number = (name) => {
    const value = limits?.[name];
    return value === undefined || value === null ? -1 : +value;
  };
  return [number("cpuMs"), number("subRequests")];
}

/** Validates WorkerCode and starts it; the result is the worker's number. */
function loadNow(code, scope, name) {
  if (code === null || typeof code !== "object") {
    throw new TypeError("Failed to execute 'load' on 'WorkerLoader': parameter 1 is not of type 'WorkerCode'.");
  }
  const date = field(code, "compatibilityDate", "string", isString, true);
  const flags = field(code, "compatibilityFlags", "Array", ArrayIsArray, false) ?? [];
  const main = field(code, "mainModule", "string", isString, true);
  const modules = field(code, "modules", "object", (value) => typeof value === "object" && value !== null, true);
  const env = field(code, "env", "object", (value) => value === null || typeof value === "object", false);
  const flat = [];
  for (const key of new SafeArrayIterator(ObjectKeys(modules))) ArrayPrototypePush(flat, ...new SafeArrayIterator(moduleTriple(key, modules[key])));
  const { 0: cpuMs, 1: subRequests } = limitsOf(code.limits);
  return op_worker_load(
    host.currentId(), [scope, name], String(date), [...new SafeArrayIterator(flags)].map(String), code.allowExperimental === true, main, flat,
    env === undefined || env === null ? 0 : rpc().packPlain(env), outboundOf(code), cpuMs, subRequests, tailsOf(code),
  );
}

class WorkerStub {
  #ready;
  constructor(ready) {
    this.#ready = ready;
  }
  getEntrypoint(name = undefined, options = undefined) {
    const entrypoint = name === undefined || name === null || name === "default" ? null : String(name);
    return rpc().dynamicEntrypoint(this.#ready, entrypoint, { props: options?.props, limits: limitsOf(options?.limits) });
  }
  /** Frees the isolate at once (not in Workers). */
  [Symbol.dispose ?? primordials.SymbolFor("Symbol.dispose")]() {
    PromisePrototypeThen(PromiseResolve(this.#ready), (worker) => op_worker_dispose(worker), () => {});
  }
}

const FAILED = "Failed to start Worker:\n";

class WorkerLoader {
  #scope;
  constructor(scope) {
    this.#scope = scope;
  }
  load(code) {
    host.requireInvocation();
    try {
      return new WorkerStub(loadNow(code, null, null));
    } catch (error) {
      // What Workers find out while they start the worker rejects its first request.
      if (typeof error?.message !== "string" || !primordials.StringPrototypeStartsWith(error.message, FAILED)) throw error;
      const ready = primordials.PromiseReject(error);
      PromisePrototypeThen(ready, undefined, () => {});
      return new WorkerStub(ready);
    }
  }
  get(name, getCode) {
    if (typeof getCode !== "function") {
      throw new TypeError("Failed to execute 'get' on 'WorkerLoader': parameter 2 is not of type 'function'.");
    }
    host.requireInvocation();
    const named = name === undefined || name === null ? null : String(name);
    if (named !== null) {
      const found = op_worker_find(host.currentId(), this.#scope, named);
      if (found > 0) return new WorkerStub(found);
    }
    const ready = (async () => {
      const code = await getCode();
      // Another request may have loaded it meanwhile.
      const found = named === null ? 0 : op_worker_find(host.currentId(), this.#scope, named);
      return found > 0 ? found : loadNow(code, named === null ? null : this.#scope, named);
    })();
    // A failed load rejects the first request, not get().
    PromisePrototypeThen(ready, undefined, () => {});
    return new WorkerStub(ready);
  }
}
return { makeLoader: (scope) => new WorkerLoader(scope), WorkerLoader, WorkerStub };
})();
