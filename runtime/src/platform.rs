//! V8's process-wide settings. Frozen once the first isolate exists.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use deno_core::JsRuntime;

/// Stack that V8 lets JavaScript use, in KiB. The thread's own stack leaves [`NATIVE_STACK_BYTES`] below it
/// for op frames, so that deep recursion is a `RangeError` and never a fault.
const JS_STACK_KIB: usize = 864;
/// Native stack beyond what JavaScript may use, in bytes.
const NATIVE_STACK_BYTES: usize = 1_200 * 1024;
/// Stack size of an isolate's thread, in bytes. Only touched pages become resident.
pub(crate) const THREAD_STACK_BYTES: usize = JS_STACK_KIB * 1024 + NATIVE_STACK_BYTES;

/// Pages of 64 KiB that one WebAssembly memory may have: 128 MiB, the default external limit.
const WASM_PAGES_MAX: usize = 2_048;
/// Largest WebAssembly module, in bytes.
const WASM_MODULE_BYTES_MAX: usize = 16 * 1024 * 1024;

static JITLESS: AtomicBool = AtomicBool::new(false);

/// Whether this process has no compilers, and so no WebAssembly.
pub(crate) fn is_jitless() -> bool {
    JITLESS.load(Relaxed)
}

/// Initialises V8 once per process. Must first run on a thread that outlives every isolate (memory protection
/// keys are inherited from it).
pub(crate) fn init(jitless: bool) {
    static INIT: Once = Once::new();
    INIT.call_once(|| {
        let mut flags = vec![
            format!("--stack-size={JS_STACK_KIB}"),
            // Garbage collection on the isolate's own thread, so that its CPU time is the tenant's.
            "--single-threaded-gc".to_owned(),
            format!("--wasm-max-mem-pages={WASM_PAGES_MAX}"),
            format!("--wasm-max-module-size={WASM_MODULE_BYTES_MAX}"),
            // With it, a context gets `SharedArrayBuffer` only if its embedder asks, and nobody does: no shared memory, no
            // clock made of a counting thread.
            "--enable-sharedarraybuffer-per-context".to_owned(),
            "--no-wasm-async-compilation".to_owned(),
            "--no-harmony-shadow-realm".to_owned(),
            // The optimising compiler drops the stack check of some loops whose body calls only builtins, and with it
            // the only place where `terminate_execution` is seen: an allocating `for (;;)` then ran until memory was
            // gone (tests/serve.rs, `a_growing_heap_is_stopped`).
            "--no-turboshaft-loop-unrolling".to_owned(),
        ];
        if jitless {
            // No page that is ever writable and executable, and none of the compilers' mistakes; WebAssembly needs them.
            flags.push("--jitless".to_owned());
        }
        JITLESS.store(jitless, Relaxed);
        v8::V8::set_flags_from_string(&flags.join(" "));
        // By itself V8 opens `/dev/urandom` for every isolate, reads a whole buffer, and falls back to the clock where
        // there is no such file, as in a confined process.
        v8::V8::set_entropy_source(|seed: &mut [u8]| getrandom::fill(seed).is_ok());

        JsRuntime::init_platform(None);
    });
}
