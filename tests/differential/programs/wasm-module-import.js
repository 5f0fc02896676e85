// Shows: a WebAssembly module import, its exports, traps, memory and imports.
import { reporter } from "report.js";
import add from "./add.wasm";

export default reporter(async (show) => {
  await show("kind", add instanceof WebAssembly.Module);
  await show("exports", WebAssembly.Module.exports(add));
  await show("imports", WebAssembly.Module.imports(add));
  const instance = new WebAssembly.Instance(add);
  await show("call", [instance.exports.add(2, 3), instance.exports.add(2 ** 31 - 1, 1)]);
  const other = await WebAssembly.instantiate(add);
  await show("instantiate", other.exports.add(20, 22));
  await show("memory", () => { const m = new WebAssembly.Memory({ initial: 1, maximum: 2 }); m.grow(1); return m.buffer.byteLength; });
  await show("memory beyond", () => new WebAssembly.Memory({ initial: 1, maximum: 1 }).grow(1));
  await show("table", new WebAssembly.Table({ initial: 2, element: "anyfunc" }).length);
  await show("global", () => { const g = new WebAssembly.Global({ value: "i32", mutable: true }, 5); g.value += 1; return g.value; });
  await show("validate", [WebAssembly.validate(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0])), WebAssembly.validate(new Uint8Array(4))]);
  await show("compile from bytes in a request", () => WebAssembly.compile(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0])));
  await show("construct from bytes in a request", () => new WebAssembly.Module(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0])));
});
//# module add.wasm wasm
AGFzbQEAAAABBwFgAn9/AX8DAgEABwcBA2FkZAAACgkBBwAgACABags=
