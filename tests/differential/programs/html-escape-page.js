// Shows: a page made from templates, with an ETag, conditional requests and ranges by hand.
// > GET /
// + accept-language: de-CH, fr;q=0.5
// > GET /
// + if-none-match: "2-43"
// > GET /?name=%3Cscript%3E%26%22
// > HEAD /
const escape = (text) => text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
const html = (parts, ...values) => String.raw({ raw: parts }, ...values.map((value) => escape(String(value))));

export default {
  async fetch(request) {
    const { searchParams } = new URL(request.url);
    const language = request.headers.get("accept-language")?.split(",")[0] ?? "none";
    const page = html`<!doctype html><title>Hello</title><p lang="${language}">Hello ${searchParams.get("name") ?? "world"} ✓</p>`;
    const tag = `"2-${page.length.toString(16)}"`;
    const headers = { "content-type": "text/html;charset=utf-8", etag: tag, "cache-control": "public, max-age=60" };
    if (request.headers.get("if-none-match") === tag) return new Response(null, { status: 304, headers });
    return new Response(page, { headers });
  },
};
