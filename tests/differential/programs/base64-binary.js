// Shows: base64 of binary data, by hand and with Uint8Array's own methods.
import { reporter } from "report.js";

export default reporter(async (show) => {
  const all = Uint8Array.from({ length: 256 }, (_, i) => i);
  const text = btoa(String.fromCharCode(...all));
  await show("encoded", text);
  await show("decoded", Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).every((byte, i) => byte === i));
  await show("utf-8", btoa(String.fromCharCode(...new TextEncoder().encode("héllo ✓"))));
  await show("whitespace", atob(" aGVs\tbG8\n= "));
  await show("toBase64", typeof all.toBase64 === "function" ? all.subarray(250).toBase64({ alphabet: "base64url" }) : "absent");
  await show("fromBase64", typeof Uint8Array.fromBase64 === "function" ? Uint8Array.fromBase64("-_8", { alphabet: "base64url" }) : "absent");
  await show("hex", typeof all.toHex === "function" ? all.subarray(0, 4).toHex() : "absent");
  await show("numbers", [btoa(null), btoa(12), btoa({})]);
});
