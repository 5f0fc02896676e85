// Tails: what a loaded worker's invocation did, as an array of one trace item, for those that `tails` of its code names.
//
//  the tailed worker's isolate: console ─▶ op_trace_log, a rejected waitUntil ─▶ op_trace_exception ─▶ Rust ─▶ JSON
//  the tail's isolate:          JSON ─▶ TraceItem ─▶ tail(events)
//
// https://developers.cloudflare.com/workers/runtime-apis/handlers/tail/
(function () {
"use strict";
const { core, primordials, internals } = __bootstrap;
const host = internals.atoll;
const { op_trace_log, op_trace_exception } = core.ops;
const {
  ArrayIsArray, ArrayPrototypePush, Error, JSONParse, JSONStringify, ObjectCreate, ObjectDefineProperty, ObjectGetPrototypeOf,
  ObjectKeys, ObjectPrototype, SafeArrayIterator, String, StringPrototypeCharCodeAt, StringPrototypeIncludes, StringPrototypeSlice,
  SymbolToStringTag,
} = primordials;

// ---- What happened ------------------------------------------------------------------------------------------------------

/** One argument of console.log as JSON: data as it is, everything else as its text. */
function jsonOf(value) {
  const type = typeof value;
  let data = value === null || type === "number" || type === "boolean" || type === "string" || type === "undefined" || ArrayIsArray(value);
  if (!data && type === "object") {
    const prototype = ObjectGetPrototypeOf(value);
    data = prototype === ObjectPrototype || prototype === null || typeof value.toJSON === "function";
  }
  // A symbol has no text that Workers would show either.
  if (type === "symbol") return "{}";
  return (data ? JSONStringify(value) : JSONStringify(String(value))) ?? "null";
}
function log(id, level, args) {
  let message = "", info = "", errors = false;
  for (let i = 0; i < args.length; i++) {
    let json = "null", error = "null";
    try {
      json = jsonOf(args[i]);
      if (core.isNativeError(args[i])) {
        errors = true;
        error = JSONStringify({ name: `${args[i].name}`, message: `${args[i].message}`, stack: frames(args[i].stack) });
      }
    } catch { /* what cannot be shown is null */ }
    message += (i > 0 ? "," : "") + json;
    info += (i > 0 ? "," : "") + error;
  }
  op_trace_log(id, level, `[${message}]`, errors ? `[${info}]` : "");
}
/** A promise of `waitUntil` was rejected. */
function exception(id, error) {
  let name = "Error", message = "", stack;
  try {
    name = `${error.name}`;
    message = `${error.message}`;
    stack = `${error.stack}`;
  } catch { /* then it has none */ }
  op_trace_exception(id, name, message, stack ?? "");
}
/** A stack without the line that repeats the message. */
function frames(stack) {
  const text = `${stack}`;
  const at = primordials.StringPrototypeIndexOf(text, "    at ");
  return at < 0 ? "" : StringPrototypeSlice(text, at);
}

// ---- What a tail sees -----------------------------------------------------------------------------------------------------

const kind = (name) => {
  const prototype = {};
  ObjectDefineProperty(prototype, SymbolToStringTag, { __proto__: null, value: name, configurable: true });
  return prototype;
};
const Item = kind("TraceItem"), FetchEvent = kind("FetchEventInfo"), Request = kind("Request"), Response = kind("Response");
const Rpc = kind("JsRpcEventInfo"), Log = kind("TraceLog"), Exception = kind("TraceException");
const made = (prototype, values) => {
  const object = ObjectCreate(prototype);
  for (const key of new SafeArrayIterator(ObjectKeys(values))) {
    ObjectDefineProperty(object, key, { __proto__: null, value: values[key], writable: false, enumerable: true, configurable: true });
  }
  return object;
};
const unredacted = new primordials.SafeWeakMap();
ObjectDefineProperty(Request, "getUnredacted", {
  __proto__: null, writable: true, enumerable: false, configurable: true,
  value: function getUnredacted() {
    const raw = primordials.WeakMapPrototypeGet(unredacted, this);
    if (raw === undefined) throw new primordials.TypeError("Illegal invocation");
    return requestOf(raw, false);
  },
});

const SENSITIVE = ["auth", "jwt", "key", "secret", "token"];
function isSensitive(name) {
  if (name === "cookie" || name === "set-cookie") return true;
  for (let i = 0; i < SENSITIVE.length; i++) if (StringPrototypeIncludes(name, SENSITIVE[i])) return true;
  return false;
}
/** Hides what looks like a key: 32 hexadecimal digits and more, or 21 characters that mix cases and digits. */
function redactUrl(url) {
  let out = "", start = 0, digits = 0, upper = 0, lower = 0, hex = 0, onlyHex = true;
  const end = (at) => {
    const secret = (hex >= 32 && onlyHex) || (at - start >= 21 && digits >= 2 && upper >= 2 && lower >= 2);
    out += secret ? "REDACTED" : StringPrototypeSlice(url, start, at);
    digits = upper = lower = hex = 0;
    onlyHex = true;
  };
  for (let i = 0; i < url.length; i++) {
    const c = StringPrototypeCharCodeAt(url, i);
    const isUpper = c >= 65 && c <= 90, isLower = c >= 97 && c <= 122, isDigit = c >= 48 && c <= 57;
    const separates = c === 43 || c === 45 || c === 95; // + - _
    if (!isUpper && !isLower && !isDigit && !separates) {
      end(i);
      out += url[i];
      start = i + 1;
      continue;
    }
    if (isUpper) upper++;
    if (isLower) lower++;
    if (isDigit) digits++;
    if (isDigit || (c >= 65 && c <= 70) || (c >= 97 && c <= 102)) hex++;
    else if (!separates) onlyHex = false;
  }
  end(url.length);
  return out;
}
function requestOf(raw, redacted) {
  const headers = {};
  for (let i = 0; i < raw.headers.length; i += 2) {
    const name = raw.headers[i];
    const value = redacted && isSensitive(name) ? "REDACTED" : raw.headers[i + 1];
    ObjectDefineProperty(headers, name, { __proto__: null, value, writable: true, enumerable: true, configurable: true });
  }
  const request = made(Request, { url: redacted ? redactUrl(raw.url) : raw.url, method: raw.method, headers, cf: undefined });
  primordials.WeakMapPrototypeSet(unredacted, request, raw);
  return request;
}
function eventOf(raw) {
  if (raw === null) return null;
  if (raw.rpcMethod !== undefined) return made(Rpc, { rpcMethod: raw.rpcMethod });
  return made(FetchEvent, {
    request: requestOf(raw, true),
    response: raw.status === null ? undefined : made(Response, { status: raw.status }),
  });
}
function itemOf(raw) {
  const each = (list, one) => {
    const out = [];
    for (let i = 0; i < list.length; i++) ArrayPrototypePush(out, one(list[i]));
    return out;
  };
  return made(Item, {
    wallTime: raw.wallTime,
    cpuTime: raw.cpuTime,
    truncated: raw.truncated,
    executionModel: "stateless",
    outcome: raw.outcome,
    durableObjectId: undefined,
    preview: undefined,
    tailAttributes: undefined,
    scriptTags: undefined,
    dispatchNamespace: undefined,
    scriptVersion: undefined,
    entrypoint: raw.entrypoint ?? undefined,
    scriptName: null,
    diagnosticsChannelEvents: [],
    exceptions: each(raw.exceptions, (one) => made(Exception, { stack: frames(one.stack) || undefined, name: one.name, message: one.message, timestamp: one.timestamp })),
    logs: each(raw.logs, (one) => made(Log, {
      errorInfo: one.errorInfo === "" ? undefined : JSONParse(one.errorInfo),
      message: JSONParse(one.message),
      level: one.level,
      timestamp: one.timestamp,
    })),
    eventTimestamp: raw.eventTimestamp,
    event: eventOf(raw.event),
  });
}
/** Calls `tail` of an entrypoint; what it throws ends this invocation alone. */
function run(id, json, name, props) {
  host.invoke(id, async (invocation) => {
    const entry = host.entrypoint(name, invocation, host.parseProps(props));
    await host.callHandler(entry, "tail", [itemOf(JSONParse(json))],
      "Attempted to send events but we lack a handler, did you remember to export a tail() function?");
  });
}
return { log, exception, run };
})();
