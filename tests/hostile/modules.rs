//! Rows that need more than one function body: several modules, WebAssembly, refused deployments.

use serde_json::{Value, json};

/// A module with one export, `run`, that never returns.
const WASM_LOOP: &str = "AGFzbQEAAAABBAFgAAADAgEABwcBA3J1bgAACgkBBwADQAwACws=";
/// A module with one export, `run`, that calls itself.
const WASM_RECURSION: &str = "AGFzbQEAAAABBAFgAAADAgEABwcBA3J1bgAACgYBBAAQAAs=";
/// A module whose export `grow` grows a memory that is not exported, by as many pages of 64 KiB as it is told.
const WASM_GROW: &str = "AGFzbQEAAAABBgFgAX8BfwMCAQAFAwEAAQcIAQRncm93AAAKCAEGACAAQAAL";
/// One byte more than the bound on a bundle's size, spread over this many modules.
const LARGE_MODULES: usize = 66;
/// A mebibyte.
const MIB: usize = 1024 * 1024;

/// A bundle run in code mode.
pub(super) struct Bundle {
    /// Row of the table.
    pub(super) id: &'static str,
    /// What it does.
    pub(super) name: &'static str,
    /// The request's `modules`; the main one is `main.js`.
    pub(super) modules: Value,
    /// How it may end.
    pub(super) allowed: super::rows::Codes,
}

/// A deployment that must be refused before an isolate exists.
pub(super) struct Refused {
    /// Row of the table.
    pub(super) id: &'static str,
    /// What it does.
    pub(super) name: &'static str,
    /// The control API's request body, as text: some rows are not even JSON values.
    pub(super) body: String,
}

fn answering(imports: &str, body: &str) -> String {
    format!("{imports}\nexport default async function(input, env, ctx) {{ {body} }}")
}

pub(super) fn bundles() -> Vec<Bundle> {
    let bundle = |id, name, allowed, modules| Bundle { id, name, modules, allowed };
    vec![
        bundle(
            "15",
            "endless loop in wasm",
            &["limit_cpu", "limit_wall"],
            json!({
                "main.js": answering("import loop from './loop.wasm';", "new WebAssembly.Instance(loop).exports.run()"),
                "loop.wasm": { "wasm": WASM_LOOP },
            }),
        ),
        bundle(
            "24e",
            "wasm memories that no JavaScript can reach",
            &["limit_external"],
            json!({
                "main.js": answering(
                    "import grow from './grow.wasm';",
                    "const keep = []; for (;;) { const it = new WebAssembly.Instance(grow); keep.push(it); it.exports.grow(200) }",
                ),
                "grow.wasm": { "wasm": WASM_GROW },
            }),
        ),
        bundle(
            "24f",
            "the same in many short turns",
            &["limit_external"],
            json!({
                "main.js": answering(
                    "import grow from './grow.wasm';",
                    "const keep = []; for (;;) { const it = new WebAssembly.Instance(grow); keep.push(it); it.exports.grow(20); \
                     await new Promise((done) => setTimeout(done)) }",
                ),
                "grow.wasm": { "wasm": WASM_GROW },
            }),
        ),
        bundle(
            "24g",
            "wasm memories that are let go: not an attack",
            &["done"],
            json!({
                "main.js": answering(
                    "import grow from './grow.wasm';",
                    "for (let i = 0; i < 60; i++) { new WebAssembly.Instance(grow).exports.grow(500); \
                     if (i % 3 === 2) await new Promise((done) => setTimeout(done)) } return 'survived'",
                ),
                "grow.wasm": { "wasm": WASM_GROW },
            }),
        ),
        bundle(
            "35",
            "recursion in wasm",
            &["done"],
            json!({
                "main.js": answering(
                    "import deep from './deep.wasm';",
                    "try { new WebAssembly.Instance(deep).exports.run() } catch (e) { return e instanceof RangeError ? 'survived' : e.name }",
                ),
                "deep.wasm": { "wasm": WASM_RECURSION },
            }),
        ),
        bundle(
            "16",
            "wasm that is not wasm",
            &["refused", "guest_error"],
            json!({
                "main.js": answering("import x from './x.wasm';", "return 'survived'"),
                "x.wasm": { "wasm": "bm90IHdhc20gYXQgYWxs" },
            }),
        ),
        bundle(
            "47",
            "modules that wait for each other",
            &["hung", "guest_error", "limit_wall"],
            json!({
                "main.js": answering("import './a.js';", "return 'ran'"),
                "a.js": "await import('./b.js');",
                "b.js": "await import('./a.js');",
            }),
        ),
        bundle(
            "47b",
            "a main module that never finishes",
            &["hung", "guest_error", "limit_wall"],
            json!({ "main.js": format!("await new Promise(() => {{}});{}", answering("", "return 'ran'")) }),
        ),
        bundle(
            "47c",
            "an answer that never comes",
            &["hung", "limit_wall"],
            json!({ "main.js": answering("", "await new Promise(() => {})") }),
        ),
        bundle(
            "55",
            "endless loop while evaluating",
            &["limit_cpu", "limit_wall"],
            json!({ "main.js": format!("for(;;);{}", answering("", "return 'ran'")) }),
        ),
        bundle(
            "55b",
            "endless loop while a dependency evaluates",
            &["limit_cpu", "limit_wall"],
            json!({ "main.js": answering("import './x.js';", "return 'ran'"), "x.js": "await null; for(;;);" }),
        ),
        bundle(
            "57",
            "memory runs out while modules are built",
            &[
                "limit_heap",
                "limit_cpu",
                "limit_external",
                "guest_error",
                "host_fault",
                "refused",
                "limit_wall",
            ],
            json!({
                "main.js": answering("import './x.js';", "return 'ran'"),
                "x.js": "globalThis.keep = []; for (;;) keep.push(new Array(10000).fill(1.5));",
            }),
        ),
        bundle(
            "17c",
            "parser bomb in the source",
            &["refused", "guest_error"],
            json!({ "main.js": format!("export default {}1{}", "(".repeat(200_000), ")".repeat(200_000)) }),
        ),
        bundle(
            "17d",
            "parser bomb of arrays",
            &["refused", "guest_error"],
            json!({ "main.js": format!("export default {}", "[".repeat(500_000)) }),
        ),
        bundle(
            "52b",
            "source-phase import",
            &["refused", "guest_error"],
            json!({ "main.js": answering("import source x from './x.js';", "return 'ran'"), "x.js": "export default 1" }),
        ),
        bundle(
            "50b",
            "static import of an internal module",
            &["refused", "guest_error"],
            json!({ "main.js": answering("import * as core from 'ext:core/ops';", "return 'ran'") }),
        ),
    ]
}

