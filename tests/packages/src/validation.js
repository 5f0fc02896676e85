// Shows: zod, jose and itty-router: schemas, signed and encrypted tokens, key sets, routes.
// > GET /zod
// > GET /jose
// > GET /itty
// > GET /todos/7?full=1
// < {"id":"7","full":"1"}
// > POST /todos
// + content-type: application/json
// = {"text":"swim"}
// < 201
// < {"id":1,"text":"swim"}
// > POST /todos
// + content-type: application/json
// = {"text":7}
// < 400
// > DELETE /todos/7
// < 403
// < {"status":403,"error":"not yours"}
// > GET /nowhere
// < 404
// > OPTIONS /todos/7
// + origin: https://app.example
// + access-control-request-method: PUT
// < 204
// < access-control-allow-origin: https://app.example
import { AutoRouter, cors, error, status, StatusError } from "itty-router";
import * as jose from "jose";
import { z } from "zod";
import { reporter } from "./check.js";

async function zod(is) {
  const User = z.object({
    name: z.string().trim().min(1).max(20), email: z.email(), age: z.number().int().nonnegative().optional(),
    role: z.enum(["admin", "guest"]).default("guest"), tags: z.array(z.string()).max(3).catch([]), born: z.iso.date().optional(),
  });
  await is("parsed", { name: "Ada", email: "ada@example.com", role: "guest", tags: [] }, () => User.parse({ name: " Ada ", email: "ada@example.com", tags: 7, extra: 1 }));
  await is("refused", [["name", "too_small"], ["email", "invalid_format"], ["age", "invalid_type"]],
    User.safeParse({ name: "", email: "x", age: 1.5, tags: [] }).error.issues.map(({ path, code }) => [path.join("."), code]));
  await is("words", "✖ Too small: expected string to have >=1 characters\n  → at name", () => z.prettifyError(User.safeParse({ name: "", email: "a@b.co", tags: [] }).error));
  const Shape = z.discriminatedUnion("kind", [z.object({ kind: z.literal("circle"), r: z.number() }), z.object({ kind: z.literal("square"), a: z.number() })]);
  await is("union", [true, false], [Shape.safeParse({ kind: "circle", r: 1 }).success, Shape.safeParse({ kind: "circle", a: 1 }).success]);
  const Node = z.object({ value: z.number(), get next() { return Node.optional(); } });
  await is("recursive", 3, () => Node.parse({ value: 1, next: { value: 2, next: { value: 3 } } }).next.next.value);
  await is("coerced", [5, true, 1000n, 0], () => [z.coerce.number().parse("5"), z.stringbool().parse("yes"), z.coerce.bigint().parse("1000"), z.coerce.date().parse(0).getTime()]);
  await is("piped", 4, () => z.string().transform((text) => text.length).pipe(z.number().max(5)).parse("four"));
  const codec = z.codec(z.iso.datetime(), z.date(), { decode: (text) => new Date(text), encode: (date) => date.toISOString() });
  await is("codec", "2026-01-02T03:04:05.000Z", () => z.encode(codec, z.decode(codec, "2026-01-02T03:04:05.000Z")));
  await is("async", "taken", z.string().refine(async (name) => name !== "ann", "taken").parseAsync("ann").catch((e) => e.issues[0].message));
  await is("branded and readonly", [true, true], () => { const list = z.array(z.number()).readonly().brand("list").parse([1]); return [Object.isFrozen(list), Array.isArray(list)]; });
  await is("map, set, record", [1, 1, 1], () => [z.map(z.string(), z.number()).parse(new Map([["a", 1]])).size, z.set(z.number()).parse(new Set([1])).size, Object.keys(z.record(z.string(), z.number()).parse({ a: 1 })).length]);
  await is("file", [true, false], [new File(["abc"], "a.txt", { type: "text/plain" }), new File(["abcdef"], "a.txt")].map((file) => z.file().max(4).mime(["text/plain"]).safeParse(file).success));
  await is("templates", [true, false], ["12px", "px"].map((text) => z.templateLiteral([z.number(), z.enum(["px", "em"])]).safeParse(text).success));
  await is("formats", [true, true, true, true, false], [z.uuid().safeParse(crypto.randomUUID()), z.ipv4().safeParse("127.0.0.1"), z.url().safeParse("https://a.b/c"), z.base64().safeParse("AQID"), z.jwt().safeParse("a.b")].map((r) => r.success));
  await is("JSON Schema", { type: "object", properties: { n: { type: "integer", minimum: 1 } }, required: ["n"] }, () => {
    const { n } = z.toJSONSchema(z.object({ n: z.int().min(1) })).properties;
    return { type: "object", properties: { n: { type: n.type, minimum: n.minimum } }, required: z.toJSONSchema(z.object({ n: z.int() })).required };
  });
}

