// EventSource: server-sent events as events. A lazy script: an isolate that has no EventSource never compiles it.
//
//   new EventSource(url)  ──▶ fetch ──▶ lines ──▶ events ──▶ the end or a failed connection ──▶ wait ──▶ fetch again
//   EventSource.from(stream)        ──▶ lines ──▶ events ──▶ the end
//
// https://html.spec.whatwg.org/multipage/server-sent-events.html, with `fetcher` and `from()` of
// https://developers.cloudflare.com/workers/runtime-apis/eventsource/
(function () {
"use strict";
const { primordials, internals } = __bootstrap;
const host = internals.atoll;
const {
  ArrayPrototypeJoin, ArrayPrototypePush, ObjectDefineProperty, ObjectPrototypeIsPrototypeOf, Promise, PromisePrototypeThen,
  RegExpPrototypeTest, String, StringPrototypeCharCodeAt, StringPrototypeIncludes, StringPrototypeIndexOf, StringPrototypeSlice,
  StringPrototypeStartsWith, TypeError,
} = primordials;
const { Event, EventTarget, MessageEvent, defineEventHandler } = host.load("ext:deno_web/02_event.js");
const { ReadableStream } = host.load("ext:deno_web/06_streams.js");
const { TextDecoder } = host.load("ext:deno_web/08_text_encoding.js");
const { AbortController } = host.load("ext:deno_web/03_abort_signal.js");

const CONNECTING = 0, OPEN = 1, CLOSED = 2;
// How long to wait before connecting again, in milliseconds; a server asks for another time with `retry:`.
const RETRY_MS = 2_000, RETRY_MS_MIN = 1_000, RETRY_MS_MAX = 10_000;
// One line and one event's data, in UTF-16 units: a stream that never ends its line must not grow without end.
const EVENT_UNITS_MAX = 16 * 1024 * 1024;

const domException = (message, name) => new (host.load("ext:deno_web/01_dom_exception.js").DOMException)(message, name);
const CR = 13, LF = 10;

/** Events out of text that comes in pieces; `emit(type, data, lastEventId)`. */
class Parser {
  retry = RETRY_MS;
  lastEventId = "";
  #emit;
  #rest = "";
  #afterCr = false;
  #type = "";
  #id = "";
  #data = [];
  #units = 0;
  constructor(emit, lastEventId) {
    this.#emit = emit;
    this.lastEventId = this.#id = lastEventId;
  }
  feed(text) {
    if (this.#afterCr && text !== "") {
      this.#afterCr = false;
      if (StringPrototypeCharCodeAt(text, 0) === LF) text = StringPrototypeSlice(text, 1);
    }
    let from = 0;
    for (let at = 0; at < text.length; at++) {
      const unit = StringPrototypeCharCodeAt(text, at);
      if (unit !== CR && unit !== LF) continue;
      const line = this.#rest + StringPrototypeSlice(text, from, at);
      this.#rest = "";
      if (unit === CR) {
        if (at + 1 === text.length) this.#afterCr = true;
        else if (StringPrototypeCharCodeAt(text, at + 1) === LF) at++;
      }
      from = at + 1;
      this.#line(line);
    }
    this.#rest += StringPrototypeSlice(text, from);
    if (this.#rest.length + this.#units > EVENT_UNITS_MAX) throw new TypeError("An event is too large.");
  }
  #line(line) {
    if (line === "") return this.#dispatch();
    const colon = StringPrototypeIndexOf(line, ":");
    const name = colon < 0 ? line : StringPrototypeSlice(line, 0, colon);
    let value = colon < 0 ? "" : StringPrototypeSlice(line, colon + 1);
    if (StringPrototypeStartsWith(value, " ")) value = StringPrototypeSlice(value, 1);
    switch (name) {
      case "data":
        this.#units += value.length + 1;
        if (this.#units > EVENT_UNITS_MAX) throw new TypeError("An event is too large.");
        ArrayPrototypePush(this.#data, value);
        break;
      case "event": this.#type = value; break;
      case "id": if (!StringPrototypeIncludes(value, "\0")) this.#id = value; break;
      case "retry": if (RegExpPrototypeTest(/^[0-9]+$/, value)) this.retry = clamp(+value); break;
    }
  }
  #dispatch() {
    const data = this.#data, type = this.#type;
    this.lastEventId = this.#id;
    this.#data = [];
    this.#units = 0;
    this.#type = "";
    if (data.length > 0) this.#emit(type === "" ? "message" : type, ArrayPrototypeJoin(data, "\n"), this.lastEventId);
  }
}
const clamp = (ms) => ms < RETRY_MS_MIN ? RETRY_MS_MIN : ms > RETRY_MS_MAX ? RETRY_MS_MAX : ms;

class EventSource extends EventTarget {
  #state = CONNECTING;
  #url = "";
  #stop = new AbortController();
  #lastEventId = "";
  #retry = RETRY_MS;

  static {
    for (const { 0: name, 1: value } of new primordials.SafeArrayIterator([["CONNECTING", CONNECTING], ["OPEN", OPEN], ["CLOSED", CLOSED]])) {
      const constant = { __proto__: null, value, enumerable: true };
      ObjectDefineProperty(this, name, constant);
      ObjectDefineProperty(this.prototype, name, constant);
    }
    for (const name of new primordials.SafeArrayIterator(["open", "message", "error"])) defineEventHandler(this.prototype, name);
  }

  constructor(url, init = undefined) {
    super();
    if (arguments.length === 0) throw new TypeError("Failed to construct 'EventSource': parameter 1 is not of type 'string'.");
    if (url === inside) return;
    const { URL } = host.load("ext:deno_web/00_url.js");
    const text = String(url);
    if (!URL.canParse(text)) throw domException(`Cannot open an EventSource to '${text}'. The URL is invalid.`, "SyntaxError");
    if (init?.withCredentials) throw domException("The init.withCredentials option is not supported. It must be false or undefined.", "NotSupportedError");
    host.requireInvocation();
    this.#url = new URL(text).href;
    this.#run(init?.fetcher ?? null);
  }
  /** The events of a stream of bytes: it is open already, and nothing begins again. */
  static from(stream) {
    if (!ObjectPrototypeIsPrototypeOf(ReadableStream.prototype, stream)) {
      throw new TypeError("Failed to execute 'from' on 'EventSource': parameter 1 is not of type 'ReadableStream'.");
    }
    if (stream.locked) throw new TypeError("This ReadableStream is currently locked to a reader.");
    host.requireInvocation();
    const source = new EventSource(inside);
    source.#state = OPEN;
    PromisePrototypeThen(source.#read(stream, null), () => source.#fail(), () => source.#fail());
    return source;
  }

  get readyState() { return this.#state; }
  get url() { return this.#url; }
  get withCredentials() { return false; }
  close() {
    this.#state = CLOSED;
    this.#stop.abort();
  }

  /** Connects until it is closed, or may not connect any more. */
  async #run(fetcher) {
    await undefined; // handlers are set first
    while (this.#state !== CLOSED) {
      let answer;
      try {
        answer = await this.#ask(fetcher);
      } catch { /* no connection: another try */ }
      if (this.#state === CLOSED) return;
      if (answer !== undefined) {
        const kind = answer.headers.get("content-type") ?? "";
        if (answer.status !== 200 || answer.body === null || !RegExpPrototypeTest(/^\s*text\/event-stream\s*(;|$)/i, kind)) {
          // Nobody reads what else it says.
          if (answer.body !== null) PromisePrototypeThen(answer.body.cancel(), undefined, () => {});
          return this.#fail();
        }
        this.#state = OPEN;
        this.#tell(new Event("open"));
        const { URL } = host.load("ext:deno_web/00_url.js");
        try {
          await this.#read(answer.body, new URL(answer.url || this.#url).origin);
        } catch { /* the connection was lost */ }
        if (this.#state === CLOSED) return;
      }
      this.#state = CONNECTING;
      this.#tell(new Event("error"));
      // One that was closed meanwhile finds that out when it wakes.
      await new Promise((resolve) => globalThis.setTimeout(resolve, this.#retry));
    }
  }
  #ask(fetcher) {
    const headers = new host.fetchApi.Headers();
    headers.set("accept", "text/event-stream");
    headers.set("cache-control", "no-cache");
    if (this.#lastEventId !== "") headers.set("last-event-id", this.#lastEventId);
    const init = { headers, signal: this.#stop.signal };
    return fetcher === null ? host.fetchApi.fetch(this.#url, init) : fetcher.fetch(this.#url, init);
  }
  async #read(stream, origin) {
    const parser = new Parser((type, data, lastEventId) => {
      const event = new MessageEvent(type, { data, lastEventId });
      event.origin = origin;
      this.#tell(event);
    }, this.#lastEventId);
    const decoder = new TextDecoder();
    const reader = stream.getReader();
    const stop = () => PromisePrototypeThen(reader.cancel(), undefined, () => {});
    const { signal } = this.#stop;
    signal.addEventListener("abort", stop);
    try {
      while (this.#state !== CLOSED) {
        const { done, value } = await reader.read();
        if (done) break;
        parser.feed(decoder.decode(host.fetchApi.chunkBytes(value), { stream: true }));
        this.#retry = parser.retry;
        this.#lastEventId = parser.lastEventId;
      }
    } catch (error) {
      stop();
      throw error;
    } finally {
      signal.removeEventListener("abort", stop);
    }
  }
  #tell(event) {
    if (this.#state !== CLOSED) this.dispatchEvent(event);
  }
  #fail() {
    if (this.#state === CLOSED) return;
    this.#state = CLOSED;
    this.dispatchEvent(new Event("error"));
  }
}
const inside = {}; // given by this script alone

return { EventSource };
})();
