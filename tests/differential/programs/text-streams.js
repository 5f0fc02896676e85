// Shows: TextEncoderStream and TextDecoderStream with a character split over chunks.
import { reporter } from "report.js";

export default reporter(async (show) => {
  const source = (...items) => new ReadableStream({
    start(c) { items.forEach((item) => c.enqueue(item)); c.close(); },
  });
  const collect = async (stream) => { const all = []; for await (const item of stream) all.push(item); return all; };
  const bytes = new TextEncoder().encode("世界");
  const decoded = await collect(source(bytes.slice(0, 2), bytes.slice(2)).pipeThrough(new TextDecoderStream()));
  await show("decoded", decoded.join(""));
  const encoded = await collect(source("a", "世").pipeThrough(new TextEncoderStream()));
  await show("encoded", encoded);
  await show("fatal", () => collect(source(new Uint8Array([0xff])).pipeThrough(new TextDecoderStream("utf-8", { fatal: true }))));
  await show("encoding", [new TextEncoderStream().encoding, new TextDecoderStream().encoding]);
});
