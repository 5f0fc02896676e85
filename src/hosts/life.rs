//! One isolate host: its task waits for what ends it, answers for what was inside, and removes it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use atoll_bindings::link::CloseReason;
use atoll_bindings::seam::{Condemned, InvocationId};
use tokio::process::Child;
use tokio::sync::oneshot;

use super::cgroup::Group;
use super::config::HostsConfig;
use super::sandbox::{Missing, Sandbox};
use super::slots::Host;
use super::{Inner, Pool, lock, until_stop};
use crate::observe::{HostEnd, HostEvent, Observer};

/// How often a draining host is looked at, in milliseconds.
const DRAIN_LOOK_MS: u64 = 20;

/// Longest wait for the end of a dead host's socket, in milliseconds: a process that it left behind may hold it open.
const LAST_WORDS_MS_MAX: u64 = 1_000;

/// Why a host had to go.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Fault {
    #[error("{0}")]
    Closed(CloseReason),
    #[error("it exited ({0})")]
    Exited(std::process::ExitStatus),
    #[error("isolates would not stop")]
    Condemned(Vec<Condemned>),
    #[error("it was silent for too long")]
    Silent,
    #[error("it did not start in time")]
    NotStarted,
    #[error("it is not confined: {0}")]
    NotConfined(String),
    #[error("it was replaced")]
    Retired,
    #[error("the gateway shuts down")]
    Shutdown,
}

/// One host, from spawn to its end.
pub(super) struct Life {
    pub(super) inner: Arc<Inner>,
    pub(super) pool: usize,
    pub(super) config: Arc<HostsConfig>,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) host: Host,
    pub(super) child: Child,
    pub(super) group: Result<Group, String>,
    pub(super) sandbox: oneshot::Receiver<Sandbox>,
}

impl Life {
    pub(super) async fn run(mut self) {
        let born = Instant::now();
        let pid = self.child.id().unwrap_or_default();
        let ready = self.first_heartbeat().await;
        self.pool().starting.fetch_sub(1, Ordering::SeqCst);
        let ready = match ready {
            Ok(()) => self.confined().await,
            fault => fault.map(|()| String::new()),
        };
        let served = Instant::now();
        let never = ready.is_err();
        let fault = match ready {
            Err(fault) => fault,
            Ok(unconfined) => {
                let start_ms = u64::try_from(born.elapsed().as_millis()).unwrap_or(u64::MAX);
                self.observer.host(&HostEvent::Started { pid, start_ms, unconfined: &unconfined });
                let displaced = lock(&self.pool().slots).add(self.host.clone());
                self.inner.changed(self.pool);
                if let Some(host) = displaced {
                    host.retire.notify_one();
                }
                self.watch().await
            }
        };
        lock(&self.pool().slots).remove(self.host.id);
        if fault == Fault::Retired {
            let inside = self.host.link.in_flight();
            let end = HostEnd { pid, reason: &fault.to_string(), inside, tenants: "" };
            self.observer.host(&HostEvent::Retired(end));
        }
        if !matches!(fault, Fault::Shutdown | Fault::Retired) {
            // Where one tenant is to blame, that tenant waits and not the next host.
            if !self.record(&fault, pid) {
                let served = if never { Duration::ZERO } else { served.elapsed() };
                lock(&self.pool().backoff).lost_after(served);
            }
            self.inner.lost.fetch_add(1, Ordering::SeqCst);
        }
        self.inner.changed(self.pool);
        self.end(&fault).await;
    }

    fn pool(&self) -> &Pool {
        &self.inner.pools[self.pool]
    }

    async fn first_heartbeat(&mut self) -> Result<(), Fault> {
        let mut beats = self.host.link.heartbeats();
        let mut stop = self.inner.stop.subscribe();
        let limit = Duration::from_millis(self.config.start_ms_max);
        tokio::select! {
            _ = beats.changed() => Ok(()),
            reason = self.host.link.closed() => Err(Fault::Closed(reason)),
            () = tokio::time::sleep(limit) => Err(Fault::NotStarted),
            () = until_stop(&mut stop) => Err(Fault::Shutdown),
        }
    }

    /// How far the host is confined: the names of what is missing, if that is allowed.
    async fn confined(&mut self) -> Result<String, Fault> {
        let limit = Duration::from_millis(LAST_WORDS_MS_MAX);
        let mut sandbox = match tokio::time::timeout(limit, &mut self.sandbox).await {
            Ok(Ok(sandbox)) => sandbox,
            Ok(Err(_)) | Err(_) => Sandbox::none("the host does not say"),
        };
        if let Err(reason) = &self.group {
            sandbox.missing.push(Missing { layer: "cgroup".into(), reason: reason.clone() });
        }
        let (names, reasons) = (sandbox.names(), sandbox.reasons());
        let changed = self.inner.sandbox.send_replace(Some(sandbox.clone())) != Some(sandbox);
        if names.is_empty() {
            return Ok(names);
        }
        if self.config.require_sandbox {
            return Err(Fault::NotConfined(reasons));
        }
        if changed {
            tracing::warn!(missing = %reasons, "isolate hosts are not confined completely");
        }
        Ok(names)
    }

