//! What a runtime costs before the step itself costs anything: estimates, for people and for the log.

use serde::Serialize;

use super::decide::Runtime;
use super::step::Step;

/// Start of an isolate, in milliseconds, rounded up from the floor in SPECIFICATION.md.
const ISOLATE_START_MS: u32 = 3;
/// Memory of an idle isolate, in MiB.
const ISOLATE_MEMORY_MIB: u32 = 4;
/// Start of a sandbox, in milliseconds: a namespace, an overlay and a process.
const SANDBOX_START_MS: u32 = 100;
/// Memory of an idle sandbox, in MiB.
const SANDBOX_MEMORY_MIB: u32 = 16;

/// What a step is expected to cost on top of its own work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cost {
    /// Until its first line runs, in milliseconds.
    pub start_ms: u32,
    /// Memory of the runtime without the step, in MiB.
    pub memory_mib: u32,
    /// The most that it can hold for the time that it can run, in MiB seconds, if it says both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib_seconds_max: Option<u64>,
}

impl Cost {
    /// The estimate for a step in a runtime.
    #[must_use]
    pub fn of(step: &Step, runtime: Runtime) -> Self {
        let (start_ms, memory_mib) = match runtime {
            Runtime::Isolate => (ISOLATE_START_MS, ISOLATE_MEMORY_MIB),
            Runtime::Sandbox => (SANDBOX_START_MS, SANDBOX_MEMORY_MIB),
        };
        let memory_mib_seconds_max = step.memory_mib.zip(step.wall_ms).map(|(memory, wall)| {
            let held = u64::from(memory).saturating_add(memory_mib.into());
            held.saturating_mul(wall.into()).div_ceil(1_000)
        });
        Self { start_ms, memory_mib, memory_mib_seconds_max }
    }
}
