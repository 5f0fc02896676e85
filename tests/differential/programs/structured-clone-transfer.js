// Shows: structuredClone with a transfer list, and errors of cloning.
import { reporter } from "report.js";

export default reporter(async (show) => {
  const buffer = new Uint8Array([1, 2, 3, 4]).buffer;
  const view = new Uint8Array(buffer, 1, 2);
  const moved = structuredClone({ view, buffer }, { transfer: [buffer] });
  await show("moved", [moved.view, moved.view.buffer === moved.buffer, view.length, buffer.byteLength]);
  await show("again", () => structuredClone(buffer, { transfer: [buffer] }));
  await show("twice", () => { const b = new ArrayBuffer(1); return structuredClone(b, { transfer: [b, b] }); });
  await show("not transferable", () => structuredClone({}, { transfer: [{}] }));
  await show("nested function", () => structuredClone({ a: { f() {} } }));
  await show("getter", structuredClone({ get x() { return 5; } }));
  await show("resizable", () => { const b = new ArrayBuffer(2, { maxByteLength: 8 }); const c = structuredClone(b); return [c.byteLength, c.resizable]; });
  await show("error", (() => { const e = structuredClone(new TypeError("m", { cause: 1 })); return [e.name, e.message, e.cause]; })());
  await show("weak map", () => structuredClone(new WeakMap()));
  await show("headers", structuredClone(new Headers({ a: "b" })).get("a"));
  for (const make of [() => new FormData(), () => new Event("x"), () => new AbortController().signal, () => new URL("https://x/")]) {
    await show(make.toString(), () => structuredClone(make()));
  }
  await show("promise", () => structuredClone(Promise.resolve()));
});
