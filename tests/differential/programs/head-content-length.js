// Shows: HEAD of a fixed body, of JSON and of nothing.
// > HEAD /text
// > HEAD /json
// > HEAD /none
export default {
  fetch(request) {
    const { pathname } = new URL(request.url);
    if (pathname === "/json") return Response.json({ a: 1 });
    return new Response(pathname === "/none" ? null : "12345");
  },
};
