// Shows: the order of timers, microtasks and promises; cleared timers never run.
import { reporter } from "report.js";

export default reporter(async (show) => {
  const order = [];
  await new Promise((resolve) => {
    setTimeout(() => order.push("timeout 20"), 20);
    setTimeout(() => order.push("timeout 1"), 1);
    setTimeout((a, b) => order.push(`arguments ${a} ${b}`), 5, "x", "y");
    const cleared = setTimeout(() => order.push("cleared"), 2);
    clearTimeout(cleared);
    queueMicrotask(() => order.push("microtask"));
    Promise.resolve().then(() => order.push("promise"));
    order.push("sync");
    setTimeout(resolve, 40);
  });
  await show("order", order);
  let ticks = 0;
  await new Promise((resolve) => {
    const interval = setInterval(() => { ticks += 1; if (ticks === 3) { clearInterval(interval); resolve(); } }, 1);
  });
  await show("interval", ticks);
  await show("clear nothing", [clearTimeout(undefined), clearTimeout(123456), clearInterval(null)]);
  await show("negative delay", await new Promise((resolve) => setTimeout(() => resolve("ran"), -5)));
  await show("text delay", await new Promise((resolve) => setTimeout(() => resolve("ran"), "1")));
  await show("await sleep", await scheduler.wait(1));
});
