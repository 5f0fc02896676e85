// Shows: CommonJS modules imported from an ES module.
import { reporter } from "report.js";
import cjs from "./old.cjs";

export default reporter(async (show) => {
  await show("default export", [cjs.value, typeof cjs.make, cjs.make(2)]);
  await show("required", cjs.other);
});
//# module old.cjs cjs
const other = require("./other.cjs");
module.exports = { value: 1, make: (n) => n * 21, other };
//# module other.cjs cjs
exports.name = "other";
exports.loaded = true;
