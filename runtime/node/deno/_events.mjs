// Copyright 2018-2026 the Deno authors. MIT license.
// Copyright Joyent, Inc. and other Node contributors.
(function() {
  const { core, primordials } = __bootstrap;
  const {
    ArrayPrototypeIndexOf,
    ArrayPrototypeJoin,
    ArrayPrototypeMap,
    ArrayPrototypeFilter,
    ArrayPrototypePop,
    ArrayPrototypePush,
    ArrayPrototypeShift,
    ArrayPrototypeSlice,
    ArrayPrototypeSplice,
    ArrayPrototypeUnshift,
    Boolean,
    Error,
    ErrorCaptureStackTrace,
    ErrorPrototype,
    FunctionPrototypeApply,
    FunctionPrototypeBind,
    FunctionPrototypeCall,
    MathMin,
    NumberMAX_SAFE_INTEGER,
    ObjectCreate,
    ObjectDefineProperties,
    ObjectDefineProperty,
    ObjectEntries,
    ObjectGetPrototypeOf,
    ObjectPrototypeIsPrototypeOf,
    ObjectSetPrototypeOf,
    Promise,
    PromiseReject,
    PromiseResolve,
    ReflectOwnKeys,
    SafeArrayIterator,
    SafeMap,
    SafeSet,
    String,
    StringPrototypeSplit,
    Symbol,
    SymbolFor,
    SymbolAsyncIterator
  } = primordials;
  const kRejection = SymbolFor("nodejs.rejection");
  const kWatermarkData = SymbolFor("nodejs.watermarkData");
  const kEvents = Symbol("kEvents");
  const { inspect } = core.loadExtScript(
    "ext:deno_node/internal/util/inspect.mjs"
  );
  const { kEmptyObject } = core.loadExtScript(
    "ext:deno_node/internal/util.mjs"
  );
  const {
    AbortError,
    ERR_INVALID_ARG_TYPE,
    ERR_INVALID_THIS,
    ERR_UNHANDLED_ERROR
  } = core.loadExtScript("ext:deno_node/internal/errors.ts");
  const lazyAsyncHooks = core.createLazyLoader("node:async_hooks");
  const {
    validateAbortSignal,
    validateBoolean,
    validateFunction,
    validateInteger,
    validateNumber,
    validateObject,
    validateString
  } = core.loadExtScript("ext:deno_node/internal/validators.mjs");
  const { spliceOne } = core.loadExtScript("ext:deno_node/_utils.ts");
  const { nextTick } = core.loadExtScript("ext:deno_node/_process/process.ts");
  const {
    eventTargetData,
    kResistStopImmediatePropagation
  } = core.loadExtScript("ext:deno_web/02_event.js");
  const { addAbortListener } = core.loadExtScript(
    "ext:deno_node/internal/events/abort_listener.mjs"
  );
  const kFirstEventParam = Symbol("kFirstEventParam");
  const kCapture = Symbol("kCapture");
  const kErrorMonitor = Symbol("events.errorMonitor");
  const kMaxEventTargetListeners = Symbol("events.maxEventTargetListeners");
  const kMaxEventTargetListenersWarned = Symbol(
    "events.maxEventTargetListenersWarned"
  );
  function EventEmitter(opts) {
    FunctionPrototypeCall(EventEmitter.init, this, opts);
  }
  EventEmitter.on = on;
  EventEmitter.once = once;
  EventEmitter.getEventListeners = getEventListeners;
  EventEmitter.setMaxListeners = setMaxListeners;
  EventEmitter.getMaxListeners = getMaxListeners;
  EventEmitter.listenerCount = listenerCount;
  EventEmitter.addAbortListener = addAbortListener;
  EventEmitter.EventEmitter = EventEmitter;
  EventEmitter.usingDomains = false;
  EventEmitter.captureRejectionSymbol = kRejection;
  EventEmitter.errorMonitor = kErrorMonitor;
  const captureRejectionSymbol = kRejection;
  const errorMonitor = kErrorMonitor;
  ObjectDefineProperty(EventEmitter, "captureRejections", {
    __proto__: null,
    get() {
      return EventEmitter.prototype[kCapture];
    },
    set(value) {
      validateBoolean(value, "EventEmitter.captureRejections");
      EventEmitter.prototype[kCapture] = value;
    },
    enumerable: true
  });
  ObjectDefineProperty(EventEmitter.prototype, kCapture, {
    __proto__: null,
    value: false,
    writable: true,
    enumerable: false
  });
  EventEmitter.prototype._events = void 0;
  EventEmitter.prototype._eventsCount = 0;
  EventEmitter.prototype._maxListeners = void 0;
  let defaultMaxListeners = 10;
  function checkListener(listener) {
    validateFunction(listener, "listener");
  }
  ObjectDefineProperty(EventEmitter, "defaultMaxListeners", {
    __proto__: null,
    enumerable: true,
    get: function() {
      return defaultMaxListeners;
    },
    set: function(arg) {
      validateNumber(arg, "defaultMaxListeners", 0);
      defaultMaxListeners = arg;
    }
  });
  ObjectDefineProperties(EventEmitter, {
    __proto__: null,
    kMaxEventTargetListeners: {
      __proto__: null,
      value: kMaxEventTargetListeners,
      enumerable: false,
      configurable: false,
      writable: false
    },
    kMaxEventTargetListenersWarned: {
      __proto__: null,
      value: kMaxEventTargetListenersWarned,
      enumerable: false,
      configurable: false,
      writable: false
    }
  });
  function setMaxListeners(n = defaultMaxListeners, ...eventTargets) {
    validateNumber(n, "setMaxListeners", 0);
    if (eventTargets.length === 0) {
      defaultMaxListeners = n;
    } else {
      for (let i = 0; i < eventTargets.length; i++) {
        const target = eventTargets[i];
        if (ObjectPrototypeIsPrototypeOf(EventTarget.prototype, target)) {
          target[kMaxEventTargetListeners] = n;
          target[kMaxEventTargetListenersWarned] = false;
        } else if (typeof target.setMaxListeners === "function") {
          target.setMaxListeners(n);
        } else {
          throw new ERR_INVALID_ARG_TYPE(
            "eventTargets",
            ["EventEmitter", "EventTarget"],
            target
          );
        }
      }
    }
  }
  EventEmitter.init = function(opts) {
    if (this._events === void 0 || this._events === ObjectGetPrototypeOf(this)._events) {
      this._events = ObjectCreate(null);
      this._eventsCount = 0;
    }
    this._maxListeners = this._maxListeners || void 0;
    if (opts?.captureRejections) {
      validateBoolean(opts.captureRejections, "options.captureRejections");
      this[kCapture] = Boolean(opts.captureRejections);
    } else {
      this[kCapture] = EventEmitter.prototype[kCapture];
    }
  };
  function addCatch(that, promise, type, args) {
    if (!that[kCapture]) {
      return;
    }
    try {
      const then = promise.then;
      if (typeof then === "function") {
        FunctionPrototypeCall(then, promise, void 0, function(err) {
          nextTick(emitUnhandledRejectionOrErr, that, err, type, args);
        });
      }
    } catch (err) {
      that.emit("error", err);
    }
  }
  function emitUnhandledRejectionOrErr(ee, err, type, args) {
    if (typeof ee[kRejection] === "function") {
      ee[kRejection](err, type, ...new SafeArrayIterator(args));
    } else {
      const prev = ee[kCapture];
      try {
        ee[kCapture] = false;
        ee.emit("error", err);
      } finally {
        ee[kCapture] = prev;
      }
    }
  }
  EventEmitter.prototype.setMaxListeners = function setMaxListeners2(n) {
    validateNumber(n, "setMaxListeners", 0);
    this._maxListeners = n;
    return this;
  };
  function getMaxListeners(emitterOrTarget) {
    if (typeof emitterOrTarget?.getMaxListeners === "function") {
      return _getMaxListeners(emitterOrTarget);
    } else if (typeof emitterOrTarget?.[kMaxEventTargetListeners] === "number") {
      return emitterOrTarget[kMaxEventTargetListeners] ?? defaultMaxListeners;
    } else if (ObjectPrototypeIsPrototypeOf(AbortSignal.prototype, emitterOrTarget)) {
      return 0;
    } else if (ObjectPrototypeIsPrototypeOf(EventTarget.prototype, emitterOrTarget)) {
      return defaultMaxListeners;
    }
    throw new ERR_INVALID_ARG_TYPE(
      "emitter",
      ["EventEmitter", "EventTarget"],
      emitterOrTarget
    );
  }
  function _getMaxListeners(that) {
    if (that._maxListeners === void 0) {
      return EventEmitter.defaultMaxListeners;
    }
    return that._maxListeners;
  }
  EventEmitter.prototype.getMaxListeners = function getMaxListeners2() {
    return _getMaxListeners(this);
  };
  function identicalSequenceRange(a, b) {
    for (let i = 0; i < a.length - 3; i++) {
      const pos = ArrayPrototypeIndexOf(b, a[i]);
      if (pos !== -1) {
        const rest = b.length - pos;
        if (rest > 3) {
          let len = 1;
          const maxLen = MathMin(a.length - i, rest);
          while (maxLen > len && a[i + len] === b[pos + len]) {
            len++;
          }
          if (len > 3) {
            return [len, i];
          }
        }
      }
    }
    return [0, 0];
  }
  function enhanceStackTrace(err, own) {
    let ctorInfo = "";
    try {
      const { name } = this.constructor;
      if (name !== "EventEmitter") {
        ctorInfo = ` on ${name} instance`;
      }
    } catch {
    }
    const sep = `
Emitted 'error' event${ctorInfo} at:
`;
    const errStack = ArrayPrototypeSlice(
      StringPrototypeSplit(err.stack, "\n"),
      1
    );
    const ownStack = ArrayPrototypeSlice(
      StringPrototypeSplit(own.stack, "\n"),
      1
    );
    const { 0: len, 1: off } = identicalSequenceRange(ownStack, errStack);
    if (len > 0) {
      ArrayPrototypeSplice(
        ownStack,
        off + 1,
        len - 2,
        "    [... lines matching original stack trace ...]"
      );
    }
    return err.stack + sep + ArrayPrototypeJoin(ownStack, "\n");
  }
  EventEmitter.prototype.emit = function emit(type, ...args) {
    let doError = type === "error";
    const events = this._events;
    if (events !== void 0) {
      if (doError && events[kErrorMonitor] !== void 0) {
        this.emit(kErrorMonitor, ...new SafeArrayIterator(args));
      }
      doError = doError && events.error === void 0;
    } else if (!doError) {
      return false;
    }
    if (doError) {
      let er;
      if (args.length > 0) {
        er = args[0];
      }
      if (ObjectPrototypeIsPrototypeOf(ErrorPrototype, er)) {
        try {
          const capture = {};
          ErrorCaptureStackTrace(capture, EventEmitter.prototype.emit);
        } catch {
        }
        throw er;
      }
      let stringifiedEr;
      try {
        stringifiedEr = inspect(er);
      } catch {
        stringifiedEr = er;
      }
      const err = new ERR_UNHANDLED_ERROR(stringifiedEr);
      err.context = er;
      throw err;
    }
    const handler = events[type];
    if (handler === void 0) {
      return false;
    }
    if (typeof handler === "function") {
      const result = FunctionPrototypeApply(handler, this, args);
      if (result !== void 0 && result !== null) {
        addCatch(this, result, type, args);
      }
    } else {
      const len = handler.length;
      const listeners = arrayClone(handler);
      for (let i = 0; i < len; ++i) {
        const result = FunctionPrototypeApply(listeners[i], this, args);
        if (result !== void 0 && result !== null) {
          addCatch(this, result, type, args);
        }
      }
    }
    return true;
  };
  function _addListener(target, type, listener, prepend) {
    let m;
    let events;
    let existing;
    checkListener(listener);
    events = target._events;
    if (events === void 0) {
      events = target._events = ObjectCreate(null);
      target._eventsCount = 0;
    } else {
      if (events.newListener !== void 0) {
        target.emit("newListener", type, listener.listener ?? listener);
        events = target._events;
      }
      existing = events[type];
    }
    if (existing === void 0) {
      events[type] = listener;
      ++target._eventsCount;
    } else {
      if (typeof existing === "function") {
        existing = events[type] = prepend ? [listener, existing] : [existing, listener];
      } else if (prepend) {
        ArrayPrototypeUnshift(existing, listener);
      } else {
        ArrayPrototypePush(existing, listener);
      }
      m = _getMaxListeners(target);
      if (m > 0 && existing.length > m && !existing.warned) {
        existing.warned = true;
        const w = new Error(
          `Possible EventEmitter memory leak detected. ${existing.length} ${String(type)} listeners added to ${inspect(target, { depth: -1 })}. MaxListeners is ${m}.`
        );
        w.name = "MaxListenersExceededWarning";
        w.emitter = target;
        w.type = type;
        w.count = existing.length;
        core.loadExtScript("node:process").default.emitWarning(w);
      }
    }
    return target;
  }
  EventEmitter.prototype.addListener = function addListener(type, listener) {
    return _addListener(this, type, listener, false);
  };
  EventEmitter.prototype.on = EventEmitter.prototype.addListener;
  EventEmitter.prototype.prependListener = function prependListener(type, listener) {
    return _addListener(this, type, listener, true);
  };
  function onceWrapper() {
    if (!this.fired) {
      this.target.removeListener(this.type, this.wrapFn);
      this.fired = true;
      if (arguments.length === 0) {
        return FunctionPrototypeCall(this.listener, this.target);
      }
      return FunctionPrototypeApply(this.listener, this.target, arguments);
    }
  }
  function _onceWrap(target, type, listener) {
    const state = { fired: false, wrapFn: void 0, target, type, listener };
    const wrapped = FunctionPrototypeBind(onceWrapper, state);
    wrapped.listener = listener;
    state.wrapFn = wrapped;
    return wrapped;
  }
  EventEmitter.prototype.once = function once2(type, listener) {
    checkListener(listener);
    this.on(type, _onceWrap(this, type, listener));
    return this;
  };
  EventEmitter.prototype.prependOnceListener = function prependOnceListener(type, listener) {
    checkListener(listener);
    this.prependListener(type, _onceWrap(this, type, listener));
    return this;
  };
  EventEmitter.prototype.removeListener = function removeListener(type, listener) {
    checkListener(listener);
    const events = this._events;
    if (events === void 0) {
      return this;
    }
    const list = events[type];
    if (list === void 0) {
      return this;
    }
    if (list === listener || list.listener === listener) {
      if (--this._eventsCount === 0) {
        this._events = ObjectCreate(null);
      } else {
        delete events[type];
        if (events.removeListener) {
          this.emit("removeListener", type, list.listener || listener);
        }
      }
    } else if (typeof list !== "function") {
      let position = -1;
      for (let i = list.length - 1; i >= 0; i--) {
        if (list[i] === listener || list[i].listener === listener) {
          position = i;
          break;
        }
      }
      if (position < 0) {
        return this;
      }
      if (position === 0) {
        ArrayPrototypeShift(list);
      } else {
        spliceOne(list, position);
      }
      if (list.length === 1) {
        events[type] = list[0];
      }
      if (events.removeListener !== void 0) {
        this.emit("removeListener", type, listener);
      }
    }
    return this;
  };
  EventEmitter.prototype.off = EventEmitter.prototype.removeListener;
  EventEmitter.prototype.removeAllListeners = function removeAllListeners(type) {
    const events = this._events;
    if (events === void 0) {
      return this;
    }
    if (events.removeListener === void 0) {
      if (arguments.length === 0) {
        this._events = ObjectCreate(null);
        this._eventsCount = 0;
      } else if (events[type] !== void 0) {
        if (--this._eventsCount === 0) {
          this._events = ObjectCreate(null);
        } else {
          delete events[type];
        }
      }
      return this;
    }
    if (arguments.length === 0) {
      for (const key of new SafeArrayIterator(ReflectOwnKeys(events))) {
        if (key === "removeListener") continue;
        this.removeAllListeners(key);
      }
      this.removeAllListeners("removeListener");
      this._events = ObjectCreate(null);
      this._eventsCount = 0;
      return this;
    }
    const listeners = events[type];
    if (typeof listeners === "function") {
      this.removeListener(type, listeners);
    } else if (listeners !== void 0) {
      for (let i = listeners.length - 1; i >= 0; i--) {
        this.removeListener(type, listeners[i]);
      }
    }
    return this;
  };
  function _listeners(target, type, unwrap) {
    const events = target._events;
    if (events === void 0) {
      return [];
    }
    const evlistener = events[type];
    if (evlistener === void 0) {
      return [];
    }
    if (typeof evlistener === "function") {
      return unwrap ? [evlistener.listener || evlistener] : [evlistener];
    }
    return unwrap ? unwrapListeners(evlistener) : arrayClone(evlistener);
  }
  EventEmitter.prototype.listeners = function listeners(type) {
    return _listeners(this, type, true);
  };
  EventEmitter.prototype.rawListeners = function rawListeners(type) {
    return _listeners(this, type, false);
  };
  const _listenerCount = function listenerCount2(type, listener) {
    const events = this._events;
    if (events !== void 0) {
      const evlistener = events[type];
      if (typeof evlistener === "function") {
        if (listener != null) {
          return listener === evlistener || listener === evlistener.listener ? 1 : 0;
        }
        return 1;
      } else if (evlistener !== void 0) {
        if (listener != null) {
          let matching = 0;
          for (let i = 0, l = evlistener.length; i < l; i++) {
            if (evlistener[i] === listener || evlistener[i].listener === listener) {
              matching++;
            }
          }
          return matching;
        }
        return evlistener.length;
      }
    }
    return 0;
  };
  EventEmitter.prototype.listenerCount = _listenerCount;
  function listenerCount(emitter, type) {
    if (typeof emitter.listenerCount === "function") {
      return emitter.listenerCount(type);
    }
    if (ObjectPrototypeIsPrototypeOf(EventTarget.prototype, emitter)) {
      return getEventListeners(emitter, type).length;
    }
    return FunctionPrototypeCall(_listenerCount, emitter, type);
  }
  EventEmitter.prototype.eventNames = function eventNames() {
    return this._eventsCount > 0 ? ReflectOwnKeys(this._events) : [];
  };
  function arrayClone(arr) {
    switch (arr.length) {
      case 2:
        return [arr[0], arr[1]];
      case 3:
        return [arr[0], arr[1], arr[2]];
      case 4:
        return [arr[0], arr[1], arr[2], arr[3]];
      case 5:
        return [arr[0], arr[1], arr[2], arr[3], arr[4]];
      case 6:
        return [arr[0], arr[1], arr[2], arr[3], arr[4], arr[5]];
    }
    return ArrayPrototypeSlice(arr);
  }
  function unwrapListeners(arr) {
    const ret = arrayClone(arr);
    for (let i = 0; i < ret.length; ++i) {
      const orig = ret[i].listener;
      if (typeof orig === "function") {
        ret[i] = orig;
      }
    }
    return ret;
  }
  function getEventListeners(emitterOrTarget, type) {
    if (typeof emitterOrTarget.listeners === "function") {
      return emitterOrTarget.listeners(type);
    }
    if (ObjectPrototypeIsPrototypeOf(EventTarget.prototype, emitterOrTarget)) {
      return emitterOrTarget[eventTargetData]?.listeners?.[type]?.map((listener) => listener.callback) || [];
    }
    throw new ERR_INVALID_ARG_TYPE(
      "emitter",
      ["EventEmitter", "EventTarget"],
      emitterOrTarget
    );
  }
  async function once(emitter, name, options = kEmptyObject) {
    validateObject(options, "options");
    const signal = options?.signal;
    validateAbortSignal(signal, "options.signal");
    if (signal?.aborted) {
      throw new AbortError();
    }
    if (signal) {
      ObjectDefineProperty(signal, kEvents, kEventsGetter);
    }
    return new Promise((resolve, reject) => {
      const errorListener = (err) => {
        emitter.removeListener(name, resolver);
        if (signal != null) {
          eventTargetAgnosticRemoveListener(signal, "abort", abortListener);
        }
        reject(err);
      };
      const resolver = (...args) => {
        if (typeof emitter.removeListener === "function") {
          emitter.removeListener("error", errorListener);
        }
        if (signal != null) {
          eventTargetAgnosticRemoveListener(signal, "abort", abortListener);
        }
        resolve(args);
      };
      eventTargetAgnosticAddListener(emitter, name, resolver, { once: true });
      if (name !== "error" && typeof emitter.once === "function") {
        emitter.once("error", errorListener);
      }
      function abortListener() {
        eventTargetAgnosticRemoveListener(emitter, name, resolver);
        eventTargetAgnosticRemoveListener(emitter, "error", errorListener);
        reject(new AbortError());
      }
      if (signal != null) {
        eventTargetAgnosticAddListener(
          signal,
          "abort",
          abortListener,
          { once: true, [kResistStopImmediatePropagation]: true }
        );
      }
    });
  }
  const AsyncIteratorPrototype = ObjectGetPrototypeOf(
    ObjectGetPrototypeOf(async function* () {
    }).prototype
  );
  function createIterResult(value, done) {
    return { value, done };
  }
  function eventTargetAgnosticRemoveListener(emitter, name, listener, flags) {
    if (typeof emitter.removeListener === "function") {
      emitter.removeListener(name, listener);
    } else if (typeof emitter.removeEventListener === "function") {
      emitter.removeEventListener(name, listener, flags);
    } else {
      throw new ERR_INVALID_ARG_TYPE("emitter", "EventEmitter", emitter);
    }
  }
  function eventTargetAgnosticAddListener(emitter, name, listener, flags) {
    if (typeof emitter.on === "function") {
      if (flags?.once) {
        emitter.once(name, listener);
      } else {
        emitter.on(name, listener);
      }
    } else if (typeof emitter.addEventListener === "function") {
      emitter.addEventListener(name, listener, flags);
    } else {
      throw new ERR_INVALID_ARG_TYPE("emitter", "EventEmitter", emitter);
    }
  }
  const kEventsGetter = {
    __proto__: null,
    get() {
      const data = this[eventTargetData];
      if (!data) {
        return new SafeMap();
      }
      return new SafeMap(
        ArrayPrototypeMap(
          ArrayPrototypeFilter(
            ObjectEntries(data.listeners),
            (entry) => entry[1].length > 0
          ),
          (entry) => [entry[0], new SafeSet(entry[1])]
        )
      );
    }
  };
  function on(emitter, event, options = kEmptyObject) {
    validateObject(options, "options");
    const signal = options?.signal;
    validateAbortSignal(signal, "options.signal");
    if (signal?.aborted) {
      throw new AbortError();
    }
    if (signal) {
      ObjectDefineProperty(signal, kEvents, kEventsGetter);
    }
    const highWatermark = options.highWaterMark ?? options.highWatermark ?? NumberMAX_SAFE_INTEGER;
    validateInteger(highWatermark, "options.highWaterMark", 1);
    const lowWatermark = options.lowWaterMark ?? options.lowWatermark ?? 1;
    validateInteger(lowWatermark, "options.lowWaterMark", 1);
    const unconsumedEvents = [];
    const unconsumedPromises = [];
    let paused = false;
    let error = null;
    let finished = false;
    let size = 0;
    const iterator = ObjectSetPrototypeOf({
      next() {
        if (size) {
          const value = ArrayPrototypeShift(unconsumedEvents);
          size--;
          if (paused && size < lowWatermark) {
            emitter.resume();
            paused = false;
          }
          return PromiseResolve(createIterResult(value, false));
        }
        if (error) {
          const p = PromiseReject(error);
          error = null;
          return p;
        }
        if (finished) return closeHandler();
        return new Promise(function(resolve, reject) {
          ArrayPrototypePush(unconsumedPromises, { resolve, reject });
        });
      },
      return() {
        return closeHandler();
      },
      throw(err) {
        if (!err || !ObjectPrototypeIsPrototypeOf(ErrorPrototype, err)) {
          throw new ERR_INVALID_ARG_TYPE(
            "EventEmitter.AsyncIterator",
            "Error",
            err
          );
        }
        errorHandler(err);
      },
      [SymbolAsyncIterator]() {
        return this;
      },
      [kWatermarkData]: {
        get size() {
          return size;
        },
        get low() {
          return lowWatermark;
        },
        get high() {
          return highWatermark;
        },
        get isPaused() {
          return paused;
        }
      }
    }, AsyncIteratorPrototype);
    const { addEventListener, removeAll } = listenersController();
    addEventListener(
      emitter,
      event,
      options[kFirstEventParam] ? eventHandler : function(...args) {
        return eventHandler(args);
      }
    );
    if (event !== "error" && typeof emitter.on === "function") {
      addEventListener(emitter, "error", errorHandler);
    }
    const closeEvents = options?.close;
    if (closeEvents?.length) {
      for (let i = 0; i < closeEvents.length; i++) {
        addEventListener(emitter, closeEvents[i], closeHandler);
      }
    }
    if (signal) {
      addEventListener(signal, "abort", abortListener, { once: true });
    }
    return iterator;
    function abortListener() {
      errorHandler(new AbortError());
    }
    function eventHandler(value) {
      if (unconsumedPromises.length === 0) {
        size++;
        if (!paused && size > highWatermark) {
          paused = true;
          emitter.pause();
        }
        ArrayPrototypePush(unconsumedEvents, value);
      } else {
        ArrayPrototypeShift(unconsumedPromises).resolve(
          createIterResult(value, false)
        );
      }
    }
    function errorHandler(err) {
      if (unconsumedPromises.length === 0) {
        error = err;
      } else {
        ArrayPrototypeShift(unconsumedPromises).reject(err);
      }
      closeHandler();
    }
    function closeHandler() {
      removeAll();
      finished = true;
      paused = false;
      const doneResult = createIterResult(void 0, true);
      while (unconsumedPromises.length > 0) {
        ArrayPrototypeShift(unconsumedPromises).resolve(doneResult);
      }
      return PromiseResolve(doneResult);
    }
  }
  function listenersController() {
    const listeners = [];
    return {
      addEventListener(emitter, event, handler, flags) {
        eventTargetAgnosticAddListener(emitter, event, handler, flags);
        ArrayPrototypePush(listeners, [emitter, event, handler, flags]);
      },
      removeAll() {
        while (listeners.length > 0) {
          const entry = ArrayPrototypePop(listeners);
          eventTargetAgnosticRemoveListener(entry[0], entry[1], entry[2]);
        }
      }
    };
  }
  const kAsyncResource = Symbol("kAsyncResource");
  const kEventEmitter = Symbol("kEventEmitter");
  let _EventEmitterAsyncResource;
  function getEventEmitterAsyncResource() {
    if (_EventEmitterAsyncResource) return _EventEmitterAsyncResource;
    const { AsyncResource } = lazyAsyncHooks();
    class EventEmitterReferencingAsyncResource extends AsyncResource {
      constructor(ee, type, options) {
        super(type, options);
        this[kEventEmitter] = ee;
      }
      get eventEmitter() {
        if (this[kEventEmitter] === void 0) {
          throw new ERR_INVALID_THIS("EventEmitterReferencingAsyncResource");
        }
        return this[kEventEmitter];
      }
    }
    _EventEmitterAsyncResource = class EventEmitterAsyncResource extends EventEmitter {
      constructor(options = void 0) {
        let name;
        if (typeof options === "string") {
          name = options;
          options = void 0;
        } else {
          if (new.target === _EventEmitterAsyncResource) {
            validateString(options?.name, "options.name");
          }
          name = options?.name || new.target.name;
        }
        super(options);
        this[kAsyncResource] = new EventEmitterReferencingAsyncResource(
          this,
          name,
          options
        );
      }
      emit(event, ...args) {
        if (this[kAsyncResource] === void 0) {
          throw new ERR_INVALID_THIS("EventEmitterAsyncResource");
        }
        const { asyncResource } = this;
        ArrayPrototypeUnshift(args, super.emit, this, event);
        return FunctionPrototypeApply(
          asyncResource.runInAsyncScope,
          asyncResource,
          args
        );
      }
      emitDestroy() {
        if (this[kAsyncResource] === void 0) {
          throw new ERR_INVALID_THIS("EventEmitterAsyncResource");
        }
        this.asyncResource.emitDestroy();
      }
      get asyncId() {
        if (this[kAsyncResource] === void 0) {
          throw new ERR_INVALID_THIS("EventEmitterAsyncResource");
        }
        return this.asyncResource.asyncId();
      }
      get triggerAsyncId() {
        if (this[kAsyncResource] === void 0) {
          throw new ERR_INVALID_THIS("EventEmitterAsyncResource");
        }
        return this.asyncResource.triggerAsyncId();
      }
      get asyncResource() {
        if (this[kAsyncResource] === void 0) {
          throw new ERR_INVALID_THIS("EventEmitterAsyncResource");
        }
        return this[kAsyncResource];
      }
    };
    return _EventEmitterAsyncResource;
  }
  ObjectDefineProperty(EventEmitter, "EventEmitterAsyncResource", {
    __proto__: null,
    configurable: true,
    enumerable: true,
    get: getEventEmitterAsyncResource
  });
  return {
    addAbortListener,
    captureRejectionSymbol,
    default: EventEmitter,
    defaultMaxListeners,
    errorMonitor,
    EventEmitter,
    get EventEmitterAsyncResource() {
      return getEventEmitterAsyncResource();
    },
    getEventListeners,
    getMaxListeners,
    kEvents,
    kFirstEventParam,
    listenerCount,
    on,
    once,
    setMaxListeners
  };
})();
