//! Egress, against real origins on real sockets.

use std::sync::{Arc, Mutex};

use atoll_bindings::body::RequestBody;
use atoll_bindings::channel::{CallContext, Channel, ReplyMeta};
use atoll_bindings::egress::{Egress, EgressNet, HostPattern};
use atoll_bindings::seam::{CallError, Identity, InvocationId, Redirect};
use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// An origin that records the requests it gets and answers each as the function says.
struct Origin {
    port: u16,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Origin {
    async fn new(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (Arc::clone(&seen), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&log), Arc::clone(&answer)));
            }
        });
        Self { port, seen }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    log: Arc<Mutex<Vec<String>>>,
    answer: Arc<impl Fn(&str) -> String + Send + Sync + 'static>,
) {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length = length.map_or(0, |length| length.parse().unwrap());
            let chunked = head.contains("transfer-encoding: chunked");
            if body.len() >= length && (!chunked || body.ends_with("0\r\n\r\n")) {
                log.lock().unwrap().push(text.clone());
                stream.write_all(answer(&text).as_bytes()).await.unwrap();
                bytes.clear();
                continue;
            }
        }
        match stream.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 Fine\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn to(status: u16, location: &str) -> String {
    format!("HTTP/1.1 {status} Moved\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n")
}

fn egress(allow_private: &[&str], hosts: &[&str]) -> Egress {
    let allow: Vec<_> = allow_private.iter().map(|text| text.parse().unwrap()).collect();
    let hosts = hosts.iter().map(|text| text.parse::<HostPattern>().unwrap()).collect();
    Egress::new(&EgressNet::new(allow, []).unwrap(), hosts, "test")
}

/// Reaches the origins of the tests.
fn local() -> Egress {
    egress(&["127.0.0.1"], &["http://127.0.0.1:*", "http://localhost:*"])
}

async fn send(
    egress: &Egress,
    request: http::Request<RequestBody>,
) -> Result<http::Response<RequestBody>, CallError> {
    let identity = Identity { tenant: "acme".into(), worker: "w".into(), traceparent: None };
    egress.fetch(CallContext::new(identity, InvocationId(1)), request).await
}

fn get(url: &str) -> http::Request<RequestBody> {
    http::Request::get(url).body(RequestBody::Empty).unwrap()
}

async fn text(response: http::Response<RequestBody>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn a_request_goes_out_without_what_guests_may_not_say() {
    let origin = Origin::new(|_| {
        "HTTP/1.1 200 Fine\r\nconnection: x-hop\r\nx-hop: 1\r\nkeep-alive: 5\r\nx-a: b\r\ncontent-length: 2\r\n\r\nhi"
            .into()
    })
    .await;
    let request = http::Request::post(origin.url("/p?q=1#fragment"))
        .header("host", "evil.example")
        .header("content-length", "999")
        .header("transfer-encoding", "chunked")
        .header("connection", "x-secret, close")
        .header("x-secret", "1")
        .header("proxy-authorization", "p")
        .header("upgrade", "h2c")
        .header("authorization", "mine")
        .header("x-kept", "yes")
        .body(RequestBody::Full(Bytes::from_static(b"body")))
        .unwrap();
    let response = send(&local(), request).await.unwrap();
    assert_eq!(response.status(), 200);
    let meta = response.extensions().get::<ReplyMeta>().unwrap().clone();
    assert_eq!((meta.status_text.as_str(), meta.redirected), ("Fine", false));
    let names: Vec<_> = response.headers().keys().map(ToString::to_string).collect();
    assert_eq!(names, ["x-a", "content-length"]);
    assert_eq!(text(response).await, "hi");
    let seen = origin.seen().remove(0);
    let (head, body) = seen.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, "body");
    let mut lines: Vec<_> = head.lines().collect();
    lines.sort_unstable();
    let host = format!("host: 127.0.0.1:{}", origin.port);
    assert_eq!(
        lines,
        [
            "POST /p?q=1 HTTP/1.1",
            "accept-encoding: gzip, br",
            "authorization: mine",
            "content-length: 4",
            host.as_str(),
            "x-kept: yes",
        ]
    );
}

#[tokio::test]
async fn nothing_is_reached_that_is_not_listed_or_not_public() {
    let origin = Origin::new(|_| ok("reached")).await;
    let port = origin.port;
    let any = ["*", "*:*", "http://*:*"];
    let exception = format!("127.0.0.1:{port}");
    let other_port = format!("127.0.0.1:{}", port ^ 1);
    let cases: Vec<(Egress, String)> = vec![
        // An empty list, another host, another scheme.
        (egress(&[&exception], &[]), origin.url("/")),
        (egress(&[&exception], &["example.com"]), origin.url("/")),
        (egress(&[&exception], &["127.0.0.1:*"]), origin.url("/")),
        (egress(&[&exception], &any), format!("ftp://127.0.0.1:{port}/")),
        // Everything is listed, but the address is private, by whatever name.
        (egress(&[], &any), origin.url("/")),
        (egress(&[&other_port], &any), origin.url("/")),
        (egress(&[], &any), format!("http://localhost:{port}/")),
        (egress(&[], &any), format!("http://2130706433:{port}/")),
        (egress(&[], &any), format!("http://0x7f.1:{port}/")),
        (egress(&[], &any), format!("http://0177.0.0.1:{port}/")),
        (egress(&[], &any), format!("http://0:{port}/")),
        (egress(&[], &any), format!("http://[::ffff:127.0.0.1]:{port}/")),
        (egress(&[], &any), format!("http://[::1]:{port}/")),
        (egress(&[], &any), "http://169.254.169.254/latest/meta-data".into()),
        (egress(&[], &any), format!("http://127.0.0.1.:{port}/")),
    ];
    for (egress, url) in cases {
        let result = send(&egress, get(&url)).await;
        assert!(matches!(result, Err(CallError::Denied(_))), "{url}: {result:?}");
    }
    assert!(origin.seen().is_empty());
}

