//! Where commands meet the isolate host: in this process, or as `atoll isolate-host`.

use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

use atoll_bindings::link::{self, HostEndpoint, Link, LinkDown, Running, Start};
use atoll_bindings::seam::Heartbeat;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use atoll::config::{Config, Hosting, Tenant};
use atoll::dispatch::Isolates;
use atoll::hosts::{HostClass, Hosts, HostsConfig, HostsStatus, Missing, Sandbox};
use atoll::observe::Observer;
use atoll_runtime::confine;
use atoll_runtime::host::HostConfig;

use super::args::serve::IsolateHost;
use super::exit::{Failure, Kind, Result};
use super::output;

/// The isolate hosts of a server.
pub(crate) enum Engine {
    /// One in this process.
    InProcess(Link),
    /// Processes under supervision.
    Supervised(Hosts),
}

impl Engine {
    /// Starts them. Returns at once: the server's `/readyz` says when work can be taken.
    pub(crate) fn start(config: &Config, observer: Arc<dyn Observer>) -> Result<Self> {
        match config.hosting {
            Hosting::InProcess => {
                let link = in_process()?;
                tokio::spawn(give_up_condemned(link.clone()));
                Ok(Self::InProcess(link))
            }
            Hosting::Processes(active) => {
                let own = HostsConfig::own().map_err(|error| {
                    Failure::new(Kind::Internal, format!("cannot find this program's own file: {error}"))
                })?;
                Ok(Self::Supervised(Hosts::spawn(hosts(&own, active, config), observer)))
            }
        }
    }

    /// Fails if the first isolate host cannot be confined completely.
    pub(crate) async fn require_sandbox(&self) -> Result<()> {
        let Self::Supervised(hosts) = self else { return Ok(()) }; // the configuration allows no such thing
        let sandbox = hosts.until_sandbox().await;
        if sandbox.is_complete() {
            return Ok(());
        }
        hosts.shutdown().await;
        let message = format!("isolate hosts cannot be confined completely: {}", sandbox.reasons());
        Err(Failure::new(Kind::Internal, message)
            .hint("allow what is missing, or leave out --require-sandbox and `require_sandbox`"))
    }

    /// Waits until work can be taken, but not for ever.
    pub(crate) async fn until_ready(&self, limit: Duration) -> bool {
        match self {
            Self::InProcess(link) => link.close_reason().is_none(),
            Self::Supervised(hosts) => tokio::time::timeout(limit, hosts.until_ready()).await.is_ok(),
        }
    }

    /// Ends them.
    pub(crate) async fn shutdown(&self) {
        match self {
            Self::InProcess(link) => link.close(),
            Self::Supervised(hosts) => hosts.shutdown().await,
        }
    }
}

impl Isolates for Engine {
    fn start(&self, start: Start) -> std::result::Result<Running, LinkDown> {
        match self {
            Self::InProcess(link) => link.start(start),
            Self::Supervised(hosts) => hosts.start(start),
        }
    }

    fn soon<'a>(&'a self, tenant: &'a str) -> Option<Pin<Box<dyn Future<Output = ()> + Send + 'a>>> {
        match self {
            Self::InProcess(link) => Isolates::soon(link, tenant),
            Self::Supervised(hosts) => Isolates::soon(hosts, tenant),
        }
    }

    fn evict(&self, key: &Arc<str>) {
        match self {
            Self::InProcess(link) => link.evict(key.clone()),
            Self::Supervised(hosts) => hosts.evict(key),
        }
    }

    fn ready(&self) -> bool {
        match self {
            Self::InProcess(link) => link.close_reason().is_none(),
            Self::Supervised(hosts) => hosts.ready(),
        }
    }

    fn suspended_ms(&self, tenant: &str) -> Option<u64> {
        match self {
            Self::InProcess(link) => Isolates::suspended_ms(link, tenant),
            Self::Supervised(hosts) => hosts.suspended_ms(tenant),
        }
    }

    fn may_share(&self, one: &str, other: &str) -> bool {
        match self {
            Self::InProcess(link) => Isolates::may_share(link, one, other),
            Self::Supervised(hosts) => hosts.may_share(one, other),
        }
    }

    fn roll(&self) -> bool {
        match self {
            Self::InProcess(link) => Isolates::roll(link),
            Self::Supervised(hosts) => Isolates::roll(hosts),
        }
    }

    fn status(&self) -> HostsStatus {
        match self {
            Self::InProcess(link) => Isolates::status(link),
            Self::Supervised(hosts) => hosts.status(),
        }
    }

    fn sandbox(&self) -> Option<Sandbox> {
        match self {
            Self::InProcess(link) => Isolates::sandbox(link),
            Self::Supervised(hosts) => hosts.sandbox(),
        }
    }

    fn heartbeats(&self) -> Vec<Heartbeat> {
        match self {
            Self::InProcess(link) => vec![link.heartbeat()],
            Self::Supervised(hosts) => hosts.heartbeats(),
        }
    }
}

