//! The control API's client: JSON in and out over HTTP/1.1, errors as problem documents.

use std::fs::File;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Uri, header};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::sync::mpsc;

use super::args::Remote;
use super::exit::{Failure, Kind, Result};

/// Largest answer read, in bytes.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Longest wait for an answer's head, in seconds: above the longest wall time that a server grants.
const ANSWER_SECONDS_MAX: u64 = 1_000;

/// A server and the right to use it.
pub(crate) struct Api {
    client: Client<HttpsConnector<HttpConnector>, UploadBody>,
    base: String,
    token: String,
}

impl Api {
    /// Checks the settings; nothing is sent yet.
    pub(crate) fn new(remote: &Remote) -> Result<Self> {
        let base = remote.url.trim_end_matches('/').to_owned();
        let uri: Option<Uri> = base.parse().ok();
        let usable =
            uri.is_some_and(|uri| uri.host().is_some() && matches!(uri.scheme_str(), Some("http" | "https")));
        if !usable {
            return Err(Failure::usage(format!("{:?} is not the URL of a server", remote.url))
                .hint("set ATOLL_URL or --url, like http://127.0.0.1:8080"));
        }
        let token = remote.token.clone().filter(|token| !token.is_empty()).ok_or_else(|| {
            Failure::usage("no token given").hint("set ATOLL_TOKEN or --token; `atoll token` makes one")
        })?;
        let connector =
            HttpsConnectorBuilder::new().with_webpki_roots().https_or_http().enable_http1().build();
        Ok(Self { client: Client::builder(TokioExecutor::new()).build(connector), base, token })
    }

    /// The server's URL.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// One call; JSON in and out. An error answer is a [`Failure`].
    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        self.upload(method, path, body.map_or_else(Upload::nothing, Upload::json)).await
    }

    /// The same with any body.
    pub(crate) async fn upload(&self, method: Method, path: &str, upload: Upload) -> Result<Value> {
        let answer = self.send(method, path, "application/json", upload).await?;
        let status = answer.status();
        let bytes = read(answer).await?;
        if !status.is_success() {
            return Err(problem(status, &bytes));
        }
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).map_err(|error| {
            Failure::new(Kind::Unreachable, format!("the answer of {} is not JSON: {error}", self.base))
                .hint("is this the URL of an Atoll server?")
        })
    }

    /// One call whose answer is a stream of server-sent events; each event's data is given to `each`.
    pub(crate) async fn events(&self, path: &str, each: impl FnMut(&str)) -> Result<()> {
        let answer = self.send(Method::GET, path, "text/event-stream", Upload::nothing()).await?;
        self.read_events(answer, each).await
    }

    /// The same for a call with a body.
    pub(crate) async fn upload_events(
        &self,
        path: &str,
        upload: Upload,
        each: impl FnMut(&str),
    ) -> Result<()> {
        let answer = self.send(Method::POST, path, "text/event-stream", upload).await?;
        self.read_events(answer, each).await
    }

    async fn read_events(&self, answer: Response<Incoming>, mut each: impl FnMut(&str)) -> Result<()> {
        let mut body = succeeded(answer).await?;
        let mut lines = EventData::default();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.unreachable(&error))?;
            if let Some(data) = frame.data_ref() {
                lines.feed(data, &mut each);
            }
        }
        Ok(())
    }

    /// One call whose answer is bytes, written as they come.
    pub(crate) async fn save(&self, path: &str, into: &mut impl io::Write) -> Result<()> {
        let mut body = succeeded(self.send(Method::GET, path, "*/*", Upload::nothing()).await?).await?;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| broken_off(&error))?;
            if let Some(data) = frame.data_ref()
                && let Err(error) = into.write_all(data)
            {
                // A reader that left early is no error of ours.
                let early = error.kind() == io::ErrorKind::BrokenPipe;
                return if early { Ok(()) } else { Err(unwritten(&error)) };
            }
        }
        into.flush().map_err(|error| unwritten(&error))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        upload: Upload,
    ) -> Result<Response<Incoming>> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .header(header::ACCEPT, accept)
            .header(header::USER_AGENT, concat!("atoll/", env!("CARGO_PKG_VERSION")));
        if let Some(media_type) = upload.media_type {
            request = request.header(header::CONTENT_TYPE, media_type);
        }
        let request = request
            .body(upload.body)
            .map_err(|error| Failure::usage(format!("cannot make the request: {error}")))?;
        let timeout = Duration::from_secs(ANSWER_SECONDS_MAX);
        match tokio::time::timeout(timeout, self.client.request(request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.unreachable(&error)),
            Err(_) => Err(Failure::new(Kind::Unreachable, format!("{} does not answer", self.base))),
        }
    }

    fn unreachable(&self, error: &dyn std::error::Error) -> Failure {
        let mut cause = error;
        while let Some(source) = cause.source() {
            cause = source; // the innermost error is the one that says something: "Connection refused"
        }
        Failure::new(Kind::Unreachable, format!("cannot reach {}: {cause}", self.base))
            .hint("is the server running there? set ATOLL_URL or --url; `atoll serve` starts one")
    }
}

