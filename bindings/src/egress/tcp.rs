//! TCP connections that a guest opens with `connect()`: under the same lists, vetted addresses, rates and caps as requests.
//!
//! ```text
//!  CONNECT tcp://host:port ─▶ list, rates, caps ─▶ resolve, vet, dial ─▶ 200
//!                                      outgoing body ──▶ [TLS] ──▶ peer
//!                                      answer's body ◀── [TLS] ◀── peer
//! ```
//!
//! A connection crosses the seam as what the seam already has: the body of a request and the body of its answer. The scheme of
//! the URL says how it is secured: `tcp` not at all, `tls` from the start, `starttls` when the guest says so. Only then is the
//! outgoing body framed ([`Frames`]), because bytes alone could not say it. A [`Tunnel`] of a sandbox is the same under other rules.
//!
//! Both directions are polled by one task, which ends with the guest's body or the guest's interest, so with the invocation at
//! the latest. What a guest does not read stays with the peer: one piece waits here.
//!
//! API: <https://developers.cloudflare.com/workers/runtime-apis/tcp-sockets/>.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response, Uri};
use http_body::{Body, Frame};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use url::Url;

use super::gate::Slot;
use super::meter::{Received, Sent};
use super::tunnel::Tunnel;
use super::{Inner, Refusal};
use crate::body::{BoxError, ReplyBody, RequestBody};
use crate::crossing::{Denial, Telling, Verdict};
use crate::seam::CallError;

/// Largest piece that is read from a peer at once, in bytes.
const PIECE_BYTES_MAX: usize = 16 * 1024;
/// Longest TLS handshake, in milliseconds.
const HANDSHAKE_MS_MAX: u64 = 10_000;
/// How long what a guest sent may take to leave after the guest stopped listening, in milliseconds.
const LINGER_MS_MAX: u64 = 5_000;
/// Longest name of a server in a frame, in bytes (RFC 1035, section 2.3.4).
const SERVER_NAME_BYTES_MAX: usize = 253;

/// Where to, and how secured.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    security: Security,
    host: String,
    port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Security {
    Off,
    On,
    WhenAsked,
}

impl Target {
    /// The host is read as that of a web URL, so that each spelling of an address is the address.
    fn of(uri: &Uri) -> Result<Self, CallError> {
        let invalid = || CallError::Invalid("Specified address could not be parsed.".to_owned());
        let security = match uri.scheme_str() {
            Some("tcp") => Security::Off,
            Some("tls") => Security::On,
            Some("starttls") => Security::WhenAsked,
            _ => return Err(invalid()),
        };
        let authority = uri.authority().ok_or_else(invalid)?;
        let port = authority.port_u16().filter(|port| *port != 0).ok_or_else(invalid)?;
        let url = Url::parse(&format!("https://{authority}/")).map_err(|_| invalid())?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(invalid());
        }
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(invalid)?;
        let host = host.strip_suffix('.').unwrap_or(host).to_owned();
        Ok(Self { security, host, port })
    }

    /// As the audit trail and error texts name it.
    fn origin(&self) -> String {
        format!("tcp://{}:{}", self.host, self.port)
    }

    fn denied(&self, denial: Denial) -> Refusal {
        Refusal::Denied(denial, format!("Not allowed to reach {}.", self.origin()))
    }
}

impl Inner {
    /// Opens a connection. What the guest sends is the request's body; what it gets, that of the answer.
    pub(super) async fn connect(
        &self,
        mut request: Request<RequestBody>,
        mut telling: Telling,
    ) -> Result<Response<ReplyBody>, Refusal> {
        let tunnel = request.extensions_mut().remove::<Tunnel>();
        if let Some(tunnel) = &tunnel {
            telling.ended_by(Arc::clone(&tunnel.end));
        }
        let opened = match Target::of(request.uri()) {
            Ok(target) => {
                self.open(&target, request, tunnel.as_ref(), &mut telling).await.map(|open| (open, target))
            }
            Err(error) => Err(error.into()),
        };
        match opened {
            Ok(((body, slot), target)) => {
                telling.verdict(Verdict::Answered(200));
                let max = self.grant.gate.caps().response_bytes_max.unwrap_or(u64::MAX);
                let body = RequestBody::stream(body);
                let mut response = Response::new(Received::wrap(body, max, telling, slot));
                if tunnel.is_some() {
                    response.extensions_mut().insert(self.grant.terms(&target.host, target.port));
                }
                Ok(response)
            }
            Err(refusal) => {
                telling.verdict(refusal.verdict());
                Err(refusal)
            }
        }
    }

