//! The secret proxy against origins that reflect whatever they are sent, in every form and coding, cut at every offset.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::{Arc, Mutex};

use atoll_bindings::body::RequestBody;
use atoll_bindings::channel::Channel;
use atoll_bindings::crossing::{Denial, Verdict};
use atoll_bindings::egress::{Caps, EgressNet, Gate, HostPattern, Policy, PrivateAllow, Resolver, Rule};
use atoll_bindings::proxy::{Injection, ProxyRule, Recipe, Secret, SecretProxy, SecretSource, SigV4};
use atoll_bindings::seam::CallError;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{Method, Request, Response};
use http_body_util::Full;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::outside::{NameServer, Told, Web, context, get, text};

const CANARY: &str = "ghp_/S3cr\"t+Canary=9";

/// Secrets that a test can change.
#[derive(Default)]
struct Vault(Mutex<HashMap<String, (String, u64)>>);

impl Vault {
    fn with(name: &str, value: &str) -> Arc<Self> {
        let vault = Self::default();
        vault.put(name, value);
        Arc::new(vault)
    }

    fn put(&self, name: &str, value: &str) {
        let mut secrets = self.0.lock().unwrap();
        let version = secrets.get(name).map_or(1, |(_, version)| version + 1);
        secrets.insert(name.to_owned(), (value.to_owned(), version));
    }
}

impl SecretSource for Vault {
    fn secret(&self, tenant: &str, name: &str) -> Option<Secret> {
        assert_eq!(tenant, "acme");
        let secrets = self.0.lock().unwrap();
        let (value, version) = secrets.get(name)?;
        Some(Secret::new(value.clone().into_bytes().into(), *version))
    }
}

fn net(port: u16) -> EgressNet {
    let allow: PrivateAllow = format!("127.0.0.1:{port}").parse().unwrap();
    EgressNet::new([allow], []).unwrap()
}

fn policy(origin: &str, methods: &[&str], paths: &[&str]) -> Policy {
    let rule = Rule {
        origin: origin.parse::<HostPattern>().unwrap(),
        methods: methods.iter().map(|method| method.parse().unwrap()).collect(),
        paths: paths.iter().map(|path| path.parse().unwrap()).collect(),
    };
    Policy { allow: vec![rule], deny: Vec::new() }
}

fn proxy(net: &EgressNet, policy: Policy, injection: Injection, vault: &Arc<Vault>) -> SecretProxy {
    let rule = ProxyRule { name: "github".into(), policy, secret: "token".into(), injection };
    let gate = Arc::new(Gate::new(Caps::default()));
    SecretProxy::new(net, Arc::new(rule), gate, None, "acme".into(), vault.clone())
}

/// Everything that a server may make of a secret.
fn forms(secret: &str) -> Vec<(&'static str, Vec<u8>)> {
    let each = |f: &dyn Fn(u8) -> String| secret.bytes().map(f).collect::<String>().into_bytes();
    let b64 = |before: &str| STANDARD.encode(format!("{before}{secret}")).into_bytes();
    vec![
        ("raw", secret.into()),
        ("base64", b64("")),
        ("base64-1", b64("x")),
        ("base64-2", b64("xy")),
        ("base64url", URL_SAFE_NO_PAD.encode(format!("xy{secret}")).into_bytes()),
        ("hex", each(&|b| format!("{b:02x}"))),
        ("HEX", each(&|b| format!("{b:02X}"))),
        ("percent", each(&|b| format!("%{b:02X}"))),
        ("json", serde_json::to_vec(secret).unwrap()),
        ("utf16", secret.bytes().flat_map(|b| [b, 0]).collect()),
        ("entities", each(&|b| format!("&#{b};"))),
    ]
}

fn coded(coding: &str, body: &[u8]) -> Vec<u8> {
    match coding {
        "gzip" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(body).unwrap();
            encoder.finish().unwrap()
        }
        "deflate" => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(body).unwrap();
            encoder.finish().unwrap()
        }
        "br" => {
            let mut out = Vec::new();
            brotli::CompressorWriter::new(&mut out, 4096, 1, 20).write_all(body).unwrap();
            out
        }
        "zstd" => zstd::encode_all(body, 1).unwrap(),
        _ => body.to_vec(),
    }
}

