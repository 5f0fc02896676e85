//! HTTP framing and request smuggling: raw bytes in, status out, and the next client is served.
//! Rows 72 to 76 of the hostile table, with a secret within the worker's reach that no answer may show.

mod cases;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::atoll::{BASE_DOMAIN, Options, TENANT, TOKEN, host_name};
use crate::support::canary::assert_clean;
use crate::support::worker::{Request, Worker};
use crate::vault::Guarded;

/// A bound on waiting, not an expectation: the server's own timeouts are shorter.
const READ_SECONDS_MAX: u64 = 60;

/// Remembers every path it was asked for, so that a smuggled request cannot hide.
const WITNESS: &str = r#"
const seen = [];
export default {
  async fetch(request, env) {
    const { pathname } = new URL(request.url);
    if (pathname === "/seen") return Response.json(seen);
    seen.push(pathname);
    // Said back by the upstream, with its headers: the secret's place among them.
    if (pathname === "/after") return env.VAULT.fetch(`${env.VAULT_URL}/echo`);
    if (pathname === "/inject") {
      const caught = [];
      for (const value of ["a\r\nx-injected: 1", "a\nx-injected: 1", "a\0b"]) {
        try { new Response("", { headers: { "x-a": value } }); caught.push("passed"); } catch (e) { caught.push(e.name); }
        try { new Response("", { statusText: value }); caught.push("passed"); } catch (e) { caught.push(e.name); }
      }
      return Response.json(caught);
    }
    const body = await request.text();
    return new Response(`${request.method} ${pathname} ${body.length}`);
  },
};
"#;

