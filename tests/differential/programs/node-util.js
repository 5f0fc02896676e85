// Shows: node:util: inspecting, formatting, promises and callbacks, types, deep equality, and the small tools.
// @flags nodejs_compat
// > GET /inspect
// > GET /tools
// > GET /types
import util, { callbackify, deprecate, format, formatWithOptions, inherits, inspect, isDeepStrictEqual, promisify, stripVTControlCharacters, styleText, types } from "node:util";
import typesModule from "node:util/types";
import sys from "sys";
import { reporter } from "report.js";

const code = (run) => () => {
  try {
    return run();
  } catch (error) {
    return `${error.name} ${error.code}`;
  }
};
const parts = { "/inspect": inspecting, "/tools": tools, "/types": kinds };
export default reporter(async (show, { request }) => parts[new URL(request.url).pathname](show));

async function inspecting(show) {
  class Point { constructor() { this.x = 1; this.y = { z: [1, 2, { deep: { deeper: {} } }] }; } }
  const cycle = { name: "c" };
  cycle.self = cycle;
  for (const [label, value] of Object.entries({
    text: "it's", quotes: `"'\``, number: -0, bigint: 5n, symbol: Symbol("s"), undefined, null: null, boolean: true,
    array: [1, "a", , 3], empty: [[], {}], object: { a: 1, "b-c": 2, [Symbol("k")]: 3 }, nested: { a: { b: { c: { d: 1 } } } },
    point: new Point(), cycle, map: new Map([["a", { b: 1 }]]), set: new Set([1, "x"]), date: new Date(0), regexp: /a/gi,
    fn: function named() {}, arrow: () => {}, klass: class A {}, sub: class B extends Point {}, async: async () => {},
    buffer: Buffer.from("ab"), bytes: new Uint8Array([1, 2]), memory: new ArrayBuffer(2), promise: Promise.resolve(1),
    pending: new Promise(() => {}), rejected: (() => { const p = Promise.reject(2); p.catch(() => {}); return p; })(),
    boxed: [new Number(1), new String("s"), new Boolean(false)], nullProto: Object.create(null, { a: { value: 1, enumerable: true } }),
    getter: { get a() { return 1; }, set b(v) {}, get c() { return 1; }, set c(v) {} }, weak: new WeakMap(),
    args: (function () { return arguments; })(1, 2), long: "x".repeat(30).split("").map((c, i) => c.repeat(i)),
    many: Array.from({ length: 120 }, (_, i) => i),
    iterator: [1, 2][Symbol.iterator](), generator: (function* () {})(), lines: "a\nb".repeat(10),
  })) await show(label, inspect(value));
  await show("options", [
    inspect({ a: { b: { c: {} } } }, { depth: 0 }), inspect({ a: { b: { c: { d: { e: 1 } } } } }, { depth: null }),
    inspect([1, 2, 3], { maxArrayLength: 1 }), inspect("abcdef", { maxStringLength: 2 }), inspect({ b: 1, a: 2 }, { sorted: true }),
    inspect({ a: 1, b: "x" }, { colors: true }), inspect({ a: 1, b: 2 }, { compact: false }), inspect({ a: "x".repeat(90), b: 1 }),
    inspect({ get a() { return { b: 1 }; } }, { getters: true }),
    inspect(Object.defineProperty({}, "hidden", { value: 1 }), { showHidden: true }),
  ]);
  await show("custom", [
    inspect({ [inspect.custom]: (depth, options) => `custom ${depth} ${typeof options.stylize}` }),
    inspect({ a: { [inspect.custom]: () => ({ inner: 1 }) } }), inspect.custom === Symbol.for("nodejs.util.inspect.custom"),
  ]);
  await show("error", inspect(new TypeError("boom")).split("\n")[0]);
  await show("error with cause", inspect(Object.assign(new Error("a", { cause: "c" }), { code: "X" })).includes("[cause]: 'c'"));
  await show("proxy", [inspect(new Proxy({ a: 1 }, {}), { showProxy: true })]);
  await show("format", [
    format("%s %d %i %f %j %o %O %c%%", "a", 1.5, 2.7, "3.1", { a: 1 }, [1], { b: 2 }, "css"), format("a", "b", { c: 1 }), format(1, 2, "3"),
    format("%s", null, undefined, Symbol("x")), format("%s", { toString() { return "own"; } }), format("%d", 5n), format("%x", 1), format("%s"),
    format("%s", -0), format("%i", "x"), formatWithOptions({ compact: false }, "%O", { a: 1 }),
  ]);
}

