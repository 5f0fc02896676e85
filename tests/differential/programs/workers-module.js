// Shows: what `cloudflare:workers` exports beside classes: env and exports, and code that runs with others of them.
// @env MORE 5
// @env TEXT "value"
import * as workers from "cloudflare:workers";
import { env, exports, withEnv, withEnvAndExports, withExports, WorkerEntrypoint, WorkflowEntrypoint } from "cloudflare:workers";
import { reporter } from "report.js";

const atStart = [env.TEXT, typeof exports];
export class Svc extends WorkerEntrypoint {
  seen() { return [env.TEXT, env.ADDED ?? "none", this.env.TEXT]; }
  names() { return Object.keys(exports).sort(); }
}
export default reporter(async (show, { env: given, ctx }) => {
  await show("at start", atStart);
  await show("names", ["env", "exports", "withEnv", "withExports", "withEnvAndExports", "waitUntil", "WorkflowEntrypoint"].map((name) => typeof workers[name]));
  await show("namespace", [workers.env === env, workers.exports === exports]);
  await show("env", [env === given, Object.keys(env).sort(), env.TEXT, "TEXT" in env, "OTHER" in env, env.OTHER, JSON.stringify(env), { ...env }]);
  await show("written", () => { env.ADDED = 1; const seen = [given.ADDED, env.ADDED, "ADDED" in env]; delete env.ADDED; return [...seen, given.ADDED]; });
  await show("exports", [Object.keys(exports).sort(), Object.keys(ctx.exports).sort(), exports === ctx.exports]);
  await show("a call", () => exports.Svc.seen());
  await show("its exports", () => exports.Svc.names());
  await show("withEnv", () => withEnv({ X: 5 }, () => [env.X, env.TEXT, given.X, Object.keys(env), workers.env.X]));
  await show("asynchronous", () => withEnv({ X: 5 }, async () => { await null; await new Promise((done) => setTimeout(done, 1)); return env.X; }));
  await show("afterwards", () => [env.X, env.TEXT]);
  await show("two at once", () => Promise.all([1, 2].map((n) => withEnv({ n }, async () => { await new Promise((done) => setTimeout(done, 3 - n)); return env.n; }))));
  await show("within", () => withEnv({ X: 5 }, () => withEnv({ Y: 6 }, () => [env.X, env.Y])));
  await show("a call within", () => withEnv({ TEXT: "other" }, () => exports.Svc.seen()));
  await show("withExports", () => withExports({ A: 1 }, () => [Object.keys(exports), exports.A]));
  await show("both", () => withEnvAndExports({ X: 1 }, { A: 2 }, () => [env.X, exports.A]));
  await show("both alone", () => withEnvAndExports({ X: 1 }, { A: 2 }, () => [env.TEXT, exports.Svc]));
  await show("a throw", () => withEnv({}, () => { throw new RangeError("inside"); }));
  await show("after a throw", () => env.TEXT);
  await show("no function", () => withEnv({}));
  await show("a workflow", () => { const made = new (class extends WorkflowEntrypoint {})(ctx, given); return [made.ctx === ctx, made.env === given]; });
});
