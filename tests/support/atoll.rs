//! A real `atoll serve` process with a temporary data folder, a free port and known tenants.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};

use super::client::{self, Answer};
use super::worker::{COMPATIBILITY_DATE, Kind, Module, Request, Service, Worker};

/// The tenant under test.
pub(crate) const TENANT: &str = "acme";
/// Its token.
pub(crate) const TOKEN: &str = "test-token-of-acme";
/// SHA-256 of [`TOKEN`], as the configuration holds it.
pub(crate) const TOKEN_SHA256: &str = "a57be558891c83b5dec24da10665097d6bb8409965e730e94cc0449e92efc812";
/// The tenant next door, who must never notice anything.
pub(crate) const NEIGHBOUR: &str = "neighbour";
/// Its token.
pub(crate) const NEIGHBOUR_TOKEN: &str = "test-token-of-neighbour";
/// SHA-256 of [`NEIGHBOUR_TOKEN`].
pub(crate) const NEIGHBOUR_TOKEN_SHA256: &str =
    "32a2293d3aee76a091d1d1382d00893c915e0738675d610b75a14bbfb17b918f";
/// Workers answer at `{worker}.{tenant}.{BASE_DOMAIN}`.
pub(crate) const BASE_DOMAIN: &str = "atoll.test";

/// What both tokens are for.
const SCOPES: &str =
    r#"["read", "deploy", "execute", "sandbox", "audit", "secrets", "tokens", "proxy", "hosts"]"#;

/// How long the server may take to be ready, in seconds.
const START_SECONDS_MAX: u64 = 60;
/// How long it may take to stop after SIGTERM, in seconds; then it is killed.
const STOP_SECONDS_MAX: u64 = 10;

/// A running server; stopped on drop.
pub(crate) struct Atoll {
    child: Child,
    address: SocketAddr,
    folder: tempfile::TempDir,
    env: Vec<(String, String)>,
    /// Bindings and variables that every deployment and execution of a test gets, beside its own.
    given: (Value, Value),
}

/// How to start it.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Isolate host processes; 0 is in-process mode, without a wall.
    pub(crate) isolate_hosts: u32,
    /// Tables added to the configuration file.
    pub(crate) config: String,
    /// Lines added to every tenant's table.
    pub(crate) tenant: String,
    /// Lines added to the neighbour's table.
    pub(crate) neighbour: String,
    /// Variables of its environment.
    pub(crate) env: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            isolate_hosts: 1,
            config: String::new(),
            tenant: String::new(),
            neighbour: String::new(),
            env: Vec::new(),
        }
    }
}

