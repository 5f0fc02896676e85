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
const isObject = (value) => (typeof value === "object" && value !== null) || typeof value === "function";

function moduleBytes(value, kind) {
  if (ArrayBufferIsView(value)) return TypedArrayPrototypeSlice(new Uint8Array(value.buffer, value.byteOffset, value.byteLength));
  if (core.isAnyArrayBuffer(value)) return TypedArrayPrototypeSlice(new Uint8Array(value));
  const wanted = kind === "wasm" ? "Array or WasmModuleObject" : "Array";
  throw new TypeError(`Incorrect type for the '${kind}' field on 'Module': the provided value is not of type '${wanted}'.`);
}
/** One module as (name, kind, body). */
function moduleTriple(name, content) {
  if (content === null || content === undefined) return [name, "ambiguous", "0"];
  if (typeof content !== "object") return [name, "plain", String(content)];
  const given = [];
  for (const kind of new SafeArrayIterator(KINDS)) if (content[kind] !== undefined) ArrayPrototypePush(given, kind);
  if (given.length !== 1) return [name, "ambiguous", `${given.length}`];
  const kind = given[0], value = content[kind];
  switch (kind) {
    case "data":
    case "wasm": return [name, kind, moduleBytes(value, kind)];
    case "json": return [name, kind, JSONStringify(value) ?? "null"];
    default: return [name, kind, String(value)];
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
function limitsOf(limits, type) {
  if (limits !== undefined && !isObject(limits)) {
    throw new TypeError(`Incorrect type for the 'limits' field on '${type}': the provided value is not of type 'ResourceLimits'.`);
  }
  const number = (name) => {
    const value = limits?.[name];
    if (value === undefined) return -1;
    const number = +value;
    if (!primordials.NumberIsFinite(number)) throw new TypeError("The value cannot be converted because it is not an integer.");
    if (number < 0) throw new TypeError("The value cannot be converted because it is negative and this API expects a positive number.");
    return number;
  };
  return [number("cpuMs"), number("subRequests")];
}

/** Validates WorkerCode and starts it; the result is the worker's number. */
function loadNow(code, scope, name) {
  if (code === null || typeof code !== "object") {
    throw new TypeError("Failed to execute 'load' on 'WorkerLoader': parameter 1 is not of type 'WorkerCode'.");
  }
  const date = String(code.compatibilityDate);
  const flags = field(code, "compatibilityFlags", "Array", ArrayIsArray, false) ?? [];
  const main = String(code.mainModule);
  const modules = field(code, "modules", "object", (value) => typeof value === "object" && value !== null, true);
  const env = field(code, "env", "Object", isObject, false);
  const flat = [];
  for (const key of new SafeArrayIterator(ObjectKeys(modules))) ArrayPrototypePush(flat, ...new SafeArrayIterator(moduleTriple(key, modules[key])));
  const { 0: cpuMs, 1: subRequests } = limitsOf(code.limits, "WorkerCode");
  return op_worker_load(
    host.currentId(), [scope, name], date, [...new SafeArrayIterator(flags)].map(String), code.allowExperimental === true, main, flat,
    env === undefined ? 0 : rpc().packPlain(env), outboundOf(code), cpuMs, subRequests, tailsOf(code),
  );
}

class WorkerStub {
  #ready;
  constructor(ready) {
    this.#ready = ready;
  }
  getEntrypoint(name = undefined, options = undefined) {
    const entrypoint = name === undefined || name === null || name === "default" ? null : String(name);
    if (options !== undefined && options !== null && !isObject(options)) {
      throw new TypeError("Failed to execute 'getEntrypoint' on 'WorkerStub': parameter 2 is not of type 'EntrypointOptions'.");
    }
    const props = options?.props;
    if (props !== undefined && !isObject(props)) {
      throw new TypeError("Incorrect type for the 'props' field on 'EntrypointOptions': the provided value is not of type 'Object'.");
    }
    return rpc().dynamicEntrypoint(this.#ready, entrypoint, { props, limits: limitsOf(options?.limits, "EntrypointOptions") });
  }
  /** Frees the isolate at once (not in Workers). */
  [Symbol.dispose ?? primordials.SymbolFor("Symbol.dispose")]() {
    // One that is there takes no call from now on; one that is still coming goes when it came.
    if (typeof this.#ready === "number") op_worker_dispose(this.#ready);
    else PromisePrototypeThen(PromiseResolve(this.#ready), (worker) => op_worker_dispose(worker), () => {});
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
      if (!isObject(code)) throw new TypeError("Callback returned incorrect type; expected 'Promise'");
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
