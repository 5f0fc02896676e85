// Shows: what a worker sees of the incoming request.
// > GET /a/b?x=1&y=2
// + x-custom: Value
// + accept: text/html
// > POST /post
// + content-type: application/json
// = {"a":1}
// > PUT /put
// = x
// > DELETE /delete
// > PATCH /patch
// = y
// > OPTIONS /options
import { report } from "report.js";

export default {
  fetch: (request) => report(async (show) => {
    await show("method", request.method);
    await show("url", request.url);
    await show("headers", ["x-custom", "accept", "content-type", "host"].map((name) => request.headers.get(name)));
    await show("body is null", request.body === null);
    await show("redirect", request.redirect);
    await show("body", request.text());
    await show("instance", request instanceof Request);
  }),
};
