// Shows: code from text is refused while a request is served.
import { reporter } from "report.js";

const message = async (f) => { try { return await f(); } catch (error) { return `${error.name}: ${error.message}`; } };

export default reporter(async (show) => {
  await show("eval", message(() => eval("1 + 1")));
  await show("indirect eval", message(() => (0, eval)("1 + 1")));
  await show("new Function", message(() => new Function("return 1")()));
  await show("Function", message(() => Function("return 1")()));
  const AsyncFunction = (async () => {}).constructor;
  await show("async function", message(() => new AsyncFunction("return 1")()));
  const GeneratorFunction = (function* () {}).constructor;
  await show("generator", message(() => new GeneratorFunction("yield 1")().next().value));
  await show("through a constructor", message(() => (() => {}).constructor("return 1")()));
  await show("setTimeout text", () => setTimeout("1", 1));
  await show("eval of an object", message(() => eval({ a: 1 }).a));
});
