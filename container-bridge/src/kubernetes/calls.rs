//! The cluster's API as this backend uses it: create, wait, exec, remove, find what nobody needs.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use futures_util::TryStreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{
        AttachParams, AttachedProcess, DeleteParams, DynamicObject, ListParams, PostParams, Preconditions,
        WatchEvent, WatchParams,
    },
};

use super::{
    Inner, check,
    failure::{Failure, call},
    lock, now,
    pod::{CONTAINER, LABEL_ID, Plan, SELECTOR, Shape},
    state::{Found, Holder, Phase, Progress, obstacle, progress},
};
use crate::{
    backend::SandboxId,
    error::{Code, Result, SandboxError},
    limits::{STOP_MAX, WINDOW_BYTES},
};

/// Time between two looks at something that is about to change.
pub(super) const LOOK: Duration = Duration::from_millis(50);
/// How long one watch lasts before what it told is looked at anew, in seconds.
const WATCH_S: u32 = 10;
/// How often a call whose answer was lost is repeated.
pub(super) const TRIES: u32 = 4;

impl Inner {
    pub(super) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.config.namespace)
    }

    fn objects(&self, shape: Shape) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.config.namespace, &shape.resource())
    }

    /// Whether the cluster serves this kind of object.
    pub(super) async fn serves(&self, shape: Shape) -> Result<bool> {
        let resource = shape.resource();
        let listing = self.client.list_api_group_resources(&resource.api_version);
        match call(&format!("look for {}", resource.api_version), listing).await {
            Ok(list) => Ok(list.resources.iter().any(|found| found.name == resource.plural)),
            Err(Failure { status: 404, .. }) => Ok(false),
            Err(failure) => Err(failure.error),
        }
    }

    /// Creates the object; gives its uid. One that nobody needs any more is removed before, one that goes away waited
    /// for. A lost answer is found out about by asking again.
    pub(super) async fn create(&self, name: &str, plan: &Plan<'_>, shape: Shape) -> Result<String> {
        let (api, object) = (self.objects(shape), plan.object(shape, name)?);
        let limit = Instant::now() + STOP_MAX;
        let mut tries = 0;
        loop {
            match call("create the sandbox", api.create(&PostParams::default(), &object)).await {
                Ok(created) => return Ok(created.metadata.uid.unwrap_or_default()),
                Err(Failure { status: 409, .. }) => {}
                Err(failure) if failure.status == 0 && tries < TRIES => {
                    tries += 1;
                    tokio::time::sleep(LOOK).await;
                    continue;
                }
                Err(failure) => return Err(failure.error),
            }
            if let Some(found) = call("look at the sandbox", api.get_opt(name)).await? {
                let found = Found::of(&found.metadata);
                if found.id == plan.id.as_str() {
                    return Ok(found.uid);
                }
                match self.holder(&found).await? {
                    _ if found.deleted => {}
                    Holder::Nobody => self.remove(shape, &found).await?,
                    Holder::This => {} // its last use ends
                    Holder::Another => {
                        let text = "another gateway has the sandbox of this user";
                        return Err(SandboxError::new(Code::SandboxUnavailable, text));
                    }
                }
            }
            if Instant::now() > limit {
                let text = format!("the name {name} stays taken in the cluster");
                return Err(SandboxError::new(Code::SandboxUnavailable, text));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The object of that name, if it is this sandbox's.
    pub(super) async fn find(&self, shape: Shape, name: &str, id: &SandboxId) -> Result<Option<Found>> {
        let found = call("look at the sandbox", self.objects(shape).get_opt(name)).await?;
        Ok(found.map(|found| Found::of(&found.metadata)).filter(|found| found.id == id.as_str()))
    }

    async fn holder(&self, found: &Found) -> Result<Holder> {
        let pods = self.pods_of(&found.id).await?;
        let phase = pods.first().map_or(Phase::Pending, Phase::of);
        Ok(self.judge(found, phase))
    }

    fn judge(&self, found: &Found, phase: Phase) -> Holder {
        let held = lock(&self.held).contains(&found.id);
        found.holder(self.instance.name(), self.incarnation.as_str(), held, phase, now())
    }

    async fn pods_of(&self, id: &str) -> Result<Vec<Pod>, Failure> {
        let params = ListParams::default().labels(&format!("{LABEL_ID}={id}"));
        Ok(call("look for the pod", self.pods().list(&params)).await?.items)
    }

    /// Waits until the pod runs. What stands in the way meanwhile is noted in `way`.
    pub(super) async fn running(
        &self,
        id: &SandboxId,
        name: &str,
        shape: Shape,
        way: &Mutex<Option<SandboxError>>,
    ) -> Result<Pod> {
        let params = ListParams::default().labels(&format!("{LABEL_ID}={}", id.as_str()));
        loop {
            let list = match call("look for the pod", self.pods().list(&params)).await {
                Ok(list) => list,
                Err(failure) if matches!(failure.status, 0 | 410 | 500..) => {
                    *lock(way) = Some(failure.error);
                    tokio::time::sleep(LOOK).await;
                    continue;
                }
                Err(failure) => return Err(failure.error),
            };
            for pod in &list.items {
                if let Some(pod) = look(pod, way)? {
                    return Ok(pod);
                }
            }
            if list.items.is_empty() && shape != Shape::Pod {
                self.ask_controller(name, shape, way).await;
            }
            let version = list.metadata.resource_version.unwrap_or_default();
            if let Some(pod) = self.watch(id, &version, shape, way).await? {
                return Ok(pod);
            }
        }
    }

    /// Follows what happens to the pod until it runs, or until it has to be listed anew: the version was too old, the
    /// connection broke, or a controller has not made it yet.
    async fn watch(
        &self,
        id: &SandboxId,
        version: &str,
        shape: Shape,
        way: &Mutex<Option<SandboxError>>,
    ) -> Result<Option<Pod>> {
        let params = WatchParams::default().labels(&format!("{LABEL_ID}={}", id.as_str())).timeout(WATCH_S);
        let Ok(events) = call("watch the pod", self.pods().watch(&params, version)).await else {
            tokio::time::sleep(LOOK).await;
            return Ok(None);
        };
        let mut events = std::pin::pin!(events);
        // While there is none, its controller is asked for the reason now and then.
        let patience = if shape == Shape::Pod { Duration::from_secs(WATCH_S.into()) } else { 10 * LOOK };
        while let Ok(Ok(Some(event))) = tokio::time::timeout(patience, events.try_next()).await {
            match event {
                WatchEvent::Added(pod) | WatchEvent::Modified(pod) => {
                    if let Some(pod) = look(&pod, way)? {
                        return Ok(Some(pod));
                    }
                }
                WatchEvent::Deleted(_) => {
                    let text = "the pod was deleted in the cluster before it ran";
                    return Err(SandboxError::new(Code::BackendFailed, text));
                }
                WatchEvent::Error(status) => {
                    tracing::debug!(code = status.code, "a watch has to begin anew");
                    break;
                }
                WatchEvent::Bookmark(_) => {}
            }
        }
        tokio::time::sleep(LOOK).await;
        Ok(None)
    }

    async fn ask_controller(&self, name: &str, shape: Shape, way: &Mutex<Option<SandboxError>>) {
        if let Ok(Some(object)) = call("look at the sandbox", self.objects(shape).get_opt(name)).await
            && let Some(error) = obstacle(&object.data["status"])
        {
            *lock(way) = Some(error);
        }
    }

    /// Starts the relay in a pod. A container may run a moment before its node lets anybody in.
    pub(super) async fn exec(&self, pod: &str, command: Vec<String>) -> Result<AttachedProcess> {
        let params = AttachParams::default().stdin(true).stdout(true).stderr(false).container(CONTAINER);
        let params = params.max_stdin_buf_size(WINDOW_BYTES).max_stdout_buf_size(WINDOW_BYTES);
        let mut tries = 0;
        loop {
            match call("exec in the pod", self.pods().exec(pod, command.clone(), &params)).await {
                Ok(process) => return Ok(process),
                Err(failure) if tries < TRIES && !matches!(failure.status, 401 | 403) => {
                    tries += 1;
                    tokio::time::sleep(LOOK * tries).await;
                }
                Err(failure) => return Err(failure.error),
            }
        }
    }

    /// Deletes the object and waits until it and its pod are gone. Never another one of the same name.
    pub(super) async fn remove(&self, shape: Shape, found: &Found) -> Result<()> {
        let limit = Instant::now() + STOP_MAX;
        let api = self.objects(shape);
        let mut last = None;
        loop {
            let deleted = self.delete(&api, &found.name, &found.uid).await;
            let there = match &deleted {
                Err(failure) if matches!(failure.status, 401 | 403) => {
                    return Err(SandboxError::new(failure.error.code, failure.error.message.clone()));
                }
                Err(failure) => {
                    last = Some(failure.error.message.clone());
                    true
                }
                Ok(()) => self.is_there(&api, found).await.unwrap_or(true),
            };
            if !there && self.remove_pods(&found.id).await.unwrap_or(false) {
                return Ok(());
            }
            if Instant::now() > limit {
                let why = last.unwrap_or_else(|| "it is still there".to_owned());
                let text = format!("remove the sandbox {} from the cluster: {why}", found.name);
                return Err(SandboxError::new(Code::BackendFailed, text));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// With the least grace that waits for the node (see `pod.rs`).
    async fn delete<K>(&self, api: &Api<K>, name: &str, uid: &str) -> Result<(), Failure>
    where
        K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
    {
        let preconditions = Some(Preconditions { uid: Some(uid.to_owned()), ..Preconditions::default() });
        let params = DeleteParams { grace_period_seconds: Some(1), preconditions, ..DeleteParams::default() };
        match call("delete the sandbox", api.delete(name, &params)).await {
            // Not there, or another one of that name.
            Ok(_) | Err(Failure { status: 404 | 409, .. }) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    async fn is_there(&self, api: &Api<DynamicObject>, found: &Found) -> Result<bool, Failure> {
        let there = call("look at the sandbox", api.get_opt(&found.name)).await?;
        Ok(there.is_some_and(|there| there.metadata.uid.as_deref() == Some(&found.uid)))
    }

    /// Deletes the pods of a sandbox, which a controller would do too, in its own time. Whether none is left.
    async fn remove_pods(&self, id: &str) -> Result<bool, Failure> {
        let pods = self.pods_of(id).await?;
        for pod in &pods {
            let (name, uid) = (pod.metadata.name.as_deref(), pod.metadata.uid.as_deref());
            if let (Some(name), Some(uid), None) = (name, uid, &pod.metadata.deletion_timestamp) {
                self.delete(&self.pods(), name, uid).await?;
            }
        }
        Ok(pods.is_empty())
    }

    /// How a sandbox ended that did so by itself, if its node has told.
    pub(super) async fn ended(&self, id: &str) -> Option<crate::native::End> {
        self.pods_of(id).await.ok()?.first().and_then(super::state::end)
    }

    /// Removes what nobody needs any more. The network's denial is looked at, too: somebody may have changed it.
    pub(super) async fn reap(&self) -> Result<usize> {
        if let Err(error) = self.wall().await {
            tracing::error!(%error, "sandboxes would have a network; none is made");
        }
        let params = ListParams::default().labels(SELECTOR);
        let pods = call("list the pods", self.pods().list(&params)).await?.items;
        let phase_of = |id: &str| {
            let own = |pod: &&Pod| Found::of(&pod.metadata).id == id;
            pods.iter().find(own).map_or(Phase::Pending, Phase::of)
        };
        let mut all: Vec<(Shape, Found)> =
            pods.iter().map(|pod| (Shape::Pod, Found::of(&pod.metadata))).collect();
        for shape in self.shapes.iter().copied().filter(|shape| *shape != Shape::Pod) {
            let list = call("list the sandboxes", self.objects(shape).list(&params)).await?;
            all.extend(list.items.iter().map(|item| (shape, Found::of(&item.metadata))));
        }
        let mut reaped = 0;
        for (shape, found) in all {
            if found.owned || found.deleted || self.judge(&found, phase_of(&found.id)) != Holder::Nobody {
                continue;
            }
            match self.remove(shape, &found).await {
                Ok(()) => reaped += 1,
                Err(error) => tracing::warn!(%error, name = found.name, "a dead sandbox does not go away"),
            }
        }
        Ok(reaped)
    }
}

/// The pod if it runs and has its walls; an error if it never will.
fn look(pod: &Pod, way: &Mutex<Option<SandboxError>>) -> Result<Option<Pod>> {
    match progress(pod) {
        Progress::Running => {}
        Progress::Waiting(error) => {
            if error.is_some() {
                *lock(way) = error;
            }
            return Ok(None);
        }
        Progress::Over(error) => return Err(error),
    }
    let lacking = check::lacks(pod);
    if lacking.is_empty() {
        return Ok(Some(pod.clone()));
    }
    let text = format!("the cluster made a pod without {}; nothing is let into it", lacking.join(", "));
    Err(SandboxError::new(Code::BackendFailed, text))
}
