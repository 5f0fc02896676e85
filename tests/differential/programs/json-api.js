// Shows: a JSON API with validation, errors as answers and CORS.
// > OPTIONS /items
// + origin: https://app.test
// + access-control-request-method: POST
// > POST /items
// + content-type: application/json
// = {"name":"café","tags":["a","b"],"count":2}
// > POST /items
// + content-type: application/json
// = {"name":
// > POST /items
// + content-type: text/plain
// = hello
// > GET /items
// + accept: application/json
// > PUT /items
// = {}
const cors = { "access-control-allow-origin": "*", "access-control-allow-methods": "GET, POST", vary: "origin" };
const problem = (status, detail) => Response.json({ status, detail }, { status, headers: { ...cors, "content-type": "application/problem+json" } });

export default {
  async fetch(request) {
    switch (request.method) {
      case "OPTIONS":
        return new Response(null, { status: 204, headers: { ...cors, "access-control-max-age": "600" } });
      case "GET":
        return Response.json({ items: [], date: new Date(0), nothing: undefined, big: 2 ** 53 }, { headers: cors });
      case "POST": {
        if (!request.headers.get("content-type")?.startsWith("application/json")) return problem(415, "send JSON");
        let body;
        try {
          body = await request.json();
        } catch (error) {
          return problem(400, `not JSON: ${error.name} ${error instanceof SyntaxError}`);
        }
        return Response.json({ ...body, id: 1 }, { status: 201, headers: { ...cors, location: "/items/1" } });
      }
      default:
        return new Response("no such method\n", { status: 405, headers: { allow: "GET, POST, OPTIONS" } });
    }
  },
};
