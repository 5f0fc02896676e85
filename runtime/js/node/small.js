// The small modules: `node:os`, `node:constants`, `node:tty`, `node:perf_hooks` and `node:console`. A worker has no
// machine to ask about: it learns what Workers tell, which is the same everywhere.
(function () {
"use strict";
const { core, primordials, internals } = __bootstrap;
const { ObjectAssign, ObjectFreeze } = primordials;
const errors = () => core.loadExtScript("ext:deno_node/internal/errors.ts");
const validators = () => core.loadExtScript("ext:deno_node/internal/validators.mjs");

const constantsScript = () => core.loadExtScript("ext:deno_node/internal_binding/constants.ts");

function priorityOf(pid) {
  validators().validateInt32(pid, "pid");
}
const os = () => ({
  EOL: "\n", devNull: "/dev/null", constants: constantsScript().os,
  availableParallelism: () => 1, arch: () => "x64", cpus: () => [], endianness: () => "LE", freemem: () => 0,
  getPriority(pid = 0) {
    priorityOf(pid);
    return 0;
  },
  homedir: () => "/tmp/", hostname: () => "localhost", loadavg: () => [0, 0, 0], machine: () => "x86_64",
  networkInterfaces: () => ({}), platform: () => "linux", release: () => "",
  setPriority(pid, priority) {
    if (priority === undefined) {
      priority = pid;
      pid = 0;
    }
    priorityOf(pid);
    validators().validateInt32(priority, "priority", -20, 19);
  },
  tmpdir: () => "/tmp/", totalmem: () => 0, type: () => "Linux", uptime: () => 0, userInfo: () => ({}), version: () => "",
});

function constants() {
  const { os: { dlopen, errno, priority, signals }, crypto } = constantsScript();
  return ObjectFreeze(ObjectAssign({}, dlopen, errno, priority, signals, crypto));
}

function absentClass(module, name) {
  const made = {
    [name]: class {
      constructor() {
        throw new (errors().ERR_METHOD_NOT_IMPLEMENTED)(`${module}.${name}`);
      }
    },
  };
  return made[name];
}
function absent(module, name) {
  const made = {
    [name]() {
      throw new (errors().ERR_METHOD_NOT_IMPLEMENTED)(`${module}.${name}`);
    },
  };
  return made[name];
}

const tty = () => ({
  isatty: () => false, ReadStream: absentClass("tty", "ReadStream"), WriteStream: absentClass("tty", "WriteStream"),
});
function perfHooks() {
  const { Performance, PerformanceEntry, PerformanceMark, PerformanceMeasure, performance } =
    core.loadExtScript("ext:deno_web/15_performance.js");
  return {
    Performance, PerformanceEntry, PerformanceMark, PerformanceMeasure, performance,
    PerformanceObserver: absentClass("perf_hooks", "PerformanceObserver"),
    createHistogram: absent("perf_hooks", "createHistogram"),
    eventLoopUtilization: () => ({ idle: 0, active: 0, utilization: 0 }),
    monitorEventLoopDelay: absent("perf_hooks", "monitorEventLoopDelay"),
    timerify: (callback) => callback,
    constants: {},
  };
}
const console = () => ObjectAssign({}, internals.atoll.console, { Console: absentClass("console", "Console") });

const make = { __proto__: null, os, constants, tty, perfHooks, console };
const made = { __proto__: null };
const lazy = { __proto__: null };
for (const name of primordials.ObjectKeys(make)) {
  primordials.ObjectDefineProperty(lazy, name, { __proto__: null, get: () => made[name] ??= make[name]() });
}
return lazy;
})();
