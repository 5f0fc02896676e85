// `node:timers` and `node:timers/promises`, and the global timers where they return objects. The clock and the queue
// are those of prelude.js. Most workers that use a timer use nothing else of Node.js, so this loads no other script
// unless an argument is wrong or a promise is asked for.
(function () {
"use strict";
const { primordials, internals } = __bootstrap;
const timer = internals.atoll.timers;
const script = (specifier) => internals.atoll.load("ext:atoll/node/modules.js").script(specifier);
const {
  ObjectDefineProperty, ObjectPrototypeIsPrototypeOf, Promise, ReflectApply, SafeMap, MapPrototypeDelete,
  MapPrototypeGet, MapPrototypeSet, SymbolDispose, SymbolToPrimitive,
} = primordials;
const errors = () => script("ext:deno_node/internal/errors.ts");
const validators = () => script("ext:deno_node/internal/validators.mjs");

function checked(callback) {
  if (typeof callback !== "function") validators().validateFunction(callback, "callback");
}

const kCustomPromisify = primordials.SymbolFor("nodejs.util.promisify.custom");
// So that a plain number, as `+timeout` gives, still clears.
const live = new SafeMap();

class Timeout {
  #id = 0;
  #callback;
  #delay;
  #args;
  #repeats;
  #ref = true;
  #closed = false;
  constructor(callback, delay, args, repeats) {
    this.#callback = callback;
    this.#delay = delay;
    this.#args = args;
    this.#repeats = repeats;
    this.#arm();
  }
  #arm() {
    MapPrototypeDelete(live, this.#id);
    this.#id = timer.add(this.#fire, this.#delay, [this], this.#repeats);
    MapPrototypeSet(live, this.#id, this);
  }
  #fire(self) {
    if (!self.#repeats) MapPrototypeDelete(live, self.#id);
    ReflectApply(self.#callback, self, self.#args);
  }
  refresh() {
    if (!this.#closed) {
      timer.clear(this.#id);
      this.#arm();
    }
    return this;
  }
  ref() {
    this.#ref = true;
    return this;
  }
  unref() {
    this.#ref = false;
    return this;
  }
  hasRef() {
    return this.#ref;
  }
  close() {
    this.#closed = true;
    timer.clear(this.#id);
    MapPrototypeDelete(live, this.#id);
    return this;
  }
  [SymbolDispose]() {
    this.close();
  }
  [SymbolToPrimitive]() {
    return this.#id;
  }
}

class Immediate {
  #id;
  #ref = true;
  constructor(callback, args) {
    this.#id = timer.add(callback, 0, args, false);
  }
  ref() {
    this.#ref = true;
    return this;
  }
  unref() {
    this.#ref = false;
    return this;
  }
  hasRef() {
    return this.#ref;
  }
  static clear(immediate) {
    timer.clear(immediate.#id);
  }
  [SymbolDispose]() {
    timer.clear(this.#id);
  }
}

function setTimeout(callback, delay = 1, ...args) {
  checked(callback);
  return new Timeout(callback, delay, args, false);
}
function setInterval(callback, delay = 1, ...args) {
  checked(callback);
  return new Timeout(callback, delay, args, true);
}
function setImmediate(callback, ...args) {
  checked(callback);
  return new Immediate(callback, args);
}
function clearTimeout(timeout) {
  if (typeof timeout === "number" || typeof timeout === "string") {
    const known = MapPrototypeGet(live, +timeout);
    if (known === undefined) timer.clear(timeout);
    else known.close();
  } else if (ObjectPrototypeIsPrototypeOf(Timeout.prototype, timeout)) {
    timeout.close();
  }
}
function clearInterval(timeout) {
  clearTimeout(timeout);
}
function clearImmediate(immediate) {
  if (ObjectPrototypeIsPrototypeOf(Immediate.prototype, immediate)) Immediate.clear(immediate);
  else if (typeof immediate === "number") timer.clear(immediate);
}

// ---- Promises --------------------------------------------------------------------------------------------

/** Starts something that a signal can stop; `start(resolve)` gives what stops it. */
function later(options, start) {
  const { validateObject, validateAbortSignal, validateBoolean } = validators();
  return new Promise((resolve, reject) => {
    validateObject(options, "options");
    const { signal, ref } = options;
    if (signal !== undefined) validateAbortSignal(signal, "options.signal");
    if (ref !== undefined) validateBoolean(ref, "options.ref");
    const { AbortError } = errors();
    if (signal?.aborted) {
      reject(new AbortError(undefined, { __proto__: null, cause: signal.reason }));
      return;
    }
    let onAbort;
    const stop = start((value) => {
      signal?.removeEventListener("abort", onAbort);
      resolve(value);
    });
    if (signal !== undefined) {
      onAbort = () => {
        stop();
        reject(new AbortError(undefined, { __proto__: null, cause: signal.reason }));
      };
      signal.addEventListener("abort", onAbort, { __proto__: null, once: true });
    }
  });
}
const KEEP = { __proto__: null };
const promises = {
  setTimeout(delay, value, options = KEEP) {
    return later(options, (resolve) => {
      if (delay !== undefined) validators().validateNumber(delay, "delay");
      const id = timer.add(resolve, delay ?? 1, [value], false);
      return () => timer.clear(id);
    });
  },
  setImmediate(value, options = KEEP) {
    return later(options, (resolve) => {
      const id = timer.add(resolve, 0, [value], false);
      return () => timer.clear(id);
    });
  },
  setInterval(delay, value, options = KEEP) {
    return intervals(delay, value, options);
  },
  scheduler: {
    wait: (delay, options) => promises.setTimeout(delay, undefined, options),
    yield: () => promises.setImmediate(),
  },
};
async function* intervals(delay, value, options) {
  const { validateObject, validateAbortSignal, validateNumber } = validators();
  validateObject(options, "options");
  if (delay !== undefined) validateNumber(delay, "delay");
  const { signal } = options;
  if (signal !== undefined) validateAbortSignal(signal, "options.signal");
  const { AbortError } = errors();
  if (signal?.aborted) throw new AbortError(undefined, { __proto__: null, cause: signal.reason });
  let due = 0, wake;
  const id = timer.add(() => {
    due++;
    wake?.();
  }, delay ?? 1, [], true);
  const onAbort = () => wake?.();
  signal?.addEventListener("abort", onAbort, { __proto__: null, once: true });
  try {
    for (;;) {
      if (due === 0 && !signal?.aborted) await new Promise((resolve) => wake = resolve);
      wake = undefined;
      for (; due > 0; due--) yield value;
      if (signal?.aborted) throw new AbortError(undefined, { __proto__: null, cause: signal.reason });
    }
  } finally {
    timer.clear(id);
    signal?.removeEventListener("abort", onAbort);
  }
}
for (const [callback, promised] of [[setTimeout, promises.setTimeout], [setImmediate, promises.setImmediate]]) {
  ObjectDefineProperty(callback, kCustomPromisify, {
    __proto__: null, get: () => promised, enumerable: true, configurable: true,
  });
}

return {
  setTimeout, setInterval, setImmediate, clearTimeout, clearInterval, clearImmediate,
  promises,
  timers: {
    promises, setTimeout, clearTimeout, setImmediate, clearImmediate, setInterval, clearInterval,
    // Deprecated, and nothing to do here.
    active() {},
    unenroll() {},
    enroll() {
      throw new primordials.Error("Not implemented. Please use setTimeout() instead.");
    },
    Timeout,
  },
};
})();
