// Shows: setImmediate runs after promises and can be taken back.
import { reporter } from "report.js";

export default reporter(async (show) => {
  const seen = [];
  const done = new Promise((resolve) => setImmediate((...args) => { seen.push(args); resolve(); }, 1, 2));
  clearImmediate(setImmediate(() => seen.push("never")));
  Promise.resolve().then(() => seen.push("promise"));
  queueMicrotask(() => seen.push("microtask"));
  await done;
  await show("order", seen);
});
