// The API that capnweb serves on both sides, and what a client of either side asks of it.
import { RpcTarget } from "capnweb";

class Counter extends RpcTarget {
  #value = 0;
  add(n) { return (this.#value += n); }
  get value() { return this.#value; }
}
class User extends RpcTarget {
  constructor(name) { super(); this.name = name; }
  greet(word) { return `${word}, ${this.name}!`; }
  #secret() { return 1; }
  hidden = "an own property is not served";
}
export class Api extends RpcTarget {
  greet(name) { return `Hello, ${name}!`; }
  square(n) { return n * n; }
  counter() { return new Counter(); }
  ids() { return [1, 2, 3]; }
  async twice(callback) { return [await callback(1), await callback(2)]; }
  fail() { throw new RangeError("as asked"); }
  echo(value) { return value; }
  #kept;
  async lend(target) { return [await target.add(7), await target.value]; }
  keep(target) { this.#kept = target.dup(); }
  later() { return this.#kept.add(1); }
  authenticate(token) {
    if (token !== "good") throw new TypeError("bad token");
    return new User("Ada");
  }
  stream() {
    return new ReadableStream({ start(out) { for (const part of ["a", "b", "c"]) out.enqueue(part); out.close(); } });
  }
}

/** What works in one batch, each batch a session of its own: `open()` makes one. */
export async function batchCases(is, open) {
  await is("pipelined", [9, "Hello, Ada!"], () => {
    const api = open();
    return Promise.all([api.square(3), api.authenticate("good").greet("Hello")]);
  });
  await is("map", [1, 4, 9], () => { const api = open(); return api.ids().map((n) => api.square(n)); });
  await is("stateful", [2, 5], () => { const counter = open().counter(); return Promise.all([counter.add(2), counter.add(3)]); });
  await is("refused", "throws TypeError: bad token", () => open().authenticate("bad").greet("Hello"));
  await is("an error", "throws RangeError: as asked", () => open().fail());
  await is("no such method", "throws TypeError: 'nothing' is not a function.", () => open().nothing());
  await is("private", true, () => open().authenticate("good").hidden.then((value) => value === undefined, () => true));
  const value = { text: "ü", list: [[1, null], true], big: 10n ** 20n, date: new Date(5), bytes: new Uint8Array([1, 250]), none: undefined, not: NaN };
  await is("values", true, async () => {
    const got = await open().echo(value);
    return got.text === "ü" && got.list[0][1] === null && got.big === value.big && got.date.getTime() === 5 && got.bytes[1] === 250 && "none" in got && Number.isNaN(got.not);
  });
  await is("errors as values", ["RangeError", "kept"], async () => { const got = await open().echo(new RangeError("kept")); return [got.name, got.message]; });
}

/** What needs a session that lasts. */
export async function sessionCases(is, api) {
  await is("hello", "Hello, you!", api.greet("you"));
  const counter = api.counter();
  await is("in order", [2, 5], Promise.all([counter.add(2), counter.add(3)]));
  await is("property", 5, counter.value);
  await is("called back", [10, 20], api.twice((n) => n * 10));
  await is("called back, failing", "throws Error: not today", api.twice(() => { throw new Error("not today"); }));
  await is("an error", "throws RangeError: as asked", api.fail());
  await is("a target of ours", [7, 7], api.lend(new Counter()));
  await is("kept for later", [1, 2], async () => { await api.keep(new Counter()); return [await api.later(), await api.later()]; });
  await is("many at once", 4950, async () => (await Promise.all(Array.from({ length: 100 }, (_, n) => api.echo(n)))).reduce((sum, n) => sum + n, 0));
  await is("large", 300_000, api.echo("x".repeat(300_000)).then((text) => text.length));
  await is("stream", "abc", async () => { let text = ""; for await (const part of await api.stream()) text += part; return text; });
  counter[Symbol.dispose]();
  await is("disposed of", true, async () => { try { await counter.add(1); return false; } catch { return true; } });
}
