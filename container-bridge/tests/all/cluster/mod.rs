//! A Kubernetes API server for the tests, over TLS and with a token: objects, watches, versions that are gone,
//! discovery, admission, exec over WebSocket, the controllers of agent-sandbox, and a node whose pods run for real, each
//! in a native sandbox.
//!
//! ```text
//!  backend ══ TLS ══▶ mod.rs      who asks, faults on demand, routes
//!                       ├ store.rs        objects with versions; what watches tell
//!                       ├ admission.rs    unknown fields, quota, refusals
//!                       ├ controllers.rs  Sandbox ─▶ pod, SandboxClaim ─▶ pod of a pool
//!                       └ node.rs         pod ─▶ native sandbox, whose init waits for its set-up as one in a pod does
//!                           └ exec.rs     WebSocket ◀─▶ that init
//! ```

mod admission;
mod controllers;
mod exec;
mod node;
mod store;

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use atoll_container_bridge::native::{Native, NativeConfig};
use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Frame, Incoming},
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use store::State;
use tokio::sync::watch;

pub(crate) use controllers::Pool;

type Body = UnsyncBoxBody<Bytes, io::Error>;
/// An answer, or a connection that breaks without one.
type Answer = Result<Response<Body>, io::Error>;

/// The namespace of the tests.
pub(crate) const NAMESPACE: &str = "test";
/// Who may ask.
const TOKEN: &str = "the-token-of-the-tests";

/// What the cluster has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kit {
    /// Pods.
    Plain,
    /// Also Sandboxes.
    Sandboxes,
    /// Also SandboxClaims.
    Claims,
}

/// How a request is to go wrong.
#[derive(Clone, Debug)]
pub(crate) enum Cut {
    /// The connection breaks before anything is done.
    Before,
    /// It is done, but the answer is lost.
    After,
    /// The answer begins, then the connection breaks.
    Amid,
    /// Refused with this status and message.
    Refused(u16, &'static str),
}

/// What the tests change while the cluster runs.
#[derive(Default)]
pub(crate) struct Weather {
    /// By request, such as "POST pods" or "WATCH pods": how it goes wrong and how many times.
    pub(crate) faults: HashMap<&'static str, (Cut, u32)>,
    /// Most pods in the namespace.
    pub(crate) quota: Option<usize>,
    /// No node takes pods.
    pub(crate) full: bool,
    /// Nodes cannot get the image.
    pub(crate) no_image: bool,
    /// The node speaks only the older exec protocol.
    pub(crate) old_exec: bool,
    /// What an admission controller changes in each pod: a JSON merge patch of its specification.
    pub(crate) mutation: Option<Value>,
    /// Every request so far.
    pub(crate) log: Vec<String>,
}

pub(crate) struct Shared {
    state: Mutex<State>,
    weather: Mutex<Weather>,
    changed: watch::Sender<u64>,
    native: Native,
    kit: Kit,
    waiting: Mutex<HashMap<String, node::Waiting>>,
}

/// A running cluster; dropping it ends it with all its pods.
pub(crate) struct Cluster {
    shared: Arc<Shared>,
    kubeconfig: PathBuf,
    dir: Option<tempfile::TempDir>,
    runtime: Option<tokio::runtime::Runtime>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cluster {
    pub(crate) fn start(config: &NativeConfig, kit: Kit) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            weather: Mutex::default(),
            changed: watch::channel(0).0,
            native: Native::new(config.clone()).unwrap(),
            kit,
            waiting: Mutex::default(),
        });
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(dir.path().join("ca.pem"), made.cert.pem()).unwrap();
        let key = tokio_rustls::rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der())
            .unwrap();
        let tls = tokio_rustls::rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(listen(listener, tls, Arc::clone(&shared)));
        let kubeconfig = dir.path().join("kubeconfig");
        std::fs::write(&kubeconfig, kubeconfig_of(address, &dir.path().join("ca.pem"), TOKEN)).unwrap();
        Self { shared, kubeconfig, dir: Some(dir), runtime: Some(runtime) }
    }

    /// How to reach it: the file that `kubectl` would read.
    pub(crate) fn kubeconfig(&self) -> &std::path::Path {
        &self.kubeconfig
    }

    /// The same with a token that nobody knows.
    pub(crate) fn kubeconfig_of_a_stranger(&self) -> PathBuf {
        let text = std::fs::read_to_string(&self.kubeconfig).unwrap().replace(TOKEN, "another");
        let path = self.kubeconfig.with_file_name("stranger");
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn weather(&self) -> MutexGuard<'_, Weather> {
        lock(&self.shared.weather)
    }

    /// Forgets old versions, as a real server does every few minutes.
    pub(crate) fn compact(&self) {
        lock(&self.shared.state).compact();
    }

    pub(crate) fn objects(&self, resource: &str) -> Vec<Value> {
        lock(&self.shared.state).all(resource)
    }

    /// Puts an object there as somebody else would.
    pub(crate) fn apply(&self, resource: &str, object: Value) {
        self.shared.put(resource, "ADDED", object);
    }

    /// A warm pool with so many pods of this specification.
    pub(crate) fn pool(&self, name: &str, size: usize, spec: &Value) -> Pool {
        let _context = self.runtime.as_ref().unwrap().enter();
        Pool::new(&self.shared, name, size, spec)
    }

    /// Everything that is left of sandboxes: objects, whether they run or not.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let ours = |object: &&Value| object["metadata"]["labels"]["atoll.sandbox"].is_string();
        let of = |resource: &str| {
            let all = self.objects(resource);
            all.iter()
                .filter(ours)
                .map(|object| {
                    format!("{resource}/{}: {}", object["metadata"]["name"], object["status"]["phase"])
                })
                .collect::<Vec<_>>()
        };
        [of("pods"), of("sandboxes"), of("sandboxclaims")].concat()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        lock(&self.shared.waiting).clear();
        drop(self.dir.take());
    }
}

