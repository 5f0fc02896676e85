// connect(): its shape, and what it refuses before anything leaves. What leaves is tested in tests/egress.
import * as sockets from "cloudflare:sockets";

const attempt = (address, options) => {
  try {
    const socket = sockets.connect(address, options);
    socket.opened.catch(() => {});
    socket.closed.catch(() => {});
    return Object.prototype.toString.call(socket);
  } catch (error) {
    return `${error.name}: ${error.message}`;
  }
};

export default {
  async fetch() {
    const out = [typeof sockets.connect];
    for (const address of ["", "a", "a:", ":1", "a b:1"]) out.push(attempt(address));
    out.push(attempt("127.0.0.1:1", { secureTransport: "maybe" }));
    const socket = sockets.connect("127.0.0.1:1", { secureTransport: "off" });
    const failed = await socket.opened.then(() => "opened", () => "failed");
    await socket.closed.catch(() => {});
    out.push(failed, socket.upgraded, socket.secureTransport, socket.readable instanceof ReadableStream, socket.writable instanceof WritableStream);
    try {
      socket.startTls();
    } catch (error) {
      out.push(`${error.name}: ${error.message}`);
    }
    return Response.json(out);
  },
};
