// Shows: CommonJS modules that require each other, run once, and fail.
import { reporter } from "report.js";
import a from "./a.cjs";
import b from "./b.cjs";
import state from "./state.cjs";

export default reporter(async (show) => {
  await show("a", [a.done, a.sawB]);
  await show("b", [b.done, b.sawA]);
  await show("once", [state.runs, state.again() === state]);
  await show("json", [state.json().k, state.json() === state.json()]);
  await show("throws", () => state.bad());
});
//# module a.cjs cjs
exports.done = false;
const b = require("./b.cjs");
exports.sawB = b.done;
exports.done = true;
require("./state.cjs");
//# module b.cjs cjs
exports.done = false;
const a = require("./a.cjs");
exports.sawA = a.done;
exports.done = true;
require("./state.cjs");
//# module state.cjs cjs
module.exports = { runs: 0, again: () => require("./state.cjs"), json: () => require("./d.json"), bad: () => require("./bad.cjs") };
module.exports.runs++;
//# module d.json json
{"k":1}
//# module bad.cjs cjs
exports.half = true;
throw new RangeError("while required");
