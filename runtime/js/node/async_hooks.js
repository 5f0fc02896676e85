// `node:async_hooks`: AsyncLocalStorage and AsyncResource over V8's continuation-preserved data.
//
// The same data carries the invocation that code runs for (prelude.js, `kInvocation`), and an invocation begins with
// nothing else in it: no store of one invocation is seen by another. What is kept from one invocation (a snapshot, a
// resource) cannot be entered in another; kept from the global scope, it brings its stores and no invocation.
(function () {
"use strict";
const { core, primordials, internals } = __bootstrap;
const { kInvocation } = internals.atoll;
const { AsyncVariable, getAsyncContext, setAsyncContext } = core;
const { Error, ObjectIs, ObjectDefineProperty, ReflectApply } = primordials;
const validators = () => core.loadExtScript("ext:deno_node/internal/validators.mjs");

const ELSEWHERE =
  "Cannot call this AsyncLocalStorage bound function outside of the request in which it was created.";

/** Calls a function with what was captured. */
function within(captured, callback, receiver, args) {
  const now = getAsyncContext();
  const its = captured?.[kInvocation], ours = now?.[kInvocation];
  if (its !== ours) {
    if (its !== undefined) throw new Error(ELSEWHERE);
    captured = { __proto__: null, ...captured, [kInvocation]: ours };
  }
  setAsyncContext(captured);
  try {
    return ReflectApply(callback, receiver, args);
  } finally {
    setAsyncContext(now);
  }
}
function bind(callback) {
  validators().validateFunction(callback, "fn");
  const captured = getAsyncContext();
  return function (...args) {
    return within(captured, callback, this, args);
  };
}

// What a storage holds where `exit()` was called: nothing, not even its default.
const EXITED = {};

class AsyncLocalStorage {
  #variable = new AsyncVariable();
  #default;
  #name = "";
  constructor(options = { __proto__: null }) {
    validators().validateObject(options, "options");
    this.#default = options.defaultValue;
    if (options.name !== undefined) this.#name = `${options.name}`;
  }
  get name() {
    return this.#name;
  }
  run(store, callback, ...args) {
    if (ObjectIs(this.getStore(), store)) return ReflectApply(callback, undefined, args);
    const before = this.#variable.enter({ store });
    try {
      return ReflectApply(callback, undefined, args);
    } finally {
      setAsyncContext(before);
    }
  }
  exit(callback, ...args) {
    const before = this.#variable.enter(EXITED);
    try {
      return ReflectApply(callback, undefined, args);
    } finally {
      setAsyncContext(before);
    }
  }
  getStore() {
    const held = this.#variable.get();
    return held === undefined ? this.#default : held.store;
  }
  enterWith(store) {
    this.#variable.enter({ store });
  }
  disable() {
    this.#variable.enter(EXITED);
  }
  static bind(callback) {
    return bind(callback);
  }
  static snapshot() {
    const captured = getAsyncContext();
    return (callback, ...args) => within(captured, callback, undefined, args);
  }
}

class AsyncResource {
  #captured = getAsyncContext();
  asyncId() {
    return 0;
  }
  triggerAsyncId() {
    return 0;
  }
  emitDestroy() {}
  runInAsyncScope(callback, receiver, ...args) {
    return within(this.#captured, callback, receiver, args);
  }
  bind(callback, receiver) {
    validators().validateFunction(callback, "fn");
    const resource = this, captured = this.#captured;
    const bound = function (...args) {
      return within(captured, callback, receiver === undefined ? this : receiver, args);
    };
    ObjectDefineProperty(bound, "asyncResource", {
      __proto__: null, value: resource, writable: true, enumerable: true, configurable: true,
    });
    return bound;
  }
  static bind(callback, type, receiver) {
    return new AsyncResource(type).bind(callback, receiver);
  }
}

// Hooks tell what an event loop does; there is none to look into.
class AsyncHook {
  enable() {
    return this;
  }
  disable() {
    return this;
  }
}

const asyncWrapProviders = { __proto__: null };
for (const name of [
  "NONE", "DIRHANDLE", "DNSCHANNEL", "ELDHISTOGRAM", "FILEHANDLE", "FILEHANDLECLOSEREQ", "BLOBREADER", "FSEVENTWRAP",
  "FSREQCALLBACK", "FSREQPROMISE", "GETADDRINFOREQWRAP", "GETNAMEINFOREQWRAP", "HTTPINCOMINGMESSAGE",
  "HTTPCLIENTREQUEST", "PROMISE", "TCPWRAP", "Timeout", "Immediate", "TickObject",
]) {
  asyncWrapProviders[name] = 0;
}

return {
  AsyncLocalStorage,
  AsyncResource,
  asyncWrapProviders,
  createHook: () => new AsyncHook(),
  executionAsyncId: () => 0,
  executionAsyncResource: () => ({ __proto__: null }),
  triggerAsyncId: () => 0,
};
})();
