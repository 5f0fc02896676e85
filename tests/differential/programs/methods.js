// Shows: HEAD, OPTIONS and unusual methods reach the worker; HEAD answers carry no body.
// > HEAD /
// > OPTIONS /
// > OPTIONS *
// > DELETE /
// > PROPFIND /
// > SEARCH /
// = query
export default {
  async fetch(request) {
    return new Response(`${request.method} ${(await request.text()).length}`, {
      headers: { "x-method": request.method, allow: "GET, HEAD, OPTIONS" },
    });
  },
};
