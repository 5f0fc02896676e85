// Headers, Request, Response and fetch(), in the startup snapshot.
//
// Bodies have a fast path that needs no streams: a body is a string, bytes, or a stream that still lies in Rust
// ("native"), until someone asks for `.body`. Only then are Deno's streams loaded.
// Standard: https://fetch.spec.whatwg.org/ ; where Workers differ, Workers win:
// https://developers.cloudflare.com/workers/runtime-apis/fetch/
(function () {
"use strict";
let { core, primordials, internals } = globalThis.__bootstrap;
const host = internals.atoll;
const { load, wasLoaded, currentId, waitFor, requireInvocation } = host;
const {
  op_body_open, op_body_read, op_body_stop, op_body_write, op_body_end, op_body_abort, op_call, op_call_cancel,
  op_respond, op_utf8_decode, op_url_parse_href,
} = core.ops;
const {
  ArrayBuffer, ArrayBufferIsView, ArrayPrototypeJoin, ArrayPrototypePush, ArrayPrototypeSort, JSONParse, JSONStringify,
  ObjectDefineProperties, ObjectPrototypeIsPrototypeOf, Promise, PromisePrototypeThen, PromiseReject, PromiseResolve,
  RangeError, RegExpPrototypeTest, SafeArrayIterator, String, StringPrototypeToLowerCase, StringPrototypeToUpperCase,
  SymbolIterator, SymbolToStringTag, TypeError, TypedArrayPrototypeGetByteLength, TypedArrayPrototypeSet,
  TypedArrayPrototypeSlice, Uint8Array, StringPrototypeCharCodeAt, StringPrototypeIndexOf, StringPrototypeSplit,
  StringPrototypeStartsWith, StringPrototypeTrim, StringPrototypeReplace, StringPrototypeSlice,
} = primordials;

const EMPTY = 0, BYTES = 1, NATIVE = 2, STREAM = 3;

// ---- Headers ---------------------------------------------------------------------------------------------

const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
// Values are UTF-8 on the wire, as in Workers, so letters beyond latin-1 pass.
const BAD_VALUE = /[\0\r\n]/;

function headerName(name) {
  name = String(name);
  if (!RegExpPrototypeTest(TOKEN, name)) throw new TypeError(`Invalid header name: ${name}`);
  return StringPrototypeToLowerCase(name);
}
function headerValue(value) {
  value = String(value);
  // Leading and trailing HTTP whitespace goes (Fetch, "normalize").
  const first = StringPrototypeCharCodeAt(value, 0), last = StringPrototypeCharCodeAt(value, value.length - 1);
  if (first <= 32 || last <= 32) value = StringPrototypeReplace(value, /^[\t\n\r ]+|[\t\n\r ]+$/g, "");
  if (RegExpPrototypeTest(BAD_VALUE, value)) throw new TypeError("Invalid header value.");
  return value;
}

let listOf; // Headers -> flat array: name, value, name, value...
let setList;
let makeImmutable;
class Headers {
  #list = [];
  #immutable = false;
  static {
    listOf = (headers) => headers.#list;
    setList = (headers, list) => {
      headers.#list = list;
      return headers;
    };
    makeImmutable = (headers) => {
      headers.#immutable = true;
      return headers;
    };
  }
  constructor(init = undefined) {
    if (init === undefined) return;
    if (init === null || typeof init !== "object" && typeof init !== "function") {
      throw new TypeError("Failed to construct 'Headers': The provided value is not of type '(sequence<sequence<ByteString>> or record<ByteString, ByteString>)'.");
    }
    if (ObjectPrototypeIsPrototypeOf(HeadersPrototype, init) && init[SymbolIterator] === iterate) {
      this.#list = primordials.ArrayPrototypeSlice(listOf(init));
      return;
    }
    const iterator = init[SymbolIterator];
    if (iterator !== undefined && iterator !== null) {
      for (const pair of init) {
        const entry = [...pair];
        if (entry.length !== 2) throw new TypeError("Sequence initializer must only contain pair elements.");
        this.append(entry[0], entry[1]);
      }
    } else {
      const keys = primordials.ReflectOwnKeys(init);
      for (let i = 0; i < keys.length; i++) {
        const descriptor = primordials.ReflectGetOwnPropertyDescriptor(init, keys[i]);
        if (descriptor?.enumerable) this.append(keys[i], init[keys[i]]);
      }
    }
  }
  #mutate() {
    if (this.#immutable) throw new TypeError("Can't modify immutable headers.");
  }
  append(name, value) {
    this.#mutate();
    name = headerName(name);
    value = headerValue(value);
    ArrayPrototypePush(this.#list, name, value);
  }
  delete(name) {
    this.#mutate();
    name = headerName(name);
    const list = this.#list, kept = [];
    for (let i = 0; i < list.length; i += 2) if (list[i] !== name) ArrayPrototypePush(kept, list[i], list[i + 1]);
    this.#list = kept;
  }
  get(name) {
    name = headerName(name);
    let value = null;
    const list = this.#list;
    for (let i = 0; i < list.length; i += 2) if (list[i] === name) value = value === null ? list[i + 1] : value + ", " + list[i + 1];
    return value;
  }
  getAll(name) {
    if (headerName(name) !== "set-cookie") throw new TypeError("getAll() can only be used with the header name \"Set-Cookie\".");
    return this.getSetCookie();
  }
  getSetCookie() {
    const values = [], list = this.#list;
    for (let i = 0; i < list.length; i += 2) if (list[i] === "set-cookie") ArrayPrototypePush(values, list[i + 1]);
    return values;
  }
  has(name) {
    name = headerName(name);
    const list = this.#list;
    for (let i = 0; i < list.length; i += 2) if (list[i] === name) return true;
    return false;
  }
  set(name, value) {
    this.#mutate();
    name = headerName(name);
    value = headerValue(value);
    const list = this.#list, kept = [];
    let done = false;
    for (let i = 0; i < list.length; i += 2) {
      if (list[i] !== name) ArrayPrototypePush(kept, list[i], list[i + 1]);
      else if (!done) {
        ArrayPrototypePush(kept, name, value);
        done = true;
      }
    }
    if (!done) ArrayPrototypePush(kept, name, value);
    this.#list = kept;
  }
  get [SymbolToStringTag]() { return "Headers"; }
  // Sorted by name, values of one name combined; set-cookie stays apart (Fetch, "sort and combine").
  #sorted() {
    const list = this.#list, entries = [], byName = { __proto__: null };
    for (let i = 0; i < list.length; i += 2) {
      const name = list[i], value = list[i + 1];
      if (name === "set-cookie") ArrayPrototypePush(entries, [name, value, i]);
      else if (byName[name] !== undefined) byName[name][1] += ", " + value;
      else ArrayPrototypePush(entries, byName[name] = [name, value, i]);
    }
    return ArrayPrototypeSort(entries, (a, b) => a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : a[2] - b[2]);
  }
  forEach(callback, thisArg = undefined) {
    if (typeof callback !== "function") throw new TypeError("Failed to execute 'forEach' on 'Headers': parameter 1 is not of type 'Function'.");
    const entries = this.#sorted();
    for (let i = 0; i < entries.length; i++) primordials.ReflectApply(callback, thisArg, [entries[i][1], entries[i][0], this]);
  }
  // Each asks for the list at once: what is no Headers is refused when it is called, not when it is read.
  keys() {
    return this.#list && this.#each((entry) => entry[0]);
  }
  values() {
    return this.#list && this.#each((entry) => entry[1]);
  }
  entries() {
    return this.#list && this.#each((entry) => [entry[0], entry[1]]);
  }
  *#each(part) {
    for (const entry of new SafeArrayIterator(this.#sorted())) yield part(entry);
  }
  [primordials.SymbolFor("Deno.privateCustomInspect")](inspect, options) {
    const object = {};
    const entries = this.#sorted();
    for (let i = 0; i < entries.length; i++) object[entries[i][0]] = entries[i][1];
    return `Headers ${inspect(object, options)}`;
  }
}
const HeadersPrototype = Headers.prototype;
const iterate = HeadersPrototype.entries;
primordials.ObjectDefineProperty(HeadersPrototype, SymbolIterator, { __proto__: null, value: iterate, writable: true, enumerable: false, configurable: true });

function hasContentType(list) {
  for (let i = 0; i < list.length; i += 2) if (list[i] === "content-type") return true;
  return false;
}
const headersFrom = (flat) => setList(new Headers(), flat);

// ---- Bodies ----------------------------------------------------------------------------------------------

/** A body in one of its forms; `used` once something consumed or took it. */
class Body {
  kind;    // EMPTY, BYTES (a string or Uint8Array), NATIVE (a number), STREAM (a ReadableStream)
  source;
  used = false;
  length;  // declared length of a stream, or -1
  constructor(kind, source, length = -1) {
    this.kind = kind;
    this.source = source;
    this.length = length;
  }
}
const noBody = () => new Body(EMPTY, null);

const streams = () => load("ext:deno_web/06_streams.js");
const instanceOf = (script, name, value) => {
  const module = wasLoaded(script);
  return module !== undefined && ObjectPrototypeIsPrototypeOf(module[name].prototype, value);
};
const isStream = (value) => instanceOf("ext:deno_web/06_streams.js", "ReadableStream", value);
const isBlob = (value) => instanceOf("ext:deno_web/09_file.js", "Blob", value);
const isFormData = (value) => instanceOf("ext:atoll/formdata.js", "FormData", value);
const isSearchParams = (value) => instanceOf("ext:deno_web/00_url.js", "URLSearchParams", value);

function copyBytes(value) {
  if (ArrayBufferIsView(value)) {
    return TypedArrayPrototypeSlice(new Uint8Array(value.buffer, value.byteOffset, value.byteLength));
  }
  return TypedArrayPrototypeSlice(new Uint8Array(value));
}

/** What the Fetch standard calls "extract a body": [Body, content type or null]. */
function extract(value) {
  if (value === null || value === undefined) return [noBody(), null];
  if (typeof value === "string") return [new Body(BYTES, value), "text/plain;charset=UTF-8"];
  if (typeof value === "object") {
    if (ArrayBufferIsView(value) || core.isAnyArrayBuffer(value)) return [new Body(BYTES, copyBytes(value)), null];
    if (isStream(value)) {
      if (value.locked || streams().isReadableStreamDisturbed(value)) {
        throw new TypeError("This ReadableStream is disturbed (has already been read from), and cannot be used as a body.");
      }
      const fixed = wasLoaded("ext:atoll/workers.js")?.fixedLength(value);
      return [new Body(STREAM, value, fixed ?? -1), null];
    }
    if (isSearchParams(value)) return [new Body(BYTES, value.toString()), "application/x-www-form-urlencoded;charset=UTF-8"];
    if (isBlob(value)) return [new Body(STREAM, value.stream(), value.size), value.type || null];
    if (isFormData(value)) {
      const { blob, type } = load("ext:atoll/formdata.js").encode(value);
      return [new Body(STREAM, blob.stream(), blob.size), type];
    }
  }
  return [new Body(BYTES, String(value)), "text/plain;charset=UTF-8"];
}

function assertUsable(body) {
  if (isUsed(body)) {
    throw new TypeError("Body has already been used. It can only be used once. Use tee() first if you need to read it twice.");
  }
  if (body.kind === STREAM && body.source.locked) {
    throw new TypeError("This ReadableStream is currently locked to a reader.");
  }
}
const isUsed = (body) => body.used || (body.kind === STREAM && streams().isReadableStreamDisturbed(body.source));

function concat(chunks, length) {
  if (chunks.length === 1) return chunks[0];
  const all = new Uint8Array(length);
  let at = 0;
  for (let i = 0; i < chunks.length; i++) {
    TypedArrayPrototypeSet(all, chunks[i], at);
    at += chunks[i].byteLength;
  }
  return all;
}

async function readNative(number) {
  const chunks = [];
  let length = 0;
  for (;;) {
    const chunk = op_body_read(number);
    if (chunk === undefined) await waitFor(number);
    else if (chunk === null) return concat(chunks, length);
    else {
      ArrayPrototypePush(chunks, chunk);
      length += chunk.byteLength;
    }
  }
}
function chunkBytes(chunk) {
  if (ArrayBufferIsView(chunk)) return new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.byteLength);
  if (core.isAnyArrayBuffer(chunk)) return new Uint8Array(chunk);
  throw new TypeError(typeof chunk === "string"
    ? "This TransformStream is being used as a byte stream, but received a string on its writable side. If you wish to write a string, you'll probably want to explicitly UTF-8-encode it with TextEncoder."
    : "This TransformStream is being used as a byte stream, but received an object of non-ArrayBuffer/ArrayBufferView type on its writable side.");
}
/** What a stream that is a body gave: bytes, or it is no body. */
function bodyBytes(chunk) {
  if (ArrayBufferIsView(chunk) || core.isAnyArrayBuffer(chunk)) return chunkBytes(chunk);
  throw new TypeError("This ReadableStream did not return bytes.");
}
async function readStream(stream) {
  const reader = stream.getReader();
  const chunks = [];
  let length = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return concat(chunks, length);
    const bytes = bodyBytes(value);
    ArrayPrototypePush(chunks, bytes);
    length += bytes.byteLength;
  }
}
/** Everything in the body, as a string or bytes; marks it used. */
async function consume(body) {
  assertUsable(body);
  if (body.kind !== EMPTY) body.used = true;
  switch (body.kind) {
    case EMPTY: return new Uint8Array(0);
    case BYTES: return body.source;
    case NATIVE: return await readNative(body.source);
    default: return await readStream(body.source);
  }
}
const toBytes = (value) => typeof value === "string" ? core.encode(value) : value;
const toText = (value) => typeof value === "string" ? value : op_utf8_decode(value);
function toBuffer(value) {
  const bytes = toBytes(value);
  return bytes.byteLength === bytes.buffer.byteLength ? bytes.buffer : TypedArrayPrototypeSlice(bytes).buffer;
}

function nativeStream(number) {
  const { ReadableStream } = streams();
  return new ReadableStream({
    type: "bytes",
    async pull(controller) {
      for (;;) {
        const chunk = op_body_read(number);
        if (chunk === undefined) {
          await waitFor(number);
          continue;
        }
        if (chunk === null) {
          controller.close();
          controller.byobRequest?.respond(0);
        } else controller.enqueue(chunk);
        return;
      }
    },
    cancel: () => op_body_stop(number),
  }, { highWaterMark: 0 });
}
/** The body as a ReadableStream, or null; from here on it is one. */
function streamOf(body) {
  switch (body.kind) {
    case EMPTY: return null;
    case BYTES: {
      let bytes = toBytes(body.source);
      // A body that was consumed is a stream that was read.
      const { ReadableStream } = streams();
      body.source = new ReadableStream({
        type: "bytes",
        start(controller) {
          if (bytes.byteLength === 0) {
            controller.close();
            bytes = null;
          }
        },
        pull(controller) {
          if (bytes === null) return;
          controller.enqueue(TypedArrayPrototypeSlice(bytes));
          bytes = null;
          controller.close();
        },
        cancel() {},
      }, { highWaterMark: 0 });
      body.kind = STREAM;
      break;
    }
    case NATIVE:
      body.source = nativeStream(body.source);
      body.kind = STREAM;
      break;
  }
  if (body.used) {
    // Locked for ever, as if its reader never let go.
    if (!body.source.locked) body.source.getReader();
  }
  return body.source;
}
function cloneBody(body) {
  if (body.used || (body.kind === STREAM && (body.source.locked || isUsed(body)))) {
    throw new TypeError("Body has already been used. It can only be used once. Use tee() first if you need to read it twice.");
  }
  if (body.kind === EMPTY || body.kind === BYTES) return new Body(body.kind, body.source, body.length);
  const branches = streamOf(body).tee();
  body.source = branches[0];
  return new Body(STREAM, branches[1], body.length);
}

/** Hands a body to Rust: [kind, what, length]; a JS stream gets a number and a pump, and `failed` the error that breaks it off. */
function handOver(body, failed = undefined) {
  if (body.kind === EMPTY) return [EMPTY, null, -1];
  if (isUsed(body)) throw new TypeError("Body has already been used. It can only be used once. Use tee() first if you need to read it twice.");
  body.used = true;
  if (body.kind === BYTES) return [BYTES, body.source, -1];
  if (body.kind === NATIVE) return [NATIVE, body.source, body.length];
  const number = op_body_open(currentId());
  const stream = body.source;
  if (stream.locked) throw new TypeError("This ReadableStream is currently locked to a reader.");
  const pumping = pump(stream, number, failed);
  const invocation = host.currentInvocation();
  if (invocation !== undefined) invocation.waitUntil(pumping);
  return [STREAM, number, body.length];
}
async function pump(stream, number, failed) {
  const reader = stream.getReader();
  // The receiver may go while the source has nothing to say: then the read ends.
  primordials.MapPrototypeSet(host.pumps, number, () => primordials.PromisePrototypeThen(reader.cancel(), undefined, () => {}));
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      let room = op_body_write(number, bodyBytes(value));
      // false: no credit yet; null: the receiver wants no more.
      while (room === false) {
        await waitFor(number);
        room = op_body_write(number, null);
      }
      if (room === null) {
        await reader.cancel();
        return;
      }
    }
    op_body_end(number);
  } catch (error) {
    failed?.(error);
    op_body_abort(number, String(error?.message ?? error));
    try {
      await reader.cancel(error);
    } catch { /* the source failed already */ }
  } finally {
    primordials.MapPrototypeDelete(host.pumps, number);
  }
}

