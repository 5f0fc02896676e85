// Calls between isolates: stubs, promises of them, and what a worker's entrypoints answer.
//
// A stub is a function object without properties of its own, whose prototype chain ends in a wildcard: each name that no
// prototype has is a property of the object at the other side. What a stub stands for is stamped onto it as a private field,
// so that nothing which a guest makes can be taken for one.
// https://developers.cloudflare.com/workers/runtime-apis/rpc/
(function () {
"use strict";
const { core, primordials, internals } = __bootstrap;
const host = internals.atoll;
const {
  op_rpc_blob, op_rpc_pack, op_rpc_drop, op_rpc_dispose_with, op_rpc_send, op_rpc_return, op_rpc_take, op_rpc_export, op_rpc_own_stub, op_rpc_dup,
  op_rpc_release, op_rpc_own_entrypoint, op_rpc_flag, op_worker_entrypoint, op_invocation_failed,
} = core.ops;
const {
  ArrayPrototypeJoin, ArrayPrototypePush, ArrayPrototypeSlice, BigIntPrototypeValueOf, BooleanPrototypeValueOf, Error,
  FunctionPrototypeToString, MapPrototypeDelete, MapPrototypeGet, MapPrototypeSet, NumberPrototypeValueOf, Object, ObjectCreate,
  ObjectDefineProperty, ObjectGetPrototypeOf, ObjectHasOwn, ObjectKeys, ObjectPrototype, ObjectPrototypeIsPrototypeOf,
  ObjectSetPrototypeOf, PromisePrototypeThen, PromiseReject, PromiseResolve, Proxy, RangeError, ReflectApply, ReflectGet,
  ReflectHas, RegExp, RegExpPrototypeGetFlags, RegExpPrototypeGetSource, SafeMap, String,
  StringPrototypeValueOf, Symbol, SymbolFor, SymbolToStringTag, TypeError,
} = primordials;
const SymbolDispose = Symbol.dispose ?? SymbolFor("Symbol.dispose");
const { WorkerEntrypoint, RpcTarget } = host.load("ext:atoll/cloudflare_workers.js");
const { getAsyncContext, setAsyncContext } = core;

// Kinds of capabilities in the lists that Rust takes and gives.
const EXPORT = 0, STUB = 1, SERVICE = 2, BODY = 3;
const PATH_MAX = 64;

// ---- What a stub stands for -------------------------------------------------------------------------------------

// { type: "stub", number, owner, alive }
// { type: "service", reach(): capability or a promise of one, dynamic, owner }
// { type: "loopback", name }
// { type: "promise", promise, settled, result, disposed, awaited }
// { type: "property", base, path, promise }
class Blank { constructor(object) { return object; } }
class Stamped extends Blank {
  #state;
  constructor(object, state) {
    super(object);
    this.#state = state;
  }
  static of(value) {
    return ((typeof value === "object" && value !== null) || typeof value === "function") && #state in value ? value.#state : undefined;
  }
}
const stateOf = Stamped.of;
const isRemote = (state) => state !== undefined && (state.type === "stub" || state.type === "service" || state.type === "loopback");

/** The end of a prototype chain where every name is remote. */
function wildcard(prototype, hidden) {
  ObjectSetPrototypeOf(prototype, new Proxy(ObjectCreate(ObjectPrototype), {
    __proto__: null,
    get(target, name, receiver) {
      if (typeof name === "symbol" || ReflectHas(target, name)) return ReflectGet(target, name, receiver);
      const state = stateOf(receiver);
      if (state === undefined || name === hidden || isIndex(name)) return undefined;
      return makeProperty(state, name);
    },
  }));
}
const isIndex = (name) => `${name >>> 0}` === name;

function define(prototype, methods) {
  for (const name in methods) {
    ObjectDefineProperty(prototype, name, { __proto__: null, value: methods[name], writable: true, enumerable: false, configurable: true });
  }
}
const tag = (prototype, value) =>
  ObjectDefineProperty(prototype, SymbolToStringTag, { __proto__: null, value, writable: false, enumerable: false, configurable: true });
const disposable = (prototype, dispose) =>
  ObjectDefineProperty(prototype, SymbolDispose, { __proto__: null, value: dispose, writable: true, enumerable: false, configurable: true });

const inside = { __proto__: null };
class RpcStub {
  constructor(target) {
    const kind = typeof target;
    if ((kind !== "object" || target === null) && kind !== "function") {
      throw new TypeError("Failed to construct 'JsRpcStub': constructor parameter 1 is not of type 'Object'.");
    }
    const owner = host.requireInvocation().id;
    const number = op_rpc_own_stub(owner, exportObject(target));
    return makeStub(number, owner);
  }
  dup() {
    const state = stateOf(this);
    if (state?.type !== "stub") throw new TypeError("Illegal invocation");
    usable(state);
    return makeStub(op_rpc_dup(state.number), state.owner);
  }
}
disposable(RpcStub.prototype, function () {
  const state = stateOf(this);
  if (state?.type === "stub") release(state);
});
class RpcPromise {
  constructor(token) {
    if (token !== inside) throw new TypeError("Illegal constructor");
  }
}
class RpcProperty {
  constructor(token) {
    if (token !== inside) throw new TypeError("Illegal constructor");
  }
}
class ServiceStub {
  constructor(token) {
    if (token !== inside) throw new TypeError("Illegal constructor");
  }
  fetch(input, init = undefined) {
    const state = stateOf(this);
    if (state?.type !== "service" && state?.type !== "loopback") return PromiseReject(new TypeError("Illegal invocation"));
    try {
      const capability = reach(state);
      const { callFetch } = host.fetchApi;
      if (typeof capability === "number") return callFetch(capability, input, init);
      return PromisePrototypeThen(capability, (number) => callFetch(number, input, init));
    } catch (error) {
      return PromiseReject(error);
    }
  }
  connect(address, options = undefined) {
    const state = stateOf(this);
    if (state?.type !== "service" && state?.type !== "loopback") throw new TypeError("Illegal invocation");
    host.load("ext:atoll/sockets.js");
    const capability = reach(state);
    // What has no number yet is a worker that is still being found.
    if (typeof capability !== "number") throw new Error("Incoming CONNECT on a worker not supported");
    return host.sockets.connectThrough(capability, address, options);
  }
}
class LoopbackServiceStub {}
ObjectSetPrototypeOf(LoopbackServiceStub.prototype, ServiceStub.prototype);
for (const prototype of [RpcPromise.prototype, RpcProperty.prototype]) {
  define(prototype, {
    then(fulfilled, rejected) { return PromisePrototypeThen(promiseOf(this), fulfilled, rejected); },
    catch(rejected) { return PromisePrototypeThen(promiseOf(this), undefined, rejected); },
    finally(done) { return primordials.PromisePrototypeFinally(promiseOf(this), done); },
  });
}
disposable(RpcPromise.prototype, function () {
  const state = stateOf(this);
  if (state?.type !== "promise" || state.disposed) return;
  state.disposed = true;
  if (!state.awaited) PromisePrototypeThen(state.promise, disposeValue, () => {});
});
wildcard(RpcStub.prototype, "then");
wildcard(RpcPromise.prototype, "");
wildcard(RpcProperty.prototype, "");
wildcard(ServiceStub.prototype, "then");
tag(RpcStub.prototype, "JsRpcStub");
tag(RpcPromise.prototype, "JsRpcPromise");
tag(RpcProperty.prototype, "JsRpcProperty");
tag(ServiceStub.prototype, "Fetcher");
tag(LoopbackServiceStub.prototype, "LoopbackServiceStub");

/** A callable object without a property of its own. */
function make(prototype, state, call) {
  delete call.name;
  delete call.length;
  ObjectSetPrototypeOf(call, prototype);
  new Stamped(call, state);
  return call;
}
function makeStub(number, owner) {
  const state = { __proto__: null, type: "stub", number, owner, alive: true };
  return make(RpcStub.prototype, state, (...args) => start(state, [], args));
}
function makeProperty(base, name) {
  const from = base.type === "property" ? base : { base, path: [] };
  const path = ArrayPrototypeSlice(from.path);
  ArrayPrototypePush(path, name);
  const state = { __proto__: null, type: "property", base: from.base, path, promise: undefined };
  return make(RpcProperty.prototype, state, (...args) => start(state.base, path, args));
}
function makePromise(promise) {
  const state = { __proto__: null, type: "promise", promise: undefined, settled: false, result: undefined, disposed: false, awaited: false };
  state.promise = PromisePrototypeThen(promise, (value) => {
    state.settled = true;
    state.result = value;
    return value;
  });
  // Nobody need look at it; whoever does gets a promise of his own.
  PromisePrototypeThen(state.promise, undefined, () => {});
  return make(RpcPromise.prototype, state, (...args) => start(state, [], args));
}
function makeService(reach, dynamic) {
  const state = { __proto__: null, type: "service", reach, dynamic };
  return new Stamped(new ServiceStub(inside), state);
}
function promiseOf(value) {
  const state = stateOf(value);
  if (state?.type === "promise") {
    state.awaited = true;
    return state.promise;
  }
  if (state?.type !== "property") throw new TypeError("Illegal invocation");
  return state.promise ??= request(state.base, state.path, undefined);
}

function usable(state) {
  if (!state.alive) throw new Error("RPC stub used after being disposed.");
  if (state.owner !== host.currentId()) throw new Error(FOREIGN);
}
const FOREIGN =
  "Cannot perform I/O on behalf of a different request. I/O objects (such as streams, request/response bodies, and others) " +
  "created in the context of one request handler cannot be accessed from a different request's handler. This is a " +
  "limitation of Cloudflare Workers which allows us to improve overall performance. (I/O type: Client)";
function release(state) {
  if (!state.alive) return;
  state.alive = false;
  op_rpc_release(state.number);
}
function disposeValue(value) {
  const state = stateOf(value);
  if (state !== undefined) {
    if (state.type === "stub") release(state);
  } else if (value !== null && typeof value === "object") value[SymbolDispose]?.();
}
function reach(state) {
  if (state.type === "service") return state.reach();
  return op_rpc_own_entrypoint(host.currentId(), state.name, 0);
}

// ---- Calls --------------------------------------------------------------------------------------------------------

const start = (base, path, args) => makePromise(request(base, path, args));

/** A native promise of what a call (or a property, without `args`) gives. Never throws. */
function request(base, path, args) {
  let message = 0;
  try {
    if (path.length > PATH_MAX) throw new Error(`RPC pipelined property path is too deep (max ${PATH_MAX}).`);
    host.requireInvocation();
    if (base.type === "stub") usable(base);
    if (base.type === "promise" && base.disposed) throw new Error("RPC promise used after being disposed.");
    const packing = args === undefined ? undefined : new Packing(true);
    if (packing !== undefined) {
      message = packing.pack(args);
      if (!flag("rpc_params_dup_stubs")) packing.transfer();
    }
    if (base.type !== "promise") return send(base, path, message);
    if (base.settled) return along(base.result, path, message);
    return PromisePrototypeThen(base.promise, (result) => along(result, path, message), (error) => {
      op_rpc_drop(message);
      throw error;
    });
  } catch (error) {
    op_rpc_drop(message);
    return PromiseReject(error);
  }
}
/** Goes on through a value that came back: down its own properties, until there is a stub. */
function along(value, path, message) {
  try {
    for (let i = 0; i <= path.length; i++) {
      const state = stateOf(value);
      if (isRemote(state)) {
        const rest = ArrayPrototypeSlice(path, i);
        if (rest.length === 0 && message === 0) return PromiseResolve(value);
        if (state.type === "stub") usable(state);
        return send(state, rest, message);
      }
      if (i === path.length) break;
      if (value === null || typeof value !== "object" || !ObjectHasOwn(value, path[i])) throw remote(missing(path[i]));
      value = value[path[i]];
    }
    if (message !== 0) throw remote(new TypeError(`"${ArrayPrototypeJoin(path, ".")}" is not a function.`));
    return PromiseResolve(value);
  } catch (error) {
    op_rpc_drop(message);
    return PromiseReject(error);
  }
}
const missing = (name) => new TypeError(`The RPC receiver does not implement the method "${name}".`);
function remote(error) {
  error.remote = true;
  return error;
}
/** Sends it to a stub or a service. */
function send(state, path, message) {
  if (state.type === "stub") return answer(op_rpc_send(host.currentId(), false, state.number, path, message));
  const capability = reach(state);
  if (typeof capability === "number") return answer(op_rpc_send(host.currentId(), true, capability, path, message));
  return PromisePrototypeThen(capability, (number) => answer(op_rpc_send(host.currentId(), true, number, path, message)));
}
const answer = (number) => PromisePrototypeThen(host.waitFor(number), received);
function received(reply) {
  if (reply.rpc === undefined) {
    if (reply.threw !== undefined) throw host.fetchApi.rebuild(reply.threwName, reply.threw);
    throw new Error(reply.error);
  }
  const { value, stubs, disposer } = take(reply.rpc, false);
  if (reply.thrown) {
    if (value !== null && typeof value === "object") {
      ObjectDefineProperty(value, "remote", { __proto__: null, value: true, writable: true, enumerable: true, configurable: true });
    }
    throw value;
  }
  if (value !== null && typeof value === "object" && stateOf(value) === undefined) {
    ObjectDefineProperty(value, SymbolDispose, {
      __proto__: null,
      value: () => {
        for (let i = 0; i < stubs.length; i++) release(stubs[i]);
        if (disposer !== undefined) release(disposer);
      },
      writable: true, enumerable: false, configurable: true,
    });
  }
  return value;
}

// ---- Values that leave ----------------------------------------------------------------------------------------------

function cloneError(message) {
  const { DOMException } = host.load("ext:deno_web/01_dom_exception.js");
  return new DOMException(message, "DataCloneError");
}
const TRANSFER =
  "Entrypoints to dynamically-loaded workers cannot be transferred to other Workers, because the system does not know " +
  "how to reload this Worker from scratch. Instead, have the parent Worker expose an entrypoint which constructs the " +
  "dynamic worker and forwards to it.";
// Objects that are sent in parts.
const HEADERS = 1, REGEXP = 2, BOXED = 3, DOM_EXCEPTION = 4, REQUEST = 6, RESPONSE = 7, READABLE = 8, WRITABLE = 9, SIGNAL = 10, BLOB = 11, SANDBOXES = 12,
  SOCKET = 13;

const instance = (specifier, name, value) => {
  const prototype = host.wasLoaded(specifier)?.[name].prototype;
  return prototype !== undefined && ObjectPrototypeIsPrototypeOf(prototype, value);
};
class Packing {
  /** @param rpc whether it goes with a call: then functions become stubs, and bodies flow. */
  constructor(rpc) {
    this.rpc = rpc;
    this.caps = [];
    this.stubs = [];
    this.fresh = [];
  }
  /** The number of the written value. */
  pack(value) {
    try {
      return op_rpc_pack(host.currentId(), value, (question, value) => this.ask(question, value), this.caps, !this.rpc);
    } catch (error) {
      for (let i = 0; i < this.fresh.length; i++) forgetExport(this.fresh[i]);
      throw error;
    }
  }
  /** Stubs in the value belong to the receiver from now on. */
  transfer() {
    for (let i = 0; i < this.stubs.length; i++) release(this.stubs[i]);
  }
  ask(question, value) {
    if (question === 1) throw cloneError(value);
    if (question === 2) throw new RangeError(value);
    return this.special(value);
  }
  cap(kind, number) {
    ArrayPrototypePush(this.caps, kind, number);
    return this.caps.length / 2 - 1;
  }
  exported(value, refusal) {
    if (!this.rpc) throw cloneError(refusal);
    const number = exportObject(value);
    ArrayPrototypePush(this.fresh, number);
    return this.cap(EXPORT, number);
  }
  onlyRpc(name) {
    if (!this.rpc) throw cloneError(`${name} can only be serialized for RPC.`);
  }
  special(value) {
    const state = stateOf(value);
    if (state !== undefined) return this.remote(state);
    if (typeof value === "function") return this.exported(value, `${FunctionPrototypeToString(value)} could not be cloned.`);
    if (core.isProxy(value)) return this.exported(value, "#<Object> could not be cloned.");
    if (ObjectPrototypeIsPrototypeOf(RpcTarget.prototype, value)) {
      return this.exported(value, "Remote RPC references can only be serialized for RPC.");
    }
    if (core.isRegExp(value)) return [REGEXP, [RegExpPrototypeGetSource(value), RegExpPrototypeGetFlags(value)]];
    if (core.isBoxedPrimitive(value)) return [BOXED, unbox(value)];
    const kv = host.wasLoaded("ext:atoll/kv.js");
    if (kv?.isNamespace(value)) throw cloneError(kv.NOT_CLONED);
    return this.web(value);
  }
  remote(state) {
    switch (state.type) {
      case "stub":
        if (!this.rpc) throw cloneError("RpcStub cannot be serialized in this context because it is not a persistent stub.");
        usable(state);
        ArrayPrototypePush(this.stubs, state);
        return this.cap(STUB, state.number);
      case "service":
        if (state.dynamic) throw cloneError(TRANSFER);
        return this.cap(SERVICE, reach(state));
      case "loopback": return "LoopbackServiceStub";
      case "promise": return "RpcPromise";
      default: return "RpcProperty";
    }
  }
  web(value) {
    const { fetchApi } = host;
    if (fetchApi.isHeaders(value)) return [HEADERS, ArrayPrototypeSlice(fetchApi.listOf(value))];
    if (fetchApi.isRequest(value) || fetchApi.isResponse(value)) {
      const request = fetchApi.isRequest(value);
      const parts = fetchApi.partsOf(value);
      if (parts.body.kind !== 0) this.onlyRpc(request ? "Request with a body" : "Response with a body");
      parts.body = this.body(parts.body);
      return [request ? REQUEST : RESPONSE, parts];
    }
    if (instance("ext:deno_web/06_streams.js", "ReadableStream", value)) {
      this.onlyRpc("ReadableStream");
      if (value.locked) throw new TypeError("The ReadableStream has been locked to a reader.");
      return [READABLE, this.body(fetchApi.bodyFrom(value))];
    }
    if (instance("ext:deno_web/06_streams.js", "WritableStream", value)) {
      this.onlyRpc("WritableStream");
      if (value.locked) throw new TypeError("The WritableStream has been locked to a writer.");
      const writer = value.getWriter();
      return [WRITABLE, {
        write: (bytes) => writer.write(bytes),
        close: () => writer.close(),
        abort: (reason) => writer.abort(reason),
      }];
    }
    const socket = host.sockets?.partsOf(value);
    if (socket !== undefined) {
      this.onlyRpc("Socket");
      return [SOCKET, socket];
    }
    const sandboxes = host.wasLoaded("ext:atoll/sandbox.js")?.capabilityOf(value);
    if (sandboxes !== undefined) return [SANDBOXES, makeService(() => sandboxes, false)];
    if (instance("ext:deno_web/09_file.js", "File", value)) return "File";
    if (instance("ext:deno_web/09_file.js", "Blob", value)) {
      const { getParts } = host.load("ext:deno_web/09_file.js");
      return [BLOB, [op_rpc_blob(getParts(value)), value.type]];
    }
    if (instance("ext:deno_web/01_dom_exception.js", "DOMException", value)) {
      return [DOM_EXCEPTION, [`${value.message}`, `${value.name}`]];
    }
    if (instance("ext:deno_web/03_abort_signal.js", "AbortSignal", value)) {
      if (!flag("enable_abortsignal_rpc")) throw cloneError("AbortSignal serialization is not enabled.");
      this.onlyRpc("AbortSignal");
      if (value.aborted) return [SIGNAL, { reason: value.reason }];
      // By the time that the other side asks, it may have happened.
      const aborted = () => new primordials.Promise((resolve) => {
        if (value.aborted) resolve([value.reason]);
        else value.addEventListener("abort", () => resolve([value.reason]), { once: true });
      });
      return [SIGNAL, { aborted }];
    }
    return null;
  }
  /** A body as the index of its capability, or its bytes. */
  body(body) {
    let parts;
    try {
      parts = host.fetchApi.handOver(body);
    } catch {
      throw new TypeError("The ReadableStream has been locked to a reader.");
    }
    const { 0: kind, 1: what } = parts;
    if (kind === 0) return null;
    if (kind === 1) return typeof what === "string" ? core.encode(what) : what;
    return this.cap(BODY + kind, what);
  }
}
function unbox(value) {
  if (core.isNumberObject(value)) return NumberPrototypeValueOf(value);
  if (core.isStringObject(value)) return StringPrototypeValueOf(value);
  if (core.isBooleanObject(value)) return BooleanPrototypeValueOf(value);
  return BigIntPrototypeValueOf(value);
}

const known = { __proto__: null };
const flag = (name) => known[name] ??= op_rpc_flag(name);

// ---- Values that come -----------------------------------------------------------------------------------------------

/** Reads a value with its stubs, and the stub whose release runs its disposer. */
function take(message, parameters) {
  const owner = host.currentId();
  const given = [], stubs = [], made = [];
  const capability = (index) => {
    const at = index * 4;
    if (made[index] !== undefined) return made[index];
    switch (given[at]) {
      case STUB: {
        const stub = makeStub(given[at + 1], owner);
        ArrayPrototypePush(stubs, stateOf(stub));
        return made[index] = stub;
      }
      case SERVICE: {
        const number = given[at + 1];
        return made[index] = makeService(() => number, false);
      }
      default: throw new TypeError("The value is malformed.");
    }
  };
  const bodyAt = (parts) => {
    const { fetchApi } = host;
    if (parts === null) return fetchApi.bodyOfKind(0, null, -1);
    if (typeof parts !== "number") return fetchApi.bodyOfKind(1, parts, -1);
    const at = parts * 4;
    return fetchApi.bodyOfKind(given[at + 1], given[at + 2] ?? null, given[at + 3]);
  };
  const value = op_rpc_take(owner, message, parameters, (kind, parts) => kind === -1 ? capability(parts) : revive(kind, parts, bodyAt), given);
  // What the reader did not ask for is the disposer, or what nobody can reach.
  let disposer;
  for (let at = 0; at < given.length; at += 4) {
    if (given[at] === STUB && made[at / 4] === undefined) {
      disposer = { __proto__: null, type: "stub", number: given[at + 1], owner, alive: true };
    }
  }
  return { value, stubs, disposer };
}
function revive(kind, parts, bodyAt) {
  const { fetchApi } = host;
  switch (kind) {
    case -2: return new (globalErrors[parts[0]] ?? Error)(...(parts[0] === "AggregateError" ? [[], parts[1]] : [parts[1]]));
    case HEADERS: return fetchApi.headersFrom(parts);
    case REGEXP: return new RegExp(parts[0], parts[1]);
    case BOXED: return Object(parts);
    case DOM_EXCEPTION: {
      const { DOMException } = host.load("ext:deno_web/01_dom_exception.js");
      return new DOMException(parts[0], parts[1]);
    }
    case BLOB: {
      const { Blob } = host.load("ext:deno_web/09_file.js");
      return new Blob([parts[0]], { type: parts[1] });
    }
    case SANDBOXES: return host.load("ext:atoll/sandbox.js").makeSandboxes(capabilityOf(parts));
    case SOCKET:
      host.load("ext:atoll/sockets.js");
      return host.sockets.received(parts);
    case REQUEST:
    case RESPONSE: return fetchApi.fromParts(kind === REQUEST, parts, bodyAt(parts.body));
    case READABLE: {
      const body = bodyAt(parts);
      return fetchApi.streamOf(body.kind === 0 ? fetchApi.bodyOfKind(1, "", -1) : body);
    }
    case WRITABLE: {
      const { WritableStream } = host.load("ext:deno_web/06_streams.js");
      return new WritableStream({
        write: (chunk) => parts.write(host.fetchApi.chunkBytes(chunk)),
        close: () => parts.close(),
        abort: (reason) => parts.abort(reason),
      });
    }
    case SIGNAL: {
      const { AbortController } = host.load("ext:deno_web/03_abort_signal.js");
      const controller = new AbortController();
      if (parts.aborted === undefined) controller.abort(parts.reason);
      else PromisePrototypeThen(promiseOf(parts.aborted()), (reason) => controller.abort(reason[0]), () => {});
      return controller.signal;
    }
    default: throw new TypeError("The value is malformed.");
  }
}
const globalErrors = {
  __proto__: null, EvalError: primordials.EvalError, URIError: primordials.URIError, AggregateError: primordials.AggregateError,
};

// ---- Objects handed out -----------------------------------------------------------------------------------------------

const exported = new SafeMap(); // number -> { target, context, invocation, onRelease }
// Calls of such objects that run: by the call's number, { invocation, release }; the second lets the invocation go when nobody
// waits for the answer any more.
const served = new SafeMap();
function exportObject(target, onRelease = undefined) {
  const invocation = host.requireInvocation();
  const number = op_rpc_export(invocation.id);
  MapPrototypeSet(exported, number, { __proto__: null, target, context: getAsyncContext(), invocation, onRelease });
  return number;
}
/** A value that was not sent: its objects were never handed out. */
function forgetExport(number) {
  MapPrototypeDelete(exported, number);
}
/** Nobody holds a stub for it any more: its disposer runs. */
function onReleased(number) {
  const entry = MapPrototypeGet(exported, number);
  if (entry === undefined) return;
  MapPrototypeDelete(exported, number);
  const before = getAsyncContext();
  setAsyncContext(entry.context);
  try {
    if (entry.onRelease !== undefined) entry.onRelease();
    else if (!core.isProxy(entry.target)) {
      const dispose = entry.target[SymbolDispose];
      if (typeof dispose === "function" && stateOf(entry.target) === undefined) ReflectApply(dispose, entry.target, []);
    }
  } catch (error) {
    host.logError("Uncaught", error);
  } finally {
    setAsyncContext(before);
  }
}
/** Forgets the objects of an invocation that is over, and its calls. */
function forget(id) {
  for (const { 0: call, 1: entry } of new primordials.SafeMapIterator(served)) {
    if (entry.invocation.id === id) MapPrototypeDelete(served, call);
  }
  for (const { 0: number, 1: entry } of new primordials.SafeMapIterator(exported)) {
    if (entry.invocation.id === id) MapPrototypeDelete(exported, number);
  }
}

// ---- Calls that come ----------------------------------------------------------------------------------------------------

const RESERVED = { __proto__: null, fetch: 1, connect: 1, alarm: 1, webSocketMessage: 1, webSocketClose: 1, webSocketError: 1, dup: 1, constructor: 1 };
const RESERVED_OF_TARGETS = { __proto__: null, dup: 1, constructor: 1 };

/** A member that may be seen from outside: prototype members of classes that ask for it, own properties of plain objects. */
function member(value, name, root) {
  if ((typeof value !== "object" || value === null) && typeof value !== "function") throw missing(name);
  if (!core.isProxy(value)) {
    const entry = ObjectPrototypeIsPrototypeOf(WorkerEntrypoint.prototype, value);
    if (entry || ObjectPrototypeIsPrototypeOf(RpcTarget.prototype, value)) {
      if (name in (entry ? RESERVED : RESERVED_OF_TARGETS)) {
        throw new TypeError(`'${name}' is a reserved method and cannot be called over RPC.`);
      }
      const end = entry ? WorkerEntrypoint.prototype : RpcTarget.prototype;
      if (ObjectHasOwn(value, name)) throw missing(name);
      for (let p = ObjectGetPrototypeOf(value); p !== null && p !== end; p = ObjectGetPrototypeOf(p)) {
        if (ObjectHasOwn(p, name)) return value[name];
      }
      throw missing(name);
    }
    if (root === "handlers" && name in RESERVED) throw new TypeError(`'${name}' is a reserved method and cannot be called over RPC.`);
    const prototype = ObjectGetPrototypeOf(value);
    const plain = typeof value === "function" || prototype === ObjectPrototype || prototype === null || root === "handlers" ||
      primordials.ArrayIsArray(value);
    if (!plain) throw missing(name);
  }
  if (!ObjectHasOwn(value, name)) throw missing(name);
  return value[name];
}
const WRONG_COUNT = (name) =>
  `Attempted to call RPC function "${name}" with the wrong number of arguments. When calling a top-level handler function ` +
  "that is not declared as part of a class, you must always send exactly one argument. In order to support variable numbers " +
  "of arguments, the server must use class-based syntax (extending WorkerEntrypoint) instead.";
const WRONG_HANDLER = (name) =>
  `Cannot call handler function "${name}" over RPC because it has the wrong number of arguments. A simple function handler can ` +
  "only be called over RPC if it has exactly the arguments (arg, env, ctx), where only the first argument comes from the " +
  "client. To support multi-argument RPC functions, use class-based syntax (extending WorkerEntrypoint) instead.";

/** Finds what a call is for, and calls it. */
function perform(target, root, path, args) {
  let value = target, receiver;
  for (let i = 0; i < path.length; i++) {
    const state = stateOf(value);
    if (state !== undefined) return forward(value, ArrayPrototypeSlice(path, i), args);
    receiver = value;
    value = member(value, path[i], i === 0 ? root?.kind : undefined);
  }
  if (args === undefined) return value;
  if (stateOf(value) !== undefined) return forward(value, [], args);
  if (typeof value !== "function") throw new TypeError(`"${ArrayPrototypeJoin(path, ".")}" is not a function.`);
  if (root?.kind === "handlers" && path.length === 1) {
    if (args.length !== 1) throw new TypeError(WRONG_COUNT(path[0]));
    if (value.length > 3) throw new TypeError(WRONG_HANDLER(path[0]));
    return ReflectApply(value, receiver, [args[0], host.getEnv(), root.ctx]);
  }
  return ReflectApply(value, receiver, args);
}
/** The rest of the path lies elsewhere. */
function forward(value, path, args) {
  const state = stateOf(value);
  if (state.type === "property") {
    return request(state.base, [...new primordials.SafeArrayIterator(state.path), ...new primordials.SafeArrayIterator(path)], args);
  }
  return request(state, path, args);
}

/** Runs one call and answers it. */
async function serve(find, call, path, message) {
  let params = [], number = 0, threw = false;
  try {
    let args;
    if (message !== 0) {
      const taken = take(message, true);
      args = taken.value;
      params = taken.stubs;
    }
    const { target, root } = find();
    if (target === undefined) return;
    const result = await perform(target, root, path, args);
    number = packResult(result);
  } catch (error) {
    threw = true;
    number = packError(error);
  }
  for (let i = 0; i < params.length; i++) release(params[i]);
  op_rpc_return(call, number, threw);
}
function packResult(result) {
  const packing = new Packing(true);
  if (result !== null && typeof result === "object" && stateOf(result) === undefined && !core.isProxy(result) &&
    !ObjectPrototypeIsPrototypeOf(RpcTarget.prototype, result)) {
    const dispose = result[SymbolDispose];
    if (typeof dispose === "function") {
      const number = exportObject(dispose, () => ReflectApply(dispose, result, []));
      ArrayPrototypePush(packing.fresh, number);
      // Not among the capabilities that the bytes name.
      packing.disposer = number;
    }
  }
  const number = packing.pack(result);
  if (packing.disposer !== undefined) op_rpc_dispose_with(number, packing.disposer);
  packing.transfer();
  return number;
}
function packError(error) {
  if (typeof error !== "object" || error === null) {
    try {
      error = new Error(String(error));
    } catch {
      error = new Error("The method threw something that cannot be shown.");
    }
  }
  try {
    return new Packing(true).pack(error);
  } catch {
    // Properties that cannot be sent, or getters that throw.
    let name = "Error", message = "";
    try {
      name = `${error.name}`;
      message = `${error.message}`;
    } catch { /* then it has none */ }
    return new Packing(true).pack(host.fetchApi.rebuild(name, message));
  }
}

/**
 * Rust's calls: 0 an entrypoint's method or property, 1 one of an object that was handed out, 2 a release, 4 a call whose
 * caller is gone (3, whether a timer is set, is the prelude's).
 */
function onRpc(kind, number, call, path, message, name, props) {
  if (kind === 2) return onReleased(number);
  if (kind === 4) return MapPrototypeGet(served, number)?.release();
  if (kind === 0) {
    return host.invoke(number, (invocation) => serve(() => {
      let entry;
      try {
        entry = host.entrypoint(name, invocation, host.parseProps(props));
      } catch (error) {
        if (!host.isNoEntrypoint(error)) throw error;
        // Nothing of the worker ran: its end is the answer.
        op_invocation_failed(number, error);
        return { target: undefined };
      }
      return { target: entry.object, root: { kind: entry.isClass ? "class" : "handlers", ctx: entry.ctx } };
    }, call, path, message));
  }
  const entry = MapPrototypeGet(exported, number);
  if (entry === undefined) return op_rpc_return(call, 0, false);
  const before = getAsyncContext();
  setAsyncContext(entry.context);
  try {
    const answered = serve(() => ({ target: entry.target }), call, path, message);
    const release = entry.invocation.hold(answered);
    MapPrototypeSet(served, call, { __proto__: null, invocation: entry.invocation, release });
    PromisePrototypeThen(answered, () => MapPrototypeDelete(served, call));
  } finally {
    setAsyncContext(before);
  }
}

// ---- Entrypoints ----------------------------------------------------------------------------------------------------------

/** `ctx.exports`: the worker's own entrypoints as services. */
function exportsOf(worker) {
  const exports = {};
  for (const name of new primordials.SafeArrayIterator(ObjectKeys(worker))) {
    const value = worker[name];
    const isClass = typeof value === "function" && value.prototype !== undefined && ObjectPrototypeIsPrototypeOf(WorkerEntrypoint.prototype, value.prototype);
    if (!isClass && (typeof value !== "object" || value === null)) continue;
    const entrypoint = name === "default" ? null : name;
    const state = { __proto__: null, type: "loopback", name: entrypoint };
    const stub = make(LoopbackServiceStub.prototype, state, (options = undefined) => {
      host.requireInvocation();
      const props = options?.props === undefined ? 0 : new Packing(false).pack(options.props);
      const number = op_rpc_own_entrypoint(host.currentId(), entrypoint, props);
      return makeService(() => number, false);
    });
    ObjectDefineProperty(exports, name, { __proto__: null, value: stub, writable: true, enumerable: true, configurable: true });
  }
  return exports;
}
/** An entrypoint of a loaded worker; `ready` is its number or a promise of it. */
function dynamicEntrypoint(ready, name, options) {
  const limits = options.limits;
  const props = options.props === undefined ? 0 : new Packing(false).pack(options.props);
  let capability;
  const get = (worker) => capability ??= op_worker_entrypoint(host.currentId(), worker, name, props, limits[0], limits[1]);
  return makeService(() => typeof ready === "number" ? get(ready) : PromisePrototypeThen(ready, get), true);
}
/** What `env` and `props` of a loaded worker are made of. */
const packPlain = (value) => new Packing(false).pack(value);
/** The capability of a service, or undefined; of one of our own as it is. */
function capabilityOf(value) {
  const state = stateOf(value);
  if (state?.type === "service") {
    if (state.dynamic) throw cloneError(TRANSFER);
    return state.reach();
  }
  return state?.type === "loopback" ? reach(state) : undefined;
}

return {
  RpcStub, RpcPromise, RpcProperty, ServiceStub, makeFetcher: (number) => makeService(() => number, false), capabilityOf, exportsOf,
  isService: (value) => stateOf(value)?.type === "service" || stateOf(value)?.type === "loopback",
  dynamicEntrypoint, packPlain, onRpc, forget, take: (message) => take(message, false).value,
};
})();
