//! A running container: what it has used, and its end.
//!
//! ```text
//!  reading ─▶ its control group's files, if this process sees them: microseconds
//!          └▶ else the engine's statistics: Docker takes about a second for an answer
//! ```

use std::time::{Duration, Instant};

use bollard::query_parameters::{InspectContainerOptions, StatsOptions};
use futures_util::StreamExt;
use tokio::sync::watch;

use super::{Inner, Remover};
use crate::{
    backend::{BoxFuture, Instance},
    cgroup::{Cgroup, Reading},
    error::Result,
    native::End,
};

/// How long the engine's statistics of a container may take.
const STATISTICS_MAX: Duration = Duration::from_secs(2);

impl Inner {
    /// The group of a container that has just started, if it can be read from here: not with an engine of another machine or
    /// process namespace, and not with one that makes no groups.
    pub(super) async fn group(&self, container: &str) -> Option<Cgroup> {
        let found = self.client.inspect_container(container, None::<InspectContainerOptions>).await;
        let pid = found.ok()?.state?.pid?;
        let group = Cgroup::of_container(u32::try_from(pid).ok()?, container);
        if group.is_none() {
            tracing::debug!(
                container,
                "its cgroup is not seen from here: metered by the engine's statistics"
            );
        }
        group
    }

    async fn statistics(&self, container: &str) -> Option<Reading> {
        let options = StatsOptions { stream: false, one_shot: true };
        let mut stats = std::pin::pin!(self.client.stats(container, Some(options)));
        let stats = tokio::time::timeout(STATISTICS_MAX, stats.next()).await.ok()??.ok()?;
        let cpu_ns = stats.cpu_stats.and_then(|cpu| cpu.cpu_usage?.total_usage).unwrap_or(0);
        let memory_bytes = stats.memory_stats.and_then(|memory| memory.usage).unwrap_or(0);
        Some(Reading { cpu_us: cpu_ns / 1000, memory_bytes, ..Reading::default() })
    }
}

/// A running container.
pub(super) struct Container {
    pub(super) remover: Remover,
    /// Where it is metered, if that can be read.
    pub(super) group: Option<Cgroup>,
    pub(super) exit: watch::Receiver<Option<i64>>,
    pub(super) deadline: Instant,
}

impl Instance for Container {
    fn reading(&self) -> BoxFuture<'_, Reading> {
        Box::pin(async {
            match (&self.group, &self.remover.container) {
                (Some(group), _) => group.read(),
                (None, Some(container)) => self.remover.inner.statistics(container).await.unwrap_or_default(),
                (None, None) => Reading::default(),
            }
        })
    }

    fn stop(mut self: Box<Self>) -> BoxFuture<'static, Result<End>> {
        Box::pin(async move {
            // What ended by itself has an exit code; what is removed here is told by that.
            let ended = *self.exit.borrow();
            let late = Instant::now() >= self.deadline;
            if let Some(container) = self.remover.container.take() {
                self.remover.inner.remove(&container).await?;
            }
            Ok(match ended {
                Some(10) => End::Deadline,
                _ if late => End::Deadline, // an engine may not have told the code yet
                Some(11) => End::Failed,
                Some(0) | None => End::HostGone,
                Some(_) => End::Killed,
            })
        })
    }
}
