// Shows: node:timers, node:timers/promises, and global timers that are objects.
// @flags nodejs_compat
import timers from "node:timers";
import promises, { scheduler, setInterval as every, setTimeout as wait } from "node:timers/promises";
import { reporter } from "report.js";

const code = (run) => async () => {
  try {
    return await run();
  } catch (error) {
    return `${error.name} ${error.code}`;
  }
};
export default reporter(async (show) => {
  await show("global", [setTimeout === timers.setTimeout, clearTimeout === timers.clearTimeout, typeof clearImmediate]);
  await show("objects", () => {
    const timer = setTimeout(() => {}, 1);
    const seen = [typeof timer, timer.constructor.name, typeof +timer, timer.hasRef(), timer.unref().hasRef(), timer.ref() === timer];
    clearTimeout(timer);
    return seen;
  });
  await show("order", async () => {
    const order = [];
    await new Promise((resolve) => {
      setTimeout(() => order.push("second"), 3);
      setTimeout((a, b) => order.push(["first", a, b]), 1, 1, 2);
      setTimeout(resolve, 6);
      queueMicrotask(() => order.push("microtask"));
    });
    return order;
  });
  await show("clear", async () => {
    const seen = [];
    clearTimeout(setTimeout(() => seen.push("object"), 1));
    clearTimeout(+setTimeout(() => seen.push("number"), 1));
    clearImmediate(setImmediate(() => seen.push("immediate")));
    setTimeout(() => seen.push("close"), 1).close();
    clearTimeout(undefined);
    clearTimeout({});
    await wait(3);
    return seen;
  });
  await show("interval", async () => {
    let count = 0;
    await new Promise((resolve) => {
      const timer = setInterval(() => {
        if (++count === 3) { clearInterval(timer); resolve(); }
      }, 1);
    });
    await wait(3);
    return count;
  });
  await show("refresh", async () => {
    const order = [];
    const timer = setTimeout(() => order.push("refreshed"), 4);
    setTimeout(() => { order.push("other"); }, 6);
    await wait(2);
    timer.refresh();
    await wait(8);
    return order.length;
  });
  await show("dispose", async () => {
    let ran = false;
    setTimeout(() => (ran = true), 1)[Symbol.dispose]();
    await wait(3);
    return ran;
  });
  await show("promises", [await promises.setTimeout(1, "value"), await promises.setImmediate("now"), await wait(), await scheduler.wait(1), await scheduler.yield()]);
  await show("aborted", code(() => wait(10, undefined, { signal: AbortSignal.abort() })));
  await show("abort", code(() => {
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 1);
    return wait(1000, undefined, { signal: controller.signal });
  }));
  await show("intervals", async () => {
    const seen = [];
    for await (const value of every(1, "v")) if (seen.push(value) === 3) break;
    return seen;
  });
  await show("no callback", code(() => timers.setTimeout()));
  await show("bad delay", code(() => wait("x")));
});
