//! `atoll dev`: the real server with one worker, deployed again whenever its files change.
//!
//! ```text
//! file changes ─▶ settle ─▶ load and build ─┬─▶ PUT /v1/workers/NAME ─▶ next request runs the new version
//!                                           └─▶ error: shown, the last good version keeps serving
//! ```
//!
//! Nothing here is special to development: the same loader, control API and isolates as in production.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use atoll::config::{Config, Overrides};
use atoll::telemetry::LogFormat;
use http::Method;
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use serde_json::Value;
use tokio::sync::mpsc;

use super::args::Remote;
use super::args::local::Dev;
use super::client::Api;
use super::exit::{Failure, Kind, Result};
use super::{output, package, remote, serve, token};

/// The tenant that owns the worker.
const TENANT: &str = "dev";
/// The worker's name if its configuration has none.
const NAME: &str = "dev";
/// Quiet time after a change before it is built: editors write a file in several steps, in milliseconds.
const SETTLE_MS: u64 = 30;
/// Longest wait for the first isolate host, in seconds.
const READY_SECONDS_MAX: u64 = 30;
/// Most folders watched; deeper trees need a restart for changes beyond them.
const WATCHED_FOLDERS_MAX: usize = 1_000;
/// Folders that hold no source.
const SKIPPED: [&str; 2] = ["node_modules", "target"];

/// `atoll dev`.
pub(crate) fn dev(args: Dev) -> Result<()> {
    if !args.path.exists() {
        return Err(Failure::usage(format!("{} does not exist", args.path.display()))
            .hint(format!("`atoll init {}` makes a worker there", args.path.display())));
    }
    let data = DataFolder::new()?;
    serve::runtime()?.block_on(session(args, &data))
}

async fn session(args: Dev, data: &DataFolder) -> Result<()> {
    let made = token::make()?;
    let running = serve::start(config(&args, &made.sha256, data)?, LogFormat::Text, &args.log).await?;
    if !running.engine.until_ready(Duration::from_secs(READY_SECONDS_MAX)).await {
        return Err(Failure::new(Kind::Internal, "the isolate host does not start")
            .hint("its own messages are above; ATOLL_LOG=debug shows more"));
    }
    let address = running.server.address();
    let remote = Remote { url: format!("http://{}", reachable(address)), token: Some(made.token) };
    let mut worker =
        DevWorker { api: Api::new(&remote)?, address, path: args.path.clone(), last: Value::Null };
    let (changed, mut changes) = mpsc::channel(1);
    let mut watcher = Folders::watch(&args.path, changed)?;
    let result = tokio::select! {
        failed = worker.follow(&mut changes, &mut watcher) => failed,
        signal = serve::stop_signal() => signal.map(|_| ()),
    };
    running.stop().await;
    result
}

fn config(args: &Dev, sha256: &str, data: &DataFolder) -> Result<Config> {
    // The base domain is none that a browser would use here, so that `localhost` can be the worker's own.
    let host = args.listen.ip();
    let text = format!(
        "base_domain = \"atoll.localhost\"\n[http]\ndrain_timeout_ms = 1000\n\
         [tenants.{TENANT}]\ntokens = [\"{sha256}\"]\nhosts = [\"localhost\", \"127.0.0.1\"{}]\n",
        if host.is_ipv4() { format!(", \"{host}\"") } else { String::new() }
    );
    let overrides = Overrides {
        listen: vec![args.listen],
        data_dir: Some(data.0.clone()),
        dev: true,
        hosting: Some(serve::hosting(args.hosts)),
        ..Overrides::default()
    };
    Config::parse(&text, overrides).map_err(|error| Failure::new(Kind::Internal, error))
}

/// Where this process itself can reach the server.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => SocketAddr::from(([127, 0, 0, 1], v4.port())),
        other => other,
    }
}

/// The worker under development.
struct DevWorker {
    api: Api,
    address: SocketAddr,
    path: PathBuf,
    last: Value,
}

