//! Real sandboxes, real processes. Every test ends with a look for leftovers: processes, cgroups, state files, disks.
#![allow(clippy::unwrap_used, reason = "a test's helper fails the test")]

mod cluster;
mod commands;
mod containers;
mod engines;
mod files;
mod hostile;
mod kubernetes;
mod lives;
mod network;
mod ordinary_user;
mod other_kernel;
mod pods;
mod roots;
mod support;
