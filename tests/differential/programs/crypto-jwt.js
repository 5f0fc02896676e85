// Shows: signing and checking a JSON web token, as libraries do it.
import { reporter } from "report.js";

const encoder = new TextEncoder();
const base64url = (bytes) => btoa(String.fromCharCode(...new Uint8Array(bytes)))
  .replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
const unbase64url = (text) => Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
const pack = (value) => base64url(encoder.encode(JSON.stringify(value)));
const importKey = (secret, usages) =>
  crypto.subtle.importKey("raw", encoder.encode(secret), { name: "HMAC", hash: "SHA-256" }, false, usages);

export default reporter(async (show) => {
  const key = await importKey("secret", ["sign", "verify"]);
  const signed = `${pack({ alg: "HS256", typ: "JWT" })}.${pack({ sub: "1234567890", name: "Jöhn", iat: 1516239022 })}`;
  const signature = await crypto.subtle.sign("HMAC", key, encoder.encode(signed));
  const token = `${signed}.${base64url(signature)}`;
  await show("token", token);
  const [head, body, mark] = token.split(".");
  await show("verified", crypto.subtle.verify("HMAC", key, unbase64url(mark), encoder.encode(`${head}.${body}`)));
  await show("claims", JSON.parse(new TextDecoder().decode(unbase64url(body))));
  const other = await importKey("other", ["verify"]);
  await show("other key", crypto.subtle.verify("HMAC", other, unbase64url(mark), encoder.encode(`${head}.${body}`)));
  await show("changed", crypto.subtle.verify("HMAC", key, unbase64url(mark), encoder.encode(`${head}.${body}x`)));
  await show("sign with a verify key", () => crypto.subtle.sign("HMAC", other, encoder.encode("x")));
  await show("key", [key.type, key.extractable, key.usages, key.algorithm.name, key.algorithm.hash.name, key.algorithm.length]);
  await show("equal", crypto.subtle.timingSafeEqual(new Uint8Array([1, 2]), new Uint8Array([1, 2])));
  await show("other lengths", () => crypto.subtle.timingSafeEqual(new Uint8Array(1), new Uint8Array(2)));
  const stream = new crypto.DigestStream("SHA-256");
  await new Response("some text").body.pipeTo(stream);
  await show("digest stream", stream.digest);
});
