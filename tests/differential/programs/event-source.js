// Shows: EventSource: what streams and answers become events, and how it ends and begins again.
import { WorkerEntrypoint } from "cloudflare:workers";
import { reporter } from "report.js";

let asked = [];
export class Events extends WorkerEntrypoint {
  fetch(request) {
    const { pathname } = new URL(request.url);
    asked.push([pathname, request.headers.get("accept"), request.headers.get("cache-control"), request.headers.get("last-event-id")]);
    const events = (text, init = {}) => new Response(text, { headers: { "content-type": "text/event-stream; charset=utf-8" }, ...init });
    switch (pathname) {
      case "/plain": return new Response("data: no\n\n", { headers: { "content-type": "text/plain" } });
      case "/missing": return events("data: no\n\n", { status: 404 });
      case "/nothing": return new Response(null, { status: 204 });
      case "/redirect": return Response.redirect("https://events/once", 307);
      default: return events(asked.length === 1 ? "id: first\nretry: 1000\ndata: 1\n\n" : "data: 2\n\n");
    }
  }
}
const streamOf = (...chunks) => new ReadableStream({
  start(out) {
    for (const chunk of chunks) out.enqueue(typeof chunk === "string" ? new TextEncoder().encode(chunk) : chunk);
    out.close();
  },
});
/** What a source tells until it ends. */
const told = (source, types = ["message"]) => new Promise((resolve) => {
  const events = [];
  for (const type of types) source.addEventListener(type, ({ data, lastEventId, type }) => events.push([type, data, lastEventId]));
  source.onopen = () => events.push(["open", source.readyState]);
  source.onerror = () => { events.push(["error", source.readyState]); resolve(events); };
});
export default reporter(async (show, { ctx }) => {
  const from = (...chunks) => told(EventSource.from(streamOf(...chunks)));
  await show("one", from("data: a\n\n"));
  await show("lines", from("data: a\ndata:b\ndata\ndata:  c\n\n"));
  await show("kinds of ends", from("data: a\r\n\r\ndata: b\r\rdata: c\n\n"));
  await show("cut anywhere", from("da", "ta: a", "\n", "\nda", "ta: b\r", "\n\r\ndata: c\n\n"));
  await show("bytes of a letter", from("data: ", new Uint8Array([0xe2, 0x9c]), new Uint8Array([0x93]), "\n\n"));
  await show("byte order mark", from("\ufeffdata: a\n\n"));
  await show("comments", from(": nothing\ndata: a\n:\n\n"));
  await show("identifiers", from("id: 1\ndata: a\n\ndata: b\n\nid\ndata: c\n\n"));
  await show("identifier with a zero", from("id: 1\ndata: a\n\nid: x\0y\ndata: b\n\n"));
  await show("empty data", from("data:\n\n"));
  await show("no data", from("event: x\nid: 7\n\ndata: a\n\n"));
  await show("not ended", from("data: a\n\ndata: b\n"));
  await show("unknown fields", from("data: a\nfoo: b\n Data: c\n\n"));
  await show("empty", from(""));
  await show("own types", told(EventSource.from(streamOf("event: tick\ndata: a\n\ndata: b\n\n")), ["tick", "message"]));
  await show("empty type", told(EventSource.from(streamOf("event:\ndata: b\n\n")), ["", "message"]));
  await show("the event", async () => {
    const source = EventSource.from(streamOf("data: a\n\n"));
    const event = await new Promise((resolve) => { source.onmessage = resolve; });
    return [event.constructor.name, event instanceof MessageEvent, event.origin, event.target === source];
  });
  await show("before it opens", () => { const source = EventSource.from(streamOf("data: a\n\n")); return [source.readyState, source.url, source.withCredentials, source instanceof EventTarget]; });
  await show("closed at once", async () => {
    const source = EventSource.from(streamOf("data: a\n\n"));
    let count = 0;
    source.onmessage = () => count++;
    source.close();
    await new Promise((done) => setTimeout(done, 5));
    return [count, source.readyState];
  });
  await show("closed at the first", async () => {
    const source = EventSource.from(streamOf("data: a\n\ndata: b\n\n"));
    let count = 0;
    source.onmessage = () => { count++; source.close(); };
    await new Promise((done) => setTimeout(done, 5));
    return [count, source.readyState];
  });
  await show("a locked stream", () => { const stream = streamOf("x"); stream.getReader(); return EventSource.from(stream); });
  await show("no stream", () => EventSource.from("data: a"));
  await show("constants", [EventSource.CONNECTING, EventSource.OPEN, EventSource.CLOSED]);
  await show("no arguments", () => new EventSource());
  await show("no URL", () => new EventSource("not a url"));
  await show("credentials", () => new EventSource("https://events/", { withCredentials: true }));
  const fetcher = ctx.exports.Events;
  for (const path of ["/plain", "/missing", "/nothing"]) {
    asked = [];
    await show(path, async () => [await told(new EventSource(`https://events${path}`, { fetcher })), asked]);
  }
  asked = [];
  await show("again", async () => {
    const source = new EventSource("https://events/again", { fetcher });
    const states = [source.readyState, source.url];
    const events = [];
    await new Promise((resolve) => {
      source.onopen = () => events.push("open");
      source.onerror = () => events.push(["error", source.readyState]);
      source.onmessage = ({ data, lastEventId, origin }) => { events.push([data, lastEventId, origin]); if (data === "2") { source.close(); resolve(); } };
    });
    return [states, events, asked, source.readyState];
  });
});
