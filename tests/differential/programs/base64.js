// Shows: atob and btoa.
import { reporter } from "report.js";

export default reporter(async (show) => {
  await show("btoa", [btoa(""), btoa("a"), btoa("ab"), btoa("abc"), btoa("\u00ff")]);
  await show("not latin", () => btoa("\u4e16"));
  await show("atob", ["", "YQ==", "YQ", " Y Q = = ", "YWJj"].map((text) => atob(text)));
  for (const bad of ["Y", "Y===", "Y!==", "YQ=", "YQ==="]) await show(`bad ${bad}`, () => atob(bad));
  await show("bytes", atob("/+8=").split("").map((c) => c.charCodeAt(0)));
  await show("url alphabet", () => atob("_-8="));
  await show("undefined", () => btoa(undefined));
  await show("none", () => btoa());
});
