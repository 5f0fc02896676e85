//! agent-sandbox: Sandboxes with a pod each, and SandboxClaims that take pods of a warm pool.

use std::{sync::Arc, time::Duration};

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::{Shared, admission::merge, lock};

/// Time between two looks of a controller.
const LOOK: Duration = Duration::from_millis(20);

fn is_past(time: &Value) -> bool {
    time.as_str().is_some_and(|time| time.parse::<Timestamp>().unwrap() <= Timestamp::now())
}

fn owner(object: &Value) -> Value {
    json!([{ "apiVersion": object["apiVersion"], "kind": object["kind"], "name": object["metadata"]["name"],
             "uid": object["metadata"]["uid"], "controller": true }])
}

impl Shared {
    fn same(&self, resource: &str, object: &Value) -> Option<Value> {
        let found = lock(&self.state).get(resource, object["metadata"]["name"].as_str().unwrap());
        found.filter(|found| found["metadata"]["uid"] == object["metadata"]["uid"])
    }

    /// Makes the pod, tells why it could not, and deletes all when the time has come.
    pub(super) async fn control(self: Arc<Self>, object: Value) {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let template = &object["spec"]["podTemplate"];
        while let Some(sandbox) = self.same("sandboxes", &object) {
            if is_past(&sandbox["spec"]["shutdownTime"]) && sandbox["spec"]["shutdownPolicy"] == "Delete" {
                let _gone = self.delete("sandboxes", &name, None);
                return;
            }
            if lock(&self.state).get("pods", &name).is_none() {
                let pod = json!({ "apiVersion": "v1", "kind": "Pod", "spec": template["spec"],
                    "metadata": { "name": name, "labels": template["metadata"]["labels"], "ownerReferences": owner(&object) } });
                let condition = match self.create("pods", pod) {
                    Ok(_) => json!({ "type": "Ready", "status": "True" }),
                    Err((_, message)) => {
                        json!({ "type": "Ready", "status": "False", "reason": "ReconcilerError", "message": message })
                    }
                };
                self.change("sandboxes", &name, &object["metadata"]["uid"], |sandbox| {
                    sandbox["status"] = json!({ "conditions": [condition] });
                });
            }
            tokio::time::sleep(LOOK).await;
        }
        // As the garbage collector does: the pod may have been made while its owner was being deleted.
        let pod = lock(&self.state).get("pods", &name);
        if pod.is_some_and(|pod| pod["metadata"]["ownerReferences"] == owner(&object)) {
            let _gone = self.delete("pods", &name, None);
        }
    }

    /// Gives a claim the first free pod of its pool.
    pub(super) async fn claim(self: Arc<Self>, object: Value) {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let uid = &object["metadata"]["uid"];
        let spec = &object["spec"];
        let mut given = false;
        while let Some(claim) = self.same("sandboxclaims", &object) {
            if is_past(&claim["spec"]["lifecycle"]["shutdownTime"]) {
                let _gone = self.delete("sandboxclaims", &name, None);
                return;
            }
            let free = |pod: &&Value| {
                pod["metadata"]["labels"]["pool"] == spec["warmPoolRef"]["name"]
                    && pod["metadata"]["ownerReferences"].is_null()
                    && pod["status"]["phase"] == "Running"
            };
            let pods = lock(&self.state).all("pods");
            if let (false, Some(pod)) = (given, pods.iter().find(free)) {
                let pod_name = pod["metadata"]["name"].as_str().unwrap();
                given = self.change("pods", pod_name, &pod["metadata"]["uid"], |pod| {
                    merge(
                        &mut pod["metadata"],
                        &json!({ "labels": spec["additionalPodMetadata"]["labels"] }),
                    );
                    pod["metadata"]["ownerReferences"] = owner(&object);
                });
                self.change("sandboxclaims", &name, uid, |claim| {
                    claim["status"] = json!({ "sandbox": { "name": pod_name } });
                });
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// A warm pool: pods that wait. The tests' own view of it.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    name: String,
}

impl Pool {
    pub(super) fn new(shared: &Arc<Shared>, name: &str, size: usize, spec: &Value) -> Self {
        for number in 0..size {
            let metadata = json!({ "name": format!("{name}-{number}"), "labels": { "pool": name } });
            let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec });
            shared.create("pods", pod).unwrap();
        }
        Self { shared: Arc::clone(shared), name: name.to_owned() }
    }

    /// Pods that nobody has claimed and that run.
    pub(crate) fn free(&self) -> usize {
        let pods = lock(&self.shared.state).all("pods");
        let free = |pod: &&Value| {
            pod["metadata"]["labels"]["pool"] == *self.name
                && pod["metadata"]["ownerReferences"].is_null()
                && pod["status"]["phase"] == "Running"
        };
        pods.iter().filter(free).count()
    }
}
