//! What the cluster's objects say: whether a pod runs, why it does not, and whether anybody needs it. Pure.

use std::time::Duration;

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::ObjectMeta};

use super::{
    failure::is_quota,
    pod::{CONTAINER, EXPIRES, LABEL_ID, LABEL_INCARNATION, LABEL_INSTANCE, STARTS_BY},
};
use crate::{
    backend::SandboxId,
    error::{Code, SandboxError},
    native::End,
};

/// Clocks of gateways differ: a time of another one has passed this much later.
const CLOCK_SLACK: Duration = Duration::from_secs(60);

/// How far a pod is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Its container runs.
    Running,
    /// It may come to that; with what stands in the way, if something does.
    Waiting(Option<SandboxError>),
    /// It never will.
    Over(SandboxError),
}

/// Reasons for waiting that do not pass by themselves within the time of a start.
const HOPELESS: &[&str] = &[
    "ErrImageNeverPull",
    "ImagePullBackOff",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
];

/// Reads a pod that is to start.
pub(super) fn progress(pod: &Pod) -> Progress {
    let failed = |code, text: String| SandboxError::new(code, text);
    let Some(status) = &pod.status else { return Progress::Waiting(None) };
    if let Some(phase @ ("Failed" | "Succeeded")) = status.phase.as_deref() {
        let why = status.message.clone().or_else(|| status.reason.clone()).unwrap_or_default();
        let code = if is_unschedulable(&why) { Code::Unschedulable } else { Code::BackendFailed };
        let text = format!("the pod ended before it was used ({phase}): {why}{}", last_words(pod));
        return Progress::Over(failed(code, text));
    }
    let own = status.container_statuses.iter().flatten().find(|status| status.name == CONTAINER);
    if own.and_then(|own| own.state.as_ref()?.running.as_ref()).is_some() {
        return Progress::Running;
    }
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    for waiting in containers.filter_map(|one| one.state.as_ref()?.waiting.as_ref()) {
        let reason = waiting.reason.as_deref().unwrap_or_default();
        let said = waiting.message.as_deref().unwrap_or_default();
        let advice = if reason.contains("Image") { "; can the nodes get the image?" } else { "" };
        let error =
            || failed(Code::BackendFailed, format!("the pod does not start: {reason}: {said}{advice}"));
        if HOPELESS.contains(&reason) {
            return Progress::Over(error());
        }
        if reason.starts_with("Err") {
            return Progress::Waiting(Some(error()));
        }
    }
    let unscheduled = status.conditions.iter().flatten().find(|condition| {
        condition.type_ == "PodScheduled"
            && condition.status == "False"
            && condition.reason.as_deref() == Some("Unschedulable")
    });
    Progress::Waiting(unscheduled.map(|condition| {
        let said = condition.message.as_deref().unwrap_or_default();
        let text = format!(
            "no node takes the pod: {said}; add nodes, free some, or lower memory_mib, cpu_millis or the node selector"
        );
        failed(Code::Unschedulable, text)
    }))
}

/// A node's own refusal, after the scheduler's consent (`OutOfcpu`, `OutOfmemory`, `NodeAffinity`).
fn is_unschedulable(why: &str) -> bool {
    why.contains("OutOf") || why.contains("didn't have enough resource")
}

/// How the containers ended, as far as that says more.
fn last_words(pod: &Pod) -> String {
    let status = pod.status.as_ref();
    let containers = status
        .iter()
        .flat_map(|status| status.init_container_statuses.iter().chain(&status.container_statuses).flatten());
    let ended = containers.filter_map(|one| Some((one, one.state.as_ref()?.terminated.as_ref()?)));
    ended
        .filter(|(_, ended)| ended.exit_code != 0)
        .map(|(one, ended)| {
            let said = ended.message.as_deref().or(ended.reason.as_deref()).unwrap_or_default();
            format!("; container {} ended with {}: {said}", one.name, ended.exit_code)
        })
        .collect()
}

/// How a pod ended that did so by itself. `None`: it has not.
pub(super) fn end(pod: &Pod) -> Option<End> {
    let status = pod.status.as_ref()?;
    let own = status.container_statuses.iter().flatten().find(|status| status.name == CONTAINER);
    let ended = own.and_then(|own| own.state.as_ref()?.terminated.as_ref());
    if status.reason.as_deref() == Some("DeadlineExceeded") {
        return Some(End::Deadline);
    }
    Some(match (ended?.exit_code, ended?.reason.as_deref()) {
        (_, Some("OOMKilled")) => End::Killed,
        (10, _) => End::Deadline,
        (11, _) => End::Failed,
        (0, _) => End::HostGone,
        _ => End::Killed,
    })
}

