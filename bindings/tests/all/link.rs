//! One invocation from start to end, and every way it can end otherwise.

use std::sync::Arc;

use atoll_bindings::body::RequestBody;
use atoll_bindings::channel::ReplyMeta;
use atoll_bindings::link::{Answer, CloseReason, GuestBody, GuestBodyError, StartEvent};
use atoll_bindings::seam::*;
use atoll_loader::limits::{BODY_CHUNK_BYTES_MAX, BODY_CREDIT_BYTES, Limits};
use bytes::Bytes;
use http_body_util::BodyExt;

use crate::support::*;

fn body_of(answer: Answer) -> http::Response<GuestBody> {
    match answer {
        Answer::Response(response) => response,
        Answer::Value(json) => panic!("a value: {json}"),
    }
}

async fn collect(body: GuestBody) -> Result<Bytes, GuestBodyError> {
    Ok(body.collect().await?.to_bytes())
}

#[tokio::test]
async fn a_fetch_is_answered_and_ends() {
    both(|link, mut host| async move {
        let mut running = link.start(fetch(Bytes::from_static(b"ping").into())).unwrap();
        assert_eq!(link.in_flight(), 1);
        let ToHost::Bundle { hash, encoded } = host.next().await else { panic!("the bundle goes first") };
        assert_eq!((hash, encoded), (bundle().hash(), bundle().encode()));
        let ToHost::Invoke(invoke) = host.next().await else { panic!("then the invocation") };
        assert_eq!((invoke.id, invoke.bundle), (running.id(), hash));
        let Event::Fetch(request) = &invoke.event else { panic!("a fetch") };
        assert_eq!(
            (request.method.as_str(), request.url.as_str()),
            ("POST", "https://hello.example/path?q=1")
        );
        assert_eq!(request.headers, vec![("x-a".into(), Bytes::from_static(b"1"))]);
        assert_eq!(request.body, Body::Inline(Bytes::from_static(b"ping")));

        let mut response = response(201, Body::Inline(Bytes::from_static(b"pong")));
        response.status_text = "Made".into();
        response.headers = vec![
            ("set-cookie".into(), Bytes::from_static(b"a=1")),
            ("set-cookie".into(), Bytes::from_static(b"b=\xff")),
        ];
        host.say(ToGateway::Response { invocation: invoke.id, response });
        let response = body_of(running.answer().await.unwrap());
        assert_eq!(response.status(), 201);
        assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2);
        assert_eq!(response.extensions().get::<ReplyMeta>().unwrap().status_text, "Made");
        assert_eq!(collect(response.into_body()).await.unwrap(), "pong");
        host.done(invoke.id);
        let ended = running.ended().await;
        assert_eq!((ended.outcome, ended.usage), (Outcome::Done, usage()));
        assert_eq!(link.in_flight(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_bundle_is_sent_once() {
    both(|link, mut host| async move {
        for round in 0..3 {
            let running = link.start(execute()).unwrap();
            if round == 0 {
                assert!(matches!(host.next().await, ToHost::Bundle { .. }));
            }
            let ToHost::Invoke(invoke) = host.next().await else { panic!("an Invoke") };
            host.done(invoke.id);
            running.ended().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_value_is_returned() {
    both(|link, mut host| async move {
        let event = StartEvent::Scheduled { cron: "* * * * *".into(), time_ms: 5 };
        let mut running = link.start(start(event)).unwrap();
        let invoke = host.invoke().await;
        assert_eq!(invoke.event, Event::Scheduled { cron: "* * * * *".into(), time_ms: 5 });
        host.say(ToGateway::Returned { invocation: invoke.id, json: "[1]".into() });
        let Answer::Value(json) = running.answer().await.unwrap() else { panic!("a value") };
        assert_eq!(json, "[1]");
        host.done(invoke.id);
        assert_eq!(running.answer().await.unwrap_err().outcome, Outcome::Done, "the answer is given once");
    })
    .await;
}

#[tokio::test]
async fn an_end_without_an_answer_answers() {
    both(|link, mut host| async move {
        let mut running = link.start(fetch(RequestBody::Empty)).unwrap();
        let invocation = host.invoke().await.id;
        let outcome = Outcome::Limit(LimitKind::Cpu);
        host.say(ToGateway::Done { invocation, outcome: outcome.clone(), usage: usage() });
        assert_eq!(running.answer().await.unwrap_err().outcome, outcome);
        assert_eq!(running.ended().await.outcome, outcome);
    })
    .await;
}

#[tokio::test]
async fn a_streamed_response_outlives_its_running() {
    both(|link, mut host| async move {
        let mut running = link.start(fetch(RequestBody::Empty)).unwrap();
        let id = host.invoke().await.id;
        host.respond(id, Body::Stream { id: StreamId(1), length: None });
        let body = body_of(running.answer().await.unwrap()).into_body();
        let ended = tokio::spawn(running.ended());
        host.step(id, 1, BodyStep::Data(Bytes::from_static(b"one ")));
        host.step(id, 1, BodyStep::Data(Bytes::from_static(b"two")));
        host.step(id, 1, BodyStep::End);
        assert_eq!(collect(body).await.unwrap(), "one two");
        host.done(id);
        assert_eq!(ended.await.unwrap().outcome, Outcome::Done);
    })
    .await;
}

#[tokio::test]
async fn a_body_read_after_the_end_is_whole() {
    both(|link, mut host| async move {
        let mut running = link.start(fetch(RequestBody::Empty)).unwrap();
        let id = host.invoke().await.id;
        host.respond(id, Body::Stream { id: StreamId(1), length: Some(3) });
        let body = body_of(running.answer().await.unwrap()).into_body();
        host.step(id, 1, BodyStep::Data(Bytes::from_static(b"abc")));
        host.step(id, 1, BodyStep::End);
        host.done(id);
        running.ended().await;
        assert_eq!(collect(body).await.unwrap(), "abc");
    })
    .await;
}

#[tokio::test]
async fn bodies_that_break_off_say_why() {
    let data = |bytes: &'static [u8]| BodyStep::Data(Bytes::from_static(bytes));
    let cases: Vec<(Option<u64>, Vec<BodyStep>, GuestBodyError)> = vec![
        (None, vec![data(b"x"), BodyStep::Abort("oh".into())], GuestBodyError::Aborted("oh".into())),
        (None, vec![data(b"x")], GuestBodyError::Ended),
        (Some(2), vec![data(b"x"), BodyStep::End], GuestBodyError::Length),
        (Some(2), vec![data(b"xxx"), BodyStep::End], GuestBodyError::Length),
    ];
    for (length, steps, expected) in cases {
        let (link, mut host) = over_socket();
        let mut running = link.start(fetch(RequestBody::Empty)).unwrap();
        let id = host.invoke().await.id;
        host.respond(id, Body::Stream { id: StreamId(1), length });
        steps.into_iter().for_each(|step| host.step(id, 1, step));
        host.done(id);
        let body = body_of(running.answer().await.unwrap()).into_body();
        assert_eq!(collect(body).await.unwrap_err(), expected);
    }
}

#[tokio::test]
async fn dropping_a_body_stops_the_guest_and_reading_grants_credit() {
    both(|link, mut host| async move {
        let mut running = link.start(fetch(RequestBody::Empty)).unwrap();
        let id = host.invoke().await.id;
        host.respond(id, Body::Stream { id: StreamId(1), length: None });
        let mut body = body_of(running.answer().await.unwrap()).into_body();
        for _ in 0..BODY_CREDIT_BYTES / BODY_CHUNK_BYTES_MAX {
            host.step(id, 1, BodyStep::Data(vec![0; BODY_CHUNK_BYTES_MAX].into()));
        }
        body.frame().await.unwrap().unwrap();
        let ToHost::Body(frame) = host.next().await else { panic!("credit") };
        assert_eq!((frame.invocation, frame.stream), (id, StreamId(1)));
        let BodyStep::Credit(credit) = frame.step else { panic!("credit: {frame:?}") };
        assert_eq!(credit as usize, BODY_CHUNK_BYTES_MAX);
        drop(body);
        let ToHost::Body(frame) = host.next().await else { panic!("a stop") };
        assert_eq!(frame.step, BodyStep::Stop);
        // What was on its way is dropped, and is no violation.
        host.step(id, 1, BodyStep::Data(vec![0; BODY_CHUNK_BYTES_MAX].into()));
        host.done(id);
        assert_eq!(running.ended().await.outcome, Outcome::Done);
    })
    .await;
}

#[tokio::test]
async fn an_answer_nobody_wants_is_stopped() {
    both(|link, mut host| async move {
        let running = link.start(fetch(RequestBody::Empty)).unwrap();
        let id = host.invoke().await.id;
        let ended = tokio::spawn(running.ended());
        tokio::task::yield_now().await;
        host.respond(id, Body::Stream { id: StreamId(1), length: None });
        let ToHost::Body(frame) = host.next().await else { panic!("a stop") };
        assert_eq!(frame.step, BodyStep::Stop);
        host.done(id);
        assert_eq!(ended.await.unwrap().outcome, Outcome::Done);
    })
    .await;
}

#[tokio::test]
async fn a_large_request_body_comes_whole_and_never_beyond_its_credit() {
    both(|link, mut host| async move {
        let whole: Bytes = (0..1_000_000_u32).map(|i| i as u8).collect::<Vec<_>>().into();
        let running = link.start(fetch(whole.clone().into())).unwrap();
        let invoke = host.invoke().await;
        let Event::Fetch(HttpRequest { body: Body::Stream { id, length }, .. }) = invoke.event else {
            panic!("a stream")
        };
        assert_eq!((id, length), (StreamId(0), Some(1_000_000)));
        let (mut got, mut credit) = (Vec::new(), BODY_CREDIT_BYTES);
        loop {
            let ToHost::Body(frame) = host.next().await else { panic!("a step") };
            match frame.step {
                BodyStep::Data(bytes) => {
                    assert!(bytes.len() <= BODY_CHUNK_BYTES_MAX);
                    credit = credit.checked_sub(bytes.len()).expect("within the credit");
                    got.extend_from_slice(&bytes);
                    if credit == 0 {
                        // Nothing more comes until this.
                        credit = BODY_CREDIT_BYTES;
                        host.step(invoke.id, 0, BodyStep::Credit(BODY_CREDIT_BYTES as u32));
                    }
                }
                BodyStep::End => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(got, whole);
        host.done(invoke.id);
        running.ended().await;
    })
    .await;
}

#[tokio::test]
async fn a_failing_request_body_aborts() {
    both(|link, mut host| async move {
        let (feed, body) = Fed::body();
        let running = link.start(fetch(body)).unwrap();
        let invoke = host.invoke().await;
        feed.send(Ok(Bytes::from_static(b"half"))).await.unwrap();
        feed.send(Err("the client went away")).await.unwrap();
        let ToHost::Body(first) = host.next().await else { panic!("a step") };
        assert_eq!(first.step, BodyStep::Data(Bytes::from_static(b"half")));
        let ToHost::Body(second) = host.next().await else { panic!("a step") };
        assert_eq!(second.step, BodyStep::Abort("the client went away".into()));
        host.done(invoke.id);
        running.ended().await;
    })
    .await;
}

#[tokio::test]
async fn a_stopped_request_body_releases_its_source() {
    both(|link, mut host| async move {
        let (feed, body) = Fed::body();
        let _running = link.start(fetch(body)).unwrap();
        let invoke = host.invoke().await;
        host.step(invoke.id, 0, BodyStep::Stop);
        feed.closed().await;
    })
    .await;
}

#[tokio::test]
async fn dropping_a_running_cancels_everything_under_it() {
    both(|link, mut host| async move {
        let (feed, body) = Fed::body();
        let mut running = link.start(fetch(body)).unwrap();
        let id = host.invoke().await.id;
        host.respond(id, Body::Stream { id: StreamId(1), length: None });
        let body = body_of(running.answer().await.unwrap()).into_body();
        drop(running);
        assert_eq!(host.next().await, ToHost::Cancel { invocation: id });
        feed.closed().await;
        assert_eq!(collect(body).await.unwrap_err(), GuestBodyError::Ended);
        assert_eq!(link.in_flight(), 1, "until the host says so");
        // A host may be late to hear of it.
        host.step(id, 1, BodyStep::Data(Bytes::from_static(b"late")));
        host.done(id);
        while link.in_flight() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(link.frames_ignored() > 0);
        assert_eq!(link.close_reason(), None);
    })
    .await;
}

#[tokio::test]
async fn losing_the_host_answers_everything() {
    both(|link, mut host| async move {
        let mut waiting = link.start(fetch(RequestBody::Empty)).unwrap();
        let mut streaming = link.start(fetch(RequestBody::Empty)).unwrap();
        let ending = link.start(execute()).unwrap();
        let (feed, body) = Fed::body();
        let _pumping = link.start(fetch(body)).unwrap();
        let mut ids = Vec::new();
        for _ in 0..4 {
            ids.push(host.invoke().await.id);
        }
        host.respond(ids[1], Body::Stream { id: StreamId(1), length: None });
        let body = body_of(streaming.answer().await.unwrap()).into_body();
        let mut logs = waiting.take_logs().unwrap();
        drop(host);
        let lost = Outcome::HostFault("isolate host lost: the process ended".into());
        assert_eq!(waiting.answer().await.unwrap_err().outcome, lost);
        assert_eq!(collect(body).await.unwrap_err(), GuestBodyError::Ended);
        assert_eq!(streaming.ended().await.outcome, lost);
        assert_eq!(ending.ended().await.outcome, lost);
        assert_eq!(logs.recv().await, None);
        feed.closed().await;
        assert_eq!(link.closed().await, CloseReason::HostGone);
        assert_eq!(link.in_flight(), 0);
        let blamed: Vec<_> = link.inside().into_iter().map(|(_, identity)| identity.tenant).collect();
        assert_eq!(blamed, vec![Arc::from("acme"); 4]);
        assert_eq!(link.start(execute()).unwrap_err().reason, CloseReason::HostGone);
    })
    .await;
}

#[tokio::test]
async fn the_host_sees_the_end_when_nobody_holds_the_link() {
    both(|link, mut host| async move {
        let running = link.start(execute()).unwrap();
        link.evict("warm one");
        link.drain();
        drop(link);
        host.invoke().await;
        assert_eq!(host.next().await, ToHost::Evict { key: "warm one".into() });
        assert_eq!(host.next().await, ToHost::Drain);
        let id = running.id();
        drop(running);
        assert_eq!(host.next().await, ToHost::Cancel { invocation: id }, "what is queued still comes");
        assert_eq!(host.0.inbox.recv().await, None);
    })
    .await;
}

#[tokio::test]
async fn a_response_beyond_its_bound_is_a_limit() {
    both(|link, mut host| async move {
        let small = Limits { response_bytes: 4, ..Limits::default() };
        // Inline.
        let mut running =
            link.start(atoll_bindings::link::Start { limits: small, ..fetch(RequestBody::Empty) }).unwrap();
        let id = host.invoke().await.id;
        host.respond(id, Body::Inline(Bytes::from_static(b"12345")));
        assert_eq!(host.next().await, ToHost::Cancel { invocation: id });
        host.say(ToGateway::Done { invocation: id, outcome: Outcome::Canceled, usage: usage() });
        let ended = running.answer().await.unwrap_err();
        assert_eq!((ended.outcome, ended.usage), (Outcome::Limit(LimitKind::ResponseBytes), usage()));
        // Streamed.
        let mut running =
            link.start(atoll_bindings::link::Start { limits: small, ..fetch(RequestBody::Empty) }).unwrap();
        let id = host.invoke().await.id;
        host.respond(id, Body::Stream { id: StreamId(1), length: None });
        let body = body_of(running.answer().await.unwrap()).into_body();
        host.step(id, 1, BodyStep::Data(Bytes::from_static(b"1234")));
        host.step(id, 1, BodyStep::Data(Bytes::from_static(b"5")));
        assert_eq!(host.next().await, ToHost::Cancel { invocation: id });
        assert_eq!(collect(body).await.unwrap_err(), GuestBodyError::TooLarge);
        host.done(id);
        assert_eq!(running.ended().await.outcome, Outcome::Limit(LimitKind::ResponseBytes));
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_http_cannot_carry_is_the_guests_error() {
    let bad = |change: fn(&mut HttpResponse)| {
        let mut bad = response(200, Body::Empty);
        change(&mut bad);
        bad
    };
    let cases = [
        bad(|r| r.status = 99),
        bad(|r| r.status = 600),
        bad(|r| r.status = 101),
        bad(|r| r.status_text = "a\r\nb: c".into()),
        bad(|r| r.headers = vec![("a b".into(), Bytes::new())]),
        bad(|r| r.headers = vec![("a".into(), Bytes::from_static(b"x\r\ny: z"))]),
        bad(|r| r.headers = vec![("a".into(), Bytes::new()); 129]),
        bad(|r| r.headers = vec![("a".into(), vec![b'x'; 70_000].into())]),
    ];
    for case in cases {
        let (link, mut host) = over_socket();
        let mut running = link.start(fetch(RequestBody::Empty)).unwrap();
        let id = host.invoke().await.id;
        host.say(ToGateway::Response { invocation: id, response: case.clone() });
        assert_eq!(host.next().await, ToHost::Cancel { invocation: id }, "{case:?}");
        host.say(ToGateway::Done { invocation: id, outcome: Outcome::Canceled, usage: usage() });
        let ended = running.answer().await.unwrap_err();
        assert_eq!(ended.outcome.code(), "guest_error", "{case:?}");
        assert_eq!(link.close_reason(), None);
    }
}

#[tokio::test]
async fn logs_are_bounded_and_marked() {
    both(|link, mut host| async move {
        let limits = Limits { log_bytes: 25, ..Limits::default() };
        let mut running = link.start(atoll_bindings::link::Start { limits, ..execute() }).unwrap();
        let id = host.invoke().await.id;
        let line = |message: &str| {
            ToGateway::Log(LogLine {
                invocation: id,
                level: LogLevel::Log,
                time_ms: 1,
                message: message.into(),
                truncated: false,
                fields: None,
            })
        };
        host.say(line("first"));
        host.say(line(&"x".repeat(30)));
        host.say(line("third"));
        host.done(id);
        while link.in_flight() > 0 {
            tokio::task::yield_now().await;
        }
        let mut logs = running.take_logs().unwrap();
        assert!(running.take_logs().is_none());
        let first = logs.recv().await.unwrap();
        assert_eq!((first.message.as_str(), first.truncated), ("first", false));
        let third = logs.recv().await.unwrap();
        assert_eq!((third.message.as_str(), third.truncated), ("third", true), "the gap is marked");
        assert_eq!(logs.recv().await, None);
        assert_eq!(running.logs_dropped(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_log_flood_without_a_reader_holds_little() {
    let (link, mut host) = in_process();
    let mut running = link.start(execute()).unwrap();
    let id = host.invoke().await.id;
    for _ in 0..50_000 {
        let message = String::new();
        host.say(ToGateway::Log(LogLine {
            invocation: id,
            level: LogLevel::Log,
            time_ms: 1,
            message,
            truncated: false,
            fields: None,
        }));
    }
    host.done(id);
    while link.in_flight() > 0 {
        tokio::task::yield_now().await;
    }
    let mut logs = running.take_logs().unwrap();
    let mut kept = 0;
    while logs.recv().await.is_some() {
        kept += 1;
    }
    assert_eq!(kept + running.logs_dropped(), 50_000);
    assert!(kept <= 4_096, "{kept}");
}

#[tokio::test]
async fn heartbeats_arrive() {
    both(|link, host| async move {
        let mut beats = link.heartbeats();
        host.say(ToGateway::Heartbeat(Heartbeat { isolates_live: 3, ..Heartbeat::default() }));
        beats.changed().await.unwrap();
        assert_eq!(link.heartbeat().isolates_live, 3);
    })
    .await;
}

#[tokio::test]
async fn input_beyond_a_frame_is_refused() {
    let (link, _host) = over_socket();
    let input = "x".repeat(atoll_loader::limits::FRAME_BYTES_MAX);
    let mut running = link.start(start(StartEvent::Execute { input })).unwrap();
    assert_eq!(running.answer().await.unwrap_err().outcome.code(), "refused");
    assert_eq!(link.in_flight(), 0);
}