fn kubeconfig_of(address: SocketAddr, ca: &std::path::Path, token: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{ "name": "test", "cluster": {
            "server": format!("https://{address}"), "certificate-authority": ca, "tls-server-name": "localhost" } }],
        "users": [{ "name": "test", "user": { "token": token } }],
        "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test", "namespace": "elsewhere" } }],
    })
    .to_string()
}

async fn listen(
    listener: std::net::TcpListener,
    tls: tokio_rustls::rustls::ServerConfig,
    shared: Arc<Shared>,
) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            let _ = socket.set_nodelay(true); // as real ones do
            let Ok(socket) = acceptor.accept(socket).await else { return };
            let service = hyper::service::service_fn(move |request| Arc::clone(&shared).serve(request));
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service)
                .with_upgrades();
            let _broken_on_purpose = connection.await;
        });
    }
}

fn full(code: u16, value: &Value) -> Response<Body> {
    let body = Full::new(Bytes::from(value.to_string())).map_err(|never| match never {}).boxed_unsync();
    Response::builder().status(code).header("content-type", "application/json").body(body).unwrap()
}

fn refused(code: u16, message: &str) -> Response<Body> {
    full(code, &failure(code, message))
}

fn failure(code: u16, message: &str) -> Value {
    let reason = match code {
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "AlreadyExists",
        410 => "Expired",
        _ => "Unknown",
    };
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": reason,
            "message": message, "code": code })
}

/// The parameters of a query, in order.
fn query(request: &Request<Incoming>) -> Vec<(String, String)> {
    let pairs = request.uri().query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.map(|(name, value)| (decoded(name), decoded(value))).collect()
}

fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, tail @ ..] = rest {
        (bytes, rest) = match (first, tail) {
            (b'%', [high, low, tail @ ..]) => {
                let hex = [*high, *low];
                let byte = u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap();
                ([bytes, vec![byte]].concat(), tail)
            }
            (b'+', _) => ([bytes, vec![b' ']].concat(), tail),
            _ => ([bytes, vec![*first]].concat(), tail),
        };
    }
    String::from_utf8(bytes).unwrap()
}

/// A request as far as routes and faults know it.
struct Asked {
    resource: String,
    name: Option<String>,
    exec: bool,
    query: Vec<(String, String)>,
}

impl Asked {
    fn get(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn word(&self, method: &Method) -> String {
        let watch = self.get("watch") == Some("true");
        let verb = match (method.as_str(), &self.name) {
            _ if self.exec => "EXEC",
            ("GET", None) if watch => "WATCH",
            ("GET", None) => "LIST",
            (other, _) => other,
        };
        format!("{verb} {}", self.resource)
    }
}

impl Shared {
    async fn serve(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        let authorization = request.headers().get("authorization").and_then(|value| value.to_str().ok());
        if authorization != Some(&format!("Bearer {TOKEN}")) {
            return Ok(refused(401, "Unauthorized"));
        }
        let path = request.uri().path().to_owned();
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (resource, rest) = match parts[..] {
            ["apis", group, "v1beta1"] => return Ok(self.discovery(group)),
            ["api", "v1", "namespaces", namespace, resource, ref rest @ ..]
            | ["apis", _, _, "namespaces", namespace, resource, ref rest @ ..] => {
                if namespace != NAMESPACE && request.method() == Method::POST {
                    return Ok(refused(404, &format!("namespaces \"{namespace}\" not found")));
                }
                (resource.to_owned(), rest)
            }
            _ => return Ok(refused(404, "the server could not find the requested resource")),
        };
        let asked = Asked {
            resource,
            name: rest.first().map(|name| (*name).to_owned()),
            exec: rest.get(1) == Some(&"exec"),
            query: query(&request),
        };
        let word = asked.word(request.method());
        lock(&self.weather).log.push(word.clone());
        match self.fault(&word) {
            None => self.answer(asked, request).await,
            Some(Cut::Before) => Err(io::Error::other("cut")),
            Some(Cut::After) => {
                let _lost = self.answer(asked, request).await;
                Err(io::Error::other("cut"))
            }
            Some(Cut::Amid) if asked.exec => self.exec(&asked, request, exec::Cut::AtOnce),
            Some(Cut::Amid) => {
                let broken = futures_util::stream::iter([
                    Ok(Frame::data(Bytes::from_static(b"{"))),
                    Err(io::Error::other("cut")),
                ]);
                Ok(Response::new(StreamBody::new(broken).boxed_unsync()))
            }
            Some(Cut::Refused(code, message)) => Ok(refused(code, message)),
        }
    }

    fn fault(&self, word: &str) -> Option<Cut> {
        let mut weather = lock(&self.weather);
        let (cut, times) = weather.faults.get_mut(word)?;
        *times = times.checked_sub(1)?;
        Some(cut.clone())
    }

