//! Exec over a WebSocket, in both versions of the protocol: each message is a channel's number and bytes of it.

use std::sync::Arc;

use atoll_container_bridge::{init::relay::RELAY, protocol::Setup};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode, body::Incoming};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::derive_accept_key, protocol::Role},
};

use super::{Answer, Asked, Shared, lock, refused};

const V5: &str = "v5.channel.k8s.io";
const V4: &str = "v4.channel.k8s.io";
/// Version 5: the channel that follows has ended.
const CLOSE: u8 = 255;

/// Whether the connection breaks, and when.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    Never,
    /// When the command has begun.
    AtOnce,
}

impl Shared {
    pub(super) fn exec(self: &Arc<Self>, asked: &Asked, mut request: Request<Incoming>, cut: Cut) -> Answer {
        let header = |name: &str| request.headers().get(name)?.to_str().ok().map(str::to_owned);
        let (Some(key), Some(offered)) = (header("sec-websocket-key"), header("sec-websocket-protocol"))
        else {
            return Ok(refused(400, "you must specify an upgrade"));
        };
        let old = lock(&self.weather).old_exec;
        let known: &[&str] = if old { &[V4] } else { &[V5, V4] };
        let Some(protocol) = known.iter().find(|one| offered.split(", ").any(|offer| offer == **one)) else {
            return Ok(refused(400, "unknown protocol"));
        };
        let command: Vec<_> = asked.query.iter().filter(|(key, _)| key == "command").collect();
        if command.last().is_none_or(|(_, word)| word != RELAY) {
            return Ok(refused(500, "command not found"));
        }
        let taken =
            lock(&self.waiting).get_mut(asked.name.as_deref().unwrap_or_default()).and_then(|waiting| {
                let (setup, stream) = waiting.init.take()?;
                Some((setup, stream, Arc::clone(&waiting.over)))
            });
        let Some((setup, stream, over)) = taken else {
            return Ok(refused(500, "container not found"));
        };
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            if let Ok(upgraded) = upgrade.await
                && cut == Cut::Never
            {
                let socket =
                    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
                carry(socket, setup, stream).await;
            }
            over.notify_one();
        });
        Ok(Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-accept", derive_accept_key(key.as_bytes()))
            .header("sec-websocket-protocol", *protocol)
            .body(Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync())
            .unwrap())
    }
}

/// The init's set-up as the node has it: what the machine bounds is the node's to say, the rest the gateway's.
fn merged(node: Setup, gateway: Setup) -> Setup {
    let mut limits = node.limits;
    limits.pids = gateway.limits.pids;
    limits.open_files = gateway.limits.open_files;
    limits.lifetime_ms = gateway.limits.lifetime_ms;
    assert!(gateway.uid_base.is_none() && gateway.cgroup.is_none(), "a gateway knows nothing of the node");
    Setup { limits, env: gateway.env, ..node }
}

/// Takes whole messages from the front of bytes that come in pieces.
#[derive(Default)]
struct FirstFrame(Vec<u8>);

impl FirstFrame {
    /// The set-up and what came after it, once all of it is there.
    fn take(&mut self, bytes: &[u8]) -> Option<(Setup, Vec<u8>)> {
        self.0.extend(bytes);
        let length = u32::from_le_bytes(self.0.get(..4)?.try_into().unwrap()) as usize;
        let rest = self.0.get(4 + length..)?.to_vec();
        Some((postcard::from_bytes(&self.0[4..4 + length]).unwrap(), rest))
    }
}

async fn carry<S>(socket: WebSocketStream<S>, node: Setup, init: UnixStream)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let (output, input) = socket.split();
    let (from_init, to_init) = init.into_split();
    tokio::select! {
        _ = inward(input, node, to_init) => {}
        _ = outward(output, from_init) => {}
    }
}

/// From the gateway to the init; ends when the gateway has gone, or has ended the input.
async fn inward<S>(mut input: S, node: Setup, mut to_init: OwnedWriteHalf) -> Option<()>
where
    S: futures_util::Stream<Item = Result<Message, tokio_tungstenite::tungstenite::Error>> + Unpin,
{
    let (mut first, mut node) = (FirstFrame::default(), Some(node));
    while let Some(Ok(message)) = input.next().await {
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Close(_) => break,
            _ => continue,
        };
        match bytes.split_first()? {
            (0, bytes) if node.is_some() => {
                if let Some((gateway, rest)) = first.take(bytes) {
                    let setup = postcard::to_stdvec(&merged(node.take()?, gateway)).unwrap();
                    to_init.write_all(&(setup.len() as u32).to_le_bytes()).await.ok()?;
                    to_init.write_all(&[setup, rest].concat()).await.ok()?;
                }
            }
            (0, bytes) => to_init.write_all(bytes).await.ok()?,
            (&CLOSE, [0]) => {
                to_init.shutdown().await.ok()?; // the relay tells the init so, which leaves
                std::future::pending::<()>().await;
            }
            _ => {}
        }
    }
    Some(())
}

async fn outward<S>(mut output: S, mut from_init: OwnedReadHalf) -> Option<()>
where
    S: futures_util::Sink<Message> + Unpin,
{
    let mut buffer = vec![0; 32 * 1024];
    loop {
        match from_init.read(&mut buffer).await {
            Ok(length) if length > 0 => {
                output.send(Message::binary([&[1], &buffer[..length]].concat())).await.ok()?;
            }
            _ => break,
        }
    }
    let status = json!({ "metadata": {}, "status": "Success" }).to_string();
    output.send(Message::binary([&[3], status.as_bytes()].concat())).await.ok()?;
    output.close().await.ok()
}
