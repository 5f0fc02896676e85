//! WebSockets that a guest opens: the handshake as one more request under the same policy, then a relay of its own.
//!
//! ```text
//!  GET + upgrade ─▶ list, rates, caps, vetted address (as any request) ─▶ HTTP/1.1 handshake ─▶ 101? ─▶ relay task
//! ```
//!
//! HTTP/1.1 only, on a connection of its own: what was upgraded is no HTTP connection any more. Redirects are not followed; the
//! guest gets them as answers, as it gets every other refusal. The caps on bytes of a class count messages too. The crossing is
//! told, and its place under the class's caps is free, when the guest lets go of the socket.

use std::sync::Arc;

use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;

use super::gate::Slot;
use super::meter::{Received, Sent};
use super::redirect::Hops;
use super::{Inner, Refusal, check_headers, explain, origin, remove_hop_by_hop};
use crate::body::{ReplyBody, RequestBody};
use crate::channel::ReplyMeta;
use crate::crossing::{Denial, Telling, Verdict};
use crate::seam::CallError;
use crate::socket::handshake::Opening;
use crate::socket::{Meter, Relay, Role, incoming};

impl Inner {
    /// Opens a WebSocket. What the guest sends through it is the request's body; what it gets, that of a 101 answer.
    pub(super) async fn socket(
        &self,
        request: Request<RequestBody>,
        mut telling: Telling,
    ) -> Result<Response<ReplyBody>, Refusal> {
        match self.shake_hands(request, &mut telling).await {
            Ok((response, hops, slot, opened)) => {
                telling.verdict(Verdict::Answered(response.status().as_u16()));
                match opened {
                    None => Ok(self.reply(response, &hops, telling, slot)),
                    Some(opened) => opened.reply(response, &hops, telling, slot).await,
                }
            }
            Err(refusal) => {
                telling.verdict(refusal.verdict());
                Err(refusal)
            }
        }
    }

    async fn shake_hands(
        &self,
        request: Request<RequestBody>,
        telling: &mut Telling,
    ) -> Result<(Response<Incoming>, Hops, Slot, Option<Opened>), Refusal> {
        let (hops, outgoing) = Hops::new(request)?;
        telling.hop(&hops.url, 0);
        if !telling.ready() {
            return Err(Refusal::Denied(Denial::Audit, "The audit log takes no records.".to_owned()));
        }
        self.check(&hops)?;
        let denied = |denial| Refusal::denied(denial, &hops.url);
        let slot = self.grant.gate.enter().map_err(denied)?;
        let max = self.grant.gate.caps().request_bytes_max;
        // The caps count the parts on the seam, heads included; what is told are the bytes of messages (see `Meter`).
        let outgoing = Sent::wrap(outgoing, &Arc::default(), max).map_err(denied)?;
        let mut handshake = hops.request(None)?;
        let opening = Opening::new(handshake.headers_mut());
        let response = self.sockets.request(handshake).await.map_err(|error| explain(&error, &hops.url))?;
        check_headers(response.headers())?;
        let opened = (response.status() == StatusCode::SWITCHING_PROTOCOLS).then_some(Opened {
            opening,
            outgoing,
            max: self.grant.gate.caps().response_bytes_max,
        });
        Ok((response, hops, slot, opened))
    }
}

/// A handshake that the server says it accepts.
struct Opened {
    opening: Opening,
    outgoing: RequestBody,
    max: Option<u64>,
}

impl Opened {
    async fn reply(
        self,
        mut response: Response<Incoming>,
        hops: &Hops,
        telling: Telling,
        slot: Slot,
    ) -> Result<Response<ReplyBody>, Refusal> {
        let network = |text: String| Refusal::Failed(CallError::Network(text));
        let deflate = self.opening.check(response.headers()).map_err(|bad| network(bad.to_string()))?;
        let upgraded = hyper::upgrade::on(&mut response).await;
        let io = upgraded.map_err(|_| network(format!("{} broke off", origin(&hops.url))))?;
        let (incoming, body) = incoming();
        let meter = Meter { from_peer: telling.received.clone(), to_peer: telling.sent.clone() };
        let relay = Relay { io: TokioIo::new(io), role: Role::Client, deflate, incoming, meter };
        // It ends with the guest's body, which ends with the invocation at the latest.
        tokio::spawn(relay.run(self.outgoing, std::future::pending()));
        let (mut parts, _) = response.into_parts();
        remove_hop_by_hop(&mut parts.headers);
        parts.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        parts.headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        parts.extensions.insert(ReplyMeta { url: hops.url.to_string(), ..ReplyMeta::default() });
        let body = RequestBody::stream(body);
        let max = self.max.unwrap_or(u64::MAX);
        Ok(Response::from_parts(parts, Received::wrap_bounded(body, max, telling, slot)))
    }
}
