//! The gateway's end of the seam, against real host ends: in one process and over real socket pairs.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(missing_docs, unreachable_pub, reason = "tests")]

mod calls;
mod egress;
mod link;
mod model;
mod outside;
mod policy;
mod proxy;
mod service;
mod support;
mod value;
mod violations;
mod wire;
