// Shows: a WebAssembly module through a source-phase import, static and dynamic.
import { reporter } from "report.js";
import source add from "./add.wasm";
import same from "./add.wasm";

export default reporter(async (show) => {
  await show("kind", [add instanceof WebAssembly.Module, add === same]);
  await show("call", (await WebAssembly.instantiate(add, {})).exports.add(2, 3));
  await show("not wasm", async () => (await import("./lib.js")).value);
});
//# module lib.js js
export const value = "lib";
//# module add.wasm wasm
AGFzbQEAAAABBwFgAn9/AX8DAgEABwcBA2FkZAAACgkBBwAgACABags=
