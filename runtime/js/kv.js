// A namespace of the key-value store: the object behind `env.KV`. A lazy script: only a worker that has one compiles it.
//
// Each method is one request on the namespace's capability, as src/bindings/kv.rs answers them. What needs no store is decided
// here: types, names of keys, what becomes of an answer.
// API and errors: https://developers.cloudflare.com/kv/api/ and workerd.
(function () {
"use strict";
const { core, primordials, internals } = __bootstrap;
const host = internals.atoll;
const { op_call } = core.ops;
const {
  ArrayBufferIsView, ArrayIsArray, ArrayPrototypeJoin, ArrayPrototypeMap, ArrayPrototypePush, DataView, Error, JSONParse, JSONStringify,
  MapPrototypeSet, MathTrunc, Map, Number, NumberIsFinite, ObjectDefineProperty, PromisePrototypeThen, PromiseReject,
  SafeSet, SafeArrayIterator, SetPrototypeAdd, SetPrototypeHas, StringPrototypeToWellFormed, SymbolToStringTag, TypeError,
  TypedArrayPrototypeSlice, encodeURIComponent, DataViewPrototypeGetUint32, TypedArrayPrototypeGetBuffer,
  TypedArrayPrototypeGetByteOffset, TypedArrayPrototypeGetByteLength,
} = primordials;
const { currentId, requireInvocation, waitFor, fetchApi } = host;

const BASE = "https://kv/";
const KEY_BYTES_MAX = 512, METADATA_BYTES_MAX = 1024, BULK_KEYS_MAX = 100;
const NOT_FOUND = 404;
// The length of what is not there, in the answer to a request for several keys.
const NONE = 0xffffffff;

const ILLEGAL =
  "Illegal invocation: function called with incorrect `this` reference. See " +
  "https://developers.cloudflare.com/workers/observability/errors/#illegal-invocation-errors for details.";
const parameter = (method, at, type) =>
  new TypeError(`Failed to execute '${method}' on 'KvNamespace': parameter ${at} is not of type '${type}'.`);
const failed = (verb, status, text) => new Error(`KV ${verb} failed: ${status} ${text}`);

// ---- What callers give ---------------------------------------------------------------------------------------------

// A symbol is none, which String() would not say.
const text = (value) => StringPrototypeToWellFormed(`${value}`);
/** An integer of 32 bits. */
function integer(value) {
  const number = Number(value);
  if (!NumberIsFinite(number)) return 0;
  const whole = MathTrunc(number);
  if (whole < -2147483648 || whole > 2147483647) {
    throw new TypeError("Value out of range. Must be between -2147483648 and 2147483647 (inclusive).");
  }
  return whole;
}
const isObject = (value) => (typeof value === "object" && value !== null) || typeof value === "function";
/** Options, or none. */
function optionsOf(method, at, type, value) {
  if (value === undefined || value === null) return { __proto__: null };
  if (!isObject(value)) throw parameter(method, at, type);
  return value;
}
function checkKey(verb, key) {
  if (key === "") throw new TypeError("Key name cannot be empty.");
  if (key === "." || key === "..") throw new TypeError(`"${key}" is not allowed as a key name.`);
  const length = TypedArrayPrototypeGetByteLength(core.encode(key));
  if (length > KEY_BYTES_MAX) {
    throw failed(verb, 414, `UTF-8 encoded length of ${length} exceeds key length limit of ${KEY_BYTES_MAX}.`);
  }
}
/** The type and the cache's time to live that a read asks for. */
function readOptions(options) {
  if (options === undefined || options === null) return { __proto__: null };
  if (!isObject(options)) return { __proto__: null, type: text(options) };
  const { type, cacheTtl } = options;
  return {
    __proto__: null,
    type: type === undefined ? undefined : text(type),
    cacheTtl: cacheTtl === undefined ? undefined : integer(cacheTtl),
  };
}
/** The value of a put as a body. */
function bodyOf(value) {
  const refuse = () => {
    throw new TypeError("KV put() accepts only strings, ArrayBuffers, ArrayBufferViews, and ReadableStreams as values.");
  };
  if (!isObject(value)) return fetchApi.extract(text(value))[0];
  if (ArrayBufferIsView(value) || core.isAnyArrayBuffer(value)) return fetchApi.extract(value)[0];
  if (!fetchApi.isStream(value)) refuse();
  if (value.locked) throw new TypeError("The ReadableStream has been locked to a reader.");
  return fetchApi.extract(value)[0];
}

// ---- Requests --------------------------------------------------------------------------------------------------------

/** Sends one request: the reply's head with its body. */
async function send(capability, method, url, headers, body) {
  requireInvocation();
  let source;
  const { 0: kind, 1: what, 2: length } = fetchApi.handOver(body, (error) => source = { __proto__: null, error });
  const number = op_call(currentId(), capability, method, url, headers, kind, what, length, "manual");
  const reply = await waitFor(number);
  const failure = fetchApi.failureOf(reply);
  // A stream that broke off: its own error says more than that it did.
  if (failure !== undefined) throw source === undefined ? failure : source.error;
  return { __proto__: null, status: reply.status, text: reply.statusText, headers: reply.headers, body: fetchApi.bodyOfKind(reply.bodyKind, reply.body, reply.length) };
}
const nothing = () => fetchApi.bodyOfKind(0, null, -1);
function require200(verb, reply) {
  if (reply.status !== 200) throw failed(verb, reply.status, reply.text);
}
function query(pairs) {
  const parts = [];
  for (let i = 0; i < pairs.length; i += 2) {
    if (pairs[i + 1] !== undefined) ArrayPrototypePush(parts, `${pairs[i]}=${encodeURIComponent(pairs[i + 1])}`);
  }
  return parts.length === 0 ? "" : `?${ArrayPrototypeJoin(parts, "&")}`;
}
function header(headers, name) {
  for (let i = 0; i < headers.length; i += 2) if (headers[i] === name) return headers[i + 1];
}

async function read(capability, key, { type, cacheTtl }) {
  checkKey("GET", key);
  const reply = await send(capability, "GET", BASE + encodeURIComponent(key) + query(["cache_ttl", cacheTtl]), [], nothing());
  if (reply.status === NOT_FOUND) return { value: null, metadata: null, cacheStatus: null };
  require200("GET", reply);
  const value = await convert(reply.body, type ?? "text");
  const metadata = header(reply.headers, "cf-kv-metadata");
  return { value, metadata: metadata === undefined ? null : JSONParse(metadata), cacheStatus: null };
}
async function convert(body, type) {
  switch (type) {
    // An empty value is a stream that ends at once.
    case "stream": return fetchApi.streamOf(body.kind === 0 ? fetchApi.bodyOfKind(1, "", -1) : body);
    case "text": return fetchApi.toText(await fetchApi.consume(body));
    case "arrayBuffer": return fetchApi.toBuffer(await fetchApi.consume(body));
    case "json": return JSONParse(fetchApi.toText(await fetchApi.consume(body)));
    default:
      throw new TypeError('Unknown response type. Possible types are "text", "arrayBuffer", "json", and "stream".');
  }
}

async function readAll(capability, keys, { type, cacheTtl }, withMetadata) {
  const refuse = (text) => failed("GET_BULK", 400, text);
  if (type !== undefined && type !== "" && type !== "text" && type !== "json") throw refuse(`"${type}" is not a valid type. Use "json" or "text"`);
  if (keys.length > BULK_KEYS_MAX) throw refuse(`You can request a maximum of ${BULK_KEYS_MAX} keys`);
  if (keys.length === 0) throw refuse("You must request a minimum of 1 key");
  const names = [], seen = new SafeSet();
  for (let i = 0; i < keys.length; i++) {
    if (SetPrototypeHas(seen, keys[i])) continue;
    SetPrototypeAdd(seen, keys[i]);
    ArrayPrototypePush(names, keys[i]);
  }
  const body = fetchApi.bodyOfKind(1, JSONStringify(names), -1);
  const reply = await send(capability, "POST", `${BASE}bulk/get${query(["cache_ttl", cacheTtl])}`, [], body);
  require200("GET_BULK", reply);
  const bytes = fetchApi.toBytes(await fetchApi.consume(reply.body));
  const view = new DataView(TypedArrayPrototypeGetBuffer(bytes), TypedArrayPrototypeGetByteOffset(bytes), TypedArrayPrototypeGetByteLength(bytes));
  let at = 0;
  const take = (length) => fetchApi.toText(TypedArrayPrototypeSlice(bytes, at, at += length));
  const found = new Map();
  for (let i = 0; i < names.length; i++) {
    const length = DataViewPrototypeGetUint32(view, at, true), metadataLength = DataViewPrototypeGetUint32(view, at + 4, true);
    at += 8;
    if (length === NONE) {
      MapPrototypeSet(found, names[i], null);
      continue;
    }
    let value = take(length);
    const metadata = metadataLength === NONE ? null : JSONParse(take(metadataLength));
    try {
      if (type === "json") value = JSONParse(value);
    } catch {
      throw refuse("At least one of the requested keys corresponds to a non-json value");
    }
    MapPrototypeSet(found, names[i], withMetadata ? { value, metadata } : value);
  }
  return found;
}

async function write(capability, key, value, options) {
  checkKey("PUT", key);
  const { expiration, expirationTtl, metadata } = options;
  const url = BASE + encodeURIComponent(key) + query([
    "expiration", expiration === undefined ? undefined : integer(expiration),
    "expiration_ttl", expirationTtl === undefined ? undefined : integer(expirationTtl),
  ]);
  const headers = [];
  const json = metadata === undefined || metadata === null ? undefined : JSONStringify(metadata);
  if (json !== undefined) {
    const length = TypedArrayPrototypeGetByteLength(core.encode(json));
    if (length > METADATA_BYTES_MAX) throw failed("PUT", 413, `Metadata length of ${length} exceeds limit of ${METADATA_BYTES_MAX}.`);
    ArrayPrototypePush(headers, "cf-kv-metadata", json);
  }
  require200("PUT", await send(capability, "PUT", url, headers, bodyOf(value)));
}

async function list(capability, options) {
  const { limit, prefix, cursor } = options;
  const count = limit === undefined ? 0 : integer(limit);
  const given = (value) => value === undefined || value === null ? undefined : text(value);
  const reply = await send(capability, "GET", BASE + query([
    "key_count_limit", count > 0 ? count : undefined, "prefix", given(prefix), "cursor", given(cursor),
  ]), [], nothing());
  require200("GET", reply);
  const page = JSONParse(fetchApi.toText(await fetchApi.consume(reply.body)));
  for (const key of new SafeArrayIterator(page.keys)) {
    if (typeof key.metadata === "string") key.metadata = JSONParse(key.metadata);
  }
  page.cacheStatus = null;
  return page;
}

// ---- The object --------------------------------------------------------------------------------------------------------

const inside = { __proto__: null };
let capabilityOf;
class KvNamespace {
  #capability;
  constructor() {
    if (arguments[0] !== inside) throw new TypeError("Illegal constructor");
    this.#capability = arguments[1];
  }
  static {
    capabilityOf = (value) => isObject(value) && #capability in value ? value.#capability : undefined;
  }
}
function own(receiver) {
  const capability = capabilityOf(receiver);
  if (capability === undefined) throw new TypeError(ILLEGAL);
  return capability;
}
/** Errors of what is given to these reject, as those of the store do. */
function rejecting(run) {
  try {
    return run();
  } catch (error) {
    return PromiseReject(error);
  }
}
function reading(method, types, single, withMetadata) {
  return function (...args) {
    const capability = own(this);
    if (args.length === 0) throw parameter(method, 1, types);
    const key = args[0];
    if (ArrayIsArray(key)) {
      const keys = ArrayPrototypeMap(key, text);
      return readAll(capability, keys, readOptions(args[1]), withMetadata);
    }
    const name = text(key), options = readOptions(args[1]);
    // As in workerd, where only get() turns what it throws into a rejection.
    if (withMetadata) checkKey("GET", name);
    return single(read(capability, name, options));
  };
}
const methods = {
  __proto__: null,
  get: reading("get", "string or Array", (found) => PromisePrototypeThen(found, (entry) => entry.value), false),
  list(...args) {
    const capability = own(this);
    return rejecting(() => list(capability, optionsOf("list", 1, "ListOptions", args[0])));
  },
  put(...args) {
    const capability = own(this);
    return rejecting(() => {
      if (args.length === 0) throw parameter("put", 1, "string");
      if (args.length === 1) throw parameter("put", 2, "string or Object");
      const key = text(args[0]);
      const value = isObject(args[1]) ? args[1] : text(args[1]);
      return write(capability, key, value, optionsOf("put", 3, "PutOptions", args[2]));
    });
  },
  getWithMetadata: reading("getWithMetadata", "Array or string", (found) => found, true),
  delete(...args) {
    const capability = own(this);
    return rejecting(async () => {
      if (args.length === 0) throw parameter("delete", 1, "string");
      const key = text(args[0]);
      checkKey("DELETE", key);
      require200("DELETE", await send(capability, "DELETE", BASE + encodeURIComponent(key), [], nothing()));
    });
  },
};
for (const name in methods) {
  ObjectDefineProperty(methods[name], "name", { __proto__: null, value: name, configurable: true });
  ObjectDefineProperty(KvNamespace.prototype, name, { __proto__: null, value: methods[name], writable: true, enumerable: true, configurable: true });
}
ObjectDefineProperty(KvNamespace.prototype, SymbolToStringTag, { __proto__: null, value: "KvNamespace", writable: true, enumerable: false, configurable: true });

return {
  KvNamespace, makeNamespace: (capability) => new KvNamespace(inside, capability),
  isNamespace: (value) => capabilityOf(value) !== undefined, NOT_CLONED: "A KV namespace binding cannot be serialized.",
};
})();
