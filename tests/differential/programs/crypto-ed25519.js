// Shows: Ed25519 signatures are deterministic, X25519 agrees.
import { reporter } from "report.js";

export default reporter(async (show) => {
  const data = new TextEncoder().encode("message");
  const jwk = {
    kty: "OKP", crv: "Ed25519",
    d: "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A", x: "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
  };
  const secret = await crypto.subtle.importKey("jwk", jwk, "Ed25519", false, ["sign"]);
  const signature = await crypto.subtle.sign("Ed25519", secret, data);
  await show("signature", signature);
  const { d, ...open } = jwk;
  const key = await crypto.subtle.importKey("jwk", open, "Ed25519", true, ["verify"]);
  await show("verifies", crypto.subtle.verify("Ed25519", key, signature, data));
  await show("raw", crypto.subtle.exportKey("raw", key));
  const a = await crypto.subtle.generateKey("X25519", true, ["deriveBits"]);
  const b = await crypto.subtle.generateKey("X25519", true, ["deriveBits"]);
  const one = new Uint8Array(await crypto.subtle.deriveBits({ name: "X25519", public: b.publicKey }, a.privateKey, 256));
  const two = new Uint8Array(await crypto.subtle.deriveBits({ name: "X25519", public: a.publicKey }, b.privateKey, 256));
  await show("agree", one.every((byte, i) => byte === two[i]));
});
