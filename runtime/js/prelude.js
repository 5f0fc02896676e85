// The prelude: the only JavaScript evaluated into the startup snapshot.
//
// What is here is paid in every isolate, so it holds only what nearly every worker needs: the loader of lazy
// scripts, the accessors behind which the rest of the web platform waits, timers, console, and dispatch.
// Everything runs before guest code and keeps its own references: `Deno`, `__bootstrap` and `core` are gone
// from the global object before the first line of guest code.
(function () {
"use strict";
let { core, primordials, internals } = globalThis.__bootstrap;
const { op_script_load, op_log, op_timer_set, op_clock_ms, op_invocation_failed, op_returned, op_settled } = core.ops;
const {
  ArrayPrototypePush,
  ArrayPrototypePop,
  JSONStringify,
  MapPrototypeDelete,
  MapPrototypeGet,
  MapPrototypeSet,
  NumberIsFinite,
  ObjectAssign,
  ObjectCreate,
  ObjectDefineProperty,
  Promise,
  PromisePrototypeThen,
  PromiseResolve,
  ReflectApply,
  SafeMap,
  String,
  Symbol,
  TypeError,
} = primordials;
const { getAsyncContext, setAsyncContext } = core;

// ---- Lazy scripts ---------------------------------------------------------------------------------------

// Deno's extension scripts and our own are functions of `__bootstrap`; they ask each other through
// `core.loadExtScript`. Ours goes through `op_script_load`, which compiles from external strings with the
// host's code cache.
const loaded = { __proto__: null };
function load(specifier) {
  const known = loaded[specifier];
  if (known !== undefined) return known;
  const script = loaded[specifier] = op_script_load(specifier, view);
  adjust[specifier]?.(script);
  return script;
}
// Where Deno's scripts need a hand before their first use.
const adjust = {
  __proto__: null,
  "ext:deno_web/15_performance.js": (script) => script.setTimeOrigin(),
  "ext:deno_crypto/00_crypto.js": (script) => {
    const { Crypto, CryptoKey, SubtleCrypto } = script;
    // Making the singletons is the last use of Deno's internal statics: one of them exports keys that must not be.
    if (script.crypto === undefined) throw new TypeError("no crypto");
    const internal = [
      [Crypto, "create"], [Crypto, "registerSymbols"], [SubtleCrypto, "create"],
      [CryptoKey, "exportNodeMaterial"], [CryptoKey, "fromCloneData"], [CryptoKey, "importSync"],
    ];
    for (let i = 0; i < internal.length; i++) delete internal[i][0][internal[i][1]];
    defineMethod(SubtleCrypto.prototype, "timingSafeEqual", function (a, b) {
      return load("ext:atoll/workers.js").timingSafeEqual(a, b);
    });
    ObjectDefineProperty(Crypto.prototype, "DigestStream", {
      __proto__: null, get: () => load("ext:atoll/workers.js").DigestStream, enumerable: true, configurable: true,
    });
  },
  // V8's serialiser sees plain objects where these are, and would make `{}` of them.
  "ext:deno_web/13_message_port.js": (script) => {
    const native = script.structuredClone;
    script.structuredClone = function structuredClone(value, options) {
      if (value !== null && typeof value === "object" && options?.transfer === undefined) {
        const isA = (specifier, name) => {
          const prototype = wasLoaded(specifier)?.[name].prototype;
          return prototype !== undefined && primordials.ObjectPrototypeIsPrototypeOf(prototype, value);
        };
        if (fetchApi.isHeaders(value)) return new fetchApi.Headers(value);
        if (wasLoaded("ext:atoll/rpc.js")?.isService(value)) {
          const { DOMException } = load("ext:deno_web/01_dom_exception.js");
          throw new DOMException("ServiceStub cannot be serialized in this context.", "DataCloneError");
        }
        const kv = wasLoaded("ext:atoll/kv.js");
        if (kv?.isNamespace(value)) {
          const { DOMException } = load("ext:deno_web/01_dom_exception.js");
          throw new DOMException(kv.NOT_CLONED, "DataCloneError");
        }
        if (
          fetchApi.isRequest(value) || fetchApi.isResponse(value) ||
          isA("ext:deno_web/02_event.js", "EventTarget") || isA("ext:deno_web/02_event.js", "Event") ||
          isA("ext:deno_crypto/00_crypto.js", "CryptoKey") || isA("ext:atoll/formdata.js", "FormData")
        ) {
          const { DOMException } = load("ext:deno_web/01_dom_exception.js");
          throw new DOMException("Could not serialize object: its type does not support serialization.", "DataCloneError");
        }
      }
      return ReflectApply(native, undefined, arguments);
    };
  },
  "ext:deno_web/02_event.js": ({ Event, EventTarget }) => {
    const { dispatchEvent } = EventTarget.prototype;
    defineMethod(EventTarget.prototype, "dispatchEvent", function (event) {
      if (arguments.length > 0 && !primordials.ObjectPrototypeIsPrototypeOf(Event.prototype, event)) {
        throw new TypeError("Failed to execute 'dispatchEvent' on 'EventTarget': parameter 1 is not of type 'Event'.");
      }
      return ReflectApply(dispatchEvent, this, arguments);
    });
  },
};
function defineMethod(prototype, name, value) {
  ObjectDefineProperty(value, "name", { __proto__: null, value: name, configurable: true });
  ObjectDefineProperty(prototype, name, { __proto__: null, value, writable: true, enumerable: true, configurable: true });
}
const view = {
  __proto__: null,
  core: { __proto__: core, loadExtScript: load },
  primordials,
  internals,
};
// Whether a script ran already: an instance of its classes can exist only then.
const wasLoaded = (specifier) => loaded[specifier];

// Errors of ops by the name of their class; Deno's bootstrap would register these.
const DOM_ERRORS = [
  "AbortError", "DataCloneError", "DataError", "EncodingError", "HierarchyRequestError", "IndexSizeError",
  "InvalidAccessError", "InvalidCharacterError", "InvalidModificationError", "InvalidStateError", "NetworkError",
  "NotAllowedError", "NotFoundError", "NotSupportedError", "OperationError", "QuotaExceededError", "ReadOnlyError",
  "SyntaxError", "TimeoutError", "TypeMismatchError", "VersionError",
];
for (let i = 0; i < DOM_ERRORS.length; i++) {
  const name = DOM_ERRORS[i];
  core.registerErrorBuilder(`DOMException${name}`, (message) => {
    const { DOMException } = load("ext:deno_web/01_dom_exception.js");
    return new DOMException(message, name);
  });
}

const lazyGlobals = {
  "ext:deno_web/00_url.js": ["URL", "URLSearchParams"],
  "ext:deno_web/01_urlpattern.js": ["URLPattern"],
  "ext:deno_web/01_dom_exception.js": ["DOMException"],
  "ext:deno_web/02_event.js": [
    "Event", "EventTarget", "CustomEvent", "ErrorEvent", "CloseEvent", "MessageEvent", "ProgressEvent",
    "PromiseRejectionEvent",
  ],
  "ext:deno_web/02_structured_clone.js": [],
  "ext:deno_web/03_abort_signal.js": ["AbortController", "AbortSignal"],
  "ext:deno_web/05_base64.js": ["atob", "btoa"],
  "ext:deno_web/06_streams.js": [
    "ByteLengthQueuingStrategy", "CountQueuingStrategy", "ReadableByteStreamController", "ReadableStream",
    "ReadableStreamBYOBReader", "ReadableStreamBYOBRequest", "ReadableStreamDefaultController",
    "ReadableStreamDefaultReader", "TransformStream", "TransformStreamDefaultController", "WritableStream",
    "WritableStreamDefaultController", "WritableStreamDefaultWriter",
  ],
  "ext:deno_web/08_text_encoding.js": ["TextDecoder", "TextDecoderStream", "TextEncoder", "TextEncoderStream"],
  "ext:deno_web/09_file.js": ["Blob", "File"],
  "ext:deno_web/13_message_port.js": ["MessageChannel", "MessagePort", "structuredClone"],
  "ext:deno_web/14_compression.js": ["CompressionStream", "DecompressionStream"],
  "ext:deno_web/15_performance.js": [
    "Performance", "PerformanceEntry", "PerformanceMark", "PerformanceMeasure", "performance",
  ],
  "ext:deno_crypto/00_crypto.js": ["Crypto", "CryptoKey", "SubtleCrypto", "crypto"],
  "ext:atoll/eventsource.js": ["EventSource"],
  "ext:atoll/formdata.js": ["FormData"],
  "ext:atoll/websocket.js": ["WebSocket", "WebSocketPair"],
  "ext:atoll/workers.js": [
    "ExtendableEvent", "FetchEvent", "FixedLengthStream", "IdentityTransformStream", "ScheduledController",
    "navigator", "scheduler",
  ],
};

function defineLazy(name, specifier, pick = (script) => script[name]) {
  const define = (value) =>
    ObjectDefineProperty(globalThis, name, { __proto__: null, value, writable: true, enumerable: false, configurable: true });
  ObjectDefineProperty(globalThis, name, {
    __proto__: null,
    get() {
      const value = pick(load(specifier));
      define(value);
      return value;
    },
    set: define,
    enumerable: false,
    configurable: true,
  });
}
for (const specifier in lazyGlobals) {
  for (let i = 0; i < lazyGlobals[specifier].length; i++) defineLazy(lazyGlobals[specifier][i], specifier);
}

function defineGlobals(values) {
  for (const name in values) {
    ObjectDefineProperty(globalThis, name, {
      __proto__: null, value: values[name], writable: true, enumerable: false, configurable: true,
    });
  }
}

/** What Node.js has as globals; `node:` modules are loaded when the first is touched. */
function defineNodeGlobals() {
  defineGlobals({ global: globalThis });
  const node = (name, module) =>
    defineLazy(name, "ext:atoll/node/modules.js", (modules) => {
      const exports = modules.load(module);
      return name in exports ? exports[name] : exports.default;
    });
  node("Buffer", "node:buffer");
  node("process", "node:process");
  if (!core.ops.op_rpc_flag("enable_nodejs_global_timers")) return;
  const timers = ["setTimeout", "setInterval", "setImmediate", "clearTimeout", "clearInterval", "clearImmediate"];
  for (let i = 0; i < timers.length; i++) defineLazy(timers[i], "ext:atoll/node/timers.js");
}

// ---- Invocations ----------------------------------------------------------------------------------------

// The invocation that code runs for travels with V8's continuation-preserved data, so that promises, timers
// and streams know on whose account they act. The mapping is Deno's AsyncVariable one, with one more key.
const kInvocation = Symbol("invocation");

class Invocation {
  id;
  waiting = 0;      // waitUntil promises not yet settled
  answered = false;
  constructor(id) {
    this.id = id;
  }
  finishIfIdle() {
    if (this.answered && this.waiting === 0) op_settled(this.id);
  }
  /** Stays open until the promise, which never rejects, is settled, or until the function that it gives is called. */
  hold(promise) {
    let held = true;
    const release = () => {
      if (!held) return;
      held = false;
      this.waiting--;
      this.finishIfIdle();
    };
    this.waiting++;
    PromisePrototypeThen(promise, release);
    return release;
  }
  waitUntil(promise) {
    this.waiting++;
    const settle = () => {
      this.waiting--;
      this.finishIfIdle();
    };
    PromisePrototypeThen(PromiseResolve(promise), settle, (error) => {
      if (traced) load("ext:atoll/tail.js").exception(this.id, error);
      logError("Uncaught (in promise)", error);
      settle();
    });
  }
}

function currentInvocation() {
  return getAsyncContext()?.[kInvocation];
}
/** The number of the current invocation; 0 while the worker starts. */
function currentId() {
  return currentInvocation()?.id ?? 0;
}

const GLOBAL_SCOPE_MESSAGE =
  "Disallowed operation called within global scope. Asynchronous I/O (ex: fetch() or connect()), setting a " +
  "timeout, and generating random values are not allowed within global scope. To fix this error, perform this " +
  "operation within a handler.  https://developers.cloudflare.com/workers/runtime-apis/handlers/";

function requireInvocation() {
  const invocation = currentInvocation();
  if (invocation === undefined) throw new primordials.Error(GLOBAL_SCOPE_MESSAGE);
  return invocation;
}

// ---- Timers ---------------------------------------------------------------------------------------------

// A binary heap by (due time, sequence); the host sleeps until the earliest. Rust calls `fireTimer` once per
// due timer and drains microtasks in between, as the HTML standard asks.
const TIMERS_MAX = 10_000;
const heap = [];
const timers = new SafeMap();
let timerSequence = 0;

const earlier = (a, b) => a.at < b.at || (a.at === b.at && a.sequence < b.sequence);
function heapPush(entry) {
  let i = heap.length;
  heap[i] = entry;
  while (i > 0) {
    const parent = (i - 1) >> 1;
    if (!earlier(entry, heap[parent])) break;
    heap[i] = heap[parent];
    i = parent;
  }
  heap[i] = entry;
}
function heapPop() {
  const top = heap[0];
  const last = ArrayPrototypePop(heap);
  const length = heap.length;
  if (length === 0) return top;
  let i = 0;
  for (;;) {
    let child = 2 * i + 1;
    if (child >= length) break;
    if (child + 1 < length && earlier(heap[child + 1], heap[child])) child++;
    if (!earlier(heap[child], last)) break;
    heap[i] = heap[child];
    i = child;
  }
  heap[i] = last;
  return top;
}
function armTimer() {
  while (heap.length > 0 && heap[0].cancelled) heapPop();
  op_timer_set(heap.length > 0 ? heap[0].at : -1);
}
// Delays are clamped as in browsers: NaN, negative and over 2^31-1 become 0.
function clampDelay(delay) {
  delay = +delay;
  return NumberIsFinite(delay) && delay >= 0 && delay <= 2147483647 ? delay : 0;
}
function addTimer(callback, delay, args, interval) {
  if (typeof callback !== "function") {
    throw new TypeError(`Failed to execute '${interval ? "setInterval" : "setTimeout"}': parameter 1 is not of type 'Function'.`);
  }
  requireInvocation();
  delay = clampDelay(delay);
  if (timers.size >= TIMERS_MAX) throw new primordials.Error("You have exceeded the number of active timers you may set.");
  const entry = {
    id: ++timerSequence, sequence: timerSequence, at: op_clock_ms() + delay, interval: interval ? delay : -1,
    callback, args, context: getAsyncContext(), cancelled: false,
  };
  MapPrototypeSet(timers, entry.id, entry);
  heapPush(entry);
  if (heap[0] === entry) op_timer_set(entry.at);
  return entry.id;
}
function clearTimer(id) {
  const entry = MapPrototypeGet(timers, +id);
  if (entry === undefined) return;
  entry.cancelled = true;
  MapPrototypeDelete(timers, entry.id);
}
function fireTimer() {
  const now = op_clock_ms();
  while (heap.length > 0 && heap[0].cancelled) heapPop();
  if (heap.length === 0 || heap[0].at > now) {
    armTimer();
    return false;
  }
  const entry = heapPop();
  if (entry.interval >= 0) {
    entry.at = now + (entry.interval < 1 ? 1 : entry.interval);
    entry.sequence = ++timerSequence;
    heapPush(entry);
  } else {
    MapPrototypeDelete(timers, entry.id);
  }
  const before = getAsyncContext();
  setAsyncContext(entry.context);
  try {
    ReflectApply(entry.callback, undefined, entry.args);
  } catch (error) {
    logError("Uncaught", error);
  } finally {
    setAsyncContext(before);
  }
  return true;
}
/** Drops every timer of an invocation that is over. */
function dropTimers(id) {
  for (let i = 0; i < heap.length; i++) {
    const entry = heap[i];
    if (!entry.cancelled && entry.context?.[kInvocation]?.id === id) {
      entry.cancelled = true;
      MapPrototypeDelete(timers, entry.id);
    }
  }
  armTimer();
}

// ---- Console --------------------------------------------------------------------------------------------

const DEBUG = 0, LOG = 1, INFO = 2, WARN = 3, ERROR = 4;

function format(args) {
  // Plain strings without directives need no formatter.
  let simple = true;
  for (let i = 0; i < args.length && simple; i++) {
    const type = typeof args[i];
    simple = (type === "string" && (i > 0 || !primordials.StringPrototypeIncludes(args[i], "%"))) ||
      type === "boolean" || type === "number";
  }
  if (simple) {
    let text = "";
    for (let i = 0; i < args.length; i++) text += (i > 0 ? " " : "") + args[i];
    return text;
  }
  return load("ext:deno_web/01_console.js").inspectArgs(args, { colors: false });
}
function log(level, args) {
  let text;
  try {
    text = format(args);
    if (indent !== "") text = indent + primordials.StringPrototypeReplaceAll(text, "\n", "\n" + indent);
  } catch {
    text = "[value that cannot be shown]";
  }
  op_log(currentId(), level, text);
}
function logError(prefix, error) {
  let text;
  try {
    text = String(error?.stack ?? error);
  } catch {
    text = "[error that cannot be shown]";
  }
  op_log(currentId(), ERROR, `${prefix} ${text}`);
}
const counts = new SafeMap();
const started = new SafeMap();
let indent = "";
// Whether somebody wants to know what this worker does.
let traced = false;
const line = (level) => (...args) => {
  log(level, args);
  if (traced) load("ext:atoll/tail.js").log(currentId(), level, args);
};
function table(data, columns) {
  let text;
  try {
    text = load("ext:atoll/workers.js").drawTable(data, columns);
  } catch { /* shown as a plain value instead */ }
  log(LOG, [text ?? data]);
}
const timing = (label, suffix) => {
  const since = MapPrototypeGet(started, label);
  if (since !== undefined) log(LOG, [`${label}: ${primordials.DateNow() - since}ms${suffix}`]);
};
const console = {
  debug: line(DEBUG), log: line(LOG), info: line(INFO), warn: line(WARN), error: line(ERROR),
  trace: (...args) => {
    const { stack } = new primordials.Error();
    const at = primordials.StringPrototypeIndexOf(stack, "\n");
    const text = format(args);
    log(DEBUG, [`Trace${text === "" ? "" : ": " + text}${at < 0 ? "" : primordials.StringPrototypeSlice(stack, at)}`]);
  },
  dir: (value) => log(LOG, [value]),
  dirxml: (...args) => log(LOG, args),
  table,
  assert: (condition, ...args) => {
    if (!condition) log(ERROR, ["Assertion failed:", format(args)]);
  },
  count: (label = "default") => {
    const n = (MapPrototypeGet(counts, `${label}`) ?? 0) + 1;
    MapPrototypeSet(counts, `${label}`, n);
    log(LOG, [`${label}: ${n}`]);
  },
  countReset: (label = "default") => void MapPrototypeDelete(counts, `${label}`),
  group: (...args) => {
    log(LOG, args);
    indent += "  ";
  },
  groupCollapsed: (...args) => console.group(...new primordials.SafeArrayIterator(args)),
  groupEnd: () => void (indent = primordials.StringPrototypeSlice(indent, 2)),
  time: (label = "default") => void MapPrototypeSet(started, `${label}`, primordials.DateNow()),
  timeLog: (label = "default", ...args) => timing(`${label}`, args.length > 0 ? " " + format(args) : ""),
  timeEnd: (label = "default") => {
    timing(`${label}`, "");
    MapPrototypeDelete(started, `${label}`);
  },
  timeStamp: () => {},
  clear: () => {},
};

// ---- Events that Rust delivers ---------------------------------------------------------------------------

// Waiters by stream or call number; Rust calls `wake(number)` when there is news.
const waiters = new SafeMap();
function waitFor(number) {
  return new Promise((resolve) => MapPrototypeSet(waiters, number, { resolve, context: getAsyncContext() }));
}
// What to do when a stream is wanted no more while nobody waits for room on it.
const pumps = new SafeMap();
function wake(number, value) {
  const waiter = MapPrototypeGet(waiters, number);
  if (waiter === undefined) {
    MapPrototypeGet(pumps, number)?.();
    return;
  }
  MapPrototypeDelete(waiters, number);
  waiter.resolve(value);
}

// ---- The worker ------------------------------------------------------------------------------------------

let worker = null; // module namespace of the main module
let env = null;
const instances = new SafeMap();

function start(namespace, environment) {
  worker = namespace;
  env = environment;
}

/** Builds `env` from (name, kind, value) triples, and says where global fetch() goes (-1: nowhere). */
function makeEnv(outbound, triples, isTraced = false) {
  traced = isTraced;
  fetchApi.setOutbound(outbound);
  if (core.ops.op_rpc_flag("nodejs_compat_v2")) defineNodeGlobals();
  // From a worker that loads this one: one value, 0 is none.
  if (typeof triples === "number") return env = rpc().take(triples) ?? {};
  const made = {};
  for (let i = 0; i < triples.length; i += 3) {
    const kind = triples[i + 1], value = triples[i + 2];
    let result;
    switch (kind) {
      case "json": result = primordials.JSONParse(value); break;
      case "data": result = value.buffer; break;
      case "fetcher": result = fetchApi.makeFetcher(value); break;
      case "sandboxes": result = load("ext:atoll/sandbox.js").makeSandboxes(value); break;
      case "kv": result = load("ext:atoll/kv.js").makeNamespace(value); break;
      case "loader": result = load("ext:atoll/loader.js").makeLoader(value); break;
      default: result = value;
    }
    ObjectDefineProperty(made, triples[i], { __proto__: null, value: result, writable: true, enumerable: true, configurable: true });
  }
  env = made; // modules may import it while they start
  return made;
}

const rpc = () => load("ext:atoll/rpc.js");
let ownExports;
/** The worker's own entrypoints, for whatever invocation asks; none while it starts. */
const getExports = () => ownExports ??= worker === null ? undefined : rpc().exportsOf(worker);

class ExecutionContext {
  #invocation;
  #exports;
  props;
  constructor(invocation, props) {
    this.#invocation = invocation;
    this.props = props;
  }
  waitUntil(promise) {
    this.#invocation.waitUntil(promise);
  }
  get exports() {
    if (!core.ops.op_rpc_flag("enable_ctx_exports")) return undefined;
    return this.#exports ??= rpc().exportsOf(worker);
  }
  passThroughOnException() {}
  abort(reason) {
    throw reason;
  }
}

// The last error about a missing entrypoint, to tell it from one that a constructor threw.
let noEntrypoint;
// Workers' entrypoints: an object with handlers, or a class constructed per invocation.
function entrypoint(name, invocation, props) {
  const exported = name === null ? worker.default : worker[name];
  if (exported === undefined || exported === null) {
    const error = new primordials.Error(name === null ? "Worker has no default entrypoint." : `Worker has no such entrypoint: ${name}`);
    noEntrypoint = error;
    throw error;
  }
  const ctx = new ExecutionContext(invocation, props ?? {});
  if (typeof exported === "function" && exported.prototype !== undefined && isEntrypointClass(exported)) {
    return { object: new exported(ctx, env), ctx, isClass: true };
  }
  return { object: exported, ctx, isClass: false };
}
function isEntrypointClass(value) {
  const workers = wasLoaded("ext:atoll/cloudflare_workers.js");
  return workers !== undefined &&
    primordials.ObjectPrototypeIsPrototypeOf(workers.WorkerEntrypoint.prototype, value.prototype);
}
function call(entry, handler, argument, missing) {
  const method = entry.object[handler];
  if (typeof method !== "function") throw new primordials.Error(missing);
  return entry.isClass
    ? ReflectApply(method, entry.object, [argument])
    : ReflectApply(method, entry.object, [argument, env, entry.ctx]);
}

/** Runs `body` as a new invocation; whatever it throws ends the invocation as a guest error. */
function invoke(id, body) {
  const invocation = new Invocation(id);
  const before = getAsyncContext();
  setAsyncContext({ __proto__: null, [kInvocation]: invocation });
  try {
    PromisePrototypeThen(body(invocation), () => {
      invocation.answered = true;
      invocation.finishIfIdle();
    }, (error) => op_invocation_failed(id, error));
  } finally {
    setAsyncContext(before);
  }
}
function onFetch(id, name, props, method, url, headers, bodyKind, body, length) {
  invoke(id, async (invocation) => {
    const entry = entrypoint(name, invocation, parseProps(props));
    const request = fetchApi.incomingRequest(method, url, headers, bodyKind, body, length);
    let response = call(entry, "fetch", request, "Handler does not export a fetch() function.");
    // A handler that answers at once needs no extra turn.
    if (!fetchApi.isResponse(response)) response = await response;
    fetchApi.respond(id, response, method);
  });
}
function onScheduled(id, name, props, cron, time) {
  invoke(id, async (invocation) => {
    const entry = entrypoint(name, invocation, parseProps(props));
    const { ScheduledController } = load("ext:atoll/workers.js");
    await call(entry, "scheduled", new ScheduledController(cron, time),
      "Handler does not export a scheduled() function.");
    op_returned(id, "null");
  });
}
function onExecute(id, input) {
  invoke(id, async (invocation) => {
    const ctx = new ExecutionContext(invocation, {});
    const value = worker.default;
    const run = typeof value === "function" ? value : value?.run;
    if (typeof run !== "function") {
      throw new TypeError("The code must export a default function, or an object with a run() function.");
    }
    const result = await ReflectApply(run, value, [primordials.JSONParse(input), env, ctx]);
    op_returned(id, JSONStringify(result) ?? "null");
  });
}
/** `ctx.props`: JSON text, the number of a message, or null. */
function parseProps(props) {
  if (typeof props === "number") return rpc().take(props);
  return props === null ? undefined : primordials.JSONParse(props);
}
/** Calls of methods, for the lazy script that knows them. */
function onRpc(kind, number, call, path, message, name, props) {
  // 3: whether a timer may bring an invocation further.
  if (kind === 3) {
    for (let i = 0; i < heap.length; i++) {
      if (!heap[i].cancelled && heap[i].context?.[kInvocation]?.id === number) return true;
    }
    return false;
  }
  // 5: a tail.
  if (kind === 5) return load("ext:atoll/tail.js").run(number, path, name, props);
  rpc().onRpc(kind, number, call, path, message, name, props);
}

/** Ends everything that runs for an invocation that is over. */
function forget(id) {
  dropTimers(id);
  wasLoaded("ext:atoll/rpc.js")?.forget(id);
  wasLoaded("ext:atoll/websocket.js")?.forget(id);
}

// ---- What the other scripts and Rust use ------------------------------------------------------------------

const host = {
  __proto__: null,
  core, primordials, load, wasLoaded, currentId, currentInvocation, requireInvocation, waitFor, logError, kInvocation,
  pumps, getEnv: () => env, getExports: () => getExports() ?? {}, wakeNow: wake, invoke, entrypoint, callHandler: call, parseProps,
  timers: { add: addTimer, clear: clearTimer }, logLine: (level, text) => op_log(currentId(), level, text), LOG, ERROR, console,
  isNoEntrypoint: (error) => error === noEntrypoint,
};
internals.atoll = host;
let fetchApi = null;
/** Keeps of Deno's `primordials` and `core` only the names that some script mentions: the rest is never used, and
 * every isolate would pay for it. Called once, before the snapshot. */
function trim(names) {
  const used = { __proto__: null };
  for (let i = 0; i < names.length; i++) used[names[i]] = true;
  const pick = (object) => {
    const picked = { __proto__: null };
    for (const key of primordials.ReflectOwnKeys(object)) if (typeof key === "symbol" || used[key]) picked[key] = object[key];
    return picked;
  };
  const kept = pick(core);
  kept.ops = pick(core.ops);
  kept.loadExtScript = load;
  core = view.core = host.core = kept;
  primordials = view.primordials = host.primordials = pick(primordials);
  host.fetchApi.trimmed();
}
host.setFetchApi = (api) => {
  fetchApi = api;
  host.fetchApi = api;
  defineGlobals({ Headers: api.Headers, Request: api.Request, Response: api.Response, fetch: api.fetch });
};

defineGlobals({
  console,
  setTimeout: function setTimeout(callback, delay = 0, ...args) {
    return addTimer(callback, delay, args, false);
  },
  setInterval: function setInterval(callback, delay = 0, ...args) {
    return addTimer(callback, delay, args, true);
  },
  setImmediate: function setImmediate(callback, ...args) {
    return addTimer(callback, 0, args, false);
  },
  clearImmediate: function clearImmediate(id) {
    clearTimer(id);
  },
  clearTimeout: function clearTimeout(id) {
    clearTimer(id);
  },
  clearInterval: function clearInterval(id) {
    clearTimer(id);
  },
  reportError: function reportError(error) {
    logError("Uncaught", error);
  },
  self: globalThis,
});

// Rust takes these before guest code runs and removes the property.
globalThis.__atoll = { onFetch, onScheduled, onExecute, makeEnv, start, wake, fireTimer, forget, load, trim, onRpc };
})();
