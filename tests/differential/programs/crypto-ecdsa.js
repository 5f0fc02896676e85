// Shows: ECDSA: sign and verify with generated keys, import of a fixed public key.
import { reporter } from "report.js";

export default reporter(async (show) => {
  const data = new TextEncoder().encode("message");
  for (const [namedCurve, hash] of [["P-256", "SHA-256"], ["P-384", "SHA-384"]]) {
    const pair = await crypto.subtle.generateKey({ name: "ECDSA", namedCurve }, true, ["sign", "verify"]);
    const signature = await crypto.subtle.sign({ name: "ECDSA", hash }, pair.privateKey, data);
    await show(`${namedCurve} length`, signature.byteLength);
    await show(`${namedCurve} verifies`, crypto.subtle.verify({ name: "ECDSA", hash }, pair.publicKey, signature, data));
    await show(`${namedCurve} refuses`, crypto.subtle.verify({ name: "ECDSA", hash }, pair.publicKey, signature, new Uint8Array(1)));
    const raw = await crypto.subtle.exportKey("raw", pair.publicKey);
    await show(`${namedCurve} raw`, [raw.byteLength, new Uint8Array(raw)[0]]);
    const jwk = await crypto.subtle.exportKey("jwk", pair.privateKey);
    await show(`${namedCurve} jwk`, Object.keys(jwk).sort());
    const spki = await crypto.subtle.exportKey("spki", pair.publicKey);
    const again = await crypto.subtle.importKey("spki", spki, { name: "ECDSA", namedCurve }, true, ["verify"]);
    await show(`${namedCurve} spki`, crypto.subtle.verify({ name: "ECDSA", hash }, again, signature, data));
  }
  await show("unknown curve", () => crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-1" }, true, ["sign"]));
});
