// Shows: cloning requests and answers whose bodies are streams, and what is refused.
// > POST /
// + content-type: text/plain
// = a body to clone
import { report } from "report.js";

export default {
  fetch: (request) => report(async (show) => {
    const copy = request.clone();
    await show("request", [await copy.text(), await request.text(), copy.bodyUsed, request.bodyUsed]);
    await show("used request", () => request.clone());
    await show("from a used one", () => new Request(request));
    const stream = new ReadableStream({
      start(c) { for (const word of ["one ", "two "]) c.enqueue(new TextEncoder().encode(word)); c.close(); },
    });
    const response = new Response(stream, { status: 201, headers: { "x-a": "1" } });
    const twin = response.clone();
    twin.headers.set("x-a", "2");
    await show("heads", [response.status, twin.status, response.headers.get("x-a"), twin.headers.get("x-a")]);
    await show("bodies", Promise.all([response.text(), twin.text()]));
    await show("used response", () => response.clone());
    const partly = new Response("abc");
    const reader = partly.body.getReader();
    await show("locked", () => partly.clone());
    reader.releaseLock();
    await show("unlocked", partly.clone().text());
    await show("null body", [new Response(null).clone().body, new Response().bodyUsed]);
    await show("json", new Response('{"a":1}').clone().json());
    const changed = new Request(new Request("https://x.test/a", { method: "POST", body: "b", headers: { "x-a": "1" } }), { method: "PUT" });
    await show("changed", [changed.method, changed.url, changed.headers.get("x-a"), await changed.text()]);
  }),
};
