// Shows: node:buffer: making, encodings, numbers, searching, slices, and errors with their codes.
// @flags nodejs_compat
// > GET /make
// > GET /encodings
// > GET /numbers
// > GET /parts
// > GET /errors
import buffer, { Blob, Buffer as Named, constants, isAscii, isUtf8, kMaxLength, SlowBuffer, transcode } from "node:buffer";
import bare from "buffer";
import { reporter } from "report.js";

const hex = (bytes) => Buffer.from(bytes).toString("hex");
const code = (run) => () => {
  try {
    return run();
  } catch (error) {
    return `${error.name} ${error.code}`;
  }
};
const parts = { "/make": make, "/encodings": encodings, "/numbers": numbers, "/parts": slices, "/errors": errors };
export default reporter(async (show, { request }) => parts[new URL(request.url).pathname](show));

async function make(show) {
  await show("one Buffer", [Buffer === Named, Buffer === buffer.Buffer, bare === buffer, Buffer.name]);
  await show("from text", [hex(Buffer.from("héllo €")), hex(Buffer.from("")), Buffer.from("abc").length]);
  await show("from array", hex(Buffer.from([1, 2, 256, -1, 3.7, "5", "x"])));
  await show("from views", [hex(Buffer.from(new Uint16Array([1, 258]))), hex(Buffer.from(new Uint16Array([1, 258]).buffer))]);
  await show("from ArrayBuffer shares", () => {
    const memory = new ArrayBuffer(4), part = Buffer.from(memory, 1, 2);
    part[0] = 7;
    return [hex(new Uint8Array(memory)), part.byteOffset, part.length];
  });
  await show("from Buffer copies", () => {
    const a = Buffer.from("abc"), b = Buffer.from(a);
    b[0] = 0;
    return [a.toString(), hex(b)];
  });
  await show("from objects", [
    hex(Buffer.from({ length: 2, 0: 5, 1: 6 })), hex(Buffer.from({ type: "Buffer", data: [1, 2] })),
    hex(Buffer.from(new String("text"))), hex(Buffer.from({ valueOf: () => "v", [Symbol.toPrimitive]: () => "p" })),
  ]);
  await show("alloc", [hex(Buffer.alloc(3)), hex(Buffer.alloc(5, "ab")), hex(Buffer.alloc(4, 1)), hex(Buffer.alloc(4, "6162", "hex"))]);
  await show("allocUnsafe is zero", [
    Buffer.allocUnsafe(10_000).every((byte) => byte === 0), Buffer.allocUnsafeSlow(100).every((byte) => byte === 0),
    Buffer.allocUnsafe(8).length,
  ]);
  await show("constructor", [hex(new Buffer("ab")), hex(Buffer("ab")), new Buffer(3).length, SlowBuffer(4).length]);
  await show("kinds", [Buffer.alloc(1) instanceof Uint8Array, Buffer.isBuffer(Buffer.alloc(0)), Buffer.isBuffer(new Uint8Array(1))]);
  await show("isEncoding", ["utf8", "UTF-8", "ucs2", "hex", "base64url", "nope", 1, "binary"].map((name) => Buffer.isEncoding(name)));
  await show("byteLength", [Buffer.byteLength("é€"), Buffer.byteLength("abcd", "base64"), Buffer.byteLength("abc", "hex"), Buffer.byteLength(new ArrayBuffer(3))]);
  await show("concat", [hex(Buffer.concat([Buffer.from("a"), new Uint8Array([1]), Buffer.from("b")])), hex(Buffer.concat([Buffer.from("abc")], 2)), hex(Buffer.concat([Buffer.from("a")], 3)), Buffer.concat([]).length]);
  await show("of", hex(Buffer.of(1, 2, 3)));
  await show("constants", [kMaxLength > 0, constants.MAX_STRING_LENGTH, typeof Blob]);
}

