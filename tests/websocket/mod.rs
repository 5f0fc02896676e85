//! WebSockets over real sockets: clients that are not ours, servers that are not ours, and bytes by hand. A secret is within reach
//! of every worker, and looked for in every byte that a client hears.

mod client;
mod conformance;
mod hostile;
mod isolates;
mod node;
mod server;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::json;
use tungstenite::client::IntoClientRequest as _;
use tungstenite::handshake::client::Response;
use tungstenite::protocol::CloseFrame;
use tungstenite::{Message, WebSocket};

use crate::support::atoll::{Atoll, Options, TENANT, host_name};
use crate::support::canary::{Search, assert_clean};
use crate::support::worker::{Request, Worker};
use crate::vault::Guarded;

/// A bound on waiting for anything; only a hang reaches it.
const WAIT: Duration = Duration::from_secs(60);

/// What most tests talk to: it echoes, tells what it saw at `/seen`, and uses the secret when asked for `vault`. A close is answered
/// by the runtime.
const ECHO: &str = r#"
const seen = [];
export default {
  fetch(request, env) {
    const url = new URL(request.url);
    if (url.pathname === "/seen") return Response.json(seen);
    if (url.pathname === "/plain") return new Response("no socket here");
    if (url.pathname === "/throw") throw new Error("no");
    const [client, server] = Object.values(new WebSocketPair());
    server.binaryType = "arraybuffer";
    server.accept();
    server.addEventListener("message", async ({ data }) => {
      if (data === "close") server.close(4321, "as you wish");
      else if (data === "vault") server.send(await (await env.VAULT.fetch(`${env.VAULT_URL}/echo`)).text());
      else server.send(data);
    });
    server.addEventListener("close", ({ code, reason, wasClean }) => seen.push([code, reason, wasClean]));
    server.addEventListener("error", ({ message }) => seen.push(["error", message]));
    const protocol = url.searchParams.get("protocol");
    const headers = protocol === null ? {} : { "sec-websocket-protocol": protocol };
    return new Response(null, { status: 101, webSocket: client, headers });
  },
};
"#;

/// A server with one worker, `echo`.
async fn echo_site() -> Guarded {
    site(Options::default(), &Worker::single("echo", ECHO)).await
}

async fn site(options: Options, worker: &Worker) -> Guarded {
    let atoll = Guarded::start(options).await;
    atoll.deploy(worker).await;
    atoll
}

/// A connection to the server, with a look at all that comes back.
#[derive(Debug)]
struct Line {
    stream: TcpStream,
    heard: Search,
}

impl Line {
    fn new(stream: TcpStream) -> Self {
        Self { stream, heard: Search::default() }
    }
}

impl std::ops::Deref for Line {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.stream
    }
}

impl std::io::Read for Line {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.stream.read(buffer)?;
        self.heard.push(&buffer[..read], "what a client hears");
        Ok(read)
    }
}

impl std::io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }
}

type Socket = WebSocket<Line>;

fn dial(address: SocketAddr) -> Line {
    let stream = TcpStream::connect(address).expect("the server listens");
    stream.set_nodelay(true).expect("a socket");
    stream.set_read_timeout(Some(WAIT)).expect("a socket");
    stream.set_write_timeout(Some(WAIT)).expect("a socket");
    Line::new(stream)
}

/// Opens a WebSocket to a worker.
fn connect(atoll: &Atoll, worker: &str, path: &str) -> Socket {
    shake_hands(atoll, worker, path, &[]).unwrap_or_else(|error| panic!("{error}\n{}", atoll.log())).0
}

fn shake_hands(
    atoll: &Atoll,
    worker: &str,
    path: &str,
    headers: &[(&'static str, &str)],
) -> Result<(Socket, Response), tungstenite::HandshakeError<tungstenite::ClientHandshake<Line>>> {
    let url = format!("ws://{}{path}", host_name(TENANT, worker));
    let mut request = url.into_client_request().expect("a URL");
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().expect("a header value"));
    }
    tungstenite::client(request, dial(atoll.address()))
}

/// The next message, as short text.
fn next(socket: &mut Socket) -> String {
    loop {
        return match socket.read() {
            // Here also what was in several frames.
            Ok(Message::Text(text)) => {
                assert_clean(text.as_bytes(), "a message");
                format!("text {text}")
            }
            Ok(Message::Binary(bytes)) => {
                assert_clean(&bytes, "a message");
                format!("binary {bytes:?}")
            }
            Ok(Message::Close(Some(CloseFrame { code, reason }))) => format!("close {code} {reason}"),
            Ok(Message::Close(None)) => "close".to_owned(),
            Ok(_) => continue,
            Err(error) => format!("error {error}"),
        };
    }
}

/// Sends a head and reads until the server closes.
fn exchange(address: SocketAddr, bytes: &str) -> String {
    let mut stream = dial(address);
    stream.write_all(bytes.as_bytes()).expect("the server reads");
    let mut answer = Vec::new();
    // A reset after the answer is the server's right.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// Asks a worker at `/seen` until it has seen what is wanted.
async fn wait_until_seen(atoll: &Atoll, worker: &str, wanted: serde_json::Value) {
    let mut seen = json!(null);
    for _ in 0..600 {
        seen = atoll.send(worker, &Request::new("GET", "/seen")).await.json();
        if seen == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("seen {seen}, wanted {wanted}\n{}", atoll.log());
}

/// Runs blocking client code without holding up the server's own tasks.
async fn blocking<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(run)
        .await
        .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}
