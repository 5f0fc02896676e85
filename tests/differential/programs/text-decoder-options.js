// Shows: TextDecoder's labels, fatal, ignoreBOM and streaming.
import { reporter } from "report.js";

const bytes = (...list) => new Uint8Array(list);
export default reporter(async (show) => {
  for (const label of ["utf-8", "UTF8", " utf-16le ", "latin1", "windows-1252", "shift_jis", "utf-16be", "gbk"]) {
    await show(label, () => new TextDecoder(label).encoding);
  }
  await show("unknown label", () => new TextDecoder("nope"));
  await show("fatal", () => new TextDecoder("utf-8", { fatal: true }).decode(bytes(0xff)));
  await show("replaced", new TextDecoder().decode(bytes(0x61, 0xff, 0xe2, 0x82)));
  await show("bom", [new TextDecoder().decode(bytes(0xef, 0xbb, 0xbf, 0x61)).length,
    new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes(0xef, 0xbb, 0xbf, 0x61)).length]);
  const decoder = new TextDecoder();
  await show("stream", [decoder.decode(bytes(0xe2, 0x82), { stream: true }), decoder.decode(bytes(0xac), { stream: true }), decoder.decode()]);
  await show("flushed", [decoder.decode(bytes(0xe2), { stream: true }), decoder.decode()]);
  await show("utf-16", new TextDecoder("utf-16le").decode(bytes(0x61, 0, 0xac, 0x20)));
  await show("latin", new TextDecoder("latin1").decode(bytes(0xe9, 0x80)));
  await show("properties", [decoder.encoding, decoder.fatal, decoder.ignoreBOM]);
  await show("buffer", new TextDecoder().decode(bytes(0x68, 0x69).buffer));
  await show("view", new TextDecoder().decode(new DataView(bytes(0x68, 0x69, 0x6a).buffer, 1)));
  await show("encodeInto", new TextEncoder().encodeInto("héé", new Uint8Array(4)));
  await show("lone surrogate", new TextEncoder().encode("\ud800"));
});
