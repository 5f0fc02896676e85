// Shows: a body of 1 MiB comes back whole, buffered and streamed.
// > POST /buffer
// * 65536 0123456789abcdef
// > POST /stream
// * 65536 0123456789abcdef
// > POST /length
// * 65536 0123456789abcdef
export default {
  async fetch(request) {
    const { pathname } = new URL(request.url);
    if (pathname === "/buffer") return new Response(await request.arrayBuffer());
    if (pathname === "/stream") return new Response(request.body);
    return new Response(String((await request.text()).length));
  },
};
