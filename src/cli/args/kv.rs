//! `atoll kv`: commands, flags and help.

use clap::{Args, Subcommand};

use super::{Plain, Remote};

/// `atoll kv`.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
A namespace is what a worker has as `env.NAME` by `kv_namespaces` of its wrangler file.

  atoll kv put sessions ann ada --ttl 3600
  atoll kv put assets logo.png --path logo.png --metadata '{\"type\":\"image/png\"}'
  atoll kv list sessions --prefix a
  atoll kv get assets logo.png > logo.png")]
pub(crate) enum Kv {
    /// List the tenant's namespaces, with what they hold
    Namespaces(Plain),
    /// List the keys of a namespace
    List(List),
    /// Print the value of a key
    Get(OfKey),
    /// Write a value: an argument, a file, or standard input
    Put(Put),
    /// Delete a key
    Delete(OfKey),
    /// Delete a namespace with all its keys
    Drop {
        /// The namespace
        namespace: String,
        /// The server.
        #[command(flatten)]
        remote: Remote,
    },
}

/// One key.
#[derive(Debug, Args)]
pub(crate) struct OfKey {
    /// The namespace
    pub(crate) namespace: String,
    /// The key
    pub(crate) key: String,
    /// The server.
    #[command(flatten)]
    pub(crate) remote: Remote,
}

/// `atoll kv list`.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// The namespace
    pub(crate) namespace: String,
    /// Only keys that begin so
    #[arg(long, default_value = "")]
    pub(crate) prefix: String,
    /// Print a line of JSON for each key, with expiry and metadata
    #[arg(long)]
    pub(crate) json: bool,
    /// The server.
    #[command(flatten)]
    pub(crate) remote: Remote,
}

/// `atoll kv put`.
#[derive(Debug, Args)]
pub(crate) struct Put {
    /// The namespace; it is made if it is not there
    pub(crate) namespace: String,
    /// The key
    pub(crate) key: String,
    /// The value; without it and without --path, standard input
    #[arg(conflicts_with = "path")]
    pub(crate) value: Option<String>,
    /// Read the value from this file
    #[arg(long, value_name = "FILE")]
    pub(crate) path: Option<String>,
    /// Seconds after which it expires, at least 60
    #[arg(long, value_name = "SECONDS")]
    pub(crate) ttl: Option<u64>,
    /// JSON that is kept with it, at most 1,024 bytes
    #[arg(long, value_name = "JSON")]
    pub(crate) metadata: Option<String>,
    /// The server.
    #[command(flatten)]
    pub(crate) remote: Remote,
}
