//! `atoll dev`, `run` and `init`: flags and help of what needs no server.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::parse_pair;
use super::serve::{Hosts, parse_hosts};

/// `atoll dev`.
#[derive(Debug, Args)]
#[command(after_help = "\
The folder needs a wrangler.jsonc, wrangler.toml, or an index.js or index.ts; see `atoll init`.
When a change does not build, the error is shown and the last good version keeps serving.

Example:
  atoll dev examples/hello --listen 127.0.0.1:9000")]
pub(crate) struct Dev {
    /// The worker's folder or file
    #[arg(value_name = "DIR", default_value = ".")]
    pub(crate) path: PathBuf,
    /// Where to listen
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8787")]
    pub(crate) listen: SocketAddr,
    /// Isolate host processes, or `in-process`
    #[arg(long, value_name = "N|in-process", value_parser = parse_hosts, default_value = "1")]
    pub(crate) hosts: Hosts,
    /// Log level, or `target=level` pairs
    #[arg(long, value_name = "FILTER", default_value = "warn,atoll::guest=debug", env = "ATOLL_LOG")]
    pub(crate) log: String,
}

/// `atoll run`.
#[derive(Debug, Args)]
#[command(after_help = "\
A folder, or a module that exports a handler with fetch(), gets one request. Anything else is
executed: a module that exports a function, a function expression, or plain statements with
`return`; `input` and `env` are in scope. There is no network.
The result goes to standard output, console lines go to standard error.

Examples:
  atoll run examples/hello --request 'GET /?name=Ada'
  atoll run examples/execute/snippet.js --input '{\"text\":\"a rose is a rose\"}' --env-json TOP=1
  echo 'return 6 * 7' | atoll run -
  atoll run slow.js --limits cpuMs=50,heapMib=32; echo $?

The exit code says how it ended; `atoll --help` has the list.")]
pub(crate) struct Run {
    /// A folder, a file, or `-` for standard input
    #[arg(value_name = "FILE")]
    pub(crate) path: PathBuf,
    /// Execute with this JSON value as `input`
    #[arg(long, value_name = "JSON", conflicts_with = "request")]
    pub(crate) input: Option<String>,
    /// Send this request instead: a method and a path or URL
    #[arg(long, value_name = "'METHOD /PATH'")]
    pub(crate) request: Option<String>,
    /// A header of the request; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    pub(crate) headers: Vec<String>,
    /// The request's body
    #[arg(short, long, value_name = "TEXT")]
    pub(crate) data: Option<String>,
    /// Show the response's status and headers, too
    #[arg(short, long)]
    pub(crate) include: bool,
    #[command(flatten)]
    /// Settings of the guest.
    pub(crate) guest: Guest,
    /// Print one JSON object: result or response, logs, usage, error
    #[arg(long)]
    pub(crate) json: bool,
    /// The code is TypeScript (for standard input; files say it by their names)
    #[arg(long)]
    pub(crate) ts: bool,
}

/// Settings that `run` and `execute` share.
#[derive(Debug, Args)]
pub(crate) struct Guest {
    /// A string in `env`; may be repeated
    #[arg(long = "env", value_name = "NAME=TEXT", value_parser = parse_pair)]
    pub(crate) env: Vec<(String, String)>,
    /// A JSON value in `env`; may be repeated
    #[arg(long, value_name = "NAME=JSON", value_parser = parse_pair)]
    pub(crate) env_json: Vec<(String, String)>,
    /// Lower limits: cpuMs, wallMs, heapMib, externalMib, subRequests, logBytes, responseBytes, loads
    #[arg(long, value_name = "NAME=N,…", value_delimiter = ',', value_parser = parse_pair)]
    pub(crate) limits: Vec<(String, String)>,
}

/// `atoll init`.
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// The new folder; the worker is named after it
    #[arg(value_name = "DIR", default_value = ".")]
    pub(crate) path: PathBuf,
    /// In TypeScript
    #[arg(long)]
    pub(crate) ts: bool,
}
