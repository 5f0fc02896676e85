// Shows: byte streams with a reader that brings its own buffer.
import { reporter } from "report.js";

export default reporter(async (show) => {
  const bytes = new ReadableStream({
    type: "bytes",
    start(c) { c.enqueue(new Uint8Array([1, 2, 3, 4, 5])); c.close(); },
  });
  const reader = bytes.getReader({ mode: "byob" });
  const first = await reader.read(new Uint8Array(2));
  await show("first", [first.done, first.value]);
  const second = await reader.read(new Uint8Array(10));
  await show("second", [second.done, second.value]);
  const last = await reader.read(new Uint8Array(4));
  await show("last", [last.done, last.value?.byteLength]);
  await show("text stream has none", () => new ReadableStream({}).getReader({ mode: "byob" }));
  await show("empty view", () => new ReadableStream({ type: "bytes" }).getReader({ mode: "byob" }).read(new Uint8Array(0)));
});
