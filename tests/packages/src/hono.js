// Shows: hono with its Workers adapter: routing, middleware, streaming, server-sent events, JWT, JSX and WebSockets.
// > GET /
// < 200
// < hono over sockets
// > GET /users/7/books/tide-pools?sort=up&tag=a&tag=b
// < {"title":"tide-pools","id":"7","sort":"up","tags":["a","b"]}
// > GET /users/x/books/tide-pools
// < 404
// > POST /form
// + content-type: application/x-www-form-urlencoded
// = name=Ada&name=Grace&age=36
// < {"name":"Grace","all":["Ada","Grace"]}
// > POST /upload
// + content-type: multipart/form-data; boundary=b
// = --b\r\ncontent-disposition: form-data; name="file"; filename="a.txt"\r\ncontent-type: text/plain\r\n\r\nfour\r\n--b--\r\n
// < {"name":"a.txt","type":"text/plain","size":4}
// > POST /validated
// + content-type: application/json
// = {"n":3}
// < 201
// < {"twice":6}
// > POST /validated
// + content-type: application/json
// = {"n":"3"}
// < 422
// > POST /validated
// + content-type: application/json
// = {"n":
// < 400
// < Malformed JSON
// > GET /cookies
// + cookie: seen=yes; other=1
// < set-cookie: visits=1; Max-Age=60; Path=/; HttpOnly; Secure; SameSite=Strict
// < set-cookie: seen=; Max-Age=0; Path=/
// < "seen":"yes"
// > GET /signed
// < {"name":"ann","forged":false}
// > GET /etag
// < etag: "
// > GET /etag
// + if-none-match: "8e1ec218dc7ecaadd65388fba9b6723ce114268a"
// < 304
// > OPTIONS /shared/x
// + origin: https://app.example
// + access-control-request-method: PUT
// < 204
// < access-control-allow-origin: https://app.example
// > GET /shared/x
// + origin: https://app.example
// < access-control-expose-headers: x-count
// > GET /basic
// < 401
// < www-authenticate: Basic realm="Secure Area"
// > GET /basic
// + authorization: Basic YW5uOnBhc3M=
// < welcome ann
// > GET /bearer
// + authorization: Bearer wrong
// < 401
// > GET /bearer
// + authorization: Bearer right
// < 200
// > POST /small
// = longer than the ten bytes that are allowed
// < 413
// > GET /slow
// < 504
// > GET /csp
// < content-security-policy: default-src 'self'
// < x-frame-options: SAMEORIGIN
// > GET /jwt
// < 401
// < error_description="no authorization included in request
// > GET /jwt
// + authorization: Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhbm4ifQ.rimIqw7YRCwqheERerPQjKz4Q3sXruoJI1pGff-aoM0
// < {"sub":"ann"}
// > GET /jwt
// + authorization: Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhbm4ifQ.SaV-diJtzCA1oXd6Xl-qYyy1EbuO8VW369kesQDjUwU
// < 401
// < error_description="token verification failure
// > GET /jwt
// + authorization: Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhbm4iLCJleHAiOjEwMDB9.nt3DjWKrGjWXLMi8UX542f5wOxidTmO09iUE_360J6c
// < 401
// > GET /sign
// < eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhbm4ifQ.rimIqw7YRCwqheERerPQjKz4Q3sXruoJI1pGff-aoM0
// > GET /pretty?pretty
// < {\n  "a": 1\n}
// > GET /html?name=%3Cb%3E
// < <p>Hello &lt;b&gt;</p>
// > GET /jsx
// < <ul><li class="odd">one</li><li>two</li></ul>
// > GET /suspense
// < <p>loaded late</p>
// > GET /stream
// < begin middle end
// > GET /text
// < x-content-type-options: nosniff
// < one\ntwo\n
// > GET /events
// < content-type: text/event-stream
// < event: tick\ndata: first line\ndata: second line\nid: 0\n\n
// < event: failed\ndata: on purpose\n\n
// > GET /throws
// < 418
// < short and stout
// > GET /unknown-error
// < 500
// < {"error":"TypeError: unknown"}
// > GET /mounted/inner/x
// < inner /inner/x
// > GET /sub/deep/1
// < deep 1
// > PATCH /users/7/books/tide-pools
// < 404
// > GET /wait
// < waiting
// > GET /waited
// < waited done
// > GET /method
// < {"used":"DELETE /method"}
// > GET /socket
// < 426
import { Hono } from "hono";
import { basicAuth } from "hono/basic-auth";
import { bearerAuth } from "hono/bearer-auth";
import { bodyLimit } from "hono/body-limit";
import { upgradeWebSocket } from "hono/cloudflare-workers";
import { deleteCookie, generateSignedCookie, getCookie, getSignedCookie, setCookie } from "hono/cookie";
import { cors } from "hono/cors";
import { etag } from "hono/etag";
import { html } from "hono/html";
import { HTTPException } from "hono/http-exception";
import { jsx } from "hono/jsx";
import { renderToReadableStream, Suspense } from "hono/jsx/streaming";
import { jwt, sign } from "hono/jwt";
import { methodOverride } from "hono/method-override";
import { prettyJSON } from "hono/pretty-json";
import { secureHeaders } from "hono/secure-headers";
import { stream, streamSSE, streamText } from "hono/streaming";
import { timeout } from "hono/timeout";
import { validator } from "hono/validator";

const SECRET = "secret of the test";
const app = new Hono();
let waited = "not yet";

