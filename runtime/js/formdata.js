// FormData with its two wire forms, loaded when first used.
// https://xhr.spec.whatwg.org/#interface-formdata , RFC 7578, https://url.spec.whatwg.org/#urlencoded-parsing
(function () {
"use strict";
const { core, primordials, internals } = __bootstrap;
const host = internals.atoll;
const {
  ArrayPrototypePush, ArrayPrototypeFilter, MathRandom, ObjectDefineProperty, String, StringPrototypeIndexOf,
  StringPrototypeReplace, StringPrototypeSlice, StringPrototypeSplit, StringPrototypeToLowerCase, StringPrototypeTrim,
  SymbolIterator, SymbolToStringTag, TypeError, TypedArrayPrototypeSubarray, TypedArrayPrototypeSet, Uint8Array,
  RegExpPrototypeExec, SafeRegExp, StringFromCharCode,
} = primordials;
const { Blob, File } = host.load("ext:deno_web/09_file.js");

const toFile = (value, name) => {
  const isFile = value instanceof File;
  if (isFile && name === undefined) return value;
  return new File([value], name ?? (isFile ? value.name : "blob"), { type: value.type, lastModified: isFile ? value.lastModified : undefined });
};
const toUsv = (value) => String(value).toWellFormed();

function required(given, count, method) {
  if (given.length < count) {
    throw new TypeError(`Failed to execute '${method}' on 'FormData': ${count} argument${count > 1 ? "s" : ""} required, but only ${given.length} present.`);
  }
}

// What it walks over is read when it is called: a receiver that is no form is an error at once, not at the first step.
const walk = (form, show) => steps(entriesOf(form), show);
function* steps(entries, show) {
  for (const each of entries) yield show(each);
}

let entriesOf;
class FormData {
  #entries = [];
  static {
    entriesOf = (form) => form.#entries;
  }
  constructor(form = undefined) {
    if (form !== undefined) throw new TypeError("Failed to construct 'FormData': parameter 1 is not of type 'HTMLFormElement'.");
  }
  #entry(name, value, filename) {
    return { name: toUsv(name), value: value instanceof Blob ? toFile(value, filename === undefined ? undefined : toUsv(filename)) : toUsv(value) };
  }
  append(name, value, filename = undefined) {
    required(arguments, 2, "append");
    ArrayPrototypePush(this.#entries, this.#entry(name, value, filename));
  }
  set(name, value, filename = undefined) {
    required(arguments, 2, "set");
    const entry = this.#entry(name, value, filename);
    let placed = false;
    this.#entries = ArrayPrototypeFilter(this.#entries, (each, i) => {
      if (each.name !== entry.name) return true;
      if (placed) return false;
      placed = true;
      each.value = entry.value;
      return true;
    });
    if (!placed) ArrayPrototypePush(this.#entries, entry);
  }
  delete(name) {
    required(arguments, 1, "delete");
    name = toUsv(name);
    this.#entries = ArrayPrototypeFilter(this.#entries, (each) => each.name !== name);
  }
  get(name) {
    required(arguments, 1, "get");
    name = toUsv(name);
    for (const each of this.#entries) if (each.name === name) return each.value;
    return null;
  }
  getAll(name) {
    required(arguments, 1, "getAll");
    name = toUsv(name);
    const values = [];
    for (const each of this.#entries) if (each.name === name) ArrayPrototypePush(values, each.value);
    return values;
  }
  has(name) {
    required(arguments, 1, "has");
    name = toUsv(name);
    for (const each of this.#entries) if (each.name === name) return true;
    return false;
  }
  forEach(callback, thisArg = undefined) {
    if (typeof callback !== "function") throw new TypeError("Failed to execute 'forEach' on 'FormData': parameter 1 is not of type 'Function'.");
    for (const { 0: name, 1: value } of this) primordials.ReflectApply(callback, thisArg, [value, name, this]);
  }
  keys() {
    return walk(this, (each) => each.name);
  }
  values() {
    return walk(this, (each) => each.value);
  }
  entries() {
    return walk(this, (each) => [each.name, each.value]);
  }
  get [SymbolToStringTag]() {
    return "FormData";
  }
}
ObjectDefineProperty(FormData.prototype, SymbolIterator, { __proto__: null, value: FormData.prototype.entries, writable: true, enumerable: false, configurable: true });

// Blob parts live behind an async op, but a form of strings and in-memory files is needed at once for a body.
const escapeName = (name) => StringPrototypeReplace(StringPrototypeReplace(StringPrototypeReplace(
  name, /\r\n|\r|\n/g, "%0D%0A"), /"/g, "%22"), /\0/g, "");

/** A FormData as multipart/form-data: a stream, since files are read as they are sent. */
function encode(form) {
  let boundary = "----formdata-atoll-";
  for (let i = 0; i < 4; i++) boundary += StringPrototypeSlice(`${MathRandom()}`, 2, 12);
  const parts = [];
  for (const { name, value } of entriesOf(form)) {
    let head = `--${boundary}\r\nContent-Disposition: form-data; name="${escapeName(name)}"`;
    if (typeof value === "string") {
      ArrayPrototypePush(parts, `${head}\r\n\r\n${StringPrototypeReplace(value, /\r\n|\r|\n/g, "\r\n")}\r\n`);
    } else {
      head += `; filename="${escapeName(value.name)}"\r\nContent-Type: ${value.type || "application/octet-stream"}\r\n\r\n`;
      ArrayPrototypePush(parts, head, value, "\r\n");
    }
  }
  ArrayPrototypePush(parts, `--${boundary}--\r\n`);
  return { blob: new Blob(parts), type: `multipart/form-data; boundary=${boundary}` };
}

const latin1 = (bytes) => {
  let text = "";
  for (let i = 0; i < bytes.length; i += 8192) text += StringFromCharCode.apply(null, TypedArrayPrototypeSubarray(bytes, i, i + 8192));
  return text;
};
function find(bytes, needle, from) {
  outer: for (let i = from; i <= bytes.length - needle.length; i++) {
    for (let j = 0; j < needle.length; j++) if (bytes[i + j] !== needle[j]) continue outer;
    return i;
  }
  return -1;
}
const CRLF2 = core.encode("\r\n\r\n");

function decodeMultipart(bytes, boundary) {
  const form = new FormData();
  const delimiter = core.encode(`--${boundary}`);
  let at = find(bytes, delimiter, 0);
  if (at < 0) throw new TypeError("No initial boundary string (or you have a truncated message).");
  for (;;) {
    at += delimiter.length;
    if (bytes[at] === 45 && bytes[at + 1] === 45) return form;
    while (bytes[at] === 32 || bytes[at] === 9) at++;
    if (bytes[at] !== 13 || bytes[at + 1] !== 10) throw new TypeError("Boundary string was not succeeded by CRLF.");
    const headEnd = find(bytes, CRLF2, at);
    if (headEnd < 0) throw new TypeError("Header did not terminate in CRLF CRLF.");
    const head = core.decode(TypedArrayPrototypeSubarray(bytes, at + 2, headEnd));
    const next = find(bytes, core.encode(`\r\n--${boundary}`), headEnd + 2);
    if (next < 0) throw new TypeError("No subsequent boundary string after multipart message.");
    appendPart(form, head, TypedArrayPrototypeSubarray(bytes, headEnd + 4, next < headEnd + 4 ? headEnd + 4 : next));
    at = next + 2;
  }
}
function appendPart(form, head, content) {
  let disposition = "", type = null;
  for (const each of StringPrototypeSplit(head, "\r\n")) {
    const colon = StringPrototypeIndexOf(each, ":");
    const name = StringPrototypeToLowerCase(StringPrototypeTrim(StringPrototypeSlice(each, 0, colon)));
    const value = StringPrototypeTrim(StringPrototypeSlice(each, colon + 1));
    if (name === "content-disposition") disposition = value;
    if (name === "content-type") type = value;
  }
  const name = RegExpPrototypeExec(new SafeRegExp(/;\s*name="((?:[^"\\]|\\.)*)"/i), disposition);
  if (name === null) throw new TypeError("Content-Disposition header in FormData part is missing a name.");
  const filename = RegExpPrototypeExec(new SafeRegExp(/;\s*filename="((?:[^"\\]|\\.)*)"/i), disposition);
  // What "parse a multipart/form-data name" undoes; nothing else is percent-encoded.
  const plain = (text) => StringPrototypeReplace(StringPrototypeReplace(StringPrototypeReplace(
    text, /%22/g, '"'), /%0D/gi, "\r"), /%0A/gi, "\n");
  if (filename === null) form.append(plain(name[1]), core.decode(content));
  else form.append(plain(name[1]), new File([content], plain(filename[1]), { type: type ?? "application/octet-stream" }));
}

function decodeUrlencoded(bytes) {
  const form = new FormData();
  const { URLSearchParams } = host.load("ext:deno_web/00_url.js");
  for (const { 0: name, 1: value } of new URLSearchParams(core.decode(bytes))) form.append(name, value);
  return form;
}
/** Parses a body by its content type. */
function decode(bytes, contentType) {
  const essence = StringPrototypeToLowerCase(StringPrototypeTrim(StringPrototypeSplit(contentType ?? "", ";")[0]));
  if (essence === "application/x-www-form-urlencoded") return decodeUrlencoded(bytes);
  if (essence === "multipart/form-data") {
    const boundary = RegExpPrototypeExec(new SafeRegExp(/;\s*boundary=(?:"([^"]+)"|([^;]+))/i), contentType);
    if (boundary === null) throw new TypeError("No boundary string in Content-Type header. The multipart/form-data MIME type requires a boundary parameter, e.g. 'Content-Type: multipart/form-data; boundary=\"abcd\"'. See RFC 7578, section 4.");
    return decodeMultipart(bytes, StringPrototypeTrim(boundary[1] ?? boundary[2]));
  }
  throw new TypeError(`Unrecognized Content-Type header value. FormData can only parse the following MIME types: multipart/form-data, application/x-www-form-urlencoded.`);
}
return { FormData, encode, decode };
})();
