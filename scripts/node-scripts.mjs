// Makes `runtime/node/deno/`: the scripts behind `node:` modules, taken from the crate `deno_node`, which fits the
// `deno_core` that Atoll links. The crate itself is no dependency: it would bring a file system, sockets and processes.
//
//   cargo info deno_node@VERSION        # downloads it
//   node scripts/node-scripts.mjs ~/.cargo/registry/src/*/deno_node-VERSION
//
// Types are stripped (esbuild, as tests/packages pins it), modules become functions of `__bootstrap` like the other
// scripts, and the few edits below are made; each must find its text, so that a new version cannot lose one.
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";

const VERSION = "0.198.0";
const root = join(import.meta.dirname, "..");
const out = join(root, "runtime/node/deno");
const { transformSync } = createRequire(join(root, "tests/packages/"))("esbuild");

const FILES = `
_events.mjs _util/_util_callbackify.js _utils.ts assert.ts diagnostics_channel.js querystring.js
string_decoder.ts punycode.ts url.ts util.ts
internal/assert.mjs internal/assert/assertion_error.js internal/assert/calltracker.js internal/assert/myers_diff.js
internal/assert/utils.ts internal/buffer.mjs internal/crypto/_keys.ts internal/crypto/constants.ts
internal/error_codes.ts internal/errors.ts internal/events/abort_listener.mjs internal/hide_stack_frames.ts
internal/idna.ts internal/mime.ts internal/normalize_encoding.ts internal/primordials.mjs internal/querystring.ts
internal/streams/add-abort-signal.js internal/streams/compose.js internal/streams/destroy.js
internal/streams/duplex.js internal/streams/duplexify.js internal/streams/duplexpair.js
internal/streams/end-of-stream.js internal/streams/from.js internal/streams/lazy_transform.js
internal/streams/legacy.js
internal/streams/operators.js internal/streams/passthrough.js internal/streams/pipeline.js
internal/streams/readable.js internal/streams/state.js internal/streams/transform.js internal/streams/utils.js
internal/streams/writable.js internal/url.ts internal/util.mjs internal/util/colorize.mjs
internal/util/comparisons.ts internal/util/debuglog.ts internal/util/inspect.mjs
internal/util/parse_args/parse_args.js internal/util/parse_args/utils.js internal/util/types.ts
internal/validators.mjs internal/webstreams/adapters.js internal_binding/_node.ts internal_binding/_utils.ts
internal_binding/buffer.ts internal_binding/constants.ts internal_binding/string_decoder.ts
internal_binding/symbols.ts internal_binding/types.ts internal_binding/util.ts internal_binding/uv.ts
path/_constants.ts path/_posix.ts path/_util.ts path/_win32.ts path/common.ts path/mod.ts path/separator.ts
stream.ts stream/consumers.js stream/promises.js stream/web.js
`.trim().split(/\s+/);

/** Where ours must differ: file, what is there, what comes instead. */
const PROCESS = 'core.loadExtScript("node:process").default';
const EDITS = [
  // A guest may replace or delete the global `process`.
  ["internal/util.mjs", "globalThis.process", PROCESS],
  ["internal/util/inspect.mjs", "globalThis.process", PROCESS],
  ["internal/util/colorize.mjs", "globalThis.process", `__bootstrap.${PROCESS}`],
  ["path/_posix.ts", "globalThis.process", PROCESS],
  ["path/_win32.ts", "globalThis.process", PROCESS],
  ["path/_win32.ts", "const { Deno } = globalThis as any;", `const Deno = ${PROCESS};`],
  ["path/_win32.ts", "typeof Deno?.env?.get !== \"function\" || ", ""],
  ["assert.ts", "process.emitWarning(", `${PROCESS}.emitWarning(`],
  ["_events.mjs", "process.emitWarning(", `${PROCESS}.emitWarning(`],
  // There is no `Deno`, and none of its errors.
  ["internal/errors.ts", "ObjectPrototypeIsPrototypeOf(Deno.errors.NotCapable.prototype, err)", "false"],
  ["internal/errors.ts", "ObjectPrototypeIsPrototypeOf(Deno.errors.BadResource.prototype, e)", "false"],
  ["internal/assert/assertion_error.js", "Deno.consoleSize().columns", "80"],
  ["internal/util/debuglog.ts", "Deno.pid", `${PROCESS}.pid`],
  // Workers do not warn about `new Buffer()`.
  ["internal/buffer.mjs", "process.emitWarning(bufferWarning, \"DeprecationWarning\", \"DEP0005\");", ""],
  ["internal/buffer.mjs", "process.emitWarning(", `${PROCESS}.emitWarning(`],
  // The error has a code in Node.js.
  ...["16-bits", "32-bits", "64-bits"].map((size) =>
    ["internal/buffer.mjs", `new RangeError("Buffer size must be a multiple of ${size}")`,
      `new (core.loadExtScript("ext:deno_node/internal/errors.ts").ERR_INVALID_BUFFER_SIZE)("${size}")`]),
  // Cycles that only hoisted imports bear.
  ["stream/promises.js", 'import * as _mod2 from "node:stream";', ""],
  ["stream/promises.js", "\n_mod2;\n", "\n"],
  ["internal/streams/duplexpair.js", 'import { Duplex } from "node:stream";', 'import Duplex from "node:_stream_duplex";'],
];

