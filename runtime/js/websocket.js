// WebSocket and WebSocketPair. A lazy script: an isolate that has no WebSocket never compiles it.
//
//   pair, both ends here     end.send() ──▶ other.queue ──▶ its events
//   pair, one end answered   end.send() ──▶ body of the 101 response          ("coupled": its number is `out`)
//                            client ──▶ body of the request ──▶ end's events
//   from fetch() or new      send() ──▶ body of the request; body of the 101 response ──▶ events
//   such a one answered      both bodies are spliced in Rust and never come here
//
// API: https://developers.cloudflare.com/workers/runtime-apis/websockets/ ; where Workers differ from
// https://websockets.spec.whatwg.org/ Workers win.
(function () {
"use strict";
const { core, primordials, internals } = __bootstrap;
const host = internals.atoll;
const {
  op_body_abort, op_body_open, op_body_stop, op_call, op_call_cancel, op_respond, op_rpc_flag, op_socket_close,
  op_socket_drop, op_socket_in, op_socket_next, op_socket_send, op_socket_splice,
} = core.ops;
const {
  ArrayBufferIsView, ArrayIsArray, ArrayPrototypeJoin, ArrayPrototypePush, ArrayPrototypeShift, Error, ObjectDefineProperty, Promise, PromisePrototypeThen, RangeError, RegExpPrototypeTest, SafeMap, SafeSet, SetPrototypeAdd,
  SetPrototypeDelete, SetPrototypeForEach, SetPrototypeHas, MapPrototypeGet, MapPrototypeSet, MapPrototypeDelete, String,
  StringPrototypeReplace, StringPrototypeToWellFormed, Symbol, SymbolIterator, SymbolToStringTag, TypeError,
  TypedArrayPrototypeGetByteLength, TypedArrayPrototypeSlice, Uint8Array,
} = primordials;
const { CloseEvent, ErrorEvent, Event, EventTarget, MessageEvent, defineEventHandler } = host.load("ext:deno_web/02_event.js");
const { currentId, requireInvocation, waitFor, fetchApi } = host;

const CONNECTING = 0, OPEN = 1, CLOSING = 2, CLOSED = 3;
// What has become of the connection of one end.
const AWAITING_CONNECTION = 0, AWAITING = 1, ACCEPTED = 2, RELEASED = 3;
const STREAM = 3, SPLICE = 4;
const REASON_BYTES_MAX = 123;
const ATTACHMENT_BYTES_MAX = 16384;

const domException = (message, name) => new (host.load("ext:deno_web/01_dom_exception.js").DOMException)(message, name);
// The class of these errors came with the flag.
const misuse = (message) =>
  op_rpc_flag("websocket_close_reason_byte_limit") ? domException(message, "InvalidAccessError") : new TypeError(message);
function messageEvent(data) {
  const event = new MessageEvent("message", { data });
  event.origin = null;
  return event;
}
const NOT_ACCEPTED =
  "You must call one of accept() or state.acceptWebSocket() on this WebSocket before sending messages.";

// Streams that somebody waits on, by invocation: an end of the invocation must wake them, or they would be kept for ever.
const reading = new SafeMap();
function startReading(id, number) {
  let numbers = MapPrototypeGet(reading, id);
  if (numbers === undefined) MapPrototypeSet(reading, id, numbers = new SafeSet());
  SetPrototypeAdd(numbers, number);
}
function stopReading(id, number) {
  const numbers = MapPrototypeGet(reading, id);
  if (numbers === undefined) return;
  SetPrototypeDelete(numbers, number);
  if (numbers.size === 0) MapPrototypeDelete(reading, id);
}
/** The invocation is over. */
function forget(id) {
  const numbers = MapPrototypeGet(reading, id);
  if (numbers === undefined) return;
  MapPrototypeDelete(reading, id);
  SetPrototypeForEach(numbers, (number) => host.wakeNow(number, undefined));
}

const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
function protocolList(protocols) {
  const fail = (text) => {
    throw domException(`WebSocket Constructor: ${text}`, "SyntaxError");
  };
  if (!ArrayIsArray(protocols) && typeof protocols?.[SymbolIterator] !== "function" || typeof protocols === "string") {
    protocols = String(protocols);
    if (!RegExpPrototypeTest(TOKEN, protocols)) fail("The protocol header token is invalid.");
    return protocols;
  }
  const list = [], seen = new SafeSet();
  for (const each of protocols) {
    const token = String(each);
    if (!RegExpPrototypeTest(TOKEN, token)) fail("One of the protocol header tokens is invalid.");
    if (SetPrototypeHas(seen, token)) fail("The protocols header cannot have repeating values.");
    SetPrototypeAdd(seen, token);
    ArrayPrototypePush(list, token);
  }
  return ArrayPrototypeJoin(list, ", ");
}
/** The URL to dial for one that may be spelled ws: or wss:. */
function httpUrl(text) {
  const refuse = (reason) => {
    throw domException(`WebSocket Constructor: ${reason}`, "SyntaxError");
  };
  const { URL } = host.load("ext:deno_web/00_url.js");
  let url;
  try {
    url = new URL(text);
  } catch {
    refuse("The url is invalid.");
  }
  const scheme = url.protocol;
  if (scheme !== "ws:" && scheme !== "wss:" && scheme !== "http:" && scheme !== "https:") {
    refuse("The url scheme must be ws or wss.");
  }
  if (url.hash !== "") refuse("The url fragment must be empty.");
  return overHttp(url.href);
}
const overHttp = (href) => StringPrototypeReplace(href, /^ws/, "http");

function messageBytes(data) {
  const bytes = ArrayBufferIsView(data) ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength) : new Uint8Array(data);
  return TypedArrayPrototypeSlice(bytes);
}

const inside = Symbol("inside"); // given by this script alone
let coupleWith; // (socket, invocation id) -> answers with it
let connected;  // (in, out, headers) -> an end that is connected and not accepted

class WebSocket extends EventTarget {
  #state = AWAITING;
  #peer = null;      // the other end of a pair
  #queue = [];       // what came and was not delivered
  #news = null;      // resolves the wait of the loop below
  #room = null;      // resolves when the queue is empty
  #in = -1;          // the stream that is read for this end, or for the other end of its pair
  #out = -1;         // the stream that carries what is sent here, or by the other end of its pair
  #closedIn = false;
  #closedOut = false;
  #aborted = false;  // nobody receives any more
  #failed = false;
  #halfOpen = false;
  #call = -1;        // the call that connects
  #url = null;
  #protocol = "";
  #extensions = "";
  #binaryType;
  #attachment = null;

  static {
    connected = (input, output, headers) => {
      const socket = new WebSocket(inside);
      socket.#in = input;
      socket.#out = output;
      socket.#agreed(headers);
      return socket;
    };
    coupleWith = (socket, id, headers, phrase) => socket.#couple(id, headers, phrase);
  }

  constructor(url, protocols = undefined) {
    super();
    this.#binaryType = op_rpc_flag("websocket_standard_binary_type") ? "blob" : "arraybuffer";
    if (url === inside) return;
    if (arguments.length === 0) {
      throw new TypeError("Failed to construct 'WebSocket': 1 argument required, but only 0 present.");
    }
    url = String(url);
    const target = httpUrl(url);
    requireInvocation();
    const headers = ["upgrade", "websocket"];
    const list = protocols === undefined || protocols === null ? "" : protocolList(protocols);
    if (list !== "") ArrayPrototypePush(headers, "sec-websocket-protocol", list);
    if (op_rpc_flag("web_socket_compression")) ArrayPrototypePush(headers, "sec-websocket-extensions", "permessage-deflate");
    this.#url = url;
    this.#state = AWAITING_CONNECTION;
    PromisePrototypeThen(this.#connect(target, headers), undefined, (error) => this.#refused(error));
  }

  async #connect(target, headers) {
    const { reply, output } = await open(fetchApi.outbound(), target, headers, (call) => this.#call = call);
    if (this.#state !== AWAITING_CONNECTION) return;
    if (reply.status !== 101) {
      op_body_abort(output, "no WebSocket");
      if (reply.bodyKind === 2) op_body_stop(reply.body);
      throw new TypeError(
        "Failed to establish the WebSocket connection: expected server to reply with HTTP status code 101 " +
        `(switching protocols), but received ${reply.status} instead.`);
    }
    this.#in = reply.body;
    this.#out = output;
    const given = fetchApi.headersFrom(reply.headers);
    this.#protocol = given.get("sec-websocket-protocol");
    this.#extensions = given.get("sec-websocket-extensions");
    this.#state = ACCEPTED;
    this.dispatchEvent(new Event("open"));
    this.#read();
  }
  #refused(error) {
    if (this.#state !== AWAITING_CONNECTION) return;
    this.#closedIn = true;
    this.#state = RELEASED;
    this.#fail(error);
    this.dispatchEvent(new CloseEvent("close", {
      code: 1006, reason: "Failed to establish websocket connection", wasClean: false,
    }));
  }
  #agreed(headers) {
    this.#protocol = headers.get("sec-websocket-protocol") ?? "";
    this.#extensions = headers.get("sec-websocket-extensions") ?? "";
  }

  accept(options = undefined) {
    if (this.#state === AWAITING_CONNECTION) {
      throw new TypeError("Websockets obtained from the 'new WebSocket()' constructor cannot call accept");
    }
    if (this.#state === RELEASED) throw new TypeError("Can't accept() WebSocket that was already used in a response.");
    if (this.#state === ACCEPTED) return;
    requireInvocation();
    const halfOpen = options?.allowHalfOpen;
    this.#halfOpen = halfOpen === undefined ? !op_rpc_flag("web_socket_auto_reply_to_close") : !!halfOpen;
    this.#state = ACCEPTED;
    this.#read();
  }

  // ---- What comes -----------------------------------------------------------------------------------------

  /** Delivers for as long as the connection lasts. The context of whoever accepted stays with the loop. */
  #read() {
    const network = this.#peer === null;
    const done = network ? this.#readStream(this, currentId()) : null;
    // One that talks to the network keeps its invocation going; two ends of a pair do not.
    if (done !== null) host.currentInvocation()?.hold(done);
    this.#deliverAll();
  }
  async #deliverAll() {
    for (;;) {
      while (this.#queue.length > 0) {
        const item = ArrayPrototypeShift(this.#queue);
        const last = this.#deliver(item);
        if (last) return;
        // Each event is a turn of its own.
        await undefined;
      }
      const room = this.#room;
      this.#room = null;
      room?.();
      await new Promise((resolve) => this.#news = resolve);
    }
  }
  #push(item) {
    ArrayPrototypePush(this.#queue, item);
    const news = this.#news;
    this.#news = null;
    news?.();
  }
  /** Delivers one thing; true if it is the last. */
  #deliver(item) {
    if (this.#closedIn) return true;
    if (typeof item === "string") this.dispatchEvent(messageEvent(item));
    else if (item === null) {
      this.#closedIn = true;
      this.#abort();
      this.dispatchEvent(new CloseEvent("close", {
        code: 1006, reason: "WebSocket disconnected without sending Close frame.", wasClean: false,
      }));
      return true;
    } else if (ArrayIsArray(item)) {
      this.#closedIn = true;
      const code = item[0], reason = item[1];
      if (!this.#halfOpen && !this.#closedOut && !this.#aborted) this.#sendClose(code, reason);
      this.dispatchEvent(new CloseEvent("close", { code, reason, wasClean: true }));
      return true;
    } else if (item.failed !== undefined) {
      this.#closedIn = true;
      this.#abort();
      this.#fail(new Error(item.failed));
      return true;
    } else this.dispatchEvent(messageEvent(this.#binary(item)));
    return false;
  }
  #binary(bytes) {
    if (this.#binaryType === "arraybuffer") return bytes.buffer;
    const { Blob } = host.load("ext:deno_web/09_file.js");
    return new Blob([bytes]);
  }
  /** Takes messages off a stream for an end, one when it has none to deliver. */
  async #readStream(end, id) {
    const number = this.#in;
    startReading(id, number);
    try {
      for (;;) {
        while (end.#queue.length > 0 || end.#state === AWAITING) {
          await new Promise((resolve) => end.#room = resolve);
        }
        const news = waitFor(number);
        const item = op_socket_next(number);
        if (item !== undefined) end.#push(item);
        if (item === null || ArrayIsArray(item)) return;
        await news;
      }
    } catch (error) {
      end.#push({ failed: error.message });
    } finally {
      stopReading(id, number);
    }
  }

  // ---- What goes ------------------------------------------------------------------------------------------

  send(message) {
    if (arguments.length === 0) {
      throw new TypeError("Failed to execute 'send' on 'WebSocket': parameter 1 is not of type 'ArrayBuffer or string'.");
    }
    const binary = ArrayBufferIsView(message) || core.isAnyArrayBuffer(message);
    const data = binary ? messageBytes(message) : StringPrototypeToWellFormed(String(message));
    if (this.#closedOut) throw new TypeError("Can't call WebSocket send() after close().");
    if (this.#aborted || this.#state === RELEASED) return;
    if (this.#state !== ACCEPTED) throw new TypeError(NOT_ACCEPTED);
    this.#put(data);
  }
  #put(item) {
    const far = this.#peer ?? this;
    if (far.#out < 0) {
      if (far.#state !== RELEASED) far.#push(item);
      return;
    }
    switch (op_socket_send(far.#out, item)) {
      case 1: this.#aborted = true; break;
      case 2: throw new RangeError("The WebSocket message is larger than 33554432 bytes.");
      case 3: throw new RangeError("Too much waits to be sent on this WebSocket.");
    }
  }
  /** Bytes that the other end of a pair has not taken yet; what left the isolate is out of sight. */
  get bufferedAmount() {
    const queue = this.#peer?.#queue ?? [];
    let bytes = 0;
    for (let i = 0; i < queue.length; i++) {
      if (typeof queue[i] === "string") bytes += TypedArrayPrototypeGetByteLength(core.encode(queue[i]));
      else if (ArrayBufferIsView(queue[i])) bytes += TypedArrayPrototypeGetByteLength(queue[i]);
    }
    return bytes;
  }
  close(code = undefined, reason = undefined) {
    if (this.#state === AWAITING_CONNECTION) {
      this.#state = RELEASED;
      if (this.#call >= 0) op_call_cancel(this.#call);
      return;
    }
    if (code !== undefined) code = +code | 0;
    if (reason !== undefined) reason = String(reason);
    if (this.#closedOut || this.#aborted || this.#state === RELEASED) return;
    if (this.#state !== ACCEPTED) throw new TypeError(NOT_ACCEPTED);
    if (code !== undefined && !(code >= 1000 && code < 5000 && code !== 1004 && code !== 1005 && code !== 1006 && code !== 1015)) {
      throw misuse(`Invalid WebSocket close code: ${code}.`);
    }
    if (reason !== undefined && code === undefined) {
      throw misuse("If you specify a WebSocket close reason, you must also specify a code.");
    }
    if (reason !== undefined && op_rpc_flag("websocket_close_reason_byte_limit") &&
      TypedArrayPrototypeGetByteLength(core.encode(reason)) > REASON_BYTES_MAX) {
      throw domException("WebSocket close reason must not exceed 123 bytes when UTF-8 encoded.", "SyntaxError");
    }
    this.#sendClose(code ?? 1005, reason ?? "");
  }
  #sendClose(code, reason) {
    this.#closedOut = true;
    const far = this.#peer ?? this;
    if (far.#out >= 0) op_socket_close(far.#out, code, reason);
    else if (far.#state !== RELEASED) far.#push([code, reason]);
  }
  /** The connection is gone: nothing can be sent. */
  #abort() {
    this.#aborted = true;
    const far = this.#peer ?? this;
    if (far.#out >= 0) op_socket_drop(far.#out);
  }
  #fail(error) {
    if (this.#failed) return;
    this.#failed = true;
    this.dispatchEvent(new ErrorEvent("error", { message: `Uncaught ${error.name}: ${error.message}`, error }));
    this.#aborted = true;
  }

  // ---- Answering with one -----------------------------------------------------------------------------------

  #couple(id, headers, phrase) {
    if (this.#state === AWAITING_CONNECTION || this.#url !== null) {
      throw new TypeError("Can't return WebSocket in a Response if it was created with `new WebSocket()`");
    }
    if (this.#state === RELEASED) throw new TypeError("Can't return WebSocket that was already used in a response.");
    if (this.#state === ACCEPTED) throw new TypeError("Can't return WebSocket in a Response after calling accept().");
    const input = op_socket_in(id);
    if (input < 0) {
      throw new TypeError(
        "Worker tried to return WebSocket in a response to a request which did not contain the header \"Upgrade: websocket\".");
    }
    this.#state = RELEASED;
    if (this.#peer === null) {
      op_respond(id, 101, phrase, headers, SPLICE, this.#in, -1);
      op_socket_splice(input, this.#out);
      return;
    }
    const output = op_body_open(id);
    op_respond(id, 101, phrase, headers, STREAM, output, -1);
    const waiting = this.#queue;
    this.#queue = [];
    this.#in = input;
    this.#out = output;
    for (let i = 0; i < waiting.length; i++) {
      const item = waiting[i];
      if (ArrayIsArray(item)) op_socket_close(output, item[0], item[1]);
      else op_socket_send(output, item);
    }
    // Its close handlers run before the invocation ends.
    host.currentInvocation()?.hold(this.#readStream(this.#peer, id));
  }

  // ---- Properties -------------------------------------------------------------------------------------------

  get readyState() {
    if (this.#state === AWAITING_CONNECTION) return CONNECTING;
    if (this.#closedIn && this.#closedOut || this.#failed) return CLOSED;
    if (this.#closedIn || this.#closedOut) return CLOSING;
    return OPEN;
  }
  get url() { return this.#url; }
  get protocol() { return this.#protocol; }
  get extensions() { return this.#extensions; }
  get binaryType() { return this.#binaryType; }
  set binaryType(value) {
    value = String(value);
    // As for every attribute that is an enumeration: other values change nothing (Web IDL section 3.7.6).
    if (value === "blob" || value === "arraybuffer") this.#binaryType = value;
  }
  serializeAttachment(attachment) {
    let bytes;
    try {
      bytes = core.serialize(attachment);
    } catch (error) {
      throw domException(String(error?.message), "DataCloneError");
    }
    const length = TypedArrayPrototypeGetByteLength(bytes);
    if (length > ATTACHMENT_BYTES_MAX) {
      throw new Error(`A WebSocket 'attachment' cannot be larger than ${ATTACHMENT_BYTES_MAX} bytes.'attachment' was ${length} bytes.`);
    }
    this.#attachment = bytes;
  }
  deserializeAttachment() {
    return this.#attachment === null ? null : core.deserialize(this.#attachment);
  }
  get [SymbolToStringTag]() { return "WebSocket"; }

  static pair() {
    const one = new WebSocket(inside), other = new WebSocket(inside);
    one.#peer = other;
    other.#peer = one;
    return [one, other];
  }
}
const { pair } = WebSocket;
delete WebSocket.pair;
for (const [name, value] of new primordials.SafeArrayIterator([
  ["CONNECTING", CONNECTING], ["OPEN", OPEN], ["CLOSING", CLOSING], ["CLOSED", CLOSED],
  ["READY_STATE_CONNECTING", CONNECTING], ["READY_STATE_OPEN", OPEN], ["READY_STATE_CLOSING", CLOSING], ["READY_STATE_CLOSED", CLOSED],
])) {
  const descriptor = { __proto__: null, value, writable: false, enumerable: true, configurable: false };
  ObjectDefineProperty(WebSocket, name, descriptor);
  ObjectDefineProperty(WebSocket.prototype, name, descriptor);
}
defineEventHandler(WebSocket.prototype, "open");
defineEventHandler(WebSocket.prototype, "message");
defineEventHandler(WebSocket.prototype, "close");
defineEventHandler(WebSocket.prototype, "error");
const isSocket = (value) => primordials.ObjectPrototypeIsPrototypeOf(WebSocket.prototype, value);

class WebSocketPair {
  constructor() {
    const ends = pair();
    this[0] = ends[0];
    this[1] = ends[1];
  }
  *[SymbolIterator]() {
    yield this[0];
    yield this[1];
  }
  get [SymbolToStringTag]() { return "WebSocketPair"; }
}

// ---- As a client -------------------------------------------------------------------------------------------

/** Asks for a WebSocket: the reply, and the stream that carries what is sent. */
async function open(capability, url, headers, begun, signal = null) {
  if (capability < 0) throw new Error(fetchApi.NULL_OUTBOUND);
  const output = op_body_open(currentId());
  const call = op_call(currentId(), capability, "GET", url, headers, STREAM, output, -1, "manual");
  begun(call);
  let abort;
  if (signal !== null) {
    abort = () => {
      op_call_cancel(call);
      host.wakeNow(call, { aborted: signal.reason });
    };
    signal.addEventListener("abort", abort, { once: true });
  }
  const reply = await waitFor(call);
  if (abort !== undefined) signal.removeEventListener("abort", abort);
  const failure = fetchApi.failureOf(reply);
  if (failure !== undefined) {
    op_body_abort(output, "no WebSocket");
    throw failure;
  }
  return { reply, output };
}
/** fetch() of a request that asks for a WebSocket. */
async function fetchSocket(capability, state, headers) {
  const { reply, output } = await open(capability, overHttp(state.url), headers, () => {}, state.signal);
  if (reply.status !== 101) {
    op_body_abort(output, "no WebSocket");
    return fetchApi.incomingResponse(reply);
  }
  const given = fetchApi.headersFrom(reply.headers);
  const webSocket = connected(reply.body, output, given);
  return fetchApi.network(
    new fetchApi.Response(null, { status: 101, statusText: reply.statusText, headers: given, webSocket }), reply.url, reply.redirected);
}
/** Answers an invocation with the WebSocket of a response. */
function respond(id, socket, headers, phrase) {
  coupleWith(socket, id, headers, phrase);
}

return { WebSocket, WebSocketPair, isSocket, fetchSocket, respond, forget };
})();
