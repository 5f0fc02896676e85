// Shows: URL parsing and serialising.
import { reporter } from "report.js";

export default reporter(async (show) => {
  const url = new URL("https://user:pa%20ss@Example.COM:8080/a/./b/../c?x=1&y#frag");
  for (const part of ["href", "origin", "protocol", "username", "password", "host", "hostname", "port", "pathname", "search", "hash"]) {
    await show(part, url[part]);
  }
  await show("base", new URL("../x?y", "https://example.com/a/b/c").href);
  await show("default port", new URL("http://example.com:80/").href);
  await show("idn", new URL("https://b\u00fccher.example/").host);
  await show("ipv4 forms", ["http://0x7f.1/", "http://2130706433/", "http://127.1/"].map((u) => new URL(u).host));
  await show("ipv6", new URL("http://[0:0::1]/").host);
  await show("spaces", new URL("https://example.com/a b?c d#e f").href);
  await show("backslash", new URL("https://example.com\\a\\b").href);
  await show("tabs", new URL("ht\ntps://exa\tmple.com/").href);
  await show("other scheme", new URL("mailto:a@b.c").pathname);
  await show("opaque origin", new URL("data:text/plain,x").origin);
  await show("canParse", [URL.canParse("https://x/"), URL.canParse("/x"), URL.canParse("/x", "https://y/")]);
  await show("parse", [URL.parse("nope"), URL.parse("https://x").href]);
  url.searchParams.set("z", "a b");
  url.port = "";
  url.hash = "";
  url.pathname = "/new path";
  url.protocol = "ftp:";
  await show("changed", url.href);
  await show("toJSON", JSON.stringify({ url: new URL("https://x/y") }));
});
