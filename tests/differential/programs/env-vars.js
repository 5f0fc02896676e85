// Shows: text and JSON variables, and that env is not the global object.
// @env TEXT "plain é text"
// @env NUMBER 42
// @env LIST [1, "two", {"three": 3}]
// @env NOTHING null
// @env FLAG true
// @env QUOTED "a \"quoted\" \\ text"
import { reporter } from "report.js";
import { env as imported } from "cloudflare:workers";

export default reporter(async (show, { env }) => {
  for (const name of ["TEXT", "NUMBER", "LIST", "NOTHING", "FLAG", "QUOTED"]) await show(name, env[name]);
  await show("keys", Object.keys(env).sort());
  await show("missing", env.MISSING);
  await show("imported", [imported.TEXT, imported.NUMBER]);
  await show("not global", typeof TEXT);
});
