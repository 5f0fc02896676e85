// Shows: 204, 205 and 304 over the wire, with headers and without a body.
// > GET /204
// > GET /205
// > GET /304
// > HEAD /204
export default {
  fetch(request) {
    const status = Number(new URL(request.url).pathname.slice(1));
    return new Response(null, { status, headers: { "x-status": String(status), etag: '"tag"' } });
  },
};
