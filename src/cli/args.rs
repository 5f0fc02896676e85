//! The command line: every command, flag and help text; here what is common to them.

pub(crate) mod access;
pub(crate) mod audit;
pub(crate) mod files;
pub(crate) mod hosts;
pub(crate) mod kv;
pub(crate) mod local;
pub(crate) mod remote;
pub(crate) mod route;
pub(crate) mod sandbox;
pub(crate) mod serve;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use super::exit::EXIT_CODES_HELP;

/// Atoll: an edge-style host for workers and for code that nobody has read, each in a V8 isolate of its own.
#[derive(Debug, Parser)]
#[command(name = "atoll", version, propagate_version = true, after_help = top_help())]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start the server
    Serve(serve::Serve),
    /// Work on a worker: serve it, and reload it whenever a file changes
    Dev(local::Dev),
    /// Run a worker's folder, a module or a snippet once, here, without a server
    Run(local::Run),
    /// Deploy a worker to a server
    Deploy(remote::Deploy),
    /// Run a snippet on a server, in a fresh isolate
    Execute(remote::Execute),
    /// Look after deployed workers
    #[command(subcommand)]
    Workers(remote::Workers),
    /// Use Linux sandboxes on a server: run commands, move files, look at processes
    #[command(subcommand)]
    Sandbox(sandbox::Sandbox),
    /// Show the isolate hosts of a server, or replace them
    Hosts(hosts::HostsArgs),
    /// Check the audit log, or read records of it
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Find out where a step would run: in an isolate or in a sandbox
    #[command(subcommand)]
    Route(route::Route),
    /// Make a new worker
    Init(local::Init),
    /// Make a token, and its hash for the server's configuration
    Token(access::Token),
    /// Make, list and revoke API tokens on a server
    #[command(subcommand)]
    Tokens(access::Tokens),
    /// Keep secrets on a server, for its proxies to use
    #[command(subcommand)]
    Secret(access::Secret),
    /// Read and write key-value namespaces on a server
    #[command(subcommand)]
    Kv(kv::Kv),
    /// Print a completion script for a shell
    #[command(
        after_help = "Example:\n  atoll completions bash > ~/.local/share/bash-completion/completions/atoll"
    )]
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// One isolate host, started by `serve`
    #[command(hide = true)]
    IsolateHost(serve::IsolateHost),
}

/// How to reach the server.
#[derive(Debug, Args)]
pub(crate) struct Remote {
    /// The server's URL
    #[arg(long, env = "ATOLL_URL", default_value = "http://127.0.0.1:8080")]
    pub(crate) url: String,
    /// The tenant's token
    #[arg(long, env = "ATOLL_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
}

/// Nothing but the server.
#[derive(Debug, Args)]
pub(crate) struct Plain {
    /// Print the server's answer as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// The server.
    #[command(flatten)]
    pub(crate) remote: Remote,
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("give NAME=VALUE".into()),
    }
}

fn top_help() -> String {
    format!(
        "\
Examples:
  atoll init hello && atoll dev hello         make a worker and work on it
  atoll run hello --request 'GET /?name=Ada'  one request, without a server
  atoll run snippet.js --input '{{\"a\":1}}'      one execution, without a server
  atoll serve --config atoll.toml             the server
  atoll deploy hello                          to the server at ATOLL_URL

Set ATOLL_URL and ATOLL_TOKEN for the commands that talk to a server.
`atoll help COMMAND` shows more.

{EXIT_CODES_HELP}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn limits_split_at_commas_and_nonsense_is_a_usage_error() {
        let cli = Cli::try_parse_from(["atoll", "run", "x.js", "--limits", "cpuMs=5,heapMib=32"]).unwrap();
        let Command::Run(run) = cli.command else { panic!("{cli:?}") };
        assert_eq!(run.guest.limits, [("cpuMs".into(), "5".into()), ("heapMib".into(), "32".into())]);
        for bad in [
            &["atoll", "run"][..],
            &["atoll", "run", "x", "--limits", "cpuMs"],
            &["atoll", "run", "x", "--input", "1", "--request", "GET /"],
            &["atoll", "serve", "--tls-cert", "c"],
            &["atoll", "route", "explain"],
            &["atoll", "sandbox", "exec", "ann"],
            &["atoll", "sandbox", "exec", "ann", "--id", "x", "--", "true"],
            &["atoll", "sandbox", "exec", "ann", "-i", "-d", "--", "true"],
            &["atoll", "sandbox", "expose", "ann", "70000"],
            &["atoll", "route", "explain", "x", "--needs", "luck"],
            &["atoll", "route", "explain", "x", "--language", "cobol"],
        ] {
            assert_eq!(Cli::try_parse_from(bad).unwrap_err().exit_code(), 2, "{bad:?}");
        }
    }
}