// ---- What Request and Response share -----------------------------------------------------------------------

let bodyOf; // Request or Response -> Body
function mixBody(prototype, contentTypeOf) {
  const reading = (convert) => async function () {
    return convert(await consume(bodyOf(this)), this);
  };
  const methods = {
    text: reading(toText),
    json: reading((value) => JSONParse(toText(value))),
    arrayBuffer: reading(toBuffer),
    bytes: reading((value) => new Uint8Array(toBuffer(value))),
    blob: reading((value, self) => {
      const { Blob } = load("ext:deno_web/09_file.js");
      return new Blob([toBytes(value)], { type: contentTypeOf(self) ?? "" });
    }),
    formData: reading((value, self) => load("ext:atoll/formdata.js").decode(toBytes(value), contentTypeOf(self))),
  };
  for (const name in methods) {
    primordials.ObjectDefineProperty(methods[name], "name", { __proto__: null, value: name, configurable: true });
    primordials.ObjectDefineProperty(prototype, name, { __proto__: null, value: methods[name], writable: true, enumerable: true, configurable: true });
  }
  ObjectDefineProperties(prototype, {
    body: { __proto__: null, get() { return streamOf(bodyOf(this)); }, enumerable: true, configurable: true },
    bodyUsed: { __proto__: null, get() { return isUsed(bodyOf(this)); }, enumerable: true, configurable: true },
  });
}

