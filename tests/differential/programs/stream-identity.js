// Shows: IdentityTransformStream and FixedLengthStream, which set the framing of an answer.
// > GET /identity
// > GET /fixed
// > GET /report
import { report } from "report.js";

export default {
  async fetch(request, env, ctx) {
    const { pathname } = new URL(request.url);
    if (pathname === "/report") {
      return report(async (show) => {
        await show("too short", async () => {
          const { readable, writable } = new FixedLengthStream(3);
          const writer = writable.getWriter();
          const text = new Response(readable).text();
          text.catch(() => {});
          writer.write(new Uint8Array(1)).catch(() => {});
          await writer.close();
        });
        await show("text chunk", async () => {
          const { readable, writable } = new IdentityTransformStream();
          const reading = readable.getReader().read().catch(() => {});
          await writable.getWriter().write({});
          await reading;
        });
      });
    }
    const stream = pathname === "/fixed" ? new FixedLengthStream(10) : new IdentityTransformStream();
    ctx.waitUntil((async () => {
      const writer = stream.writable.getWriter();
      await writer.write(new TextEncoder().encode("hello"));
      await writer.write(new TextEncoder().encode("world"));
      await writer.close();
    })());
    return new Response(stream.readable);
  },
};
