// Shows: TextEncoder and TextDecoder, labels, fatal mode, byte order marks, streaming decode.
import { reporter } from "report.js";

export default reporter(async (show) => {
  const encoder = new TextEncoder();
  await show("encoding", encoder.encoding);
  await show("encode", encoder.encode("aé世😀"));
  await show("lone surrogate", encoder.encode("\ud800x"));
  await show("nothing", encoder.encode());
  const target = new Uint8Array(4);
  await show("encodeInto", [encoder.encodeInto("é世", target), target]);
  const decode = (bytes, label, options) => new TextDecoder(label, options).decode(new Uint8Array(bytes));
  await show("utf-8", decode([0xe4, 0xb8, 0x96]));
  await show("replacement", decode([0xff, 0x61]));
  await show("fatal", () => decode([0xff], "utf-8", { fatal: true }));
  await show("BOM removed", decode([0xef, 0xbb, 0xbf, 0x61]));
  await show("BOM kept", decode([0xef, 0xbb, 0xbf, 0x61], "utf-8", { ignoreBOM: true }).length);
  await show("utf-16le", decode([0x61, 0, 0x3d, 0xd8, 0, 0xde], "utf-16le"));
  await show("labels", ["UTF8", " utf-8 ", "unicode-1-1-utf-8"].map((label) => new TextDecoder(label).encoding));
  await show("unknown label", () => new TextDecoder("klingon"));
  const streaming = new TextDecoder();
  const parts = [streaming.decode(new Uint8Array([0xe4, 0xb8]), { stream: true })];
  parts.push(streaming.decode(new Uint8Array([0x96]), { stream: true }), streaming.decode());
  await show("streaming", parts);
  await show("properties", [new TextDecoder().fatal, new TextDecoder().ignoreBOM]);
});
