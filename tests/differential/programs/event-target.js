// Shows: EventTarget: order, once, handleEvent, removal, stopping, errors in listeners.
import { reporter } from "report.js";

export default reporter(async (show) => {
  const target = new EventTarget();
  const seen = [];
  const listener = (event) => seen.push(event.type);
  target.addEventListener("a", listener);
  target.addEventListener("a", listener);
  target.addEventListener("a", { handleEvent: (event) => seen.push(`object ${event.type}`) });
  target.addEventListener("a", () => seen.push("once"), { once: true });
  target.dispatchEvent(new Event("a"));
  target.dispatchEvent(new Event("a"));
  await show("order", seen.splice(0));
  target.removeEventListener("a", listener);
  target.dispatchEvent(new Event("a"));
  await show("removed", seen.splice(0));
  target.addEventListener("b", (event) => { seen.push(1); event.stopImmediatePropagation(); });
  target.addEventListener("b", () => seen.push(2));
  await show("stop", [target.dispatchEvent(new Event("b")), seen.splice(0)]);
  target.addEventListener("c", (event) => event.preventDefault());
  await show("prevented", target.dispatchEvent(new Event("c", { cancelable: true })));
  await show("not cancelable", target.dispatchEvent(new Event("c")));
  const event = new CustomEvent("d", { detail: { x: 1 } });
  await show("custom", [event.type, event.detail, event.bubbles, event.cancelable, event.defaultPrevented]);
  const stop = new AbortController();
  target.addEventListener("e", () => seen.push("never"), { signal: stop.signal });
  stop.abort();
  target.dispatchEvent(new Event("e"));
  await show("signal", seen);
  class Own extends EventTarget {}
  await show("subclass", new Own() instanceof EventTarget);
  await show("not an event", () => target.dispatchEvent({ type: "a" }));
});