app.use("*", async (c, next) => {
  await next();
  c.header("x-served-by", "hono");
});
app.get("/", (c) => c.text("hono over sockets"));
app.get("/users/:id{[0-9]+}/books/:title", (c) => c.json({ ...c.req.param(), sort: c.req.query("sort"), tags: c.req.queries("tag") }));
app.post("/form", async (c) => {
  const body = await c.req.parseBody();
  const all = await c.req.parseBody({ all: true });
  return c.json({ name: body.name, all: all.name });
});
app.post("/upload", async (c) => {
  const { file } = await c.req.parseBody();
  return c.json({ name: file.name, type: file.type, size: (await file.arrayBuffer()).byteLength });
});
const checked = validator("json", (value, c) => (typeof value.n === "number" ? value : c.json({ error: "n" }, 422)));
app.post("/validated", checked, (c) => c.json({ twice: 2 * c.req.valid("json").n }, 201));
app.get("/cookies", (c) => {
  setCookie(c, "visits", "1", { maxAge: 60, httpOnly: true, secure: true, sameSite: "Strict" });
  deleteCookie(c, "seen");
  return c.json(getCookie(c));
});
app.get("/signed", async (c) => {
  const [cookie] = (await generateSignedCookie("name", "ann", SECRET)).split(";");
  const ask = (text) => readsSigned.request("/", { headers: { cookie: text } }).then((r) => r.json());
  return c.json({ name: await ask(cookie), forged: await ask(cookie.replace("ann", "bob")) });
});
const readsSigned = new Hono().get("/", async (c) => c.json(await getSignedCookie(c, SECRET, "name")));
app.get("/etag", etag(), (c) => c.text("tagged"));
app.use("/shared/*", cors({ origin: ["https://app.example"], allowMethods: ["GET", "PUT"], exposeHeaders: ["x-count"], maxAge: 600, credentials: true }));
app.all("/shared/*", (c) => c.text("shared", 200, { "x-count": "3" }));
app.get("/basic", basicAuth({ username: "ann", password: "pass" }), (c) => c.text("welcome ann"));
app.get("/bearer", bearerAuth({ token: "right" }), (c) => c.text("right"));
app.post("/small", bodyLimit({ maxSize: 10, onError: (c) => c.text("too large", 413) }), async (c) => c.text(await c.req.text()));
app.get("/slow", timeout(10), async (c) => {
  await new Promise((done) => setTimeout(done, 200));
  return c.text("late");
});
app.get("/csp", secureHeaders({ contentSecurityPolicy: { defaultSrc: ["'self'"] } }), (c) => c.text("safe"));
app.use("/jwt", jwt({ secret: SECRET, alg: "HS256" }));
app.get("/jwt", (c) => c.json(c.get("jwtPayload")));
app.get("/sign", async (c) => c.text(await sign({ sub: "ann" }, SECRET, "HS256")));
app.use("/pretty", prettyJSON());
app.get("/pretty", (c) => c.json({ a: 1 }));
app.get("/html", (c) => c.html(html`<p>Hello ${c.req.query("name")}</p>`));
app.get("/jsx", (c) => c.html(jsx("ul", {}, jsx("li", { class: "odd" }, "one"), jsx("li", {}, "two"))));
app.get("/suspense", (c) => {
  const Late = async () => {
    await new Promise((done) => setTimeout(done, 5));
    return jsx("p", {}, "loaded late");
  };
  const page = jsx("main", {}, jsx(Suspense, { fallback: jsx("p", {}, "loading") }, jsx(Late, {})));
  return c.body(renderToReadableStream(page), { headers: { "content-type": "text/html; charset=UTF-8" } });
});
app.get("/stream", (c) => stream(c, async (out) => {
  await out.write("begin ");
  await out.write(new TextEncoder().encode("middle "));
  await out.sleep(2);
  await out.pipe(new Response("end").body);
}));
app.get("/text", (c) => streamText(c, async (out) => {
  await out.writeln("one");
  await out.sleep(2);
  await out.writeln("two");
}));
app.get("/events", (c) => streamSSE(c, async (out) => {
  await out.writeSSE({ id: "0", event: "tick", data: "first line\nsecond line" });
  await out.sleep(2);
  throw new Error("on purpose");
}, async (error, out) => {
  await out.writeSSE({ event: "failed", data: error.message });
}));
app.get("/throws", () => { throw new HTTPException(418, { message: "short and stout" }); });
app.get("/unknown-error", () => { throw new TypeError("unknown"); });
app.mount("/mounted", (request) => new Response(`inner ${new URL(request.url).pathname}`));
app.route("/sub", new Hono().basePath("/deep").get("/:n", (c) => c.text(`deep ${c.req.param("n")}`)));
app.get("/wait", (c) => {
  c.executionCtx.waitUntil((async () => { waited = "done"; })());
  return c.text("waiting");
});
app.get("/waited", (c) => c.text(`waited ${waited}`));
app.use("/over", methodOverride({ app }));
app.post("/over", (c) => c.json({ used: "POST /over" }));
app.delete("/over", (c) => c.json({ used: "DELETE /over" }));
app.get("/method", (c) => app.request("/over", { method: "POST", body: new URLSearchParams({ _method: "DELETE" }) }).then((r) => r.text()).then((text) => c.body(text.replace("/over", "/method"))));
app.get("/socket", upgradeWebSocket((c) => ({
  async onMessage({ data }, socket) {
    if (data === "close") socket.close(4001, `bye ${c.req.query("name")}`);
    else socket.send(typeof data === "string" ? data.toUpperCase() : await data.arrayBuffer());
  },
})), (c) => c.text("a WebSocket is needed", 426));
app.onError((error, c) => (error instanceof HTTPException ? error.getResponse() : c.json({ error: String(error) }, 500)));
app.notFound((c) => c.json({ error: "no such page" }, 404));

export default app;
