// Shows: fetch refuses bad URLs before anything leaves.
import { reporter } from "report.js";

export default reporter(async (show) => {
  await show("relative", () => fetch("/path"));
  await show("no host", () => fetch("http://"));
  await show("scheme", () => fetch("ftp://example.com/"));
  await show("GET with body", () => fetch("https://example.com/", { body: "x" }));
  await show("bad method", () => fetch("https://example.com/", { method: "A B" }));
  await show("aborted", () => fetch("https://example.com/", { signal: AbortSignal.abort() }));
  await show("a promise", () => { const p = fetch("/"); p.catch(() => {}); return p instanceof Promise; });
});
