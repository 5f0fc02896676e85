// Shows: RSA: generate, sign, verify, encrypt, export shapes.
import { reporter } from "report.js";

export default reporter(async (show) => {
  const data = new TextEncoder().encode("message");
  const common = { modulusLength: 2048, publicExponent: new Uint8Array([1, 0, 1]), hash: "SHA-256" };
  const pair = await crypto.subtle.generateKey({ name: "RSASSA-PKCS1-v1_5", ...common }, true, ["sign", "verify"]);
  const signature = await crypto.subtle.sign("RSASSA-PKCS1-v1_5", pair.privateKey, data);
  await show("signature", signature.byteLength);
  await show("verifies", crypto.subtle.verify("RSASSA-PKCS1-v1_5", pair.publicKey, signature, data));
  await show("refuses", crypto.subtle.verify("RSASSA-PKCS1-v1_5", pair.publicKey, signature, new Uint8Array(1)));
  const jwk = await crypto.subtle.exportKey("jwk", pair.publicKey);
  await show("jwk", [jwk.kty, jwk.alg, jwk.e, jwk.n.length, jwk.ext, jwk.key_ops]);
  await show("algorithm", [pair.publicKey.algorithm.modulusLength, pair.publicKey.algorithm.publicExponent]);
  const oaep = await crypto.subtle.generateKey({ name: "RSA-OAEP", ...common }, true, ["encrypt", "decrypt"]);
  const sealed = await crypto.subtle.encrypt("RSA-OAEP", oaep.publicKey, data);
  await show("oaep", [sealed.byteLength, new TextDecoder().decode(await crypto.subtle.decrypt("RSA-OAEP", oaep.privateKey, sealed))]);
});
