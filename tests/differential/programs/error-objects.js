// Shows: errors as programs see them: names, causes, DOMException codes.
import { reporter } from "report.js";

export default reporter(async (show) => {
  const error = new Error("outer", { cause: new TypeError("inner") });
  await show("cause", [error.cause.name, error.cause.message]);
  await show("aggregate", new AggregateError([new Error("a"), 2], "both").errors.length);
  const dom = new DOMException("message", "AbortError");
  await show("dom", [dom.name, dom.message, dom.code, dom instanceof Error, DOMException.ABORT_ERR]);
  await show("default dom", [new DOMException().name, new DOMException().message, new DOMException().code]);
  await show("stack is text", typeof new Error("x").stack);
  await show("stack names the file", new Error("x").stack.includes("index.js"));
  await show("stack overflow", () => { const f = () => f() + 1; return f(); });
  await show("reportError", typeof reportError);
  await show("isError", [Error.isError?.(error), Error.isError?.({})]);
});
