// Shows: how node: modules are found: bare names, require, createRequire, and the bundle's own modules of the same name.
// @flags nodejs_compat
import { Buffer as Imported } from "buffer";
import events, { EventEmitter } from "events";
import { createRequire, builtinModules, isBuiltin } from "node:module";
import old from "./old.cjs";
import own from "./path";
import { reporter } from "report.js";

export default reporter(async (show) => {
  await show("bare", [Imported === Buffer, events === EventEmitter, (await import("fs")).default === (await import("node:fs")).default]);
  await show("required", old);
  await show("own module of that name", [own, (await import("path")).default === own]);
  await show("no such module", async () => {
    const seen = [];
    for (const name of ["node:nope", "node:", "node:buffer/nope", "nope"]) {
      seen.push(await import(name).then(() => "there", (error) => `${error.name} ${error.message.split("\n")[0]}`));
    }
    return seen;
  });
  await show("createRequire", () => {
    const require = createRequire("/");
    return [require("fs") === createRequire("file:///x.js")("node:fs"), require("node:path").sep, require("buffer").Buffer === Buffer];
  });
  await show("createRequire of nothing", () => createRequire("/")("nope"));
  await show("createRequire of a name", () => createRequire("x"));
  await show("known", [isBuiltin("fs"), isBuiltin("node:fs"), isBuiltin("nope"), builtinModules.includes("buffer"), Object.isFrozen(builtinModules) || Array.isArray(builtinModules)]);
  await show("importable though absent", async () => {
    const names = ["http", "https", "net", "tls", "fs", "fs/promises", "dns", "child_process", "zlib", "worker_threads", "tty", "v8", "vm", "http2", "readline", "dgram"];
    const found = [];
    for (const name of names) found.push(typeof (await import(`node:${name}`)).default);
    return found;
  });
  await show("globals", ["Buffer", "process", "global", "setImmediate", "clearImmediate", "require", "module", "__dirname"].map((name) => typeof globalThis[name]));
});
//# module old.cjs cjs
const attempt = (name) => {
  try {
    return typeof require(name);
  } catch (error) {
    return error.message.split("\n")[0];
  }
};
module.exports = [
  ...["events", "node:events", "node:path", "assert", "util", "node:nope", "nope"].map(attempt), typeof process, typeof Buffer,
  require("buffer").Buffer === Buffer, require("node:util").inspect({ a: 1 }), require("stream") === require("node:stream"),
];
//# module path js
export default "the bundle's own";