/// An origin that answers `/FORM/CODING/CUT` with the credential it was sent, in that form, in a header and in a body of two
/// chunks that are cut there; everything in the head is reflected as well.
async fn reflecting() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await?);
                }
                let head = String::from_utf8(head).unwrap();
                let sent = head.lines().find_map(|line| line.strip_prefix("authorization: Bearer "));
                let path: Vec<&str> = head.split(' ').nth(1).unwrap().split('/').collect();
                let (form, coding) = (path[1], path[2]);
                let (_, form) = forms(sent.unwrap_or("none"))
                    .into_iter()
                    .find(|(name, _)| *name == form)
                    .unwrap_or(("", head.clone().into_bytes()));
                let body = coded(coding, &[b"before ", &form[..], b" after"].concat());
                let cut = path[3].parse::<usize>().unwrap().min(body.len());
                let mut out = format!(
                    "HTTP/1.1 200 {}\r\ncontent-encoding: {coding}\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\
                     set-cookie: a={}\r\n",
                    sent.unwrap_or_default(),
                    sent.unwrap_or_default()
                )
                .into_bytes();
                if form.iter().all(|byte| byte.is_ascii_graphic()) {
                    out.extend([b"x-echo: <", &form[..], b">\r\n"].concat());
                }
                out.extend(b"\r\n");
                for chunk in [&body[..cut], &body[cut..]].into_iter().filter(|chunk| !chunk.is_empty()) {
                    out.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
                    out.extend(chunk);
                    out.extend(b"\r\n");
                    stream.write_all(&out).await?;
                    stream.flush().await?;
                    out.clear();
                    tokio::task::yield_now().await;
                }
                out.extend(b"0\r\n\r\n");
                stream.write_all(&out).await
            });
        }
    });
    port
}

/// Everything of an answer that a guest sees.
async fn seen(proxy: &SecretProxy, url: &str) -> Vec<u8> {
    match proxy.fetch(context(), get(url)).await {
        Ok(response) => {
            let mut all = format!("{:?} {:?}", response.headers(), response.extensions()).into_bytes();
            let meta = response.extensions().get::<atoll_bindings::channel::ReplyMeta>().cloned();
            all.extend(format!("{meta:?}").into_bytes());
            match text(response).await {
                Ok(body) => all.extend(&body),
                Err(error) => all.extend(error.into_bytes()),
            }
            all
        }
        Err(error) => format!("{error:?}").into_bytes(),
    }
}

