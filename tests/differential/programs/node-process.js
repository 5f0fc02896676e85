// Shows: the global process and node:process: the environment from variables, ticks, clocks, warnings, working directory.
// @flags nodejs_compat
// @env TEXT "some text"
// @env DATA {"a": [1, null, true]}
import imported, { env, nextTick, cwd } from "node:process";
import { EventEmitter } from "node:events";
import { reporter } from "report.js";

const atStart = [process.env.TEXT, typeof process.nextTick];
const code = (run) => () => {
  try {
    return run();
  } catch (error) {
    return `${error.name} ${error.code} ${error.message}`;
  }
};
export default reporter(async (show) => {
  await show("at start", atStart);
  await show("one process", [imported === process, global === globalThis, env === process.env, cwd(), Object.prototype.toString.call(process)]);
  await show("env", [env.TEXT, env.DATA, env.NONE, "TEXT" in env, Object.keys(env).sort()]);
  await show("env is text", () => {
    env.NUMBER = 5;
    env.NOTHING = undefined;
    env.OBJECT = {};
    const seen = [env.NUMBER, env.NOTHING, env.OBJECT];
    for (const name of ["NUMBER", "NOTHING", "OBJECT"]) delete env[name];
    return [...seen, env.NUMBER];
  });
  await show("env symbol", code(() => (env[Symbol("x")] = 1)));
  await show("env symbol value", code(() => (env.X = Symbol("x"))));
  await show("env define", () => {
    Object.defineProperty(env, "Y", { value: 3, writable: true, enumerable: true, configurable: true });
    return env.Y;
  });
  await show("env accessor", code(() => Object.defineProperty(env, "Z", { get: () => 1 })));
  await show("env fixed", code(() => Object.defineProperty(env, "Z", { value: 1 })));
  await show("nextTick", async () => {
    const order = [];
    nextTick((...args) => order.push(args), 1, 2);
    order.push("now");
    await null;
    await null;
    return order;
  });
  await show("what it is", [process.platform, process.arch, process.version, process.versions.node, process.release.name, process.pid, process.ppid]);
  await show("arguments", [process.argv.length, process.execArgv, process.execPath, process.exitCode]);
  await show("users", [process.getuid(), process.geteuid(), process.getgid(), process.getegid(), process.getgroups()]);
  await show("hrtime", () => {
    const [seconds, nanos] = process.hrtime();
    const [s, n] = process.hrtime([seconds, nanos]);
    return [Number.isInteger(seconds), Number.isInteger(nanos), s, n < 1e9, typeof process.hrtime.bigint()];
  });
  await show("uptime", [typeof process.uptime(), process.memoryUsage(), process.constrainedMemory()]);
  await show("directory", () => {
    const before = process.cwd();
    return [before, process.umask() >= 0];
  });
  await show("warning", async () => {
    const seen = [];
    process.on("warning", (warning) => seen.push([warning.name, warning.message, warning.code, warning.detail]));
    process.emitWarning("plain");
    process.emitWarning("typed", "TypedWarning", "C1");
    process.emitWarning("with options", { type: "T", code: "C2", detail: "d" });
    process.emitWarning(new TypeError("error"));
    await new Promise((resolve) => setTimeout(resolve, 1));
    process.removeAllListeners("warning");
    return seen;
  });
  await show("bad warning", () => code(() => process.emitWarning(1))().slice(0, 60));
  await show("emitter", [process instanceof EventEmitter, typeof process.on, process.listenerCount("x"), process.emit("x")]);
  await show("getBuiltinModule", [process.getBuiltinModule("node:path").sep, process.getBuiltinModule("path").sep, process.getBuiltinModule("nope"), process.getBuiltinModule("buffer").Buffer === Buffer]);
  await show("features", process.features);
  await show("stdout", [process.stdout.fd, process.stderr.fd, process.stdin.fd, typeof process.stdout.write, process.stdout.isTTY]);
  await show("not here", code(() => process.getActiveResourcesInfo()));
  await show("replaceable", () => {
    const before = globalThis.process;
    globalThis.process = 5;
    const seen = process;
    globalThis.process = before;
    return [seen, process === imported];
  });
});