/// The hosts as the configuration wants them.
fn hosts(own: &HostsConfig, active: usize, config: &Config) -> HostsConfig {
    let class = |name: &str, hosts: usize, memory_mib: Option<u64>, jitless: bool| {
        let memory_mib = memory_mib.or(config.isolate_host_memory_mib);
        let mut command = own.class.command.clone();
        if let Some(mib) = memory_mib {
            command.args.extend(["--memory-mib".into(), mib.to_string().into()]);
        }
        if jitless {
            command.args.push("--jitless".into());
        }
        HostClass { name: name.into(), command, active: hosts, resident_bytes_max: bytes_max(memory_mib) }
    };
    let further = config.host_classes.iter();
    let of = |tenant: &Arc<Tenant>| Some((tenant.name.shared(), tenant.host_class.clone()?));
    HostsConfig {
        class: class("", active, None, false),
        classes: further.map(|(name, of)| class(name, of.hosts, of.memory_mib, of.jitless)).collect(),
        tenants: config.tenants.values().filter_map(of).collect(),
        penalties: config.blame,
        require_sandbox: config.require_sandbox,
        ..own.clone()
    }
}

/// Resident memory that an isolate host may hold, in bytes.
fn bytes_max(memory_mib: Option<u64>) -> Option<u64> {
    memory_mib.map_or_else(atoll_runtime::default_bytes_max, |mib| mib.checked_mul(MIB))
}

/// Without a wall a stuck isolate cannot be killed: whoever waits for it is at least answered.
async fn give_up_condemned(link: Link) {
    let mut beats = link.heartbeats();
    loop {
        tokio::select! {
            changed = beats.changed() => if changed.is_err() { return },
            _ = link.closed() => return,
        }
        let condemned = beats.borrow_and_update().condemned.clone();
        link.give_up(&condemned);
    }
}

/// An isolate host in this process, on a thread of its own; it ends with the link.
pub(crate) fn in_process() -> Result<Link> {
    let (link, endpoint) = link::in_process();
    std::thread::Builder::new()
        .name("isolate-host".into())
        .spawn(move || {
            if let Err(error) = run_host(endpoint) {
                tracing::error!(%error, "the isolate host failed");
            }
        })
        .map_err(|error| Failure::new(Kind::Internal, format!("cannot start a thread: {error}")))?;
    Ok(link)
}

/// `atoll isolate-host`: the socket to the gateway is standard input, which std hands over without `unsafe`.
pub(crate) fn isolate_host(args: &IsolateHost) -> Result<()> {
    let internal = |error: std::io::Error| Failure::new(Kind::Internal, error);
    confine::close_inherited().map_err(internal)?;
    if let Some(name) = &args.probe {
        return probe(name, &args.without);
    }
    if args.fd != 0 {
        return Err(Failure::usage("the isolate host takes its socket as descriptor 0"));
    }
    let socket = std::io::stdin().as_fd().try_clone_to_owned().map_err(internal)?;
    let runtime = runtime().map_err(internal)?;
    let _inside = runtime.enter();
    let endpoint = link::host_over_socket(UnixStream::from(socket)).map_err(internal)?;
    let config = HostConfig {
        resident_bytes_max: bytes_max(args.memory_mib),
        jitless: args.jitless,
        ..HostConfig::default()
    };
    // Still one thread; what is needed is open. From here on nothing else can be.
    let missing = confine::confine();
    let missing = missing
        .into_iter()
        .map(|missing| Missing { layer: missing.layer.name().into(), reason: missing.reason });
    output::line(&Sandbox { missing: missing.collect() }.line());
    runtime.block_on(atoll_runtime::host::run(endpoint, config)).map_err(internal)
}

/// `atoll isolate-host --probe NAME`: one attempt to get out of the confinement, as a line of JSON.
fn probe(name: &str, without: &[String]) -> Result<()> {
    if name == "list" {
        confine::probe::names().for_each(output::line);
        return Ok(());
    }
    let Some((missing, result)) = confine::probe::attempt(name, without) else {
        return Err(Failure::usage(format!("there is no attempt {name:?}")).hint("`--probe list` names them"));
    };
    let missing: Vec<_> = missing.iter().map(|missing| missing.layer.name()).collect();
    let report = serde_json::json!({
        "attempt": name,
        "missing": missing,
        "done": result.is_ok(),
        "error": result.err().map(|error| error.to_string()),
    });
    output::line(&report.to_string());
    Ok(())
}

/// Bytes in a mebibyte.
const MIB: u64 = 1024 * 1024;

fn run_host(endpoint: HostEndpoint) -> std::io::Result<()> {
    // Without a wall, the memory of the process is not the isolates' alone.
    runtime()?.block_on(atoll_runtime::host::run(endpoint, HostConfig::default()))
}

/// The calling thread, and what it starts, is served before what computes.
pub(crate) fn answer_soon() {
    atoll_runtime::answer_soon();
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    atoll_runtime::answer_soon();
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                found.push(path);
            }
        }
    }

    /// The gateway must not be able to run a guest by accident: of all its files, only this one may start a runtime.
    #[test]
    fn only_this_file_knows_the_runtime() {
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = Vec::new();
        sources(&src, &mut files);
        assert!(files.len() > 40, "{} files found", files.len());
        for file in files.iter().filter(|file| !file.ends_with("cli/engine.rs")) {
            let text = std::fs::read_to_string(file).unwrap();
            assert!(!text.contains("atoll_runtime") && !text.contains("deno_core"), "{}", file.display());
        }
    }
}
