//! `atoll audit`: commands, flags and help.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Remote;

/// `atoll audit`.
#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Check that every record is what was written; exit code 1 names the first that is not
    #[command(after_help = "\
Needs no server: a copy of the folder is enough, also while the server writes. A checkpoint that was kept elsewhere shows
also whether records were cut off the end, or the whole log was computed anew.

Exit codes: 1 the log was changed, 4 a checkpoint cannot be trusted (forged, of an unknown key, about another log).

Examples:
  atoll audit verify /var/lib/atoll --json
  atoll audit verify copy/audit --checkpoint kept.txt --jwks https://example.com/.well-known/jwks.json")]
    Verify(AuditVerify),
    /// Print the newest checkpoint of the log: keep it where who can change the log cannot reach
    #[command(after_help = "Example:\n  atoll audit checkpoint >> kept.txt")]
    Checkpoint {
        /// The server.
        #[command(flatten)]
        remote: Remote,
    },
    /// Print your records, oldest first, one line of JSON each
    Query(AuditQuery),
}

/// `atoll audit verify`.
#[derive(Debug, Args)]
pub(crate) struct AuditVerify {
    /// The folder of the log, or the data folder that it is in
    #[arg(value_name = "DIR", default_value = "atoll-data/audit")]
    pub(crate) folder: PathBuf,
    /// A file of checkpoints that were kept elsewhere, or `-` for standard input
    #[arg(long = "checkpoint", value_name = "FILE")]
    pub(crate) checkpoints: Vec<PathBuf>,
    /// The keys that may sign checkpoints, as a JWK set: a file or a URL; by default those in the data folder
    #[arg(long, value_name = "FILE|URL")]
    pub(crate) jwks: Vec<String>,
    /// Print the report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `atoll audit query`.
#[derive(Debug, Args)]
pub(crate) struct AuditQuery {
    /// Not before this time, in milliseconds since 1970
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub(crate) since: u64,
    /// Only of this worker or execution
    #[arg(long)]
    pub(crate) worker: Option<String>,
    /// Only of this kind: execution, crossing, counted, control or penalty
    #[arg(long)]
    pub(crate) kind: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub(crate) limit: usize,
    /// The server.
    #[command(flatten)]
    pub(crate) remote: Remote,
}