    /// Until something is wrong with it.
    async fn watch(&mut self) -> Fault {
        let mut beats = self.host.link.heartbeats();
        let mut stop = self.inner.stop.subscribe();
        let limit = Duration::from_millis(self.config.silence_ms_max);
        loop {
            let condemned = beats.borrow_and_update().condemned.clone();
            if !condemned.is_empty() {
                return Fault::Condemned(condemned);
            }
            tokio::select! {
                changed = beats.changed() => if changed.is_err() {
                    return Fault::Closed(CloseReason::Closed);
                },
                reason = self.host.link.closed() => return Fault::Closed(reason),
                exited = self.child.wait() => {
                    // What it said last is still in the socket.
                    let limit = Duration::from_millis(LAST_WORDS_MS_MAX);
                    let _ = tokio::time::timeout(limit, self.host.link.closed()).await;
                    return match exited {
                        Ok(status) => Fault::Exited(status),
                        Err(_) => Fault::Closed(CloseReason::HostGone),
                    };
                }
                () = tokio::time::sleep(limit) => return Fault::Silent,
                () = self.host.retire.notified() => return Fault::Retired,
                () = until_stop(&mut stop) => return Fault::Shutdown,
            }
        }
    }

    /// Says who was inside. True if one tenant alone is to blame.
    fn record(&self, fault: &Fault, pid: u32) -> bool {
        // Ends what is inside a host that is already dead, so that the link knows who was there.
        if !matches!(fault, Fault::Condemned(_) | Fault::Silent) {
            self.host.link.close();
        }
        let inside = self.host.link.inside();
        let tenants = {
            let mut ledger = lock(&self.inner.ledger);
            match fault {
                Fault::Condemned(named) => ledger.condemned(&ids(named), &inside),
                _ => ledger.died(&inside),
            }
        };
        let one = tenants.len() == 1;
        let tenants: Vec<_> = tenants.iter().map(AsRef::as_ref).collect();
        let tenants = tenants.join(" ");
        let reason = fault.to_string();
        let end = HostEnd { pid, reason: &reason, inside: inside.len(), tenants: &tenants };
        self.observer.host(&match fault {
            Fault::Condemned(_) => HostEvent::Condemned(end),
            _ => HostEvent::Lost(end),
        });
        one
    }

    /// Answers the condemned at once, lets the good ones finish, then kills.
    async fn end(mut self, fault: &Fault) {
        if let Fault::Condemned(named) = fault {
            self.host.link.give_up(named);
        }
        if *fault == Fault::Retired {
            self.inner.draining.fetch_add(1, Ordering::SeqCst);
            self.retired().await;
            self.inner.draining.fetch_sub(1, Ordering::SeqCst);
        }
        if matches!(fault, Fault::Condemned(_) | Fault::Silent | Fault::Shutdown) {
            self.host.link.drain();
            let limit = Duration::from_millis(self.config.drain_ms_max);
            tokio::select! {
                _ = tokio::time::timeout(limit, self.drained()) => {}
                _ = self.host.link.closed() => {}
            }
        }
        self.host.link.close();
        if let Err(error) = self.child.kill().await {
            tracing::debug!(%error, "an isolate host was gone before it was killed");
        }
        if let Ok(group) = self.group {
            group.ended().await;
        }
    }

    /// Until nobody starts anything there any more and all that runs has ended, or the gateway shuts down.
    async fn retired(&self) {
        let mut stop = self.inner.stop.subscribe();
        let mut limit = Duration::from_millis(self.config.roll_drain_ms_max);
        let ended = async {
            // Out of its place, nobody gets a new lease: only this task's own is left.
            while Arc::strong_count(&self.host.lease) > 1 {
                tokio::time::sleep(Duration::from_millis(DRAIN_LOOK_MS)).await;
            }
            self.drained().await;
        };
        tokio::pin!(ended);
        tokio::select! {
            _ = tokio::time::timeout(limit, &mut ended) => return,
            _ = self.host.link.closed() => return,
            () = until_stop(&mut stop) => {}
        }
        self.host.link.drain();
        limit = Duration::from_millis(self.config.drain_ms_max);
        tokio::select! {
            _ = tokio::time::timeout(limit, ended) => {}
            _ = self.host.link.closed() => {}
        }
    }

    /// Until nothing is inside any more. What is condemned meanwhile is answered and blamed as well.
    async fn drained(&self) {
        let mut known = 0;
        while self.host.link.in_flight() > 0 {
            let condemned = self.host.link.heartbeat().condemned;
            if condemned.len() > known {
                known = condemned.len();
                // Those named before are not inside any more, so nobody is blamed twice.
                lock(&self.inner.ledger).condemned(&ids(&condemned), &self.host.link.inside());
                self.host.link.give_up(&condemned);
            }
            tokio::time::sleep(Duration::from_millis(DRAIN_LOOK_MS)).await;
        }
    }
}

fn ids(condemned: &[Condemned]) -> Vec<InvocationId> {
    condemned.iter().map(|condemned| condemned.invocation).collect()
}
