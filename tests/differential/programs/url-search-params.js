// Shows: URLSearchParams.
import { reporter } from "report.js";

export default reporter(async (show) => {
  const params = new URLSearchParams("?a=1&b=two+words&a=%C3%A9&c&=d&%zz=%");
  await show("entries", [...params]);
  await show("text", params.toString());
  await show("get", [params.get("a"), params.get("nope"), params.getAll("a")]);
  await show("has with value", [params.has("a", "1"), params.has("a", "2")]);
  params.delete("a", "1");
  await show("delete with value", params.toString());
  params.append("z", "&=+ %");
  params.set("b", "new");
  params.sort();
  await show("sorted", params.toString());
  await show("size", params.size);
  await show("record", new URLSearchParams({ x: "1", y: 2 }).toString());
  await show("pairs", new URLSearchParams([["x", "1"], ["x", "2"]]).toString());
  await show("bad pairs", () => new URLSearchParams([["x"]]));
  await show("unusual characters", new URLSearchParams({ q: "~!*()'-._ \u{1f600}\n" }).toString());
  const url = new URL("https://x/?a=1");
  url.searchParams.append("b", "2");
  await show("live", url.href);
});
