// Shows: node:assert and node:assert/strict: what passes, what throws, with which code.
// @flags nodejs_compat
import assert, { AssertionError } from "node:assert";
import strict from "node:assert/strict";
import { reporter } from "report.js";

const verdict = (run) => () => {
  try {
    run();
    return "passes";
  } catch (error) {
    return [error.name, error.code, error instanceof AssertionError];
  }
};
export default reporter(async (show) => {
  const cases = {
    ok: () => assert(true), "ok 0": () => assert(0, "zero"), "ok none": () => assert.ok(), equal: () => assert.equal(1, 1),
    "equal not": () => assert.equal(1, 2), notEqual: () => assert.notEqual(1, 1), strictEqual: () => assert.strictEqual(NaN, NaN),
    "strictEqual not": () => assert.strictEqual(1, "1"), notStrictEqual: () => assert.notStrictEqual(1, 1),
    deepEqual: () => assert.deepEqual({ a: [1, "2"] }, { a: [1, "2"] }), "deepEqual not": () => assert.deepEqual({ a: 1 }, { a: 2 }),
    deepStrictEqual: () => assert.deepStrictEqual({ a: [1, new Map([[1, { b: 2 }]])] }, { a: [1, new Map([[1, { b: 2 }]])] }),
    "deepStrictEqual not": () => assert.deepStrictEqual([1, 2], [1, "2"]), "deepStrictEqual kinds": () => assert.deepStrictEqual(new Set([1]), new Set([2])),
    "deepStrictEqual prototypes": () => assert.deepStrictEqual(new Date(0), Object.create(Date.prototype)), notDeepEqual: () => assert.notDeepEqual([1], [1]),
    notDeepStrictEqual: () => assert.notDeepStrictEqual([1], ["1"]), throws: () => assert.throws(() => { throw new TypeError("bad"); }, TypeError),
    "throws pattern": () => assert.throws(() => { throw new Error("bad thing"); }, /bad/), "throws object": () => assert.throws(() => { throw Object.assign(new Error("m"), { code: 5 }); }, { message: "m", code: 5 }),
    "throws none": () => assert.throws(() => {}), "throws other": () => assert.throws(() => { throw new Error("x"); }, { message: "y" }),
    "throws check": () => assert.throws(() => { throw 5; }, (error) => error === 5), doesNotThrow: () => assert.doesNotThrow(() => 1),
    "doesNotThrow not": () => assert.doesNotThrow(() => { throw new Error("x"); }), fail: () => assert.fail("because"), "fail none": () => assert.fail(),
    ifError: () => assert.ifError(null), "ifError not": () => assert.ifError(new Error("x")), match: () => assert.match("abc", /b/), "match not": () => assert.match("abc", /x/),
    doesNotMatch: () => assert.doesNotMatch("abc", /b/), "match type": () => assert.match(1, /b/),
    "strict equal": () => strict.equal(1, "1"), "strict deepEqual": () => strict.deepEqual([1], ["1"]), "strict is strict": () => assert.equal(strict.strict, assert.strict),
    partial: () => assert.partialDeepStrictEqual({ a: 1, b: 2 }, { a: 1 }),
    "partial not": () => assert.partialDeepStrictEqual({ a: 1 }, { a: 2 }),
  };
  for (const [label, run] of Object.entries(cases)) await show(label, verdict(run));
  await show("rejects", async () => [
    await assert.rejects(Promise.reject(new TypeError("x")), TypeError), await assert.rejects(async () => { throw new Error("y"); }, /y/),
    await assert.rejects(Promise.resolve(1)).catch((error) => error.code), await assert.doesNotReject(Promise.resolve(1)),
    await assert.doesNotReject(Promise.reject(new Error("z"))).catch((error) => error.code),
  ]);
  await show("message", () => {
    try {
      assert.strictEqual(1, 2, "own message");
    } catch (error) {
      return [error.message.startsWith("own message"), error.actual, error.expected];
    }
  });
  await show("made", () => {
    const error = new AssertionError({ actual: 1, expected: 2, operator: "strictEqual" });
    return [error.name, error.code, error.actual, error.expected, error.generatedMessage];
  });
});
