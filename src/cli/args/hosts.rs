//! `atoll hosts`: commands, flags and help.

use clap::{Args, Subcommand};

use super::Remote;

/// `atoll hosts`.
#[derive(Debug, Args)]
#[command(after_help = "\
The token needs the scope `hosts`, which only the server's configuration gives.

Examples:
  atoll hosts
  atoll hosts restart --wait")]
pub(crate) struct HostsArgs {
    /// What to do; without it they are shown
    #[command(subcommand)]
    pub(crate) command: Option<HostsCommand>,
    /// Print the server's answer as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// The server.
    #[command(flatten)]
    pub(crate) remote: Remote,
}

/// What can be done with isolate hosts.
#[derive(Debug, Subcommand)]
pub(crate) enum HostsCommand {
    /// Replace every isolate host by a new one, one after the other; no request is lost
    Restart {
        /// Wait until the last one was replaced
        #[arg(long)]
        wait: bool,
        /// Print the server's answer as JSON
        #[arg(long)]
        json: bool,
        /// The server.
        #[command(flatten)]
        remote: Remote,
    },
}
