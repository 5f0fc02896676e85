// Shows: a request's cache mode.
import { reporter } from "report.js";

export default reporter(async (show) => {
  await show("default", new Request("https://x.test/").cache);
  for (const cache of ["no-store", "no-cache", "reload", "default", "force-cache", "nonsense"]) {
    await show(cache, () => new Request("https://x.test/", { cache }).cache);
  }
  await show("copied", new Request(new Request("https://x.test/", { cache: "no-store" })).cache);
  await show("cloned", new Request("https://x.test/", { cache: "no-store" }).clone().cache);
});
