// Shows: set-cookie is never combined.
import { reporter } from "report.js";

export default reporter(async (show) => {
  const headers = new Headers();
  headers.append("set-cookie", "a=1");
  headers.append("x", "y");
  headers.append("set-cookie", "b=2, c=3");
  await show("getSetCookie", headers.getSetCookie());
  await show("iteration", [...headers]);
  await show("get", headers.get("set-cookie"));
  headers.set("set-cookie", "only=1");
  await show("set replaces", headers.getSetCookie());
  headers.delete("Set-Cookie");
  await show("delete", headers.getSetCookie());
  await show("copy", new Headers([["set-cookie", "p"], ["set-cookie", "q"]]).getSetCookie());
});
