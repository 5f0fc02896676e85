// Shows: Response.error is a network error and cannot be given to a client.
// > GET /
// > GET /answer
import { report } from "report.js";

export default {
  async fetch(request) {
    if (request.url.endsWith("/answer")) return Response.error();
    return report(async (show) => {
      const r = Response.error();
      await show("shape", [r.type, r.status, r.ok, r.body, [...r.headers]]);
    });
  },
};
