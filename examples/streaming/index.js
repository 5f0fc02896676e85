const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// GET: server-sent events, one at a time. The source is pulled only as fast as the client reads.
function ticks(count, everyMs) {
  const encoder = new TextEncoder();
  let n = 0;
  return new ReadableStream({
    async pull(controller) {
      if (n === count) {
        controller.close();
        return;
      }
      if (n > 0) await sleep(everyMs);
      n += 1;
      controller.enqueue(encoder.encode(`data: tick ${n}\n\n`));
    },
  });
}

// POST: the body comes back in upper case while it is still being sent.
function upperCase() {
  return new TransformStream({
    transform(chunk, controller) {
      controller.enqueue(chunk.toUpperCase());
    },
  });
}

export default {
  fetch(request) {
    if (request.method === "POST" && request.body) {
      const body = request.body
        .pipeThrough(new TextDecoderStream())
        .pipeThrough(upperCase())
        .pipeThrough(new TextEncoderStream());
      return new Response(body, { headers: { "content-type": "text/plain; charset=utf-8" } });
    }
    const query = new URL(request.url).searchParams;
    const count = Math.min(Number(query.get("count") ?? 5) || 5, 100);
    const everyMs = Math.min(Number(query.get("every") ?? 200) || 0, 1000);
    return new Response(ticks(count, everyMs), {
      headers: { "content-type": "text/event-stream", "cache-control": "no-store" },
    });
  },
};
