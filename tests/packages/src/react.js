// Shows: react-dom's streaming renderer: suspense, errors, identifiers and abort.
// > GET /
// < content-type: text/html
// < <!DOCTYPE html><html lang="en">
// < <p>Hello <!-- -->&lt;Ada&gt;</p>
// < <p>loading</p>
// < <p>loaded late</p>
// < $RC(
// > GET /static
// < <ul><li>1</li><li>2</li></ul>
// > GET /report
import { createContext, createElement as h, Suspense, use, useContext, useId, useMemo, useState } from "react";
import { prerender } from "react-dom/static.edge";
import { renderToReadableStream, renderToStaticMarkup, renderToString } from "react-dom/server.edge";
import { reporter } from "./check.js";

const Name = createContext("nobody");
const Hello = () => h("p", null, "Hello ", `<${useContext(Name)}>`);
const Late = ({ data }) => h("p", null, use(data));
const after = (ms, value) => new Promise((done) => setTimeout(done, ms, value));
function Page() {
  const [count] = useState(() => 3);
  const double = useMemo(() => 2 * count, [count]);
  const data = after(5, "loaded late");
  return h("html", { lang: "en" }, h("head", null, h("title", null, "Page")), h("body", null,
    h(Hello), h("b", { id: useId(), className: "n", style: { color: "red" } }, double),
    h(Suspense, { fallback: h("p", null, "loading") }, h(Late, { data }))));
}
const page = () => h(Name.Provider, { value: "Ada" }, h(Page));
const text = (stream) => new Response(stream).text();
function Broken() { throw new RangeError("broken part"); }

const report = reporter(async (is) => {
  await is("string", "<p>Hello <!-- -->&lt;nobody&gt;</p>", renderToString(h(Hello)));
  const stream = await renderToReadableStream(page());
  await is("waits for all", false, async () => { await stream.allReady; return (await text(stream)).includes("<p>loading</p>"); });
  const prelude = await prerender(page());
  await is("prerendered", false, text(prelude.prelude).then((html) => html.includes("loading")));
  await is("nonce", true, renderToReadableStream(page(), { nonce: "abc", bootstrapScripts: ["/app.js"] }).then(text).then((html) => html.includes('<script nonce="abc"') && html.includes("/app.js")));
  await is("shell fails", "throws RangeError: broken part", renderToReadableStream(h("p", null, h(Broken)), { onError() {} }));
  const seen = [];
  await is("a part fails", [true, ["broken part"]], async () => {
    const boundary = h("main", null, h(Suspense, { fallback: h("i", null, "instead") }, h(Broken)));
    const html = await renderToReadableStream(boundary, { onError(error) { seen.push(error.message); return "digest"; } }).then(text);
    return [html.includes("<i>instead</i>") && html.includes("digest"), seen];
  });
  await is("aborted", ["enough"], async () => {
    const stop = new AbortController();
    const told = [];
    const waits = h("main", null, h(Suspense, { fallback: h("i", null, "waiting") }, h(Late, { data: new Promise(() => {}) })));
    const partial = await renderToReadableStream(waits, { signal: stop.signal, onError(error) { told.push(error.message ?? error); } });
    stop.abort("enough");
    await text(partial);
    return told;
  });
});

export default {
  async fetch(request, env, ctx) {
    const { pathname } = new URL(request.url);
    if (pathname === "/report") return report(request, env, ctx);
    if (pathname === "/static") return new Response(renderToStaticMarkup(h("ul", null, [1, 2].map((n) => h("li", { key: n }, n)))), { headers: { "content-type": "text/html" } });
    return new Response(await renderToReadableStream(page()), { headers: { "content-type": "text/html" } });
  },
};
