// Shows: AbortController and the signals made from others.
import { reporter } from "report.js";

export default reporter(async (show) => {
  const controller = new AbortController();
  const { signal } = controller;
  const events = [];
  signal.addEventListener("abort", (event) => events.push([event.type, event.target === signal]));
  signal.onabort = () => events.push("onabort");
  await show("before", [signal.aborted, signal.reason]);
  controller.abort();
  controller.abort("again");
  await show("after", [signal.aborted, signal.reason.name, events]);
  await show("throwIfAborted", () => signal.throwIfAborted());
  const reasoned = AbortSignal.abort("because");
  await show("reason", [reasoned.aborted, reasoned.reason]);
  const first = new AbortController();
  const any = AbortSignal.any([first.signal, new AbortController().signal]);
  await show("any before", any.aborted);
  first.abort("one");
  await show("any after", [any.aborted, any.reason]);
  await show("any of aborted", AbortSignal.any([reasoned]).reason);
  const timeout = AbortSignal.timeout(5);
  await new Promise((resolve) => timeout.addEventListener("abort", resolve));
  await show("timeout", timeout.reason.name);
  await show("constructor", () => new AbortSignal());
});
