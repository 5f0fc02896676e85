// A module that every program of the suite may import: it prints values so that two runtimes can be compared.

const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

/** One value as deterministic text. */
export function text(value) {
  if (typeof value === "string") return JSON.stringify(value);
  if (typeof value === "bigint") return `${value}n`;
  if (typeof value === "function") return `function ${value.name}`;
  if (typeof value === "symbol") return value.toString();
  if (Object.is(value, -0)) return "-0";
  if (value === null || typeof value !== "object") return String(value);
  if (Array.isArray(value)) return `[${value.map(text).join(", ")}]`;
  if (value instanceof ArrayBuffer) return `ArrayBuffer(${value.byteLength}) ${hex(new Uint8Array(value))}`;
  if (ArrayBuffer.isView(value)) {
    const bytes = new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
    return `${value.constructor.name}(${value.byteLength}) ${hex(bytes)}`;
  }
  if (value instanceof Date) return `Date ${value.toISOString()}`;
  if (value instanceof RegExp) return `RegExp ${value}`;
  if (value instanceof Map) return `Map ${text([...value])}`;
  if (value instanceof Set) return `Set ${text([...value])}`;
  if (value instanceof Error || value instanceof DOMException) return `${value.name}: ${value.message}`;
  if (value instanceof Headers) return `Headers ${text([...value])}`;
  if (value instanceof URL) return `URL ${value.href}`;
  if (value instanceof URLSearchParams) return `URLSearchParams ${value}`;
  const tag = Object.prototype.toString.call(value);
  if (tag !== "[object Object]") return tag;
  return `{${Object.entries(value).map(([key, item]) => `${key}: ${text(item)}`).join(", ")}}`;
}

/**
 * Runs `steps(show)`, then answers with one line per `show(label, value)`. A function is called, a promise is
 * awaited, and an exception becomes its name: messages are each runtime's own.
 */
export async function report(steps, init) {
  const lines = [];
  const show = async (label, value) => {
    try {
      lines.push(`${label}: ${text(await (typeof value === "function" ? value() : value))}`);
    } catch (error) {
      lines.push(`${label}: throws ${error?.name ?? typeof error}`);
    }
  };
  await steps(show);
  return new Response(lines.join("\n") + "\n", init);
}

/** A worker that answers every request with a report. */
export const reporter = (steps) => ({
  fetch: (request, env, ctx) => report((show) => steps(show, { request, env, ctx })),
});
