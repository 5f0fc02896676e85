// The module `cloudflare:sockets`: connect() and its Socket. A lazy script.
//
//   writable ──▶ body of a CONNECT request ──▶ gateway: policy, dial, TLS ──▶ peer
//   readable ◀── body of the answer ◀──────────────────────────────────────── peer
//
// startTls() is a word in the outgoing body, which is framed for it; the new Socket goes on with the same two bodies.
//
// API: https://developers.cloudflare.com/workers/runtime-apis/tcp-sockets/
(function () {
"use strict";
const { core, primordials, internals } = __bootstrap;
const host = internals.atoll;
const { op_body_abort, op_body_end, op_body_open, op_body_read, op_body_stop, op_body_write, op_call, op_call_cancel } = core.ops;
const {
  Error, Number, Promise, PromisePrototypeThen, PromiseReject, PromiseResolve, String, StringPrototypeIncludes, StringPrototypeLastIndexOf,
  StringPrototypeSlice, SymbolToStringTag, TypeError, TypedArrayPrototypeSet, Uint8Array,
} = primordials;
const { ReadableStream, WritableStream } = host.load("ext:deno_web/06_streams.js");
const { currentId, fetchApi, requireInvocation, waitFor } = host;

const STREAM = 3;
const DATA = 0, SECURE = 1;
const HEAD_BYTES = 5;
const SERVER_NAME_BYTES_MAX = 253;
const inside = {};

/** Host and port of an address, as text that a URL can hold; throws what Workers throw. */
function parseAddress(address) {
  let hostname, port;
  if (typeof address === "object" && address !== null) {
    ({ hostname, port } = address);
    if (hostname === undefined) throw new TypeError("Incorrect type for the 'hostname' field on 'SocketAddress': the provided value is not of type 'string'.");
    hostname = String(hostname);
    port = Number(port);
    if (StringPrototypeIncludes(hostname, ":") && hostname[0] !== "[") hostname = `[${hostname}]`;
  } else {
    const text = String(address);
    const colon = StringPrototypeLastIndexOf(text, ":");
    if (colon < 0) throw new TypeError("Specified address is missing port.");
    hostname = StringPrototypeSlice(text, 0, colon);
    const digits = StringPrototypeSlice(text, colon + 1);
    if (digits === "") throw new TypeError("Specified address is missing port.");
    port = primordials.RegExpPrototypeTest(/^\d+$/, digits) ? Number(digits) : -1;
  }
  if (hostname === "" || hostname.length > 255 || !primordials.RegExpPrototypeTest(/^[\w.\-[\]:]+$/, hostname)) {
    throw new TypeError("Specified address is empty string, contains unsupported characters or is too long.");
  }
  if (!primordials.NumberIsInteger(port) || port < 1 || port > 65535) throw new TypeError("Specified address could not be parsed.");
  return `${hostname}:${port}`;
}
const SCHEMES = { __proto__: null, off: "tcp", on: "tls", starttls: "starttls" };

/** One connection: its two bodies, and which Socket speaks for it now. */
class Connection {
  constructor(capability, url, framed) {
    this.framed = framed;
    this.speaker = null;
    this.input = -1;
    this.over = false;
    if (capability < 0) {
      this.output = this.call = -1;
      this.opened = PromiseReject(new Error(fetchApi.NULL_OUTBOUND));
      return;
    }
    this.output = op_body_open(currentId());
    this.call = op_call(currentId(), capability, "CONNECT", url, [], STREAM, this.output, -1, "manual");
    this.opened = PromisePrototypeThen(waitFor(this.call), (reply) => {
      const failure = fetchApi.failureOf(reply);
      if (failure === undefined && !this.over) {
        this.input = reply.body;
        return;
      }
      op_body_abort(this.output, "no connection");
      throw failure ?? new Error("The socket was closed before it was connected.");
    });
  }
  async write(chunk) {
    await this.opened;
    const bytes = fetchApi.chunkBytes(chunk);
    if (bytes.byteLength > 0) await this.send(this.framed ? frame(DATA, bytes) : bytes);
  }
  async send(bytes) {
    let room = op_body_write(this.output, bytes);
    // false: no credit yet; null: the peer takes no more.
    while (room === false) {
      await waitFor(this.output);
      room = op_body_write(this.output, null);
    }
    if (room === null) throw new Error("Network connection lost.");
  }
  /** The next piece; null at the end; undefined if another Socket speaks for the connection by now. */
  async read(speaker) {
    await this.opened;
    for (;;) {
      if (this.speaker !== speaker) return undefined;
      const piece = op_body_read(this.input);
      if (piece !== undefined) return piece;
      await waitFor(this.input);
    }
  }
  end() {
    op_body_end(this.output);
  }
  close() {
    if (this.over) return;
    this.over = true;
    this.end();
    if (this.input >= 0) {
      op_body_stop(this.input);
      host.wakeNow(this.input, undefined);
    } else {
      op_call_cancel(this.call);
      host.wakeNow(this.call, { error: "The socket was closed before it was connected." });
    }
  }
}
function frame(kind, bytes) {
  const length = bytes.byteLength;
  const whole = new Uint8Array(HEAD_BYTES + length);
  whole[0] = kind;
  for (let i = 0; i < 4; i++) whole[1 + i] = (length >>> (8 * i)) & 0xff;
  TypedArrayPrototypeSet(whole, bytes, HEAD_BYTES);
  return whole;
}

let partsOf;
class Socket {
  #connection;
  #address;
  #options;
  #secure;
  #upgraded = false;
  #readable;
  #writable;
  #input;
  #output;
  #closed;
  #opened;
  #settle;
  static {
    partsOf = (value) => {
      if (typeof value !== "object" || value === null || !(#address in value)) return undefined;
      return { readable: value.#readable, writable: value.#writable, address: value.#address, secure: value.#secure };
    };
  }
  constructor(token, connection, address, options, secure, streams = undefined) {
    if (token !== inside) throw new TypeError("Illegal constructor");
    this.#connection = connection;
    this.#address = address;
    this.#options = options;
    this.#secure = secure;
    this.#closed = new Promise((resolve, reject) => this.#settle = { resolve, reject });
    PromisePrototypeThen(this.#closed, undefined, () => {});
    if (streams !== undefined) {
      // It came from another isolate, which speaks for the connection.
      this.#opened = PromiseResolve({ remoteAddress: address, localAddress: undefined });
      this.#readable = streams.readable;
      this.#writable = streams.writable;
      return;
    }
    connection.speaker = this;
    this.#opened = PromisePrototypeThen(connection.opened, () => ({ remoteAddress: address, localAddress: undefined }));
    PromisePrototypeThen(this.#opened, undefined, (error) => this.#fail(error));
    this.#readable = new ReadableStream({
      type: "bytes",
      start: (controller) => void (this.#input = controller),
      pull: () => this.#pull(),
      cancel: () => {
        if (connection.speaker === this && connection.input >= 0) op_body_stop(connection.input);
      },
    }, { highWaterMark: 0 });
    this.#writable = new WritableStream({
      start: (controller) => void (this.#output = controller),
      write: (chunk) => connection.write(chunk),
      close: async () => {
        await connection.opened;
        connection.end();
      },
      abort: () => this.#close(),
    }, { highWaterMark: options.highWaterMark });
  }
  async #pull() {
    let piece;
    try {
      piece = await this.#connection.read(this);
    } catch (error) {
      this.#fail(error);
      throw error;
    }
    if (piece === undefined || (piece === null && this.#connection.over)) return;
    if (piece === null) {
      this.#endInput();
      // The peer said all. Unless the guest wants to go on alone, so did the guest.
      if (!this.#options.allowHalfOpen) this.#close();
    } else this.#input.enqueue(piece);
  }
  #endInput() {
    try {
      this.#input.close();
      this.#input.byobRequest?.respond(0);
    } catch { /* closed or failed already */ }
  }
  #fail(error) {
    this.#settle.reject(error);
    try {
      this.#input?.error(error);
    } catch { /* closed already */ }
    try {
      this.#output?.error(error);
    } catch { /* closed already */ }
  }
  #close() {
    if (this.#connection === null) PromisePrototypeThen(this.#readable.cancel(), undefined, () => {});
    else {
      this.#connection.close();
      this.#endInput();
    }
    this.#settle.resolve(undefined);
  }
  get readable() { return this.#readable; }
  get writable() { return this.#writable; }
  get closed() { return this.#closed; }
  get opened() { return this.#opened; }
  get upgraded() { return this.#upgraded; }
  get secureTransport() { return this.#secure; }
  close() {
    if (this.#upgraded) return this.#closed;
    // What was written and waits for room goes first, unless somebody else holds the writer.
    const flushed = this.#writable.locked ? PromiseResolve() : PromisePrototypeThen(this.#writable.close(), undefined, () => {});
    return PromisePrototypeThen(flushed, () => {
      this.#close();
      return this.#closed;
    });
  }
  startTls(options = undefined) {
    if (this.#secure !== "starttls" || this.#connection === null) throw new TypeError("The `secureTransport` socket option must be set to 'starttls' for startTls to be used.");
    if (this.#upgraded) throw new TypeError("startTls can only be called once.");
    if (this.#readable.locked || this.#writable.locked) throw new TypeError("The readable and the writable must not be locked when startTls is called.");
    const wanted = options?.expectedServerHostname;
    const name = core.encode(wanted === undefined ? "" : String(wanted));
    if (name.byteLength > SERVER_NAME_BYTES_MAX) throw new TypeError("The expected server hostname is too long.");
    const connection = this.#connection;
    this.#upgraded = true;
    const secured = new Socket(inside, connection, this.#address, this.#options, "on");
    connection.opened = PromisePrototypeThen(connection.opened, () => connection.send(frame(SECURE, name)));
    PromisePrototypeThen(connection.opened, undefined, (error) => secured.#fail(error));
    this.#endInput();
    this.#settle.resolve(undefined);
    return secured;
  }
  get [SymbolToStringTag]() { return "Socket"; }
}

/** connect() through a capability; -1 is "none". */
function connectThrough(capability, address, options = undefined) {
  requireInvocation();
  const place = parseAddress(address);
  const secure = options?.secureTransport === undefined ? "off" : String(options.secureTransport);
  if (!(secure in SCHEMES)) throw new TypeError(`Unsupported value in secureTransport socket option: ${secure}`);
  const highWaterMark = options?.highWaterMark === undefined ? 1 : Number(options.highWaterMark);
  const settings = { __proto__: null, allowHalfOpen: !!options?.allowHalfOpen, highWaterMark };
  const connection = new Connection(capability, `${SCHEMES[secure]}://${place}`, secure === "starttls");
  return new Socket(inside, connection, place, settings, secure);
}
const connect = (address, options = undefined) => connectThrough(fetchApi.outbound(), address, options);
primordials.ObjectDefineProperty(connect, "name", { __proto__: null, value: "connect", configurable: true });

/** A socket that another isolate sent: its streams, which lead there. */
const received = ({ readable, writable, address, secure }) => new Socket(inside, null, address, undefined, secure, { readable, writable });

host.sockets = { connectThrough, received, partsOf };
return { connect };
})();
