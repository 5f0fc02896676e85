// Modules that need a file system, sockets, processes or native code. Packages import them whether they use them or not,
// so they can be imported; each function says that it is not implemented when it is called.
(function () {
"use strict";
const { core, primordials } = __bootstrap;
const {
  ObjectDefineProperty, StringPrototypeSplit, StringPrototypeCharCodeAt, StringPrototypeTrim,
  ArrayPrototypeMap, SafeRegExp, RegExpPrototypeTest, StringPrototypeIndexOf,
} = primordials;
const errors = () => core.loadExtScript("ext:deno_node/internal/errors.ts");
const names = (text) => ArrayPrototypeMap(StringPrototypeSplit(text, " "), (name) => StringPrototypeTrim(name));

/** The error that all of them give; what routes steps reads it (`src/route/missing.rs`). */
const refusal = (module, name) => new (errors().ERR_METHOD_NOT_IMPLEMENTED)(`node:${module}.${name}`);

function absentFunction(module, name) {
  const made = {
    [name]() {
      throw refusal(module, name);
    },
  };
  return made[name];
}
function absentClass(module, name) {
  const made = {
    [name]: class {
      constructor() {
        throw refusal(module, name);
      }
    },
  };
  return made[name];
}
function fill(module, functions, classes = "") {
  const made = {};
  for (const name of names(functions)) made[name] = absentFunction(module, name);
  if (classes !== "") for (const name of names(classes)) made[name] = absentClass(module, name);
  return made;
}

/** Something that keeps its options and connects nothing: packages make one while they load. */
function agents(module, port, protocol) {
  return class Agent {
    constructor(options = { __proto__: null }) {
      this.options = { __proto__: null, ...options };
      this.defaultPort = port;
      this.protocol = protocol;
      this.keepAlive = options.keepAlive ?? false;
      this.maxSockets = options.maxSockets ?? Infinity;
      this.maxFreeSockets = options.maxFreeSockets ?? 256;
      this.requests = {};
      this.sockets = {};
      this.freeSockets = {};
    }
    createConnection() {
      throw refusal(module, "Agent.createConnection");
    }
    destroy() {}
  };
}

const METHODS = names("ACL BIND CHECKOUT CONNECT COPY DELETE GET HEAD LINK LOCK M-SEARCH MERGE MKACTIVITY MKCALENDAR " +
  "MKCOL MOVE NOTIFY OPTIONS PATCH POST PROPFIND PROPPATCH PURGE PUT QUERY REBIND REPORT SEARCH SOURCE SUBSCRIBE TRACE " +
  "UNBIND UNLINK UNLOCK UNSUBSCRIBE");
const STATUS_CODES = {
  100: "Continue", 101: "Switching Protocols", 102: "Processing", 103: "Early Hints", 200: "OK", 201: "Created",
  202: "Accepted", 203: "Non-Authoritative Information", 204: "No Content", 205: "Reset Content", 206: "Partial Content",
  207: "Multi-Status", 208: "Already Reported", 226: "IM Used", 300: "Multiple Choices", 301: "Moved Permanently",
  302: "Found", 303: "See Other", 304: "Not Modified", 305: "Use Proxy", 307: "Temporary Redirect",
  308: "Permanent Redirect", 400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden",
  404: "Not Found", 405: "Method Not Allowed", 406: "Not Acceptable", 407: "Proxy Authentication Required",
  408: "Request Timeout", 409: "Conflict", 410: "Gone", 411: "Length Required", 412: "Precondition Failed",
  413: "Payload Too Large", 414: "URI Too Long", 415: "Unsupported Media Type", 416: "Range Not Satisfiable",
  417: "Expectation Failed", 418: "I'm a Teapot", 421: "Misdirected Request", 422: "Unprocessable Entity", 423: "Locked",
  424: "Failed Dependency", 425: "Too Early", 426: "Upgrade Required", 428: "Precondition Required",
  429: "Too Many Requests", 431: "Request Header Fields Too Large", 451: "Unavailable For Legal Reasons",
  500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable",
  504: "Gateway Timeout", 505: "HTTP Version Not Supported", 506: "Variant Also Negotiates", 507: "Insufficient Storage",
  508: "Loop Detected", 509: "Bandwidth Limit Exceeded", 510: "Not Extended", 511: "Network Authentication Required",
};
function http() {
  const Agent = agents("http", 80, "http:");
  return {
    ...fill("http", "createServer get request validateHeaderName validateHeaderValue setMaxIdleHTTPParsers",
      "ClientRequest IncomingMessage OutgoingMessage Server ServerResponse"),
    Agent, globalAgent: new Agent(), METHODS, STATUS_CODES, maxHeaderSize: 16 * 1024,
  };
}
function https() {
  const Agent = agents("https", 443, "https:");
  return { ...fill("https", "createServer get request", "Server"), Agent, globalAgent: new Agent() };
}

const IPV4 = new SafeRegExp(/^(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?:\.|$)){4}(?<!\.)$/);
const isIPv4 = (text) => RegExpPrototypeTest(IPV4, `${text}`);
function isIPv6(text) {
  text = `${text}`;
  const zone = StringPrototypeIndexOf(text, "%");
  if (zone === 0 || StringPrototypeIndexOf(text, ":") < 0) return false;
  if (zone > 0) {
    if (zone === text.length - 1) return false;
    text = primordials.StringPrototypeSlice(text, 0, zone);
  }
  for (let i = 0; i < text.length; i++) {
    if (StringPrototypeIndexOf("0123456789abcdefABCDEF:.", text[i]) < 0 || StringPrototypeCharCodeAt(text, i) > 127) return false;
  }
  try {
    return core.ops.op_url_parse_href(`http://[${text}]/`) !== undefined;
  } catch {
    return false;
  }
}
const net = () => ({
  ...fill("net", "connect createConnection createServer", "BlockList Server Socket SocketAddress Stream"),
  isIP: (text) => isIPv4(text) ? 4 : isIPv6(text) ? 6 : 0,
  isIPv4, isIPv6,
  getDefaultAutoSelectFamily: () => true, setDefaultAutoSelectFamily() {},
  getDefaultAutoSelectFamilyAttemptTimeout: () => 250, setDefaultAutoSelectFamilyAttemptTimeout() {},
});

const LOOKUPS = "lookup lookupService resolve resolve4 resolve6 resolveAny resolveCaa resolveCname resolveMx " +
  "resolveNaptr resolveNs resolvePtr resolveSoa resolveSrv resolveTxt reverse getServers setServers " +
  "getDefaultResultOrder setDefaultResultOrder";
const dnsPromises = () => fill("dns/promises", LOOKUPS, "Resolver");

const FILES = "access appendFile chmod chown copyFile cp glob lchmod lchown link lstat lutimes mkdir mkdtemp open opendir " +
  "readFile readdir readlink realpath rename rm rmdir stat statfs symlink truncate unlink utimes writeFile";
const DESCRIPTORS = "close fchmod fchown fdatasync fstat fsync ftruncate futimes read readv write writev";
const FILE_CONSTANTS = {
  F_OK: 0, R_OK: 4, W_OK: 2, X_OK: 1, COPYFILE_EXCL: 1, COPYFILE_FICLONE: 2, COPYFILE_FICLONE_FORCE: 4, O_RDONLY: 0,
  O_WRONLY: 1, O_RDWR: 2, O_CREAT: 64, O_EXCL: 128, O_NOCTTY: 256, O_TRUNC: 512, O_APPEND: 1024, O_SYNC: 1052672,
  S_IFMT: 61440, S_IFREG: 32768, S_IFDIR: 16384, S_IFCHR: 8192, S_IFBLK: 24576, S_IFIFO: 4096, S_IFLNK: 40960,
  S_IFSOCK: 49152,
};
const filesPromised = () => ({ ...fill("fs/promises", `${FILES} watch`, "FileHandle"), constants: FILE_CONSTANTS });
function fs() {
  const sync = ArrayPrototypeMap(names(`${FILES} ${DESCRIPTORS} exists`), (name) => `${name}Sync`);
  const made = {
    ...fill("fs", `${FILES} ${DESCRIPTORS} exists createReadStream createWriteStream watch watchFile unwatchFile openAsBlob`,
      "Dir Dirent ReadStream Stats WriteStream"),
    constants: FILE_CONSTANTS,
  };
  for (const name of sync) made[name] = absentFunction("fs", name);
  // The one question that has an answer: there is no file.
  made.existsSync = function existsSync() {
    return false;
  };
  return part(made, "promises", filesPromised);
}
function part(object, name, make) {
  let made;
  ObjectDefineProperty(object, name, {
    __proto__: null, get: () => made ??= make(), enumerable: true, configurable: true,
  });
  return object;
}

const ABSENT = {
  __proto__: null,
  child_process: () => fill("child_process", "exec execFile execFileSync execSync fork spawn spawnSync", "ChildProcess"),
  dgram: () => fill("dgram", "createSocket", "Socket"),
  dns: () => part(fill("dns", LOOKUPS, "Resolver"), "promises", dnsPromises),
  "dns/promises": dnsPromises,
  fs,
  "fs/promises": filesPromised,
  http,
  http2: () => ({
    ...fill("http2", "connect createSecureServer createServer getDefaultSettings getPackedSettings getUnpackedSettings",
      "Http2ServerRequest Http2ServerResponse"),
    constants: {},
  }),
  https,
  net,
  readline: () => fill("readline", "clearLine clearScreenDown createInterface cursorTo emitKeypressEvents moveCursor", "Interface"),
  tls: () => ({
    ...fill("tls", "checkServerIdentity connect createSecureContext createServer getCiphers", "SecureContext Server TLSSocket"),
    rootCertificates: [], DEFAULT_MIN_VERSION: "TLSv1.2", DEFAULT_MAX_VERSION: "TLSv1.3", DEFAULT_ECDH_CURVE: "auto",
  }),
  v8: () => fill("v8", "deserialize getHeapSnapshot getHeapSpaceStatistics getHeapStatistics serialize setFlagsFromString " +
    "takeCoverage writeHeapSnapshot", "Deserializer Serializer"),
  vm: () => fill("vm", "compileFunction createContext isContext measureMemory runInContext runInNewContext runInThisContext",
    "Script"),
  worker_threads: () => ({
    ...fill("worker_threads", "getEnvironmentData markAsUntransferable moveMessagePortToContext receiveMessageOnPort " +
      "setEnvironmentData", "BroadcastChannel Worker"),
    isMainThread: true, parentPort: null, threadId: 0, workerData: null, resourceLimits: {},
  }),
  zlib: () => ({
    ...fill("zlib", "brotliCompress brotliCompressSync brotliDecompress brotliDecompressSync crc32 createBrotliCompress " +
      "createBrotliDecompress createDeflate createDeflateRaw createGunzip createGzip createInflate createInflateRaw " +
      "createUnzip deflate deflateRaw deflateRawSync deflateSync gunzip gunzipSync gzip gzipSync inflate inflateRaw " +
      "inflateRawSync inflateSync unzip unzipSync", "BrotliCompress BrotliDecompress Deflate DeflateRaw Gunzip Gzip Inflate " +
      "InflateRaw Unzip"),
    constants: {},
  }),
};
const made = { __proto__: null };
return { make: (name) => made[name] ??= ABSENT[name]() };
})();