#[tokio::test]
async fn credentials_in_a_url_are_refused() {
    let result = send(&local(), get("http://user:password@127.0.0.1:1/")).await;
    assert!(matches!(result, Err(CallError::Invalid(_))), "{result:?}");
}

#[tokio::test]
async fn redirects_follow_the_fetch_standard() {
    // Method and status of the first answer, what the second request must be.
    let cases = [
        ("GET", 301, "GET /end", ""),
        ("HEAD", 303, "HEAD /end", ""),
        ("POST", 301, "GET /end", ""),
        ("POST", 302, "GET /end", ""),
        ("POST", 303, "GET /end", ""),
        ("PUT", 302, "PUT /end", "body"),
        ("PUT", 303, "GET /end", ""),
        ("POST", 307, "POST /end", "body"),
        ("POST", 308, "POST /end", "body"),
    ];
    for (method, status, second, body) in cases {
        let origin = Origin::new(move |request| match request.contains(" /start ") {
            true => to(status, "end#there"),
            false => "HTTP/1.1 204 Done\r\n\r\n".into(),
        })
        .await;
        let sent = if method == "GET" || method == "HEAD" {
            RequestBody::Empty
        } else {
            RequestBody::Full(Bytes::from_static(b"body"))
        };
        let request = http::Request::builder()
            .method(method)
            .uri(origin.url("/start"))
            .header("content-type", "text/plain")
            .header("authorization", "same origin")
            .body(sent)
            .unwrap();
        let response = send(&local(), request).await.unwrap();
        let meta = response.extensions().get::<ReplyMeta>().unwrap();
        assert_eq!((meta.url.clone(), meta.redirected), (origin.url("/end#there"), true));
        let seen = origin.seen();
        assert_eq!(seen.len(), 2, "{method} {status}");
        assert!(seen[1].starts_with(second), "{method} {status}: {}", seen[1]);
        assert!(seen[1].ends_with(&format!("\r\n\r\n{body}")), "{method} {status}: {}", seen[1]);
        assert!(seen[1].contains("authorization: same origin"));
        let keeps_type = second.starts_with(method);
        assert_eq!(seen[1].contains("content-type"), keeps_type, "{method} {status}: {}", seen[1]);
    }
}

#[tokio::test]
async fn each_hop_is_checked_again_and_credentials_stay_at_home() {
    let end = Origin::new(|_| ok("end")).await;
    let target = end.url("/");
    let first = Origin::new(move |_| to(307, &target)).await;
    let request = || {
        http::Request::get(first.url("/"))
            .header("authorization", "secret")
            .header("cookie", "secret")
            .header("x-kept", "yes")
            .body(RequestBody::Empty)
            .unwrap()
    };
    let response = send(&local(), request()).await.unwrap();
    assert_eq!(text(response).await, "end");
    let seen = end.seen().remove(0);
    assert!(seen.contains("x-kept: yes") && !seen.contains("secret"), "{seen}");

    // Only the first origin is listed.
    let narrow = egress(&["127.0.0.1"], &[&format!("http://127.0.0.1:{}", first.port)]);
    let result = send(&narrow, request()).await;
    assert!(matches!(result, Err(CallError::Denied(_))), "{result:?}");
    // Both are listed, but the second address is not excepted.
    let half = egress(&[&format!("127.0.0.1:{}", first.port)], &["http://*:*"]);
    let result = send(&half, request()).await;
    assert!(matches!(result, Err(CallError::Denied(_))), "{result:?}");
    assert_eq!(end.seen().len(), 1);
}

#[tokio::test]
async fn redirect_modes_and_bounds() {
    let origin = Origin::new(|_| to(302, "/again")).await;
    let with = |mode: Redirect| {
        let mut request = get(&origin.url("/"));
        request.extensions_mut().insert(mode);
        request
    };
    assert_eq!(send(&local(), with(Redirect::Manual)).await.unwrap().status(), 302);
    assert!(matches!(send(&local(), with(Redirect::Error)).await, Err(CallError::Network(_))));
    let before = origin.seen().len();
    assert!(matches!(send(&local(), with(Redirect::Follow)).await, Err(CallError::Network(_))));
    assert_eq!(origin.seen().len() - before, 21, "the request and twenty redirects");
    // A stream cannot be sent twice.
    let stream = RequestBody::stream(RequestBody::Full(Bytes::from_static(b"x")));
    let request = http::Request::put(origin.url("/")).body(stream).unwrap();
    assert!(matches!(send(&local(), request).await, Err(CallError::Network(_))));
}

#[tokio::test]
async fn hostile_answers_are_errors() {
    let many = "x: y\r\n".repeat(200);
    let answers = [
        format!("HTTP/1.1 200 OK\r\n{many}content-length: 0\r\n\r\n"),
        format!("HTTP/1.1 200 OK\r\nx: {}\r\ncontent-length: 0\r\n\r\n", "y".repeat(100_000)),
        "not http at all\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx".to_owned(),
    ];
    for answer in answers {
        let copy = answer.clone();
        let origin = Origin::new(move |_| copy.clone()).await;
        let result = send(&local(), get(&origin.url("/"))).await;
        assert!(matches!(result, Err(CallError::Network(_))), "{answer:.60}: {result:?}");
    }
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let result = send(&local(), get(&format!("http://{nobody}/"))).await;
    assert_eq!(result.err(), Some(CallError::Network("the connection failed".into())));
}