/// What must come back for some raw bytes.
#[derive(Clone, Copy, Debug)]
enum Expect {
    /// One answer with one of these statuses, then the connection is closed.
    Refused(&'static [u16]),
    /// One of these statuses, or the connection closed without any answer.
    RefusedOrClosed(&'static [u16]),
    /// Served: the worker's own answer with this status.
    Served(u16),
}

/// One row.
struct Case {
    /// Row of the hostile table and what it does.
    name: &'static str,
    /// `{HOST}` is the worker's host name.
    bytes: Vec<u8>,
    expect: Expect,
}

/// What came back.
#[derive(Debug)]
struct Seen {
    /// The status line's code, if any came.
    status: Option<u16>,
    /// Whether the server closed the connection.
    closed: bool,
    /// All bytes.
    text: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_are_refused_and_the_next_connection_is_served() {
    let atoll = start().await;
    let mut failures = vec![];
    for case in cases::all() {
        let bytes = with_host(&case.bytes);
        let seen = exchange(atoll.address(), &bytes).await;
        if let Err(problem) = judge(case.expect, &seen) {
            failures.push(format!("{}: {problem}; got {:?}", case.name, cut(&seen.text)));
        }
        let next = atoll.send("witness", &Request::new("GET", "/after")).await;
        if next.status != 200 {
            failures.push(format!("{}: the next connection got {}", case.name, next.status));
        }
    }
    let paths = atoll.send("witness", &Request::new("GET", "/seen")).await.text();
    if paths.contains("smuggled") {
        failures.push(format!("a smuggled request reached the worker: {paths}"));
    }
    assert!(failures.is_empty(), "{} failures:\n\n{}\n", failures.len(), failures.join("\n\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_cannot_inject_header_lines() {
    let atoll = start().await;
    let answer = atoll.send("witness", &Request::new("GET", "/inject")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(!answer.text().contains("passed"), "{}", answer.text());
    assert_eq!(answer.header("x-injected"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_finishes_its_head_or_body_is_dropped() {
    let atoll = start().await;
    let host = host_name(TENANT, "witness");
    let heads = [
        "GET / HTTP/1.1\r\nHost: ".to_owned(),
        format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 10\r\n\r\n12345"),
        format!("POST / HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n123"),
        format!("POST / HTTP/1.1\r\nHost: {host}\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n"),
    ];
    for head in heads {
        let seen = exchange(atoll.address(), head.as_bytes()).await;
        assert!(seen.closed, "{head:?} was never dropped: {seen:?}");
        let interim = seen.text.starts_with("HTTP/1.1 100 ");
        let status = if interim { last_status(&seen.text) } else { seen.status };
        assert!(matches!(status, None | Some(400 | 408)), "{head:?}: {seen:?}");
        assert_eq!(atoll.send("witness", &Request::new("GET", "/after")).await.status, 200);
    }
}

/// A refused body once cost its sender the answer: the server took 4 MiB more and closed, and the reset of the unread
/// rest overtook the 413. Many libraries send all before they read, as this client does.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_a_huge_body_before_it_reads_still_gets_its_answer() {
    let atoll = start().await;
    let head = |framing: &str| {
        format!(
            "POST /v1/workers/witness/rollback HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n{framing}\r\n\r\n"
        )
    };
    let body = vec![b' '; 60 << 20];
    let declared = head(&format!("Content-Length: {}", body.len())).into_bytes();
    let mut chunked = head("Transfer-Encoding: chunked").into_bytes();
    chunked.extend(format!("{:x}\r\n", body.len()).bytes());
    for head in [declared, chunked] {
        let mut stream = TcpStream::connect(atoll.address()).await.expect("the gateway listens");
        stream.write_all(&head).await.expect("a head is taken");
        stream.write_all(&body).await.expect("a body is taken, also one that is refused");
        let mut text = vec![];
        stream.read_to_end(&mut text).await.expect("an answer, not a reset");
        let text = String::from_utf8_lossy(&text);
        assert_eq!(first_status(&text), Some(413), "{}", cut(&text));
        assert!(text.contains("body_too_large"), "{}", cut(&text));
    }
}

async fn start() -> Guarded {
    let options = Options { config: FAST_TIMEOUTS.into(), ..Options::default() };
    let atoll = Guarded::start(options).await;
    atoll.deploy(&Worker::single("witness", WITNESS)).await;
    atoll
}

/// So that the slow clients of this table are dropped soon.
const FAST_TIMEOUTS: &str = "[http]\nhead_timeout_ms = 1000\nbody_timeout_ms = 1000\n";

fn with_host(bytes: &[u8]) -> Vec<u8> {
    let host = host_name(TENANT, "witness");
    debug_assert!(host.ends_with(BASE_DOMAIN));
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = rest.windows(6).position(|window| window == b"{HOST}") {
        out.extend(&rest[..at]);
        out.extend(host.as_bytes());
        rest = &rest[at + 6..];
    }
    out.extend(rest);
    out
}

/// Sends everything, then reads until the server closes.
async fn exchange(address: SocketAddr, bytes: &[u8]) -> Seen {
    let stream = TcpStream::connect(address).await.expect("the gateway listens");
    let (mut reader, mut writer) = stream.into_split();
    let bytes = bytes.to_vec();
    // The server may answer and close before it has read everything: a failed write is fine.
    let sending = tokio::spawn(async move {
        let _ = writer.write_all(&bytes).await;
        writer
    });
    let mut text = vec![];
    let reading = reader.read_to_end(&mut text);
    let ended = tokio::time::timeout(Duration::from_secs(READ_SECONDS_MAX), reading).await;
    sending.abort();
    assert_clean(&text, "an answer to bytes by hand");
    let text = String::from_utf8_lossy(&text).into_owned();
    Seen { status: first_status(&text), closed: ended.is_ok(), text }
}

fn first_status(text: &str) -> Option<u16> {
    text.strip_prefix("HTTP/1.1 ").or_else(|| text.strip_prefix("HTTP/1.0 "))?.get(..3)?.parse().ok()
}

fn last_status(text: &str) -> Option<u16> {
    let at = text.rfind("HTTP/1.1 ")?;
    first_status(&text[at..]).filter(|status| *status != 100)
}

fn judge(expect: Expect, seen: &Seen) -> Result<(), String> {
    let answers = seen.text.matches("HTTP/1.1 ").count() + seen.text.matches("HTTP/1.0 ").count();
    if answers > 1 {
        return Err(format!("{answers} answers to one request"));
    }
    let closed = if seen.closed { Ok(()) } else { Err("the connection stays open".to_owned()) };
    match (expect, seen.status) {
        (Expect::Refused(wanted) | Expect::RefusedOrClosed(wanted), Some(status)) => {
            if wanted.contains(&status) { closed } else { Err(format!("{status}, not one of {wanted:?}")) }
        }
        (Expect::RefusedOrClosed(_), None) => closed,
        (Expect::Refused(wanted), None) => Err(format!("no answer, not one of {wanted:?}")),
        (Expect::Served(wanted), status) => {
            if status == Some(wanted) {
                closed
            } else {
                Err(format!("{status:?}, not {wanted}"))
            }
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(300).collect()
}
