//! The startup image: one snapshot per process with the prelude evaluated, and the lazy scripts beside it.
//!
//! What is in the snapshot is deserialised into every isolate, so it holds little (`js/prelude.js`,
//! `js/fetch.js`); the rest of the web platform is text that an isolate compiles when it first needs it, with a
//! code cache that the first isolate to do so leaves for all others. Caches and snapshots are made by the host
//! alone: one from a guest could hold any machine code.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::{Arc, OnceLock};

use deno_core::{Extension, ExtensionFileSource, JsRuntimeForSnapshot, OpDecl, RuntimeOptions};
use deno_web::{BlobStore, BlobStoreTrait};

use crate::host::HostShared;
use crate::memory::External;
use crate::ops;
use crate::state::IsolateState;
use crate::watchdog::Slot;

include!(concat!(env!("OUT_DIR"), "/scripts.rs"));

/// One lazy script.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) specifier: &'static str,
    pub(crate) source: &'static str,
    pub(crate) cache: OnceLock<Vec<u8>>,
}

/// What every isolate of the process starts from.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) snapshot: &'static [u8],
    scripts: HashMap<&'static str, Script>,
}

impl Image {
    /// The process's image, made at first use. `platform::init` must have run.
    pub(crate) fn get() -> &'static Self {
        static IMAGE: OnceLock<Image> = OnceLock::new();
        IMAGE.get_or_init(|| Self {
            snapshot: make_snapshot(),
            scripts: SCRIPTS
                .iter()
                .map(|&(specifier, source)| (specifier, Script { specifier, source, cache: OnceLock::new() }))
                .collect(),
        })
    }

    pub(crate) fn script(&'static self, specifier: &str) -> Option<&'static Script> {
        self.scripts.get(specifier)
    }
}

const PRELUDE: [ExtensionFileSource; 2] = [
    ExtensionFileSource::new("ext:atoll/prelude.js", deno_core::ascii_str_include!("../js/prelude.js")),
    ExtensionFileSource::new("ext:atoll/fetch.js", deno_core::ascii_str_include!("../js/fetch.js")),
];

/// Removes every way from the global object to the host's internals. What Rust needs stays reachable through
/// `__atoll`, which each isolate takes and deletes before guest code runs.
const SCRUB: &str = r#"
(() => {
  const { core } = Deno;
  const keep = ["__eventLoopTick", "__processTimers", "__drainNextTickAndMacrotasks", "__handleRejections",
    "buildCustomError", "errorConstructors", "runImmediateCallbacks", "setUpAsyncStub", "__setTickInfo",
    "__setImmediateInfo", "__setTimerInfo"];
  const rest = { ops: {} };
  for (const name of keep) rest[name] = core[name];
  core.ops.op_set_captured_bootstrap(null);
  delete globalThis.__bootstrap;
  globalThis.Deno = { core: rest };
  delete globalThis.SharedArrayBuffer;
})();
"#;

/// Every identifier in the scripts that an isolate may run.
fn mentioned_names() -> Vec<&'static str> {
    let sources = SCRIPTS
        .iter()
        .map(|(_, source)| *source)
        .chain([include_str!("../js/prelude.js"), include_str!("../js/fetch.js")]);
    let names: HashSet<&str> = sources
        .flat_map(|source| {
            source.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_' && letter != '$')
        })
        .filter(|name| !name.is_empty())
        .collect();
    names.into_iter().collect()
}

/// Serves two requests that go nowhere, so that the code of the usual path is compiled and lies in the snapshot
/// instead of being compiled in every isolate. It must not load a lazy script: that would stay in the snapshot too.
const WARM_UP: &str = r#"
(() => {
  const { makeEnv, start, onFetch, onExecute, wake, forget, fireTimer } = __atoll;
  const env = makeEnv(-1, ["A", "text", "a", "B", "json", "{}"]);
  const answer = (request) => {
    request.headers.get("accept");
    request.method;
    request.url;
    return new Response("hello", { status: 200, headers: { "x-a": "b" } });
  };
  const headers = ["host", "localhost", "accept", "*/*"];
  start({ default: { fetch: answer } }, env);
  onFetch(1, null, null, "GET", "http://localhost/", headers, 0, null, -1);
  start({ default: { fetch: async (request) => { const r = answer(request); return r; } } }, env);
  onFetch(2, null, null, "POST", "http://localhost/", headers, 1, new Uint8Array(1), -1);
  onFetch(3, null, null, "GET", "http://localhost/", headers, 0, null, -1);
  start({ default: async (input) => ({ input }) }, env);
  onExecute(4, "{}");
  Response.json({ a: 1 });
  console.log("warm");
  wake(9);
  for (let id = 1; id < 5; id++) forget(id);
  fireTimer();
  start(null, null);
})();
"#;