// ---- Request ---------------------------------------------------------------------------------------------

const NORMALIZED = { __proto__: null, DELETE: 1, GET: 1, HEAD: 1, OPTIONS: 1, POST: 1, PUT: 1, PATCH: 1 };
function methodToken(method) {
  method = String(method);
  const upper = StringPrototypeToUpperCase(method);
  if (upper in NORMALIZED) return upper;
  if (!RegExpPrototypeTest(TOKEN, method) || upper === "CONNECT" || upper === "TRACE" || upper === "TRACK") {
    throw new TypeError(`Invalid HTTP method string: ${method}`);
  }
  return method;
}
function parseUrl(input) {
  const href = op_url_parse_href(String(input));
  if (href === null) throw new TypeError(`Invalid URL: ${String(input)}`);
  return href;
}

// No cache stands between a worker and what it calls, so these ask for what happens anyway.
const CACHE_MODES = { __proto__: null, "no-store": 1, "no-cache": 1 };

let requestState;
class Request {
  #state;
  #body;
  #headers;
  static {
    requestState = (request) => request.#state;
  }
  constructor(input, init = undefined) {
    if (input === incoming) {
      this.#state = init.state;
      this.#body = init.body;
      this.#headers = init.headers;
      return;
    }
    if (arguments.length === 0) throw new TypeError("Failed to construct 'Request': 1 argument required, but only 0 present.");
    if (init !== undefined && init !== null && typeof init !== "object") {
      throw new TypeError("Failed to construct 'Request': parameter 2 is not of type 'object'.");
    }
    init ??= {};
    const from = isRequest(input) ? input : null;
    const state = this.#state = from === null
      ? { method: "GET", url: parseUrl(input), redirect: "follow", signal: null, cf: undefined, cache: undefined, integrity: "", keepalive: false }
      : { __proto__: null, ...requestState(from) };
    if (init.method !== undefined) state.method = methodToken(init.method);
    if (init.redirect !== undefined && init.redirect !== null) {
      const redirect = String(init.redirect);
      if (redirect !== "follow" && redirect !== "manual" && redirect !== "error") {
        throw new TypeError(`Invalid redirect value, must be one of "follow" or "manual" ("error" won't be implemented since it does not make sense at the edge; use "manual" and check the response status code).`);
      }
      state.redirect = redirect;
    }
    if (init.signal !== undefined) {
      if (init.signal !== null && !instanceOf("ext:deno_web/03_abort_signal.js", "AbortSignal", init.signal)) {
        throw new TypeError("Failed to construct 'Request': member signal is not of type AbortSignal.");
      }
      state.signal = init.signal;
    }
    if (init.cf !== undefined) state.cf = init.cf;
    if (init.cache !== undefined) {
      const cache = String(init.cache);
      if (!(cache in CACHE_MODES)) throw new TypeError(`Unsupported cache mode: ${cache}`);
      state.cache = cache;
    }
    if (init.integrity !== undefined) state.integrity = String(init.integrity);
    this.#headers = new Headers(init.headers ?? (from === null ? undefined : from.headers));
    const hasBody = init.body !== undefined && init.body !== null;
    if (hasBody && (state.method === "GET" || state.method === "HEAD")) {
      throw new TypeError("Request with a GET or HEAD method cannot have a body.");
    }
    if (hasBody) {
      const { 0: body, 1: type } = extract(init.body);
      this.#body = body;
      if (type !== null && !this.#headers.has("content-type")) this.#headers.append("content-type", type);
    } else if (from !== null && init.body === undefined) {
      const source = bodyOf(from);
      assertUsable(source);
      this.#body = new Body(source.kind, source.source, source.length);
      if (source.kind !== EMPTY) source.used = true;
    } else {
      this.#body = noBody();
    }
  }
  get method() { return this.#state.method; }
  get url() { return this.#state.url; }
  get headers() { return this.#headers; }
  get redirect() { return this.#state.redirect; }
  get cf() { return this.#state.cf; }
  get cache() { return this.#state.cache; }
  get integrity() { return this.#state.integrity; }
  get keepalive() { return this.#state.keepalive; }
  get fetcher() { return null; }
  get signal() {
    return this.#state.signal ??= new (load("ext:deno_web/03_abort_signal.js").AbortController)().signal;
  }
  clone() {
    const body = cloneBody(this.#body);
    return new Request(incoming, { state: { __proto__: null, ...this.#state }, body, headers: new Headers(this.#headers) });
  }
  get [SymbolToStringTag]() { return "Request"; }
  [primordials.SymbolFor("Deno.privateCustomInspect")](inspect, options) {
    return `Request ${inspect({ method: this.method, url: this.url, headers: this.headers, redirect: this.redirect, bodyUsed: this.bodyUsed }, options)}`;
  }
  static {
    bodyOf = (value) => value.#body;
  }
}
const incoming = { __proto__: null };
const isRequest = (value) => ObjectPrototypeIsPrototypeOf(Request.prototype, value);

/** The request of a fetch event; its URL was parsed by the gateway, its headers cannot be changed. */
function incomingRequest(method, url, headers, bodyKind, body, length) {
  return new Request(incoming, {
    state: { method, url, redirect: "manual", signal: null, cf: undefined, cache: undefined, integrity: "", keepalive: false },
    body: new Body(bodyKind, body, length ?? -1),
    headers: makeImmutable(headersFrom(headers)),
  });
}

// ---- Response --------------------------------------------------------------------------------------------

const NULL_BODY = { __proto__: null, 101: 1, 204: 1, 205: 1, 304: 1 };
const REDIRECT = { __proto__: null, 301: 1, 302: 1, 303: 1, 307: 1, 308: 1 };
const STATUS_TEXT = /^[\t\x20-\x7e\x80-\xff]*$/;

let responseState;
class Response {
  #status;
  #statusText;
  #headers;
  #body;
  #url = "";
  #redirected = false;
  #arrived = false;
  #type = "default";
  #cf;
  #webSocket;
  static {
    const requestBody = bodyOf;
    bodyOf = (value) => #body in value ? value.#body : requestBody(value);
    responseState = {
      is: (value) => typeof value === "object" && value !== null && #body in value,
      setNetwork: (response, url, redirected) => {
        response.#url = url;
        response.#redirected = redirected;
        response.#arrived = true;
        makeImmutable(response.#headers);
        return response;
      },
      phraseOf: (response) => response.#statusText,
      setType: (response, type) => {
        response.#type = type;
        response.#status = type === "error" ? 0 : response.#status;
        makeImmutable(response.#headers);
        return response;
      },
    };
  }
  constructor(body = null, init = undefined) {
    if (init === null || init === undefined) init = {};
    else if (typeof init !== "object") throw new TypeError("Failed to construct 'Response': parameter 2 is not of type 'Initializer (Response or Object)'.");
    let status = init.status;
    if (status === undefined) status = 200;
    else {
      status = +status | 0;
      if ((status < 200 || status > 599) && !(status === 101 && init.webSocket)) {
        throw new RangeError("Responses may only be constructed with status codes in the range 200 to 599, inclusive.");
      }
    }
    if (init.webSocket !== undefined && init.webSocket !== null) {
      if (!load("ext:atoll/websocket.js").isSocket(init.webSocket)) {
        throw new TypeError("Incorrect type for the 'webSocket' field on 'ResponseInit': the provided value is not of type 'WebSocket'.");
      }
      if (status !== 101) throw new RangeError("Responses with a WebSocket must have status code 101.");
    }
    this.#status = status;
    const text = init.statusText;
    this.#statusText = text === undefined || text === null ? "" : String(text);
    if (this.#statusText !== "" && !RegExpPrototypeTest(STATUS_TEXT, this.#statusText)) throw new TypeError("Invalid statusText");
    this.#headers = init.headers === undefined || init.headers === null ? new Headers() : new Headers(init.headers);
    this.#cf = init.cf;
    this.#webSocket = init.webSocket ?? null;
    if (body === null || body === undefined) {
      this.#body = noBody();
      return;
    }
    if (status in NULL_BODY) throw new TypeError("Response with null body status (101, 204, 205, or 304) cannot have a body.");
    const { 0: extracted, 1: type } = extract(body);
    this.#body = extracted;
    if (type !== null && !hasContentType(listOf(this.#headers))) ArrayPrototypePush(listOf(this.#headers), "content-type", type);
  }
  get status() { return this.#status; }
  get ok() { return this.#status >= 200 && this.#status <= 299; }
  get statusText() {
    if (this.#statusText !== "" || !this.#arrived) return this.#statusText;
    return load("ext:atoll/reasons.js").reasonOf(this.#status);
  }
  get headers() { return this.#headers; }
  get url() { return this.#url; }
  get redirected() { return this.#redirected; }
  get type() { return this.#type; }
  get cf() { return this.#cf; }
  get webSocket() { return this.#webSocket; }
  clone() {
    if (this.#webSocket !== null) throw new TypeError("Cannot clone a response to a WebSocket handshake.");
    const body = cloneBody(this.#body);
    const copy = new Response(null, { status: this.#status === 0 ? 200 : this.#status, statusText: this.#statusText, headers: this.#headers, cf: this.#cf });
    copy.#body = body;
    copy.#url = this.#url;
    copy.#redirected = this.#redirected;
    copy.#type = this.#type;
    copy.#status = this.#status;
    return copy;
  }
  static error() {
    return responseState.setType(new Response(), "error");
  }
  static json(data, init = undefined) {
    const text = JSONStringify(data);
    if (text === undefined) throw new TypeError("Failed to execute 'json' on 'Response': The value is not JSON serializable.");
    const response = new Response(text, init);
    const given = init?.headers;
    if (given === undefined || given === null || !new Headers(given).has("content-type")) response.#headers.set("content-type", "application/json");
    return response;
  }
  static redirect(url, status = 302) {
    const href = parseUrl(url);
    status = +status | 0;
    if (!(status in REDIRECT)) throw new RangeError("Invalid redirect status code: must be one of 301, 302, 303, 307, or 308.");
    const response = new Response(null, { status, headers: { location: href } });
    makeImmutable(response.#headers);
    return response;
  }
  get [SymbolToStringTag]() { return "Response"; }
  [primordials.SymbolFor("Deno.privateCustomInspect")](inspect, options) {
    return `Response ${inspect({ status: this.status, statusText: this.statusText, headers: this.headers, ok: this.ok, bodyUsed: this.bodyUsed }, options)}`;
  }
}
mixBody(Request.prototype, (request) => request.headers.get("content-type"));
mixBody(Response.prototype, (response) => response.headers.get("content-type"));

/** Sends what the handler answered. */
function respond(id, response, method) {
  if (!responseState.is(response)) {
    throw new TypeError("Incorrect type for Promise: the Promise did not resolve to 'Response'.");
  }
  if (response.type === "error") throw new TypeError("Return value from serve handler must not be an error response (like Response.error()).");
  const headers = listOf(response.headers);
  // The gateway knows the standard phrases; its library spells this one in another way.
  const phrase = responseState.phraseOf(response) || (response.status === 203 ? "Non-Authoritative Information" : "");
  const socket = response.webSocket;
  if (socket !== null) return load("ext:atoll/websocket.js").respond(id, socket, headers, phrase);
  const { 0: kind, 1: body, 2: length } = handOver(bodyOf(response));
  op_respond(id, response.status, phrase, headers, kind, body, length);
}

// ---- fetch -----------------------------------------------------------------------------------------------

const NULL_OUTBOUND =
  "This worker is not permitted to access the internet via global functions like fetch(). It must use capabilities " +
  "(such as bindings in 'env') to talk to the outside world.";

const HTTP_SCHEME = /^https?:/, SOCKET_SCHEME = /^(https?|wss?):/;
function asksForSocket(list) {
  for (let i = 0; i < list.length; i += 2) {
    if (list[i] === "upgrade" && StringPrototypeToLowerCase(list[i + 1]) === "websocket") return true;
  }
  return false;
}

/** Sends a request through a capability; the number is the isolate's own name for it, -1 for "none". */
async function callFetch(capability, input, init) {
  requireInvocation();
  const request = isRequest(input) && init === undefined ? input : new Request(input, init);
  const state = requestState(request);
  const signal = state.signal;
  signal?.throwIfAborted();
  let headers = listOf(request.headers);
  if (state.method === "GET" && asksForSocket(headers) && RegExpPrototypeTest(SOCKET_SCHEME, state.url)) {
    return load("ext:atoll/websocket.js").fetchSocket(capability, state, headers);
  }
  if (!RegExpPrototypeTest(HTTP_SCHEME, state.url)) throw new TypeError(`Fetch API cannot load: ${state.url}`);
  if (capability < 0) throw new primordials.Error(NULL_OUTBOUND);
  let { 0: kind, 1: body, 2: length } = handOver(bodyOf(request));
  let { method, url } = state;
  for (let hops = 0; ; hops++) {
    const number = op_call(currentId(), capability, method, url, headers, kind, body, length, state.redirect);
    const reply = await replyOf(number, signal);
    const location = state.redirect === "follow" && reply.status in REDIRECT ? redirectOf(reply) : undefined;
    if (location === undefined) return incomingResponse(reply, url, hops > 0);
    if (hops === REDIRECTS_MAX) throw new TypeError("Too many redirects.");
    const { URL } = load("ext:deno_web/00_url.js");
    const next = new URL(location, url);
    if (!RegExpPrototypeTest(HTTP_SCHEME, next.href)) throw new TypeError(`Fetch API cannot load: ${next.href}`);
    const drop = { __proto__: null };
    if ((reply.status === 303 && method !== "HEAD") || (reply.status < 303 && method === "POST")) {
      method = "GET";
      kind = EMPTY;
      body = null;
      length = -1;
      drop["content-encoding"] = drop["content-language"] = drop["content-length"] = drop["content-location"] = drop["content-type"] = 1;
    } else if (kind !== EMPTY && kind !== BYTES) throw new TypeError(ONE_TIME_BODY);
    if (next.origin !== new URL(url).origin) drop.authorization = 1;
    const kept = [];
    for (let i = 0; i < headers.length; i += 2) if (!(headers[i] in drop)) ArrayPrototypePush(kept, headers[i], headers[i + 1]);
    headers = kept;
    url = next.href;
  }
}
const REDIRECTS_MAX = 20;
const ONE_TIME_BODY =
  "A request with a one-time-use body (it was initialized from a stream, not a buffer) encountered a redirect requiring " +
  "the body to be retransmitted. To avoid this error in the future, construct this request from a buffer-like body initializer.";
/** Where the answer of another worker leads. The gateway follows redirects by itself, and says where they led. */
function redirectOf(reply) {
  if (reply.url !== "") return undefined;
  for (let i = 0; i < reply.headers.length; i += 2) {
    if (reply.headers[i] !== "location") continue;
    if (reply.bodyKind === NATIVE) op_body_stop(reply.body);
    return reply.headers[i + 1];
  }
}
/** The reply to a call; throws if there is none. */
async function replyOf(number, signal) {
  let abort;
  if (signal !== null) {
    abort = () => {
      op_call_cancel(number);
      host.wakeNow(number, { aborted: signal.reason });
    };
    signal.addEventListener("abort", abort, { once: true });
  }
  const reply = await waitFor(number);
  if (abort !== undefined) signal.removeEventListener("abort", abort);
  const failure = failureOf(reply);
  if (failure !== undefined) throw failure;
  return reply;
}
/** What to throw for a reply that is none. */
function failureOf(reply) {
  if (reply.aborted !== undefined) return reply.aborted;
  if (reply.threw !== undefined) {
    const error = rebuild(reply.threwName, reply.threw);
    primordials.ObjectDefineProperty(error, "remote", { __proto__: null, value: true, writable: true, enumerable: true, configurable: true });
    return error;
  }
  if (reply.error !== undefined) return new (reply.denied ? primordials.Error : TypeError)(reply.error);
}
const ERRORS = {
  __proto__: null, Error: primordials.Error, EvalError: primordials.EvalError, RangeError, ReferenceError: primordials.ReferenceError, SyntaxError: primordials.SyntaxError, TypeError,
  URIError: primordials.URIError,
};
/** An error that was thrown in another isolate. */
function rebuild(name, message) {
  const error = new (ERRORS[name] ?? primordials.Error)(message);
  if (!(name in ERRORS)) primordials.ObjectDefineProperty(error, "name", { __proto__: null, value: name, writable: true, enumerable: false, configurable: true });
  return error;
}
function incomingResponse(reply, url = "", redirected = false) {
  const status = reply.status;
  const response = new Response(null, { status, statusText: reply.statusText, headers: headersFrom(reply.headers) });
  const body = bodyOf(response);
  body.kind = reply.bodyKind;
  body.source = reply.body;
  body.length = reply.length;
  return responseState.setNetwork(response, reply.url || url, reply.redirected || redirected);
}

let outbound = -1; // the capability behind global fetch()
function fetch(input, init = undefined) {
  return callFetch(outbound, input, init);
}

/** A service that answers fetch() and calls: a binding or an entrypoint of another worker. */
const makeFetcher = (capability) => load("ext:atoll/rpc.js").makeFetcher(capability);
// None can exist before the script that makes them was loaded.
const capabilityOf = (value) => wasLoaded("ext:atoll/rpc.js")?.capabilityOf(value);

// What a request or a response is made of, to be sent to another isolate and made there again.
function partsOf(value) {
  const body = bodyOf(value);
  if (isRequest(value)) {
    const { method, url, redirect } = requestState(value);
    return { method, url, redirect, headers: primordials.ArrayPrototypeSlice(listOf(value.headers)), body };
  }
  return { status: value.status, statusText: value.statusText, headers: primordials.ArrayPrototypeSlice(listOf(value.headers)), body };
}
function fromParts(request, parts, body) {
  if (request) {
    return new Request(incoming, {
      state: { method: parts.method, url: parts.url, redirect: parts.redirect, signal: null, cf: undefined, cache: undefined, integrity: "", keepalive: false },
      body, headers: headersFrom(parts.headers),
    });
  }
  const response = new Response(null, { status: parts.status, statusText: parts.statusText, headers: headersFrom(parts.headers) });
  const own = bodyOf(response);
  own.kind = body.kind;
  own.source = body.source;
  own.length = body.length;
  return response;
}

host.setFetchApi({
  Headers, Request, Response, fetch, incomingRequest, respond, makeFetcher, capabilityOf, isRequest,
  isHeaders: (value) => ObjectPrototypeIsPrototypeOf(HeadersPrototype, value), isResponse: responseState.is, listOf, parseUrl, chunkBytes, callFetch,
  partsOf, fromParts, handOver, streamOf, rebuild, headersFrom, extract, consume, toBytes, toText, toBuffer, isStream,
  bodyFrom: (stream) => new Body(STREAM, stream), bodyOfKind: (kind, source, length) => new Body(kind, source, length),
  NULL_OUTBOUND, incomingResponse, failureOf, network: responseState.setNetwork, outbound: () => outbound,
  setOutbound: (capability) => void (outbound = capability),
  trimmed() {
    ({ core, primordials } = host);
  },
});
})();
