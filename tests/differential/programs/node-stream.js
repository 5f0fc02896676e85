// Shows: node:stream: readables, writables, transforms, pipelines, ends, errors, iteration, and web streams.
// @flags nodejs_compat
// > GET /flow
// > GET /errors
// > GET /web
import stream, { Duplex, PassThrough, Readable, Transform, Writable, addAbortSignal, compose, duplexPair, finished, getDefaultHighWaterMark, isReadable, pipeline } from "node:stream";
import promises from "node:stream/promises";
import consumers from "node:stream/consumers";
import web from "node:stream/web";
import { reporter } from "report.js";

const code = (run) => async () => {
  try {
    return await run();
  } catch (error) {
    return `${error.name} ${error.code}`;
  }
};
const tick = () => new Promise((resolve) => setTimeout(resolve, 1));
const upper = () => new Transform({ transform(chunk, _encoding, done) { done(null, String(chunk).toUpperCase()); } });
const sink = (into) => new Writable({ write(chunk, _encoding, done) { into.push(String(chunk)); done(); } });
const parts = { "/flow": flow, "/errors": errors, "/web": webStreams };
export default reporter(async (show, { request }) => parts[new URL(request.url).pathname](show));

async function flow(show) {
  await show("from", async () => {
    const seen = [];
    for await (const each of Readable.from(["a", "b", Buffer.from("c")])) seen.push(String(each));
    return seen;
  });
  await show("from generator", async () => {
    async function* numbers() { yield 1; await tick(); yield 2; }
    return Readable.from(numbers()).toArray();
  });
  await show("events", async () => {
    const seen = [];
    const source = new Readable({ read() { this.push("x"); this.push(null); } });
    for (const name of ["data", "end", "close", "readable", "resume", "pause"]) source.on(name, (value) => seen.push([name, value === undefined ? null : String(value)]));
    source.resume();
    await tick();
    return seen;
  });
  await show("read", async () => {
    const source = new Readable({ read() {} });
    source.push("abc");
    source.push("def");
    source.push(null);
    await tick();
    return [source.read(2)?.toString(), source.read()?.toString(), source.read(), source.readableEnded];
  });
  await show("encoding", async () => {
    const source = Readable.from([Buffer.from([0xe2, 0x82]), Buffer.from([0xac])], { objectMode: false });
    source.setEncoding("utf8");
    let text = "";
    for await (const each of source) text += each;
    return text;
  });
  await show("writable", async () => {
    const seen = [];
    const target = sink(seen);
    target.on("finish", () => seen.push("finish")).on("close", () => seen.push("close"));
    const first = target.write("a");
    target.cork();
    target.write("b");
    target.write("c");
    target.uncork();
    target.end("d", () => seen.push("ended"));
    await tick();
    return [first, seen, target.writableFinished, target.writableLength];
  });
  await show("writev", async () => {
    const seen = [];
    const target = new Writable({ writev(chunks, done) { seen.push(chunks.map(({ chunk }) => String(chunk))); done(); } });
    target.cork();
    for (const each of "abc") target.write(each);
    target.end();
    await tick();
    return seen;
  });
  await show("backpressure", async () => {
    const target = new Writable({ highWaterMark: 3, write(_chunk, _encoding, done) { setTimeout(done, 1); } });
    const answers = [target.write("ab"), target.write("cd"), target.writableNeedDrain];
    await new Promise((resolve) => target.once("drain", resolve));
    return [answers, target.writableLength];
  });
  await show("pipe", async () => {
    const seen = [];
    Readable.from(["a", "b"]).pipe(upper()).pipe(sink(seen));
    await tick();
    await tick();
    return seen;
  });
  await show("pipeline", () => new Promise((resolve) => {
    const seen = [];
    pipeline(Readable.from(["a", "b"]), upper(), sink(seen), (error) => resolve([error === undefined || error === null, seen]));
  }));
  await show("pipeline of functions", promises.pipeline(
    ["a", "b"], async function* (source) { for await (const each of source) yield each + each; }, async (source) => {
      let text = "";
      for await (const each of source) text += each;
      return text;
    }));
  await show("finished", async () => {
    const source = Readable.from(["a"]);
    source.resume();
    await promises.finished(source);
    return new Promise((resolve) => finished(Readable.from([]).resume(), (error) => resolve(error ?? "fine")));
  });
  await show("transform", async () => {
    const one = new Transform({ transform(chunk, _encoding, done) { this.push(chunk); this.push("-"); done(); }, flush(done) { done(null, "end"); } });
    one.end("a");
    return (await one.toArray()).map(String);
  });
  await show("object mode", async () => {
    const one = new Transform({ objectMode: true, transform: (n, _encoding, done) => done(null, { n }) });
    one.write(1);
    one.end(2);
    return one.toArray();
  });
  await show("passthrough", async () => {
    const one = new PassThrough();
    one.end("abc");
    return consumers.text(one);
  });
  await show("duplex", async () => {
    const seen = [];
    const one = new Duplex({ read() { this.push("r"); this.push(null); }, write(chunk, _encoding, done) { seen.push(String(chunk)); done(); } });
    one.end("w");
    return [(await one.toArray()).map(String), seen];
  });
  await show("duplexPair", async () => {
    const [a, b] = duplexPair();
    a.end("hello");
    b.end();
    a.resume();
    return consumers.text(b);
  });
  await show("helpers", [
    await Readable.from([1, 2, 3, 4]).filter((n) => n % 2 === 0).map((n) => n * 10).toArray(), await Readable.from([1, 2, 3]).reduce((a, b) => a + b, 0),
    await Readable.from([1, 2, 3]).take(2).toArray(), await Readable.from([1, 2, 3]).drop(2).toArray(), await Readable.from([1, 2]).some((n) => n > 1),
    await Readable.from([1, 2]).find((n) => n > 1), await Readable.from([1, 2]).flatMap((n) => [n, n]).toArray(),
  ]);
  await show("compose", async () => (await compose(upper(), upper()).end("a").toArray()).map(String));
  await show("consumers", [await consumers.json(Readable.from(['{"a":', "1}"])), await consumers.buffer(Readable.from([Buffer.from("ab")])), (await consumers.arrayBuffer(Readable.from([Buffer.from("ab")]))).byteLength, (await consumers.blob(Readable.from([Buffer.from("ab")]))).size]);
  await show("statics", [stream === stream.Stream, stream.Readable === Readable, typeof stream.promises.pipeline, getDefaultHighWaterMark(false), getDefaultHighWaterMark(true), isReadable(Readable.from([])), new PassThrough() instanceof Duplex, new Duplex() instanceof Writable]);
  await show("subclasses", async () => {
    class Counter extends Readable {
      #n = 0;
      _read() { this.push(this.#n < 3 ? String(this.#n++) : null); }
    }
    return (await new Counter().toArray()).map(String);
  });
}

async function errors(show) {
  await show("destroyed", async () => {
    const seen = [];
    const source = new Readable({ read() {}, destroy(error, done) { seen.push(["destroy", error?.message]); done(error); } });
    source.on("error", (error) => seen.push(["error", error.message])).on("close", () => seen.push(["close"]));
    source.destroy(new Error("stop"));
    await tick();
    return [seen, source.destroyed, source.errored?.message];
  });
  await show("pipeline fails", code(() => promises.pipeline(Readable.from(["a"]), new Transform({ transform(_c, _e, done) { done(new RangeError("no")); } }), sink([]))));
  await show("premature close", () => {
    const source = new Readable({ read() {} });
    setTimeout(() => source.destroy(), 1);
    return promises.finished(source).catch((error) => error.code);
  });
  await show("write after end", async () => {
    const target = sink([]);
    target.end();
    return new Promise((resolve) => { target.on("error", (error) => resolve(error.code)); target.write("x"); });
  });
  await show("push after end", async () => {
    const source = new Readable({ read() {} });
    source.push(null);
    return new Promise((resolve) => { source.on("error", (error) => resolve(error.code)); source.push("x"); });
  });
  await show("write of nothing", code(() => sink([]).write(null)));
  await show("write of a number", code(() => sink([]).write(1)));
  await show("not implemented", async () => {
    const source = new Readable();
    return new Promise((resolve) => { source.on("error", (error) => resolve(error.code)); source.read(); });
  });
  await show("iteration fails", code(async () => { for await (const _ of new Readable({ read() { this.destroy(new TypeError("bad")); } })); }));
  await show("abort", code(async () => {
    const controller = new AbortController();
    const source = addAbortSignal(controller.signal, new Readable({ read() {} }));
    setTimeout(() => controller.abort(), 1);
    for await (const _ of source);
  }));
  await show("aborted pipeline", code(() => promises.pipeline(Readable.from(["a"]), sink([]), { signal: AbortSignal.abort() })));
  await show("from nothing", code(() => Readable.from(5)));
}

async function webStreams(show) {
  await show("toWeb", async () => {
    const text = [];
    for await (const each of Readable.toWeb(Readable.from([Buffer.from("a"), Buffer.from("b")]))) text.push(String.fromCharCode(...each));
    return text;
  });
  await show("fromWeb", async () => {
    const source = new ReadableStream({ start(controller) { controller.enqueue("a"); controller.enqueue("b"); controller.close(); } });
    return Readable.fromWeb(source, { encoding: "utf8" }).toArray();
  });
  await show("writable", async () => {
    const seen = [];
    const writer = Writable.toWeb(sink(seen)).getWriter();
    await writer.write("a");
    await writer.close();
    const target = Writable.fromWeb(new WritableStream({ write: (chunk) => void seen.push(String(chunk)) }));
    target.end("b");
    await promises.finished(target);
    return seen;
  });
  await show("response", async () => consumers.text(Readable.fromWeb(new Response("body").body)));
  await show("answer", async () => new Response(Readable.toWeb(Readable.from([Buffer.from("x")]))).text());
  await show("same classes", [web.ReadableStream === ReadableStream, web.TransformStream === TransformStream, web.TextDecoderStream === TextDecoderStream]);
}
