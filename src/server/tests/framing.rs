//! Rows 72 to 76 of the hostile inputs, over raw sockets: the stated answer, then a closed connection, and the
//! next connection is served.

use super::*;

#[tokio::test]
async fn doubtful_framing_is_answered_and_the_connection_closed() {
    let bench =
        start_with("", "[http]\nhead_timeout_ms = 500\nbody_timeout_ms = 500\nbody_bytes_max = 100000\n")
            .await;
    bench.deploy("hello", "").await;
    let post = |rest: &str| format!("POST /w/acme/hello/collect HTTP/1.1\r\nHost: example.com\r\n{rest}");
    let smuggled = "GET /w/acme/hello/smuggled HTTP/1.1\r\nHost: example.com\r\n\r\n";
    let table: Vec<(&str, String, u16)> = vec![
        (
            "CL.TE",
            post(&format!("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}")),
            400,
        ),
        (
            "TE.CL",
            post(&format!("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\n{smuggled}")),
            400,
        ),
        ("duplicate CL", post("Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"), 400),
        ("equal duplicate CL", post("Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"), 400),
        ("CL +3", post("Content-Length: +3\r\n\r\nabc"), 400),
        (
            "double TE",
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"),
            400,
        ),
        (
            "chunk overflow",
            post("Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\nx\r\n0\r\n\r\n"),
            400,
        ),
        ("bad chunk end", post("Transfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n"), 400),
        ("bare LF", "GET /w/acme/hello/ HTTP/1.1\nHost: example.com\n\n".into(), 400),
        ("obs-fold", post("X: a\r\n b\r\n\r\n"), 400),
        ("space before colon", post("Content-Length : 5\r\n\r\nhello"), 400),
        ("NUL in value", post("X: a\0b\r\n\r\n"), 400),
        ("no host", "GET / HTTP/1.1\r\n\r\n".into(), 400),
        ("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".into(), 400),
        ("host against target", "GET http://a/ HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n".into(), 400),
        ("many headers", post(&format!("{}\r\n", "x: y\r\n".repeat(10_000))), 431),
        ("large headers", post(&format!("x: {}\r\n\r\n", "y".repeat(1_000_000))), 431),
        ("long target", format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(200_000)), 414),
        ("slow head", "GET / HTTP/1.1\r\nHos".into(), 408),
        ("slow body", post("Content-Length: 5\r\n\r\nhe"), 408),
        ("slow chunked body", post("Transfer-Encoding: chunked\r\n\r\n5\r\nhe"), 408),
        (
            "chunked too large",
            post(&format!("Transfer-Encoding: chunked\r\n\r\n20000\r\n{}\r\n0\r\n\r\n", "x".repeat(0x20000))),
            413,
        ),
        (
            "chunked and sound",
            post("Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
            200,
        ),
        ("cut off", post("Transfer-Encoding: chunked\r\n\r\n-1\r\nhello\r\n0\r\n\r\n"), 400),
        ("expect a gift", post("Expect: gift\r\n\r\n"), 417),
        (
            "upgrade smuggling",
            post("Connection: Upgrade, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"),
            200,
        ),
        ("CONNECT", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nConnection: close\r\n\r\n".into(), 405),
        ("TRACE", "TRACE / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".into(), 405),
        ("declared too large", post("Content-Length: 100001\r\nConnection: close\r\n\r\n"), 413),
        ("future version", "GET / HTTP/3.0\r\nHost: a\r\n\r\n".into(), 505),
    ];
    for (row, bytes, status) in table {
        let text = raw(bench.address(), bytes.as_bytes()).await;
        assert_eq!(parse_reply(&text).status, status, "{row}: {text:?}");
        assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{row}: one answer only: {text:?}");
        assert!(!text.contains("smuggled"), "{row}");
        assert_eq!(
            bench.send("GET", "/w/acme/hello/", &[], "").await.status,
            200,
            "{row}: the next is served"
        );
    }
}

#[tokio::test]
async fn a_refusal_waits_for_the_answers_before_it() {
    let bench = start().await;
    bench.deploy("hello", "").await;
    let sound = "GET /w/acme/hello/log HTTP/1.1\r\nHost: example.com\r\n\r\n";
    let text =
        raw(bench.address(), format!("{sound}{sound}GET / HTTP/1.1\nHost: a\n\n{sound}").as_bytes()).await;
    let statuses: Vec<&str> = text.match_indices("HTTP/1.1 ").map(|(at, _)| &text[at + 9..at + 12]).collect();
    assert_eq!(statuses, ["200", "200", "400"], "{text}");
}

#[tokio::test]
async fn expecting_100_continue_works_and_a_stalled_one_ends() {
    let bench = start_with("", "[http]\nbody_timeout_ms = 300\n").await;
    bench.deploy("hello", "").await;
    let head = "POST /w/acme/hello/echo HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    let mut stream = TcpStream::connect(bench.address()).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut first = [0; 25];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert!(rest.starts_with("HTTP/1.1 200") && rest.ends_with("hello"), "{rest}");
    let stalled = raw(bench.address(), head.as_bytes()).await;
    assert!(stalled.contains("HTTP/1.1 408"), "{stalled}");
}
