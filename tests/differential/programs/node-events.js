// Shows: node:events: emitters, once, on, rejections that are caught, errors, and EventTargets.
// @flags nodejs_compat
import EventEmitter, * as events from "node:events";
import { AsyncLocalStorage } from "node:async_hooks";
import { reporter } from "report.js";

const code = (run) => () => {
  try {
    return run();
  } catch (error) {
    return `${error.name} ${error.code} ${error.message}`;
  }
};
export default reporter(async (show) => {
  const log = [];
  const emitter = new EventEmitter();
  const note = (name) => (...args) => void log.push([name, ...args]);
  const taken = () => log.splice(0);
  emitter.on("a", note("on")).once("a", note("once")).prependListener("a", note("first"));
  await show("emit", [emitter.emit("a", 1, 2), emitter.emit("a"), emitter.emit("b"), taken()]);
  await show("counts", [emitter.listenerCount("a"), emitter.eventNames(), emitter.listeners("a").length, emitter.rawListeners("a").length]);
  await show("remove", () => {
    const listener = note("x");
    emitter.on("x", listener).off("x", listener).removeListener("x", listener);
    return [emitter.listenerCount("x"), emitter.removeAllListeners("a") === emitter, emitter.eventNames()];
  });
  await show("newListener", () => {
    const own = new EventEmitter();
    own.on("newListener", (name) => log.push(["new", name])).on("removeListener", (name) => log.push(["gone", name]));
    own.once("y", () => {});
    own.emit("y");
    return taken();
  });
  await show("error without a listener", code(() => emitter.emit("error", new TypeError("boom"))));
  await show("error that is none", code(() => emitter.emit("error", { a: 1 })));
  await show("errorMonitor", () => {
    const own = new EventEmitter();
    own.on(events.errorMonitor, (error) => log.push(["monitor", error.message]));
    return [code(() => own.emit("error", new Error("seen")))(), taken()];
  });
  await show("captureRejections", async () => {
    const own = new EventEmitter({ captureRejections: true });
    own.on("go", async () => { throw new Error("async"); });
    own.on("error", (error) => log.push(["error", error.message]));
    own.emit("go");
    await new Promise((resolve) => setTimeout(resolve, 1));
    return taken();
  });
  await show("captureRejectionSymbol", async () => {
    const own = new EventEmitter({ captureRejections: true });
    own[events.captureRejectionSymbol] = (error, name) => log.push(["symbol", error.message, name]);
    own.on("go", async () => { throw new Error("async"); });
    own.emit("go");
    await new Promise((resolve) => setTimeout(resolve, 1));
    return taken();
  });
  await show("once", async () => {
    const own = new EventEmitter();
    setTimeout(() => own.emit("done", 1, 2), 1);
    return events.once(own, "done");
  });
  await show("once fails", async () => {
    const own = new EventEmitter();
    setTimeout(() => own.emit("error", new RangeError("no")), 1);
    return events.once(own, "done");
  });
  await show("once aborted", async () => events.once(new EventEmitter(), "x", { signal: AbortSignal.abort() }));
  await show("once of an EventTarget", async () => {
    const target = new EventTarget();
    setTimeout(() => target.dispatchEvent(new Event("go")), 1);
    return (await events.once(target, "go")).map((event) => event.type);
  });
  await show("on", async () => {
    const own = new EventEmitter(), seen = [];
    setTimeout(() => { own.emit("n", 1); own.emit("n", 2); }, 1);
    for await (const [n] of events.on(own, "n")) {
      seen.push(n);
      if (n === 2) break;
    }
    return [seen, own.listenerCount("n")];
  });
  await show("on aborted", async () => {
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 1);
    for await (const _ of events.on(new EventEmitter(), "n", { signal: controller.signal }));
  });
  await show("statics", [EventEmitter.EventEmitter === EventEmitter, events.EventEmitter === EventEmitter, EventEmitter.defaultMaxListeners, events.getMaxListeners(emitter), events.listenerCount(emitter, "a"), events.getEventListeners(emitter, "a").length]);
  await show("max", () => [emitter.setMaxListeners(3).getMaxListeners(), code(() => emitter.setMaxListeners(-1))().slice(0, 30)]);
  await show("not a function", code(() => emitter.on("x", 1)));
  await show("symbols", () => {
    const name = Symbol("s");
    emitter.on(name, note("symbol"));
    return [emitter.emit(name), taken(), emitter.eventNames().includes(name)];
  });
  await show("inherits", () => {
    class Own extends EventEmitter {}
    function Old() { EventEmitter.call(this); }
    Object.setPrototypeOf(Old.prototype, EventEmitter.prototype);
    const old = new Old();
    old.on("x", note("old"));
    return [new Own() instanceof EventEmitter, old.emit("x"), taken()];
  });
  await show("addAbortListener", () => {
    const controller = new AbortController();
    const gone = events.addAbortListener(controller.signal, () => log.push("aborted"));
    gone[Symbol.dispose]();
    events.addAbortListener(controller.signal, () => log.push("aborted too"));
    controller.abort();
    return taken();
  });
  await show("EventEmitterAsyncResource", () => {
    const storage = new AsyncLocalStorage();
    const own = storage.run(7, () => new events.EventEmitterAsyncResource({ name: "Q" }));
    own.on("x", () => log.push(storage.getStore()));
    own.emit("x");
    return taken();
  });
  await show("this and copies", () => {
    const own = new EventEmitter();
    own.on("x", function () { log.push(this === own); });
    own.on("x", () => own.removeAllListeners("x"));
    own.on("x", note("still"));
    own.emit("x");
    return taken();
  });
});
