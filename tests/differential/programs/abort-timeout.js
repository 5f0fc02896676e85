// Shows: AbortSignal.timeout, any and abort with timers and streams.
import { reporter } from "report.js";

const aborted = (signal) => new Promise((resolve) => signal.addEventListener("abort", () => resolve(signal.reason), { once: true }));
export default reporter(async (show) => {
  const timeout = AbortSignal.timeout(5);
  await show("before", timeout.aborted);
  const reason = await aborted(timeout);
  await show("after", [timeout.aborted, reason.name, reason instanceof DOMException, reason.code]);
  await show("throwIfAborted", () => timeout.throwIfAborted());
  const controller = new AbortController();
  const any = AbortSignal.any([controller.signal, AbortSignal.timeout(10_000)]);
  controller.abort(new RangeError("mine"));
  await show("any", [any.aborted, any.reason?.name]);
  await show("abort", [AbortSignal.abort().reason.name, AbortSignal.abort("text").reason]);
  await show("wait", scheduler.wait(1).then(() => "waited"));
  const stop = new AbortController();
  setTimeout(() => stop.abort(), 1);
  await show("wait aborted", () => scheduler.wait(10_000, { signal: stop.signal }));
  const source = new ReadableStream({ start(c) { c.enqueue("never read"); } });
  await show("pipe", () => source.pipeTo(new WritableStream(), { signal: AbortSignal.abort() }));
  await show("fetch", () => fetch("https://example.com/", { signal: AbortSignal.abort(new TypeError("early")) }));
  await show("onabort", () => { const c = new AbortController(); let seen = 0; c.signal.onabort = () => seen++; c.abort(); c.abort(); return seen; });
});
