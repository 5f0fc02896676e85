//! What the gateway keeps for steps: the runner of sandboxes, if there is one, and what isolates turned out to lack.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::route::runner::StepRunner;
use crate::route::step::CodeHash;
use crate::route::{Learned, Missing};

/// The runner and the memory.
#[derive(Debug)]
pub struct Steps {
    runner: Option<Arc<dyn StepRunner>>,
    learned: Mutex<Learned>,
    started: Instant,
}

impl Steps {
    /// With a runner, or without.
    #[must_use]
    pub fn new(runner: Option<Arc<dyn StepRunner>>) -> Self {
        Self { runner, learned: Mutex::default(), started: Instant::now() }
    }

    /// What runs steps in sandboxes.
    #[must_use]
    pub fn runner(&self) -> Option<&Arc<dyn StepRunner>> {
        self.runner.as_ref()
    }

    /// What an isolate lacked for this code before.
    pub fn lookup(&self, tenant: &str, hash: CodeHash) -> Option<Missing> {
        let now_ms = self.now_ms();
        self.learned.lock().unwrap_or_else(PoisonError::into_inner).lookup(tenant, hash, now_ms)
    }

    /// Remembers what an isolate lacked for this code.
    pub fn record(&self, tenant: &str, hash: CodeHash, missing: Missing) {
        let now_ms = self.now_ms();
        self.learned.lock().unwrap_or_else(PoisonError::into_inner).record(tenant, hash, missing, now_ms);
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
