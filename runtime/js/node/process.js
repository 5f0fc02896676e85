// `node:process` and the global `process`: what a worker can know of itself.
//
// With the flag `enable_nodejs_process_v2` it is an EventEmitter with Node's whole surface, else the few members that
// Workers had first. Most code reads `process.env` and no more, so the emitter and the streams are loaded when touched.
(function () {
"use strict";
const { core, primordials, internals } = __bootstrap;
const host = internals.atoll;
const { op_rpc_flag, op_clock_ms, op_invocation_failed } = core.ops;
const {
  ArrayIsArray, ArrayPrototype, BigInt, Error, ErrorCaptureStackTrace, ErrorPrototype, JSONStringify, MathFloor,
  ObjectAssign, ObjectDefineProperty, ObjectFreeze, ObjectGetPrototypeOf, ObjectKeys, ObjectPrototype,
  ObjectPrototypeIsPrototypeOf, ObjectSetPrototypeOf, Proxy, queueMicrotask, ReflectDefineProperty, ReflectHas,
  ReflectSet, SafeSet, Set, SetPrototypeAdd, SetPrototypeHas, StringPrototypeIndexOf, StringPrototypeSlice,
  SymbolToStringTag, TypeError,
} = primordials;
const errors = () => core.loadExtScript("ext:deno_node/internal/errors.ts");
const validators = () => core.loadExtScript("ext:deno_node/internal/validators.mjs");
const { nextTick } = core.loadExtScript("ext:deno_node/_next_tick.ts");

// ---- env -------------------------------------------------------------------------------------------------

/** Plain data without cycles or twins: what comes back from JSON as it went in. */
function isPlain(value, seen) {
  if (value === null || typeof value === "string" || typeof value === "boolean") return true;
  if (typeof value === "number") return true;
  if (typeof value !== "object" || SetPrototypeHas(seen, value)) return false;
  SetPrototypeAdd(seen, value);
  const prototype = ObjectGetPrototypeOf(value);
  if (prototype !== ObjectPrototype && prototype !== ArrayPrototype) return false;
  const keys = ObjectKeys(value);
  for (let i = 0; i < keys.length; i++) if (!isPlain(value[keys[i]], seen)) return false;
  return true;
}
/** The worker's variables as text: strings as they are, other plain values as JSON, capabilities not at all. */
function variables() {
  const env = {};
  if (!op_rpc_flag("nodejs_compat_populate_process_env")) return env;
  const bindings = host.getEnv() ?? {};
  const names = ObjectKeys(bindings);
  for (let i = 0; i < names.length; i++) {
    const value = bindings[names[i]];
    const text = typeof value === "string" ? value : isPlain(value, new SafeSet()) ? JSONStringify(value) : undefined;
    if (text !== undefined) {
      ObjectDefineProperty(env, names[i], {
        __proto__: null, value: text, writable: true, enumerable: true, configurable: true,
      });
    }
  }
  return env;
}
function noSymbols(name, value) {
  if (typeof name === "symbol" || typeof value === "symbol") {
    throw new TypeError("Cannot convert a symbol value to a string");
  }
}
const env = new Proxy(variables(), {
  __proto__: null,
  set(target, name, value) {
    noSymbols(name, value);
    return ReflectSet(target, name, `${value}`);
  },
  defineProperty(target, name, descriptor) {
    const refuse = (what, why) => {
      throw new (errors().ERR_INVALID_ARG_VALUE)(what, descriptor, `process.env value must ${why}`);
    };
    validators().validateObject(descriptor, "descriptor");
    if (ReflectHas(descriptor, "get") || ReflectHas(descriptor, "set")) refuse("descriptor", "not have getter/setter");
    for (const key of ["configurable", "enumerable", "writable"]) {
      if (!descriptor[key]) refuse(`descriptor.${key}`, `be ${key}`);
    }
    if (!ReflectHas(descriptor, "value")) refuse("descriptor.value", "be specified explicitly");
    noSymbols(name, descriptor.value);
    return ReflectDefineProperty(target, name, {
      __proto__: null, value: `${descriptor.value}`, writable: true, enumerable: true, configurable: true,
    });
  },
});

// ---- Methods ---------------------------------------------------------------------------------------------

/** Ends the invocation with an error that names the code. */
function exit(code) {
  const error = new Error(`The Node.js process.exit(${code ?? 0}) API was called. Canceling the request.`);
  const id = host.currentId();
  if (id !== 0) op_invocation_failed(id, error);
  throw error;
}
function getBuiltinModule(name) {
  validators().validateString(name, "id");
  return core.loadExtScript("ext:atoll/node/modules.js").load(name)?.default;
}
function warningOf(warning, name, code, detail, maker) {
  if (typeof warning !== "string" && !ObjectPrototypeIsPrototypeOf(ErrorPrototype, warning)) {
    throw new (errors().ERR_INVALID_ARG_TYPE)("warning", ["string", "Error"], warning);
  }
  const made = typeof warning === "string" ? new Error(warning) : warning;
  if (typeof warning === "string" || name !== "Warning") made.name = name;
  if (code) made.code = code;
  if (detail && typeof detail === "string") made.detail = detail;
  ErrorCaptureStackTrace(made, maker ?? emitWarning);
  return made;
}
function emitWarning(warning, options, code, maker) {
  let name = "Warning", detail;
  if (typeof options === "function") {
    maker = options;
    code = undefined;
  } else if (options !== null && typeof options === "object" && !ArrayIsArray(options)) {
    maker = options.ctor;
    if (options.type) name = options.type;
    code = options.code;
    detail = options.detail;
  } else if (options !== undefined) {
    validators().validateString(options, "type");
    name = options;
    if (typeof code === "function") {
      maker = code;
      code = undefined;
    } else if (code !== undefined) {
      validators().validateString(code, "code");
    }
  }
  const made = warningOf(warning, name, code, detail, maker);
  queueMicrotask(() => process.emit?.("warning", made));
}

function hrtime(since) {
  const now = op_clock_ms();
  let seconds = MathFloor(now / 1e3), nanos = MathFloor((now % 1e3) * 1e6);
  if (since !== undefined) {
    validators().validateArray(since, "time");
    if (since.length !== 2) throw new (errors().ERR_OUT_OF_RANGE)("time", 2, since.length);
    seconds -= since[0];
    nanos -= since[1];
    if (nanos < 0) {
      seconds--;
      nanos += 1e9;
    }
  }
  return [seconds, nanos];
}
hrtime.bigint = () => BigInt(MathFloor(op_clock_ms() * 1e6));

let directory = "/bundle";
let mask = 0o022;
function absent(name) {
  const method = {
    [name]() {
      throw new (errors().ERR_METHOD_NOT_IMPLEMENTED)(`process.${name}`);
    },
  };
  return method[name];
}
/** A Writable whose lines go to the log. */
function output(fd, level) {
  const { Writable } = core.loadExtScript("ext:deno_node/stream.ts");
  const { StringDecoder } = core.loadExtScript("ext:deno_node/string_decoder.ts");
  const decoder = new StringDecoder("utf8");
  let line = "";
  const stream = new Writable({
    __proto__: null,
    write(chunk, _encoding, done) {
      line += decoder.write(chunk);
      for (let end; (end = StringPrototypeIndexOf(line, "\n")) >= 0; line = StringPrototypeSlice(line, end + 1)) {
        host.logLine(level, StringPrototypeSlice(line, 0, end));
      }
      if (line.length > LINE_LENGTH_MAX) {
        host.logLine(level, line);
        line = "";
      }
      done();
    },
  });
  stream.fd = fd;
  stream._type = "fs";
  stream._isStdio = true;
  return stream;
}
/** Longest line without an end that waits for one, in UTF-16 units. */
const LINE_LENGTH_MAX = 64 * 1024;
function input() {
  const { Readable } = core.loadExtScript("ext:deno_node/stream.ts");
  const stream = new Readable({
    __proto__: null,
    read() {
      this.push(null);
    },
  });
  stream.fd = 0;
  return stream;
}

// ---- The object ------------------------------------------------------------------------------------------

const features = ObjectFreeze({
  cached_builtins: true, debug: false, inspector: false, ipv6: true, openssl_is_boringssl: true, require_module: false,
  tls: true, tls_alpn: true, tls_ocsp: true, tls_sni: true, typescript: false, uv: true,
});
// The version of Node whose surface this is. No version of what it is made of is anyone's business.
const NODE = "22.23.4";

function legacy() {
  const { cached_builtins, debug, inspector, require_module, tls } = features;
  return {
    nextTick, env, exit, getBuiltinModule, platform: "linux",
    features: ObjectFreeze({ cached_builtins, debug, inspector, require_module, tls }),
  };
}
function complete() {
  const made = {
    version: `v${NODE}`,
    versions: ObjectFreeze({ node: NODE, v8: "", modules: "", uv: "", zlib: "", openssl: "", unicode: "" }),
    title: "atoll", argv: ["atoll"], argv0: "atoll", execArgv: [], execPath: "",
    arch: "x64", platform: "linux", config: ObjectFreeze({ target_defaults: {}, variables: {} }), pid: 1, ppid: 0,
    getegid: () => 0, getgid: () => 0, getgroups: () => [0], geteuid: () => 0, getuid: () => 0,
    nextTick, emitWarning, env, exit, reallyExit: exit, abort: () => exit("abort"), getBuiltinModule, features,
    allowedNodeEnvironmentFlags: new Set(), ref() {}, unref() {},
    cwd: () => directory,
    chdir(path) {
      validators().validateString(path, "directory");
      directory = core.loadExtScript("ext:deno_node/path/_posix.ts").resolve(directory, path);
    },
    umask(next) {
      const before = mask;
      if (next !== undefined) {
        validators().validateUint32(next, "mask");
        mask = next & 0o777;
      }
      return before;
    },
    hrtime,
    uptime: () => 0,
    exitCode: undefined, channel: null, connected: false, debugPort: 0, noDeprecation: false, permission: {},
    release: ObjectFreeze({ name: "node", lts: true, sourceUrl: "", headersUrl: "" }), report: {}, finalization: {},
    traceDeprecation: false, throwDeprecation: false, sourceMapsEnabled: false, domain: null, moduleLoadList: [],
    // A guest does not learn what others use.
    memoryUsage: ObjectAssign(function memoryUsage() {
      return { rss: 0, heapTotal: 0, heapUsed: 0, external: 0, arrayBuffers: 0 };
    }, { rss: () => 0 }),
    cpuUsage: () => ({ user: 0, system: 0 }),
    resourceUsage: () => ({
      userCPUTime: 0, systemCPUTime: 0, maxRSS: 0, sharedMemorySize: 0, unsharedDataSize: 0, unsharedStackSize: 0,
      minorPageFault: 0, majorPageFault: 0, swappedOut: 0, fsRead: 0, fsWrite: 0, ipcSent: 0, ipcReceived: 0,
      signalsCount: 0, voluntaryContextSwitches: 0, involuntaryContextSwitches: 0,
    }),
    constrainedMemory: () => 0, availableMemory: () => 0,
    getSourceMapsSupport: () => ({ enabled: false, nodeModules: false, generatedCode: false }),
    setSourceMapsEnabled() {},
    assert: (value, message) => core.loadExtScript("ext:deno_node/assert.ts").ok(value, message),
  };
  for (const name of [
    "binding", "dlopen", "execve", "getActiveResourcesInfo", "hasUncaughtExceptionCaptureCallback", "initgroups", "kill",
    "loadEnvFile", "openStdin", "send", "setUncaughtExceptionCaptureCallback", "setegid", "seteuid", "setgid",
    "setgroups", "setuid", "threadCpuUsage",
  ]) {
    made[name] = absent(name);
  }
  lazily(made, "stdin", input);
  lazily(made, "stdout", () => output(1, host.LOG));
  lazily(made, "stderr", () => output(2, host.ERROR));
  ObjectDefineProperty(made, SymbolToStringTag, { __proto__: null, value: "process", configurable: true });
  return made;
}
function lazily(object, name, make) {
  const define = (value) => {
    ObjectDefineProperty(object, name, { __proto__: null, value, writable: true, enumerable: true, configurable: true });
    return value;
  };
  ObjectDefineProperty(object, name, {
    __proto__: null, get: () => define(make()), set: define, enumerable: true, configurable: true,
  });
}
/** Until one of its methods is touched, `process` stands in front of the emitter that it inherits from. */
function emitsWhenTouched(object) {
  const front = { __proto__: null };
  const touch = () => {
    const { EventEmitter } = core.loadExtScript("ext:deno_node/_events.mjs");
    if (ObjectGetPrototypeOf(object) === front) ObjectSetPrototypeOf(object, EventEmitter.prototype);
    return EventEmitter.prototype;
  };
  for (const name of [
    "addListener", "constructor", "emit", "eventNames", "getMaxListeners", "listenerCount", "listeners", "off", "on",
    "once", "prependListener", "prependOnceListener", "rawListeners", "removeAllListeners", "removeListener",
    "setMaxListeners", "hasOwnProperty", "isPrototypeOf", "propertyIsEnumerable", "toString", "valueOf",
    "toLocaleString",
  ]) {
    ObjectDefineProperty(front, name, {
      __proto__: null,
      get: () => touch()[name],
      set(value) {
        touch();
        ReflectDefineProperty(object, name, {
          __proto__: null, value, writable: true, enumerable: true, configurable: true,
        });
      },
      configurable: true,
    });
  }
  ObjectSetPrototypeOf(object, front);
  core.loadExtScript("ext:atoll/node/modules.js").whenEventsLoad(touch);
}

const process = op_rpc_flag("enable_nodejs_process_v2") ? complete() : legacy();
if (op_rpc_flag("enable_nodejs_process_v2")) emitsWhenTouched(process);
return process;
})();
