//! Policy classes, names, TLS, codings and caps, over real sockets.

use std::io::Write as _;
use std::sync::Arc;

use atoll_bindings::body::RequestBody;
use atoll_bindings::channel::Channel;
use atoll_bindings::crossing::{Denial, Verdict};
use atoll_bindings::egress::{
    Caps, Egress, EgressNet, Gate, Grant, HostPattern, Policy, PrivateAllow, RATIO_FREE_BYTES, Resolver, Rule,
};
use atoll_bindings::seam::CallError;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;

use crate::outside::{NameServer, Told, Web, context, get, text};

fn allow(list: &[&str]) -> Vec<PrivateAllow> {
    list.iter().map(|text| text.parse().unwrap()).collect()
}

fn granted(net: &EgressNet, hosts: &[&str], caps: Caps) -> Egress {
    let hosts = hosts.iter().map(|text| text.parse::<HostPattern>().unwrap()).collect();
    let grant = Grant {
        policies: vec![Policy::of(hosts)],
        class: Some("std".into()),
        gate: Arc::new(Gate::new(caps)),
        tunnels: Arc::default(),
    };
    Egress::granted(net, grant, "acme/w")
}

async fn denied(egress: &Egress, url: &str) -> String {
    match egress.fetch(context(), get(url)).await {
        Err(CallError::Denied(text)) => text,
        other => panic!("{url}: {:?}", other.map(|response| response.status())),
    }
}

#[tokio::test]
async fn every_spelling_of_a_forbidden_address_is_denied() {
    // A worker that may reach every name and port, in both schemes.
    let net = EgressNet::new([], []).unwrap();
    let egress = granted(&net, &["*:*", "http://*:*"], Caps::default());
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "017700000001",
        "127.0.0.1.",
        "%31%32%37.0.0.1",
        "１２７.0.0.1",
        "0",
        "0.0.0.0",
        "10.0.0.1",
        "167772161",
        "169.254.169.254",
        "2852039166",
        "0xa9fea9fe",
        "0251.0376.0251.0376",
        "100.100.100.200",
        "192.168.0.1",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::169.254.169.254]",
        "[64:ff9b:1::7f00:1]",
        "[2002:7f00:1::]",
        "[2001:0:7f00:1::]",
        "[fd00:ec2::254]",
        "[fe80::1]",
        "[fec0::1]",
        "[ff02::1]",
        "[100::1]",
        "localhost",
        "LOCALHOST",
    ] {
        for scheme in ["http", "https"] {
            // What the URI type of requests does not take comes as the URL parser gives it, as from a guest.
            let raw = format!("{scheme}://{host}:9/");
            let url = match raw.parse::<http::Uri>() {
                Ok(_) => raw,
                Err(_) => url::Url::parse(&raw).unwrap().to_string(),
            };
            match egress.fetch(context(), get(&url)).await {
                Err(CallError::Denied(text)) => assert!(text.ends_with("(egress_address)"), "{host}: {text}"),
                // A name that does not resolve reaches nothing either.
                Err(CallError::Network(text)) if host.to_lowercase().ends_with("localhost") => {
                    assert_eq!(text, "the name does not resolve");
                }
                other => panic!("{host}: {:?}", other.map(|response| response.status())),
            }
        }
    }
}

