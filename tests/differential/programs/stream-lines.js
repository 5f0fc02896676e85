// Shows: server-sent events and lines through text streams, written while they are read.
// > GET /events
// > POST /lines
// = one\ntwo\nthr
// > GET /slow
export default {
  async fetch(request, env, ctx) {
    const { pathname } = new URL(request.url);
    if (pathname === "/lines") {
      let rest = "";
      const lines = new TransformStream({
        transform(text, controller) {
          const parts = (rest + text).split("\n");
          rest = parts.pop();
          for (const part of parts) controller.enqueue(`${part.length} ${part}\n`);
        },
        flush(controller) { if (rest) controller.enqueue(`last ${rest}\n`); },
      });
      const body = request.body.pipeThrough(new TextDecoderStream()).pipeThrough(lines).pipeThrough(new TextEncoderStream());
      return new Response(body, { headers: { "content-type": "text/plain" } });
    }
    const { readable, writable } = new TransformStream();
    const writer = writable.getWriter();
    const encoder = new TextEncoder();
    ctx.waitUntil((async () => {
      for (let n = 0; n < 5; n++) {
        await writer.write(encoder.encode(`id: ${n}\ndata: ${JSON.stringify({ n })}\n\n`));
        if (pathname === "/slow") await new Promise((resolve) => setTimeout(resolve, 2));
      }
      await writer.close();
    })());
    return new Response(readable, { headers: { "content-type": "text/event-stream", "cache-control": "no-cache" } });
  },
};
