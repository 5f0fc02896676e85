// Shows: a ReadableStream's life: start, pull, close, cancel, errors, locks.
import { reporter } from "report.js";

export default reporter(async (show) => {
  const calls = [];
  const stream = new ReadableStream({
    start() { calls.push("start"); },
    pull(controller) {
      calls.push("pull");
      controller.enqueue(`chunk ${calls.length}`);
      if (calls.length > 3) controller.close();
    },
    cancel(reason) { calls.push(`cancel ${reason}`); },
  }, { highWaterMark: 0 });
  await show("locked before", stream.locked);
  const reader = stream.getReader();
  await show("locked", stream.locked);
  await show("second reader", () => stream.getReader());
  await show("read", [await reader.read(), await reader.read(), await reader.read(), await reader.read()]);
  await show("calls", calls);
  await show("closed", reader.closed);
  reader.releaseLock();
  await show("released", stream.locked);
  await show("read after release", () => reader.read());
  const reasons = [];
  const cancelled = new ReadableStream({ cancel(reason) { reasons.push(reason); } });
  await cancelled.cancel("why");
  await show("cancel", reasons);
  const failed = new ReadableStream({ start(c) { c.error(new RangeError("no")); } });
  await show("error", () => failed.getReader().read());
  await show("desiredSize", () => {
    let size;
    new ReadableStream({ start(c) { size = [c.desiredSize]; c.enqueue(1); size.push(c.desiredSize); } }, { highWaterMark: 3 });
    return size;
  });
  await show("enqueue after close", () => new ReadableStream({ start(c) { c.close(); c.enqueue(1); } }));
});