#[tokio::test]
async fn a_name_that_changes_its_address_is_dialled_where_it_was_vetted() {
    let web = Web::plain(|_, _| Response::new(Full::from("reached"))).await;
    let names = NameServer::new(&[
        // Public first, then the metadata service: the second answer is judged by itself.
        ("rebind.example", &[&["127.0.0.1"], &["169.254.169.254"]]),
        ("mixed.example", &[&["10.0.0.1", "127.0.0.1", "fd00::1"]]),
        ("inside.example", &[&["10.0.0.1", "fd00:ec2::254"]]),
    ])
    .await;
    let told = Arc::new(Told::default());
    let net = EgressNet::new(allow(&[&format!("127.0.0.1:{}", web.port)]), [])
        .unwrap()
        .with_resolver(Resolver::with_servers(&[names.address]).unwrap())
        .with_witness(told.clone());
    let egress = granted(&net, &["http://*:*"], Caps::default());
    let url = |name: &str| format!("http://{name}:{}/", web.port);

    let first = egress.fetch(context(), get(&url("rebind.example"))).await.unwrap();
    assert_eq!(text(first).await.unwrap(), "reached");
    // The pooled connection stays where it was vetted: nobody asks for the name again.
    let again = egress.fetch(context(), get(&url("rebind.example"))).await.unwrap();
    assert_eq!(text(again).await.unwrap(), "reached");
    assert_eq!(*web.connections.lock().unwrap(), 1);
    // A new pool asks, gets the new answer, and is denied.
    let other = granted(&net, &["http://*:*"], Caps::default());
    assert!(denied(&other, &url("rebind.example")).await.ends_with("(egress_address)"));
    assert_eq!(names.asked.lock().unwrap().iter().filter(|name| *name == "rebind.example").count(), 2);
    // Of several addresses only a vetted one is dialled; without one there is no connection.
    assert_eq!(
        text(egress.fetch(context(), get(&url("mixed.example"))).await.unwrap()).await.unwrap(),
        "reached"
    );
    assert!(denied(&egress, &url("inside.example")).await.ends_with("(egress_address)"));
    let missing = egress.fetch(context(), get(&url("missing.example"))).await;
    assert_eq!(missing.err().unwrap(), CallError::Network("the name does not resolve".into()));

    let verdicts: Vec<_> = told.0.lock().unwrap().iter().map(|crossing| crossing.verdict).collect();
    let address = Verdict::Denied(Denial::Address);
    assert_eq!(
        verdicts,
        [
            Verdict::Answered(200),
            Verdict::Answered(200),
            address,
            Verdict::Answered(200),
            address,
            Verdict::Failed
        ]
    );
}

#[tokio::test]
async fn an_address_that_the_operator_denies_is_denied_in_spite_of_an_exception() {
    let net = EgressNet::new(allow(&["127.0.0.0/8"]), []).unwrap().with_denied(allow(&["127.0.0.9"]));
    let egress = granted(&net, &["http://*:*"], Caps::default());
    assert!(denied(&egress, "http://127.0.0.9:1/").await.ends_with("(egress_address)"));
}

#[tokio::test]
async fn tls_is_checked_against_the_roots_and_the_name_in_the_url() {
    let web = Web::tls(&["api.example"], |parts, _| {
        Response::new(Full::from(format!("{:?} {}", parts.version, parts.uri)))
    })
    .await;
    let names =
        NameServer::new(&[("api.example", &[&["127.0.0.1"]]), ("other.example", &[&["127.0.0.1"]])]).await;
    let resolver = Resolver::with_servers(&[names.address]).unwrap();
    let private = allow(&[&format!("127.0.0.1:{}", web.port)]);
    let trusting =
        EgressNet::new(private.clone(), [web.root.clone()]).unwrap().with_resolver(resolver.clone());
    let egress = granted(&trusting, &["*:*"], Caps::default());
    let answer = egress.fetch(context(), get(&format!("https://api.example:{}/x", web.port))).await.unwrap();
    let said = String::from_utf8(text(answer).await.unwrap().to_vec()).unwrap();
    assert_eq!(
        said,
        format!("HTTP/2.0 https://api.example:{}/x", web.port),
        "h2 is spoken when the origin can"
    );

    let other = egress.fetch(context(), get(&format!("https://other.example:{}/", web.port))).await;
    let Err(CallError::Network(reason)) = other else {
        panic!("a certificate for another name was accepted")
    };
    assert!(reason.starts_with("TLS:"), "{reason}");
    let wary = EgressNet::new(private, []).unwrap().with_resolver(resolver);
    let wary = granted(&wary, &["*:*"], Caps::default());
    let unknown = wary.fetch(context(), get(&format!("https://api.example:{}/", web.port))).await;
    let Err(CallError::Network(reason)) = unknown else { panic!("an unknown authority was believed") };
    assert!(reason.starts_with("TLS:"), "{reason}");
}

#[tokio::test]
async fn two_capabilities_never_share_a_connection() {
    let web = Web::plain(|_, _| Response::new(Full::from("x"))).await;
    let net = EgressNet::new(allow(&["127.0.0.1"]), []).unwrap();
    let url = format!("http://127.0.0.1:{}/", web.port);
    for count in [1, 2, 3] {
        let egress = granted(&net, &["http://*:*"], Caps::default());
        for _ in 0..3 {
            text(egress.fetch(context(), get(&url)).await.unwrap()).await.unwrap();
        }
        assert_eq!(*web.connections.lock().unwrap(), count);
    }
}