pub(super) fn refused() -> Vec<Refused> {
    let mut rows = vec![];
    let main = "export default { fetch: () => new Response('ran') }";
    let code = |modules: Value| json!({ "compatibilityDate": "2026-01-01", "mainModule": "main.js", "modules": modules });
    let many: serde_json::Map<String, Value> = (0..10_000)
        .map(|n| (format!("m{n}.js"), json!("export default 1")))
        .chain([("main.js".to_owned(), json!(main))])
        .collect();
    rows.push(Refused {
        id: "48",
        name: "ten thousand modules",
        body: code(Value::Object(many)).to_string(),
    });
    let large: serde_json::Map<String, Value> = (0..LARGE_MODULES)
        .map(|n| (format!("t{n}.txt"), json!({ "text": "x".repeat(MIB) })))
        .chain([("main.js".to_owned(), json!(main))])
        .collect();
    rows.push(Refused { id: "48b", name: "66 MiB of code", body: code(Value::Object(large)).to_string() });
    for (name, module) in [
        ("a parent folder", "../x.js"),
        ("a hidden parent folder", "a/../../x.js"),
        ("an absolute path", "/etc/x.js"),
        ("percent dots", "%2e%2e/x.js"),
        ("a percent slash", "a%2fx.js"),
        ("NUL", "a\0.js"),
        ("a backslash", "a\\..\\x.js"),
        ("right-to-left override", "a\u{202e}sj.x.js"),
        ("a control character", "a\n.js"),
        ("__proto__", "__proto__"),
        ("an empty name", ""),
        ("a name of 600 bytes", LONG_NAME),
    ] {
        rows.push(Refused {
            id: "49",
            name,
            body: code(json!({ "main.js": main, module: { "js": "export default 1" } })).to_string(),
        });
    }
    let twins =
        code(json!({ "main.js": main, "Twin.js": "export default 1", "twin.js": "export default 2" }));
    rows.push(Refused { id: "49", name: "case twins", body: twins.to_string() });
    for key in ["codeCache", "code_cache", "cachedData", "snapshot", "bytecode"] {
        let body = code(json!({ "main.js": { "js": main, key: "AAAA" } }));
        rows.push(Refused { id: "54", name: "code cache in a module", body: body.to_string() });
        let mut body = code(json!({ "main.js": main }));
        body[key] = json!("AAAA");
        rows.push(Refused { id: "54", name: "code cache in a bundle", body: body.to_string() });
    }
    rows.push(Refused {
        id: "48c",
        name: "JSON nested a million deep",
        body: format!(r#"{{"modules":{}1{}}}"#, "[".repeat(1_000_000), "]".repeat(1_000_000)),
    });
    rows
}

/// Longer than any module name may be.
const LONG_NAME: &str = {
    const BYTES: [u8; 600] = [b'x'; 600];
    match std::str::from_utf8(&BYTES) {
        Ok(text) => text,
        Err(_) => panic!("ASCII"),
    }
};
