//! Every bound Atoll knows, with its unit in its name, and the relations between them.
//!
//! A bound that a caller may lower is a field of [`Limits`]; the rest are constants.

use serde::{Deserialize, Serialize};

/// Bytes in a kibibyte.
pub const KIB: usize = 1024;
/// Bytes in a mebibyte.
pub const MIB: usize = 1024 * KIB;

/// Largest total size of a bundle's module bodies, in bytes (Cloudflare's bound for dynamic workers).
pub const CODE_BYTES_MAX: usize = 64 * MIB;
/// Largest serialized `env` of a dynamic worker, in bytes (Cloudflare's bound).
pub const ENV_BYTES_MAX: usize = MIB;
/// Most modules in one bundle.
pub const MODULES_MAX: usize = 2_000;
/// Longest module name, in bytes.
pub const MODULE_NAME_BYTES_MAX: usize = 512;
/// Most compatibility flags of one worker.
pub const COMPATIBILITY_FLAGS_MAX: usize = 100;
/// Deepest nesting of a JSON document from outside.
pub const JSON_DEPTH_MAX: usize = 128;

/// Largest frame on the socket between gateway and isolate host, in bytes.
pub const FRAME_BYTES_MAX: usize = CODE_BYTES_MAX + 8 * MIB;
/// Bytes of a streamed body in flight in one direction before the receiver must grant more.
pub const BODY_CREDIT_BYTES: usize = 256 * KIB;
/// Largest single chunk of a streamed body on the seam, in bytes.
pub const BODY_CHUNK_BYTES_MAX: usize = 64 * KIB;
/// Largest body that travels inside its head message instead of as a stream, in bytes.
pub const BODY_INLINE_BYTES_MAX: usize = 64 * KIB;
/// Most header fields of one request or response.
pub const HEADERS_MAX: usize = 128;
/// Largest total size of one message's header names and values, in bytes.
pub const HEADER_BYTES_MAX: usize = 64 * KIB;
/// Longest URL, in bytes.
pub const URL_BYTES_MAX: usize = 16 * KIB;
/// Longest single log line kept, in bytes; the rest is cut and marked.
pub const LOG_LINE_BYTES_MAX: usize = 8 * KIB;
/// Most live timers in one isolate.
pub const TIMERS_MAX: usize = 10_000;
/// Largest message of a WebSocket, in bytes, after decompression (Cloudflare's bound).
pub const SOCKET_MESSAGE_BYTES_MAX: usize = 32 * MIB;
/// How long a WebSocket may carry no message in either direction, in milliseconds; then it is closed with 1001.
pub const SOCKET_IDLE_MS_MAX: u64 = 10 * 60 * 1_000;
/// How long a WebSocket may stay open at all, in milliseconds; then it is closed with 1001.
pub const SOCKET_LIFE_MS_MAX: u64 = 24 * 60 * 60 * 1_000;
/// Deepest chain of dynamic workers loading dynamic workers.
pub const LOADER_DEPTH_MAX: usize = 8;
/// Deepest chain of deployed workers calling deployed workers, the first one not counted (that of Workers).
pub const SERVICE_DEPTH_MAX: u32 = 16;
/// Most calls of deployed workers on deployed workers under one event, whoever of them makes them: with depth alone their number
/// would grow with its power.
pub const SERVICE_CALLS_MAX: u32 = 1_000;

const _: () = assert!(BODY_CHUNK_BYTES_MAX <= BODY_CREDIT_BYTES);
const _: () = assert!(BODY_INLINE_BYTES_MAX <= BODY_CREDIT_BYTES);
const _: () = assert!(CODE_BYTES_MAX < FRAME_BYTES_MAX);
const _: () = assert!(ENV_BYTES_MAX < FRAME_BYTES_MAX);
const _: () = assert!(SOCKET_IDLE_MS_MAX < SOCKET_LIFE_MS_MAX);

/// What one invocation (and the isolate it runs in) may use. A caller may only lower a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// CPU time of the isolate's thread for this invocation, in milliseconds.
    pub cpu_ms: u32,
    /// Wall time from admission to the end of `waitUntil` work, in milliseconds.
    pub wall_ms: u32,
    /// V8 heap of the isolate, in MiB.
    pub heap_mib: u32,
    /// Array buffers and WebAssembly memories of the isolate, in MiB.
    pub external_mib: u32,
    /// Calls on channels (fetch and bindings), including those of workers it loads.
    pub subrequests: u32,
    /// Console output kept, in bytes.
    pub log_bytes: u32,
    /// Response body, in bytes.
    pub response_bytes: u64,
    /// Dynamic workers that this invocation may load, in all.
    pub loads: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cpu_ms: 1_000,
            wall_ms: 30_000,
            heap_mib: 128,
            external_mib: 128,
            subrequests: 50,
            log_bytes: 256 * 1024,
            response_bytes: 100 * 1024 * 1024,
            loads: 1_000,
        }
    }
}

impl Limits {
    /// The limits an operator may grant at most; [`Limits::lower_of`] caps with it.
    pub const CEILING: Self = Self {
        cpu_ms: 300_000,
        wall_ms: 900_000,
        heap_mib: 1_024,
        external_mib: 1_024,
        subrequests: 10_000,
        log_bytes: 16 * 1024 * 1024,
        response_bytes: 4 * 1024 * 1024 * 1024,
        loads: 1_000_000,
    };

    /// Field by field the lower of both: a child never gets more than its parent.
    #[must_use]
    pub fn lower_of(self, other: Self) -> Self {
        Self {
            cpu_ms: self.cpu_ms.min(other.cpu_ms),
            wall_ms: self.wall_ms.min(other.wall_ms),
            heap_mib: self.heap_mib.min(other.heap_mib),
            external_mib: self.external_mib.min(other.external_mib),
            subrequests: self.subrequests.min(other.subrequests),
            log_bytes: self.log_bytes.min(other.log_bytes),
            response_bytes: self.response_bytes.min(other.response_bytes),
            loads: self.loads.min(other.loads),
        }
    }
}