    async fn open(
        &self,
        target: &Target,
        request: Request<RequestBody>,
        tunnel: Option<&Tunnel>,
        telling: &mut Telling,
    ) -> Result<(Arriving, Slot), Refusal> {
        telling.to(target.origin());
        if !telling.ready() {
            return Err(Refusal::Denied(Denial::Audit, "The audit log takes no records.".to_owned()));
        }
        let denied = |denial| target.denied(denial);
        if self.grant.policies.is_empty() {
            return Err(denied(Denial::Origin));
        }
        let place = match tunnel {
            None => {
                let mut policies = self.grant.policies.iter();
                policies
                    .try_for_each(|policy| policy.check_tcp(&target.host, target.port))
                    .map_err(denied)?;
                None
            }
            Some(tunnel) => {
                self.grant.check_tunnel(&target.host, target.port).map_err(denied)?;
                Some((tunnel.place().map_err(denied)?, tunnel.over.clone()))
            }
        };
        let slot = self.grant.gate.enter().map_err(denied)?;
        let max = self.grant.gate.caps().request_bytes_max;
        let outgoing = Sent::wrap(request.into_body(), &telling.sent, max).map_err(denied)?;
        let dialled = self.net.connector.dial(&target.host, target.port).await;
        let stream = dialled.map_err(|error| match error {
            super::ConnectError::Denied => denied(Denial::Address),
            error => network(error.to_string()),
        })?;
        let (pieces, arriving) = mpsc::channel(1);
        let secure = Secure { tls: self.net.tls.clone(), host: target.host.clone() };
        if let Some((place, mut over)) = place {
            tokio::spawn(async move {
                let mut upload = Upload::plain(outgoing);
                tokio::select! {
                    // Nothing is ever sent there: its end is the end of the tunnel.
                    _ = over.changed() => {}
                    _ = pass(stream, &mut upload, &pieces) => {}
                }
                drop(place);
            });
            return Ok((Arriving(arriving), slot));
        }
        match target.security {
            Security::On => {
                let stream = secure.shake_hands(stream, None).await.map_err(network)?;
                tokio::spawn(async move { drop(pass(stream, &mut Upload::plain(outgoing), &pieces).await) });
            }
            Security::Off => {
                tokio::spawn(async move { drop(pass(stream, &mut Upload::plain(outgoing), &pieces).await) });
            }
            Security::WhenAsked => {
                tokio::spawn(secure.later(stream, Upload::framed(outgoing), pieces));
            }
        }
        Ok((Arriving(arriving), slot))
    }
}

fn network(text: String) -> Refusal {
    Refusal::Failed(CallError::Network(text))
}

/// What TLS needs, once it is wanted.
struct Secure {
    tls: rustls::ClientConfig,
    host: String,
}

impl Secure {
    /// With the certificate of `name`, or of the host that was dialled.
    async fn shake_hands(
        &self,
        stream: TcpStream,
        name: Option<&str>,
    ) -> Result<TlsStream<TcpStream>, String> {
        let name = name.unwrap_or(&self.host).trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(name).map_err(|_| "TLS: not a server's name".to_owned())?;
        let handshake = TlsConnector::from(Arc::new(self.tls.clone())).connect(name, stream);
        match tokio::time::timeout(Duration::from_millis(HANDSHAKE_MS_MAX), handshake).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(format!("TLS: {error}")),
            Err(_) => Err("TLS: the handshake took too long".to_owned()),
        }
    }

    /// Plain until the guest says otherwise.
    async fn later(self, stream: TcpStream, mut upload: Upload, pieces: Pieces) {
        let Some((stream, name)) = pass(stream, &mut upload, &pieces).await else { return };
        match self.shake_hands(stream, name.as_deref()).await {
            Ok(stream) => drop(pass(stream, &mut upload, &pieces).await),
            Err(error) => drop(pieces.send(Err(error.into())).await),
        }
    }
}

/// What a peer sends; `None` is its end, which comes while the guest may go on sending.
type Pieces = mpsc::Sender<Result<Option<Bytes>, BoxError>>;

