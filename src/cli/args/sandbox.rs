//! `atoll sandbox`: commands, flags and help.

use clap::{Args, Subcommand};

use super::files::{Cp, Ls, OfPath, Restore, Rm, Snapshot};
use super::{Plain, Remote, parse_pair};

/// `atoll sandbox`.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
A sandbox is a Linux of its own, one for each user id that you name. It is made when it is first used, has files under
/workspace, no network unless it is given one, and ends after a while: what matters is copied out before.

A first session:
  atoll sandbox exec ann -- git --version
  echo 'print(6 * 7)' | atoll sandbox write ann answer.py
  atoll sandbox exec ann -- python3 answer.py
  atoll sandbox exec ann -d --id web -- python3 -m http.server 8000
  atoll sandbox expose ann 8000
  atoll sandbox snapshot ann -o ann.tar && atoll sandbox delete ann")]
pub(crate) enum Sandbox {
    /// Make a user's sandbox, or get it; other commands make it, too
    Create(Create),
    /// List the tenant's sandboxes
    List(Plain),
    /// Run a command; its exit code becomes this command's
    Exec(Exec),
    /// List background processes
    Ps(OfUser),
    /// Show what a background process wrote
    Logs(Logs),
    /// End a background process with everything that it started
    Kill(Kill),
    /// Copy a file in or out
    Cp(Cp),
    /// List a directory
    Ls(Ls),
    /// Print a file
    Cat(OfPath),
    /// Write standard input to a file
    Write(OfPath),
    /// Delete a file or, with -r, a directory
    Rm(Rm),
    /// Clone a repository that the sandbox can reach
    Git(Git),
    /// Save the workspace as a tar
    Snapshot(Snapshot),
    /// Make the workspace what a tar holds
    Restore(Restore),
    /// Let a port be seen from outside, under an unguessable address
    Expose(Expose),
    /// Hide a port again
    Hide(Hide),
    /// Show what a user's sandboxes use and used
    Usage(OfUser),
    /// End a sandbox with everything in it
    Delete(OfUser),
}

/// A user.
#[derive(Debug, Args)]
pub(crate) struct OfUser {
    /// The user's id
    pub(crate) user: String,
    #[command(flatten)]
    /// Output and server.
    pub(crate) plain: Plain,
}

/// `atoll sandbox create`.
#[derive(Debug, Args)]
#[command(after_help = "\
Without --egress and --outbound it reaches nothing. With them, programs inside find an HTTP proxy in HTTP_PROXY, and what
may pass is the operator's policy. --proxy and --audience need a token with the scope `proxy`.

Examples:
  atoll sandbox create ann --egress apis --env STAGE=test
  atoll sandbox create ann --egress apis --proxy github")]
pub(crate) struct Create {
    /// The user's id: 1 to 128 visible ASCII characters
    pub(crate) user: String,
    /// A policy class of the operator's configuration
    #[arg(long, value_name = "CLASS")]
    pub(crate) egress: Option<String>,
    /// A host that it may reach; may be repeated
    #[arg(long, value_name = "HOST")]
    pub(crate) outbound: Vec<String>,
    /// A secret proxy that it may use, at http://proxy.atoll/NAME/; may be repeated
    #[arg(long = "proxy", value_name = "NAME")]
    pub(crate) proxies: Vec<String>,
    /// For whom it may get identities, at http://identity.atoll/token; may be repeated
    #[arg(long = "audience", value_name = "URL")]
    pub(crate) audiences: Vec<String>,
    /// A variable of every command; may be repeated
    #[arg(long = "env", value_name = "NAME=TEXT", value_parser = parse_pair)]
    pub(crate) env: Vec<(String, String)>,
    #[command(flatten)]
    /// Output and server.
    pub(crate) plain: Plain,
}

/// `atoll sandbox exec`.
#[derive(Debug, Args)]
#[command(after_help = "\
One word that is a whole line goes to the shell; a program with its arguments runs as it is. Output comes as it is written.
Ending this command ends the one in the sandbox, with everything that it started.

Examples:
  atoll sandbox exec ann -- 'cd repo && make test'
  atoll sandbox exec ann --cwd repo -- make test
  tar -c src | atoll sandbox exec ann -i -- tar -x
  atoll sandbox exec ann -d --id web -- python3 -m http.server 8000

Exit codes: the command's own; 3 if its time was over; 4 and more if it did not run, as `atoll --help` says.")]
pub(crate) struct Exec {
    /// The user's id
    pub(crate) user: String,
    /// Run in this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) cwd: Option<String>,
    /// A variable; may be repeated
    #[arg(long = "env", value_name = "NAME=TEXT", value_parser = parse_pair)]
    pub(crate) env: Vec<(String, String)>,
    /// End it after so long
    #[arg(long, value_name = "MS")]
    pub(crate) timeout_ms: Option<u64>,
    /// Run in this session, whose directory and variables last; it is made if need be
    #[arg(long, value_name = "NAME", conflicts_with_all = ["stdin", "detach"])]
    pub(crate) session: Option<String>,
    /// Pass standard input on
    #[arg(short = 'i', long, conflicts_with = "detach")]
    pub(crate) stdin: bool,
    /// Start it in the background and print its id
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// With -d: its id
    #[arg(long, requires = "detach")]
    pub(crate) id: Option<String>,
    /// Print one JSON object at the end: exit code, output, usage
    #[arg(long)]
    pub(crate) json: bool,
    /// The server.
    #[command(flatten)]
    pub(crate) remote: Remote,
    /// The command
    #[arg(required = true, last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// `atoll sandbox logs`.
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The user's id
    pub(crate) user: String,
    /// The process's id
    pub(crate) process: String,
    /// Go on until it ends
    #[arg(short, long)]
    pub(crate) follow: bool,
    #[command(flatten)]
    /// Output and server.
    pub(crate) plain: Plain,
}

/// `atoll sandbox kill`.
#[derive(Debug, Args)]
pub(crate) struct Kill {
    /// The user's id
    pub(crate) user: String,
    /// The process's id
    pub(crate) process: String,
    /// Send this signal and do not wait
    #[arg(long, value_name = "NUMBER")]
    pub(crate) signal: Option<u32>,
    #[command(flatten)]
    /// Output and server.
    pub(crate) plain: Plain,
}

/// `atoll sandbox git`.
#[derive(Debug, Args)]
pub(crate) struct Git {
    /// The user's id
    pub(crate) user: String,
    /// The repository
    #[arg(value_name = "URL")]
    pub(crate) repository: String,
    /// A branch or a tag
    #[arg(long)]
    pub(crate) branch: Option<String>,
    /// So many commits only
    #[arg(long)]
    pub(crate) depth: Option<u32>,
    /// Where to
    #[arg(long, value_name = "PATH")]
    pub(crate) dir: Option<String>,
    #[command(flatten)]
    /// Output and server.
    pub(crate) plain: Plain,
}

/// `atoll sandbox expose`.
#[derive(Debug, Args)]
pub(crate) struct Expose {
    /// The user's id
    pub(crate) user: String,
    /// The port, from 1024
    pub(crate) port: u16,
    /// A name to remember it by
    #[arg(long)]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    /// Output and server.
    pub(crate) plain: Plain,
}

/// `atoll sandbox hide`.
#[derive(Debug, Args)]
pub(crate) struct Hide {
    /// The user's id
    pub(crate) user: String,
    /// The port
    pub(crate) port: u16,
    /// The server.
    #[command(flatten)]
    pub(crate) remote: Remote,
}
