// Shows: WebCrypto's classes have no statics but the standard's, and keys that may not leave do not.
import { reporter } from "report.js";

const statics = (target) => Object.getOwnPropertyNames(target).filter((name) => !/^(length|name|prototype|supports)$/.test(name));
export default reporter(async (show) => {
  const key = await crypto.subtle.generateKey({ name: "AES-GCM", length: 128 }, false, ["encrypt"]);
  await show("Crypto", statics(Crypto));
  await show("CryptoKey", statics(CryptoKey));
  await show("SubtleCrypto", statics(SubtleCrypto));
  await show("new CryptoKey", () => new CryptoKey());
  await show("new Crypto", () => new Crypto());
  await show("export", () => crypto.subtle.exportKey("raw", key));
  await show("wrap", async () => {
    const wrapping = await crypto.subtle.generateKey({ name: "AES-GCM", length: 128 }, false, ["wrapKey"]);
    return crypto.subtle.wrapKey("raw", key, wrapping, { name: "AES-GCM", iv: new Uint8Array(12) });
  });
  await show("clone", () => structuredClone(key));
  await show("tag", [Object.prototype.toString.call(key), Object.prototype.toString.call(crypto)]);
});
