// Shows: node:async_hooks: stores that follow promises, timers, microtasks and listeners, and stay in their request.
// @flags nodejs_compat
// > GET /flow
// > GET /keep
// > GET /kept
import { AsyncLocalStorage, AsyncResource, createHook, executionAsyncId, triggerAsyncId } from "node:async_hooks";
import { reporter } from "report.js";

const storage = new AsyncLocalStorage();
const kept = {};
const global = storage.run("global", () => AsyncLocalStorage.snapshot());

export default reporter(async (show, { request }) => {
  const { pathname } = new URL(request.url);
  await show("fresh", storage.getStore());
  if (pathname === "/flow") return flow(show);
  if (pathname === "/keep") {
    storage.run("first", () => {
      kept.snapshot = AsyncLocalStorage.snapshot();
      kept.bound = AsyncLocalStorage.bind(() => storage.getStore());
      kept.resource = new AsyncResource("R");
    });
    return show("own", () => [kept.snapshot(() => storage.getStore()), kept.bound()]);
  }
  const message = (run) => () => {
    try {
      return run();
    } catch (error) {
      return error.message;
    }
  };
  await show("snapshot of another request", message(() => kept.snapshot(() => storage.getStore())));
  await show("bound in another request", message(() => kept.bound()));
  await show("resource of another request", message(() => kept.resource.runInAsyncScope(() => storage.getStore())));
  await show("snapshot of the global scope", message(() => global(() => storage.getStore())));
});

async function flow(show) {
  const inside = (value, run) => storage.run(value, run);
  const later = (start) => new Promise((resolve) => start(() => resolve(storage.getStore())));
  await show("run", inside(1, (a, b) => [storage.getStore(), a, b]));
  await show("run with arguments", storage.run(1, (a, b) => [storage.getStore(), a, b], 2, 3));
  await show("nested", inside(1, () => [inside(2, () => storage.getStore()), storage.getStore()]));
  await show("after", storage.getStore());
  await show("throws", () => inside(1, () => { throw new RangeError("x"); }));
  await show("after throw", storage.getStore());
  await show("exit", inside(1, () => [storage.exit((a) => [storage.getStore(), a], 4), storage.getStore()]));
  await show("await", inside(1, async () => {
    await null;
    await Promise.resolve();
    return storage.getStore();
  }));
  await show("then", inside(1, () => Promise.resolve().then(() => storage.getStore())));
  await show("catch", inside(1, () => Promise.reject(1).catch(() => storage.getStore())));
  await show("finally", inside(1, () => {
    let seen;
    return Promise.resolve().finally(() => (seen = storage.getStore())).then(() => seen);
  }));
  await show("thenable", inside(8, () => Promise.resolve({ then(resolve) { resolve(storage.getStore()); } })));
  await show("resolved elsewhere", async () => {
    let resolve;
    const promise = new Promise((done) => (resolve = done));
    const seen = inside(9, () => promise.then(() => storage.getStore()));
    inside(10, () => resolve());
    return seen;
  });
  await show("queueMicrotask", inside(1, () => later(queueMicrotask)));
  await show("nextTick", inside(1, () => later(process.nextTick)));
  await show("setTimeout", inside(1, () => later((run) => setTimeout(run, 1))));
  await show("setImmediate", inside(1, () => later((run) => setImmediate(run))));
  await show("setInterval", inside(1, () => later((run) => {
    const timer = setInterval(() => {
      clearInterval(timer);
      run();
    }, 1);
  })));
  await show("listeners run in the context of the dispatch", () => {
    const target = new EventTarget(), seen = [];
    inside(5, () => target.addEventListener("x", () => seen.push(storage.getStore())));
    inside(6, () => target.dispatchEvent(new Event("x")));
    return seen;
  });
  await show("abort", () => {
    const controller = new AbortController(), seen = [];
    inside(5, () => controller.signal.addEventListener("abort", () => seen.push(storage.getStore())));
    inside(6, () => controller.abort());
    return seen;
  });
  await show("streams", inside(11, async () => {
    let seen;
    const stream = new ReadableStream({ pull(controller) { seen = storage.getStore(); controller.close(); } });
    await inside(12, () => stream.getReader().read());
    return seen;
  }));
  await show("async generators", async () => {
    async function* numbers() {
      yield storage.getStore();
      yield storage.getStore();
    }
    return inside(1, async () => {
      const seen = [];
      for await (const each of numbers()) seen.push(each);
      return seen;
    });
  });
  await show("two at once", Promise.all([1, 2, 3].map((n) => inside(n, async () => {
    await new Promise((resolve) => setTimeout(resolve, 4 - n));
    return storage.getStore();
  }))));
  await show("two storages", () => {
    const other = new AsyncLocalStorage();
    return inside(1, () => other.run(2, () => [storage.getStore(), other.getStore()]));
  });
  await show("snapshot", inside(13, () => AsyncLocalStorage.snapshot())((x) => [storage.getStore(), x], 2));
  await show("bind", inside(13, () => AsyncLocalStorage.bind((x) => [storage.getStore(), x]))(3));
  await show("bind of no function", () => AsyncLocalStorage.bind(1));
  await show("options", () => {
    const named = new AsyncLocalStorage({ defaultValue: 5, name: "n" });
    return [named.getStore(), named.name, named.run(undefined, () => named.getStore())];
  });
  await show("resource", () => {
    const resource = inside(14, () => new AsyncResource("X"));
    const run = function (x) { return [storage.getStore(), x, this]; };
    return [resource.runInAsyncScope(run, 1, 2), resource.asyncId(), resource.triggerAsyncId()];
  });
  await show("resource.bind", () => {
    const resource = inside(14, () => new AsyncResource("X"));
    const bound = resource.bind((x) => [storage.getStore(), x]);
    return [bound(1), bound.asyncResource === resource];
  });
  await show("AsyncResource.bind", inside(14, () => AsyncResource.bind((x) => [storage.getStore(), x]))(1));
  await show("subclass", () => {
    class Own extends AsyncResource {
      constructor() { super("OWN"); }
      run(f) { return this.runInAsyncScope(f, null); }
    }
    const own = inside(15, () => new Own());
    return own.run(() => storage.getStore());
  });
  await show("hooks", () => [typeof createHook({ init() {} }).enable, executionAsyncId(), triggerAsyncId()]);
  await show("enterWith", () => {
    storage.enterWith(20);
    return storage.getStore();
  });
}
