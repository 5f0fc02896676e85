// Scripts of Deno's that need a process, a terminal or a file system, as an isolate has them. Each is made when asked for.
(function () {
"use strict";
const { core, primordials } = __bootstrap;
const { queueMicrotask, ReflectApply, Symbol } = primordials;

/** `process.nextTick`, with Workers' semantics: a microtask like any other. */
function nextTick(callback, ...args) {
  if (typeof callback !== "function") {
    core.loadExtScript("ext:deno_node/internal/validators.mjs").validateFunction(callback, "callback");
  }
  queueMicrotask(() => ReflectApply(callback, undefined, args));
}

const colors = {
  blue: "", clear: "", gray: "", green: "", hasColors: false, red: "", refresh() {}, reset: "",
  shouldColorize: () => false, white: "", yellow: "",
};

return {
  __proto__: null,
  "ext:deno_io/12_io.js": () => ({ stderr: { isTerminal: () => false }, stdout: { isTerminal: () => false } }),
  "ext:deno_node/_next_tick.ts": () => ({ nextTick }),
  "ext:deno_node/_process/process.ts": () => ({ nextTick }),
  "ext:deno_node/_util/os.ts": () => ({
    osType: "linux", isAndroid: false, isWindows: false, isLinux: true, isMacOS: false,
  }),
  "ext:deno_node/internal/errors/error_source.ts": () => ({ getErrorSourceExpression: () => undefined }),
  "ext:deno_node/internal/event_target.mjs": () => ({
    kResistStopPropagation: Symbol("kResistStopPropagation"), kWeakHandler: Symbol("kWeakHandler"),
  }),
  "ext:deno_node/internal/options.ts": () => ({
    getExecArgvOptionValue: () => undefined, getOptionValue: () => undefined,
  }),
  "ext:deno_node/internal_binding/_libuv_winerror.ts": () => ({ uvTranslateSysError: () => "UNKNOWN" }),
  "ext:deno_node/internal/util/colors.ts": () => colors,
  "ext:deno_node/_fs/_fs_glob.ts": () => ({
    matchGlobPattern() {
      throw new (core.loadExtScript("ext:deno_node/internal/errors.ts").ERR_METHOD_NOT_IMPLEMENTED)("path.matchesGlob");
    },
  }),
};
})();