async function encodings(show) {
  const bytes = Buffer.from([0, 1, 0x41, 0x7f, 0x80, 0xff, 0xe2, 0x82, 0xac]);
  for (const name of ["utf8", "latin1", "binary", "ascii", "hex", "base64", "base64url", "utf16le", "ucs2", "UTF-8"]) {
    await show(`to ${name}`, bytes.toString(name));
    await show(`from ${name}`, hex(Buffer.from("QUJDRA-_+/ zz", name)));
  }
  await show("bad utf-8", [Buffer.from([0xc3, 0x28, 0xf0, 0x9f, 0x98]).toString(), Buffer.from("\ud800a").toString("hex")]);
  await show("BOM stays", Buffer.from([0xef, 0xbb, 0xbf, 0x61]).toString().length);
  await show("parts", [bytes.toString("hex", 2), bytes.toString("hex", 2, 4), bytes.toString("hex", -5, 100), bytes.toString("hex", 5, 2)]);
  await show("hex", ["abc", "zz", "abzz", "0g", "AB"].map((text) => hex(Buffer.from(text, "hex"))));
  await show("base64", ["YQ", "YQ==", "YWI=", "Y Q = =", "_-8", "*YQ"].map((text) => hex(Buffer.from(text, "base64"))));
  await show("utf16", [Buffer.from("aé😀", "utf16le").toString("utf16le"), Buffer.from([0x61, 0, 0x62]).toString("utf16le")]);
  await show("write", () => {
    const target = Buffer.alloc(8);
    return [target.write("abc"), target.write("é€", 3), target.write("6162", 0, "hex"), target.write("zzzz", 6, 1), hex(target)];
  });
  await show("write cuts no letter", () => {
    const target = Buffer.alloc(4);
    return [target.write("ab€"), hex(target)];
  });
  await show("JSON", [JSON.stringify(Buffer.from("ab")), JSON.stringify({ b: Buffer.alloc(0) })]);
  await show("is", [isAscii(Buffer.from("a")), isAscii(Buffer.from("é")), isUtf8(Buffer.from("é")), isUtf8(Buffer.from([0xff]))]);
  await show("transcode", [hex(transcode(Buffer.from("€é"), "utf8", "latin1")), hex(transcode(Buffer.from("é"), "utf8", "utf16le")), hex(transcode(Buffer.from("e9", "hex"), "latin1", "utf8"))]);
  await show("text", [String(Buffer.from("ab")), `${Buffer.from("ab")}`, Buffer.from("ab") + "c", Buffer.from("ab").toLocaleString()]);
}

async function numbers(show) {
  const bytes = Buffer.from("0102030405060708fffefdfcfbfaf9f8", "hex");
  for (const name of ["UInt8", "Int8"]) await show(name, [bytes[`read${name}`](8), bytes[`read${name}`]()]);
  for (const name of ["UInt16", "Int16", "UInt32", "Int32", "BigInt64", "BigUInt64", "Float", "Double"]) {
    for (const order of ["LE", "BE"]) {
      await show(name + order, [bytes[`read${name}${order}`](1), bytes[`read${name}${order}`](8)]);
      await show(`write ${name}${order}`, () => {
        const target = Buffer.alloc(9);
        const end = target[`write${name}${order}`](name.startsWith("Big") ? 258n : 258, 1);
        return [end, hex(target)];
      });
    }
  }
  await show("variable", [bytes.readUIntLE(0, 3), bytes.readUIntBE(0, 6), bytes.readIntLE(8, 3), bytes.readIntBE(8, 6)]);
  await show("variable written", () => {
    const target = Buffer.alloc(12);
    return [target.writeUIntLE(0x123456, 0, 3), target.writeIntBE(-2, 3, 4), target.writeUIntBE(0x1234567890, 7, 5), hex(target)];
  });
  await show("aliases", [bytes.readUint8(0), bytes.readUint16LE(0), bytes.readBigUint64BE(0)]);
  await show("swap", [hex(Buffer.from("01020304", "hex").swap16()), hex(Buffer.from("01020304", "hex").swap32()), hex(Buffer.from("0102030405060708", "hex").swap64())]);
}

