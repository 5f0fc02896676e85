//! A plain HTTP/1.1 client: one connection, no redirects, no header added except `host` and framing.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::canary;
use super::worker::Request;

/// What came back, body collected.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) reason: String,
    /// In the order received, names in lower case.
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Bytes,
}

impl Answer {
    /// The first value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(have, _)| have == name)?;
        std::str::from_utf8(value).ok()
    }

    /// The body as text, for messages and comparisons.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {} {}", self.status, self.text()))
    }
}

/// Why a request got no whole answer.
pub(crate) type ClientError = Box<dyn std::error::Error + Send + Sync>;

/// One keep-alive connection.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

impl Connection {
    /// Connects; `host` is what every request says in its `host` header.
    pub(crate) async fn open(address: SocketAddr, host: &str) -> Result<Self, ClientError> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_buf_size(1024 * 1024)
            .handshake(TokioIo::new(stream))
            .await?;
        tokio::spawn(connection);
        Ok(Self { sender, host: host.into() })
    }

    /// Sends one request and collects its answer.
    pub(crate) async fn send(&mut self, request: &Request) -> Result<Answer, ClientError> {
        let mut head = hyper::Request::builder().method(request.method.as_str()).uri(request.target.as_str());
        if !request.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head = head.header("host", &self.host);
        }
        for (name, value) in &request.headers {
            head = head.header(name, value);
        }
        let request = head.body(Full::new(Bytes::from(request.body.clone())))?;
        self.sender.ready().await?;
        let (head, body) = self.sender.send_request(request).await?.into_parts();
        let reason = match head.extensions.get::<hyper::ext::ReasonPhrase>() {
            Some(reason) => String::from_utf8_lossy(reason.as_bytes()).into_owned(),
            None => head.status.canonical_reason().unwrap_or_default().to_owned(),
        };
        let headers =
            head.headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
        let body = body.collect().await?.to_bytes();
        let answer = Answer { status: head.status.as_u16(), reason, headers, body };
        // In no test of any kind does a client see the secret, if there is one.
        canary::assert_clean(&canary::bytes_of(&answer), "an answer");
        Ok(answer)
    }
}

/// One request on a connection of its own.
pub(crate) async fn send(address: SocketAddr, host: &str, request: &Request) -> Result<Answer, ClientError> {
    Connection::open(address, host).await?.send(request).await
}
