//! Sandboxes for steps that need a filesystem or a binary.
//!
//! ```text
//!  Manager ── one sandbox per tenant and user, bounds, meter, audit      manager.rs, lifecycle.rs (pure)
//!    │ acquire ─▶ Lease ─▶ Sandbox: exec, processes, files, ports, …     sandbox.rs
//!    │                        │ operations with credit                    link.rs, protocol.rs, frame.rs
//!  Backend ── launch, reap    │                                           backend.rs
//!    ├ Native: this program's own binary becomes the sandbox's init       native/, cgroup.rs
//!    ├ Engine: a container of Docker or Podman, its first process         engine/, kit.rs, owned.rs
//!    └ Kubernetes: a pod of a cluster, its first process                  kubernetes/, kit.rs, owned.rs
//!                             ▼
//!           (keeper ▸) first process ▸ agent, shims ▸ workload            init/
//! ```
//!
//! A program that hosts native sandboxes calls [`init::main`] first thing when it is started with the hidden argument
//! that its [`NativeConfig`](native::NativeConfig) names; `examples/exec.rs` shows it. Then:
//!
//! ```no_run
//! # use atoll_container_bridge::{backend::SandboxSpec, error::Result, manager::*, native::*, protocol::ExecSpec};
//! # async fn example() -> Result<()> {
//! let native = Native::new(NativeConfig::own_program("sandbox-init", "/var/lib/atoll/sandboxes")?)?;
//! let manager = Manager::new(std::sync::Arc::new(native), ManagerConfig::default(), |event| drop(event)).await?;
//! let owner = Owner { tenant: "acme".to_owned(), user: "ann".to_owned() };
//! let sandbox = manager.acquire(&owner, &SandboxSpec::default()).await?;
//! sandbox.write("hello.sh", b"echo hello").await?;
//! let done = sandbox.run(ExecSpec::shell("sh hello.sh")).await?;
//! assert_eq!(done.stdout, b"hello\n");
//! # Ok(())
//! # }
//! ```
//!
//! Errors are one type with stable codes and an HTTP status each ([`error`]); every bound is in [`limits`].
//!
//! What a sandbox is held by, in order: namespaces and unmapped users, cgroup limits, no capability, a deny list of
//! system calls, Landlock, an empty network. What it is not held by: a second kernel. Who needs one gives Docker the
//! runtime `runsc`, or pods a runtime class.
#![deny(unsafe_code)]

pub mod backend;
pub mod cgroup;
#[cfg(feature = "docker")]
pub mod engine;
pub mod error;
mod flow;
mod frame;
/// For the fuzz targets: what a sandbox's bytes are read as.
#[doc(hidden)]
pub mod fuzzing {
    /// Reads frames of the agent until the bytes end or one is none; how many there were.
    #[must_use]
    pub fn frames(mut bytes: &[u8]) -> usize {
        let mut frames = 0;
        while crate::frame::read_blocking::<crate::protocol::FromAgent>(&mut bytes).is_ok() {
            frames += 1;
        }
        frames
    }
}
pub mod init;
pub mod kit;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
pub mod lifecycle;
pub mod limits;
pub mod link;
pub mod manager;
pub mod native;
#[cfg(any(feature = "docker", feature = "kubernetes"))]
mod owned;
pub mod protocol;
pub mod sandbox;
