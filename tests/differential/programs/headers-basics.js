// Shows: Headers constructors, combining, sorting, case and iteration.
import { reporter } from "report.js";

export default reporter(async (show) => {
  const headers = new Headers([["B", "2"], ["a", "1"], ["b", "3"]]);
  await show("sorted and combined", [...headers]);
  await show("get is case-insensitive", [headers.get("B"), headers.get("b"), headers.get("c")]);
  await show("has", [headers.has("A"), headers.has("c")]);
  headers.delete("B");
  await show("delete", [...headers.keys()]);
  headers.set("C", "x");
  headers.append("c", "y");
  await show("values", [...headers.values()]);
  await show("entries", [...headers.entries()]);
  const seen = [];
  headers.forEach((value, name, all) => seen.push([name, value, all === headers]));
  await show("forEach", seen);
  await show("from a record", [...new Headers({ z: 1, y: true, x: null, w: undefined })]);
  await show("from Headers", [...new Headers(headers)]);
  await show("from a Map", [...new Headers(new Map([["k", "v"]]))]);
  await show("undefined", [...new Headers(undefined)]);
  await show("null", () => [...new Headers(null)]);
  await show("a pair of three", () => new Headers([["a", "b", "c"]]));
  await show("a text", () => new Headers("ab"));
  await show("trims", new Headers({ a: " \t b c \t" }).get("a"));
  await show("tag", Object.prototype.toString.call(headers));
});
