//! The engine's API as this backend uses it: create under a name that may be taken, remove for sure, list the dead.

use std::{collections::HashMap, path::Path, time::Duration};

use bollard::{
    errors::Error as EngineError,
    models::ContainerSummary,
    query_parameters::{
        CreateContainerOptions, InspectContainerOptions, ListContainersOptions, RemoveContainerOptions,
        WaitContainerOptions,
    },
};
use futures_util::StreamExt;
use tokio::sync::watch;

use super::{Inner, container, failed, instance, now, status};
use crate::{
    backend::Owner,
    error::{Code, Result, SandboxError},
    limits::STOP_MAX,
};

/// How long to wait for the end of a container that is being removed, and the time between two looks.
const REMOVAL_MAX: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);
/// How long a container may be in a state that only Podman has a word for, while others are listed.
const PASSING_MAX: Duration = Duration::from_secs(5);
/// A container this long past its deadline is removed whoever its owner is.
const EXPIRED_SLACK: Duration = Duration::from_secs(60);

impl Inner {
    /// Creates the container. A name that is taken is waited for if it is being removed, and taken over if nobody
    /// owns it any more.
    pub(super) async fn create(
        &self,
        name: &str,
        plan: &container::Plan<'_>,
        owner: Option<&Owner>,
    ) -> Result<String> {
        let limit = tokio::time::Instant::now() + REMOVAL_MAX;
        loop {
            let options = CreateContainerOptions { name: Some(name.to_owned()), ..Default::default() };
            match self.client.create_container(Some(options), plan.body()).await {
                Ok(created) => return Ok(created.id),
                Err(error) if status(&error) == Some(409) => {}
                // Podman says it this way.
                Err(error) if error.to_string().contains("already in use") => {}
                Err(error) => return Err(failed("create the container", &error)),
            }
            let found = self.client.inspect_container(name, None::<InspectContainerOptions>).await;
            // Podman's word for a container that has just ended ("stopped") is none of Docker's.
            if matches!(found, Err(EngineError::JsonDataError { .. })) {
                self.remove(name).await?;
            }
            let labels = found.ok().and_then(|found| found.config?.labels);
            let holder = labels.as_ref().and_then(|labels| labels.get(container::LABEL_INSTANCE));
            match holder {
                Some(holder) if Path::new(holder) == self.instance.path() => {} // ours, on its way out
                Some(holder) if !instance::is_alive(Path::new(holder)) => self.remove(name).await?,
                Some(_) => {
                    let whose = owner.map_or_else(|| "no owner".to_owned(), |owner| owner.tenant.clone());
                    let text = format!("another gateway has the sandbox of this user ({whose})");
                    return Err(SandboxError::new(Code::SandboxUnavailable, text));
                }
                None => {}
            }
            if tokio::time::Instant::now() > limit {
                return Err(SandboxError::new(
                    Code::SandboxUnavailable,
                    format!("the name {name} stays taken"),
                ));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Removes a container with all its processes and waits until it is gone.
    pub(super) async fn remove(&self, container: &str) -> Result<()> {
        let limit = tokio::time::Instant::now() + STOP_MAX;
        loop {
            let options = RemoveContainerOptions { force: true, v: true, ..Default::default() };
            let last = match self.client.remove_container(container, Some(options)).await {
                Err(error) if status(&error) == Some(404) => return Ok(()),
                other => other.err(), // perhaps the engine removes it already: look again until it is gone
            };
            match self.client.inspect_container(container, None::<InspectContainerOptions>).await {
                Err(error) if status(&error) == Some(404) => return Ok(()),
                _ if tokio::time::Instant::now() > limit => {
                    let why = last.map_or_else(|| "it is still there".to_owned(), |error| error.to_string());
                    return Err(SandboxError::new(
                        Code::BackendFailed,
                        format!("remove the container: {why}"),
                    ));
                }
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// The exit code of a container, when it comes.
    pub(super) fn watch_exit(&self, container: &str) -> watch::Receiver<Option<i64>> {
        let (sender, receiver) = watch::channel(None);
        let (client, container) = (self.client.clone(), container.to_owned());
        tokio::spawn(async move {
            let options = WaitContainerOptions { condition: "not-running".to_owned() };
            let mut waiting = std::pin::pin!(client.wait_container(&container, Some(options)));
            let code = tokio::select! {
                answer = waiting.next() => match answer {
                    Some(Ok(answer)) => answer.status_code,
                    Some(Err(EngineError::DockerContainerWaitError { code, .. })) => code,
                    _ => return,
                },
                () = sender.closed() => return,
            };
            sender.send_replace(Some(code));
        });
        receiver
    }

    async fn list(&self, states: &[&str]) -> Result<Vec<ContainerSummary>> {
        let filters = HashMap::from([
            ("label".to_owned(), vec![container::LABEL_INSTANCE.to_owned()]),
            ("status".to_owned(), states.iter().map(|state| (*state).to_owned()).collect()),
        ]);
        let options = ListContainersOptions { all: true, filters: Some(filters), ..Default::default() };
        let limit = tokio::time::Instant::now() + PASSING_MAX;
        loop {
            match self.client.list_containers(Some(options.clone())).await {
                // One that ended while the engine looked is told in Podman's word ("stopped"), which is none of Docker's:
                // a moment later it has another state.
                Err(EngineError::JsonDataError { .. }) if tokio::time::Instant::now() < limit => {
                    tokio::time::sleep(LOOK).await;
                }
                found => return found.map_err(|error| failed("list the containers", &error)),
            }
        }
    }

    pub(super) async fn reap(&self) -> Result<usize> {
        instance::remove_dead(&self.config.state_dir, self.instance.path());
        let mut all = self.list(&["created", "running", "paused"]).await?;
        // A container that has just ended may be in a state that only Podman has a word for; next time it is another.
        all.extend(self.list(&["exited"]).await.unwrap_or_default());
        let mut reaped = 0;
        for found in all {
            let (Some(container), Some(labels)) = (found.id, found.labels) else { continue };
            let Some(holder) = labels.get(container::LABEL_INSTANCE) else { continue };
            let expires = labels.get(container::LABEL_EXPIRES).and_then(|text| text.parse().ok());
            let expired =
                expires.is_some_and(|at| now().saturating_sub(EXPIRED_SLACK) > Duration::from_secs(at));
            let alive = Path::new(holder) == self.instance.path() || instance::is_alive(Path::new(holder));
            if !expired && alive {
                continue;
            }
            match self.remove(&container).await {
                Ok(()) => reaped += 1,
                Err(error) => {
                    tracing::warn!(%error, container, "a dead sandbox's container does not go away")
                }
            }
        }
        Ok(reaped)
    }
}
