// Shows: tee gives both branches all chunks.
import { reporter } from "report.js";

export default reporter(async (show) => {
  const source = () => new ReadableStream({
    start(c) { for (const x of ["a", "b", "c"]) c.enqueue(new TextEncoder().encode(x)); c.close(); },
  });
  const stream = source();
  const [left, right] = stream.tee();
  await show("locked", stream.locked);
  await show("left", new Response(left).text());
  await show("right", new Response(right).text());
  const [one, two] = source().tee();
  one.cancel("bored"); // settles once both branches are cancelled, so it is not awaited
  await show("the other goes on", new Response(two).text());
  await show("tee when locked", () => stream.tee());
});