impl DevWorker {
    /// Deploys, then again after every change. Ends only when the watcher does.
    async fn follow(&mut self, changes: &mut mpsc::Receiver<()>, folders: &mut Folders) -> Result<()> {
        loop {
            let began = Instant::now();
            match self.reload().await {
                Ok(None) => {}
                Ok(Some(name)) => {
                    output::note(&format!(
                        "{name} is ready at http://{} ({} ms)",
                        self.address,
                        began.elapsed().as_millis()
                    ));
                }
                Err(failure) => {
                    output::error(&failure.message, failure.hint.as_deref());
                    if !self.last.is_null() {
                        output::note("the last good version keeps serving");
                    }
                }
            }
            folders.refresh();
            if changes.recv().await.is_none() {
                return Err(Failure::new(Kind::Internal, "files can no longer be watched"));
            }
            tokio::time::sleep(Duration::from_millis(SETTLE_MS)).await;
            while changes.try_recv().is_ok() {}
        }
    }

    /// Builds and deploys; `None` if nothing that matters changed.
    async fn reload(&mut self) -> Result<Option<String>> {
        let deployment = package::deployment(&self.path)?;
        let name = remote::worker_name(deployment.name.as_deref().or(Some(NAME)))?;
        let ip = self.address.ip();
        let mut hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        if ip.is_ipv4() && !ip.is_loopback() {
            hosts.push(ip.to_string());
        }
        let body = package::upload(&deployment, &hosts);
        if body == self.last {
            return Ok(None);
        }
        deployment.code.build().map_err(|error| Failure::new(Kind::Refused, error))?;
        self.api.call(Method::PUT, &format!("/v1/workers/{name}"), Some(&body)).await?;
        self.last = body;
        Ok(Some(name))
    }
}

/// The folders being watched.
struct Folders {
    root: PathBuf,
    watcher: RecommendedWatcher,
    watched: HashSet<PathBuf>,
}

impl Folders {
    fn watch(path: &Path, changed: mpsc::Sender<()>) -> Result<Self> {
        let root = match path.parent() {
            _ if path.is_dir() => path,
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !event.kind.is_access()) {
                let _ = changed.try_send(()); // one waiting change stands for all
            }
        })
        .map_err(|error| Failure::new(Kind::Internal, format!("files cannot be watched: {error}")))?;
        let mut folders = Self { root: root.to_owned(), watcher, watched: HashSet::new() };
        folders.refresh();
        Ok(folders)
    }

    /// Watches folders that are new, forgets those that are gone.
    fn refresh(&mut self) {
        let now = source_folders(&self.root);
        self.watched.retain(|folder| now.contains(folder));
        for folder in now {
            if !self.watched.contains(&folder)
                && self.watcher.watch(&folder, RecursiveMode::NonRecursive).is_ok()
            {
                self.watched.insert(folder);
            }
        }
    }
}

/// The folder and those below it that may hold source, a bounded number of them.
fn source_folders(root: &Path) -> HashSet<PathBuf> {
    let mut found = HashSet::from([root.to_owned()]);
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let skipped = name.starts_with('.') || SKIPPED.contains(&&*name);
            // A link is no folder here: it may lead in a circle.
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_folder && !skipped && found.len() < WATCHED_FOLDERS_MAX && found.insert(entry.path()) {
                open.push(entry.path());
            }
        }
    }
    found
}

/// A folder for the store that goes away with the session.
struct DataFolder(PathBuf);

impl DataFolder {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("atoll-dev-{}", std::process::id()));
        match std::fs::create_dir(&path) {
            Ok(()) => Ok(Self(path)),
            Err(error) => Err(Failure::usage(format!("cannot make {}: {error}", path.display()))
                .hint("set TMPDIR to a folder that can be written")),
        }
    }
}

impl Drop for DataFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0); // what cannot be removed is in the temporary folder anyway
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_watched_and_packages_are_not() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["src/deep", "node_modules/x", ".git/objects"] {
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        std::os::unix::fs::symlink(root.path(), root.path().join("src/circle")).unwrap();
        let expected = ["", "src", "src/deep"].map(|folder| root.path().join(folder));
        let found = source_folders(root.path());
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(expected.iter().all(|folder| found.iter().any(|f| f.components().eq(folder.components()))));
    }

    #[tokio::test]
    async fn a_change_in_a_new_folder_is_seen() {
        let root = tempfile::tempdir().unwrap();
        let (changed, mut changes) = mpsc::channel(1);
        let mut folders = Folders::watch(root.path(), changed).unwrap();
        std::fs::create_dir(root.path().join("src")).unwrap();
        changes.recv().await.unwrap();
        folders.refresh();
        while changes.try_recv().is_ok() {}
        std::fs::write(root.path().join("src/a.js"), "1").unwrap();
        changes.recv().await.unwrap();
    }
}
