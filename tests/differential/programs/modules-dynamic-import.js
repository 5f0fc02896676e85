// Shows: dynamic import of bundled modules, and what a missing one says.
import { reporter } from "report.js";

export default reporter(async (show) => {
  const module = await import("./extra.js");
  await show("exports", [module.value, module.default()]);
  await show("same instance", (await import("./extra.js")) === module);
  const name = "./ext" + "ra.js";
  await show("computed", (await import(name)).value);
  await show("json", (await import("./data.json")).default);
  await show("missing", () => import("./missing.js"));
  await show("missing text", async () => {
    try { await import("./missing.js"); } catch (error) { return error.message.split("\n")[0]; }
  });
  await show("network", () => import("https://example.com/x.js"));
  await show("data URL", () => import("data:text/javascript,export default 1"));
  await show("throws", () => import("./throws.js"));
  await show("throws again", () => import("./throws.js"));
});
//# module extra.js js
export const value = "extra";
export default () => "called";
//# module data.json json
{"k":1}
//# module throws.js js
throw new RangeError("at evaluation");
