//! A host that breaks the protocol loses its link, and everything on it is answered.

use std::io::Write;
use std::os::unix::net::UnixStream;

use atoll_bindings::body::RequestBody;
use atoll_bindings::link::{self, CloseReason, Violation};
use atoll_bindings::seam::*;
use atoll_bindings::wire::SMALL_FRAME_BYTES_MAX;
use atoll_loader::limits::{BODY_CHUNK_BYTES_MAX, BODY_CREDIT_BYTES, BODY_INLINE_BYTES_MAX};
use bytes::Bytes;

use crate::support::*;

type Misdeed = fn(&Host, InvocationId);

#[tokio::test]
async fn each_breach_closes_the_link() {
    let table: &[(Violation, Misdeed)] = &[
        (Violation::SecondAnswer, |host, id| {
            host.respond(id, Body::Empty);
            host.respond(id, Body::Empty);
        }),
        (Violation::WrongAnswer, |host, id| {
            host.say(ToGateway::Returned { invocation: id, json: "1".into() });
        }),
        (Violation::InlineTooLong, |host, id| {
            host.respond(id, Body::Inline(vec![0; BODY_INLINE_BYTES_MAX + 1].into()));
        }),
        (Violation::InlineTooLong, |host, id| {
            host.call(id, 1, 0, Body::Inline(vec![0; BODY_INLINE_BYTES_MAX + 1].into()));
        }),
        (Violation::StreamNumber, |host, id| {
            host.respond(id, Body::Stream { id: StreamId(2), length: None });
        }),
        (Violation::StreamNumber, |host, id| {
            host.respond(id, Body::Stream { id: StreamId(1), length: None });
            host.call(id, 1, 0, Body::Stream { id: StreamId(1), length: None });
        }),
        (Violation::ChunkTooLong, |host, id| {
            host.respond(id, Body::Stream { id: StreamId(1), length: None });
            host.step(id, 1, BodyStep::Data(vec![0; BODY_CHUNK_BYTES_MAX + 1].into()));
        }),
        (Violation::BeyondCredit, |host, id| {
            host.respond(id, Body::Stream { id: StreamId(1), length: None });
            for _ in 0..BODY_CREDIT_BYTES / BODY_CHUNK_BYTES_MAX {
                host.step(id, 1, BodyStep::Data(vec![0; BODY_CHUNK_BYTES_MAX].into()));
            }
            host.step(id, 1, BodyStep::Data(Bytes::from_static(b"x")));
        }),
        (Violation::TooManyCalls, |host, id| {
            (0..2_000).for_each(|call| host.call(id, call, 0, Body::Empty));
        }),
        (Violation::TooManyCalls, |host, id| {
            let open =
                |call| ToGateway::OpenService { invocation: id, call: CallId(call), channel: ChannelId(1) };
            (0..2_000).for_each(|call| host.say(open(call)));
        }),
        (Violation::CreditNotSpent, |host, id| host.step(id, 0, BodyStep::Credit(u32::MAX))),
        (Violation::Direction, |host, id| host.step(id, 0, BodyStep::Data(Bytes::from_static(b"x")))),
        (Violation::Direction, |host, id| host.step(id, 0, BodyStep::End)),
        (Violation::Direction, |host, id| host.step(id, 1, BodyStep::Credit(1))),
        (Violation::Direction, |host, id| host.step(id, 1, BodyStep::Stop)),
    ];
    for (expected, misdeed) in table {
        for (link, mut host) in [in_process(), over_socket()] {
            // Its body never comes, so that stream 0 is open.
            let (_feed, body) = Fed::body();
            let running = link.start(fetch(body)).unwrap();
            let mut neighbour = link.start(execute()).unwrap();
            let invoke = host.invoke().await;
            misdeed(&host, invoke.id);
            assert_eq!(link.closed().await, CloseReason::Violation(*expected));
            assert_eq!(running.ended().await.outcome.code(), "host_fault");
            assert_eq!(neighbour.answer().await.unwrap_err().outcome.code(), "host_fault");
        }
    }
}

#[tokio::test]
async fn bytes_that_are_no_message_close_the_link() {
    let huge = u32::MAX.to_le_bytes();
    let beyond = (SMALL_FRAME_BYTES_MAX as u32 + 1).to_le_bytes();
    let cases: Vec<Vec<u8>> = vec![
        huge.to_vec(),
        vec![0, 0, 0, 0, 0],
        vec![1, 0, 0, 0, 99],
        // A `Done` that is cut short, and a heartbeat with a byte too many.
        vec![2, 0, 0, 0, 5, 1],
        vec![6, 0, 0, 0, 6, 0, 0, 0, 0, 7],
        // A `Log` that announces more than its kind may have.
        [&beyond[..], &[4]].concat(),
        // Headers without end: announces 2^28 fields in a few bytes.
        vec![12, 0, 0, 0, 0, 1, 200, 1, 0, 0x80, 0x80, 0x80, 0x80, 0x01, 0, 0],
    ];
    for case in cases {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let link = link::over_socket(ours).unwrap();
        let mut running = link.start(fetch(RequestBody::Empty)).unwrap();
        theirs.write_all(&case).unwrap();
        assert_eq!(link.closed().await, CloseReason::Violation(Violation::BadFrame), "{case:?}");
        assert_eq!(running.answer().await.unwrap_err().outcome.code(), "host_fault");
    }
}

#[tokio::test]
async fn a_host_that_dies_inside_a_frame_is_gone() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let link = link::over_socket(ours).unwrap();
    theirs.write_all(&[9, 0, 0, 0, 4]).unwrap();
    drop(theirs);
    assert_eq!(link.closed().await, CloseReason::HostGone);
}

#[tokio::test]
async fn frames_about_nothing_are_counted_and_harmless() {
    both(|link, host| async move {
        let nobody = InvocationId(u64::MAX);
        host.respond(nobody, Body::Empty);
        host.say(ToGateway::Returned { invocation: nobody, json: String::new() });
        host.step(nobody, 1, BodyStep::End);
        host.call(nobody, 1, 0, Body::Empty);
        host.done(nobody);
        host.say(ToGateway::Heartbeat(Heartbeat { isolates_live: 1, ..Heartbeat::default() }));
        link.heartbeats().wait_for(|beat| beat.isolates_live == 1).await.unwrap();
        assert_eq!(link.frames_ignored(), 5);
        assert_eq!(link.close_reason(), None);
    })
    .await;
}
