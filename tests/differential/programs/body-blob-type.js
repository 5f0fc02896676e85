// Shows: the type of a blob read from a body comes from the content type.
import { reporter } from "report.js";

export default reporter(async (show) => {
  for (const type of ["text/plain", "Text/HTML; charset=UTF-8", "image/png", "application/json;q=1"]) {
    const blob = await new Response("x", { headers: { "content-type": type } }).blob();
    await show(type, blob.type);
  }
  await show("none", (await new Response(new Uint8Array(1)).blob()).type);
});
