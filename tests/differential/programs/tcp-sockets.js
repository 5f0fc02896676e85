// Shows: connect() of cloudflare:sockets: its shape, and what it refuses before anything leaves.
import * as sockets from "cloudflare:sockets";
import { reporter } from "report.js";

const open = (address, options) => {
  const socket = sockets.connect(address, options);
  socket.opened.catch(() => {});
  socket.closed.catch(() => {});
  return socket;
};

export default reporter(async (show) => {
  await show("exports", Object.keys(sockets).sort());
  for (const address of ["a", "a:", ":1", "a b:1"]) {
    await show(`address ${address}`, () => Object.prototype.toString.call(open(address)));
  }
  await show("transport", () => String(open("127.0.0.1:1", { secureTransport: "maybe" })));
  const socket = open("127.0.0.1:1", { secureTransport: "off" });
  await show("opened", await socket.opened.then(() => "yes", () => "no"));
  await show("closed", await socket.closed.then(() => "yes", () => "no"));
  await show("shape", [socket.upgraded, socket.secureTransport, String(socket)]);
  await show("streams", [socket.readable instanceof ReadableStream, socket.writable instanceof WritableStream]);
  await show("startTls", () => socket.startTls());
});
