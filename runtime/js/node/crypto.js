// `node:crypto`: hashes, HMACs, key derivation, random values and secret keys. The computing is Rust's (ops/digest.rs);
// WebCrypto is the isolate's own. Ciphers are in cipher.js. Asymmetric keys and signatures are WebCrypto's alone: their
// functions here say that they are not implemented.
(function () {
"use strict";
const { core, primordials } = __bootstrap;
const {
  op_node_hash_copy, op_node_hash_create, op_node_hash_digest, op_node_hash_update, op_node_hkdf, op_node_pbkdf2,
  op_node_scrypt,
} = core.ops;
const {
  ArrayBuffer, Error, FunctionPrototypeCall, MathMin, NumberIsSafeInteger, ObjectDefineProperty,
  ObjectPrototypeIsPrototypeOf, ObjectSetPrototypeOf, queueMicrotask, RangeError,
  StringPrototypeToLowerCase, SymbolToStringTag, TypedArrayPrototypeSet, TypeError, Uint8Array,
} = primordials;
const {
  ERR_CRYPTO_HASH_FINALIZED, ERR_INVALID_ARG_TYPE, ERR_INVALID_ARG_VALUE, ERR_METHOD_NOT_IMPLEMENTED, ERR_OUT_OF_RANGE,
} = core.loadExtScript("ext:deno_node/internal/errors.ts");
const {
  validateFunction, validateInteger, validateNumber, validateObject, validateString, validateUint32,
} = core.loadExtScript("ext:deno_node/internal/validators.mjs");
const { isAnyArrayBuffer, isArrayBufferView } = core.loadExtScript("ext:deno_node/internal/util/types.ts");
const { Buffer } = core.loadExtScript("ext:deno_node/internal/buffer.mjs");
const { crypto: web, CryptoKey } = core.loadExtScript("ext:deno_crypto/00_crypto.js");
const LazyTransform = core.loadExtScript("ext:deno_node/internal/streams/lazy_transform.js").default;

const INT32_MAX = 2 ** 31 - 1;
/** Longest result of a hash, in bytes. */
const DIGEST_BYTES_MAX = 64;

// ---- Arguments -------------------------------------------------------------------------------------------

// By the names of OpenSSL, which know the signature that a hash was part of.
const HASHES = {
  __proto__: null, md5: 16, sha1: 20, sha224: 28, sha256: 32, sha384: 48, sha512: 64, "sha512-224": 28, "sha512-256": 32,
  "sha3-224": 28, "sha3-256": 32, "sha3-384": 48, "sha3-512": 64,
};
const ALIASES = {
  __proto__: null, "rsa-md5": "md5", "rsa-sha1": "sha1", "rsa-sha224": "sha224", "rsa-sha256": "sha256",
  "rsa-sha384": "sha384", "rsa-sha512": "sha512", "dsa-sha": "sha1", "dsa-sha1": "sha1", "ecdsa-with-sha1": "sha1",
};
function hashOf(name) {
  const lower = StringPrototypeToLowerCase(name);
  const known = ALIASES[lower] ?? lower;
  return HASHES[known] === undefined ? undefined : known;
}
const getHashes = () => [
  "md5", "sha1", "sha224", "sha256", "sha384", "sha512", "sha512-224", "sha512-256", "sha3-224", "sha3-256", "sha3-384",
  "sha3-512", "RSA-MD5", "RSA-SHA1", "RSA-SHA224", "RSA-SHA256", "RSA-SHA384", "RSA-SHA512", "DSA-SHA", "DSA-SHA1",
  "ecdsa-with-SHA1",
];

/** The bytes of a view or a buffer, without a copy. */
function view(value) {
  if (isAnyArrayBuffer(value)) return new Uint8Array(value);
  if (!isArrayBufferView(value)) return undefined;
  return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
}
/** What is hashed: text in an encoding, or a view. */
function data(value, encoding) {
  if (typeof value === "string") return view(Buffer.from(value, encoding === "buffer" ? "utf8" : encoding));
  if (!isArrayBufferView(value)) {
    throw new ERR_INVALID_ARG_TYPE("data", ["string", "Buffer", "TypedArray", "DataView"], value);
  }
  return view(value);
}
/** A password, a salt and the like. */
function bytes(value, name) {
  if (typeof value === "string") return view(Buffer.from(value, "utf8"));
  const found = view(value);
  if (found === undefined) {
    throw new ERR_INVALID_ARG_TYPE(name, ["string", "ArrayBuffer", "Buffer", "TypedArray", "DataView"], value);
  }
  return found;
}
const isKeyObject = (value) => ObjectPrototypeIsPrototypeOf(KeyObject.prototype, value);
function keyBytes(key, encoding) {
  if (isKeyObject(key)) return secretBytes(key);
  if (typeof key === "string") return view(Buffer.from(key, encoding));
  const found = view(key);
  if (found === undefined) {
    throw new ERR_INVALID_ARG_TYPE("key",
      ["string", "ArrayBuffer", "Buffer", "ArrayBufferView", "KeyObject", "CryptoKey"], key);
  }
  return found;
}
function encoded(buffer, encoding) {
  if (encoding === undefined || encoding === null || encoding === "buffer") return buffer;
  return buffer.toString(encoding);
}
/** Computes now and tells later: one thread serves a worker, so there is nowhere else to compute. */
function callback(compute, done) {
  let error = null, result;
  try {
    result = compute();
  } catch (thrown) {
    error = thrown;
  }
  queueMicrotask(() => error === null ? done(null, result) : done(error));
}

// ---- Hashes ----------------------------------------------------------------------------------------------

function start(name, key) {
  const known = hashOf(name);
  if (known === undefined) throw new Error("Digest method not supported");
  return op_node_hash_create(known, key);
}
function finish(handle) {
  const out = Buffer.alloc(DIGEST_BYTES_MAX);
  const length = op_node_hash_digest(handle, out);
  return length === 0 ? undefined : Buffer.from(out.buffer, out.byteOffset, length);
}

// What a hash computes with: the handle is null once the result was given.
const handles = new primordials.SafeWeakMap();
const handleOf = (self) => {
  const state = handles.get(self);
  if (state === undefined) throw new TypeError("Illegal invocation");
  return state;
};
function defineClass(Class, methods) {
  ObjectSetPrototypeOf(Class.prototype, LazyTransform.prototype);
  ObjectSetPrototypeOf(Class, LazyTransform);
  for (const name of primordials.ObjectKeys(methods)) {
    ObjectDefineProperty(Class.prototype, name, {
      __proto__: null, value: methods[name], writable: true, enumerable: true, configurable: true,
    });
  }
}
function _transform(chunk, encoding, done) {
  this.update(chunk, encoding);
  done();
}
function _flush(done) {
  this.push(this.digest());
  done();
}

function Hash(algorithm, options) {
  if (new.target === undefined) return new Hash(algorithm, options);
  const length = options?.outputLength;
  let handle;
  if (handles.has(algorithm)) {
    handle = op_node_hash_copy(handleOf(algorithm).handle);
  } else {
    validateString(algorithm, "algorithm");
    if (length !== undefined) validateUint32(length, "options.outputLength");
    handle = start(algorithm);
    if (length !== undefined && length !== HASHES[hashOf(algorithm)]) throw new Error("invalid digest size");
  }
  FunctionPrototypeCall(LazyTransform, this, options);
  handles.set(this, { __proto__: null, handle });
}
defineClass(Hash, {
  copy(options) {
    if (handleOf(this).handle === null) throw new ERR_CRYPTO_HASH_FINALIZED();
    return new Hash(this, options);
  },
  _transform,
  _flush,
  update(value, encoding) {
    const state = handleOf(this);
    if (state.handle === null) throw new ERR_CRYPTO_HASH_FINALIZED();
    op_node_hash_update(state.handle, data(value, encoding));
    return this;
  },
  digest(encoding) {
    const state = handleOf(this);
    if (state.handle === null) throw new ERR_CRYPTO_HASH_FINALIZED();
    const result = finish(state.handle);
    state.handle = null;
    return encoded(result, encoding);
  },
});

function Hmac(algorithm, key, options) {
  if (new.target === undefined) return new Hmac(algorithm, key, options);
  validateString(algorithm, "hmac");
  const handle = start(algorithm, keyBytes(key, options?.encoding));
  FunctionPrototypeCall(LazyTransform, this, options);
  handles.set(this, { __proto__: null, handle });
}
defineClass(Hmac, {
  _transform,
  _flush,
  update: Hash.prototype.update,
  digest(encoding) {
    const state = handleOf(this);
    const result = state.handle === null ? Buffer.alloc(0) : finish(state.handle);
    state.handle = null;
    return encoded(result, encoding);
  },
});

function hash(algorithm, input, encoding = "hex") {
  validateString(algorithm, "algorithm");
  if (typeof encoding === "object" && encoding !== null) encoding = encoding.outputEncoding ?? "hex";
  if (typeof input !== "string" && !isArrayBufferView(input)) {
    throw new ERR_INVALID_ARG_TYPE("input", ["Buffer", "TypedArray", "DataView", "string"], input);
  }
  validateString(encoding, "outputEncoding");
  const handle = start(algorithm);
  op_node_hash_update(handle, data(input, "utf8"));
  return encoded(finish(handle), encoding);
}

// ---- Key derivation --------------------------------------------------------------------------------------

function pbkdf2Of(password, salt, iterations, length, digest) {
  validateString(digest, "digest");
  password = bytes(password, "password");
  salt = bytes(salt, "salt");
  validateInteger(iterations, "iterations", 1, INT32_MAX);
  validateInteger(length, "keylen", 0, INT32_MAX);
  return () => {
    const name = hashOf(digest);
    if (name === undefined) throw new TypeError(`Invalid Pbkdf2 digest: ${digest}.`);
    const out = Buffer.alloc(length);
    op_node_pbkdf2(name, password, salt, iterations, view(out));
    return out;
  };
}
const pbkdf2Sync = (password, salt, iterations, length, digest) => pbkdf2Of(password, salt, iterations, length, digest)();
function pbkdf2(password, salt, iterations, length, digest, done) {
  if (typeof digest === "function") {
    done = digest;
    digest = undefined;
  }
  const compute = pbkdf2Of(password, salt, iterations, length, digest);
  validateFunction(done, "callback");
  callback(compute, done);
}

const SCRYPT = { __proto__: null, N: 16384, r: 8, p: 1, maxmem: 32 * 1024 * 1024 };
function scryptOf(password, salt, length, options) {
  password = bytes(password, "password");
  salt = bytes(salt, "salt");
  validateInteger(length, "keylen", 0, INT32_MAX);
  let { N, r, p, maxmem } = SCRYPT;
  if (options !== undefined && options !== null) {
    validateObject(options, "options");
    const pick = (short, long, otherwise) => {
      if (options[short] !== undefined && options[long] !== undefined) {
        throw new ERR_INVALID_ARG_VALUE(long, options[long]);
      }
      const value = options[short] ?? options[long] ?? otherwise;
      validateUint32(value, options[short] === undefined ? long : short);
      return value || otherwise;
    };
    N = pick("N", "cost", N);
    r = pick("r", "blockSize", r);
    p = pick("p", "parallelization", p);
    if (options.maxmem !== undefined) {
      validateInteger(options.maxmem, "maxmem", 0);
      maxmem = options.maxmem || maxmem;
    }
  }
  return () => {
    const most = 128 * r * (N + p + 2);
    if (N < 2 || (N & (N - 1)) !== 0 || most > maxmem || r * p >= 2 ** 30) throw new Error("Scrypt failed");
    const out = Buffer.alloc(length);
    if (length > 0) op_node_scrypt(password, salt, N, r, p, view(out));
    return out;
  };
}
const scryptSync = (password, salt, length, options) => scryptOf(password, salt, length, options)();
function scrypt(password, salt, length, options, done) {
  if (done === undefined) {
    done = options;
    options = undefined;
  }
  const compute = scryptOf(password, salt, length, options);
  validateFunction(done, "callback");
  callback(compute, done);
}

/** Longest `info` of HKDF, in bytes: OpenSSL's. */
const INFO_BYTES_MAX = 1024;
function hkdfOf(digest, key, salt, info, length) {
  validateString(digest, "digest");
  key = isKeyObject(key) ? secretBytes(key) : bytes(key, "ikm");
  salt = bytes(salt, "salt");
  info = bytes(info, "info");
  validateInteger(length, "length", 0, INT32_MAX);
  if (info.byteLength > INFO_BYTES_MAX) {
    throw new ERR_OUT_OF_RANGE("info", "must not contain more than 1024 bytes", info.byteLength);
  }
  const name = hashOf(digest);
  if (name === undefined) throw new TypeError(`Invalid Hkdf digest: ${digest}`);
  if (length > 255 * HASHES[name]) throw new RangeError("Invalid Hkdf key length");
  return () => {
    const out = new ArrayBuffer(length);
    op_node_hkdf(name, key, salt, info, new Uint8Array(out));
    return out;
  };
}
const hkdfSync = (digest, key, salt, info, length) => hkdfOf(digest, key, salt, info, length)();
function hkdf(digest, key, salt, info, length, done) {
  const compute = hkdfOf(digest, key, salt, info, length);
  validateFunction(done, "callback");
  callback(compute, done);
}

// ---- Random values ---------------------------------------------------------------------------------------

/** Most bytes that WebCrypto fills in one go. */
const RANDOM_BYTES_MAX = 65_536;
function fill(target) {
  for (let at = 0; at < target.byteLength; at += RANDOM_BYTES_MAX) {
    const length = MathMin(RANDOM_BYTES_MAX, target.byteLength - at);
    web.getRandomValues(new Uint8Array(target.buffer, target.byteOffset + at, length));
  }
}
function randomBytes(size, done) {
  validateInteger(size, "size", 0, INT32_MAX);
  if (done !== undefined) validateFunction(done, "callback");
  const make = () => {
    const out = Buffer.alloc(size);
    fill(out);
    return out;
  };
  if (done === undefined) return make();
  callback(make, done);
}
function filled(buffer, offset, size) {
  const whole = view(buffer);
  if (whole === undefined) {
    throw new ERR_INVALID_ARG_TYPE("buffer", ["TypedArray", "DataView", "ArrayBuffer", "SharedArrayBuffer"], buffer);
  }
  // Both count elements of the array that was given.
  const unit = buffer.BYTES_PER_ELEMENT ?? 1;
  validateInteger(offset, "offset", 0, whole.byteLength / unit);
  if (size === undefined) size = whole.byteLength / unit - offset;
  validateInteger(size, "size", 0, whole.byteLength / unit - offset);
  fill(new Uint8Array(whole.buffer, whole.byteOffset + offset * unit, size * unit));
  return buffer;
}
const randomFillSync = (buffer, offset = 0, size) => filled(buffer, offset, size);
function randomFill(buffer, offset, size, done) {
  if (typeof offset === "function") {
    done = offset;
    offset = 0;
    size = undefined;
  } else if (typeof size === "function") {
    done = size;
    size = undefined;
  }
  validateFunction(done, "callback");
  callback(() => filled(buffer, offset ?? 0, size), done);
}

/** Most values that are told apart, as six bytes can. */
const RANDOM_INTS_MAX = 2 ** 48 - 1;
function randomInt(min, max, done) {
  if (max === undefined || typeof max === "function") {
    done = max;
    max = min;
    min = 0;
  }
  if (done !== undefined) validateFunction(done, "callback");
  validateNumber(min, "min");
  validateNumber(max, "max");
  if (!NumberIsSafeInteger(min)) throw new ERR_INVALID_ARG_TYPE("min", "a safe integer", min);
  if (!NumberIsSafeInteger(max)) throw new ERR_INVALID_ARG_TYPE("max", "a safe integer", max);
  if (min >= max) throw new ERR_OUT_OF_RANGE("min", "min < max", min);
  const range = max - min;
  if (range > RANDOM_INTS_MAX) throw new ERR_OUT_OF_RANGE("max", `<= ${RANDOM_INTS_MAX}`, range);
  const make = () => {
    const limit = 2 ** 48 - (2 ** 48 % range);
    const six = Buffer.alloc(6);
    for (;;) {
      fill(six);
      const number = six.readUIntBE(0, 6);
      if (number < limit) return min + number % range;
    }
  };
  if (done === undefined) return make();
  callback(make, done);
}
function randomUUID(options) {
  if (options !== undefined) validateObject(options, "options");
  return web.randomUUID();
}
const timingSafeEqual = (a, b) => web.subtle.timingSafeEqual(a, b);

// ---- Secret keys -----------------------------------------------------------------------------------------

let secretBytes;
class KeyObject {
  #bytes;
  constructor(type, secret) {
    if (type !== "secret" || !isArrayBufferView(secret)) throw new ERR_METHOD_NOT_IMPLEMENTED("crypto.KeyObject");
    this.#bytes = new Uint8Array(secret.byteLength);
    TypedArrayPrototypeSet(this.#bytes, view(secret));
  }
  static {
    secretBytes = (key) => key.#bytes;
  }
  static from() {
    throw new ERR_METHOD_NOT_IMPLEMENTED("crypto.KeyObject.from");
  }
  get type() {
    return "secret";
  }
  get symmetricKeySize() {
    return this.#bytes.byteLength;
  }
  export(options) {
    const copy = Buffer.from(this.#bytes);
    return options?.format === "jwk" ? { kty: "oct", ext: true, k: copy.toString("base64url") } : copy;
  }
  equals(other) {
    if (!isKeyObject(other)) throw new ERR_INVALID_ARG_TYPE("otherKeyObject", "KeyObject", other);
    const ours = this.#bytes, theirs = other.#bytes;
    return ours.byteLength === theirs.byteLength && timingSafeEqual(ours, theirs);
  }
  get [SymbolToStringTag]() {
    return "KeyObject";
  }
}
class SecretKeyObject extends KeyObject {}
function createSecretKey(key, encoding) {
  return new SecretKeyObject("secret", keyBytes(key, encoding));
}

// ---- What is not here ------------------------------------------------------------------------------------

function absent(name) {
  const made = {
    [name]() {
      throw new ERR_METHOD_NOT_IMPLEMENTED(`crypto.${name}`);
    },
  };
  return made[name];
}
function absentClass(name) {
  const made = {
    [name]: class {
      constructor() {
        throw new ERR_METHOD_NOT_IMPLEMENTED(`crypto.${name}`);
      }
    },
  };
  return made[name];
}

const crypto = {
  constants: core.loadExtScript("ext:deno_node/internal_binding/constants.ts").crypto,
  createHash: (algorithm, options) => new Hash(algorithm, options),
  createHmac: (algorithm, key, options) => new Hmac(algorithm, key, options),
  createSecretKey, getHashes, hash, Hash, Hmac, hkdf, hkdfSync, KeyObject, SecretKeyObject, CryptoKey, pbkdf2, pbkdf2Sync,
  getRandomValues: (array) => web.getRandomValues(array),
  pseudoRandomBytes: randomBytes, randomBytes, randomFill, randomFillSync, randomInt, randomUUID, scrypt, scryptSync,
  timingSafeEqual, subtle: web.subtle, webcrypto: web,
  ...core.loadExtScript("ext:atoll/node/cipher.js")({ bytes, data, defineClass, keyBytes }),
  getCurves: () => [], getFips: () => 0, fips: false,
  secureHeapUsed: () => ({ total: 0, used: 0, utilization: 0, min: 0 }),
};
for (const name of [
  "checkPrime", "checkPrimeSync", "createDiffieHellman",
  "createDiffieHellmanGroup", "createECDH", "createPrivateKey", "createPublicKey", "createSign", "createVerify",
  "diffieHellman", "generateKey", "generateKeyPair", "generateKeyPairSync", "generateKeySync", "generatePrime",
  "generatePrimeSync", "getDiffieHellman", "privateDecrypt", "privateEncrypt", "publicDecrypt",
  "publicEncrypt", "setEngine", "setFips", "sign", "verify",
]) {
  crypto[name] = absent(name);
}
for (const name of [
  "Certificate", "DiffieHellman", "DiffieHellmanGroup", "ECDH", "Sign", "Verify",
  "X509Certificate",
]) {
  crypto[name] = absentClass(name);
}
return crypto;
})();
