//! Keeps the hosts of a class complete: one is started for each that left, sooner or later by how long hosts live.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::cgroup::{Group, Groups};
use super::config::{HostClass, HostsConfig};
use super::life::Life;
use super::process::Spawned;
use super::slots::{Host, HostId};
use super::{Inner, Pool, lock};
use crate::observe::Observer;

/// How long after a start that failed the next one is tried, in milliseconds, before the back-off bites.
const RETRY_MS: u64 = 20;

/// Keeps every slot of one class, and its standby, filled.
pub(super) struct Spawner {
    pub(super) inner: Arc<Inner>,
    pub(super) pool: usize,
    pub(super) class: HostClass,
    pub(super) config: Arc<HostsConfig>,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) groups: Arc<io::Result<Groups>>,
}

impl Spawner {
    pub(super) async fn run(self) {
        let pool = &self.inner.pools[self.pool];
        loop {
            if self.inner.stopping.load(Ordering::SeqCst) {
                return;
            }
            let starting = pool.starting.load(Ordering::SeqCst);
            if lock(&pool.slots).missing(starting) == 0 {
                pool.missing.notified().await;
                continue;
            }
            let wait = lock(&pool.backoff).wait();
            if !wait.is_zero() {
                tracing::warn!(
                    wait_ms = wait.as_millis() as u64,
                    "isolate hosts die young; the next one waits"
                );
                tokio::time::sleep(wait).await;
                if self.inner.stopping.load(Ordering::SeqCst) {
                    return;
                }
            }
            if let Err(error) = self.spawn(pool) {
                tracing::error!(%error, "an isolate host cannot be started");
                lock(&pool.backoff).lost_after(Duration::ZERO);
                // Also before the backoff bites: a program that is not there is not there a moment later.
                tokio::time::sleep(Duration::from_millis(RETRY_MS)).await;
            }
        }
    }

    fn spawn(&self, pool: &Pool) -> io::Result<()> {
        let generation = lock(&pool.slots).generation();
        let Spawned { link, child, pid, sandbox } = self.class.command.spawn()?;
        pool.starting.fetch_add(1, Ordering::SeqCst);
        let id = HostId(self.inner.next.fetch_add(1, Ordering::Relaxed));
        let (retire, lease) = Default::default();
        let life = Life {
            inner: Arc::clone(&self.inner),
            pool: self.pool,
            config: Arc::clone(&self.config),
            observer: Arc::clone(&self.observer),
            host: Host { id, link, generation, pid, born: Instant::now(), retire, lease },
            child,
            group: grouped(&self.groups, id, pid, self.class.resident_bytes_max),
            sandbox,
        };
        let alive = self.inner.tasks.subscribe();
        tokio::spawn(async move {
            life.run().await;
            drop(alive);
        });
        Ok(())
    }
}

/// A cgroup with a host in it, or why there is none.
fn grouped(
    groups: &io::Result<Groups>,
    id: HostId,
    pid: u32,
    resident_bytes_max: Option<u64>,
) -> Result<Group, String> {
    let groups = groups.as_ref().map_err(ToString::to_string)?;
    let group = groups.make(id.0, resident_bytes_max).map_err(|error| error.to_string())?;
    group.add(pid).map_err(|error| error.to_string())?;
    Ok(group)
}
