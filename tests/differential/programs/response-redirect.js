// Shows: Response.redirect over the wire and its checks.
// > GET /
// > GET /302
// > GET /301
// > GET /307
// > GET /308
// > GET /303
import { report } from "report.js";

export default {
  async fetch(request) {
    const { pathname } = new URL(request.url);
    if (pathname !== "/") return Response.redirect("https://example.com/there?q=1", Number(pathname.slice(1)));
    return report(async (show) => {
      const r = Response.redirect("https://example.com/a b");
      await show("default", [r.status, r.headers.get("location"), r.body]);
      await show("immutable headers", () => r.headers.set("a", "b"));
      await show("200", () => Response.redirect("https://example.com/", 200));
      await show("304", () => Response.redirect("https://example.com/", 304));
      await show("bad URL", () => Response.redirect("http://[", 302));
    });
  },
};
