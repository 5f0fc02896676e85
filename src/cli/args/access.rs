//! `atoll secret`, `tokens` and `token`: commands, flags and help.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Remote;

/// `atoll secret`.
#[derive(Debug, Subcommand)]
pub(crate) enum Secret {
    /// Keep a value, read from standard input; it is in force at once
    #[command(after_help = "Example:\n  printf %s \"$GITHUB_TOKEN\" | atoll secret put github")]
    Put {
        /// Its name
        name: String,
        /// The server.
        #[command(flatten)]
        remote: Remote,
    },
    /// List names and versions; values are shown to nobody
    List {
        /// Print the server's answer as JSON
        #[arg(long)]
        json: bool,
        /// The server.
        #[command(flatten)]
        remote: Remote,
    },
    /// Forget one
    Delete {
        /// Its name
        name: String,
        /// The server.
        #[command(flatten)]
        remote: Remote,
    },
    /// Bring all secrets under the current master key, here, on the server's machine
    Reseal(Reseal),
}

/// `atoll secret reseal`.
#[derive(Debug, Args)]
#[command(after_help = "\
To change the master key:
  1. put the new key into [secrets] with a new key_id, and the old one into `previous`; restart
  2. atoll secret reseal --config atoll.toml
  3. take the old one out of `previous`")]
pub(crate) struct Reseal {
    /// The server's configuration
    #[arg(long, value_name = "FILE", env = "ATOLL_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Where the server keeps its data, if not where the configuration says
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

/// `atoll tokens`.
#[derive(Debug, Subcommand)]
pub(crate) enum Tokens {
    /// Make one; it is shown once
    #[command(
        after_help = "Example:\n  atoll tokens create ci --scope read --scope deploy --expires-in-seconds 86400"
    )]
    Create {
        /// What it is called in lists
        name: String,
        /// What it is for: read, deploy, execute, audit, secrets, tokens, proxy; may be repeated
        #[arg(long = "scope", value_name = "SCOPE", required = true)]
        scopes: Vec<String>,
        /// When it ends
        #[arg(long, value_name = "SECONDS")]
        expires_in_seconds: Option<u64>,
        /// Print the server's answer as JSON
        #[arg(long)]
        json: bool,
        /// The server.
        #[command(flatten)]
        remote: Remote,
    },
    /// List them
    List {
        /// Print the server's answer as JSON
        #[arg(long)]
        json: bool,
        /// The server.
        #[command(flatten)]
        remote: Remote,
    },
    /// Revoke one; it opens nothing any more
    Revoke {
        /// Its id
        id: String,
        /// The server.
        #[command(flatten)]
        remote: Remote,
    },
}

/// `atoll token`.
#[derive(Debug, Args)]
#[command(
    after_help = "The server's configuration holds the hash, never the token:\n  [tenants.acme]\n  tokens = [\"HASH\"]"
)]
pub(crate) struct Token {
    /// Print `{\"token\":…,\"sha256\":…}`
    #[arg(long)]
    pub(crate) json: bool,
}