type UploadBody = UnsyncBoxBody<Bytes, io::Error>;

/// Pieces of a file that wait for the network.
const PIECES_WAITING_MAX: usize = 2;
/// Largest piece of a file that is read at once, in bytes.
const PIECE_BYTES_MAX: usize = 64 * 1024;

/// What a call sends.
pub(crate) struct Upload {
    media_type: Option<&'static str>,
    body: UploadBody,
}

impl Upload {
    fn nothing() -> Self {
        Self { media_type: None, body: whole(Bytes::new()) }
    }

    /// A JSON value.
    pub(crate) fn json(value: &Value) -> Self {
        Self { media_type: Some("application/json"), body: whole(value.to_string().into()) }
    }

    /// Bytes that are there already.
    pub(crate) fn bytes(bytes: Bytes) -> Self {
        Self { media_type: Some("application/octet-stream"), body: whole(bytes) }
    }

    /// A file, or standard input if it is `-`.
    pub(crate) fn source(name: &str) -> Result<Self> {
        if name == "-" {
            return Ok(Self::reading(io::stdin()));
        }
        let file =
            File::open(name).map_err(|error| Failure::usage(format!("cannot read {name}: {error}")))?;
        Ok(Self::reading(file))
    }

    /// Bytes, as they can be read: by a thread of their own, as standard input may say nothing for long.
    pub(crate) fn reading(mut source: impl io::Read + Send + 'static) -> Self {
        let (sender, receiver) = mpsc::channel(PIECES_WAITING_MAX);
        std::thread::spawn(move || {
            let mut buffer = vec![0; PIECE_BYTES_MAX];
            loop {
                let piece = match source.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(length) => Ok(Bytes::copy_from_slice(&buffer[..length])),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => Err(error),
                };
                let last = piece.is_err();
                if sender.blocking_send(piece).is_err() || last {
                    return;
                }
            }
        });
        Self { media_type: Some("application/octet-stream"), body: UploadBody::new(Pieces(receiver)) }
    }
}

fn whole(bytes: Bytes) -> UploadBody {
    UploadBody::new(Full::new(bytes).map_err(|never| match never {}))
}

/// A body from a thread that reads.
struct Pieces(mpsc::Receiver<io::Result<Bytes>>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

/// The body of a success; an error answer is a [`Failure`].
async fn succeeded(answer: Response<Incoming>) -> Result<Incoming> {
    let status = answer.status();
    if status.is_success() { Ok(answer.into_body()) } else { Err(problem(status, &read(answer).await?)) }
}

async fn read(answer: Response<Incoming>) -> Result<Bytes> {
    match Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => Err(broken_off(&error)),
    }
}

fn broken_off(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Kind::Unreachable, format!("the answer broke off: {error}"))
}

fn unwritten(error: &io::Error) -> Failure {
    Failure::usage(format!("cannot write: {error}"))
}

/// What stands for itself in a path.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A name as it stands in a path or a query.
pub(crate) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

