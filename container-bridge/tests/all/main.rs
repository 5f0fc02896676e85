//! Real sandboxes, real processes. Every test ends with a look for leftovers: processes, cgroups, state files, disks.

mod commands;
mod files;
mod hostile;
mod lives;
mod network;
mod support;
