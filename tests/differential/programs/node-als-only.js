// Shows: the flag nodejs_als brings node:async_hooks and nothing else.
// @flags nodejs_als no_nodejs_compat no_nodejs_compat_v2
import { AsyncLocalStorage } from "node:async_hooks";
import { reporter } from "report.js";

export default reporter(async (show) => {
  const storage = new AsyncLocalStorage();
  await show("store", storage.run(1, async () => {
    await null;
    return storage.getStore();
  }));
  for (const name of ["node:buffer", "node:events", "async_hooks"]) {
    await show(name, () => import(name).then(() => "there", (error) => error.message.split("\n")[0]));
  }
  await show("globals", ["Buffer", "process", "global"].map((name) => typeof globalThis[name]));
});
