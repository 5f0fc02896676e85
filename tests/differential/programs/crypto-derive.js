// Shows: PBKDF2, HKDF and ECDH derivation.
import { reporter } from "report.js";

export default reporter(async (show) => {
  const encode = (text) => new TextEncoder().encode(text);
  const password = await crypto.subtle.importKey("raw", encode("password"), "PBKDF2", false, ["deriveBits", "deriveKey"]);
  const pbkdf2 = { name: "PBKDF2", hash: "SHA-256", salt: encode("salt"), iterations: 1000 };
  await show("pbkdf2", crypto.subtle.deriveBits(pbkdf2, password, 256));
  const key = await crypto.subtle.deriveKey(pbkdf2, password, { name: "AES-GCM", length: 128 }, true, ["encrypt"]);
  await show("derived key", crypto.subtle.exportKey("raw", key));
  const material = await crypto.subtle.importKey("raw", encode("material"), "HKDF", false, ["deriveBits"]);
  await show("hkdf", crypto.subtle.deriveBits({ name: "HKDF", hash: "SHA-512", salt: encode("salt"), info: encode("info") }, material, 256));
  const a = await crypto.subtle.generateKey({ name: "ECDH", namedCurve: "P-256" }, true, ["deriveBits"]);
  const b = await crypto.subtle.generateKey({ name: "ECDH", namedCurve: "P-256" }, true, ["deriveBits"]);
  const one = new Uint8Array(await crypto.subtle.deriveBits({ name: "ECDH", public: b.publicKey }, a.privateKey, 256));
  const two = new Uint8Array(await crypto.subtle.deriveBits({ name: "ECDH", public: a.publicKey }, b.privateKey, 256));
  await show("ecdh agrees", one.every((byte, i) => byte === two[i]));
});
