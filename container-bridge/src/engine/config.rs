//! Which engine, and how it is to make containers.

use std::path::PathBuf;

use crate::error::{Context, Result};

/// First user id of sandboxes, unless configured: above those that systems give to people and services.
pub const UID_BASE_DEFAULT: u32 = 1_000_000;
/// How many user ids there are for sandboxes, unless configured.
pub const UIDS_DEFAULT: u32 = 16_384;

/// Which engine it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Docker.
    Docker,
    /// Podman's service, which speaks the same API.
    Podman,
}

/// What the containers' files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Image {
    /// The host's `/usr`, `/bin`, `/lib`, read-only, over an image with nothing in it, which this backend makes.
    Host,
    /// An image that the engine has. Nothing is ever pulled.
    Named(String),
}

/// With what the engine runs the containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// What the engine uses by default.
    Default,
    /// `runsc` (gVisor) if the engine has it and a real sandbox works with it, else the default.
    Probe,
    /// This one.
    Named(String),
}

/// How to make containers.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Which engine answers.
    pub kind: Kind,
    /// Its Unix socket.
    pub socket: PathBuf,
    /// The executable that calls [`init::main`](crate::init::main) when started with `args`: usually this program.
    /// The engine must see it under the same path.
    pub program: PathBuf,
    /// Arguments that make it do so.
    pub args: Vec<String>,
    /// Directory for the lock file; made if missing.
    pub state_dir: PathBuf,
    /// What the containers' files are.
    pub image: Image,
    /// With what the engine runs them.
    pub runtime: Runtime,
    /// First user id of sandboxes.
    pub uid_base: u32,
    /// How many there are. A sandbox gets one by chance, so that what the kernel counts per user is seldom shared.
    pub uids: u32,
}

impl EngineConfig {
    /// The running program itself as the init, the host's files, and the engine's default runtime.
    ///
    /// # Errors
    /// If the program cannot find its own path.
    pub fn own_program(
        kind: Kind,
        socket: impl Into<PathBuf>,
        subcommand: &str,
        state_dir: impl Into<PathBuf>,
    ) -> Result<Self> {
        Ok(Self {
            kind,
            socket: socket.into(),
            program: std::env::current_exe().context("find the own program")?,
            args: vec![subcommand.to_owned()],
            state_dir: state_dir.into(),
            image: Image::Host,
            runtime: Runtime::Default,
            uid_base: UID_BASE_DEFAULT,
            uids: UIDS_DEFAULT,
        })
    }
}