#[tokio::test]
async fn a_redirect_is_judged_like_a_request() {
    let web = Web::plain(|parts, _| {
        let to = parts.uri.query().unwrap_or_default().to_owned();
        Response::builder().status(302).header("location", to).body(Full::default()).unwrap()
    })
    .await;
    let net = EgressNet::new(allow(&[&format!("127.0.0.1:{}", web.port)]), []).unwrap();
    let here = format!("http://127.0.0.1:{}", web.port);
    let rule = |origin: &str, paths: &[&str]| Rule {
        origin: origin.parse().unwrap(),
        methods: vec![Method::GET],
        paths: paths.iter().map(|path| path.parse().unwrap()).collect(),
    };
    let policy = Policy {
        allow: vec![rule(&here, &["/open"]), rule("http://*:*", &["/meta"])],
        deny: vec![Rule::from(HostPattern::denying("no.example").unwrap())],
    };
    let grant = Grant {
        policies: vec![policy],
        class: None,
        gate: Arc::new(Gate::new(Caps::default())),
        tunnels: Arc::default(),
    };
    let egress = Egress::granted(&net, grant, "w");
    for (to, code) in [
        (format!("{here}/closed"), "egress_path"),
        ("http://169.254.169.254/meta".to_owned(), "egress_address"),
        ("http://2852039166/meta".to_owned(), "egress_address"),
        ("http://no.example/meta".to_owned(), "egress_rule"),
        ("https://127.0.0.1/open".to_owned(), "egress_origin"),
        ("file:///etc/passwd".to_owned(), "egress_url"),
    ] {
        let said = denied(&egress, &format!("{here}/open?{to}")).await;
        assert!(said.ends_with(&format!("({code})")), "{to}: {said}");
    }
}

fn coded(coding: &str, plain: &[u8]) -> Vec<u8> {
    use flate2::Compression;
    match coding {
        "gzip" => {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), Compression::default());
            out.write_all(plain).unwrap();
            out.finish().unwrap()
        }
        "deflate" => {
            let mut out = flate2::write::ZlibEncoder::new(Vec::new(), Compression::default());
            out.write_all(plain).unwrap();
            out.finish().unwrap()
        }
        "raw-deflate" => {
            let mut out = flate2::write::DeflateEncoder::new(Vec::new(), Compression::default());
            out.write_all(plain).unwrap();
            out.finish().unwrap()
        }
        "br" => {
            let mut out = Vec::new();
            brotli::CompressorWriter::new(&mut out, 4096, 5, 22).write_all(plain).unwrap();
            out
        }
        "zstd" => zstd::encode_all(plain, 3).unwrap(),
        _ => plain.to_vec(),
    }
}

#[tokio::test]
async fn answers_are_decoded_and_bombs_stopped() {
    let web = Web::plain(|parts, _| {
        let coding = parts.uri.path().trim_start_matches('/').to_owned();
        let bytes = match parts.uri.query() {
            Some("bomb") => coded(&coding, &vec![0; 16 << 20]),
            Some("cut") => coded(&coding, &[b'x'; 5_000])[..12].to_vec(),
            Some("empty") => Vec::new(),
            _ => coded(&coding, b"plain text, plain text"),
        };
        let coding = coding.trim_start_matches("raw-").to_owned();
        Response::builder().header("content-encoding", coding).body(Full::from(bytes)).unwrap()
    })
    .await;
    let net = EgressNet::new(allow(&["127.0.0.1"]), []).unwrap();
    let egress = granted(&net, &["http://*:*"], Caps::default());
    let fetch = async |path: &str| {
        egress.fetch(context(), get(&format!("http://127.0.0.1:{}/{path}", web.port))).await.unwrap()
    };
    for coding in ["gzip", "deflate", "raw-deflate", "br", "zstd", "identity"] {
        let answer = fetch(coding).await;
        let coded = coding == "identity";
        assert_eq!(answer.headers().contains_key("content-encoding"), coded, "{coding}");
        assert_eq!(text(answer).await.unwrap(), "plain text, plain text", "{coding}");
        assert_eq!(text(fetch(&format!("{coding}?empty")).await).await.unwrap(), "", "{coding}");
    }
    for coding in ["gzip", "deflate", "br", "zstd"] {
        assert_eq!(
            text(fetch(&format!("{coding}?bomb")).await).await.unwrap_err(),
            "the answer expands too far"
        );
        let cut = text(fetch(&format!("{coding}?cut")).await).await;
        assert_eq!(cut.unwrap_err(), "the answer's coding is broken", "{coding}");
    }
    // A coding that nobody knows is handed on as it is.
    let answer = fetch("compress").await;
    assert_eq!(answer.headers()["content-encoding"], "compress");
    const { assert!(RATIO_FREE_BYTES < 16 << 20) };
}

