//! `atoll route`: flags and help.

use std::path::PathBuf;

use atoll::route::{Language, Need};
use clap::{Args, Subcommand, ValueEnum};

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
