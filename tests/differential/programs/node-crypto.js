// Shows: node:crypto: hashes, HMACs, key derivation, random values, secret keys, WebCrypto, and errors.
// @flags nodejs_compat
// > GET /hash
// > GET /derive
// > GET /random
// > GET /ciphers
import crypto, { createCipheriv, createDecipheriv, createHash, createHmac, createSecretKey, getCipherInfo, getCiphers, getHashes, hash, hkdf, hkdfSync, pbkdf2, pbkdf2Sync, randomBytes, randomFill, randomFillSync, randomInt, randomUUID, scrypt, scryptSync, timingSafeEqual, webcrypto } from "node:crypto";
import { promisify } from "node:util";
import { pipeline } from "node:stream/promises";
import { Readable } from "node:stream";
import { reporter } from "report.js";

const code = (run) => () => {
  try {
    return run();
  } catch (error) {
    return `${error.name} ${error.code}`;
  }
};
const parts = { "/hash": hashes, "/derive": derive, "/random": random, "/ciphers": ciphers };
export default reporter(async (show, { request }) => parts[new URL(request.url).pathname](show));

async function hashes(show) {
  const names = ["md5", "sha1", "sha224", "sha256", "sha384", "sha512", "sha512-256", "SHA256", "RSA-SHA256", "nope"];
  for (const name of names) {
    await show(name, code(() => createHash(name).update("abc").update(Buffer.from([0, 255])).digest("hex")));
    await show(`HMAC ${name}`, code(() => createHmac(name, "key").update("abc").digest("base64")));
  }
  await show("known", names.slice(0, 6).every((name) => getHashes().includes(name)));
  await show("encodings", [createHash("md5").update("ff00", "hex").digest("base64url"), createHash("md5").update("é", "latin1").digest("latin1").length, Buffer.isBuffer(createHash("md5").digest()), createHash("md5").digest("buffer").length]);
  await show("views", createHash("sha1").update(new Uint16Array([1, 258])).update(new DataView(new ArrayBuffer(2))).digest("hex"));
  await show("large", createHash("sha256").update(Buffer.alloc(1 << 20, "x")).digest("hex"));
  await show("copy", () => {
    const first = createHash("sha1").update("a"), second = first.copy();
    return [first.update("b").digest("hex"), second.digest("hex")];
  });
  await show("twice", code(() => { const one = createHash("md5"); one.digest(); one.digest(); }));
  await show("update after", code(() => { const one = createHash("md5"); one.digest(); one.update("a"); }));
  await show("copy after", code(() => { const one = createHash("md5"); one.digest(); one.copy(); }));
  await show("HMAC twice", () => { const one = createHmac("md5", "k"); one.digest(); return one.digest("hex"); });
  await show("no name", code(() => createHash()));
  await show("no data", code(() => createHash("md5").update(1)));
  await show("no key", code(() => createHmac("md5")));
  await show("bad encoding", code(() => createHash("md5").digest("nope")));
  await show("keys", [createHmac("sha256", Buffer.alloc(200, 1)).digest("hex"), createHmac("sha256", "").digest("hex"), createHmac("sha256", createSecretKey(Buffer.from("k"))).digest("hex") === createHmac("sha256", "k").digest("hex")]);
  await show("one shot", [hash("sha1", "abc"), hash("sha1", Buffer.from("abc"), "base64"), hash("md5", "abc", "buffer").length]);
  await show("stream", async () => {
    const one = createHash("sha256");
    await pipeline(Readable.from(["a", "bc"]), one);
    return one.read().toString("hex");
  });
  await show("encoded stream", async () => {
    const one = createHmac("sha1", "k").setEncoding("hex");
    one.end("abc");
    let text = "";
    for await (const part of one) text += part;
    return text;
  });
  await show("classes", [createHash("md5") instanceof crypto.Hash, createHmac("md5", "k") instanceof crypto.Hmac, new crypto.Hash("md5").digest("hex"), crypto.Hash("md5").digest("hex")]);
  await show("secret key", () => {
    const key = createSecretKey("secret", "utf8");
    return [key.type, key.symmetricKeySize, key.export().toString(), key.export({ format: "jwk" }).k, key.equals(createSecretKey(Buffer.from("secret"))), Object.prototype.toString.call(key)];
  });
}

