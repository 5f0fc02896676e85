// Shows: without the flag there are no node: modules and no globals of Node.js, but for a little process.
// @flags no_nodejs_compat no_nodejs_compat_v2
import { reporter } from "report.js";

export default reporter(async (show) => {
  const names = ["assert", "async_hooks", "buffer", "crypto", "events", "fs", "http", "module", "net", "os", "path", "punycode", "stream", "timers", "tls", "url", "util", "util/types", "zlib"];
  for (const name of names) {
    await show(`node:${name}`, () => import(`node:${name}`).then(() => "there", (error) => `${error.name} ${error.message.split("\n")[0]}`));
    await show(name, () => import(name).then(() => "there", (error) => `${error.name} ${error.message.split("\n")[0]}`));
  }
  await show("process", async () => {
    const { default: process } = await import("node:process");
    return [Object.keys(process).sort(), process.env, process.platform];
  });
  await show("globals", ["Buffer", "process", "global", "require"].map((name) => typeof globalThis[name]));
  await show("timers", typeof setTimeout(() => {}, 1));
});
