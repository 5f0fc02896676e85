// Shows: answers produced over time from a stream, with and without pauses.
// > GET /now
// > GET /slowly
// > GET /empty
// > HEAD /now
const encoder = new TextEncoder();
export default {
  fetch(request) {
    const { pathname } = new URL(request.url);
    let n = 0;
    const stream = new ReadableStream({
      async pull(controller) {
        if (pathname === "/empty" || n === 5) return controller.close();
        if (pathname === "/slowly") await new Promise((resolve) => setTimeout(resolve, 2));
        controller.enqueue(encoder.encode(`line ${n++}\n`));
      },
    });
    return new Response(stream, { headers: { "content-type": "text/plain" } });
  },
};