/// Both directions, until they end, or until the guest wants TLS: then the connection and the server's name are given back.
async fn pass<S>(stream: S, upload: &mut Upload, pieces: &Pieces) -> Option<(S, Option<String>)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut reader, mut writer) = tokio::io::split(stream);
    let name = {
        let sending = send(&mut writer, upload);
        let receiving = receive(&mut reader, pieces);
        tokio::pin!(sending, receiving);
        // Either side may have said all while the other goes on.
        let (mut sent, mut received) = (false, false);
        loop {
            tokio::select! {
                stopped = &mut sending, if !sent => match stopped {
                    Stopped::ForTls(name) => break name,
                    Stopped::AtTheEnd => sent = true,
                    Stopped::Broken => return None,
                },
                () = &mut receiving, if !received => received = true,
                // Nobody listens any more after the peer's end either, and that means nothing.
                () = pieces.closed(), if !received => {
                    // The guest listens no more, and its caps are free: what it sent before that may still go out.
                    if !sent {
                        let _ = tokio::time::timeout(Duration::from_millis(LINGER_MS_MAX), sending).await;
                    }
                    return None;
                }
            }
            if sent && received {
                return None;
            }
        }
    };
    Some((reader.unsplit(writer), name))
}

/// Why nothing more is sent for now.
enum Stopped {
    /// The guest wants TLS, with this name of the server.
    ForTls(Option<String>),
    /// The guest said all, and the peer was told.
    AtTheEnd,
    /// The guest's side failed or made no sense, or the peer takes no more.
    Broken,
}

async fn send<S: AsyncWrite>(writer: &mut WriteHalf<S>, upload: &mut Upload) -> Stopped {
    loop {
        match upload.next().await {
            Some(Ok(Step::Data(bytes))) => {
                if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
                    return Stopped::Broken;
                }
            }
            Some(Ok(Step::Secure(name))) => return Stopped::ForTls(name),
            Some(Err(_)) => return Stopped::Broken,
            None => {
                return match writer.shutdown().await {
                    Ok(()) => Stopped::AtTheEnd,
                    Err(_) => Stopped::Broken,
                };
            }
        }
    }
}

/// Room for a piece comes first: whoever stops waiting loses no byte that was read.
async fn receive<S: AsyncRead>(reader: &mut ReadHalf<S>, pieces: &Pieces) {
    let mut buffer = BytesMut::new();
    while let Ok(room) = pieces.reserve().await {
        buffer.reserve(PIECE_BYTES_MAX);
        match reader.read_buf(&mut buffer).await {
            Ok(0) => return room.send(Ok(None)),
            Ok(_) => room.send(Ok(Some(buffer.split().freeze()))),
            Err(error) => {
                return room.send(Err(format!("the connection broke off ({})", error.kind()).into()));
            }
        }
    }
}

/// What a guest wants next.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Data(Bytes),
    Secure(Option<String>),
}

/// The guest's side.
struct Upload {
    body: RequestBody,
    frames: Option<Frames>,
}

impl Upload {
    fn plain(body: RequestBody) -> Self {
        Self { body, frames: None }
    }

    fn framed(body: RequestBody) -> Self {
        Self { body, frames: Some(Frames::default()) }
    }

    async fn next(&mut self) -> Option<Result<Step, BoxError>> {
        loop {
            if let Some(frames) = &mut self.frames {
                match frames.take() {
                    Ok(None) => {}
                    Ok(Some(step)) => return Some(Ok(step)),
                    Err(bad) => return Some(Err(bad.into())),
                }
            }
            match poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await? {
                Err(error) => return Some(Err(error)),
                Ok(frame) => match (frame.into_data(), &mut self.frames) {
                    (Ok(bytes), Some(frames)) => frames.push(bytes),
                    (Ok(bytes), None) => return Some(Ok(Step::Data(bytes))),
                    // Trailers mean nothing here.
                    (Err(_), _) => {}
                },
            }
        }
    }
}

/// Frames of an outgoing body with `starttls`: a kind (0 data, 1 TLS from here on), a length of 4 bytes, little-endian, and as
/// many bytes: data, or the name of the server (empty: the host that was dialled). Data passes on as it comes; what waits here
/// is less than a head or one name.
#[derive(Debug, Default)]
struct Frames {
    input: BytesMut,
    /// Of the data frame under way.
    left: usize,
    secured: bool,
}

/// A guest's frames make no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed frames of a connection")]
struct BadFrames;

