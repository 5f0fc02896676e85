// Shows: a response made from another one: the usual way to change headers.
// > GET /
export default {
  async fetch() {
    const first = new Response("body", { status: 203, headers: [["a", "1"], ["set-cookie", "x=1"], ["set-cookie", "y=2"]] });
    const second = new Response(first.body, first);
    second.headers.append("a", "2");
    second.headers.delete("missing");
    second.headers.set("used", String(first.bodyUsed));
    return second;
  },
};
