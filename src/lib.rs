//! The gateway: listener, router, admission, dispatch and control API. It never contains V8.
#![forbid(unsafe_code)]

pub mod access;
pub mod admission;
mod api;
pub mod audit;
pub mod bindings;
pub mod config;
pub mod cost;
pub mod deploy;
pub mod dispatch;
pub mod hosts;
pub mod kv;
pub mod observe;
pub mod problem;
pub mod route;
pub mod router;
pub mod sandboxes;
pub mod server;
pub mod store;
pub mod telemetry;
