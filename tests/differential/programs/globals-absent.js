// Shows: nothing of the host, of other runtimes or of browsers is in reach.
import { reporter } from "report.js";

const names = [
  "Deno", "__bootstrap", "Bun", "require", "module", "exports", "__dirname", "window", "document", "location", "localStorage",
  "XMLHttpRequest", "alert", "prompt", "confirm", "Worker", "importScripts", "gc", "d8", "print", "read", "load", "version",
];

export default reporter(async (show) => {
  for (const name of names) await show(name, typeof globalThis[name]);
  await show("strict", (function () { return this === undefined; })());
});