async function tools(show) {
  await show("promisify", async () => {
    const add = promisify((a, b, done) => done(null, a + b));
    const fail = promisify((done) => done(new RangeError("no")));
    return [await add(1, 2), await fail().catch((error) => error.name)];
  });
  await show("promisify custom", async () => {
    const own = Object.assign(() => {}, { [promisify.custom]: async () => "custom" });
    return [promisify(own) === own[promisify.custom], await promisify(own)()];
  });
  await show("promisify of nothing", code(() => promisify(1)));
  await show("callbackify", () => new Promise((resolve) => {
    callbackify(async (n) => n + 1)(1, (error, value) => resolve([error, value]));
  }));
  await show("callbackify fails", () => new Promise((resolve) => {
    callbackify(async () => { throw null; })((error) => resolve([error.code, error.reason]));
  }));
  await show("inherits", () => {
    function Base() {}
    function Own() {}
    inherits(Own, Base);
    return [new Own() instanceof Base, Own.super_ === Base];
  });
  await show("inherits of nothing", code(() => inherits(null, Object)));
  await show("deprecate", async () => {
    const old = deprecate((n) => n * 2, "old is old", "DEP1");
    return [old(1), old(2)];
  });
  await show("isDeepStrictEqual", [
    isDeepStrictEqual({ a: [1, { b: 2 }] }, { a: [1, { b: 2 }] }), isDeepStrictEqual([1], ["1"]), isDeepStrictEqual(NaN, NaN), isDeepStrictEqual(0, -0),
    isDeepStrictEqual(new Map([[{ a: 1 }, 1]]), new Map([[{ a: 1 }, 1]])), isDeepStrictEqual(new Set([1, [2]]), new Set([1, [2]])),
    isDeepStrictEqual(new Date(1), new Date(1)), isDeepStrictEqual(/a/g, /a/i), isDeepStrictEqual(new Error("a"), new Error("b")),
    isDeepStrictEqual([1, , 3], [1, undefined, 3]), isDeepStrictEqual(Buffer.from("a"), Buffer.from("a")), isDeepStrictEqual(Object.create(null), {}),
  ]);
  await show("styleText", [styleText("red", "x", { validateStream: false }), styleText(["bold", "underline"], "y", { validateStream: false })]);
  await show("strip", stripVTControlCharacters("\u001b[31mred\u001b[39m"));
  await show("text", [new util.TextDecoder().decode(new util.TextEncoder().encode("é")), util.TextEncoder === TextEncoder, util.toUSVString("a\ud800")]);
  await show("MIMEType", () => {
    const type = new util.MIMEType("text/html; charset=utf-8");
    return [type.type, type.subtype, type.essence, type.params.get("charset"), String(type)];
  });
  await show("errors", [util.getSystemErrorName(-2), util.getSystemErrorMap().get(-13)]);
  await show("old names", [util.isArray([]), util.isString("a"), util.isFunction(1), util.isRegExp(/a/), util.isObject(null), util.isPrimitive(1), util.isError(new Error("x")), util.isBuffer(Buffer.alloc(0)), util._extend({ a: 1 }, { b: 2 })]);
  await show("debuglog", typeof util.debuglog("x"));
  await show("sys", sys.inspect === util.inspect);
  await show("one module", [util.types === typesModule, util.default === undefined]);
}

async function kinds(show) {
  const values = {
    buffer: new ArrayBuffer(1), view: new DataView(new ArrayBuffer(1)), bytes: new Uint8Array(1), floats: new Float32Array(1), big: new BigInt64Array(1),
    map: new Map(), set: new Set(), weakMap: new WeakMap(), weakSet: new WeakSet(), mapIterator: new Map().keys(), setIterator: new Set().values(),
    date: new Date(), regexp: /a/, error: new TypeError("x"), fakeError: { name: "Error", message: "m" }, promise: Promise.resolve(), thenable: { then() {} },
    asyncFunction: async () => {}, generator: (function* () {})(), generatorFunction: function* () {}, proxy: new Proxy({}, {}), args: (function () { return arguments; })(),
    number: new Number(1), string: new String(""), boolean: new Boolean(true), symbol: Object(Symbol()), bigint: Object(1n), plain: {}, key: null,
  };
  const names = Object.keys(types).filter((name) => name.startsWith("is") && name !== "isExternal").sort();
  for (const [label, value] of Object.entries(values)) await show(label, names.filter((name) => types[name](value)));
  await show("namespace", types.isModuleNamespaceObject(await import("node:path")));
}
