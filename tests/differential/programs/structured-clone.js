// Shows: structuredClone of what it can and cannot copy.
import { reporter } from "report.js";

export default reporter(async (show) => {
  const same = (value) => structuredClone(value);
  await show("plain", same({ a: [1, "x", null, undefined, 1n, -0, NaN] }));
  await show("date", same(new Date(0)));
  await show("regexp", same(/a+/gi));
  await show("map", same(new Map([[{ k: 1 }, new Set([1])]])));
  await show("bytes", same(new Uint8Array([1, 2, 3]).subarray(1)));
  const cycle = { name: "c" };
  cycle.self = cycle;
  const copy = same(cycle);
  await show("cycle", [copy !== cycle, copy.self === copy]);
  const error = same(new RangeError("message"));
  await show("error", [error instanceof RangeError, error.name, error.message]);
  class Point { constructor() { this.x = 1; } get y() { return 2; } }
  const point = same(new Point());
  await show("class instance", [point.constructor === Object, point.x, point.y]);
  await show("function", () => same(() => {}));
  await show("symbol", () => same(Symbol("s")));
  await show("sparse array", [same([1, , 3]).length, 1 in same([1, , 3])]);
  const buffer = new ArrayBuffer(4);
  const moved = structuredClone(buffer, { transfer: [buffer] });
  await show("transfer", [moved.byteLength, buffer.byteLength]);
  await show("no argument", () => structuredClone());
  await show("boxed", [typeof same(Object(1)), same(Object("s")).valueOf()]);
});
