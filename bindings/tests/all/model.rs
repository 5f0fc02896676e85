//! Credit, against a model: whatever the order of sending, reading and granting, no side goes beyond what it was granted, and
//! every byte arrives in order.

use atoll_bindings::body::RequestBody;
use atoll_bindings::link::Answer;
use atoll_bindings::seam::*;
use atoll_loader::limits::{BODY_CHUNK_BYTES_MAX, BODY_CREDIT_BYTES};
use bytes::Bytes;
use http_body_util::BodyExt;
use proptest::prelude::*;

use crate::support::*;

/// The bytes of a body, such that each place has its own.
fn pattern(from: usize, length: usize) -> Bytes {
    (from..from + length).map(|place| (place % 251) as u8).collect::<Vec<_>>().into()
}

fn is_pattern(from: usize, bytes: &[u8]) -> bool {
    bytes.iter().enumerate().all(|(index, byte)| *byte == ((from + index) % 251) as u8)
}

fn block_on(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future);
}

/// Lets everything that can happen happen: in one process nothing waits for anything but other tasks.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[derive(Clone, Copy, Debug)]
enum Act {
    /// The sender of the bytes sends up to so many.
    Send(usize),
    /// The receiver takes one chunk.
    Take,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![(1..=BODY_CHUNK_BYTES_MAX).prop_map(Act::Send), Just(Act::Take), Just(Act::Take)];
    prop::collection::vec(act, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_host_that_keeps_its_credit_is_never_stuck_and_never_wrong(acts in acts()) {
        block_on(async move {
            let (link, mut host) = in_process();
            let mut running = link.start(fetch(RequestBody::Empty)).unwrap();
            let id = host.invoke().await.id;
            host.respond(id, Body::Stream { id: StreamId(1), length: None });
            let Ok(Answer::Response(response)) = running.answer().await else { panic!("a response") };
            let mut body = response.into_body();
            let (mut sent, mut taken, mut credit) = (0, 0, BODY_CREDIT_BYTES);
            for act in acts {
                settle().await;
                while let Ok(message) = host.0.inbox.try_recv() {
                    let ToHost::Body(BodyFrame { step: BodyStep::Credit(more), .. }) = message else { continue };
                    credit += more as usize;
                    assert!(credit <= BODY_CREDIT_BYTES, "never more than the window");
                }
                match act {
                    Act::Send(wanted) => {
                        let now = wanted.min(credit);
                        host.step(id, 1, BodyStep::Data(pattern(sent, now)));
                        (sent, credit) = (sent + now, credit - now);
                    }
                    Act::Take if taken < sent => {
                        let bytes = body.frame().await.unwrap().unwrap().into_data().unwrap();
                        assert!(is_pattern(taken, &bytes));
                        taken += bytes.len();
                    }
                    // With everything taken the host can always go on.
                    Act::Take => assert!(credit >= BODY_CREDIT_BYTES / 2, "stuck at {credit}"),
                }
                assert_eq!(link.close_reason(), None);
            }
            host.step(id, 1, BodyStep::End);
            let rest = body.collect().await.unwrap().to_bytes();
            assert!(is_pattern(taken, &rest));
            assert_eq!(taken + rest.len(), sent);
        });
    }

    #[test]
    fn the_gateway_never_sends_beyond_its_credit(
        pieces in prop::collection::vec(1..200_000_usize, 1..8),
        grants in prop::collection::vec(1..=BODY_CREDIT_BYTES, 1..60),
    ) {
        block_on(async move {
            let (link, mut host) = in_process();
            let (feed, body) = Fed::body();
            let running = link.start(fetch(body)).unwrap();
            let id = host.invoke().await.id;
            let total: usize = pieces.iter().sum();
            tokio::spawn(async move {
                let mut from = 0;
                for piece in pieces {
                    feed.send(Ok(pattern(from, piece))).await.unwrap();
                    from += piece;
                }
            });
            let (mut got, mut credit, mut ended) = (0, BODY_CREDIT_BYTES, false);
            let mut grants = grants.into_iter().cycle();
            while !ended {
                settle().await;
                while let Ok(message) = host.0.inbox.try_recv() {
                    let ToHost::Body(frame) = message else { panic!("{message:?}") };
                    match frame.step {
                        BodyStep::Data(bytes) => {
                            assert!(is_pattern(got, &bytes));
                            got += bytes.len();
                            credit = credit.checked_sub(bytes.len()).expect("within the credit");
                        }
                        BodyStep::End => ended = true,
                        other => panic!("{other:?}"),
                    }
                }
                let back = grants.next().unwrap_or(1).min(BODY_CREDIT_BYTES - credit);
                host.step(id, 0, BodyStep::Credit(back as u32));
                credit += back;
            }
            assert_eq!(got, total);
            assert_eq!(link.close_reason(), None);
            drop(running);
        });
    }
}
