// Shows: header names, values, order of combined values and cookies as a client receives them.
export default {
  fetch() {
    const headers = new Headers({ "X-Mixed-Case": "Value" });
    headers.append("x-list", "a");
    headers.append("X-List", "b");
    headers.append("set-cookie", "a=1; Path=/");
    headers.append("Set-Cookie", "b=2; HttpOnly");
    headers.set("x-empty", "");
    headers.set("x-spaces", "  kept inside  here ");
    headers.set("x-latin", "caf\u00e9");
    headers.set("content-type", "text/html");
    headers.set("cache-control", "no-store");
    headers.set("vary", "accept");
    headers.append("vary", "origin");
    return new Response("<p>ok</p>", { headers });
  },
};
