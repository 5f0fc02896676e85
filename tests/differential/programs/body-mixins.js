// Shows: text, json, arrayBuffer, bytes and blob on requests and responses, and that a body is read once.
import { reporter } from "report.js";

export default reporter(async (show) => {
  const response = (body) => new Response(body);
  await show("text", response("é").text());
  await show("json", response('{"a":[1,2]}').json());
  await show("bad json", () => response("{").json());
  await show("empty json", () => response("").json());
  await show("arrayBuffer", response("é").arrayBuffer());
  await show("bytes", response("é").bytes());
  const blob = await response("abc").blob();
  await show("blob", [blob.size, blob.type.toLowerCase(), await blob.text()]);
  const used = response("x");
  await used.text();
  await show("used", used.bodyUsed);
  for (const method of ["text", "json", "arrayBuffer", "bytes", "blob"]) {
    await show(`second ${method}`, () => used[method]());
  }
  await show("null body text", response(null).text());
  await show("null body bytes", response(null).arrayBuffer());
  await show("typed array view", response(new Uint8Array([1, 2, 3, 4]).subarray(1, 3)).arrayBuffer());
  await show("data view", response(new DataView(new ArrayBuffer(2))).arrayBuffer());
  await show("array buffer is copied", () => {
    const bytes = new Uint8Array([1]);
    const r = response(bytes);
    bytes[0] = 9;
    return r.arrayBuffer();
  });
  await show("byte order mark", response(new Uint8Array([0xef, 0xbb, 0xbf, 0x61])).text());
  await show("invalid UTF-8", response(new Uint8Array([0xff, 0x61])).text());
  const locked = response("x");
  locked.body.getReader();
  await show("locked", () => locked.text());
});
