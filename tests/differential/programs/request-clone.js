// Shows: cloning the incoming request lets two readers have the body.
// > POST /
// + content-type: text/plain
// = the body of the request
// > GET /
import { report } from "report.js";

export default {
  fetch: (request) => report(async (show) => {
    const copy = request.clone();
    await show("head", [copy.method, copy.url === request.url, copy.headers.get("content-type")]);
    await show("both", Promise.all([request.text(), copy.text()]));
    await show("used", [request.bodyUsed, copy.bodyUsed]);
    await show("again", () => request.text());
  }),
};