/// What stands in the way of an object whose pod is not there yet, as its controller says it.
pub(super) fn obstacle(status: &serde_json::Value) -> Option<SandboxError> {
    let conditions = status["conditions"].as_array()?;
    let ready = conditions.iter().find(|one| one["type"] == "Ready" && one["status"] == "False")?;
    let said = ready["message"].as_str().filter(|said| !said.is_empty())?;
    let (code, advice) = if is_quota(said) {
        (
            Code::ClusterQuotaExceeded,
            "; wait until other sandboxes have ended, or raise the namespace's ResourceQuota",
        )
    } else {
        (Code::SandboxUnavailable, "")
    };
    Some(SandboxError::new(code, format!("the cluster makes no pod: {said}{advice}")))
}

/// A pod's phase, as far as it matters to whether somebody needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// There is none, or it waits for a node or its image.
    Pending,
    /// Its init waits for its gateway, or has it: without, it ends by itself.
    Running,
    /// It has ended.
    Over,
}

impl Phase {
    pub(super) fn of(pod: &Pod) -> Self {
        match pod.status.as_ref().and_then(|status| status.phase.as_deref()) {
            Some("Failed" | "Succeeded") => Self::Over,
            Some("Running") => Self::Running,
            _ => Self::Pending,
        }
    }
}

/// An object of some gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) id: String,
    instance: String,
    incarnation: String,
    expires: Option<Duration>,
    starts_by: Option<Duration>,
    /// It is on its way out.
    pub(super) deleted: bool,
    /// Somebody else's, for example a pod that a controller made.
    pub(super) owned: bool,
}

impl Found {
    /// What this process has just made.
    pub(super) fn created(name: &str, uid: &str, id: &SandboxId) -> Self {
        Self {
            name: name.to_owned(),
            uid: uid.to_owned(),
            id: id.as_str().to_owned(),
            instance: String::new(),
            incarnation: String::new(),
            expires: None,
            starts_by: None,
            deleted: false,
            owned: false,
        }
    }

    pub(super) fn of(metadata: &ObjectMeta) -> Self {
        let text = |from: &Option<std::collections::BTreeMap<String, String>>, key: &str| {
            from.as_ref().and_then(|all| all.get(key)).cloned().unwrap_or_default()
        };
        let seconds = |key: &str| text(&metadata.annotations, key).parse().ok().map(Duration::from_secs);
        Self {
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
            id: text(&metadata.labels, LABEL_ID),
            instance: text(&metadata.labels, LABEL_INSTANCE),
            incarnation: text(&metadata.labels, LABEL_INCARNATION),
            expires: seconds(EXPIRES),
            starts_by: seconds(STARTS_BY),
            deleted: metadata.deletion_timestamp.is_some(),
            owned: metadata.owner_references.as_ref().is_some_and(|owners| !owners.is_empty()),
        }
    }

    /// Whose it is. `held`: whether this process holds it.
    pub(super) fn holder(
        &self,
        instance: &str,
        incarnation: &str,
        held: bool,
        phase: Phase,
        now: Duration,
    ) -> Holder {
        let passed = |at: Option<Duration>| at.is_none_or(|at| now > at + CLOCK_SLACK);
        if self.instance == instance {
            // An earlier process of this gateway is no more: its name is ours. What this process let go is left over.
            return if self.incarnation == incarnation && held { Holder::This } else { Holder::Nobody };
        }
        let over = match phase {
            Phase::Over => true,
            Phase::Running => false,
            Phase::Pending => passed(self.starts_by),
        };
        if over || passed(self.expires) { Holder::Nobody } else { Holder::Another }
    }
}

