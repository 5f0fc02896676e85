//! `atoll deploy`, `execute` and `workers`: commands, flags and help.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Remote;
use super::local::Guest;

/// `atoll deploy`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  atoll deploy examples/hello
  atoll deploy worker.js --name greeter --url https://atoll.example.com

Packages from npm are not bundled: bundle first, for example with esbuild, and deploy the result.")]
pub(crate) struct Deploy {
    /// The worker's folder or file
    #[arg(value_name = "DIR|FILE", default_value = ".")]
    pub(crate) path: PathBuf,
    /// Name of the worker, if not the one in its configuration
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// A custom host name at which it answers; may be repeated
    #[arg(long = "host", value_name = "HOST")]
    pub(crate) hosts: Vec<String>,
    /// Build and check only; nothing is sent
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print the server's answer as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// The server.
    #[command(flatten)]
    pub(crate) remote: Remote,
}

/// `atoll execute`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  atoll execute snippet.js --input '{\"a\": 1}'
  echo 'return input * 2' | atoll execute - --input 21 --json")]
pub(crate) struct Execute {
    /// The snippet's file, or `-` for standard input
    #[arg(value_name = "FILE")]
    pub(crate) path: PathBuf,
    /// `input`, as JSON
    #[arg(long, value_name = "JSON")]
    pub(crate) input: Option<String>,
    /// Settings of the guest.
    #[command(flatten)]
    pub(crate) guest: Guest,
    /// The code is TypeScript (for standard input; files say it by their names)
    #[arg(long)]
    pub(crate) ts: bool,
    /// Print the server's whole answer as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// The server.
    #[command(flatten)]
    pub(crate) remote: Remote,
}

/// `atoll workers`.
#[derive(Debug, Subcommand)]
pub(crate) enum Workers {
    /// List them
    List {
        /// Print the server's answer as JSON
        #[arg(long)]
        json: bool,
        /// The server.
        #[command(flatten)]
        remote: Remote,
    },
    /// Show one, as JSON
    Get {
        /// Its name
        name: String,
        /// The server.
        #[command(flatten)]
        remote: Remote,
    },
    /// Show one's versions, as JSON
    Versions {
        /// Its name
        name: String,
        /// The server.
        #[command(flatten)]
        remote: Remote,
    },
    /// Delete one
    Delete {
        /// Its name
        name: String,
        /// The server.
        #[command(flatten)]
        remote: Remote,
    },
    /// Serve an earlier version again
    #[command(disable_version_flag = true)]
    Rollback {
        /// Its name
        name: String,
        /// The version; the one before the current one if not given
        #[arg(long)]
        version: Option<u64>,
        /// The server.
        #[command(flatten)]
        remote: Remote,
    },
    /// Show its console lines
    Logs {
        /// Its name
        name: String,
        /// Keep showing new ones
        #[arg(short, long)]
        follow: bool,
        /// One JSON object per line
        #[arg(long)]
        json: bool,
        /// The server.
        #[command(flatten)]
        remote: Remote,
    },
}
