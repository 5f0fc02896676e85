//! How isolate hosts are supervised: which classes there are, and the bounds.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use super::penalty::PenaltyPolicy;
use super::process::HostCommand;

/// Hosts that are alike: what is run, how many, how large.
#[derive(Clone, Debug)]
pub struct HostClass {
    /// Its name; empty for the class of those that name none.
    pub name: String,
    /// What is run.
    pub command: HostCommand,
    /// Active hosts; one more stands by. Tenants are spread over them.
    pub active: usize,
    /// Resident memory at which a host ends itself, in bytes: its cgroup's bound is a little above.
    pub resident_bytes_max: Option<u64>,
}

/// How hosts are supervised.
#[derive(Clone, Debug)]
pub struct HostsConfig {
    /// The hosts of tenants that name no class.
    pub class: HostClass,
    /// Further classes.
    pub classes: Vec<HostClass>,
    /// Which of the further classes a tenant is of.
    pub tenants: HashMap<Arc<str>, String>,
    /// What tenants that end hosts are made to do.
    pub penalties: PenaltyPolicy,
    /// Longest time from spawn to the first heartbeat, in milliseconds.
    pub start_ms_max: u64,
    /// Longest silence between heartbeats, in milliseconds.
    pub silence_ms_max: u64,
    /// Longest time for what is inside a replaced host to finish, in milliseconds.
    pub drain_ms_max: u64,
    /// The same for a host that is replaced by a rolling restart, which nobody waits for.
    pub roll_drain_ms_max: u64,
    /// A host that cannot be confined completely is ended before it serves anybody.
    pub require_sandbox: bool,
}

impl HostsConfig {
    /// This executable, and the usual bounds.
    pub fn own() -> io::Result<Self> {
        Ok(Self {
            class: HostClass {
                name: String::new(),
                command: HostCommand::own()?,
                active: 1,
                resident_bytes_max: None,
            },
            classes: Vec::new(),
            tenants: HashMap::new(),
            penalties: PenaltyPolicy::default(),
            start_ms_max: 15_000,
            silence_ms_max: 3_000,
            drain_ms_max: 10_000,
            roll_drain_ms_max: 15 * 60_000,
            require_sandbox: false,
        })
    }
}
