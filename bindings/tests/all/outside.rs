//! A small outside world: a name server, and an origin over TLS that speaks HTTP/1 and HTTP/2.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use atoll_bindings::body::RequestBody;
use atoll_bindings::channel::CallContext;
use atoll_bindings::crossing::{Crossing, Witness};
use atoll_bindings::seam::{Identity, InvocationId};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::CertificateDer;
use tokio::net::{TcpListener, UdpSocket};

/// Answers A and AAAA questions from a table; each question takes the next answer, the last one stays.
pub struct NameServer {
    pub address: SocketAddr,
    pub asked: Arc<Mutex<Vec<String>>>,
}

impl NameServer {
    pub async fn new(table: &[(&str, &[&[&str]])]) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let mut table: HashMap<String, Vec<Vec<IpAddr>>> = table
            .iter()
            .map(|(name, answers)| {
                let parse = |answer: &&[&str]| answer.iter().map(|ip| ip.parse().unwrap()).collect();
                ((*name).to_owned(), answers.iter().map(parse).collect())
            })
            .collect();
        let log = Arc::clone(&asked);
        tokio::spawn(async move {
            let mut bytes = [0; 1500];
            while let Ok((length, peer)) = socket.recv_from(&mut bytes).await {
                let _ = socket.send_to(&answer(&bytes[..length], &mut table, &log), peer).await;
            }
        });
        Self { address, asked }
    }
}

fn answer(query: &[u8], table: &mut HashMap<String, Vec<Vec<IpAddr>>>, log: &Mutex<Vec<String>>) -> Vec<u8> {
    let (mut labels, mut at) = (Vec::new(), 12);
    while query[at] != 0 {
        let length = usize::from(query[at]);
        labels.push(String::from_utf8_lossy(&query[at + 1..=at + length]).to_lowercase());
        at += 1 + length;
    }
    let name = labels.join(".");
    let wants_v6 = query[at + 2] == 28;
    let question = &query[12..at + 5];
    let addresses = match table.get_mut(&name) {
        None => Vec::new(),
        // A and AAAA of one lookup see the same state: it moves on with the A question.
        Some(answers) if answers.len() > 1 && !wants_v6 => answers.remove(0),
        Some(answers) => answers[0].clone(),
    };
    if !wants_v6 {
        log.lock().unwrap().push(name);
    }
    let records: Vec<_> = addresses.into_iter().filter(|address| address.is_ipv6() == wants_v6).collect();
    let mut out = query[..2].to_vec();
    out.extend([0x81, 0x80, 0, 1, 0, u8::try_from(records.len()).unwrap(), 0, 0, 0, 0]);
    out.extend(question);
    for address in records {
        // A pointer to the name, class IN, no time to live: nothing may be kept.
        let (kind, bytes) = match address {
            IpAddr::V4(v4) => (1, v4.octets().to_vec()),
            IpAddr::V6(v6) => (28, v6.octets().to_vec()),
        };
        out.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 0, 0, u8::try_from(bytes.len()).unwrap()]);
        out.extend(bytes);
    }
    out
}

/// What an origin answers with.
pub type Answer = Response<Full<Bytes>>;

/// An origin over TLS, or in plain text, on 127.0.0.1.
pub struct Web {
    pub port: u16,
    /// The authority that signed its certificate.
    pub root: CertificateDer<'static>,
    /// Connections that were accepted.
    pub connections: Arc<Mutex<usize>>,
}

impl Web {
    pub async fn tls<F>(names: &[&str], answer: F) -> Self
    where
        F: Fn(http::request::Parts, Bytes) -> Answer + Send + Sync + 'static,
    {
        let (root, config) = certificate(names);
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        Self::start(root, Some(acceptor), answer).await
    }

    pub async fn plain<F>(answer: F) -> Self
    where
        F: Fn(http::request::Parts, Bytes) -> Answer + Send + Sync + 'static,
    {
        Self::start(certificate(&["unused.example"]).0, None, answer).await
    }

    async fn start<F>(
        root: CertificateDer<'static>,
        tls: Option<tokio_rustls::TlsAcceptor>,
        answer: F,
    ) -> Self
    where
        F: Fn(http::request::Parts, Bytes) -> Answer + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (answer, connections) = (Arc::new(answer), Arc::new(Mutex::new(0)));
        let counter = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                *counter.lock().unwrap() += 1;
                let (answer, tls) = (Arc::clone(&answer), tls.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request: Request<Incoming>| {
                        let answer = Arc::clone(&answer);
                        async move {
                            let (parts, body) = request.into_parts();
                            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                            Ok::<_, Infallible>(answer(parts, body))
                        }
                    });
                    match tls {
                        None => {
                            let http = hyper::server::conn::http1::Builder::new();
                            let _ = http.serve_connection(TokioIo::new(stream), service).await;
                        }
                        Some(tls) => {
                            let Ok(stream) = tls.accept(stream).await else { return };
                            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                                let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                                let _ = http.serve_connection(TokioIo::new(stream), service).await;
                            } else {
                                let http = hyper::server::conn::http1::Builder::new();
                                let _ = http.serve_connection(TokioIo::new(stream), service).await;
                            }
                        }
                    }
                });
            }
        });
        Self { port, root, connections }
    }
}

/// An authority, and a server's configuration with a certificate of it for these names.
pub fn certificate(names: &[&str]) -> (CertificateDer<'static>, rustls::ServerConfig) {
    let mut params = rcgen::CertificateParams::default();
    // Of another name than the certificates that it signs, or some clients take those for their own issuers.
    params.distinguished_name.push(rcgen::DnType::CommonName, "the tests' authority");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let ca = params.self_signed(&ca_key).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let issuer = rcgen::Issuer::new(params, ca_key);
    let leaf = rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key.serialize_der().try_into().unwrap())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    (ca.der().clone(), config)
}

/// Keeps what it is told.
#[derive(Default)]
pub struct Told(pub Mutex<Vec<Crossing>>);

impl Witness for Told {
    fn crossing(&self, crossing: Crossing) {
        self.0.lock().unwrap().push(crossing);
    }
}

pub fn context() -> CallContext {
    let identity = Identity { tenant: "acme".into(), worker: "w".into(), traceparent: None };
    CallContext::new(identity, InvocationId(1))
}

pub fn get(url: &str) -> Request<RequestBody> {
    Request::get(url).body(RequestBody::Empty).unwrap()
}

/// All of a body, or its error as text.
pub async fn text(response: Response<RequestBody>) -> Result<Bytes, String> {
    response.into_body().collect().await.map(|body| body.to_bytes()).map_err(|error| error.to_string())
}
