// Shows: shared modules, live bindings and what a module namespace is.
import { reporter } from "report.js";
import data from "./data.json";
import * as all from "./extra.js";

export default reporter(async (show) => {
  await show("json", data);
  await show("shared", (await import("./data.json")).default === data);
  await show("namespace", [Object.keys(all), Object.isFrozen(all), Object.isSealed(all), typeof all.default]);
  await show("assign", () => { "use strict"; all.value = 2; });
  await show("live", [all.count, all.increase(), all.count]);
});
//# module data.json json
{"list":[1,{"k":null}]}
//# module extra.js js
export let count = 0;
export const value = 1;
export const increase = () => ++count;
export default function named() {}