fn is_clean(secret: &str, all: &[u8], what: &str) {
    for (name, form) in forms(secret) {
        // At the border of base64 one character mixes in bits of its neighbour: the middle decides.
        let core = if name.starts_with("base64") { &form[4..form.len() - 5] } else { &form[..] };
        let found = all.windows(core.len()).any(|window| window.eq_ignore_ascii_case(core));
        assert!(!found, "{what}: {name} in {}", String::from_utf8_lossy(all));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reflected_secret_is_in_no_byte_that_a_guest_sees() {
    let port = reflecting().await;
    let vault = Vault::with("token", CANARY);
    let origin = format!("http://127.0.0.1:{port}");
    let proxy = proxy(&net(port), policy(&origin, &[], &[]), Injection::Bearer, &vault);
    for (name, form) in forms(CANARY) {
        for cut in 0..form.len() + 13 {
            let all = seen(&proxy, &format!("{origin}/{name}/identity/{cut}")).await;
            is_clean(CANARY, &all, &format!("{name} cut at {cut}"));
            let text = String::from_utf8_lossy(&all);
            assert!(text.contains("before ") && text.contains(" after"), "{name} {cut}: {text}");
        }
        for coding in ["gzip", "deflate", "br", "zstd"] {
            for cut in [1, 3, 9, 1_000] {
                let all = seen(&proxy, &format!("{origin}/{name}/{coding}/{cut}")).await;
                is_clean(CANARY, &all, &format!("{name} in {coding}"));
                assert!(String::from_utf8_lossy(&all).contains(" after"), "{name} {coding}");
            }
        }
        // A coding that nobody knows is not let through.
        let all = seen(&proxy, &format!("{origin}/{name}/compress/5")).await;
        assert!(String::from_utf8_lossy(&all).contains("egress_unreadable"), "{name}");
    }
    let all = seen(&proxy, &format!("{origin}/head/identity/50")).await;
    is_clean(CANARY, &all, "the whole head");
}

/// A TLS origin that answers with the head that it was sent, and what came.
async fn echo(told: Arc<Mutex<Vec<(http::request::Parts, bytes::Bytes)>>>) -> Web {
    Web::tls(&["api.test"], move |parts, body| {
        let mut response = Response::new(Full::from("ok"));
        match parts.uri.path() {
            "/redirect" => {
                *response.status_mut() = http::StatusCode::FOUND;
                response.headers_mut().insert("location", "https://evil.test/".parse().unwrap());
            }
            "/token" => {
                let number = told.lock().unwrap().len();
                let answer = format!("{{\"access_token\":\"minted-token-{number}\",\"expires_in\":3600}}");
                *response.body_mut() = Full::from(answer);
            }
            "/expired" => *response.status_mut() = http::StatusCode::UNAUTHORIZED,
            _ => {}
        }
        told.lock().unwrap().push((parts, body));
        response
    })
    .await
}

struct World {
    web: Web,
    net: EgressNet,
    heard: Arc<Mutex<Vec<(http::request::Parts, bytes::Bytes)>>>,
    told: Arc<Told>,
    vault: Arc<Vault>,
}

impl World {
    async fn new() -> Self {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let web = echo(heard.clone()).await;
        let names = NameServer::new(&[("api.test", &[&["127.0.0.1"]])]).await;
        let told = Arc::new(Told::default());
        let allow: PrivateAllow = format!("127.0.0.1:{}", web.port).parse().unwrap();
        let net = EgressNet::new([allow], [web.root.clone()])
            .unwrap()
            .with_resolver(Resolver::with_servers(&[names.address]).unwrap())
            .with_witness(told.clone());
        Self { web, net, heard, told, vault: Vault::with("token", "first-canary") }
    }

    fn url(&self, path: &str) -> String {
        format!("https://api.test:{}{path}", self.web.port)
    }

    fn proxy(&self, injection: Injection) -> SecretProxy {
        let origin = format!("https://api.test:{}", self.web.port);
        proxy(&self.net, policy(&origin, &["GET", "POST", "TRACE"], &["/"]), injection, &self.vault)
    }

    fn last(&self) -> http::request::Parts {
        self.heard.lock().unwrap().last().unwrap().0.clone()
    }
}

fn header(parts: &http::request::Parts, name: &str) -> Vec<String> {
    parts.headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn exactly_one_credential_arrives_and_a_rotation_counts_at_once() {
    let world = World::new().await;
    let proxy = world.proxy(Injection::Bearer);
    let request = Request::get(world.url("/x?access_token=guest&a=1"))
        .header("Authorization", "Bearer guest")
        .header("authorization", "Basic Z3Vlc3Q=")
        .header("proxy-authorization", "guest")
        .header("cookie", "a=1")
        .header("x_api_key", "guest")
        .header("x-kept", "kept")
        .body(RequestBody::Empty)
        .unwrap();
    assert_eq!(proxy.fetch(context(), request).await.unwrap().status(), 200);
    let heard = world.last();
    assert_eq!(header(&heard, "authorization"), ["Bearer first-canary"]);
    assert_eq!(heard.uri.query(), Some("a=1"));
    assert!(
        ["cookie", "proxy-authorization", "x_api_key"].iter().all(|name| header(&heard, name).is_empty())
    );
    assert_eq!(
        (header(&heard, "x-kept"), header(&heard, "accept-encoding")),
        (vec!["kept".into()], vec!["identity".into()])
    );

    let connections = *world.web.connections.lock().unwrap();
    world.vault.put("token", "second-canary");
    proxy.fetch(context(), get(&world.url("/x"))).await.unwrap();
    assert_eq!(header(&world.last(), "authorization"), ["Bearer second-canary"]);
    assert!(*world.web.connections.lock().unwrap() > connections, "an old connection carried the new secret");
}

#[tokio::test]
async fn what_the_rule_does_not_name_is_denied_and_redirects_come_back() {
    let world = World::new().await;
    let proxy = world.proxy(Injection::Bearer);
    let redirect = proxy.fetch(context(), get(&world.url("/redirect"))).await.unwrap();
    assert_eq!(
        (redirect.status().as_u16(), &redirect.headers()["location"]),
        (302, &"https://evil.test/".parse().unwrap())
    );
    drop(redirect);
    for (method, url, code) in [
        ("TRACE", world.url("/"), "egress_method"),
        ("DELETE", world.url("/"), "egress_method"),
        ("GET", format!("http://api.test:{}/", world.web.port), "egress_origin"),
        ("GET", "https://api.test/".to_owned(), "egress_origin"),
        ("GET", format!("https://evil.test:{}/", world.web.port), "egress_origin"),
    ] {
        let request = Request::builder().method(method).uri(&url).body(RequestBody::Empty).unwrap();
        match proxy.fetch(context(), request).await {
            Err(CallError::Denied(text)) => assert!(text.contains(code), "{method} {url}: {text}"),
            other => panic!("{method} {url}: {:?}", other.map(|response| response.status())),
        }
    }
    // A missing secret and a server that is not there look alike; the trail knows better.
    world.vault.0.lock().unwrap().clear();
    let missing = proxy.fetch(context(), get(&world.url("/x"))).await.map(|_| ()).unwrap_err();
    assert!(matches!(&missing, CallError::Network(text) if text == "the upstream failed"), "{missing:?}");
    let verdicts: Vec<Verdict> = world.told.0.lock().unwrap().iter().map(|told| told.verdict).collect();
    assert_eq!(verdicts.last(), Some(&Verdict::Denied(Denial::Credential)));
    assert_eq!(verdicts[0], Verdict::Answered(302));
}

#[tokio::test]
async fn each_injection_says_the_credential_in_its_own_way() {
    let world = World::new().await;
    let one = |injection: Injection| {
        let (proxy, url) = (world.proxy(injection), world.url("/x/y?b=2&key=guest&a=1"));
        async move {
            let request = Request::post(url).body(RequestBody::Full("body".into())).unwrap();
            assert_eq!(proxy.fetch(context(), request).await.unwrap().status(), 200);
        }
    };
    one(Injection::Header { name: "x-token".parse().unwrap(), before: "v1 ".into(), after: ";".into() })
        .await;
    assert_eq!(header(&world.last(), "x-token"), ["v1 first-canary;"]);
    one(Injection::Basic { user: "ann".into() }).await;
    let basic = format!("Basic {}", STANDARD.encode("ann:first-canary"));
    assert_eq!(header(&world.last(), "authorization"), [basic]);
    one(Injection::Query { name: "key".into() }).await;
    assert_eq!(world.last().uri.query(), Some("b=2&a=1&key=first-canary"));
    let (signature, timestamp) = ("x-signature".parse().unwrap(), "x-timestamp".parse().unwrap());
    one(Injection::Hmac { signature, timestamp }).await;
    let heard = world.last();
    let signed = format!(
        "{}\nPOST\n/x/y?b=2&a=1\n{}",
        header(&heard, "x-timestamp")[0],
        hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"body").as_ref())
    );
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"first-canary");
    assert_eq!(header(&heard, "x-signature"), [hex(aws_lc_rs::hmac::sign(&key, signed.as_bytes()).as_ref())]);
    let aws = SigV4 { access_key_id: "AKID".into(), region: "eu-west-1".into(), service: "s3".into() };
    one(Injection::SigV4(aws)).await;
    let heard = world.last();
    assert!(header(&heard, "authorization")[0].starts_with("AWS4-HMAC-SHA256 Credential=AKID/"));
    assert_eq!(heard.uri.query(), Some("a=1&b=2&key=guest"));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn minted_credentials_are_had_once_and_again_when_they_are_refused() {
    let world = World::new().await;
    let recipe = Recipe::ClientCredentials {
        token_url: world.url("/token").parse().unwrap(),
        client_id: "me".into(),
        scope: Some("read write".into()),
    };
    let proxy = world.proxy(Injection::Minted(recipe));
    let asks = (0..8).map(|_| {
        let (proxy, url) = (proxy.clone(), world.url("/x"));
        tokio::spawn(async move { proxy.fetch(context(), get(&url)).await.unwrap().status() })
    });
    for ask in asks.collect::<Vec<_>>() {
        assert_eq!(ask.await.unwrap(), 200);
    }
    let asked =
        |path: &str| world.heard.lock().unwrap().iter().filter(|(parts, _)| parts.uri.path() == path).count();
    assert_eq!((asked("/token"), asked("/x")), (1, 8));
    let first = world.heard.lock().unwrap()[0].clone();
    let pair = format!("Basic {}", STANDARD.encode("me:first%2Dcanary"));
    assert_eq!((header(&first.0, "authorization"), first.0.method), (vec![pair], Method::POST));
    assert_eq!(&first.1[..], b"grant_type=client_credentials&scope=read%20write");
    assert_eq!(header(&world.last(), "authorization"), ["Bearer minted-token-0"]);
    // The server takes it back: the next request has a new one.
    proxy.fetch(context(), get(&world.url("/expired"))).await.unwrap();
    proxy.fetch(context(), get(&world.url("/x"))).await.unwrap();
    assert_eq!(asked("/token"), 2);
    assert_ne!(header(&world.last(), "authorization"), ["Bearer minted-token-0"]);
}
