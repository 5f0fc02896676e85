// Ciphers of `node:crypto`: AES in the modes CBC, CTR, ECB and GCM. The computing is Rust's (ops/cipher.rs).
(function () {
"use strict";
const { core, primordials } = __bootstrap;
const {
  op_node_cipher_aad, op_node_cipher_create, op_node_cipher_final, op_node_cipher_is_tag, op_node_cipher_tag,
  op_node_cipher_update,
} = core.ops;
const {
  Error, FunctionPrototypeCall, RegExpPrototypeExec, SafeRegExp, StringPrototypeToLowerCase, TypeError,
  Uint8Array,
} = primordials;
const {
  ERR_CRYPTO_INVALID_KEYLEN, ERR_CRYPTO_INVALID_STATE, ERR_CRYPTO_UNKNOWN_CIPHER, ERR_INVALID_ARG_VALUE,
} = core.loadExtScript("ext:deno_node/internal/errors.ts");
const { validateObject, validateString } = core.loadExtScript("ext:deno_node/internal/validators.mjs");
const { Buffer } = core.loadExtScript("ext:deno_node/internal/buffer.mjs");
const { StringDecoder } = core.loadExtScript("ext:deno_node/string_decoder.ts");
const LazyTransform = core.loadExtScript("ext:deno_node/internal/streams/lazy_transform.js").default;

const BLOCK_BYTES = 16;
/** Length of GCM's usual nonce, in bytes. */
const NONCE_BYTES = 12;
/** Numbers of OpenSSL's, as `getCipherInfo` tells them. */
const NIDS = {
  __proto__: null,
  "aes-128-ecb": 418, "aes-128-cbc": 419, "aes-128-ctr": 904, "aes-128-gcm": 895,
  "aes-192-ecb": 422, "aes-192-cbc": 423, "aes-192-ctr": 905, "aes-192-gcm": 898,
  "aes-256-ecb": 426, "aes-256-cbc": 427, "aes-256-ctr": 906, "aes-256-gcm": 901,
};
const NAME = new SafeRegExp("^(?:id-aes(128|192|256)-gcm|aes-?(128|192|256)|aes-(128|192|256)-(cbc|ctr|ecb|gcm))$");

/** What a name or a number stands for; undefined if it is none of ours. */
function cipherOf(name) {
  if (typeof name === "number") {
    const known = getCiphers();
    for (let at = 0; at < known.length; at++) if (NIDS[known[at]] === name) return cipherOf(known[at]);
    return undefined;
  }
  const found = RegExpPrototypeExec(NAME, StringPrototypeToLowerCase(name));
  if (found === null) return undefined;
  const bits = found[1] ?? found[2] ?? found[3];
  const mode = found[1] !== undefined ? "gcm" : found[4] ?? "cbc";
  return { __proto__: null, name: `aes-${bits}-${mode}`, mode, keyLength: bits / 8 };
}
const getCiphers = () => [
  "aes-128-cbc", "aes-128-ctr", "aes-128-ecb", "aes-128-gcm", "aes-192-cbc", "aes-192-ctr", "aes-192-ecb", "aes-192-gcm",
  "aes-256-cbc", "aes-256-ctr", "aes-256-ecb", "aes-256-gcm",
];

function fitsVector(mode, length) {
  if (mode === "gcm") return length > 0;
  return length === (mode === "ecb" ? 0 : BLOCK_BYTES);
}

function getCipherInfo(name, options) {
  if (typeof name !== "number") validateString(name, "nameOrNid");
  if (options !== undefined) validateObject(options, "options");
  const cipher = cipherOf(name);
  if (cipher === undefined) return undefined;
  const { mode, keyLength } = cipher;
  if (options?.keyLength !== undefined && options.keyLength !== keyLength) return undefined;
  if (options?.ivLength !== undefined && !fitsVector(mode, options.ivLength)) return undefined;
  const info = {
    mode,
    name: mode === "gcm" ? `id-aes${keyLength * 8}-gcm` : cipher.name,
    nid: NIDS[cipher.name],
    blockSize: mode === "cbc" || mode === "ecb" ? BLOCK_BYTES : 1,
    keyLength,
  };
  if (mode !== "ecb") info.ivLength = options?.ivLength ?? (mode === "gcm" ? NONCE_BYTES : BLOCK_BYTES);
  return info;
}

/** An error with one of OpenSSL's codes, as programs look for them. */
function openssl(code, message) {
  const error = new Error(message);
  error.code = code;
  return error;
}
function badArgument(code, message) {
  const error = new TypeError(message);
  error.code = code;
  return error;
}
const unsupported = () => new Error("Unsupported state or unable to authenticate data");

function checkTagLength(length) {
  if (length !== 4 && length !== 8 && (length < 12 || length > BLOCK_BYTES)) {
    throw badArgument("ERR_CRYPTO_INVALID_AUTH_TAG", `Invalid authentication tag length: ${length}`);
  }
}

/** The classes, with the arguments' helpers of `crypto.js`. */
return function ciphers({ bytes, data, defineClass, keyBytes }) {
  const states = new primordials.SafeWeakMap();
  const stateOf = (self) => {
    const state = states.get(self);
    if (state === undefined) throw new TypeError("Illegal invocation");
    return state;
  };

  function begin(self, encrypts, name, key, iv, options) {
    validateString(name, "cipher");
    const tagLength = options?.authTagLength;
    if (tagLength !== undefined && (typeof tagLength !== "number" || tagLength < 0 || tagLength !== (tagLength | 0))) {
      throw new ERR_INVALID_ARG_VALUE("options.authTagLength", tagLength);
    }
    key = keyBytes(key, options?.encoding);
    iv = iv === null ? new Uint8Array(0) : bytes(iv, "iv");
    const cipher = cipherOf(name);
    if (cipher === undefined) throw new ERR_CRYPTO_UNKNOWN_CIPHER();
    const { mode } = cipher;
    if (key.byteLength !== cipher.keyLength) throw new ERR_CRYPTO_INVALID_KEYLEN();
    if (!fitsVector(mode, iv.byteLength)) throw badArgument("ERR_CRYPTO_INVALID_IV", "Invalid initialization vector");
    if (mode === "gcm" && tagLength !== undefined) checkTagLength(tagLength);
    const handle = op_node_cipher_create(mode, encrypts, key, iv);
    FunctionPrototypeCall(LazyTransform, self, options);
    states.set(self, {
      __proto__: null, handle, mode, encrypts, tagLength, padding: true, began: false, ended: false, tag: undefined,
      decoder: undefined, encoding: undefined,
    });
  }

  /** In an encoding, what does not make up a whole character waits for the next piece. */
  function encoded(state, buffer, encoding, last) {
    if (encoding === undefined || encoding === null || encoding === "buffer") return buffer;
    state.decoder ??= new StringDecoder(encoding);
    state.encoding ??= state.decoder.encoding;
    if (new StringDecoder(encoding).encoding !== state.encoding) throw new Error("Cannot change encoding");
    return last ? state.decoder.end(buffer) : state.decoder.write(buffer);
  }

  function update(value, inputEncoding, outputEncoding) {
    const state = stateOf(this);
    const input = data(value, inputEncoding);
    if (state.ended) throw new Error("Trying to add data in unsupported state");
    state.began = true;
    const out = Buffer.alloc(input.byteLength + BLOCK_BYTES);
    const length = op_node_cipher_update(state.handle, input, state.padding, out);
    return encoded(state, Buffer.from(out.buffer, out.byteOffset, length), outputEncoding, false);
  }

  function final(outputEncoding) {
    const state = stateOf(this);
    if (state.ended) throw new ERR_CRYPTO_INVALID_STATE("final");
    state.ended = true;
    let out = Buffer.alloc(BLOCK_BYTES);
    if (state.mode === "gcm") {
      if (state.encrypts) {
        state.tag = Buffer.alloc(state.tagLength ?? BLOCK_BYTES);
        op_node_cipher_tag(state.handle, state.tag);
      } else if (state.tag === undefined || !op_node_cipher_is_tag(state.handle, state.tag)) {
        throw unsupported();
      }
      out = Buffer.alloc(0);
    } else {
      const length = op_node_cipher_final(state.handle, state.padding, out);
      if (length === -1) throw openssl("ERR_OSSL_WRONG_FINAL_BLOCK_LENGTH", "error:1C80006B:Provider routines::wrong final block length");
      if (length === -2) throw openssl("ERR_OSSL_BAD_DECRYPT", "error:1C800064:Provider routines::bad decrypt");
      out = Buffer.from(out.buffer, out.byteOffset, length);
    }
    return encoded(state, out, outputEncoding, true);
  }

  const shared = {
    _transform(chunk, encoding, done) {
      this.push(this.update(chunk, encoding));
      done();
    },
    _flush(done) {
      try {
        this.push(this.final());
      } catch (error) {
        return done(error);
      }
      done();
    },
    update,
    final,
    setAutoPadding(padding) {
      const state = stateOf(this);
      if (state.ended) throw new ERR_CRYPTO_INVALID_STATE("setAutoPadding");
      state.padding = padding === undefined ? true : !!padding;
      return this;
    },
    setAAD(value, options) {
      const state = stateOf(this);
      const aad = bytes(value, "buffer");
      if (state.mode !== "gcm" || state.began || state.ended) throw new ERR_CRYPTO_INVALID_STATE("setAAD");
      if (options !== undefined) validateObject(options, "options");
      op_node_cipher_aad(state.handle, aad);
      return this;
    },
  };

  function Cipheriv(name, key, iv, options) {
    if (new.target === undefined) return new Cipheriv(name, key, iv, options);
    begin(this, true, name, key, iv, options);
  }
  defineClass(Cipheriv, {
    ...shared,
    getAuthTag() {
      const { mode, tag } = stateOf(this);
      if (mode !== "gcm" || tag === undefined) throw new ERR_CRYPTO_INVALID_STATE("getAuthTag");
      return Buffer.from(tag);
    },
  });

  function Decipheriv(name, key, iv, options) {
    if (new.target === undefined) return new Decipheriv(name, key, iv, options);
    begin(this, false, name, key, iv, options);
  }
  defineClass(Decipheriv, {
    ...shared,
    setAuthTag(value, encoding) {
      const state = stateOf(this);
      const tag = Buffer.from(data(value, encoding));
      if (state.mode !== "gcm" || state.ended || state.tag !== undefined) throw new ERR_CRYPTO_INVALID_STATE("setAuthTag");
      checkTagLength(tag.byteLength);
      if (state.tagLength !== undefined && tag.byteLength !== state.tagLength) {
        throw badArgument("ERR_CRYPTO_INVALID_AUTH_TAG", `Invalid authentication tag length: ${tag.byteLength}`);
      }
      state.tag = tag;
      return this;
    },
  });

  return {
    Cipheriv, Decipheriv, getCiphers, getCipherInfo,
    createCipheriv: (name, key, iv, options) => new Cipheriv(name, key, iv, options),
    createDecipheriv: (name, key, iv, options) => new Decipheriv(name, key, iv, options),
  };
};
})();