impl Frames {
    const HEAD_BYTES: usize = 5;

    fn push(&mut self, bytes: Bytes) {
        self.input.extend_from_slice(&bytes);
    }

    fn take(&mut self) -> Result<Option<Step>, BadFrames> {
        loop {
            if self.left > 0 {
                let here = self.left.min(self.input.len());
                if here == 0 {
                    return Ok(None);
                }
                self.left -= here;
                return Ok(Some(Step::Data(self.input.split_to(here).freeze())));
            }
            let Some(&[kind, a, b, c, d]) = self.input.first_chunk() else { return Ok(None) };
            let length = u32::from_le_bytes([a, b, c, d]) as usize;
            match kind {
                0 => {
                    let _head = self.input.split_to(Self::HEAD_BYTES);
                    self.left = length;
                }
                1 if !self.secured && length <= SERVER_NAME_BYTES_MAX => {
                    if self.input.len() < Self::HEAD_BYTES + length {
                        return Ok(None);
                    }
                    let frame = self.input.split_to(Self::HEAD_BYTES + length);
                    let name = std::str::from_utf8(&frame[Self::HEAD_BYTES..]).map_err(|_| BadFrames)?;
                    self.secured = true;
                    return Ok(Some(Step::Secure((!name.is_empty()).then(|| name.to_owned()))));
                }
                _ => return Err(BadFrames),
            }
        }
    }
}

/// The answer's body: what the peer sends.
struct Arriving(mpsc::Receiver<Result<Option<Bytes>, BoxError>>);

impl Body for Arriving {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let piece = ready!(self.0.poll_recv(cx));
        Poll::Ready(piece.and_then(|piece| Some(piece.transpose()?.map(Frame::data))))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn targets_are_read_like_web_addresses() {
        let of = |text: &str| Target::of(&text.parse().unwrap()).map(|t| (t.security, t.host, t.port)).ok();
        let some = |security, host: &str, port| Some((security, host.to_owned(), port));
        assert_eq!(of("tcp://db.example.com:5432"), some(Security::Off, "db.example.com", 5432));
        assert_eq!(of("tls://DB.example.com.:5432"), some(Security::On, "db.example.com", 5432));
        assert_eq!(of("starttls://[::1]:25"), some(Security::WhenAsked, "[::1]", 25));
        for spelling in ["127.1", "0x7f.1", "2130706433", "0177.0.0.1"] {
            assert_eq!(
                of(&format!("tcp://{spelling}:80")),
                some(Security::Off, "127.0.0.1", 80),
                "{spelling}"
            );
        }
        for bad in ["tcp://a", "tcp://a:0", "tcp://u@a:1", "https://a:1", "/a:1"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        [&[kind][..], &u32::try_from(payload.len()).unwrap().to_le_bytes(), payload].concat()
    }

    #[test]
    fn frames_that_make_no_sense_are_refused() {
        let secure = frame(1, b"");
        for bad in
            [frame(2, b""), frame(1, &[b'a'; 254]), frame(1, b"\xff"), [secure.clone(), secure].concat()]
        {
            let mut frames = Frames::default();
            frames.push(bad.into());
            let end = std::iter::from_fn(|| frames.take().transpose()).find(Result::is_err);
            assert_eq!(end, Some(Err(BadFrames)));
        }
    }

    proptest! {
        /// However the bytes are cut, data and the one wish for TLS come out in order.
        #[test]
        fn frames_survive_any_cut(
            before in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6),
            after in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6),
            cuts in prop::collection::vec(1usize..30, 1..60),
        ) {
            let mut wire: Vec<u8> = before.iter().flat_map(|data| frame(0, data)).collect();
            wire.extend(frame(1, b"a.example"));
            wire.extend(after.iter().flat_map(|data| frame(0, data)));
            let (mut frames, mut got, mut wish) = (Frames::default(), Vec::new(), None);
            let mut rest = &wire[..];
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                rest = later;
                frames.push(Bytes::copy_from_slice(now));
                while let Some(step) = frames.take().unwrap() {
                    match step {
                        Step::Data(data) => got.extend_from_slice(&data),
                        Step::Secure(name) => wish = Some((got.len(), name)),
                    }
                }
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(wish, Some((before.concat().len(), Some("a.example".to_owned()))));
            prop_assert_eq!(got, [before.concat(), after.concat()].concat());
        }
    }
}
