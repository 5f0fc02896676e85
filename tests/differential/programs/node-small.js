// Shows: node:path, url, querystring, string_decoder, punycode, os and diagnostics_channel.
// @flags nodejs_compat
// > GET /path
// > GET /url
// > GET /rest
import path, { posix, win32 } from "node:path";
import url, { domainToASCII, domainToUnicode, fileURLToPath, pathToFileURL, urlToHttpOptions } from "node:url";
import querystring from "node:querystring";
import { StringDecoder } from "node:string_decoder";
import punycode from "node:punycode";
import os, { EOL } from "node:os";
import diagnostics, { channel, tracingChannel } from "node:diagnostics_channel";
import { AsyncLocalStorage } from "node:async_hooks";
import { reporter } from "report.js";

const code = (run) => () => {
  try {
    return run();
  } catch (error) {
    return `${error.name} ${error.code}`;
  }
};
const parts = { "/path": paths, "/url": urls, "/rest": rest };
export default reporter(async (show, { request }) => parts[new URL(request.url).pathname](show));

async function paths(show) {
  const samples = ["/a/b/../c.txt", "a//b/./c", "..", "", "/", "C:\\a\\..\\b.c", "\\\\host\\share\\x", "a.b.c", ".rc", "/a/b/"];
  for (const [name, each] of [["posix", posix], ["win32", win32]]) {
    for (const sample of samples) {
      await show(`${name} ${sample}`, [each.normalize(sample), each.dirname(sample), each.basename(sample), each.extname(sample), each.isAbsolute(sample), each.parse(sample)]);
    }
    await show(`${name} join`, [each.join("a", "..", "b", "c/d"), each.join(""), each.join("/a", "", "b")]);
    await show(`${name} format`, each.format({ dir: "/d", name: "n", ext: "e" }));
    await show(`${name} constants`, [each.sep, each.delimiter]);
  }
  await show("resolve", [path.resolve("a"), path.resolve("/a", "../b"), path.resolve("/a", "/b", "c"), path.resolve()]);
  await show("relative", [path.relative("/a/b/c", "/a/d"), path.relative("/a", "/a"), path.relative("/", "/x/y"), win32.relative("C:\\a", "C:\\b\\c")]);
  await show("basename ending", [path.basename("/a/b.html", ".html"), path.basename("b.html", "x")]);
  await show("namespaced", [path.toNamespacedPath("/a"), win32.toNamespacedPath("C:\\a")]);
  await show("same", [path === posix, path.posix === posix, path.win32 === win32]);
  await show("not text", code(() => path.join(1)));
}

async function urls(show) {
  for (const sample of ["http://user:pw@Host.com:80/p/a/t/h?query=string&a=b#hash", "//host/path", "/only/path?x", "mailto:a@b.c", "javascript:alert(1)", "http://a b/c d", "HTTP://x/%zz", "", "?q=1#h"]) {
    await show(`parse ${sample}`, { ...url.parse(sample) });
  }
  await show("parse query", [{ ...url.parse("/a?x=1&x=2", true).query }, url.parse("//h/p", false, true).host]);
  await show("format", [url.format({ protocol: "http", host: "a.b", pathname: "/c", search: "?d" }), url.format({ hostname: "h", port: 8, query: { a: [1, 2] } }), url.format(new URL("http://u:p@ex.com/x?y#z"), { auth: false, fragment: false, search: false })]);
  await show("resolve", [url.resolve("/one/two/three", "four"), url.resolve("http://ex.com/one", "/two"), url.resolve("http://ex.com/", "//other/x")]);
  await show("domains", [domainToASCII("español.com"), domainToASCII("xn--iñvalid.com"), domainToUnicode("xn--espaol-zwa.com")]);
  await show("files", [fileURLToPath("file:///a%20b/c"), pathToFileURL("/a b#c?d").href, code(() => fileURLToPath("http://x"))().split(" ")[1], code(() => fileURLToPath(1))()]);
  await show("options", { ...urlToHttpOptions(new URL("https://u:p@[::1]:81/p?q#h")) });
  await show("same classes", [url.URL === URL, url.URLSearchParams === URLSearchParams]);
}

async function rest(show) {
  await show("querystring", [{ ...querystring.parse("a=1&b=2&a=3&c&d=%20x+y&=e") }, querystring.stringify({ a: [1, "x"], b: true, c: null, d: "ü &" }), querystring.escape("a b&ü"), querystring.unescape("%41%zz+"), { ...querystring.parse("a:1;b:2", ";", ":") }, { ...querystring.parse("a=1&b=2", null, null, { maxKeys: 1 }) }, querystring.decode === querystring.parse]);
  await show("string_decoder", () => {
    const decoder = new StringDecoder("utf8");
    const seen = [decoder.write(Buffer.from([0xe2, 0x82])), decoder.write(Buffer.from([0xac, 0x61])), decoder.write(Buffer.from([0xf0, 0x9f])), decoder.end()];
    const utf16 = new StringDecoder("utf16le"), base64 = new StringDecoder("base64"), hex = new StringDecoder("hex");
    return [...seen, utf16.write(Buffer.from([0x61, 0, 0x62])), utf16.end(Buffer.from([0])), base64.write(Buffer.from("a")), base64.end(Buffer.from("bc")), hex.write(Buffer.from("a")), decoder.encoding];
  });
  await show("string_decoder unknown", code(() => new StringDecoder("nope")));
  await show("punycode", [punycode.encode("mañana"), punycode.decode("maana-pta"), punycode.toASCII("mañana.com"), punycode.toUnicode("xn--maana-pta.com"), punycode.toASCII("džmail@mañana.com"), punycode.ucs2.decode("a😀"), punycode.ucs2.encode([0x61, 0x1f600])]);
  await show("os", [EOL, os.platform(), os.type(), os.arch(), os.endianness(), os.cpus(), os.hostname(), os.homedir(), os.tmpdir(), os.totalmem(), os.uptime(), os.loadavg(), os.release(), os.version(), os.networkInterfaces(), os.availableParallelism(), os.devNull]);
  await show("os constants", [os.constants.signals.SIGTERM, os.constants.errno.ENOENT, os.constants.priority.PRIORITY_LOW]);
  await show("channels", () => {
    const seen = [];
    const one = channel("one");
    const listener = (message, name) => seen.push([message, name]);
    const before = one.hasSubscribers;
    one.subscribe(listener);
    one.publish({ a: 1 });
    return [before, one.hasSubscribers, diagnostics.hasSubscribers("one"), void one.unsubscribe(listener), one.hasSubscribers, void one.publish("nobody"), seen, channel("one") === one];
  });
  await show("channel stores", () => {
    const storage = new AsyncLocalStorage();
    const one = channel("stores");
    one.bindStore(storage, (data) => data.id);
    return [one.runStores({ id: 5 }, () => storage.getStore()), storage.getStore()];
  });
  await show("tracing", async () => {
    const seen = [];
    const trace = tracingChannel("t");
    trace.subscribe(Object.fromEntries(["start", "end", "asyncStart", "asyncEnd", "error"].map((name) => [name, () => seen.push(name)])));
    trace.traceSync(() => 1, {});
    await trace.tracePromise(async () => 2, {});
    try { trace.traceSync(() => { throw new Error("x"); }, {}); } catch { seen.push("thrown"); }
    return seen;
  });
}
