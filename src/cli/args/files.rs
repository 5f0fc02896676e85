//! `atoll sandbox`: flags and help of what moves files.

use std::path::PathBuf;

use clap::Args;

use super::{Plain, Remote};

/// A file of a user.
#[derive(Debug, Args)]
pub(crate) struct OfPath {
    /// The user's id
    pub(crate) user: String,
    /// Relative to /workspace, or absolute
    pub(crate) path: String,
    #[command(flatten)]
    /// Output and server.
    pub(crate) plain: Plain,
}

/// `atoll sandbox cp`.
#[derive(Debug, Args)]
#[command(after_help = "\
One side is USER:PATH, the other a file here, or `-` for standard input or output.

Examples:
  atoll sandbox cp report.csv ann:in/report.csv
  atoll sandbox cp ann:out.png .")]
pub(crate) struct Cp {
    /// From
    pub(crate) from: String,
    /// To
    pub(crate) to: String,
    /// The server.
    #[command(flatten)]
    pub(crate) remote: Remote,
}

/// `atoll sandbox ls`.
#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// The user's id
    pub(crate) user: String,
    /// Relative to /workspace, or absolute
    #[arg(default_value = ".")]
    pub(crate) path: String,
    #[command(flatten)]
    /// Output and server.
    pub(crate) plain: Plain,
}

/// `atoll sandbox rm`.
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// With everything below
    #[arg(short, long)]
    pub(crate) recursive: bool,
    #[command(flatten)]
    /// What, and where.
    pub(crate) file: OfPath,
}

/// `atoll sandbox snapshot`.
#[derive(Debug, Args)]
pub(crate) struct Snapshot {
    /// The user's id
    pub(crate) user: String,
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// The server.
    #[command(flatten)]
    pub(crate) remote: Remote,
}

/// `atoll sandbox restore`.
#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The user's id
    pub(crate) user: String,
    /// The tar, or `-` for standard input
    #[arg(default_value = "-")]
    pub(crate) file: String,
    /// The server.
    #[command(flatten)]
    pub(crate) remote: Remote,
}
