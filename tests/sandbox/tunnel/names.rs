//! Whom TLS in a tunnel asks for: hellos of real programs, and of some that nobody should write. What is decided here is decided in
//! the gateway, so one maker of sandboxes is enough; that TLS passes on each of them, `programs.rs` shows.

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use super::with;
use crate::outside::{Lines, NameServer, Outside, certificate};
use crate::sandbox::Server;
use crate::sandbox::backends::Place;
use crate::support::Kind;

/// TLS by hand: `shake` speaks it with Python's library, with what it says first changed; `craft` makes a ClientHello, and without
/// a `share` one that is asked to try again.
const TLS: &str = r#"
import ssl, os
def shake(c, name, change=lambda c, said: c.sendall(said)):
    context = ssl._create_unverified_context()
    heard, said = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(heard, said, server_hostname=name)
    def pump(step, *args):
        while True:
            try: done = step(*args)
            except ssl.SSLWantReadError: done = None
            if bytes_ := said.read(): send(c, bytes_)
            if done is not None: return done
            piece = c.recv(65536)
            if not piece: return b"closed"
            heard.write(piece)
    send = change
    try:
        if pump(lambda: tls.do_handshake() or b"done") == b"closed": return "closed"
        send = lambda c, said: c.sendall(said)
        pump(tls.write, b"hi\n")
        return pump(tls.read, 100).decode().strip()
    except OSError as error: return type(error).__name__
def slowly(c, said):
    c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in said: c.sendall(bytes([byte])); time.sleep(0.001)
def tiny(c, said):
    out, at = b"", 0
    while at < len(said):
        size = int.from_bytes(said[at + 3:at + 5], "big")
        for byte in said[at + 5:at + 5 + size]: out += said[at:at + 3] + b"\0\1" + bytes([byte])
        at += 5 + size
        if out[0] != 22: out = said
    c.sendall(out if said[0] == 22 and said[5] == 1 else said)
def sized(bytes_, of=2): return len(bytes_).to_bytes(of, "big") + bytes_
def craft(name, share=b"", padding=0):
    ext = lambda kind, bytes_: kind.to_bytes(2, "big") + sized(bytes_)
    key = b"\0\x1d" + sized(share) if share else b""
    exts = ext(0, sized(b"\0" + sized(name))) + ext(13, sized(b"\4\3\x08\4")) + ext(10, sized(b"\0\x1d")) \
        + ext(43, b"\2\3\4") + ext(51, sized(key)) + (ext(21, bytes(padding)) if padding else b"")
    body = b"\3\3" + b"\7" * 32 + b"\0" + b"\0\2\x13\1" + b"\1\0" + sized(exts)
    message = b"\1" + sized(body, 3)
    return b"".join(b"\x16\3\1" + sized(message[at:at + 16000]) for at in range(0, len(message), 16000))
def message(c):
    """The kind of the next handshake message, or what came instead."""
    while True:
        head = b""
        while len(head) < 5:
            piece = c.recv(5 - len(head))
            if not piece: return "closed"
            head += piece
        body = b""
        while len(body) < int.from_bytes(head[3:5], "big"): body += c.recv(int.from_bytes(head[3:5], "big") - len(body))
        if head[0] == 22: return "retry" if body[6:38].startswith(b"\xcf\x21\xad\x74") else "message " + str(body[0])
        if head[0] == 21: return "alert"
KEY = bytes.fromhex("09" + "00" * 31)
name = target.rsplit(":", 1)[0]
c, status = connect(target)
assert status == "200", status
"#;

/// A program's end, by the host of its tunnel: what it prints, the outcome on record, and whether a byte went out.
struct Row {
    host: &'static str,
    program: &'static str,
    printed: &'static str,
    outcome: &'static str,
    sent: bool,
}

const fn row(
    host: &'static str,
    program: &'static str,
    printed: &'static str,
    outcome: &'static str,
    sent: bool,
) -> Row {
    Row { host, program, printed, outcome, sent }
}