    fn discovery(&self, group: &str) -> Response<Body> {
        let (name, kind) = match (group, self.kit) {
            ("agents.x-k8s.io", Kit::Sandboxes | Kit::Claims) => ("sandboxes", "Sandbox"),
            ("extensions.agents.x-k8s.io", Kit::Claims) => ("sandboxclaims", "SandboxClaim"),
            _ => return refused(404, "the server could not find the requested resource"),
        };
        let resource = json!({ "name": name, "singularName": kind.to_lowercase(), "namespaced": true, "kind": kind,
                               "verbs": ["create", "delete", "get", "list", "watch"] });
        full(
            200,
            &json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{group}/v1beta1"),
                           "resources": [resource] }),
        )
    }

    async fn answer(self: Arc<Self>, asked: Asked, mut request: Request<Incoming>) -> Answer {
        let resource = asked.resource.clone();
        let selector = asked.get("labelSelector").unwrap_or_default().to_owned();
        match (request.method().clone(), asked.name.clone()) {
            (Method::GET | Method::POST, Some(_)) if asked.exec => {
                self.exec(&asked, request, exec::Cut::Never)
            }
            (Method::GET, None) if asked.get("watch") == Some("true") => {
                let version = asked.get("resourceVersion").and_then(|version| version.parse().ok());
                Ok(self.watch(resource, version.unwrap_or(0), selector))
            }
            (Method::GET, None) => {
                let state = lock(&self.state);
                let items: Vec<Value> = state
                    .all(&resource)
                    .into_iter()
                    .filter(|object| store::matches(object, &selector))
                    .collect();
                let metadata = json!({ "resourceVersion": state.version().to_string() });
                Ok(full(
                    200,
                    &json!({ "kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items }),
                ))
            }
            (Method::POST, None) => {
                let body = request.body_mut().collect().await.map_err(io::Error::other)?.to_bytes();
                Ok(match self.create(&resource, serde_json::from_slice(&body).unwrap()) {
                    Ok(object) => full(StatusCode::CREATED.as_u16(), &object),
                    Err((code, message)) => refused(code, &message),
                })
            }
            (Method::GET, Some(name)) => Ok(match lock(&self.state).get(&resource, &name) {
                Some(object) => full(200, &object),
                None => refused(404, &format!("{resource} \"{name}\" not found")),
            }),
            (Method::DELETE, Some(name)) => {
                let body = request.body_mut().collect().await.map_err(io::Error::other)?.to_bytes();
                let options: Value = serde_json::from_slice(&body).unwrap_or_default();
                let uid = options["preconditions"]["uid"].as_str();
                Ok(match self.delete(&resource, &name, uid) {
                    Ok(object) => full(200, &object),
                    Err((code, message)) => refused(code, &message),
                })
            }
            _ => Ok(refused(405, "the server does not allow this method on the requested resource")),
        }
    }

    fn watch(self: Arc<Self>, resource: String, version: u64, selector: String) -> Response<Body> {
        let start = (version, self.changed.subscribe(), false);
        let stream = futures_util::stream::unfold(start, move |(seen, mut changed, over)| {
            let (shared, resource, selector) = (Arc::clone(&self), resource.clone(), selector.clone());
            async move {
                if over {
                    return None;
                }
                loop {
                    let next = lock(&shared.state).after(seen, &resource, &selector);
                    let (version, line, over) = match next {
                        Err(()) => (
                            seen,
                            json!({ "type": "ERROR", "object": failure(410, "too old resource version") }),
                            true,
                        ),
                        Ok(Some((version, kind, object))) => {
                            (version, json!({ "type": kind, "object": object }), false)
                        }
                        Ok(None) => {
                            changed.changed().await.ok()?;
                            continue;
                        }
                    };
                    let bytes = Bytes::from(format!("{line}\n"));
                    return Some((Ok(Frame::data(bytes)), (version, changed, over)));
                }
            }
        });
        let body = StreamBody::new(stream.boxed()).boxed_unsync();
        Response::builder().header("content-type", "application/json").body(body).unwrap()
    }

    fn put(&self, resource: &str, kind: &'static str, object: Value) {
        let version = lock(&self.state).put(resource, kind, object);
        self.changed.send_replace(version);
    }

    /// Changes an object that is still the same one.
    fn change(&self, resource: &str, name: &str, uid: &Value, change: impl FnOnce(&mut Value)) -> bool {
        let version = {
            let mut state = lock(&self.state);
            let Some(mut object) = state.get(resource, name).filter(|found| found["metadata"]["uid"] == *uid)
            else {
                return false;
            };
            change(&mut object);
            state.put(resource, "MODIFIED", object)
        };
        self.changed.send_replace(version);
        true
    }
}
