//! The oracle: the pinned `workerd` from the npm package in `tests/workerd`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::worker::{COMPATIBILITY_DATE, Kind, Worker};

/// What stands behind KV bindings: the object in `env` is the oracle's own.
const KV_SERVICE: &str = include_str!("../differential/kv.js");
/// How long the oracle may take to open every socket.
const START_SECONDS_MAX: u64 = 60;

/// A running oracle; stopped on drop.
pub(crate) struct Workerd {
    child: Child,
    addresses: HashMap<String, SocketAddr>,
    _folder: tempfile::TempDir,
}

impl Workerd {
    /// Starts one process that serves every given worker on a port of its own.
    pub(crate) fn start(workers: &[Worker]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = write_config(folder.path(), workers);
        let log = std::fs::File::create(folder.path().join("stderr")).expect("a log file");
        let mut child = Command::new(binary())
            .args(["serve", "--experimental", "--control-fd=1"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("workerd starts");
        let listening = listen_events(child.stdout.take().expect("piped above"));
        let mut addresses = HashMap::new();
        while addresses.len() < workers.len() {
            let Ok((name, port)) = listening.recv_timeout(Duration::from_secs(START_SECONDS_MAX)) else {
                let _ = child.kill();
                let log = std::fs::read_to_string(folder.path().join("stderr")).unwrap_or_default();
                panic!("workerd did not open every socket:\n{log}");
            };
            addresses.insert(name, SocketAddr::from(([127, 0, 0, 1], port)));
        }
        Self { child, addresses, _folder: folder }
    }

    /// Where a worker listens.
    pub(crate) fn address(&self, worker: &str) -> SocketAddr {
        self.addresses[worker]
    }

    /// The process, for memory measurements.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Workerd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The binary: `ATOLL_TEST_WORKERD`, or the npm package, installed on first use.
pub(crate) fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("ATOLL_TEST_WORKERD") {
        return path.into();
    }
    static INSTALL: std::sync::Once = std::sync::Once::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/workerd");
    let architecture = if cfg!(target_arch = "aarch64") { "workerd-linux-arm64" } else { "workerd-linux-64" };
    let binary = folder.join("node_modules/@cloudflare").join(architecture).join("bin/workerd");
    INSTALL.call_once(|| {
        if !binary.exists() {
            let status = Command::new("npm").args(["ci", "--ignore-scripts"]).current_dir(&folder).status();
            let status = status.expect("npm is needed to install the pinned workerd");
            assert!(status.success() && binary.exists(), "npm ci in tests/workerd failed");
        }
    });
    binary
}

/// Port announcements of the control pipe; console output shares it and is ignored.
fn listen_events(stdout: std::process::ChildStdout) -> mpsc::Receiver<(String, u16)> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            let Ok(event) = serde_json::from_slice::<serde_json::Value>(&line) else { continue };
            let (Some(name), Some(port)) = (event["socket"].as_str(), event["port"].as_u64()) else {
                continue;
            };
            let _ = sender.send((name.to_owned(), u16::try_from(port).expect("a port")));
        }
    });
    receiver
}

fn write_config(folder: &Path, workers: &[Worker]) -> PathBuf {
    // Workers may reach servers of the test.
    let mut services =
        String::from("  (name = \"internet\", network = (allow = [\"public\", \"local\"])),\n");
    let mut sockets = String::new();
    for (index, worker) in workers.iter().enumerate() {
        let name = quote(&worker.name);
        for binding in &worker.kv {
            let service = quote(&kv_service(worker, binding));
            let body = format!(
                "(compatibilityDate = \"{COMPATIBILITY_DATE}\", modules = [(name = \"kv.js\", esModule = embed \"kv.js\")])"
            );
            writeln!(services, "  (name = {service}, worker = {body}),").expect("writing to a string");
        }
        let body = worker_config(folder, index, worker);
        writeln!(services, "  (name = {name}, worker = {body}),").expect("writing to a string");
        writeln!(sockets, "  (name = {name}, address = \"127.0.0.1:0\", http = (), service = {name}),")
            .expect("writing to a string");
    }
    let text = format!(
        "using Workerd = import \"/workerd/workerd.capnp\";\n\
         const config :Workerd.Config = (services = [\n{services}], sockets = [\n{sockets}]);\n"
    );
    std::fs::write(folder.join("kv.js"), KV_SERVICE).expect("the folder is writable");
    let path = folder.join("config.capnp");
    std::fs::write(&path, text).expect("the folder is writable");
    path
}

fn worker_config(folder: &Path, index: usize, worker: &Worker) -> String {
    let mut modules = String::new();
    for (number, module) in worker.modules.iter().enumerate() {
        let file = format!("module-{index}-{number}");
        std::fs::write(folder.join(&file), &module.body).expect("the folder is writable");
        let kind = match module.kind {
            Kind::Js => "esModule",
            Kind::Cjs => "commonJsModule",
            Kind::Text => "text",
            Kind::Data => "data",
            Kind::Json => "json",
            Kind::Wasm => "wasm",
        };
        write!(modules, "(name = {}, {kind} = embed {}), ", quote(&module.name), quote(&file))
            .expect("writing to a string");
    }
    let mut bindings = String::new();
    for (name, value) in &worker.env {
        let value = match value {
            serde_json::Value::String(text) => format!("text = {}", quote(text)),
            other => format!("json = {}", quote(&other.to_string())),
        };
        write!(bindings, "(name = {}, {value}), ", quote(name)).expect("writing to a string");
    }
    for name in &worker.loaders {
        write!(bindings, "(name = {}, workerLoader = ()), ", quote(name)).expect("writing to a string");
    }
    for service in &worker.services {
        let mut target = format!("name = {}", quote(&service.worker));
        if let Some(entrypoint) = &service.entrypoint {
            write!(target, ", entrypoint = {}", quote(entrypoint)).expect("writing to a string");
        }
        if let Some(props) = &service.props {
            write!(target, ", props = (json = {})", quote(&props.to_string())).expect("writing to a string");
        }
        write!(bindings, "(name = {}, service = ({target})), ", quote(&service.binding))
            .expect("writing to a string");
    }
    for name in &worker.kv {
        let service = quote(&kv_service(worker, name));
        write!(bindings, "(name = {}, kvNamespace = {service}), ", quote(name)).expect("writing to a string");
    }
    let flags: Vec<String> = worker.flags.iter().map(|flag| quote(flag)).collect();
    format!(
        "(compatibilityDate = \"{COMPATIBILITY_DATE}\", compatibilityFlags = [{}], \
         modules = [{modules}], bindings = [{bindings}])",
        flags.join(", ")
    )
}

/// The service behind one KV binding.
fn kv_service(worker: &Worker, binding: &str) -> String {
    format!("kv:{}:{binding}", worker.name)
}

/// A Cap'n Proto string literal. Its escapes are C's, so other bytes are written as hex.
fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => {
                out.push('\\');
                out.push(char::from(byte));
            }
            b' '..=b'~' => out.push(char::from(byte)),
            other => write!(out, "\\x{other:02x}").expect("writing to a string"),
        }
    }
    out.push('"');
    out
}
