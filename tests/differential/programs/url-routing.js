// Shows: a router made of URLPattern and search parameters.
// > GET /
// > GET /users/42
// > GET /users/42/posts/hello-world?page=2&tag=a&tag=b%20c
// > DELETE /users/7
// > GET /files/a/b/c.txt
// > GET /nothing/here
// > GET /caf%C3%A9/%2F?q=%F0%9F%98%80
const routes = [];
const route = (method, pathname, handler) => routes.push({ method, pattern: new URLPattern({ pathname }), handler });
route("GET", "/", () => "home");
route("GET", "/users/:id", ({ id }) => ({ user: Number(id) }));
route("GET", "/users/:id/posts/:slug", ({ id, slug }, url) => ({
  id, slug, page: url.searchParams.get("page"), tags: url.searchParams.getAll("tag"), size: url.searchParams.size,
}));
route("DELETE", "/users/:id(\\d+)", () => new Response(null, { status: 204 }));
route("GET", "/files/*", (groups) => groups);
route("GET", "/caf%C3%A9/:rest", (groups, url) => [groups, url.pathname, url.searchParams.get("q"), url.search]);

export default {
  fetch(request) {
    const url = new URL(request.url);
    for (const { method, pattern, handler } of routes) {
      const match = method === request.method && pattern.exec({ pathname: url.pathname });
      if (!match) continue;
      const result = handler(match.pathname.groups, url);
      return result instanceof Response ? result : Response.json(result);
    }
    return Response.json({ error: "not found", path: url.pathname }, { status: 404 });
  },
};
