//! What the tests and the benches share: descriptions of workers, the two servers, and a plain HTTP client.
//!
//! ```text
//!   Worker ──deploy──▶ Atoll    real `atoll serve` process, temporary data folder, free port
//!          ──config──▶ Workerd  the pinned oracle
//!   client ──HTTP/1.1 over TCP──▶ both
//! ```
#![allow(dead_code, reason = "shared by several test modules and by the bench, each using a part")]

pub(crate) mod atoll;
pub(crate) mod canary;
pub(crate) mod client;
pub(crate) mod memory;
pub(crate) mod worker;
pub(crate) mod workerd;

/// Who makes a test's sandboxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The server itself.
    Native,
    /// A Docker daemon of the tests' own.
    Docker,
    /// The same of Podman.
    Podman,
    /// The tests' own API server, whose pods are native sandboxes.
    Kubernetes,
}
