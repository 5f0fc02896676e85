// Shows: modules that import each other.
import { reporter } from "report.js";
import { a, callB } from "./a.js";
import { b, callA } from "./b.js";

export default reporter(async (show) => {
  await show("values", [a, b]);
  await show("calls", [callA(), callB()]);
});
//# module a.js js
import { b } from "./b.js";
export const a = "a";
export const callB = () => `a sees ${b}`;
//# module b.js js
import { a } from "./a.js";
export const b = "b";
export const callA = () => `b sees ${a}`;
