// Shows: WebSocketPair with both ends in one isolate: order, kinds, closing, misuse.
// > GET /shape
// > GET /messages
// > GET /closing
// > GET /misuse
// > GET /codes
// > GET /response
// > GET /upgrade
// + upgrade: websocket
import { report } from "report.js";

const message = (error) => `${error.name}: ${error.message}`;
const attempt = async (run) => {
  try {
    const value = await run();
    return value === undefined ? "fine" : value;
  } catch (error) {
    return message(error);
  }
};
const open = () => {
  const pair = new WebSocketPair();
  return [pair[0], pair[1]];
};
const events = (socket, name, log) => {
  socket.addEventListener("message", (event) => log.push([name, typeof event.data === "string" ? event.data : event.data.constructor.name]));
  socket.addEventListener("close", (event) => log.push([name, "close", event.code, event.reason, event.wasClean]));
  socket.addEventListener("error", (event) => log.push([name, "error", event.message]));
};
const settle = () => new Promise((resolve) => setTimeout(resolve, 20));

const parts = {
  async "/shape"(show) {
    await show("types", [typeof WebSocket, typeof WebSocketPair, WebSocketPair.length]);
    await show("length", WebSocket.length);
    await show("constants", [WebSocket.CONNECTING, WebSocket.OPEN, WebSocket.CLOSING, WebSocket.CLOSED]);
    await show("old constants", [WebSocket.READY_STATE_CONNECTING, WebSocket.READY_STATE_OPEN, WebSocket.READY_STATE_CLOSING, WebSocket.READY_STATE_CLOSED]);
    const pair = new WebSocketPair();
    await show("keys", Object.keys(pair));
    await show("values", Object.values(pair).map((end) => end instanceof WebSocket));
    await show("iterates", [...pair].length);
    const [one] = open();
    await show("is a target", one instanceof EventTarget);
    await show("state", [one.readyState, one.url, one.protocol, one.extensions, one.binaryType]);
    await show("handlers", [one.onopen, one.onmessage, one.onclose, one.onerror]);
    await show("tags", [Object.prototype.toString.call(one), Object.prototype.toString.call(pair)]);
    one.binaryType = "arraybuffer";
    await show("binary type", one.binaryType);
    await show("bad binary type", attempt(() => { one.binaryType = "text"; }));
    one.serializeAttachment({ a: [1, new Date(5)], b: new Map([[1, 2]]) });
    await show("attachment", one.deserializeAttachment());
    await show("no attachment", open()[0].deserializeAttachment());
    await show("large attachment", attempt(() => one.serializeAttachment("x".repeat(20000))));
    await show("function attachment", async () => one.serializeAttachment(() => {}));
  },
  async "/messages"(show) {
    const log = [];
    const [one, other] = open();
    events(one, "one", log);
    events(other, "other", log);
    one.accept();
    one.send("early");
    await settle();
    await show("before both accept", log.splice(0));
    other.accept();
    other.send("a");
    one.send("b");
    one.send(new Uint8Array([1, 2, 3]));
    one.send(new Uint8Array([1, 2, 3]).buffer);
    one.send(5);
    await settle();
    await show("messages", log.splice(0).sort());
    one.send("\ud800x");
    await settle();
    await show("lone surrogate", log.splice(0));
    other.binaryType = "arraybuffer";
    let data;
    other.addEventListener("message", (event) => data = event.data);
    one.send(new Uint16Array([258, 3]).subarray(1));
    await settle();
    await show("array buffer", data);
    const bytes = new Uint8Array([1, 2]);
    one.send(bytes);
    bytes[0] = 9;
    await settle();
    await show("copied", data);
    other.binaryType = "blob";
    one.send(bytes);
    await settle();
    await show("blob", [data instanceof Blob, data.size, new Uint8Array(await data.arrayBuffer())]);
    other.onmessage = (event) => log.push(["on", event.data, event.type, event.target === other, event.origin]);
    one.send("handler");
    await settle();
    await show("handler", log.filter((entry) => entry[0] === "on"));
    await show("nothing", async () => one.send());
  },
  async "/closing"(show) {
    for (const [label, options, answer] of [["auto", undefined, false], ["half open", { allowHalfOpen: true }, false], ["answered", { allowHalfOpen: true }, true]]) {
      const log = [];
      const [one, other] = open();
      events(one, "one", log);
      events(other, "other", log);
      one.accept(options);
      other.accept(options);
      if (answer) other.addEventListener("close", () => other.close(4002, "me too"));
      one.send("last");
      one.close(4001, "enough");
      await show(`${label} at once`, [one.readyState, other.readyState]);
      await settle();
      await show(`${label} events`, log);
      await show(`${label} states`, [one.readyState, other.readyState]);
      await show(`${label} send to a closed one`, attempt(() => other.send("late")));
      await show(`${label} send after close`, attempt(() => one.send("late")));
      await show(`${label} close again`, attempt(() => one.close(1000)));
      await settle();
      await show(`${label} later`, [one.readyState, other.readyState, log.length]);
    }
    const log = [];
    const [one, other] = open();
    events(other, "other", log);
    one.accept();
    other.accept();
    one.close();
    await settle();
    await show("no code", log);
  },
  async "/misuse"(show) {
    const [one, other] = open();
    await show("send before accept", attempt(() => one.send("x")));
    await show("close before accept", attempt(() => one.close()));
    await show("accept", attempt(() => one.accept()));
    await show("accept twice", attempt(() => one.accept()));
    await show("answer with an accepted one", attempt(() => new Response(null, { status: 101, webSocket: one }).status));
    await show("illegal receiver", async () => WebSocket.prototype.send.call({}, "x"));
    await show("no url", async () => new WebSocket());
    await show("bad url", attempt(() => new WebSocket("nonsense")));
    await show("bad scheme", attempt(() => new WebSocket("ftp://example.com/")));
    await show("fragment", attempt(() => new WebSocket("ws://example.com/#x")));
    await show("bad protocol", attempt(() => new WebSocket("ws://example.com/", "a b")));
    await show("no protocols", attempt(() => new WebSocket("ws://example.com/", [])));
    await show("twice", attempt(() => new WebSocket("ws://example.com/", ["a", "a"])));
    await show("bad among them", attempt(() => new WebSocket("ws://example.com/", ["a", "b,"])));
    other.accept();
    other.send("x");
  },
  async "/codes"(show) {
    for (const code of [0, 999, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1011, 1014, 1015, 1016, 2999, 3000, 4999, 5000, "1000", NaN, 1000.9]) {
      const [one] = open();
      one.accept();
      await show(`close(${code})`, attempt(() => one.close(code)));
    }
    const [one] = open();
    one.accept();
    await show("reason without a code", attempt(() => one.close(undefined, "why")));
    await show("long reason", async () => one.close(1000, "x".repeat(124)));
    await show("long reason in bytes", async () => one.close(1000, "é".repeat(62)));
    await show("longest reason", attempt(() => one.close(1000, "x".repeat(123))));
  },
  async "/response"(show) {
    const [one, other] = open();
    await show("status 200", attempt(() => new Response(null, { webSocket: one })));
    await show("no socket", attempt(() => new Response(null, { status: 101 })));
    await show("null socket", attempt(() => new Response(null, { status: 101, webSocket: null })));
    await show("something else", async () => new Response(null, { status: 101, webSocket: {} }));
    await show("a body", async () => new Response("x", { status: 101, webSocket: one }));
    const response = new Response(null, { status: 101, webSocket: one });
    await show("response", [response.status, response.webSocket === one, response.body, response.ok]);
    await show("clone", attempt(() => response.clone()));
    await show("none", new Response().webSocket);
    other.accept();
  },
};

export default {
  fetch(request) {
    const path = new URL(request.url).pathname;
    if (path === "/upgrade") return report((show) => show("headers", [...request.headers.keys()].includes("connection")));
    return report((show) => parts[path](show));
  },
};
