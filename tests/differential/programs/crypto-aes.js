// Shows: AES-GCM, AES-CBC and AES-CTR with fixed keys.
import { reporter } from "report.js";

export default reporter(async (show) => {
  const data = new TextEncoder().encode("some plain text");
  const raw = new Uint8Array(16).map((_, i) => i);
  const iv = new Uint8Array(12).fill(7);
  const key = await crypto.subtle.importKey("raw", raw, "AES-GCM", true, ["encrypt", "decrypt"]);
  const sealed = await crypto.subtle.encrypt({ name: "AES-GCM", iv }, key, data);
  await show("gcm", sealed);
  await show("gcm back", crypto.subtle.decrypt({ name: "AES-GCM", iv }, key, sealed));
  const additionalData = new Uint8Array([1]);
  await show("gcm with data", crypto.subtle.encrypt({ name: "AES-GCM", iv, additionalData, tagLength: 96 }, key, data));
  const broken = new Uint8Array(sealed);
  broken[0] ^= 1;
  await show("gcm broken", () => crypto.subtle.decrypt({ name: "AES-GCM", iv }, key, broken));
  const cbc = await crypto.subtle.importKey("raw", raw, "AES-CBC", true, ["encrypt", "decrypt"]);
  const block = await crypto.subtle.encrypt({ name: "AES-CBC", iv: new Uint8Array(16) }, cbc, data);
  await show("cbc", block);
  await show("cbc back", crypto.subtle.decrypt({ name: "AES-CBC", iv: new Uint8Array(16) }, cbc, block));
  const ctr = await crypto.subtle.importKey("raw", raw, "AES-CTR", true, ["encrypt"]);
  await show("ctr", crypto.subtle.encrypt({ name: "AES-CTR", counter: new Uint8Array(16), length: 64 }, ctr, data));
  const made = await crypto.subtle.generateKey({ name: "AES-GCM", length: 256 }, true, ["encrypt"]);
  await show("generated", [made.type, made.algorithm.length, (await crypto.subtle.exportKey("raw", made)).byteLength]);
  await show("bad length", () => crypto.subtle.importKey("raw", new Uint8Array(5), "AES-GCM", true, ["encrypt"]));
});