/// Who needs an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// This process.
    This,
    /// Another gateway.
    Another,
    /// Nobody any more.
    Nobody,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kubernetes::pod::typed;

    fn pod(status: Value) -> Pod {
        typed(json!({ "metadata": { "name": "p" }, "status": status })).unwrap()
    }

    fn waiting(reason: &str) -> Value {
        json!({ "phase": "Pending", "containerStatuses": [{
            "name": CONTAINER, "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": { "waiting": { "reason": reason, "message": "because" } } }] })
    }

    fn container(state: Value) -> Value {
        json!([{ "name": CONTAINER, "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state }])
    }

    #[test]
    fn pods_that_start_and_pods_that_never_will() {
        let code = |status: Value| match progress(&pod(status)) {
            Progress::Running => "running".to_owned(),
            Progress::Waiting(None) => "waiting".to_owned(),
            Progress::Waiting(Some(error)) => format!("waiting: {}", error.code.as_str()),
            Progress::Over(error) => format!("over: {}", error.code.as_str()),
        };
        let unscheduled = json!([{ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3" }]);
        for (status, wanted) in [
            (json!({}), "waiting"),
            (json!({ "phase": "Pending" }), "waiting"),
            (json!({ "phase": "Running" }), "waiting"), // another container may run, ours does not yet
            (
                json!({ "phase": "Running", "containerStatuses": container(json!({ "running": {} })) }),
                "running",
            ),
            (waiting("ContainerCreating"), "waiting"),
            (waiting("ErrImagePull"), "waiting: BACKEND_FAILED"),
            (waiting("ImagePullBackOff"), "over: BACKEND_FAILED"),
            (waiting("ErrImageNeverPull"), "over: BACKEND_FAILED"),
            (json!({ "phase": "Pending", "conditions": unscheduled }), "waiting: UNSCHEDULABLE"),
            (json!({ "phase": "Failed", "reason": "OutOfcpu" }), "over: UNSCHEDULABLE"),
            (json!({ "phase": "Failed", "reason": "Evicted" }), "over: BACKEND_FAILED"),
            (json!({ "phase": "Succeeded" }), "over: BACKEND_FAILED"),
        ] {
            assert_eq!(code(status.clone()), wanted, "{status}");
        }
        let ended = json!({ "terminated": { "exitCode": 11, "reason": "Error", "message": "SYSTEM: no" } });
        let Progress::Over(error) =
            progress(&pod(json!({ "phase": "Failed", "containerStatuses": container(ended) })))
        else {
            panic!("it is over")
        };
        assert!(error.message.contains("ended with 11: SYSTEM: no"), "{error}");
    }

    #[test]
    fn ends_are_told_apart() {
        let ended = |code: i32, reason: &str| {
            let state = json!({ "terminated": { "exitCode": code, "reason": reason } });
            end(&pod(json!({ "phase": "Failed", "containerStatuses": container(state) })))
        };
        assert_eq!(ended(10, "Error"), Some(End::Deadline));
        assert_eq!(ended(11, "Error"), Some(End::Failed));
        assert_eq!(ended(0, "Completed"), Some(End::HostGone));
        assert_eq!(ended(137, "OOMKilled"), Some(End::Killed));
        assert_eq!(ended(137, "Error"), Some(End::Killed));
        assert_eq!(
            end(&pod(json!({ "phase": "Failed", "reason": "DeadlineExceeded" }))),
            Some(End::Deadline)
        );
        assert_eq!(end(&pod(json!({ "phase": "Running" }))), None);
    }

    #[test]
    fn a_controllers_quota_is_a_quota() {
        let status = |message: &str| json!({ "conditions": [{ "type": "Ready", "status": "False", "message": message }] });
        let found = obstacle(&status("pods \"x\" is forbidden: exceeded quota: q")).unwrap();
        assert_eq!(found.code, Code::ClusterQuotaExceeded);
        assert_eq!(obstacle(&status("no webhook")).unwrap().code, Code::SandboxUnavailable);
        assert_eq!((obstacle(&status("")), obstacle(&json!({}))), (None, None));
    }

    fn found(instance: &str, incarnation: &str, starts_by: Option<u64>, expires: Option<u64>) -> Found {
        Found {
            name: "n".into(),
            uid: "u".into(),
            id: "i".into(),
            instance: instance.into(),
            incarnation: incarnation.into(),
            expires: expires.map(Duration::from_secs),
            starts_by: starts_by.map(Duration::from_secs),
            deleted: false,
            owned: false,
        }
    }

    proptest::proptest! {
        /// What runs for somebody within its time is never taken away; what has ended or whose time is over always is.
        #[test]
        fn the_living_keep_theirs(
            (starts_by, expires, now) in (0u64..2_000, 0u64..2_000, 0u64..4_000),
            (phase, other, before, held) in (0usize..3, proptest::bool::ANY, proptest::bool::ANY, proptest::bool::ANY),
        ) {
            let phase = [Phase::Pending, Phase::Running, Phase::Over][phase];
            let (instance, incarnation) = (if other { "b" } else { "a" }, if before { "1" } else { "2" });
            let found = found(instance, incarnation, Some(starts_by), Some(expires));
            let holder = found.holder("a", "2", held, phase, Duration::from_secs(now));
            let in_time = now <= expires && (phase != Phase::Pending || now <= starts_by);
            let late = now > expires + 60 || (phase == Phase::Pending && now > starts_by + 60);
            if other {
                proptest::prop_assert!(!in_time || phase == Phase::Over || holder == Holder::Another);
                proptest::prop_assert!(!(late || phase == Phase::Over) || holder == Holder::Nobody);
            } else {
                proptest::prop_assert_eq!(holder == Holder::This, !before && held);
                proptest::prop_assert!(holder != Holder::Another);
            }
        }
    }

    #[test]
    fn what_says_no_time_is_nobodys() {
        assert_eq!(
            found("b", "1", None, None).holder("a", "2", false, Phase::Running, Duration::ZERO),
            Holder::Nobody
        );
    }
}
