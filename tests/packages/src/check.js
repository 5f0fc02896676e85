// A program's report on itself: one line per case with what came, and what was wanted where that is something else.
// Workers and the scripts of Node use it alike; a test fails on every line that says "but wanted".

const text = (value) =>
  value === undefined
    ? "undefined"
    : JSON.stringify(value, (_, item) => (typeof item === "bigint" ? `${item}n` : item));

/** Runs `steps(is)`, where `is(label, wanted, got)` takes a value, a promise or a function; an exception is a text. */
export async function report(steps) {
  const lines = [];
  const is = async (label, wanted, got) => {
    let value;
    try {
      // A promise of capnweb is a function as well.
      value = await (typeof got === "function" && typeof got.then !== "function" ? got() : got);
    } catch (error) {
      value = `throws ${error?.name}: ${error?.message}`;
    }
    const same = text(value) === text(wanted);
    lines.push(`${label}: ${text(value)}${same ? "" : ` but wanted ${text(wanted)}`}`);
    return value;
  };
  try {
    await steps(is);
  } catch (error) {
    lines.push(`${error?.stack ?? error} but wanted the end`);
  }
  return `${lines.join("\n")}\n`;
}

/** A handler that answers with the report of `steps(is, env, ctx, request)`. */
export const reporter = (steps) => async (request, env, ctx) =>
  new Response(await report((is) => steps(is, env, ctx, request)));
