// Shows: URLPattern matching and its groups.
import { reporter } from "report.js";

export default reporter(async (show) => {
  const pattern = new URLPattern({ pathname: "/books/:id/:rest*" });
  await show("test", [pattern.test("https://x/books/1"), pattern.test("https://x/books/1/a/b"), pattern.test("https://x/other")]);
  const match = pattern.exec("https://x/books/12/pages/3");
  await show("groups", Object.entries(match.pathname.groups).sort());
  await show("input", match.pathname.input);
  await show("no match", pattern.exec("https://x/"));
  const full = new URLPattern("https://:sub.example.com/*?q=:q");
  const found = full.exec("https://api.example.com/a/b?q=1");
  await show("full", [found?.hostname.groups, found?.pathname.groups, found?.search.groups]);
  await show("regexp", new URLPattern({ pathname: "/(\\d+)" }).exec({ pathname: "/42" }).pathname.groups);
  await show("parts", [pattern.pathname, pattern.hostname, pattern.protocol]);
  await show("ignore case", new URLPattern({ pathname: "/A" }, { ignoreCase: true }).test({ pathname: "/a" }));
  await show("bad pattern", () => new URLPattern({ pathname: "/(" }));
});
