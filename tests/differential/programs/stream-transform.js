// Shows: TransformStream, pipeThrough and pipeTo, with flush and errors.
import { reporter } from "report.js";

export default reporter(async (show) => {
  const source = (...items) => new ReadableStream({
    start(c) { items.forEach((item) => c.enqueue(item)); c.close(); },
  });
  const collect = async (stream) => { const all = []; for await (const item of stream) all.push(item); return all; };
  const upper = () => new TransformStream({
    transform(chunk, controller) { controller.enqueue(chunk.toUpperCase()); },
    flush(controller) { controller.enqueue("END"); },
  });
  await show("pipeThrough", collect(source("a", "b").pipeThrough(upper())));
  await show("chain", collect(source("a").pipeThrough(upper()).pipeThrough(upper())));
  await show("error in transform", () => collect(source("a").pipeThrough(new TransformStream({
    transform() { throw new RangeError("bad"); },
  }))));
  await show("terminate", collect(source("a", "b").pipeThrough(new TransformStream({
    transform(chunk, controller) { controller.enqueue(chunk); controller.terminate(); },
  })).pipeThrough(new TransformStream())));
  const written = [];
  await source(1, 2).pipeTo(new WritableStream({ write(chunk) { written.push(chunk); }, close() { written.push("close"); } }));
  await show("pipeTo", written);
});
