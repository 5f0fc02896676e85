//! Which runtime a step gets: an isolate, or a container sandbox.
//!
//! ```text
//!  code, declared needs ──▶ Step ──decide──▶ Decision { runtime, rule, reasons, retry, cost }
//!        operator's rules ────┘  ▲                │
//!                                │                ▼ isolate
//!        Learned ────────────────┘◀── missing ── error of the guest ──▶ the sandbox, once, if that is safe
//! ```
//! Everything here but the [`runner`] trait is pure: no clock, no I/O, the same answer for the same question.
//! An isolate starts in milliseconds and holds a few MiB; a sandbox has files, processes and any binary. So a
//! step goes to an isolate unless something says that it cannot run there. What says so is a named rule, and
//! every decision carries its reasons.
//!
//! Routing is about where code can run, never about what it may do: a step that is sent to the wrong runtime
//! fails there, with the rights it would have had anyway.

pub mod cost;
pub mod decide;
pub mod learned;
pub mod lower;
pub mod missing;
pub mod modules;
pub mod overrides;
pub mod runner;
pub mod step;

pub use cost::Cost;
pub use decide::{Decision, Runtime, decide};
pub use learned::Learned;
pub use missing::Missing;
pub use overrides::RouteRule;
pub use step::{Language, Need, Network, Step};
