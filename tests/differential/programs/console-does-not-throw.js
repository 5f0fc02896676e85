// Shows: the console takes everything without failing the request.
import { reporter } from "report.js";

export default reporter(async (show) => {
  const cycle = {};
  cycle.self = cycle;
  const trap = new Proxy({}, { get() { throw new Error("trap"); }, ownKeys() { throw new Error("trap"); } });
  const values = ["text", 1, null, undefined, Symbol("s"), 1n, cycle, [1, [2, [3, [4]]]], new Map([[1, 2]]), new Error("e"), () => {}];
  for (const method of ["log", "info", "warn", "error", "debug", "trace"]) {
    await show(method, () => console[method](...values));
  }
  await show("format", () => console.log("%s %d %i %f %j %o %O %c %%", "a", 1, 2, 3, {}, {}, {}, "css"));
  await show("getter", () => console.log({ get x() { throw new Error("getter"); } }));
  await show("hostile proxy", () => { try { console.log(trap); } catch {} });
  await show("others", () => {
    console.assert(false, "x");
    console.group("g");
    console.groupEnd();
    console.count();
    console.time("t");
    console.timeEnd("t");
    console.table([{ a: 1 }]);
    console.dir({});
    console.clear();
  });
});
