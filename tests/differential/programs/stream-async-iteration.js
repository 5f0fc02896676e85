// Shows: for await over a stream, early exit cancels, preventCancel does not.
import { reporter } from "report.js";

export default reporter(async (show) => {
  const reasons = [];
  const make = () => new ReadableStream({
    start(c) { c.enqueue(1); c.enqueue(2); c.enqueue(3); c.close(); },
    cancel(reason) { reasons.push(reason); },
  });
  const all = [];
  for await (const item of make()) all.push(item);
  await show("all", all);
  const stream = make();
  for await (const item of stream.values({ preventCancel: true })) { all.push(`once ${item}`); break; }
  await show("kept", [all.at(-1), stream.locked, await stream.getReader().read()]);
  const open = new ReadableStream({ start(c) { c.enqueue("x"); }, cancel(reason) { reasons.push(`cancelled ${reason}`); } });
  for await (const item of open) { all.push(item); break; }
  await show("cancelled", reasons);
  await show("from", async () => {
    const items = [];
    for await (const item of ReadableStream.from(["p", "q"])) items.push(item);
    return items;
  });
});
