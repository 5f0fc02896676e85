//! `atoll serve` and `atoll isolate-host`: flags and help.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

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

pub(super) fn parse_hosts(text: &str) -> Result<Hosts, String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_a_number_or_in_process() {
        assert_eq!(parse_hosts("in-process"), Ok(Hosts::InProcess));
        assert_eq!(parse_hosts("4"), Ok(Hosts::Processes(4)));
        for bad in ["0", "65", "-1", "two", ""] {
            assert!(parse_hosts(bad).is_err(), "{bad}");
        }
    }
}
