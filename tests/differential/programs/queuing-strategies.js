// Shows: queuing strategies and writer backpressure.
import { reporter } from "report.js";

export default reporter(async (show) => {
  const count = new CountQueuingStrategy({ highWaterMark: 2 });
  const bytes = new ByteLengthQueuingStrategy({ highWaterMark: 16 });
  await show("strategies", [count.highWaterMark, count.size("abc"), bytes.highWaterMark, bytes.size(new Uint8Array(3))]);
  const { writable, readable } = new TransformStream(undefined, count);
  const writer = writable.getWriter();
  await show("desired", writer.desiredSize);
  writer.write(1);
  await show("after one", writer.desiredSize);
  const reader = readable.getReader();
  await show("read", await reader.read());
  writer.close();
  await show("end", await reader.read());
  await show("bad strategy", () => new CountQueuingStrategy());
});