impl Atoll {
    /// Starts a server and waits until it is ready.
    pub(crate) async fn start(options: Options) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let address = free_address();
        let data = folder.path().join("data");
        let config = config_toml(&options, address, &data);
        std::fs::write(folder.path().join("atoll.toml"), config).expect("the folder is writable");
        let child = spawn(folder.path(), &options.env);
        let given = (json!({}), json!({}));
        let mut server = Self { child, address, folder, env: options.env, given };
        server.wait_until_ready().await;
        server
    }

    /// Stops the server as an operator does and starts it again on the same data.
    pub(crate) async fn restart(&mut self) {
        self.stop();
        self.child = spawn(self.folder.path(), &self.env);
        self.wait_until_ready().await;
    }

    /// Kills it without a word.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("the server can be killed");
        self.child.wait().expect("a killed process ends");
    }

    /// Kills the server without warning and starts it again on the same data.
    pub(crate) async fn kill_and_restart(&mut self) {
        self.kill();
        self.child = spawn(self.folder.path(), &self.env);
        self.wait_until_ready().await;
    }

    /// SIGTERM, which asks for the graceful stop, and SIGKILL if that takes too long.
    pub(crate) fn stop(&mut self) {
        if !self.alive() {
            return;
        }
        // std can only send SIGKILL.
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let deadline = Instant::now() + Duration::from_secs(STOP_SECONDS_MAX);
        while self.alive() {
            if Instant::now() > deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    async fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
        let ready = Request::new("GET", "/readyz");
        loop {
            if let Ok(answer) = client::send(self.address, "localhost", &ready).await
                && answer.status == 200
            {
                return;
            }
            let exit = self.child.try_wait().expect("the child can be asked");
            assert!(
                exit.is_none() && Instant::now() < deadline,
                "atoll serve is not ready (exit {exit:?}):\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The folder of its configuration (`atoll.toml`) and its data (`data/`).
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The gateway process, for memory measurements.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its data folder.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Everything it wrote so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default()
    }

    /// Whether the gateway process still runs.
    pub(crate) fn alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Runs a command against this server, with the token of the tenant under test.
    pub(crate) fn command(&self, arguments: &[&str]) -> Output {
        self.command_with(arguments, b"")
    }

    /// The same with this on its standard input.
    pub(crate) fn command_with(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = Command::new(binary())
            .args(arguments)
            .env("ATOLL_URL", format!("http://{}", self.address))
            .env("ATOLL_TOKEN", TOKEN)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("atoll runs");
        let written = child.stdin.take().expect("a pipe").write_all(input);
        let output = child.wait_with_output().expect("it ends");
        // One that fails may have ended before it read.
        assert!(written.is_ok() || !output.status.success(), "{arguments:?} read no input");
        output
    }

    /// A control request as the tenant under test.
    pub(crate) async fn control(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.control_as(TOKEN, method, path, body).await
    }

    /// A control request with any token.
    pub(crate) async fn control_as(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> Answer {
        let mut request = Request::new(method, path).header("authorization", &format!("Bearer {token}"));
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        client::send(self.address, "localhost", &request)
            .await
            .unwrap_or_else(|error| panic!("{method} {path}: {error}\n{}", self.log()))
    }

    /// Deploys for the tenant under test; panics when it is refused.
    pub(crate) async fn deploy(&self, worker: &Worker) {
        self.deploy_as(TOKEN, worker).await;
    }

    /// Deploys with any token; panics when it is refused.
    pub(crate) async fn deploy_as(&self, token: &str, worker: &Worker) {
        let answer = self.try_deploy_as(token, worker).await;
        assert!(
            (200..300).contains(&answer.status),
            "deploying {} gave {}: {}",
            worker.name,
            answer.status,
            answer.text()
        );
    }

    /// Deploys with any token and gives the answer, refusals too.
    pub(crate) async fn try_deploy_as(&self, token: &str, worker: &Worker) -> Answer {
        let path = format!("/v1/workers/{}", worker.name);
        let body = self.with_given(deployment(worker), "vars");
        self.control_as(token, "PUT", &path, Some(body)).await
    }

    /// From now on, whatever a test deploys or executes has these as well.
    pub(crate) fn give_all(&mut self, bindings: Value, variables: Value) {
        self.given = (bindings, variables);
    }

    /// A description of a deployment or execution with these.
    pub(crate) fn with_given(&self, mut body: Value, variables: &str) -> Value {
        for (key, given) in [("bindings", &self.given.0), (variables, &self.given.1)] {
            for (name, value) in given.as_object().into_iter().flatten() {
                body[key][name] = value.clone();
            }
        }
        body
    }

    /// Runs code mode as the tenant under test.
    pub(crate) async fn execute(&self, body: Value) -> Answer {
        self.execute_as(TOKEN, body).await
    }

    /// The same with any token.
    pub(crate) async fn execute_as(&self, token: &str, body: Value) -> Answer {
        self.control_as(token, "POST", "/v1/execute", Some(self.with_given(body, "env"))).await
    }

    /// Sends a request to a worker by its host name.
    pub(crate) async fn send(&self, worker: &str, request: &Request) -> Answer {
        self.send_to(TENANT, worker, request).await
    }

    /// The same for any tenant.
    pub(crate) async fn send_to(&self, tenant: &str, worker: &str, request: &Request) -> Answer {
        client::send(self.address, &host_name(tenant, worker), request)
            .await
            .unwrap_or_else(|error| panic!("{} {}: {error}\n{}", request.method, request.target, self.log()))
    }
}

impl Drop for Atoll {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Starts `atoll serve` on a folder with a configuration; both outputs are appended to its log.
fn spawn(folder: &Path, env: &[(String, String)]) -> Child {
    let mut append = std::fs::OpenOptions::new();
    let log = append.create(true).append(true).open(folder.join("stderr")).expect("a log file");
    Command::new(binary())
        .args(["serve", "--config"])
        .arg(folder.join("atoll.toml"))
        .envs(env.iter().cloned())
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a second handle"))
        .stderr(log)
        .spawn()
        .expect("atoll starts")
}

/// The host name under which a worker answers.
pub(crate) fn host_name(tenant: &str, worker: &str) -> String {
    format!("{worker}.{tenant}.{BASE_DOMAIN}")
}

/// The binary: `ATOLL_TEST_ATOLL`, or the one Cargo built for this test.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("ATOLL_TEST_ATOLL").map_or_else(|| env!("CARGO_BIN_EXE_atoll").into(), PathBuf::from)
}

/// A port that was free a moment ago: port 0 would be exact, but nobody would say which one it became.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a bound listener has an address")
}

fn config_toml(options: &Options, address: SocketAddr, data: &Path) -> String {
    let tenant = |name: &str, hash: &str| {
        format!(
            "[tenants.{name}]\ntokens = [{{ sha256 = \"{hash}\", scopes = {SCOPES} }}]\n{}\n",
            options.tenant
        )
    };
    format!(
        "listen = [\"{address}\"]\nbase_domain = \"{BASE_DOMAIN}\"\ndata_dir = {data:?}\nisolate_hosts = {}\n{}\n{}{}{}\n",
        options.isolate_hosts,
        options.config,
        tenant(TENANT, TOKEN_SHA256),
        tenant(NEIGHBOUR, NEIGHBOUR_TOKEN_SHA256),
        options.neighbour,
    )
}

/// A worker as the control API takes it.
pub(crate) fn deployment(worker: &Worker) -> Value {
    let env: serde_json::Map<String, Value> = worker.env.iter().cloned().collect();
    let service = |service: &Service| (service.binding.clone(), service_binding(service));
    let namespace = |name: &String| {
        (name.clone(), json!({ "type": "kv", "namespace": format!("{}-{name}", worker.name) }))
    };
    let bindings: serde_json::Map<String, Value> =
        worker.services.iter().map(service).chain(worker.kv.iter().map(namespace)).collect();
    json!({
        "compatibilityDate": COMPATIBILITY_DATE,
        "compatibilityFlags": worker.flags,
        "allowExperimental": worker.experimental,
        "mainModule": worker.modules[0].name,
        "modules": modules(&worker.modules),
        "vars": env,
        "loaders": worker.loaders,
        "bindings": bindings,
    })
}

fn service_binding(service: &Service) -> Value {
    let mut binding = json!({ "type": "service", "worker": service.worker });
    if let Some(entrypoint) = &service.entrypoint {
        binding["entrypoint"] = json!(entrypoint);
    }
    if let Some(props) = &service.props {
        binding["props"] = props.clone();
    }
    binding
}

fn modules(modules: &[Module]) -> Value {
    let text = |module: &Module| String::from_utf8(module.body.clone()).expect("text modules are UTF-8");
    let packed = |module: &Module| base64::engine::general_purpose::STANDARD.encode(&module.body);
    let entries = modules.iter().map(|module| {
        let body = match module.kind {
            Kind::Js => json!({ "js": text(module) }),
            Kind::Cjs => json!({ "cjs": text(module) }),
            Kind::Text => json!({ "text": text(module) }),
            Kind::Data => json!({ "data": packed(module) }),
            Kind::Json => {
                let value: Value = serde_json::from_slice(&module.body).expect("JSON modules parse");
                json!({ "json": value })
            }
            Kind::Wasm => json!({ "wasm": packed(module) }),
        };
        (module.name.clone(), body)
    });
    Value::Object(entries.collect())
}

/// Every regular file of a folder, as modules of one worker; used for the examples.
pub(crate) fn read_folder(name: &str, folder: &Path, main: &str) -> Worker {
    let mut files: Vec<PathBuf> = vec![];
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).unwrap_or_else(|error| panic!("{}: {error}", next.display())) {
            let path = entry.expect("a readable entry").path();
            let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            let vendored = path.ends_with("node_modules");
            match path.is_dir() {
                _ if hidden || vendored => {}
                true => folders.push(path),
                false => files.push(path),
            }
        }
    }
    files.sort();
    let mut modules: Vec<Module> = files
        .iter()
        .map(|path| {
            let relative = path.strip_prefix(folder).expect("found below it").to_string_lossy().into_owned();
            let body = std::fs::read(path).expect("a readable file");
            Module { kind: Kind::of_file(&relative), name: relative, body }
        })
        .collect();
    modules.sort_by_key(|module| module.name != main);
    assert_eq!(modules[0].name, main, "{} has no {main}", folder.display());
    Worker { modules, ..Worker::single(name, "") }
}
