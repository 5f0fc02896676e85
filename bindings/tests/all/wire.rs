//! Frames: what goes in comes out, and bytes that are not frames are errors.

use std::pin::Pin;
use std::task::{Context, Poll};

use atoll_bindings::seam::*;
use atoll_bindings::wire::{
    FrameReader, Message, SMALL_FRAME_BYTES_MAX, WireError, decode, encode, write_all,
};
use atoll_loader::bundle::CodeHash;
use atoll_loader::limits::Limits;
use bytes::Bytes;
use proptest::prelude::*;
use tokio::io::{AsyncRead, ReadBuf};

use crate::support::{response, usage};

fn text() -> impl Strategy<Value = String> {
    ".{0,40}"
}

fn bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from)
}

fn step() -> impl Strategy<Value = BodyStep> {
    prop_oneof![
        bytes().prop_map(BodyStep::Data),
        Just(BodyStep::End),
        text().prop_map(BodyStep::Abort),
        any::<u32>().prop_map(BodyStep::Credit),
        Just(BodyStep::Stop),
    ]
}

fn frame() -> impl Strategy<Value = BodyFrame> {
    (any::<u64>(), any::<u32>(), step()).prop_map(|(invocation, stream, step)| BodyFrame {
        invocation: InvocationId(invocation),
        stream: StreamId(stream),
        step,
    })
}

fn body() -> impl Strategy<Value = Body> {
    prop_oneof![
        Just(Body::Empty),
        bytes().prop_map(Body::Inline),
        (any::<u32>(), any::<Option<u64>>())
            .prop_map(|(id, length)| Body::Stream { id: StreamId(id), length }),
    ]
}

fn request() -> impl Strategy<Value = HttpRequest> {
    let headers = prop::collection::vec((text(), bytes()), 0..5);
    (text(), text(), headers, body()).prop_map(|(method, url, headers, body)| HttpRequest {
        method,
        url,
        headers: headers.into_iter().map(|(name, value)| (name.into(), value)).collect(),
        body,
        redirect: Redirect::Error,
    })
}

fn to_host() -> impl Strategy<Value = ToHost> {
    let id = any::<u64>().prop_map(InvocationId);
    prop_oneof![
        (any::<[u8; 32]>(), bytes())
            .prop_map(|(hash, encoded)| ToHost::Bundle { hash: CodeHash(hash), encoded }),
        any::<[u8; 32]>().prop_map(|hash| ToHost::Forget { hash: CodeHash(hash) }),
        (id.clone(), request(), text(), bytes()).prop_map(|(id, request, text, data)| {
            ToHost::Invoke(Box::new(Invoke {
                id,
                isolate: IsolateKey::Warm(text.as_str().into()),
                bundle: CodeHash([7; 32]),
                entrypoint: Some(text.clone()),
                props: None,
                event: Event::Fetch(request),
                identity: Identity { tenant: "t".into(), worker: "w".into(), traceparent: None },
                limits: Limits::default(),
                env: vec![
                    ("E".into(), EnvValue::Data(data)),
                    ("C".into(), EnvValue::Fetcher(ChannelId(1))),
                    ("K".into(), EnvValue::Kv(ChannelId(2))),
                ],
                outbound: Outbound::Channel(ChannelId(0)),
            }))
        }),
        (id.clone(), any::<u32>(), text()).prop_map(|(id, call, text)| {
            ToHost::Invoke(Box::new(Invoke {
                id,
                isolate: IsolateKey::Fresh,
                bundle: CodeHash([7; 32]),
                entrypoint: None,
                props: Some(text),
                event: Event::Session { caller: id, call: CallId(call) },
                identity: Identity { tenant: "t".into(), worker: "w".into(), traceparent: None },
                limits: Limits::default(),
                env: vec![("S".into(), EnvValue::Service(ChannelId(1)))],
                outbound: Outbound::Denied,
            }))
        }),
        frame().prop_map(ToHost::Body),
        (id.clone(), any::<u32>(), text()).prop_map(|(invocation, call, text)| ToHost::Reply {
            invocation,
            call: CallId(call),
            result: Err(CallError::Network(text)),
        }),
        (id.clone(), any::<u32>(), bytes(), text()).prop_map(|(invocation, call, bytes, text)| {
            ToHost::Returned {
                invocation,
                call: CallId(call),
                result: if call % 2 == 0 { Ok(bytes) } else { Err(MethodError::failed(text)) },
            }
        }),
        id.prop_map(|invocation| ToHost::Cancel { invocation }),
        text().prop_map(|key| ToHost::Evict { key: key.into() }),
        Just(ToHost::Drain),
    ]
}

