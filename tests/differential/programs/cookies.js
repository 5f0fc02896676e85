// Shows: reading cookies of a request and setting several in an answer.
// > GET /
// + cookie: session=abc; theme=dark%20blue; empty=; flag
// > GET /login
const parse = (text) => Object.fromEntries((text ?? "").split(/;\s*/).filter(Boolean).map((pair) => {
  const at = pair.indexOf("=");
  return at < 0 ? [pair, ""] : [pair.slice(0, at), decodeURIComponent(pair.slice(at + 1))];
}));

export default {
  fetch(request) {
    const url = new URL(request.url);
    if (url.pathname === "/login") {
      const headers = new Headers({ location: "/", "cache-control": "no-store" });
      headers.append("set-cookie", "session=xyz; Path=/; HttpOnly; Secure; SameSite=Lax");
      headers.append("set-cookie", `seen=${new Date(0).toUTCString()}; Expires=${new Date(86400000).toUTCString()}`);
      headers.append("set-cookie", "old=; Max-Age=0");
      return new Response(null, { status: 303, headers });
    }
    const answer = Response.json({ cookies: parse(request.headers.get("cookie")) });
    answer.headers.append("set-cookie", "a=1");
    answer.headers.append("set-cookie", "b=2, with a comma");
    answer.headers.set("x-count", String(answer.headers.getSetCookie().length));
    answer.headers.set("x-joined", answer.headers.get("set-cookie"));
    return answer;
  },
};
