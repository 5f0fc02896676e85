//! The command line: every command, flag and help text.

pub(crate) mod kv;
pub(crate) mod sandbox;

use std::net::SocketAddr;
use std::path::PathBuf;

use atoll::route::{Language, Need};
use clap::{Args, Parser, Subcommand, ValueEnum};
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
    Serve(Serve),
    /// Work on a worker: serve it, and reload it whenever a file changes
    Dev(Dev),
    /// Run a worker's folder, a module or a snippet once, here, without a server
    Run(Run),
    /// Deploy a worker to a server
    Deploy(Deploy),
    /// Run a snippet on a server, in a fresh isolate
    Execute(Execute),
    /// Look after deployed workers
    #[command(subcommand)]
    Workers(Workers),
    /// Use Linux sandboxes on a server: run commands, move files, look at processes
    #[command(subcommand)]
    Sandbox(sandbox::Sandbox),
    /// Check the audit log, or read records of it
    #[command(subcommand)]
    Audit(Audit),
    /// Find out where a step would run: in an isolate or in a sandbox
    #[command(subcommand)]
    Route(Route),
    /// Make a new worker
    Init(Init),
    /// Make a token, and its hash for the server's configuration
    Token(Token),
    /// Make, list and revoke API tokens on a server
    #[command(subcommand)]
    Tokens(Tokens),
    /// Keep secrets on a server, for its proxies to use
    #[command(subcommand)]
    Secret(Secret),
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
    IsolateHost(IsolateHost),
}

/// `atoll serve`.
#[derive(Debug, Args)]
#[command(after_help = "\
Workers answer at http://WORKER.TENANT.BASE_DOMAIN/ and at /w/TENANT/WORKER/.
The control API is under /v1, its description at /v1/openapi.json; see also /healthz, /readyz, /metrics.

SIGHUP replaces every isolate host by a new one; no request is lost by it.

Flags win over the file. A small file:
  listen = [\"0.0.0.0:8080\"]
  base_domain = \"example.com\"
  [tenants.acme]
  tokens = [\"SHA-256 of the token, as `atoll token` prints it\"]

Traces, metrics and logs go to the collector that OTEL_EXPORTER_OTLP_ENDPOINT names (OTLP over http).")]
pub(crate) struct Serve {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE", env = "ATOLL_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Listen here instead of where the configuration says; may be repeated
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: Vec<SocketAddr>,
    /// Workers answer at WORKER.TENANT.DOMAIN
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) base_domain: Option<String>,
    /// TLS certificate chain (PEM); read again when it changes
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// TLS private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Where deployments are stored
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Isolate host processes, or `in-process` for none (no wall: for development only)
    #[arg(long, value_name = "N|in-process", value_parser = parse_hosts)]
    pub(crate) hosts: Option<Hosts>,
    /// End with an error where the isolate hosts cannot be confined completely
    #[arg(long)]
    pub(crate) require_sandbox: bool,
    /// Show guests' errors with stacks to clients
    #[arg(long)]
    pub(crate) dev: bool,
    /// Log level, or `target=level` pairs
    #[arg(long, value_name = "FILTER", default_value = "info", env = "ATOLL_LOG")]
    pub(crate) log: String,
    /// Form of the log
    #[arg(long, value_enum, default_value_t = LogForm::Text)]
    pub(crate) log_format: LogForm,
}

/// Where guests run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hosts {
    /// In this process.
    InProcess,
    /// In so many processes.
    Processes(usize),
}

fn parse_hosts(text: &str) -> Result<Hosts, String> {
    match (text, text.parse::<usize>()) {
        ("in-process", _) => Ok(Hosts::InProcess),
        (_, Ok(count @ 1..=64)) => Ok(Hosts::Processes(count)),
        _ => Err("give `in-process` or a number from 1 to 64".into()),
    }
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogForm {
    /// For people.
    Text,
    /// For machines: one JSON object per line.
    Json,
}

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

fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("give NAME=VALUE".into()),
    }
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

/// `atoll route`.
#[derive(Debug, Subcommand)]
pub(crate) enum Route {
    /// Show where a step would run, by which rule and why, without running it
    Explain(Explain),
}

/// `atoll route explain`.
#[derive(Debug, Args)]
#[command(after_help = "\
A step goes to an isolate unless something says that it cannot run there. The rules, in order:
  override   an operator's [[route]] rule
  language   python, shell and commands need a sandbox
  needs      so does a declared need, all but `http`
  learned    the same code lacked something in an isolate before (only a server knows)
  imports    it imports what an isolate does not offer, such as node:fs
  globals    it uses what an isolate does not have, such as process, or eval
  size       it asks for more memory, time or code than an isolate may have
  default    nothing of this: an isolate

