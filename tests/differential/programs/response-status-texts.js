// Shows: which status lines a client sees.
// > GET /200
// > GET /201
// > GET /299
// > GET /404
// > GET /418
// > GET /500
// > GET /599
// > GET /200?Fine
// > GET /404?Gone%20fishing
export default {
  fetch(request) {
    const url = new URL(request.url);
    const statusText = decodeURIComponent(url.search.slice(1));
    const init = { status: Number(url.pathname.slice(1)) };
    if (statusText) init.statusText = statusText;
    return new Response(`status ${init.status}`, init);
  },
};
