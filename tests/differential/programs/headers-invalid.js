// Shows: names and values that Headers refuses, none of which may reach the wire.
import { reporter } from "report.js";

export default reporter(async (show) => {
  const set = (name, value) => () => { const h = new Headers(); h.set(name, value); return [...h]; };
  await show("empty name", set("", "x"));
  await show("space in name", set("a b", "x"));
  await show("colon in name", set("a:", "x"));
  await show("newline in name", set("a\n", "x"));
  await show("non-ascii name", set("é", "x"));
  await show("CRLF in value", set("a", "x\r\ny: z"));
  await show("LF in value", set("a", "x\ny"));
  await show("NUL in value", set("a", "x\0y"));
  await show("trailing newline is trimmed", set("a", "x\r\n"));
  await show("non-latin value", set("a", "\u4e16"));
  await show("append", () => new Headers().append("a b", "x"));
  await show("get", () => new Headers().get("a b"));
  await show("has", () => new Headers().has("\r"));
  await show("delete", () => new Headers().delete("a\0"));
  await show("init", () => new Headers({ "a b": "c" }));
});
