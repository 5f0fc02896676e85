// Shows: abort signals as arguments of calls.
// @flags enable_abortsignal_rpc
// @experimental yes
import { WorkerEntrypoint } from "cloudflare:workers";
import { reporter } from "report.js";

// The message of an AbortError is each engine's own.
const said = (reason) => reason?.name === "AbortError" ? reason.name : `${reason}`;
export class Svc extends WorkerEntrypoint {
  look(signal) { return [signal instanceof AbortSignal, signal.aborted, said(signal.reason)]; }
  wait(signal) {
    return new Promise((resolve) => signal.addEventListener("abort", () => resolve([signal.aborted, said(signal.reason)])));
  }
  async never(signal) {
    await new Promise((resolve) => setTimeout(resolve, 5));
    return signal.aborted;
  }
  race(signal) {
    return new Promise((resolve, reject) => {
      signal.addEventListener("abort", () => reject(signal.reason));
      setTimeout(() => resolve("in time"), 5000);
    });
  }
  throws(signal) { signal.throwIfAborted(); return "not aborted"; }
}
const words = async (f) => {
  try { return await f(); } catch (error) { return `${said(error)} ${error.remote === true}`; }
};

export default reporter(async (show, { ctx }) => {
  const s = ctx.exports.Svc;
  const tell = (label, f) => show(label, words(f));
  await tell("not aborted", () => s.look(new AbortController().signal));
  await tell("aborted", () => s.look(AbortSignal.abort()));
  await tell("aborted with text", () => s.look(AbortSignal.abort("because")));
  await tell("aborted later", async () => {
    const c = new AbortController();
    const answer = s.wait(c.signal);
    setTimeout(() => c.abort(), 1);
    return await answer;
  });
  await tell("aborted later with an error", async () => {
    const c = new AbortController();
    const answer = s.wait(c.signal);
    setTimeout(() => c.abort(new TypeError("stop it")), 1);
    return await answer;
  });
  await tell("aborted at once after the call", async () => {
    const c = new AbortController();
    const answer = s.wait(c.signal);
    c.abort("now");
    return await answer;
  });
  await tell("never", () => s.never(new AbortController().signal));
  await tell("timeout", () => s.wait(AbortSignal.timeout(5)));
  await tell("any", () => { const c = new AbortController(); setTimeout(() => c.abort("any"), 1); return s.wait(AbortSignal.any([c.signal])); });
  await tell("rejects", () => { const c = new AbortController(); setTimeout(() => c.abort(), 1); return s.race(c.signal); });
  await tell("throws", () => s.throws(AbortSignal.abort()));
  await tell("nested", () => s.look(AbortSignal.abort("deep")));
});