async function derive(show) {
  await show("pbkdf2", [pbkdf2Sync("p", "s", 1000, 40, "sha512"), pbkdf2Sync(Buffer.from("p"), new Uint8Array([1]), 2, 20, "sha256"), pbkdf2Sync("p", "s", 1, 8, "md5"), pbkdf2Sync("", "", 1, 0, "sha1")]);
  await show("pbkdf2 later", promisify(pbkdf2)("p", "s", 10, 16, "sha1"));
  await show("pbkdf2 errors", [code(() => pbkdf2Sync("p", "s", 1, 8))(), code(() => pbkdf2Sync("p", "s", 0, 8, "sha1"))(), code(() => pbkdf2Sync("p", "s", 1, -1, "sha1"))(), code(() => pbkdf2("p", "s", 1, 8, "sha1"))(), code(() => pbkdf2Sync(1, "s", 1, 8, "sha1"))()]);
  await show("scrypt", [scryptSync("p", "s", 32), scryptSync("password", "NaCl", 16, { N: 1024, r: 4, p: 2 }), scryptSync("p", "s", 8, { cost: 16, blockSize: 1, parallelization: 1 }), scryptSync("p", "s", 0)]);
  await show("scrypt later", promisify(scrypt)("p", "s", 16));
  await show("scrypt errors", [code(() => scryptSync("p", "s", 8, { N: 1000 }))(), code(() => scryptSync("p", "s", 8, { N: 1 << 17 }))(), code(() => scryptSync("p", "s", 8, { N: 2, cost: 2 }))(), code(() => scrypt("p", "s", 8))()]);
  await show("hkdf", [hkdfSync("sha256", "k", "s", "i", 50), hkdfSync("sha512", Buffer.from("k"), "", "", 1), hkdfSync("sha1", createSecretKey(Buffer.from("k")), "s", "i", 10)]);
  await show("hkdf later", promisify(hkdf)("sha1", "k", "s", "i", 10));
  await show("hkdf errors", [code(() => hkdfSync("sha256", "k", "s", "i", 50_000))(), code(() => hkdfSync("sha256", "k", "s", "i".repeat(1025), 5))(), code(() => hkdfSync("nope", "k", "s", "i", 5))()]);
}

async function random(show) {
  await show("bytes", [randomBytes(5).length, Buffer.isBuffer(randomBytes(0)), randomBytes(16).equals(randomBytes(16)), (await promisify(randomBytes)(4)).length]);
  await show("bytes errors", [code(() => randomBytes(-1))(), code(() => randomBytes("1"))(), code(() => randomBytes(2 ** 31))()]);
  await show("fill", () => {
    const target = Buffer.alloc(64);
    randomFillSync(target, 32);
    return [target.subarray(0, 32).every((byte) => byte === 0), target.subarray(32).every((byte) => byte === 0)];
  });
  await show("fill later", async () => (await promisify(randomFill)(new Uint8Array(4))).length);
  await show("fill errors", [code(() => randomFillSync(Buffer.alloc(2), 0, 3))(), code(() => randomFillSync("x"))()]);
  await show("int", [randomInt(1), randomInt(5, 6), await promisify(randomInt)(3, 4), Array.from({ length: 50 }, () => randomInt(10)).every((n) => n >= 0 && n < 10)]);
  await show("int errors", [code(() => randomInt(0))(), code(() => randomInt(5, 5))(), code(() => randomInt("5"))(), code(() => randomInt(0, 2 ** 48))()]);
  await show("uuid", [/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.test(randomUUID()), code(() => randomUUID(1))()]);
  await show("timingSafeEqual", [timingSafeEqual(Buffer.from("a"), Buffer.from("a")), timingSafeEqual(Buffer.from("a"), Buffer.from("b")), code(() => timingSafeEqual(Buffer.from("a"), Buffer.from("ab")))()]);
  await show("webcrypto", [webcrypto === globalThis.crypto, crypto.subtle === globalThis.crypto.subtle, crypto.getRandomValues(new Uint8Array(3)).length]);
  await show("constants", [crypto.constants.RSA_PKCS1_PADDING, crypto.constants.RSA_PKCS1_PSS_PADDING]);
}