/// A problem document (RFC 9457) as a failure.
fn problem(status: StatusCode, body: &[u8]) -> Failure {
    let document: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |key: &str| document[key].as_str().unwrap_or_default().to_owned();
    let (title, detail) = (text("title"), text("detail"));
    let message = match (title.is_empty(), detail.is_empty()) {
        (_, false) => detail,
        (false, true) => title,
        (true, true) => format!("the server answered {status}"),
    };
    let (kind, hint) = match status.as_u16() {
        401 => (Kind::Refused, Some("check ATOLL_TOKEN: the server's configuration must hold its hash")),
        403 => (Kind::Refused, Some("this token may not do that; ask the operator for one with the scope")),
        404 if text("code").is_empty() || text("code") == "not_found" => {
            (Kind::Refused, Some("`atoll workers list` shows what is deployed"))
        }
        429 => (Kind::Refused, Some("the tenant's allowance is used up; try again in a while")),
        503 => (Kind::Refused, Some("the server is overloaded or not ready; try again in a while")),
        400..=499 => (Kind::Refused, None),
        _ => (Kind::Internal, None),
    };
    // The guest did not run to its end, and not through its own fault: nothing that a caller could change.
    let kind = if text("code") == "host_fault" { Kind::Internal } else { kind };
    let code = match text("code") {
        code if code.is_empty() => String::new(),
        code => format!(" ({code})"),
    };
    let failure = Failure::new(kind, format!("{message}{code}"));
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// Longest line of a server-sent event, in bytes; the rest of a longer one is dropped.
const EVENT_LINE_BYTES_MAX: usize = 1024 * 1024;

/// Cuts a stream of server-sent events into their `data:` lines. Atoll sends one line of JSON per event.
#[derive(Default)]
struct EventData {
    line: Vec<u8>,
}

impl EventData {
    fn feed(&mut self, bytes: &[u8], each: &mut impl FnMut(&str)) {
        for &byte in bytes {
            if byte != b'\n' {
                if self.line.len() < EVENT_LINE_BYTES_MAX {
                    self.line.push(byte);
                }
                continue;
            }
            let line = String::from_utf8_lossy(&self.line);
            if let Some(data) = line.trim_end_matches('\r').strip_prefix("data:") {
                each(data.trim_start());
            }
            self.line.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(url: &str, token: Option<&str>) -> Remote {
        Remote { url: url.into(), token: token.map(Into::into) }
    }

    #[test]
    fn settings_are_checked_before_anything_is_sent() {
        for bad in ["", "localhost:8080", "ftp://x", "http://"] {
            let failure = Api::new(&remote(bad, Some("t"))).err().unwrap();
            assert!(failure.hint.unwrap().contains("ATOLL_URL"), "{bad}");
        }
        let failure = Api::new(&remote("http://localhost", None)).err().unwrap();
        assert!(failure.hint.unwrap().contains("ATOLL_TOKEN"));
        assert_eq!(
            Api::new(&remote("https://localhost/", Some("t"))).ok().unwrap().base(),
            "https://localhost"
        );
    }

    #[tokio::test]
    async fn nobody_listening_is_said_with_what_to_do() {
        let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let api = Api::new(&remote(&format!("http://127.0.0.1:{port}"), Some("t"))).ok().unwrap();
        let failure = api.call(Method::GET, "/v1/workers", None).await.unwrap_err();
        assert_eq!(failure.kind, Kind::Unreachable);
        assert!(failure.message.contains("refused"), "{}", failure.message);
    }

    #[test]
    fn problems_become_failures_with_their_code() {
        let body =
            br#"{"type":"about:blank","title":"Bad","detail":"main.js:1:7: unexpected","code":"syntax"}"#;
        let failure = problem(StatusCode::UNPROCESSABLE_ENTITY, body);
        assert_eq!(
            (failure.kind, failure.message.as_str()),
            (Kind::Refused, "main.js:1:7: unexpected (syntax)")
        );
        assert!(problem(StatusCode::UNAUTHORIZED, b"").hint.unwrap().contains("ATOLL_TOKEN"));
        assert_eq!(problem(StatusCode::INTERNAL_SERVER_ERROR, b"<html>").kind, Kind::Internal);
    }

    #[test]
    fn events_may_arrive_in_any_pieces() {
        let mut found = Vec::new();
        let mut data = EventData::default();
        for piece in ["da", "ta: {\"a\":1}\n", "\n: ping\nevent: log\ndata:x\r\n\n", "data: cut"] {
            data.feed(piece.as_bytes(), &mut |text| found.push(text.to_owned()));
        }
        assert_eq!(found, ["{\"a\":1}", "x"]);
    }
}
