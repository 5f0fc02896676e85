// Shows: queueMicrotask ordering, and that errors inside do not stop the request.
import { reporter } from "report.js";

export default reporter(async (show) => {
  const order = [];
  queueMicrotask(() => { order.push(1); queueMicrotask(() => order.push(3)); });
  queueMicrotask(() => order.push(2));
  await new Promise((resolve) => setTimeout(resolve, 1));
  await show("order", order);
  await show("not a function", () => queueMicrotask("x"));
  const settled = await Promise.allSettled([Promise.reject(new TypeError("x")), 1]);
  await show("settled", settled.map((s) => s.status));
  await show("any", await Promise.any([Promise.reject(1), Promise.resolve(2)]));
  await show("any of none", () => Promise.any([]));
  const { promise, resolve } = Promise.withResolvers();
  resolve("later");
  await show("withResolvers", promise);
});
