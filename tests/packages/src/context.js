// Shows: packages that want node: modules: hono keeps its context in an AsyncLocalStorage; the modules beside it.
// @flags nodejs_compat
// > GET /context
// < outer ann inner ann
// > GET /report
import { Hono } from "hono";
import { contextStorage, getContext } from "hono/context-storage";
import { AsyncLocalStorage } from "node:async_hooks";
import { Buffer } from "node:buffer";
import { createHash, createHmac } from "node:crypto";
import { EventEmitter, once } from "node:events";
import { Readable } from "node:stream";
import { reporter } from "./check.js";

const store = new AsyncLocalStorage();
const report = reporter(async (is) => {
  await is("storage", [1, 2], Promise.all([1, 2].map((n) => store.run(n, async () => { await new Promise((done) => setTimeout(done, 3 - n)); return store.getStore(); }))));
  await is("hash", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", createHash("sha256").update("abc").digest("hex"));
  await is("mac", 44, createHmac("sha256", "key").update("abc").digest("base64").length);
  await is("buffer", "YWJj", Buffer.from("abc").toString("base64"));
  await is("event", [5], async () => { const source = new EventEmitter(); queueMicrotask(() => source.emit("n", 5)); return once(source, "n"); });
  await is("stream", "ab", async () => { let text = ""; for await (const part of Readable.from(["a", "b"])) text += part; return text; });
});
const name = () => getContext().get("name");
const app = new Hono();
app.use(contextStorage());
app.get("/context", async (c) => {
  c.set("name", "ann");
  const outer = name();
  await new Promise((done) => setTimeout(done, 1));
  return c.text(`outer ${outer} inner ${name()}`);
});
app.get("/report", (c) => report(c.req.raw, c.env, {}));

export default app;
