//! A running pod: its exec, and the one task that sees to its end, from whatever side that comes.

use std::time::{Duration, Instant};

use kube::api::AttachedProcess;
use tokio::{sync::oneshot, task::JoinHandle};

use super::Held;
use crate::{
    backend::{BoxFuture, Instance, Launched},
    cgroup::Reading,
    error::{Code, Result, SandboxError},
    link::Link,
    native::End,
    protocol::{Answer, Op},
};

/// How long what an exec has brought may take to be read, after its end.
const LAST_WORDS_MAX: Duration = Duration::from_millis(500);
/// How long the readings of a pod may take.
const READING_MAX: Duration = Duration::from_secs(2);

/// The exec of the relay. Its streams do not end when its connection breaks; this tells.
pub(super) struct Exec {
    _process: AttachedProcess,
    /// Resolves when it is over, from whatever side, with how.
    pub(super) over: BoxFuture<'static, String>,
}

impl Exec {
    pub(super) fn new(mut process: AttachedProcess) -> Self {
        let status = process.take_status();
        let over = Box::pin(async move {
            let status = match status {
                Some(status) => status.await,
                None => None,
            };
            let told = status.and_then(|status| status.message);
            format!("the exec in the pod is over: {}", told.as_deref().unwrap_or("its connection broke"))
        });
        Self { _process: process, over }
    }
}

/// A running pod, with the task that sees to its end.
pub(super) fn guarded(held: Held, link: Link, exec: Exec, deadline: Instant) -> Launched {
    let (stop, stopped) = oneshot::channel();
    let guard = tokio::spawn(guard(held, link.clone(), exec, deadline, stopped));
    Launched { link: link.clone(), instance: Box::new(Running { link, _stop: stop, guard }) }
}

/// Waits for the end, from whatever side, and removes what is left.
async fn guard(
    held: Held,
    link: Link,
    mut exec: Exec,
    deadline: Instant,
    stopped: oneshot::Receiver<()>,
) -> Result<End> {
    let by_itself = tokio::select! {
        biased;
        () = link.closed() => true,
        text = &mut exec.over => {
            tracing::debug!(text, sandbox = held.id.as_str());
            // What it has brought is still to be read: the link ends with the last of it, if the connection was whole.
            let _read = tokio::time::timeout(LAST_WORDS_MAX, link.closed()).await;
            true
        }
        _ = stopped => false,
    };
    let end = if Instant::now() >= deadline {
        End::Deadline
    } else if by_itself {
        held.inner.ended(held.id.as_str()).await.unwrap_or(End::HostGone)
    } else {
        End::HostGone
    };
    link.close();
    drop(exec); // the relay ends, and with it the init: the node has nothing left to kill
    held.remove().await.map(|()| end)
}

/// What [`Launched`] holds of it; dropping it tells the guard.
struct Running {
    link: Link,
    _stop: oneshot::Sender<()>,
    guard: JoinHandle<Result<End>>,
}

impl Instance for Running {
    /// From inside: what a cluster measures is known to nobody at once.
    fn reading(&self) -> BoxFuture<'_, Reading> {
        Box::pin(async {
            match tokio::time::timeout(READING_MAX, self.link.ask(Op::Usage)).await {
                Ok(Ok(Answer::Usage(usage))) => usage.reading,
                _ => Reading::default(),
            }
        })
    }

    fn stop(self: Box<Self>) -> BoxFuture<'static, Result<End>> {
        Box::pin(async move {
            let Running { link, _stop, guard } = *self;
            drop(_stop);
            drop(link);
            guard.await.unwrap_or_else(|_| {
                Err(SandboxError::new(Code::OperationInterrupted, "the removal was dropped"))
            })
        })
    }
}