fn make_snapshot() -> &'static [u8] {
    // A JsRuntime wants a tokio context, even one that only makes a snapshot.
    let tokio = crate::thread::tokio_runtime();
    let _entered = tokio.enter();
    let mut extensions = extensions(BlobStore::default_arc());
    if let Some(atoll) = extensions.last_mut() {
        atoll.js_files = Cow::Owned(PRELUDE.to_vec());
    }
    let mut runtime = JsRuntimeForSnapshot::new(RuntimeOptions { extensions, ..RuntimeOptions::default() });
    let state = IsolateState::new(
        HostShared::detached(),
        Slot::for_this_thread(),
        External::new(usize::MAX),
        crate::thread::dead_inbox(),
    );
    runtime.op_state().borrow_mut().put(Rc::new(RefCell::new(state)));
    let trim = format!("__atoll.trim({:?})", mentioned_names());
    for (name, source) in [
        ("ext:atoll/warm_up.js", WARM_UP.to_owned()),
        ("ext:atoll/trim.js", trim),
        ("ext:atoll/scrub.js", SCRUB.to_owned()),
    ] {
        #[expect(clippy::expect_used, reason = "fixed text, run once at start: a failure is a broken build")]
        runtime.execute_script(name, source).expect("our own scripts run");
    }
    Box::leak(runtime.snapshot())
}

/// Extensions in the order the snapshot and every isolate agree on. The order, and each extension's ops, must be
/// the same in both.
pub(crate) fn extensions(blobs: Arc<dyn BlobStoreTrait>) -> Vec<Extension> {
    let mut extensions = vec![
        deno_webidl::deno_webidl::init(),
        deno_web::deno_web::init(blobs, None, false, deno_web::InMemoryBroadcastChannel::default()),
        deno_crypto::deno_crypto::init(None),
        ops::extension(),
    ];
    for extension in &mut extensions {
        // Their scripts are ours to load.
        extension.lazy_loaded_js_files = Cow::Borrowed(&[]);
        extension.lazy_loaded_esm_files = Cow::Borrowed(&[]);
        if extension.name == "deno_web" {
            // Geometry, CSS and images: no worker has them, and every isolate would pay for them.
            extension.objects = Cow::Owned(Vec::new());
            let kept: Vec<OpDecl> =
                extension.ops.iter().filter(|op| is_wanted(op.name)).map(own_clock).collect();
            extension.ops = kept.into();
        }
    }
    extensions
}

/// Deno's clocks run; ours stand still within a turn.
fn own_clock(op: &OpDecl) -> OpDecl {
    match op.name {
        "op_now" => crate::clock::op_now(),
        "op_time_origin" => crate::clock::op_time_origin(),
        _ => *op,
    }
}

fn is_wanted(op: &str) -> bool {
    const UNWANTED: [&str; 6] = [
        "op_geometry_",
        "op_lock_manager_",
        "op_broadcast_",
        "op_readable_stream_resource_",
        "op_console_parse_css",
        "op_console_css",
    ];
    !UNWANTED.iter().any(|prefix| op.starts_with(prefix))
}

/// Built-in ops that no script of ours calls and that would let a guest harm the process if it ever reached them.
pub(crate) fn disable_dangerous(op: OpDecl) -> OpDecl {
    const DANGEROUS: [&str; 6] = [
        "op_panic",
        "op_print",
        "op_write_sync",
        "op_read_sync",
        "op_abort_wasm_streaming",
        "op_import_sync",
    ];
    if DANGEROUS.contains(&op.name) { op.disable() } else { op }
}
