// Shows: what each kind of body becomes in a request or an answer, and its content type.
import { reporter } from "report.js";

const bodies = {
  text: () => "text", empty: () => "", bytes: () => new Uint8Array([104, 105]), view: () => new DataView(new ArrayBuffer(2)),
  buffer: () => new ArrayBuffer(3), params: () => new URLSearchParams({ a: "1 2", b: "é" }),
  blob: () => new Blob(["b"], { type: "text/x-b" }), plainBlob: () => new Blob(["b"]), number: () => 12, object: () => ({}),
  stream: () => new Blob(["s"]).stream(), url: () => new URL("https://x.test/"), date: () => new Date(0).toISOString(),
};
export default reporter(async (show) => {
  for (const [name, make] of Object.entries(bodies)) {
    await show(name, async () => {
      const request = new Request("https://x.test/", { method: "POST", body: make() });
      const response = new Response(make());
      return [request.headers.get("content-type"), await request.text(), response.headers.get("content-type"), (await response.arrayBuffer()).byteLength];
    });
  }
  await show("own type", new Response("x", { headers: { "content-type": "a/b" } }).headers.get("content-type"));
  await show("json", (await new Response('{"a":[1]}').json()).a);
  await show("bad json", () => new Response("{").json());
  await show("empty json", () => new Response("").json());
  await show("bytes()", async () => (await new Response("ab").bytes()).length);
  await show("blob type", async () => (await new Response("x", { headers: { "content-type": "Text/Plain; charset=x" } }).blob()).size);
});