fn to_gateway() -> impl Strategy<Value = ToGateway> {
    let id = any::<u64>().prop_map(InvocationId);
    prop_oneof![
        (id.clone(), body(), any::<u16>()).prop_map(|(invocation, body, status)| ToGateway::Response {
            invocation,
            response: response(status, body)
        }),
        (id.clone(), text()).prop_map(|(invocation, json)| ToGateway::Returned { invocation, json }),
        frame().prop_map(ToGateway::Body),
        (id.clone(), any::<u32>(), request()).prop_map(|(invocation, call, request)| ToGateway::Call {
            invocation,
            call: CallId(call),
            channel: ChannelId(call),
            request
        }),
        (id.clone(), any::<u32>(), text(), bytes()).prop_map(|(invocation, call, method, arguments)| {
            let (call, channel) = (CallId(call), ChannelId(call));
            ToGateway::CallMethod { invocation, call, channel, method, arguments }
        }),
        (id.clone(), any::<u32>()).prop_map(|(invocation, call)| {
            let (call, channel) = (CallId(call), ChannelId(call));
            ToGateway::OpenService { invocation, call, channel }
        }),
        (id.clone(), text()).prop_map(|(invocation, message)| ToGateway::Log(LogLine {
            invocation,
            level: LogLevel::Warn,
            time_ms: 1,
            message,
            truncated: true,
            fields: None
        })),
        id.clone().prop_map(|invocation| ToGateway::Done {
            invocation,
            outcome: Outcome::Hung,
            usage: usage()
        }),
        prop::collection::vec(id.prop_map(|invocation| Condemned { invocation, usage: usage() }), 0..5)
            .prop_map(|condemned| ToGateway::Heartbeat(Heartbeat { condemned, ..Heartbeat::default() })),
    ]
}

/// A source that gives a few bytes at a time.
struct Dribble {
    bytes: Vec<u8>,
    at: usize,
    step: usize,
}

impl AsyncRead for Dribble {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let now = self.step.min(self.bytes.len() - self.at).min(out.remaining());
        out.put_slice(&self.bytes[self.at..self.at + now]);
        self.at += now;
        Poll::Ready(Ok(()))
    }
}

fn read<M: Message>(bytes: Vec<u8>, step: usize) -> (Vec<M>, Option<WireError>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut frames = FrameReader::new(Dribble { bytes, at: 0, step });
        let mut messages = Vec::new();
        loop {
            match frames.next().await {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => return (messages, None),
                Err(error) => return (messages, Some(error)),
            }
        }
    })
}

fn written<M: Message>(messages: Vec<M>) -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    #[expect(clippy::disallowed_methods, reason = "a test")]
    let (sender, mut queue) = tokio::sync::mpsc::unbounded_channel();
    messages.into_iter().for_each(|message| sender.send(message).unwrap());
    drop(sender);
    let mut bytes = Vec::new();
    runtime.block_on(write_all(&mut queue, &mut bytes)).unwrap();
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn messages_survive_the_wire(
        down in prop::collection::vec(to_host(), 0..6),
        up in prop::collection::vec(to_gateway(), 0..6),
        step in 1..500_usize,
    ) {
        let (messages, error) = read::<ToHost>(written(down.clone()), step);
        prop_assert!(error.is_none());
        prop_assert_eq!(messages, down);
        let (messages, error) = read::<ToGateway>(written(up.clone()), step);
        prop_assert!(error.is_none());
        prop_assert_eq!(messages, up);
    }

    #[test]
    fn cut_bytes_are_an_error(message in to_gateway(), cut in any::<prop::sample::Index>()) {
        let mut bytes = written(vec![message]);
        bytes.truncate(cut.index(bytes.len()));
        let empty = bytes.is_empty();
        let (messages, error) = read::<ToGateway>(bytes, 64);
        prop_assert!(messages.is_empty());
        prop_assert_eq!(error.is_some(), !empty);
    }

    #[test]
    fn changed_bytes_never_panic(
        message in to_gateway(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = written(vec![message]);
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        // Either an error, or another message that is well-formed: it encodes again.
        let (messages, _) = read::<ToGateway>(bytes, 64);
        for message in messages {
            prop_assert!(encode(&message, &mut Vec::new()).is_ok());
        }
    }

    #[test]
    fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode::<ToGateway>(&noise);
        let _ = decode::<ToHost>(&noise);
        read::<ToGateway>(noise, 7);
    }
}

#[test]
fn only_a_returned_value_may_be_large() {
    let large = "x".repeat(SMALL_FRAME_BYTES_MAX);
    let invocation = InvocationId(1);
    let mut out = vec![1, 2, 3];
    encode(&ToGateway::Returned { invocation, json: large.clone() }, &mut out).unwrap();
    assert!(out.len() > SMALL_FRAME_BYTES_MAX);
    let line = LogLine {
        invocation,
        level: LogLevel::Log,
        time_ms: 0,
        message: large,
        truncated: false,
        fields: None,
    };
    let mut out = vec![1, 2, 3];
    assert!(matches!(encode(&ToGateway::Log(line), &mut out), Err(WireError::TooLong { .. })));
    assert_eq!(out, [1, 2, 3], "what was there before stays");
}

#[test]
fn a_message_that_is_too_long_does_not_stop_the_others() {
    let line = LogLine {
        invocation: InvocationId(1),
        level: LogLevel::Log,
        time_ms: 0,
        message: "x".repeat(SMALL_FRAME_BYTES_MAX),
        truncated: false,
        fields: None,
    };
    let beat = ToGateway::Heartbeat(Heartbeat::default());
    let bytes = written(vec![beat.clone(), ToGateway::Log(line), beat.clone()]);
    let (messages, error) = read::<ToGateway>(bytes, 1000);
    assert!(error.is_none());
    assert_eq!(messages, vec![beat.clone(), beat]);
}