#[tokio::test]
async fn caps_hold_and_are_told() {
    let web =
        Web::plain(|_, body| Response::new(Full::from(Bytes::from(vec![b'x'; body.len().max(100)])))).await;
    let told = Arc::new(Told::default());
    let net = EgressNet::new(allow(&["127.0.0.1"]), []).unwrap().with_witness(told.clone());
    let caps = Caps {
        requests_per_second: None,
        concurrent_max: Some(1),
        request_bytes_max: Some(1_000),
        response_bytes_max: Some(500),
    };
    let egress = granted(&net, &["http://*:*"], caps);
    let url = format!("http://127.0.0.1:{}/secret-path?secret-query", web.port);
    let post = |body: RequestBody| Request::post(&url).body(body).unwrap();
    let code = |result: Result<Response<RequestBody>, CallError>| match result {
        Err(CallError::Denied(text)) => text.rsplit_once('(').unwrap().1.trim_end_matches(')').to_owned(),
        other => panic!("{other:?}"),
    };

    let held = egress.fetch(context(), get(&url)).await.unwrap();
    assert_eq!(code(egress.fetch(context(), get(&url)).await), "egress_concurrency");
    assert_eq!(text(held).await.unwrap().len(), 100);
    let large = post(RequestBody::Full(vec![0; 1_001].into()));
    assert_eq!(code(egress.fetch(context(), large).await), "egress_request_bytes");
    let streamed = RequestBody::stream(endless());
    assert_eq!(code(egress.fetch(context(), post(streamed)).await), "egress_request_bytes");
    let long = egress.fetch(context(), post(RequestBody::Full(vec![0; 600].into()))).await.unwrap();
    assert!(text(long).await.unwrap_err().contains("egress_response_bytes"));

    let rated = granted(&net, &["http://*:*"], Caps { requests_per_second: Some(2), ..Caps::default() });
    let mut denials = 0;
    for _ in 0..50 {
        match rated.fetch(context(), get(&url)).await {
            Ok(answer) => drop(text(answer).await),
            refused => {
                assert_eq!(code(refused), "egress_rate");
                denials += 1;
            }
        }
    }
    assert!(denials > 0, "50 requests over one connection cannot all fit a rate of 2 per second");

    let told = told.0.lock().unwrap();
    assert_eq!(told.len(), 5 + 50, "each use is told once");
    let verdicts: Vec<_> = told[..5].iter().map(|crossing| crossing.verdict).collect();
    assert_eq!(
        verdicts,
        [
            Verdict::Denied(Denial::Concurrency),
            Verdict::Answered(200),
            Verdict::Denied(Denial::RequestBytes),
            Verdict::Denied(Denial::RequestBytes),
            Verdict::Denied(Denial::ResponseBytes),
        ]
    );
    assert_eq!((told[1].response_bytes, told[4].request_bytes), (100, 600));
    assert_eq!(told[1].policy.as_deref(), Some("std"));
    let everything = format!("{told:?}");
    assert!(!everything.contains("secret-path") && !everything.contains("secret-query"), "{everything}");
}

/// A body that never ends, in pieces.
fn endless() -> impl http_body::Body<Data = Bytes, Error = std::convert::Infallible> + Send {
    struct Endless;
    impl http_body::Body for Endless {
        type Data = Bytes;
        type Error = std::convert::Infallible;
        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
            std::task::Poll::Ready(Some(Ok(http_body::Frame::data(Bytes::from_static(&[b'y'; 100])))))
        }
    }
    Endless
}
