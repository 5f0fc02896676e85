// Shows: what `new Request` accepts, its defaults, and what it refuses.
import { reporter } from "report.js";

export default reporter(async (show) => {
  const base = new Request("https://example.com/path?q#frag");
  await show("defaults", [base.method, base.url, base.body, base.bodyUsed, base.redirect, [...base.headers]]);
  await show("normalises", new Request("HTTPS://EXAMPLE.com:443/a/../b c").url);
  await show("method case", ["get", "post", "put", "delete", "head", "options"].map((method) => new Request(base, { method }).method));
  await show("other method", new Request(base, { method: "PROPFIND" }).method);
  await show("relative URL", () => new Request("/path"));
  await show("bad URL", () => new Request("http://"));
  await show("GET with body", () => new Request(base, { body: "x" }));
  await show("HEAD with body", () => new Request(base, { method: "HEAD", body: "x" }));
  await show("POST", new Request(base, { method: "POST", body: "x" }).text());
  await show("type of text", new Request(base, { method: "POST", body: "x" }).headers.get("content-type"));
  await show("bad method", () => new Request(base, { method: "A B" }));
  await show("bad redirect", () => new Request(base, { redirect: "sometimes" }));
  await show("redirect", new Request(base, { redirect: "manual" }).redirect);
  await show("URL object", new Request(new URL("https://example.com/u")).url);
  await show("signal", new Request(base).signal instanceof AbortSignal);
  const posted = new Request(base, { method: "POST", body: "abc", headers: { a: "1" } });
  const second = new Request(posted, { headers: { b: "2" } });
  await show("headers replaced", [second.headers.get("a"), second.headers.get("b"), second.method]);
  await show("body moved", [posted.bodyUsed, await second.text()]);
  await show("from a used request", () => new Request(posted));
});
