// Shows: how request targets reach a worker.
// > GET /
// > GET //double//slash
// > GET /a/../b/./c
// > GET /%2e%2e/secret
// > GET /%2F%5C%00
// > GET /?
// > GET /?a=b=c&&d
// > GET /caf%C3%A9?q=%E4%B8%96
// > GET /a;b=1,c:d@e!$'()*+
// > GET /%zz%
export default {
  fetch(request) {
    const url = new URL(request.url);
    return new Response(`url: ${request.url}\npath: ${url.pathname}\nsearch: ${url.search}\n`);
  },
};
