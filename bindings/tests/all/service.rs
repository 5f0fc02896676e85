//! Sessions of other workers: a host gets one for each call that holds a grant, and for nothing else.

use std::sync::{Arc, Mutex};

use atoll_bindings::body::RequestBody;
use atoll_bindings::channel::CallContext;
use atoll_bindings::link::{
    CloseReason, Grant, Opening, Running, Service, Start, StartEvent, TOO_DEEP, TOO_MANY, Violation,
};
use atoll_bindings::seam::*;
use atoll_loader::limits::{Limits, SERVICE_CALLS_MAX, SERVICE_DEPTH_MAX};

use crate::support::*;

/// Starts a callee for each call, which may call the same service again.
#[derive(Clone, Default)]
struct Again {
    running: Arc<Mutex<Vec<Running>>>,
    refuses: bool,
}

impl Service for Again {
    fn open(&self, context: CallContext, opening: Opening) {
        assert_eq!((&*context.identity.tenant, &*context.identity.worker), ("acme", "hello"));
        if self.refuses {
            return opening.refuse(CallError::Denied("no".into()));
        }
        let running = opening.start(holding(self.clone(), StartEvent::Session)).unwrap();
        self.running.lock().unwrap().push(running);
    }

    fn name(&self) -> &str {
        "again"
    }
}

fn holding(service: Again, event: StartEvent) -> Start {
    Start {
        env: vec![("A".into(), Grant::Service(Arc::new(service)))],
        limits: Limits { subrequests: 10_000, ..Limits::default() },
        ..start(event)
    }
}

fn caller(service: Again) -> Start {
    let StartEvent::Fetch(request) = fetch(RequestBody::Empty).event else { panic!("a fetch") };
    holding(service, StartEvent::Fetch(request))
}

fn open(host: &Host, invocation: InvocationId, call: u32, channel: u32) {
    host.say(ToGateway::OpenService { invocation, call: CallId(call), channel: ChannelId(channel) });
}

async fn refusal(host: &mut Host) -> CallError {
    match host.after_bundle().await {
        ToHost::Reply { result: Err(error), .. } => error,
        other => panic!("not a refusal: {other:?}"),
    }
}

#[tokio::test]
async fn a_call_gets_its_session_and_the_session_its_own_grants() {
    both(|link, mut host| async move {
        let service = Again::default();
        let _running = link.start(caller(service.clone())).unwrap();
        let first = host.invoke().await;
        assert_eq!(first.env[0].1, EnvValue::Service(ChannelId(1)));
        open(&host, first.id, 7, 1);
        let session = host.invoke().await;
        assert_eq!(session.event, Event::Session { caller: first.id, call: CallId(7) });
        assert_ne!(session.id, first.id);
        // Its end is its own.
        host.done(session.id);
        let mut running = service.running.lock().unwrap().pop().unwrap();
        assert_eq!(running.until_ended().await.usage, usage());
        // A call on it as if it were a channel, and an opening of what is no service, are calls without a grant.
        host.call(first.id, 8, 1, Body::Empty);
        assert!(matches!(refusal(&mut host).await, CallError::Denied(_)));
        for channel in [0, 2, u32::MAX] {
            open(&host, first.id, 9 + channel.min(3), channel);
            assert!(matches!(refusal(&mut host).await, CallError::Denied(_)));
        }
        assert_eq!(link.calls_forged(), 4);
        // Nothing is opened for whom the gateway does not know, or knew.
        open(&host, InvocationId(99), 1, 1);
        open(&host, session.id, 1, 1);
        host.done(first.id);
        open(&host, first.id, 20, 1);
        host.say(ToGateway::Heartbeat(Heartbeat { isolates_live: 1, ..Heartbeat::default() }));
        link.heartbeats().wait_for(|beat| beat.isolates_live == 1).await.unwrap();
        assert_eq!((link.frames_ignored(), link.close_reason()), (3, None));
    })
    .await;
}

#[tokio::test]
async fn an_owner_may_refuse() {
    both(|link, mut host| async move {
        let _running = link.start(caller(Again { refuses: true, ..Again::default() })).unwrap();
        let first = host.invoke().await;
        open(&host, first.id, 1, 1);
        assert_eq!(refusal(&mut host).await, CallError::Denied("no".into()));
        assert_eq!(link.calls_forged(), 0);
    })
    .await;
}

#[tokio::test]
async fn chains_end_at_their_depth_and_trees_at_their_size() {
    both(|link, mut host| async move {
        let service = Again::default();
        let _running = link.start(caller(service.clone())).unwrap();
        let mut at = host.invoke().await.id;
        for _ in 0..SERVICE_DEPTH_MAX {
            open(&host, at, 1, 1);
            at = host.invoke().await.id;
        }
        open(&host, at, 1, 1);
        assert_eq!(refusal(&mut host).await, CallError::Denied(TOO_DEEP.into()));
        // All under the first event, whoever of them calls.
        let root = InvocationId(1);
        for call in SERVICE_DEPTH_MAX..SERVICE_CALLS_MAX {
            open(&host, root, call, 1);
            host.invoke().await;
        }
        open(&host, InvocationId(2), 5, 1);
        assert_eq!(refusal(&mut host).await, CallError::Denied(TOO_MANY.into()));
        // Another event has its own count.
        let _other = link.start(caller(service)).unwrap();
        let other = host.invoke().await.id;
        open(&host, other, 1, 1);
        assert!(matches!(host.invoke().await.event, Event::Session { .. }));
    })
    .await;
}

#[tokio::test]
async fn a_session_gives_the_gateway_no_answer() {
    let misdeeds: [fn(&Host, InvocationId); 2] = [
        |host, id| host.respond(id, Body::Empty),
        |host, id| host.say(ToGateway::Returned { invocation: id, json: "1".into() }),
    ];
    for misdeed in misdeeds {
        let (link, mut host) = in_process();
        let _running = link.start(caller(Again::default())).unwrap();
        let first = host.invoke().await;
        open(&host, first.id, 1, 1);
        let session = host.invoke().await;
        misdeed(&host, session.id);
        assert_eq!(link.closed().await, CloseReason::Violation(Violation::WrongAnswer));
    }
}

#[tokio::test]
async fn a_session_without_a_caller_is_refused() {
    let (link, _host) = in_process();
    let running = link.start(holding(Again::default(), StartEvent::Session)).unwrap();
    assert_eq!(running.ended().await.outcome.code(), "refused");
}
