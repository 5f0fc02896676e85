//! Embeds the scripts of the Deno extension crates.
//!
//! Those crates declare their JavaScript as files that are read while a snapshot is made. Atoll evaluates them
//! lazily, in each isolate that needs them, so the binary must carry their text. Cargo knows where the crates
//! are; the same versions that are linked are the ones embedded.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Scripts by crate: only what the runtime loads.
const SCRIPTS: [(&str, &[&str]); 3] = [
    ("deno_webidl", &["00_webidl.js"]),
    (
        "deno_web",
        &[
            "00_infra.js",
            "00_url.js",
            "01_console.js",
            "01_dom_exception.js",
            "01_mimesniff.js",
            "01_urlpattern.js",
            "02_event.js",
            "02_structured_clone.js",
            "02_timers.js",
            "03_abort_signal.js",
            "05_base64.js",
            "06_streams.js",
            "08_text_encoding.js",
            "09_file.js",
            "13_message_port.js",
            "14_compression.js",
            "15_performance.js",
        ],
    ),
    ("deno_crypto", &["00_crypto.js"]),
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../Cargo.lock");
    println!("cargo::rerun-if-changed=js");
    println!("cargo::rerun-if-changed=node");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let metadata = metadata();
    let mut table = String::from("pub(crate) static SCRIPTS: &[(&str, &str)] = &[\n");
    for (package, files) in SCRIPTS {
        let folder = folder_of(&metadata, package);
        for file in files {
            let source = std::fs::read_to_string(folder.join(file))
                .unwrap_or_else(|error| panic!("{package} has no {file}: {error}"));
            let source = if *file == "14_compression.js" { decompress_in_steps(&source) } else { source };
            embed(&mut table, &out, &format!("ext:{package}/{file}"), &source);
        }
    }
    for file in [
        "cloudflare_workers.js",
        "eventsource.js",
        "formdata.js",
        "kv.js",
        "loader.js",
        "reasons.js",
        "rpc.js",
        "sockets.js",
        "tail.js",
        "websocket.js",
        "workers.js",
    ] {
        let source = std::fs::read_to_string(Path::new("js").join(file)).expect("our own script");
        embed(&mut table, &out, &format!("ext:atoll/{file}"), &source);
    }
    for (root, prefix) in [("node/deno", "ext:deno_node"), ("js/node", "ext:atoll/node")] {
        let mut files = Vec::new();
        collect(Path::new(root), &mut files);
        files.sort();
        for file in files {
            let name = file.strip_prefix(root).expect("it is below").to_str().expect("a name in ASCII");
            let source = std::fs::read_to_string(&file).expect("a script");
            embed(&mut table, &out, &format!("{prefix}/{name}"), &source);
        }
    }
    table.push_str("];\n");
    std::fs::write(out.join("scripts.rs"), table).expect("OUT_DIR is writable");
}

/// Every file below a folder.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder of scripts") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() { collect(&path, files) } else { files.push(path) }
    }
}

/// Lets `DecompressionStream` decompress a chunk in small steps, between which limits are looked at: one call on a large
/// chunk could make a thousand times its size in one go.
fn decompress_in_steps(source: &str) -> String {
    const WHOLE: &str = "        const output = op_compression_write(
          rid,
          chunk,
        );
        maybeEnqueue(controller, output);
";
    // A byte of deflate makes at most 1032; one of brotli, millions.
    const STEPS: &str = "        chunk = ArrayBufferIsView(chunk)
          ? new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.byteLength)
          : new Uint8Array(chunk);
        const step = format === \"brotli\" ? 64 : 8192;
        const length = TypedArrayPrototypeGetByteLength(chunk);
        for (let at = 0; at < length; at += step) {
          const output = op_compression_write(
            rid,
            TypedArrayPrototypeSubarray(chunk, at, at + step),
          );
          maybeEnqueue(controller, output);
        }
";
    let at = source.rfind(WHOLE).expect("deno_web decompresses as it did");
    assert!(source[..at].contains("class DecompressionStream"), "deno_web decompresses as it did");
    let steps = [&source[..at], STEPS, &source[at + WHOLE.len()..]].concat();
    steps.replacen(
        "  TypedArrayPrototypeGetByteLength,\n",
        "  TypedArrayPrototypeGetByteLength,\n  ArrayBufferIsView,\n  TypedArrayPrototypeSubarray,\n  Uint8Array,\n",
        1,
    )
}

/// Adds one script, wrapped as the body of a function of `__bootstrap` (see `deno_core::wrap_lazy_ext_script`).
/// Non-ASCII text is escaped so that V8 can use the embedded bytes as they are.
fn embed(table: &mut String, out: &Path, specifier: &str, source: &str) {
    let start = source.find("(function").expect("a script is one function expression");
    let body = source[start..].trim_end().trim_end_matches(';');
    let ascii = escape_non_ascii(body);
    let name = format!("{}.txt", specifier.replace([':', '/'], "_"));
    std::fs::write(out.join(&name), format!("\"use strict\"; return ({ascii});"))
        .expect("OUT_DIR is writable");
    writeln!(table, "    ({specifier:?}, include_str!(concat!(env!(\"OUT_DIR\"), \"/{name}\"))),")
        .expect("a string");
}

/// `é` becomes `\u00e9`: right inside string and regular expression literals, and harmless in comments, which is
/// where these scripts have such letters.
fn escape_non_ascii(text: &str) -> String {
    let mut ascii = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_ascii() {
            ascii.push(letter);
        } else {
            let mut units = [0; 2];
            for unit in letter.encode_utf16(&mut units) {
                write!(ascii, "\\u{unit:04x}").expect("a string");
            }
        }
    }
    ascii
}

/// What cargo knows of the packages. It wants the files of every one for this target, dev-dependencies too, and a fresh
/// machine may not have those yet: without the network first, for those who build without one.
fn metadata() -> String {
    let cargo = std::env::var_os("CARGO").expect("cargo sets CARGO");
    let target = std::env::var("TARGET").expect("cargo sets TARGET");
    let ask = |network: &[&str]| {
        Command::new(&cargo)
            .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", &target])
            .args(network)
            .output()
            .expect("cargo metadata runs")
    };
    let mut output = ask(&["--offline"]);
    if !output.status.success() {
        output = ask(&[]);
    }
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo metadata prints UTF-8")
}

/// The folder of a package: `"manifest_path":"…/NAME-VERSION/Cargo.toml"` in cargo's metadata.
fn folder_of(metadata: &str, package: &str) -> PathBuf {
    const KEY: &str = "\"manifest_path\":\"";
    metadata
        .match_indices(KEY)
        .filter_map(|(at, _)| metadata[at + KEY.len()..].split('"').next())
        .map(PathBuf::from)
        .filter_map(|manifest| manifest.parent().map(Path::to_path_buf))
        .find(|folder| {
            let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.strip_prefix(package)
                .and_then(|rest| rest.strip_prefix('-'))
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        })
        .unwrap_or_else(|| panic!("cargo metadata does not name {package}"))
}
