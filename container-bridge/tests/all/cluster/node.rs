//! The one node: a pod is a native sandbox whose init waits for its set-up, as the init in a real pod does. The bounds
//! are those of the pod's specification; what the init itself sees to is what it is told.

use std::{sync::Arc, time::Duration};

use atoll_container_bridge::{
    backend::{SandboxId, SandboxSpec},
    init::relay::{INSTALL, LISTEN, LISTEN_WARM},
    limits::{Limits, START_MAX},
    native::End,
    protocol::Setup,
};
use serde_json::{Value, json};
use tokio::{net::UnixStream, sync::Notify};

use super::{Shared, lock};

/// Time between two looks at something that the tests may change.
const LOOK: Duration = Duration::from_millis(20);

/// A pod whose init waits for its connection.
pub(super) struct Waiting {
    uid: Value,
    /// Taken by the exec.
    pub(super) init: Option<(Setup, UnixStream)>,
    /// The exec is over, and with it the init.
    pub(super) over: Arc<Notify>,
    kill: Arc<Notify>,
}

fn number(value: &Value) -> u64 {
    value.as_str().and_then(|text| text.parse().ok()).expect("a plain number of bytes")
}

/// What the pod's specification bounds.
fn limits(spec: &Value) -> Limits {
    let bounds = &spec["containers"][0]["resources"]["limits"];
    let volumes = spec["volumes"].as_array().cloned().unwrap_or_default();
    let disk: u64 = volumes
        .iter()
        .filter(|volume| volume["emptyDir"]["medium"] == "Memory")
        .map(|volume| number(&volume["emptyDir"]["sizeLimit"]))
        .sum();
    let millis = bounds["cpu"].as_str().unwrap().strip_suffix('m').unwrap().parse().unwrap();
    Limits {
        memory_bytes: number(&bounds["memory"]),
        // Shares of a sixteenth are rounded down, each.
        disk_bytes: disk.div_ceil(4096) * 4096,
        cpu_millis: millis,
        ..Limits::default()
    }
}

fn status(name: &str, phase: &str, state: &Value) -> Value {
    json!({ "phase": phase, "containerStatuses": [{
        "name": name, "image": "i", "imageID": "", "ready": phase == "Running", "restartCount": 0, "state": state }] })
}

impl Shared {
    /// Ends a pod's processes; one that has none is just taken away.
    pub(super) fn kill(&self, name: &str, uid: &Value) {
        match lock(&self.waiting).get(name).filter(|waiting| waiting.uid == *uid) {
            Some(waiting) => waiting.kill.notify_one(),
            None => self.take_away(name, uid),
        }
    }

    /// The node has told that a deleted pod has ended.
    fn take_away(&self, name: &str, uid: &Value) {
        let found = lock(&self.state).get("pods", name);
        if let Some(pod) = found.filter(|pod| pod["metadata"]["uid"] == *uid)
            && !pod["metadata"]["deletionTimestamp"].is_null()
        {
            self.put("pods", "DELETED", pod);
        }
    }

    fn tell(&self, name: &str, uid: &Value, status: Value) -> bool {
        self.change("pods", name, uid, |pod| pod["status"] = status)
    }

    /// A pod's life.
    pub(super) async fn run(self: Arc<Self>, pod: Value) {
        let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
        let (uid, spec) = (&pod["metadata"]["uid"], &pod["spec"]);
        let container = spec["containers"][0]["name"].as_str().unwrap();
        if !self.is_taken(&name, uid, container).await {
            return;
        }
        let command = spec["containers"][0]["command"].as_array().and_then(|words| words.last()).cloned();
        let command = command.and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default();
        let installs = spec["initContainers"].as_array().is_none_or(|all| {
            all.iter().all(|one| one["command"].as_array().unwrap().iter().any(|word| word == INSTALL))
        });
        if ![LISTEN, LISTEN_WARM].contains(&command.as_str()) || !installs {
            let state = json!({ "terminated": { "exitCode": 127, "reason": "StartError" } });
            self.tell(&name, uid, status(container, "Failed", &state));
            return;
        }
        let wanted = SandboxSpec { limits: limits(spec), ..SandboxSpec::default() };
        let id = SandboxId::random().unwrap();
        let (setup, stream, instance) = self.native.prepare(&id, &wanted).await.unwrap();
        let (over, kill) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let waiting = Waiting {
            uid: uid.clone(),
            init: Some((setup, stream)),
            over: Arc::clone(&over),
            kill: Arc::clone(&kill),
        };
        lock(&self.waiting).insert(name.clone(), waiting);
        let alive = self.tell(&name, uid, status(container, "Running", &json!({ "running": {} })));
        let reason =
            if alive { self.attend(&name, spec, &over, &kill, command == LISTEN_WARM).await } else { None };
        lock(&self.waiting).remove(&name);
        let code = match instance.stop().await.unwrap_or(End::Killed) {
            End::HostGone => 0,
            End::Deadline => 10,
            End::Failed => 11,
            End::Killed => 137,
        };
        let state = json!({ "terminated": { "exitCode": code, "reason": "Ended" } });
        let mut ended = status(container, if code == 0 { "Succeeded" } else { "Failed" }, &state);
        if let Some(reason) = reason {
            ended["reason"] = json!(reason);
        }
        self.tell(&name, uid, ended);
        self.take_away(&name, uid);
    }

    /// Until the scheduler and the image store let the pod start; false if it is deleted before.
    async fn is_taken(&self, name: &str, uid: &Value, container: &str) -> bool {
        loop {
            let (full, no_image) = {
                let weather = lock(&self.weather);
                (weather.full, weather.no_image)
            };
            let there = if full {
                let condition = json!([{ "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                                         "message": "0/1 nodes are available: 1 Insufficient memory." }]);
                self.tell(name, uid, json!({ "phase": "Pending", "conditions": condition }))
            } else if no_image {
                let state = json!({ "waiting": { "reason": "ImagePullBackOff", "message": "Back-off pulling image" } });
                self.tell(name, uid, status(container, "Pending", &state))
            } else {
                return true;
            };
            if !there {
                return false;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Until the pod is over; with the reason if it is the node's own.
    async fn attend(
        &self,
        name: &str,
        spec: &Value,
        over: &Notify,
        kill: &Notify,
        warm: bool,
    ) -> Option<&'static str> {
        let active = spec["activeDeadlineSeconds"].as_u64().map_or(Duration::MAX, Duration::from_secs);
        let lonely = async {
            tokio::time::sleep(START_MAX).await;
            // As the init of a pod does.
            if warm || lock(&self.waiting).get(name).is_none_or(|waiting| waiting.init.is_none()) {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = over.notified() => None,
            () = kill.notified() => None,
            () = lonely => None,
            () = tokio::time::sleep(active) => Some("DeadlineExceeded"),
        }
    }
}