async function tokens(is) {
  const secret = new TextEncoder().encode("a secret of thirty-two bytes, ok");
  const at = { currentDate: new Date(1_000_000) };
  const claims = (key, header) => new jose.SignJWT({ scope: "read" }).setProtectedHeader(header).setIssuer("atoll").setAudience("test").setSubject("ann").setIssuedAt(900).setExpirationTime(1100).sign(key);
  await is("HS256", "eyJhbGciOiJIUzI1NiJ9.eyJzY29wZSI6InJlYWQiLCJpc3MiOiJhdG9sbCIsImF1ZCI6InRlc3QiLCJzdWIiOiJhbm4iLCJpYXQiOjkwMCwiZXhwIjoxMTAwfQ.sKGDo1ctW0kQ7obSxd-ok2-YQOoy5QLc0HWWljYBOR8", claims(secret, { alg: "HS256" }));
  const token = await claims(secret, { alg: "HS256" });
  await is("verified", { scope: "read", iss: "atoll", aud: "test", sub: "ann", iat: 900, exp: 1100 }, jose.jwtVerify(token, secret, { ...at, issuer: "atoll", audience: "test" }).then((r) => r.payload));
  await is("too late", 'throws JWTExpired: "exp" claim timestamp check failed', jose.jwtVerify(token, secret, { currentDate: new Date(2_000_000) }));
  await is("another audience", 'throws JWTClaimValidationFailed: unexpected "aud" claim value', jose.jwtVerify(token, secret, { ...at, audience: "other" }));
  await is("forged", "throws JWSSignatureVerificationFailed: signature verification failed", jose.jwtVerify(token.slice(0, -4) + "AAAA", secret, at));
  for (const alg of ["ES256", "ES384", "RS256", "PS256", "Ed25519"]) {
    const { publicKey, privateKey } = await jose.generateKeyPair(alg, { extractable: true });
    const jwk = { ...(await jose.exportJWK(publicKey)), kid: alg, alg };
    const signed = await claims(privateKey, { alg, kid: alg });
    await is(`${alg} by a key set`, "ann", jose.jwtVerify(signed, jose.createLocalJWKSet({ keys: [jwk] }), at).then((r) => r.payload.sub));
    await is(`${alg} by PEM`, "ann", async () => (await jose.jwtVerify(signed, await jose.importSPKI(await jose.exportSPKI(publicKey), alg), at)).payload.sub);
    await is(`${alg} from PKCS #8`, "ann", async () => {
      const again = await jose.importPKCS8(await jose.exportPKCS8(privateKey), alg);
      return (await jose.jwtVerify(await claims(again, { alg }), publicKey, at)).payload.sub;
    });
    await is(`${alg} has no such key`, "throws JWKSNoMatchingKey: no applicable key found in the JSON Web Key Set", jose.jwtVerify(signed, jose.createLocalJWKSet({ keys: [{ ...jwk, kid: "other" }] }), at));
  }
  await is("thumbprint", "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs", jose.calculateJwkThumbprint({ kty: "RSA", e: "AQAB",
    n: "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw" }));
  for (const [alg, enc, key] of [["dir", "A256GCM", secret], ["A256KW", "A128CBC-HS256", secret], ["A256GCMKW", "A256GCM", secret], ["PBES2-HS256+A128KW", "A128GCM", new TextEncoder().encode("password")]]) {
    await is(`${alg} with ${enc}`, "ann", async () => {
      const sealed = await new jose.EncryptJWT({}).setProtectedHeader({ alg, enc }).setSubject("ann").setExpirationTime(1100).encrypt(key);
      return (await jose.jwtDecrypt(sealed, key, { ...at, keyManagementAlgorithms: [alg] })).payload.sub;
    });
  }
  for (const alg of ["RSA-OAEP-256", "ECDH-ES", "ECDH-ES+A128KW"]) {
    await is(alg, "hidden", async () => {
      const { publicKey, privateKey } = await jose.generateKeyPair(alg);
      const sealed = await new jose.CompactEncrypt(new TextEncoder().encode("hidden")).setProtectedHeader({ alg, enc: "A256GCM" }).encrypt(publicKey);
      return new TextDecoder().decode((await jose.compactDecrypt(sealed, privateKey)).plaintext);
    });
  }
  await is("X25519", "hidden", async () => {
    const { publicKey, privateKey } = await jose.generateKeyPair("ECDH-ES", { crv: "X25519" });
    const sealed = await new jose.CompactEncrypt(new TextEncoder().encode("hidden")).setProtectedHeader({ alg: "ECDH-ES", enc: "A128GCM" }).encrypt(publicKey);
    return new TextDecoder().decode((await jose.compactDecrypt(sealed, privateKey)).plaintext);
  });
  await is("tampered", "throws JWEDecryptionFailed: decryption operation failed", async () => {
    const sealed = await new jose.CompactEncrypt(new Uint8Array([1])).setProtectedHeader({ alg: "dir", enc: "A256GCM" }).encrypt(secret);
    return jose.compactDecrypt(sealed.slice(0, -3) + "AAA", secret);
  });
  await is("flattened", "unencoded", async () => {
    const jws = await new jose.FlattenedSign(new TextEncoder().encode("unencoded")).setProtectedHeader({ alg: "HS256", b64: false, crit: ["b64"] }).sign(secret);
    await jose.flattenedVerify({ ...jws, payload: "unencoded" }, secret);
    return "unencoded";
  });
}

const { preflight, corsify } = cors({ origin: "https://app.example" });
const router = AutoRouter({ before: [preflight], finally: [corsify] });
const owned = ({ method }) => (method === "DELETE" ? error(403, "not yours") : undefined);
router
  .get("/zod", reporter(zod))
  .get("/jose", reporter(tokens))
  .get("/itty", reporter(async (is, env, ctx, request) => {
    await is("props", "/itty", new URL(request.url).pathname);
    await is("status", 204, status(204).status);
  }))
  .all("/todos/:id", owned)
  .get("/todos/:id", ({ params, query }) => ({ ...params, full: query.full }))
  .post("/todos", async (request) => {
    const body = z.object({ text: z.string() }).safeParse(await request.json());
    if (!body.success) throw new StatusError(400, { issues: body.error.issues });
    return new Response(JSON.stringify({ id: 1, ...body.data }), { status: 201, headers: { "content-type": "application/json" } });
  });

export default router;
