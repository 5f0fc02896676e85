//! Where workers run: V8 isolates, one thread each.
//!
//! The only crate with V8, and the only one with `unsafe`. It knows nothing of HTTP, storage or secrets: it consumes
//! [`atoll_bindings::link::HostEndpoint`], the host's end of the seam, and everything a guest can reach is a
//! message on it.

mod blobs;
mod body;
mod call;
mod clock;
mod helpers;
mod image;
mod isolate;
mod memory;
mod message;
mod modules;
mod ops;
mod platform;
mod pool;
mod priority;
mod rejections;
mod resident;
mod rpc;
mod service;
mod socket;
mod stack;
mod state;
mod stream;
mod thread;
mod trace;
mod turns;
mod values;
mod watchdog;
mod worker;

pub mod confine;
pub mod embed;
pub mod host;

pub use priority::answer_soon;
pub use resident::default_bytes_max;
