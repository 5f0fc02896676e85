// Shows: HMAC keys: import, sign, verify, export.
import { reporter } from "report.js";

export default reporter(async (show) => {
  const data = new TextEncoder().encode("message");
  const raw = new TextEncoder().encode("secret key");
  for (const hash of ["SHA-1", "SHA-256", "SHA-384", "SHA-512"]) {
    const key = await crypto.subtle.importKey("raw", raw, { name: "HMAC", hash }, true, ["sign", "verify"]);
    const signature = await crypto.subtle.sign("HMAC", key, data);
    await show(hash, signature);
    await show(`${hash} verifies`, crypto.subtle.verify("HMAC", key, signature, data));
    await show(`${hash} refuses`, crypto.subtle.verify("HMAC", key, new Uint8Array(signature.byteLength), data));
  }
  const key = await crypto.subtle.importKey("raw", raw, { name: "HMAC", hash: "SHA-256" }, true, ["sign"]);
  await show("key", [key.type, key.extractable, key.usages, key.algorithm.name, key.algorithm.hash.name, key.algorithm.length]);
  await show("export raw", crypto.subtle.exportKey("raw", key));
  const jwk = await crypto.subtle.exportKey("jwk", key);
  await show("export jwk", [jwk.kty, jwk.alg, jwk.k, jwk.ext, jwk.key_ops]);
  await show("usage is enforced", () => crypto.subtle.verify("HMAC", key, new Uint8Array(32), data));
  const hidden = await crypto.subtle.importKey("raw", raw, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  await show("not extractable", () => crypto.subtle.exportKey("raw", hidden));
});
