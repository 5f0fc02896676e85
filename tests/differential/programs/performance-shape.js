// Shows: the shape of performance and Date, not their values.
import { reporter } from "report.js";

export default reporter(async (show) => {
  await show("now", [typeof performance.now(), performance.now() >= 0]);
  await show("timeOrigin", typeof performance.timeOrigin);
  await show("monotonic", () => { const a = performance.now(); return performance.now() >= a; });
  await show("Date.now", Number.isInteger(Date.now()));
  await show("year", new Date().getUTCFullYear() >= 2026);
  await show("zone", new Date(0).getTimezoneOffset());
  await show("text of a date", new Date(0).toString());
  await show("locale", (1234.5).toLocaleString("en-US"));
});