const crate = process.argv[2];
if (crate === undefined || !existsSync(join(crate, "polyfills")) || !crate.replace(/\/$/, "").endsWith(VERSION)) {
  throw new Error(`usage: node scripts/node-scripts.mjs FOLDER_OF_deno_node-${VERSION}`);
}
rmSync(out, { recursive: true, force: true });
for (const file of FILES) {
  const source = readFileSync(join(crate, "polyfills", file), "utf8");
  const notice = source.match(/^\/\/ (?:Copyright|.*MIT license).*$/gm).join("\n");
  const { code } = transformSync(asFunction(edited(file, source)), {
    loader: file.endsWith(".ts") ? "ts" : "js", format: undefined, target: "esnext", charset: "ascii",
  });
  const target = join(out, file);
  mkdirSync(dirname(target), { recursive: true });
  writeFileSync(target, `${notice}\n${code}`);
}

function edited(file, source) {
  for (const [where, from, to] of EDITS) {
    if (where !== file) continue;
    if (!source.includes(from)) throw new Error(`${file} has no ${JSON.stringify(from)}`);
    source = source.replaceAll(from, () => to);
  }
  return source;
}

/** A module as one function expression that returns its exports; what is one already stays. */
function asFunction(source) {
  if (!/^(import|export) /m.test(source)) return source;
  const exports = [];
  let body = source
    .replace(/^import \{ core, primordials \} from "ext:core\/mod.js";$/m, "const { core, primordials } = __bootstrap;")
    .replace(/^import \{ core \} from "ext:core\/mod.js";$/m, "const { core } = __bootstrap;")
    .replace(/^import \{ primordials \} from "ext:core\/mod.js";$/m, "const { core, primordials } = __bootstrap;")
    .replace(/^import \* as (\w+) from "([^"]+)";$/gm, (_, name, from) => `const ${name} = core.loadExtScript("${from}");`)
    .replace(/^import (\w+) from "([^"]+)";$/gm, (_, name, from) => `const { default: ${name} } = core.loadExtScript("${from}");`)
    .replace(/^import \{([^}]+)\} from "([^"]+)";$/gm, (_, names, from) =>
      `const {${names.replaceAll(" as ", ": ")}} = core.loadExtScript("${from}");`)
    .replace(/^export default function (\w+)/gm, (_, name) => (exports.push(`default: ${name}`), `function ${name}`))
    .replace(/^export default (\w+);$/gm, (_, name) => (exports.push(`default: ${name}`), ""))
    .replace(/^export default \{/gm, () => (exports.push("default: defaultExport"), "const defaultExport = {"))
    .replace(/^export (?:const|function) (\w+)/gm, (line, name) => (exports.push(name), line.slice("export ".length)))
    .replace(/^export \{([^}]+)\};$/gm, (_, names) => {
      for (const name of names.split(",")) {
        const [local, exported] = name.trim().split(" as ");
        if (local !== "") exports.push(exported === undefined ? local : `${exported}: ${local}`);
      }
      return "";
    });
  // Imports are hoisted, so `core` must come first.
  const first = body.match(/^const \{ core(?:, primordials)? \} = __bootstrap;$/m)[0];
  body = body.replace(first, "");
  if (/^(import|export)\b/m.test(body)) throw new Error(`not understood: ${body.match(/^(import|export)\b.*$/m)[0]}`);
  return `(function () {\n${first}\n${body}\nreturn {\n${[...new Set(exports)].map((name) => `  ${name},\n`).join("")}};\n})();\n`;
}