const NAME: &str = "egress_tls_name";
const ROWS: &[Row] = &[
    row("right.test", "print(shake(c, name))", "HI", "answered", true),
    row("upper.test", "print(shake(c, name.upper()))", "HI", "answered", true),
    row("bytes.test", "print(shake(c, name, slowly))", "HI", "answered", true),
    row("tiny.test", "print(shake(c, name, tiny))", "HI", "answered", true),
    row("plain.test", "c.sendall(b'hi\\nbye\\n'); print(rest(c), end='')", "HI", "answered", true),
    row("other.test", "print(shake(c, 'right.test'))", "closed", NAME, false),
    row("below.test", "print(shake(c, 'x.' + name))", "closed", NAME, false),
    row("others-bytes.test", "print(shake(c, 'right.test', slowly))", "closed", NAME, false),
    row("others-tiny.test", "print(shake(c, 'right.test', tiny))", "closed", NAME, false),
    row("nameless.test", "print(shake(c, None))", "closed", NAME, false),
    row(
        "crafted.test",
        "c.sendall(craft(name.encode(), KEY)); print(message(c))",
        "message 2",
        "answered",
        true,
    ),
    row(
        "retried.test",
        "c.sendall(craft(name.encode())); print(message(c))\n\
                         c.sendall(craft(name.encode(), KEY)); print(message(c))",
        "retry\nmessage 2",
        "answered",
        true,
    ),
    row(
        "two.test",
        "c.sendall(craft(name.encode())); print(message(c))\n\
                     c.sendall(craft(b'right.test', KEY)); print(message(c))",
        "retry\nclosed",
        NAME,
        true,
    ),
    row(
        "ahead.test",
        "c.sendall(craft(name.encode()) + craft(b'right.test', KEY))\n\
                       print(message(c)); print(message(c))",
        "retry\nclosed",
        NAME,
        true,
    ),
    row(
        "large.test",
        "c.sendall(craft(name.encode(), KEY, 20000)); print(message(c))",
        "message 2",
        "answered",
        true,
    ),
    row(
        "larger.test",
        "c.sendall(craft(name.encode(), KEY, 33000)); print(message(c))",
        "closed",
        "egress_tls",
        false,
    ),
    row(
        "alert.test",
        "c.sendall(b'\\x15\\3\\1\\0\\2\\1\\0' + craft(b'right.test', KEY)); print(message(c))",
        "closed",
        "egress_tls",
        false,
    ),
    row(
        "half.test",
        "c.sendall(craft(name.encode(), KEY)[:40]); c.shutdown(socket.SHUT_WR); print(message(c))",
        "closed",
        "egress_tls",
        false,
    ),
    row(
        "slow.test",
        "c.settimeout(60); c.sendall(craft(name.encode(), KEY)[:40]); print(message(c))",
        "closed",
        "egress_time",
        false,
    ),
];

impl Server {
    /// What a program with TLS prints in a tunnel of ann's.
    async fn hello(&self, target: &str, program: &str) -> String {
        self.tunnels("ann", target, &format!("{TLS}{program}")).await.trim_end().to_owned()
    }

    /// The one record of a tunnel: its outcome, and how much went out.
    async fn outcome(&self, target: &str) -> (Value, Option<u64>) {
        let record = self.told(target, 1).await.remove(0);
        (record["outcome"].clone(), record["requestBytes"].as_u64())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_asks_for_the_host_of_its_tunnel() {
    let lines = Lines::new(&["right.test"]).await;
    let here: &[&[&str]] = &[&["127.0.0.1"]];
    let table: Vec<(&str, &[&[&str]])> = ROWS.iter().map(|row| (row.host, here)).collect();
    let names = NameServer::new(&table).await;
    let outside = Outside::at(lines.port, &lines.root, &names);
    let Some(place) = Place::of(Kind::Native).await else { return };
    let Some(server) = with(place, &outside, lines.port, "").await else { return };
    for row in ROWS {
        let target = format!("{}:{}", row.host, lines.port);
        assert_eq!(server.hello(&target, row.program).await, row.printed, "{}", row.host);
        let (outcome, sent) = server.outcome(&target).await;
        assert_eq!((outcome, sent > Some(0)), (json!(row.outcome), row.sent), "{}", row.host);
    }
    // An address has no name, and one that has is of somebody else.
    let target = format!("127.0.0.1:{}", lines.port);
    assert_eq!(server.hello(&target, "print(shake(c, None))").await, "HI");
    assert_eq!(server.hello(&target, "print(shake(c, 'right.test'))").await, "closed");
    let mut outcomes: Vec<Value> =
        server.told(&target, 2).await.iter().map(|record| record["outcome"].clone()).collect();
    outcomes.sort_by_key(ToString::to_string);
    assert_eq!(outcomes, [json!("answered"), json!(NAME)]);
    server.finish();
}

/// A server without TLS that speaks first, and then sends lines back in upper case.
async fn greeter(port: u16) -> std::io::Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                let _ = stream.write_all(b"220 ready\n").await;
                let mut line = String::new();
                while matches!(stream.read_line(&mut line).await, Ok(1..)) {
                    let _ = stream.write_all(line.to_uppercase().as_bytes()).await;
                    line.clear();
                }
            });
        }
    });
    Ok(port)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_may_speak_first_and_443_takes_only_tls() {
    const PROGRAM: &str = "f = c.makefile('rb')\nprint(f.readline().decode(), end='')\nc.sendall(b'hi\\n')\n\
                           try: print(f.readline().decode(), end='')\nexcept OSError: pass\nc.close()";
    let names = NameServer::new(&[("first.test", &[&["127.0.0.1"]])]).await;
    for (wanted, printed, outcome, sent) in
        [(0, "220 ready\nHI", "answered", Some(3)), (443, "220 ready", "egress_tls", Some(0))]
    {
        let port = match greeter(wanted).await {
            Ok(port) => port,
            Err(error) => {
                eprintln!(
                    "a_peer_may_speak_first_and_443_takes_only_tls: port {wanted} is left out: {error}"
                );
                continue;
            }
        };
        let outside = Outside::at(port, &certificate(&["first.test"]).0, &names);
        let Some(place) = Place::of(Kind::Native).await else { return };
        let Some(server) = with(place, &outside, port, "").await else { return };
        let target = format!("first.test:{port}");
        assert_eq!(server.hello(&target, PROGRAM).await, printed);
        assert_eq!(server.outcome(&target).await, (json!(outcome), sent));
        server.finish();
    }
}