An operator's rule, in the server's configuration; all conditions but `runtime` may be left out:
  [[route]]
  name = \"acme-builds\"
  tenant = \"acme\"
  language = \"ts\"
  import = \"@acme/*\"
  size_bytes_min = 1048576
  runtime = \"sandbox\"

Examples:
  atoll route explain snippet.js
  atoll route explain build.ts --needs filesystem,process --json
  atoll route explain examples/hello --config atoll.toml --tenant acme
  echo 'print(1)' | atoll route explain - --language python")]
pub(crate) struct Explain {
    /// A file, a worker's folder, or `-` for standard input
    #[arg(value_name = "FILE")]
    pub(crate) path: PathBuf,
    /// What it is written in, if its ending does not say
    #[arg(long, value_enum)]
    pub(crate) language: Option<StepLanguage>,
    /// What it needs
    #[arg(long, value_enum, value_name = "NEED,…", value_delimiter = ',')]
    pub(crate) needs: Vec<StepNeed>,
    /// Memory that it asks for
    #[arg(long, value_name = "MIB")]
    pub(crate) memory_mib: Option<u32>,
    /// Wall time that it asks for
    #[arg(long, value_name = "MS")]
    pub(crate) wall_ms: Option<u32>,
    /// The server's configuration, for the operator's rules
    #[arg(long, value_name = "FILE", env = "ATOLL_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Whose step it is, for rules that ask
    #[arg(long, value_name = "NAME")]
    pub(crate) tenant: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// `--language`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StepLanguage {
    Js,
    Ts,
    Python,
    Shell,
    Command,
}

impl From<StepLanguage> for Language {
    fn from(language: StepLanguage) -> Self {
        match language {
            StepLanguage::Js => Self::Js,
            StepLanguage::Ts => Self::Ts,
            StepLanguage::Python => Self::Python,
            StepLanguage::Shell => Self::Shell,
            StepLanguage::Command => Self::Command,
        }
    }
}

/// `--needs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StepNeed {
    /// Files
    Filesystem,
    /// Other processes
    Process,
    /// A native module or any other binary
    NativeModule,
    /// A Python interpreter
    Python,
    /// Connections other than HTTP requests
    Sockets,
    /// HTTP requests; both runtimes have them
    Http,
}

impl From<StepNeed> for Need {
    fn from(need: StepNeed) -> Self {
        match need {
            StepNeed::Filesystem => Self::Filesystem,
            StepNeed::Process => Self::Process,
            StepNeed::NativeModule => Self::NativeModule,
            StepNeed::Python => Self::Python,
            StepNeed::Sockets => Self::Sockets,
            StepNeed::Http => Self::Http,
        }
    }
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

/// `atoll audit`.
#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Check that every record is what was written; exit code 1 names the first that is not
    #[command(
        after_help = "Needs no server: a copy of the folder is enough, also while the server writes.\n\nExample:\n  atoll audit verify /var/lib/atoll/audit --json"
    )]
    Verify {
        /// The folder of the log, or the data folder that it is in
        #[arg(value_name = "DIR", default_value = "atoll-data/audit")]
        folder: PathBuf,
        /// Print the report as JSON
        #[arg(long)]
        json: bool,
    },
    /// Print your records, oldest first, one line of JSON each
    Query(AuditQuery),
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
    /// Only of this kind: execution, crossing, counted or control
    #[arg(long)]
    pub(crate) kind: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub(crate) limit: usize,
    /// The server.
    #[command(flatten)]
    pub(crate) remote: Remote,
}

/// `atoll isolate-host`.
#[derive(Debug, Args)]
pub(crate) struct IsolateHost {
    /// The descriptor of the socket to the gateway
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) fd: i32,
    /// Resident memory that it may hold, in MiB; by default a share of what there is
    #[arg(long, value_name = "MIB")]
    pub(crate) memory_mib: Option<u64>,
    /// Run V8 without its compilers, and without WebAssembly
    #[arg(long)]
    pub(crate) jitless: bool,
    /// Confine the process, make one attempt to get out, and print what came of it (`list` names them)
    #[arg(long, value_name = "ATTEMPT")]
    pub(crate) probe: Option<String>,
    /// Leave out a layer of the confinement: for `--probe` only, to see what the others hold
    #[arg(long, value_name = "LAYER", requires = "probe")]
    pub(crate) without: Vec<String>,
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
    fn hosts_are_a_number_or_in_process() {
        assert_eq!(parse_hosts("in-process"), Ok(Hosts::InProcess));
        assert_eq!(parse_hosts("4"), Ok(Hosts::Processes(4)));
        for bad in ["0", "65", "-1", "two", ""] {
            assert!(parse_hosts(bad).is_err(), "{bad}");
        }
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
