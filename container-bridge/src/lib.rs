//! Sandboxes for steps that need a filesystem or a binary.
#![deny(unsafe_code)]

pub mod backend;
mod cgroup;
pub mod error;
mod flow;
mod frame;
pub mod init;
pub mod lifecycle;
pub mod limits;
mod link;
pub mod manager;
pub mod native;
pub mod protocol;
pub mod sandbox;
