// The npm package `ws`. `client URL HOST`: talks to an echo worker and prints what came; `server`: prints its port and echoes.
import { WebSocket, WebSocketServer } from "ws";

const [mode, url, host] = process.argv.slice(2);
if (mode === "server") {
  const server = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate: { threshold: 0 } });
  server.on("connection", (socket, request) => {
    socket.on("message", (data, binary) => {
      if (data.toString() === "agreed") socket.send(socket.extensions);
      else if (data.toString() === "close") socket.close(4005, "from ws");
      else socket.send(data, { binary });
    });
  });
  server.on("listening", () => console.log(server.address().port));
  process.stdin.resume().on("end", () => process.exit(0));
} else {
  const socket = new WebSocket(url, { headers: { host }, perMessageDeflate: { threshold: 0 } });
  const got = [];
  const large = JSON.stringify(Array.from({ length: 50_000 }, (_, n) => ({ n, text: `row ${n}` })));
  const bytes = Buffer.from(Array.from({ length: 100_000 }, (_, n) => (n * 7919) % 256));
  socket.on("open", () => {
    got.push(socket.extensions.split(";")[0]);
    for (const message of ["small", "", large, bytes]) socket.send(message);
  });
  let count = 0;
  socket.on("message", (data, binary) => {
    const expected = ["small", "", large, bytes][count++];
    got.push(binary ? data.equals(expected) : data.toString() === expected);
    if (count === 4) socket.ping("here?");
  });
  socket.on("pong", (data) => {
    got.push(data.toString());
    socket.close(4003, "enough");
  });
  socket.on("error", (error) => got.push(String(error)));
  socket.on("close", (code, reason) => {
    got.push(code, reason.toString());
    console.log(JSON.stringify(got));
  });
}
