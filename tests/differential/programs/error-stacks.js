// Shows: stacks name the guest's files, lines and functions, and nothing of the runtime.
import { reporter } from "report.js";
import { fail } from "./lib/fail.js";

const frames = (error) => error.stack.split("\n").slice(1).map((line) => line.trim())
  .filter((line) => /fail\.js|inner|outer/.test(line));

function outer(f) { return f(); }
export default reporter(async (show) => {
  try { fail(); } catch (error) {
    await show("head", error.stack.split("\n")[0]);
    await show("frames", frames(error));
    await show("own", /ext:|node:internal/.test(error.stack));
  }
  try { outer(function inner() { throw new TypeError("in"); }); } catch (error) {
    await show("inner", frames(error).map((line) => line.split(" ")[1]));
  }
  await new Promise((resolve) => setTimeout(resolve, 1));
  try { await later(); } catch (error) { await show("async", /at async|later/.test(error.stack)); }
  const held = {};
  Error.captureStackTrace(held);
  await show("captured", typeof held.stack);
  class Own extends Error { name = "Own"; }
  await show("own class", String(new Own("words")));
  await show("cause", new Error("a", { cause: new Error("b") }).cause.message);
  await show("aggregate", new AggregateError([new Error("x")], "many").errors.length);
  const before = Error.prepareStackTrace;
  Error.prepareStackTrace = (error, sites) => [sites[0].getFunctionName(), sites[0].getLineNumber() > 0];
  function named() { return new Error("x").stack; }
  const prepared = named();
  Error.prepareStackTrace = before;
  await show("prepareStackTrace", prepared);
  Error.stackTraceLimit = 0;
  await show("no frames", new Error("short").stack);
});
async function later() {
  await null;
  throw new Error("late");
}
//# module lib/fail.js js
export function fail() {
  deeper();
}
const deeper = () => {
  throw new RangeError("too deep");
};