async function slices(show) {
  const bytes = Buffer.from("hello world, hello");
  await show("slice shares", () => {
    const copy = Buffer.from("abcdef"), part = copy.slice(1, 3);
    part[0] = 0x5a;
    return [copy.toString(), part.toString(), copy.subarray(-2).toString(), copy.slice(4, 2).length];
  });
  await show("indexOf", [bytes.indexOf("hello"), bytes.indexOf("hello", 1), bytes.indexOf("nope"), bytes.indexOf(Buffer.from("wor")), bytes.indexOf(111), bytes.indexOf("", 3), bytes.indexOf("6c6c", 0, "hex"), bytes.indexOf("hello", -5)]);
  await show("lastIndexOf", [bytes.lastIndexOf("hello"), bytes.lastIndexOf("hello", 5), bytes.lastIndexOf(111), bytes.lastIndexOf("x")]);
  await show("includes", [bytes.includes("world"), bytes.includes("x"), bytes.includes(104, 14)]);
  await show("utf16 search", Buffer.from("abcabc", "utf16le").indexOf("b", 4, "utf16le"));
  await show("compare", [Buffer.compare(Buffer.from("a"), Buffer.from("b")), bytes.compare(Buffer.from("hello")), bytes.compare(Buffer.from("hello"), 0, 5, 0, 5), Buffer.from("b").compare(new Uint8Array([0x61]))]);
  await show("equals", [Buffer.from("a").equals(Buffer.from("a")), Buffer.from("a").equals(new Uint8Array([0x62]))]);
  await show("fill", [hex(Buffer.alloc(5).fill("ab")), hex(Buffer.alloc(5).fill(1, 2)), hex(Buffer.alloc(5).fill("é", 1, 4)), hex(Buffer.alloc(4).fill("")), hex(Buffer.alloc(4).fill("zz", "hex".slice(0, 0) || "latin1"))]);
  await show("copy", () => {
    const target = Buffer.alloc(6);
    return [Buffer.from("abcdef").copy(target, 1, 2, 5), hex(target), Buffer.from("ab").copy(target, 5), hex(target), Buffer.from("ab").copy(target, 9)];
  });
  await show("iteration", [[...Buffer.from("ab").keys()], [...Buffer.from("ab").values()], [...Buffer.from("ab").entries()]]);
  await show("arrays", [Buffer.from([3, 1, 2]).sort().join(), Buffer.from([1, 2]).map((n) => n * 2).constructor.name, Buffer.from([1, 2]).filter((n) => n > 1).constructor.name]);
  await show("parent", [Buffer.alloc(2).parent instanceof ArrayBuffer, Buffer.alloc(3).offset]);
  await show("blob", async () => hex(await new Blob([Buffer.from("ab"), "c"]).arrayBuffer()));
  await show("response", async () => new Response(Buffer.from("abc").subarray(1)).text());
  await show("base64 globals", [buffer.atob("YWI="), buffer.btoa("ab")]);
}

async function errors(show) {
  const bytes = Buffer.alloc(4);
  await show("from number", code(() => Buffer.from(5)));
  await show("from nothing", code(() => Buffer.from()));
  await show("from null", code(() => Buffer.from(null)));
  await show("from encoding", code(() => Buffer.from("a", "nope")));
  await show("alloc negative", code(() => Buffer.alloc(-1)));
  await show("alloc text", code(() => Buffer.alloc("5")));
  await show("alloc fill", code(() => Buffer.alloc(2, "zz", "hex")));
  await show("read beyond", code(() => bytes.readUInt32LE(1)));
  await show("read fraction", code(() => bytes.readUInt8(1.5)));
  await show("read text", code(() => bytes.readUInt8("1")));
  await show("write big", code(() => bytes.writeUInt8(256)));
  await show("write big int", code(() => bytes.writeInt16LE(40000, 0)));
  await show("write bigint", code(() => Buffer.alloc(8).writeBigInt64LE(2n ** 64n)));
  await show("write length", code(() => bytes.writeUIntLE(1, 0, 7)));
  await show("swap", code(() => Buffer.alloc(3).swap16()));
  await show("concat", code(() => Buffer.concat("a")));
  await show("concat member", code(() => Buffer.concat([1])));
  await show("compare", code(() => Buffer.compare("a", Buffer.alloc(1))));
  await show("equals", code(() => bytes.equals("a")));
  await show("toString", code(() => bytes.toString("nope")));
  await show("indexOf", code(() => bytes.indexOf({})));
  await show("byteLength", code(() => Buffer.byteLength(5)));
  await show("write offset", code(() => bytes.write("a", 9)));
  await show("copy", code(() => bytes.copy("a")));
  await show("transcode", code(() => transcode(Buffer.from("a"), "utf8", "hex")));
}
