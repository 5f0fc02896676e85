// How ciphers of `node:crypto` refuse: the same lines from Node and from a worker. Workers' own give other errors.
import { createCipheriv, createDecipheriv, getCipherInfo } from "node:crypto";

const key = Buffer.alloc(32, 1), iv = Buffer.alloc(16, 2), nonce = Buffer.alloc(12, 3);
const cbc = () => createCipheriv("aes-256-cbc", key, iv), gcm = (options) => createCipheriv("aes-256-gcm", key, nonce, options);
const uncbc = () => createDecipheriv("aes-256-cbc", key, iv), ungcm = () => createDecipheriv("aes-256-gcm", key, nonce);
const ended = (one) => (one.final(), one);
const cases = {
  unknown: () => createCipheriv("nope", key, iv),
  keyLength: () => createCipheriv("aes-256-cbc", Buffer.alloc(5), iv),
  vector: () => createCipheriv("aes-256-cbc", key, Buffer.alloc(5)),
  noVector: () => createCipheriv("aes-256-cbc", key, null),
  vectorOfEcb: () => createCipheriv("aes-256-ecb", key, iv),
  noNonce: () => createCipheriv("aes-256-gcm", key, Buffer.alloc(0)),
  nameType: () => createCipheriv(5, key, iv),
  vectorType: () => createCipheriv("aes-256-cbc", key, 5),
  dataType: () => cbc().update(5),
  finalTwice: () => ended(cbc()).final(),
  updateAfter: () => ended(cbc()).update("x"),
  paddingAfter: () => ended(cbc()).setAutoPadding(false),
  notWhole: () => { const one = cbc().setAutoPadding(false); one.update("x"); one.final(); },
  shortSealed: () => { const one = uncbc(); one.update(Buffer.alloc(15)); one.final(); },
  badPadding: () => { const one = uncbc(); one.update(Buffer.alloc(16)); one.final(); },
  nothingSealed: () => uncbc().final(),
  earlyTag: () => gcm().getAuthTag(),
  tagOfCbc: () => ended(cbc()).getAuthTag(),
  noTag: () => { const one = ungcm(); one.update("aa", "hex"); one.final(); },
  wrongTag: () => { const one = ungcm().setAuthTag(Buffer.alloc(16)); one.update("aa", "hex"); one.final(); },
  tagLength: () => ungcm().setAuthTag(Buffer.alloc(3)),
  tagTwice: () => ungcm().setAuthTag(Buffer.alloc(16)).setAuthTag(Buffer.alloc(16)),
  tagOfOther: () => uncbc().setAuthTag(Buffer.alloc(16)),
  lateAad: () => { const one = gcm(); one.update("a"); one.setAAD(Buffer.from("x")); },
  aadOfCbc: () => cbc().setAAD(Buffer.from("x")),
  shortTag: () => ended(gcm({ authTagLength: 12 })).getAuthTag().toString("hex"),
  pieces: () => { const one = cbc(); return one.update("hello world hello", "utf8", "base64") + one.final("base64"); },
  characters: () => {
    const sealed = Buffer.concat([cbc().update("ééé"), ended(cbc()) && Buffer.alloc(0)]);
    const one = createCipheriv("aes-256-ctr", key, iv), other = createDecipheriv("aes-256-ctr", key, iv);
    let text = String(sealed.length);
    for (const byte of one.update("é€")) text += other.update(Buffer.from([byte]), undefined, "utf8") + "|";
    return text + other.final("utf8");
  },
  info: () => ["aes-256-gcm", "id-aes128-GCM", "AES-128-CBC", "aes-192-ecb", "aes-128-ctr", "x", 419].map((name) => getCipherInfo(name)),
};

export function report() {
  const told = {};
  for (const [name, run] of Object.entries(cases)) {
    try {
      told[name] = ["fine", typeof run() === "string" || name === "info" ? run() : null];
    } catch (error) {
      // Messages are not the same in all versions of Node; where there is no code, they are all there is.
      told[name] = [error.name, error.code ?? error.message];
    }
  }
  return told;
}
export default { fetch: () => Response.json(report()) };
if (process.argv[1]?.endsWith("ciphers.mjs")) console.log(JSON.stringify(report()));
