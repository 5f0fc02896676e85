//! Server-sent events: a bounded queue as a body, with a sign of life when there is nothing to say.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http_body::{Body, Frame};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};

use crate::server::body::{BoxError, ReplyBody};

/// Events waiting for a slow client.
const EVENTS_MAX: usize = 64;
/// Silence after which a comment is sent, so that a client that is gone is noticed.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

/// The sending half: the client is gone when sending fails.
#[derive(Clone)]
pub(super) struct Events(mpsc::Sender<Bytes>);

impl Events {
    /// Sends one event, waits for room.
    pub(super) async fn send(&self, name: &'static str, data: &impl Serialize) -> Result<(), Gone> {
        // JSON text has no line ends, so one `data:` line holds it.
        let data = serde_json::to_string(data).map_err(|_| Gone)?;
        self.0.send(format!("event: {name}\ndata: {data}\n\n").into()).await.map_err(|_| Gone)
    }

    /// Waits until the client is gone.
    pub(super) async fn gone(&self) {
        self.0.closed().await;
    }
}

/// The client does not listen any more.
#[derive(Debug)]
pub(super) struct Gone;

/// A response of events, and where they are put in.
pub(super) fn response() -> (Events, Response<ReplyBody>) {
    let (sender, receiver) = mpsc::channel(EVENTS_MAX);
    let life = Box::pin(tokio::time::sleep(SIGN_OF_LIFE));
    let mut response = Response::new(ReplyBody::stream(EventBody { receiver, life }));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    (Events(sender), response)
}

struct EventBody {
    receiver: mpsc::Receiver<Bytes>,
    life: Pin<Box<Sleep>>,
}

impl Body for EventBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(event) = self.receiver.poll_recv(cx) {
            self.life.as_mut().reset(Instant::now() + SIGN_OF_LIFE);
            return Poll::Ready(event.map(|event| Ok(Frame::data(event))));
        }
        if self.life.as_mut().poll(cx).is_ready() {
            self.life.as_mut().reset(Instant::now() + SIGN_OF_LIFE);
            // Registers the new deadline.
            let _ = self.life.as_mut().poll(cx);
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b":\n\n")))));
        }
        Poll::Pending
    }
}
