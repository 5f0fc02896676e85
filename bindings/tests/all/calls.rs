//! Guests calling their capabilities.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use atoll_bindings::body::RequestBody;
use atoll_bindings::channel::{CallContext, CallFuture, Channel, MethodFuture, ReplyMeta};
use atoll_bindings::link::{Grant, Link, Running, Start};
use atoll_bindings::seam::*;
use atoll_bindings::value::Value;
use atoll_loader::limits::{BODY_CREDIT_BYTES, Limits};
use bytes::Bytes;
use http_body_util::BodyExt;

use crate::support::*;

/// Answers with what it was asked.
struct Echo(&'static str);

impl Channel for Echo {
    fn fetch(&self, context: CallContext, request: http::Request<RequestBody>) -> CallFuture {
        let name = self.0;
        Box::pin(async move {
            assert_eq!(request.extensions().get::<Redirect>(), Some(&Redirect::Manual));
            let head = format!("{name} {} {} ", context.identity.tenant, request.uri());
            let body = request.into_body().collect().await.map_err(|e| CallError::Network(e.to_string()))?;
            let mut response =
                http::Response::new(Bytes::from([head.as_bytes(), &body.to_bytes()].concat()).into());
            response.extensions_mut().insert(ReplyMeta { redirected: true, ..ReplyMeta::default() });
            Ok(response)
        })
    }

    fn name(&self) -> &str {
        self.0
    }
}

/// Answers as the function says.
struct Does(Box<dyn Fn(http::Request<RequestBody>) -> CallFuture + Send + Sync>);

impl Channel for Does {
    fn fetch(&self, _: CallContext, request: http::Request<RequestBody>) -> CallFuture {
        (self.0)(request)
    }

    fn name(&self) -> &str {
        "does"
    }
}

async fn started(link: &Link, host: &mut Host, start: Start) -> (Running, InvocationId) {
    let running = link.start(start).unwrap();
    let id = host.invoke().await.id;
    (running, id)
}

fn with(channel: impl Channel + 'static) -> Start {
    Start { outbound: Some(Arc::new(channel)), ..fetch(RequestBody::Empty) }
}

async fn reply(host: &mut Host) -> (CallId, Result<HttpResponse, CallError>) {
    match host.next().await {
        ToHost::Reply { call, result, .. } => (call, result),
        other => panic!("not a reply: {other:?}"),
    }
}

fn text(response: HttpResponse) -> String {
    match response.body {
        Body::Inline(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
        other => panic!("not inline: {other:?}"),
    }
}

#[tokio::test]
async fn numbers_mean_what_was_granted() {
    both(|link, mut host| async move {
        let start = Start {
            env: vec![
                ("A".into(), Grant::Channel(Arc::new(Echo("a")))),
                ("T".into(), Grant::Text("t".into())),
                ("B".into(), Grant::Channel(Arc::new(Echo("b")))),
                ("L".into(), Grant::Loader { scope: "acme/l".into() }),
            ],
            ..with(Echo("out"))
        };
        let _running = link.start(start).unwrap();
        let invoke = host.invoke().await;
        assert_eq!(invoke.outbound, Outbound::Channel(ChannelId(0)));
        assert_eq!(invoke.env[0].1, EnvValue::Fetcher(ChannelId(1)));
        assert_eq!(invoke.env[1].1, EnvValue::Text("t".into()));
        assert_eq!(invoke.env[2].1, EnvValue::Fetcher(ChannelId(2)));
        assert_eq!(invoke.env[3].1, EnvValue::Loader { scope: "acme/l".into() });
        for (number, name) in [(0, "out"), (1, "a"), (2, "b")] {
            host.call(invoke.id, number, number, Body::Inline(Bytes::from_static(b"hi")));
            let (call, result) = reply(&mut host).await;
            assert_eq!(call, CallId(number));
            let response = result.unwrap();
            assert!(response.redirected);
            assert_eq!(text(response), format!("{name} acme https://example.com/x hi"));
        }
    })
    .await;
}

#[tokio::test]
async fn a_number_that_was_not_granted_is_denied() {
    both(|link, mut host| async move {
        let (_rich, _) = started(&link, &mut host, with(Echo("out"))).await;
        let (_poor, id) = started(&link, &mut host, fetch(RequestBody::Empty)).await;
        for number in [0, 1, u32::MAX] {
            host.call(id, number, number, Body::Empty);
            let (_, result) = reply(&mut host).await;
            assert!(matches!(result, Err(CallError::Denied(_))), "{result:?}");
        }
        assert_eq!(link.calls_forged(), 3);
    })
    .await;
}

#[tokio::test]
async fn the_body_of_a_refused_call_is_stopped() {
    both(|link, mut host| async move {
        let (_running, id) = started(&link, &mut host, fetch(RequestBody::Empty)).await;
        host.call(id, 1, 0, Body::Stream { id: StreamId(1), length: None });
        let ToHost::Body(frame) = host.next().await else { panic!("a stop") };
        assert_eq!((frame.stream, frame.step), (StreamId(1), BodyStep::Stop));
        assert!(reply(&mut host).await.1.is_err());
    })
    .await;
}

#[tokio::test]
async fn subrequests_are_counted_here_too() {
    both(|link, mut host| async move {
        let limits = Limits { subrequests: 2, ..Limits::default() };
        let (_running, id) = started(&link, &mut host, Start { limits, ..with(Echo("out")) }).await;
        for number in 0..4 {
            host.call(id, number, 0, Body::Empty);
            let (_, result) = reply(&mut host).await;
            assert_eq!(result.is_ok(), number < 2, "{result:?}");
        }
        assert_eq!(link.calls_forged(), 0);
    })
    .await;
}

#[tokio::test]
async fn malformed_requests_are_refused_one_by_one() {
    both(|link, mut host| async move {
        let (_running, id) = started(&link, &mut host, with(Echo("out"))).await;
        let good = HttpRequest {
            method: "GET".into(),
            url: "https://example.com/".into(),
            headers: vec![],
            body: Body::Empty,
            redirect: Redirect::Manual,
        };
        let bad = [
            HttpRequest { method: "G T".into(), ..good.clone() },
            HttpRequest { method: "M".repeat(100), ..good.clone() },
            HttpRequest { url: "/relative".into(), ..good.clone() },
            HttpRequest { url: format!("https://e.com/{}", "x".repeat(20_000)), ..good.clone() },
            HttpRequest { headers: vec![("a\n".into(), Bytes::new())], ..good.clone() },
        ];
        for (number, request) in bad.into_iter().enumerate() {
            let call = CallId(number as u32);
            host.say(ToGateway::Call { invocation: id, call, channel: ChannelId(0), request });
            let (_, result) = reply(&mut host).await;
            assert!(matches!(result, Err(CallError::Invalid(_))), "{number}: {result:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn bodies_stream_both_ways_with_credit() {
    both(|link, mut host| async move {
        // Sends back the body it gets, as it comes.
        let mirror = Does(Box::new(|request| {
            Box::pin(async move { Ok(http::Response::new(RequestBody::stream(request.into_body()))) })
        }));
        let (_running, id) = started(&link, &mut host, with(mirror)).await;
        host.call(id, 1, 0, Body::Stream { id: StreamId(1), length: None });
        let (_, result) = reply(&mut host).await;
        let Body::Stream { id: back, .. } = result.unwrap().body else { panic!("a stream") };
        assert_eq!(back, StreamId(0));
        let total = 4 * BODY_CREDIT_BYTES;
        let chunk = 10_000;
        let (mut sent, mut may_send) = (0, BODY_CREDIT_BYTES);
        let (mut got, mut may_get) = (0, BODY_CREDIT_BYTES);
        loop {
            while sent < total && may_send >= chunk.min(total - sent) {
                let now = chunk.min(total - sent);
                host.step(id, 1, BodyStep::Data(vec![sent as u8; now].into()));
                sent += now;
                may_send -= now;
                if sent == total {
                    host.step(id, 1, BodyStep::End);
                }
            }
            let ToHost::Body(frame) = host.next().await else { panic!("a step") };
            match (frame.stream, frame.step) {
                (StreamId(1), BodyStep::Credit(more)) => may_send += more as usize,
                (StreamId(0), BodyStep::Data(bytes)) => {
                    got += bytes.len();
                    may_get -= bytes.len();
                    host.step(id, 0, BodyStep::Credit(bytes.len() as u32));
                    may_get += bytes.len();
                }
                (StreamId(0), BodyStep::End) => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((got, may_get), (total, BODY_CREDIT_BYTES));
        assert_eq!(link.close_reason(), None);
    })
    .await;
}

#[tokio::test]
async fn the_end_of_the_invocation_ends_its_calls() {
    both(|link, mut host| async move {
        for cancel in [false, true] {
            // One here, one in the capability, one in its running call.
            let alive = Arc::new(());
            let held = Arc::clone(&alive);
            let forever = Does(Box::new(move |_| {
                let held = Arc::clone(&held);
                Box::pin(async move {
                    let _held = held;
                    std::future::pending().await
                })
            }));
            let (running, id) = started(&link, &mut host, with(forever)).await;
            host.call(id, 1, 0, Body::Empty);
            while Arc::strong_count(&alive) < 3 {
                tokio::task::yield_now().await;
            }
            if cancel {
                drop(running);
            } else {
                host.done(id);
                running.ended().await;
            }
            // The capability itself may go with the invocation; the call must.
            while Arc::strong_count(&alive) > 2 {
                tokio::task::yield_now().await;
            }
            if cancel {
                assert_eq!(host.next().await, ToHost::Cancel { invocation: id });
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_capability_that_panics_fails_the_call_only() {
    both(|link, mut host| async move {
        let panics = Does(Box::new(|_| Box::pin(async { panic!("a bug in a binding") })));
        let (running, id) = started(&link, &mut host, with(panics)).await;
        host.call(id, 1, 0, Body::Empty);
        let (_, result) = reply(&mut host).await;
        assert!(matches!(result, Err(CallError::Network(_))), "{result:?}");
        host.done(id);
        assert_eq!(running.ended().await.outcome, Outcome::Done);
    })
    .await;
}

#[tokio::test]
async fn many_calls_at_once_are_all_answered() {
    both(|link, mut host| async move {
        let calls = 1_000;
        let answered = Arc::new(AtomicUsize::new(0));
        let counts = Arc::clone(&answered);
        let slow = Does(Box::new(move |_| {
            let counts = Arc::clone(&counts);
            Box::pin(async move {
                tokio::task::yield_now().await;
                counts.fetch_add(1, Ordering::Relaxed);
                Ok(http::Response::new(RequestBody::Empty))
            })
        }));
        let limits = Limits { subrequests: calls, ..Limits::default() };
        let (_running, id) = started(&link, &mut host, Start { limits, ..with(slow) }).await;
        (0..calls).for_each(|number| host.call(id, number, 0, Body::Empty));
        for _ in 0..calls {
            reply(&mut host).await.1.unwrap();
        }
        assert_eq!(answered.load(Ordering::Relaxed), calls as usize);
    })
    .await;
}

/// Adds what it is given, or throws.
struct Adds;

impl Channel for Adds {
    fn fetch(&self, _: CallContext, _: http::Request<RequestBody>) -> CallFuture {
        Box::pin(async { Err(CallError::Denied(String::new())) })
    }

    fn call(&self, context: CallContext, method: &str, arguments: Vec<Value>) -> MethodFuture {
        let method = method.to_owned();
        Box::pin(async move {
            let sum = arguments.iter().filter_map(Value::as_number).sum();
            match method.as_str() {
                "add" => Ok(Value::Number(sum)),
                "who" => Ok(Value::from(&*context.identity.tenant)),
                "panics" => panic!("a bug of the capability"),
                _ => Err(MethodError::unknown(&method)),
            }
        })
    }

    fn name(&self) -> &str {
        "adds"
    }
}

fn method(host: &Host, invocation: InvocationId, call: u32, channel: u32, method: &str, arguments: Bytes) {
    host.say(ToGateway::CallMethod {
        invocation,
        call: CallId(call),
        channel: ChannelId(channel),
        method: method.into(),
        arguments,
    });
}

#[tokio::test]
async fn methods_answer_with_values_and_errors() {
    both(|link, mut host| async move {
        let (_running, id) = started(&link, &mut host, with(Adds)).await;
        let numbers = Value::List(vec![Value::Number(1.0), Value::Number(2.5)]).encode();
        for (call, name, arguments, want) in [
            (1, "add", numbers.clone(), Ok(Value::Number(3.5))),
            (2, "who", Value::List(vec![]).encode(), Ok(Value::from("acme"))),
            (3, "nope", numbers.clone(), Err(MethodError::unknown("nope"))),
            (4, "add", Bytes::from_static(b"\xff"), Err(MethodError::usage("The value is malformed."))),
        ] {
            method(&host, id, call, 0, name, arguments);
            let ToHost::Returned { call: answered, result, .. } = host.next().await else {
                panic!("{name} was not answered")
            };
            assert_eq!(answered, CallId(call));
            assert_eq!(result.map(|bytes| Value::decode(&bytes).unwrap()), want, "{name}");
        }
        // Not granted, and a capability that panics: refusals, as for fetch.
        for (call, channel, name) in [(5, 7, "add"), (6, 0, "panics")] {
            method(&host, id, call, channel, name, numbers.clone());
            let (answered, result) = reply(&mut host).await;
            assert_eq!(answered, CallId(call));
            assert!(result.is_err());
        }
        assert_eq!(link.calls_forged(), 1);
    })
    .await;
}

#[tokio::test]
async fn arguments_beyond_the_bound_break_the_protocol() {
    both(|link, mut host| async move {
        let (_running, id) = started(&link, &mut host, with(Adds)).await;
        method(&host, id, 1, 0, "add", vec![0; METHOD_BYTES_MAX + 1].into());
        link.closed().await;
    })
    .await;
}
