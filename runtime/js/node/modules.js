// `node:` modules: which there are, under which compatibility flag, and where each comes from.
//
//   import "node:events" ─▶ modules.rs ─▶ load("node:events") ─▶ MODULES ─▶ ext:deno_node/…  (runtime/node/deno)
//                                                                        ╰▶ ext:atoll/node/… (beside this file)
//
// Nothing here runs in an isolate that imports no such module. Deno's scripts see a `core` of their own, with ours in
// the place of what they expect of a process with files, sockets and a terminal; none of it is reachable for guests.
(function () {
"use strict";
const { core: hostCore, primordials, internals } = __bootstrap;
const host = internals.atoll;
const { op_rpc_flag, op_script_load } = hostCore.ops;
const {
  Error, ObjectDefineProperty, ObjectKeys, StringPrototypeStartsWith, StringPrototypeSlice,
} = primordials;

// ---- Scripts ---------------------------------------------------------------------------------------------

const loaded = { __proto__: null };
const LOADING = {};

/** A script, or the exports of a `node:` module, for scripts of this kind. */
function loadScript(specifier) {
  if (StringPrototypeStartsWith(specifier, "node:")) return moduleOf(StringPrototypeSlice(specifier, 5));
  if (!StringPrototypeStartsWith(specifier, "ext:deno_node/") && !StringPrototypeStartsWith(specifier, "ext:atoll/node/")) {
    if (specifier !== "ext:deno_io/12_io.js") return host.load(specifier);
  }
  if (specifier === "ext:atoll/node/modules.js") return self;
  // The global timers are this script's, too.
  if (specifier === "ext:atoll/node/timers.js") return host.load(specifier);
  const known = loaded[specifier];
  if (known === LOADING) throw new Error(`${specifier} needs itself`);
  if (known !== undefined) return known;
  loaded[specifier] = LOADING;
  try {
    loaded[specifier] = standIn(specifier) ?? op_script_load(specifier, view);
    if (specifier === EVENTS) onEvents?.();
    return loaded[specifier];
  } catch (error) {
    loaded[specifier] = undefined;
    throw error;
  }
}
const EVENTS = "ext:deno_node/_events.mjs";
let onEvents;
/** Calls back once there are EventEmitters. */
function whenEventsLoad(callback) {
  if (loaded[EVENTS] !== undefined && loaded[EVENTS] !== LOADING) callback();
  else onEvents = callback;
}
const standIn = (specifier) =>
  specifier === "ext:atoll/node/shims.js" ? undefined : loadScript("ext:atoll/node/shims.js")[specifier]?.();

let asyncIds = 0;
const view = {
  __proto__: null,
  core: {
    __proto__: hostCore,
    loadExtScript: loadScript,
    createLazyLoader: (specifier) => () => loadScript(specifier),
    // What Deno asks of Rust and an isolate answers without.
    ops: {
      __proto__: hostCore.ops,
      op_node_build_os: () => "linux",
      op_node_fs_constants: () => ({}),
      op_node_call_is_from_dependency: () => false,
      op_node_get_first_expression: () => undefined,
      op_node_guess_handle_type: () => 5,
      op_node_new_async_id: () => ++asyncIds,
      op_node_view_has_buffer: () => true,
      op_mark_as_untransferable: () => {},
    },
  },
  primordials,
  internals,
};

// ---- Modules ---------------------------------------------------------------------------------------------

const node = () => op_rpc_flag("nodejs_compat") || op_rpc_flag("nodejs_compat_v2");
const flag = (name) => () => node() && op_rpc_flag(name);
// Workers have a flag for each of these; all of them came after bare names did.
const later = flag("nodejs_compat_v2");

const script = (specifier) => () => loadScript(specifier);
const part = (specifier, name) => () => loadScript(specifier)[name];
const own = (name) => script(`ext:atoll/node/${name}.js`);
/** A script whose result is the module itself. */
const whole = (get) => () => {
  const names = get();
  return names.default === undefined ? { ...names, default: names } : names;
};
const byDefault = (get) => () => ({ default: get() });
const deno = (file) => byDefault(part(`ext:deno_node/${file}`, "default"));
const streamClass = (file) => whole(script(`ext:deno_node/internal/streams/${file}.js`));
const absent = (name) => byDefault(() => loadScript("ext:atoll/node/absent.js").make(name));

/** By name: whether there is such a module, and its exports. */
const MODULES = {
  __proto__: null,
  _stream_duplex: [node, streamClass("duplex")],
  _stream_passthrough: [node, streamClass("passthrough")],
  _stream_readable: [node, streamClass("readable")],
  _stream_transform: [node, streamClass("transform")],
  _stream_writable: [node, streamClass("writable")],
  assert: [node, deno("assert.ts")],
  "assert/strict": [node, byDefault(part("ext:deno_node/assert.ts", "strict"))],
  async_hooks: [() => node() || op_rpc_flag("nodejs_als"), byDefault(own("async_hooks"))],
  buffer: [node, deno("internal/buffer.mjs")],
  child_process: [later, absent("child_process")],
  console: [flag("enable_nodejs_console_module"), byDefault(part("ext:atoll/node/small.js", "console"))],
  constants: [later, byDefault(part("ext:atoll/node/small.js", "constants"))],
  crypto: [node, byDefault(own("crypto"))],
  dgram: [later, absent("dgram")],
  diagnostics_channel: [node, deno("diagnostics_channel.js")],
  dns: [node, absent("dns")],
  "dns/promises": [node, absent("dns/promises")],
  events: [node, deno("_events.mjs")],
  fs: [flag("enable_nodejs_fs_module"), absent("fs")],
  "fs/promises": [node, absent("fs/promises")],
  http: [flag("enable_nodejs_http_modules"), absent("http")],
  http2: [flag("enable_nodejs_http2_module"), absent("http2")],
  https: [flag("enable_nodejs_http_modules"), absent("https")],
  module: [node, byDefault(own("module"))],
  net: [node, absent("net")],
  os: [flag("enable_nodejs_os_module"), byDefault(part("ext:atoll/node/small.js", "os"))],
  path: [node, deno("path/mod.ts")],
  "path/posix": [node, byDefault(() => loadScript("ext:deno_node/path/mod.ts").default.posix)],
  "path/win32": [node, byDefault(() => loadScript("ext:deno_node/path/mod.ts").default.win32)],
  perf_hooks: [later, byDefault(part("ext:atoll/node/small.js", "perfHooks"))],
  process: [() => true, byDefault(own("process"))],
  punycode: [later, deno("punycode.ts")],
  querystring: [node, deno("querystring.js")],
  readline: [later, absent("readline")],
  stream: [node, deno("stream.ts")],
  "stream/consumers": [node, whole(script("ext:deno_node/stream/consumers.js"))],
  "stream/promises": [node, deno("stream/promises.js")],
  "stream/web": [node, whole(script("ext:deno_node/stream/web.js"))],
  string_decoder: [node, deno("string_decoder.ts")],
  sys: [later, byDefault(own("util"))],
  timers: [node, byDefault(part("ext:atoll/node/timers.js", "timers"))],
  "timers/promises": [node, byDefault(part("ext:atoll/node/timers.js", "promises"))],
  tls: [node, absent("tls")],
  tty: [later, byDefault(part("ext:atoll/node/small.js", "tty"))],
  url: [node, whole(script("ext:deno_node/url.ts"))],
  util: [node, byDefault(own("util"))],
  "util/types": [node, whole(script("ext:deno_node/internal/util/types.ts"))],
  v8: [later, absent("v8")],
  vm: [flag("enable_nodejs_vm_module"), absent("vm")],
  worker_threads: [later, absent("worker_threads")],
  zlib: [node, absent("zlib")],
};

const made = { __proto__: null };
/** The exports of a module by name, whatever the flags say. */
function moduleOf(name) {
  const known = made[name];
  if (known !== undefined) return known;
  const exports = { __proto__: null };
  const { default: value, ...names } = MODULES[name][1]();
  const keys = ObjectKeys(names).length > 0 ? names : value;
  for (const key of ObjectKeys(keys)) {
    // Streams that would be made for everyone who asks for `process.env`.
    const late = name === "process" && (key === "stdin" || key === "stdout" || key === "stderr");
    if (key !== "default" && !late) define(exports, key, keys[key]);
  }
  define(exports, "default", value);
  return made[name] = exports;
}
function define(object, key, value) {
  ObjectDefineProperty(object, key, { __proto__: null, value, writable: true, enumerable: true, configurable: true });
}

/** Whether this isolate has the module, by name without `node:`. */
const has = (name) => MODULES[name]?.[0]() === true;
/** What `import "node:…"` gives, for Rust; undefined if there is no such module here. */
function load(specifier) {
  const name = StringPrototypeStartsWith(specifier, "node:") ? StringPrototypeSlice(specifier, 5) : specifier;
  return has(name) ? moduleOf(name) : undefined;
}

const self = {
  __proto__: null, load, has, script: loadScript, whenEventsLoad, names: () => primordials.ArrayPrototypeFilter(ObjectKeys(MODULES), has),
};
return self;
})();
