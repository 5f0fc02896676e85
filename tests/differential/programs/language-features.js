// Shows: the language level: recent ECMAScript features.
import { reporter } from "report.js";

export default reporter(async (show) => {
  await show("private fields", () => { class A { #x = 1; static has(o) { return #x in o; } } return [A.has(new A()), A.has({})]; });
  await show("logical assignment", () => { let a = null; a ??= 5; a ||= 6; a &&= 7; return a; });
  await show("at and findLast", [[1, 2, 3].at(-1), [1, 2, 3].findLast((x) => x < 3)]);
  await show("copying methods", [[3, 1].toSorted(), [1, 2].toReversed(), [1, 2].with(0, 9), [1, 2, 3].toSpliced(1, 1)]);
  await show("groupBy", Object.groupBy([1, 2, 3], (x) => (x % 2 ? "odd" : "even")));
  await show("sets", [...new Set([1, 2]).union(new Set([3]))]);
  await show("iterator helpers", [1, 2, 3].values().map((x) => x * 2).toArray());
  await show("regexp v flag", /[\p{L}--[a-z]]/v.test("A"));
  await show("named groups", "2026-11".match(/(?<y>\d+)-(?<m>\d+)/).groups.y);
  await show("hashbang and numeric separators", 1_000_000);
  await show("array from async", await Array.fromAsync([Promise.resolve(1), 2]));
  await show("resizable buffer", () => { const b = new ArrayBuffer(1, { maxByteLength: 4 }); b.resize(3); return b.byteLength; });
  await show("weak references", [typeof WeakRef, typeof FinalizationRegistry]);
  await show("intl", new Intl.NumberFormat("de-DE").format(1234.5));
  await show("well formed", ["a\ud800".isWellFormed(), "a\ud800".toWellFormed()]);
  await show("using", () => { const log = []; { using x = { [Symbol.dispose]() { log.push("disposed"); } }; log.push("used"); } return log; });
});
