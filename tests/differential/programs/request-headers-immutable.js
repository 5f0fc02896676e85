// Shows: headers of the incoming request cannot be changed, those of a copy can.
// > GET /
// + x-a: 1
import { report } from "report.js";

export default {
  fetch: (request) => report(async (show) => {
    await show("set", () => request.headers.set("x-a", "2"));
    await show("append", () => request.headers.append("x-a", "2"));
    await show("delete", () => request.headers.delete("x-a"));
    await show("kept", request.headers.get("x-a"));
    const copy = new Request(request);
    copy.headers.set("x-a", "3");
    await show("copy", [copy.headers.get("x-a"), request.headers.get("x-a")]);
    const headers = new Headers(request.headers);
    headers.set("x-a", "4");
    await show("Headers copy", headers.get("x-a"));
  }),
};
