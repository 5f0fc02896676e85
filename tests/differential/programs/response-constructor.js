// Shows: what `new Response` accepts, its defaults, and which combinations it refuses.
import { reporter } from "report.js";

export default reporter(async (show) => {
  const shape = (r) => [r.status, r.statusText, r.ok, r.type, r.url, r.redirected, r.bodyUsed, r.body === null];
  await show("no arguments", () => shape(new Response()));
  await show("null body", () => shape(new Response(null)));
  await show("undefined body", () => shape(new Response(undefined)));
  await show("text", () => shape(new Response("x")));
  await show("empty text has a body", () => new Response("").body !== null);
  await show("status", () => shape(new Response("x", { status: 404, statusText: "Nope" })));
  await show("status as text", () => new Response("x", { status: "201" }).status);
  await show("status 199", () => new Response("x", { status: 199 }));
  await show("status 600", () => new Response("x", { status: 600 }));
  await show("status 599", () => new Response("x", { status: 599 }).status);
  await show("status NaN", () => new Response("x", { status: NaN }));
  await show("bad status text", () => new Response("x", { statusText: "a\r\nb" }));
  for (const status of [204, 205, 304]) {
    await show(`${status} with a body`, () => new Response("x", { status }));
    await show(`${status} with null`, () => shape(new Response(null, { status })));
  }
  await show("content type of text", () => new Response("x").headers.get("content-type"));
  await show("content type of nothing", () => new Response(null).headers.get("content-type"));
  await show("content type kept", () => new Response("x", { headers: { "content-type": "a/b" } }).headers.get("content-type"));
  await show("content type of params", () => new Response(new URLSearchParams("a=1")).headers.get("content-type"));
  await show("content type of bytes", () => new Response(new Uint8Array(1)).headers.get("content-type"));
  await show("content type of a blob", () => new Response(new Blob(["x"], { type: "text/css" })).headers.get("content-type"));
  await show("number body", () => new Response(5).text());
  await show("object body", () => new Response({}).text());
  await show("without new", () => Response("x"));
  await show("tag", () => Object.prototype.toString.call(new Response()));
});
