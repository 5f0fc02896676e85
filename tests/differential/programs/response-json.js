// Shows: Response.json sets the type, keeps a given one, and refuses what JSON cannot say.
import { reporter } from "report.js";

export default reporter(async (show) => {
  const value = Response.json({ a: [1, null, "é"] });
  await show("type", value.headers.get("content-type"));
  await show("text", value.text());
  await show("status", () => Response.json(1, { status: 418, statusText: "Teapot" }).status);
  await show("own type", () => Response.json(1, { headers: { "content-type": "application/x+json" } }).headers.get("content-type"));
  await show("undefined", () => Response.json(undefined));
  await show("bigint", () => Response.json(1n));
  await show("cycle", () => { const a = {}; a.a = a; return Response.json(a); });
  await show("null", () => Response.json(null).text());
  await show("204", () => Response.json(null, { status: 204 }));
  await show("toJSON", () => Response.json({ toJSON: () => "custom" }).text());
});
