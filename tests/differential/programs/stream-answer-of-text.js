// Shows: a stream of strings is not a body: the answer fails.
// > GET /
import { reporter } from "report.js";

export default reporter(async (show) => {
  const strings = () => new ReadableStream({ start(c) { c.enqueue("text"); c.close(); } });
  await show("text", () => new Response(strings()).text());
  await show("bytes", () => new Response(strings()).arrayBuffer());
});
