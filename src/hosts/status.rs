//! What an operator sees of the isolate hosts, and how far a rolling restart is.

use std::sync::atomic::Ordering;
use std::time::Instant;

use serde::Serialize;

use super::slots::{Host, Place};
use super::{Hosts, lock};

/// All isolate hosts at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HostsStatus {
    /// Counts rolling restarts since the start.
    pub generation: u64,
    /// Whether a host of an older generation still has a place.
    pub rolling: bool,
    /// Hosts that lost their place in a restart and end what they run.
    pub draining: usize,
    /// Those that have a place.
    pub hosts: Vec<HostStatus>,
    /// Who is under a penalty.
    pub penalties: Vec<PenaltyStatus>,
}

/// One isolate host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HostStatus {
    /// Its number; never used twice by one server.
    pub id: u64,
    /// Its process.
    pub pid: u32,
    /// Its host class; empty for that of tenants that name none.
    pub class: String,
    /// Where it stands.
    pub place: Place,
    /// Which restart it was started after.
    pub generation: u64,
    /// Since it was started, in milliseconds.
    pub age_ms: u64,
    /// Invocations inside.
    pub in_flight: usize,
    /// Isolates with code, as it says itself.
    pub isolates_live: u32,
    /// Pristine isolates, the same.
    pub isolates_pooled: u32,
    /// Resident memory, the same.
    pub resident_bytes: u64,
}

/// A tenant under a penalty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PenaltyStatus {
    /// Who.
    pub tenant: String,
    /// `quarantined` or `suspended`.
    pub penalty: &'static str,
    /// For how long it is suspended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
}

impl Hosts {
    /// What there is now.
    #[must_use]
    pub fn status(&self) -> HostsStatus {
        let mut status =
            HostsStatus { draining: self.inner.draining.load(Ordering::SeqCst), ..HostsStatus::default() };
        for pool in &self.inner.pools {
            let slots = lock(&pool.slots);
            status.generation = status.generation.max(slots.generation().0);
            status.rolling |= slots.has_old();
            status.hosts.extend(slots.places().map(|(place, host)| one(&pool.class, place, host)));
        }
        let penalties = lock(&self.inner.ledger).penalties(Instant::now());
        let told = penalties.into_iter().map(|(tenant, penalty)| PenaltyStatus {
            tenant: tenant.to_string(),
            penalty: penalty.name(),
            seconds: penalty.seconds(),
        });
        status.penalties = told.collect();
        status
    }
}

fn one(class: &str, place: Place, host: &Host) -> HostStatus {
    let beat = host.link.heartbeat();
    HostStatus {
        id: host.id.0,
        pid: host.pid,
        class: class.to_owned(),
        place,
        generation: host.generation.0,
        age_ms: u64::try_from(host.born.elapsed().as_millis()).unwrap_or(u64::MAX),
        in_flight: host.link.in_flight(),
        isolates_live: beat.isolates_live,
        isolates_pooled: beat.isolates_pooled,
        resident_bytes: beat.resident_bytes,
    }
}
