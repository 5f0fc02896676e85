// Shows: top-level await in the main module and in a dependency.
import { ready } from "./slow.js";

const started = await Promise.resolve("main ready");

export default {
  fetch: () => new Response(`${ready}, ${started}`),
};
//# module slow.js js
export let ready = "not ready";
await null;
await new Promise((resolve) => queueMicrotask(resolve));
ready = "dependency ready";
