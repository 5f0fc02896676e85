// The tRPC router that both a worker and a server in Node offer; its context says who asks.
import { initTRPC, TRPCError } from "@trpc/server";
import { z } from "zod";

const t = initTRPC.context().create({ isDev: false });
const pause = () => new Promise((done) => setTimeout(done, 1));
const known = t.procedure.use(({ ctx, next }) => {
  if (!ctx.user) throw new TRPCError({ code: "UNAUTHORIZED", message: "who are you?" });
  return next({ ctx: { user: ctx.user } });
});
export const router = t.router({
  greet: t.procedure.input(z.object({ name: z.string() })).query(({ input }) => `Hello, ${input.name}!`),
  add: t.procedure.input(z.object({ text: z.string() })).mutation(({ input, ctx }) => ({ ...input, by: ctx.user ?? "nobody" })),
  me: known.query(({ ctx }) => ctx.user),
  count: t.procedure.input(z.number()).subscription(async function* ({ input }) {
    for (let n = 1; n <= input; n++) { await pause(); yield n; }
  }),
  later: t.procedure.query(async () => ({ now: 1, soon: (async () => { await pause(); return 2; })() })),
  nested: t.router({ fails: t.procedure.query(() => { throw new TRPCError({ code: "CONFLICT", message: "taken" }); }) }),
});