async function ciphers(show) {
  const iv = Buffer.alloc(16, 2), nonce = Buffer.alloc(12, 3);
  const key = (name) => Buffer.alloc(parseInt(name.slice(4)) / 8, 1);
  const vector = (name) => name.endsWith("ecb") ? null : name.endsWith("gcm") ? nonce : iv;
  const names = ["aes-128-cbc", "aes-192-cbc", "aes-256-cbc", "aes-128-ctr", "aes-192-ctr", "aes-256-ctr", "aes-128-ecb", "aes-256-ecb", "aes-128-gcm", "aes-192-gcm", "aes-256-gcm", "AES-256-CBC"];
  const text = "the quick brown fox jumps over the lazy dog, é";
  for (const name of names) {
    await show(name, () => {
      const one = createCipheriv(name, key(name), vector(name));
      let sealed = "";
      for (const piece of text.match(/.{1,7}/gsu)) sealed += one.update(piece, "utf8", "hex");
      sealed += one.final("hex");
      const tag = name.endsWith("gcm") ? one.getAuthTag() : undefined;
      const other = createDecipheriv(name, key(name), vector(name));
      if (tag) other.setAuthTag(tag);
      let opened = "";
      for (const piece of sealed.match(/.{1,22}/g)) opened += other.update(piece, "hex", "utf8");
      return [sealed, tag?.toString("hex"), opened + other.final("utf8")];
    });
  }
  const k = key("aes-256");
  const cbc = () => createCipheriv("aes-256-cbc", k, iv), gcm = () => createCipheriv("aes-256-gcm", k, nonce);
  const uncbc = () => createDecipheriv("aes-256-cbc", k, iv), ungcm = () => createDecipheriv("aes-256-gcm", k, nonce);
  await show("authenticated", () => {
    const one = gcm().setAAD(Buffer.from("some more than a block of it"));
    return [one.update("hello", "utf8", "base64") + one.final("base64"), one.getAuthTag().toString("hex")];
  });
  await show("long nonce", () => {
    const one = createCipheriv("aes-256-gcm", k, Buffer.alloc(33, 5));
    return one.update("hello", "utf8", "hex") + one.final("hex") + one.getAuthTag().toString("hex");
  });
  await show("only authenticated", () => { const one = gcm().setAAD(Buffer.from("x")); return one.final("hex") + one.getAuthTag().toString("hex"); });
  await show("counter wraps", createCipheriv("aes-256-ctr", k, Buffer.alloc(16, 255)).update(Buffer.alloc(40)).toString("hex"));
  await show("no padding", () => { const one = cbc().setAutoPadding(false); return one.update(Buffer.alloc(32)).toString("hex") + one.final("hex"); });
  await show("padding stays", () => { const one = uncbc().setAutoPadding(false); return one.update(cbc().update(Buffer.alloc(16)).toString("hex") + cbc().final("hex"), "hex", "hex") + one.final("hex"); });
  for (const [what, run] of Object.entries({
    "unknown": () => createCipheriv("nope", k, iv), "key length": () => createCipheriv("aes-256-cbc", Buffer.alloc(5), iv),
    "vector": () => createCipheriv("aes-256-cbc", k, Buffer.alloc(5)), "no vector": () => createCipheriv("aes-256-cbc", k, null),
    "no nonce": () => createCipheriv("aes-256-gcm", k, Buffer.alloc(0)), "final twice": () => { const one = cbc(); one.final(); one.final(); },
    "not whole blocks": () => { const one = cbc().setAutoPadding(false); one.update("x"); one.final(); },
    "early tag": () => gcm().getAuthTag(), "length of tag": () => ungcm().setAuthTag(Buffer.alloc(3)),
    "aad of cbc": () => cbc().setAAD(Buffer.from("x")),
  })) await show(what, () => { try { run(); return "fine"; } catch { return "throws"; } });
  for (const [what, run] of Object.entries({
    "name": () => createCipheriv(5, k, iv), "key": () => createCipheriv("aes-256-cbc", 5, iv),
    "vector's type": () => createCipheriv("aes-256-cbc", k, 5), "data": () => cbc().update(5),
    "no tag": () => { const one = ungcm(); one.update("aa", "hex"); one.final(); },
    "wrong tag": () => { const one = ungcm().setAuthTag(Buffer.alloc(16)); one.update("aa", "hex"); one.final(); },
  })) await show(what, code(run));
  await show("known", names.slice(0, 9).every((name) => getCiphers().includes(name)));
  await show("info", ["aes-256-gcm", "aes-128-cbc", "aes-128-ctr", "nope"].map((name) => getCipherInfo(name)?.keyLength));
  await show("classes", [cbc() instanceof crypto.Cipheriv, uncbc() instanceof crypto.Decipheriv]);
  await show("keys", createCipheriv("aes-256-cbc", createSecretKey(k), iv).update(Buffer.alloc(16)).toString("hex"));
  await show("stream", async () => {
    const one = cbc(), other = uncbc();
    await Promise.all([pipeline(Readable.from(["abc", "def".repeat(20)]), one, other)]);
    let opened = "";
    for await (const piece of other) opened += piece;
    return opened;
  });
  await show("large", () => {
    const sealed = Buffer.concat([cbc().update(Buffer.alloc(1 << 20, "y")), cbc().final()]);
    return createHash("sha256").update(sealed).digest("hex");
  });
}
