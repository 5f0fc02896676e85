// Globals that Workers have and browsers do not, or that few workers use.
// https://developers.cloudflare.com/workers/runtime-apis/
(function () {
"use strict";
const { core, primordials, internals } = __bootstrap;
const host = internals.atoll;
const {
  ArrayPrototypePush, BigInt, Number, Promise, PromisePrototypeThen, SafeArrayIterator, SafeWeakMap, TypeError,
  TypedArrayPrototypeSet, Uint8Array, WeakMapPrototypeGet, WeakMapPrototypeSet,
} = primordials;
const { Event } = host.load("ext:deno_web/02_event.js");
const { TransformStream, WritableStream } = host.load("ext:deno_web/06_streams.js");

class ExtendableEvent extends Event {
  waitUntil(promise) {
    host.requireInvocation().waitUntil(promise);
  }
}
class FetchEvent extends ExtendableEvent {}
class ScheduledController {
  cron;
  scheduledTime;
  constructor(cron, scheduledTime) {
    this.cron = cron;
    this.scheduledTime = scheduledTime;
  }
  noRetry() {}
}

class IdentityTransformStream extends TransformStream {
  constructor(options = {}) {
    super({
      transform(chunk, controller) {
        const bytes = host.fetchApi.chunkBytes(chunk);
        if (bytes.byteLength > 0) controller.enqueue(bytes.slice());
      },
    });
  }
}
const lengths = new SafeWeakMap();
class FixedLengthStream extends TransformStream {
  constructor(length) {
    const total = typeof length === "bigint" ? Number(length) : +length;
    if (!(total >= 0 && total <= Number.MAX_SAFE_INTEGER)) throw new TypeError("FixedLengthStream requires an integer expected length less than 2^53.");
    let seen = 0;
    super({
      transform(chunk, controller) {
        const bytes = host.fetchApi.chunkBytes(chunk);
        seen += bytes.byteLength;
        if (seen > total) throw new TypeError("Attempt to write too many bytes through a FixedLengthStream.");
        controller.enqueue(bytes.slice());
      },
      flush() {
        if (seen < total) throw new TypeError("FixedLengthStream did not see all expected bytes before close().");
      },
    });
    WeakMapPrototypeSet(lengths, this.readable, total);
  }
}
/** The length that a FixedLengthStream's readable side promised, or undefined. */
const fixedLength = (stream) => WeakMapPrototypeGet(lengths, stream);

// The chunks wait until the stream ends: WebCrypto cannot hash in parts.
class DigestStream extends WritableStream {
  #digest;
  #bytes = 0;
  constructor(algorithm) {
    const { crypto } = host.load("ext:deno_crypto/00_crypto.js");
    const chunks = [];
    let count = (length) => length;
    let resolve, reject;
    super({
      write(chunk) {
        const bytes = (typeof chunk === "string" ? core.encode(chunk) : host.fetchApi.chunkBytes(chunk)).slice();
        count(bytes.byteLength);
        ArrayPrototypePush(chunks, bytes);
      },
      async close() {
        const all = new Uint8Array(count(0));
        let at = 0;
        for (const chunk of new SafeArrayIterator(chunks)) {
          TypedArrayPrototypeSet(all, chunk, at);
          at += chunk.byteLength;
        }
        chunks.length = 0;
        try {
          resolve(await crypto.subtle.digest(algorithm, all));
        } catch (error) {
          reject(error);
          throw error;
        }
      },
      abort(reason) {
        reject(reason);
      },
    });
    count = (length) => this.#bytes += length;
    this.#digest = new Promise((yes, no) => {
      resolve = yes;
      reject = no;
    });
    // Nobody need look at it.
    PromisePrototypeThen(this.#digest, undefined, () => {});
  }
  get digest() { return this.#digest; }
  get bytesWritten() { return BigInt(this.#bytes); }
}
/** Compares two buffers of one length without stopping at the first difference. */
function timingSafeEqual(a, b) {
  const left = host.fetchApi.chunkBytes(a), right = host.fetchApi.chunkBytes(b);
  if (left.byteLength !== right.byteLength) throw new TypeError("Input buffers must have the same byte length.");
  let difference = 0;
  for (let i = 0; i < left.length; i++) difference |= left[i] ^ right[i];
  return difference === 0;
}

/** console.table's drawing of an array, a Map, a Set or an object; undefined for anything else. */
function drawTable(data, columns) {
  if (data === null || typeof data !== "object") return undefined;
  const { inspect } = host.load("ext:deno_web/01_console.js");
  const show = (value) => inspect(value, { depth: 1, colors: false, compact: true, breakLength: Infinity });
  const rows = [], names = [];
  let primitives = false;
  const entries = data instanceof Map || data instanceof Set ? [...data.values()].entries() : Object.entries(data);
  for (const { 0: index, 1: value } of entries) {
    const row = { __proto__: null, index: `${index}`, cells: { __proto__: null }, value: undefined };
    if (value !== null && typeof value === "object") {
      for (const key of columns ?? Object.keys(value)) {
        if (!names.includes(key)) ArrayPrototypePush(names, key);
        if (key in value) row.cells[key] = show(value[key]);
      }
    } else {
      primitives = true;
      row.value = show(value);
    }
    ArrayPrototypePush(rows, row);
  }
  const heads = ["(index)", ...names, ...(primitives ? ["Values"] : [])];
  const lines = rows.map((row) => [row.index, ...names.map((name) => row.cells[name] ?? ""), ...(primitives ? [row.value ?? ""] : [])]);
  const widths = heads.map((head, i) => Math.max(head.length, ...lines.map((line) => line[i].length)) + 2);
  const rule = (left, middle, right) => left + widths.map((width) => "─".repeat(width)).join(middle) + right;
  const line = (cells) => "│" + cells.map((cell, i) => ` ${cell}`.padEnd(widths[i])).join("│") + "│";
  return [rule("┌", "┬", "┐"), line(heads), rule("├", "┼", "┤"), ...lines.map(line), rule("└", "┴", "┘")].join("\n");
}

const navigator = Object.freeze({
  __proto__: class Navigator {}.prototype,
  userAgent: "Cloudflare-Workers",
  language: "en",
  languages: Object.freeze(["en"]),
  hardwareConcurrency: 1,
  platform: "Linux",
});
const scheduler = {
  /** Resolves after `delay` milliseconds, or rejects when the signal aborts. */
  wait(delay, { signal } = {}) {
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      const timer = globalThis.setTimeout(resolve, delay);
      signal?.addEventListener("abort", () => {
        globalThis.clearTimeout(timer);
        reject(signal.reason);
      }, { once: true });
    });
  },
};
return {
  ExtendableEvent, FetchEvent, ScheduledController, IdentityTransformStream, FixedLengthStream, fixedLength, DigestStream,
  timingSafeEqual, drawTable, navigator, scheduler,
};
})();
