// Shows: a WritableStream's life: writes in order, close, abort, errors.
import { reporter } from "report.js";

export default reporter(async (show) => {
  const calls = [];
  const stream = new WritableStream({
    start() { calls.push("start"); },
    async write(chunk) { calls.push(`begin ${chunk}`); await null; calls.push(`end ${chunk}`); },
    close() { calls.push("close"); },
    abort(reason) { calls.push(`abort ${reason}`); },
  });
  const writer = stream.getWriter();
  await show("locked", stream.locked);
  writer.write("a");
  writer.write("b");
  await writer.close();
  await show("calls", calls);
  await show("closed", writer.closed);
  await show("write after close", () => writer.write("c"));
  const aborted = [];
  const second = new WritableStream({ abort(reason) { aborted.push(reason); } });
  await second.abort("stop");
  await show("abort", aborted);
  const failing = new WritableStream({ write() { throw new RangeError("full"); } }).getWriter();
  await show("failing write", () => failing.write("x"));
  await show("later write", () => failing.write("y"));
});
