//! `[http]` of the configuration: bounds and timeouts of the listener.

use std::time::Duration;

use atoll_loader::limits::MIB;
use serde::Deserialize;

use super::{ConfigError, ensure};

/// Bounds and timeouts of the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// Connections open at once; further ones wait in the kernel's queue.
    pub connections_max: usize,
    /// Time to receive a whole request head, and longest idle time between requests.
    pub head_timeout: Duration,
    /// Longest silence within a request body, and longest stall of a client that does not read.
    pub body_timeout: Duration,
    /// Largest request body, in bytes.
    pub body_bytes_max: u64,
    /// How long running requests may take to finish once draining begins.
    pub drain_timeout: Duration,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawHttp {
    connections_max: usize,
    head_timeout_ms: u64,
    body_timeout_ms: u64,
    body_bytes_max: u64,
    drain_timeout_ms: u64,
}

impl Default for RawHttp {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            head_timeout_ms: 30_000,
            body_timeout_ms: 60_000,
            body_bytes_max: 100 * MIB as u64,
            drain_timeout_ms: 30_000,
        }
    }
}

impl RawHttp {
    pub(super) fn check(self) -> Result<HttpLimits, ConfigError> {
        ensure(self.connections_max > 0, "http.connections_max", "must be at least 1")?;
        ensure(self.connections_max <= 1_000_000, "http.connections_max", "must be at most 1000000")?;
        ensure(self.head_timeout_ms > 0, "http.head_timeout_ms", "must be at least 1")?;
        ensure(self.body_timeout_ms > 0, "http.body_timeout_ms", "must be at least 1")?;
        Ok(HttpLimits {
            connections_max: self.connections_max,
            head_timeout: Duration::from_millis(self.head_timeout_ms),
            body_timeout: Duration::from_millis(self.body_timeout_ms),
            body_bytes_max: self.body_bytes_max,
            drain_timeout: Duration::from_millis(self.drain_timeout_ms),
        })
    }
}
