// Shows: what import.meta tells, and that no path of the host is in it.
import { reporter } from "report.js";

export default reporter(async (show) => {
  await show("type", typeof import.meta);
  await show("no host path", !JSON.stringify(Object.values(import.meta).map(String)).match(/\/(tmp|home|work|root|usr)\//));
  await show("extensible", () => { import.meta.own = 1; return import.meta.own; });
});
