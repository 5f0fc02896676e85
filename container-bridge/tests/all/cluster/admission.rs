//! What may be created and deleted, and what comes of it.

use std::sync::Arc;

use atoll_container_bridge::backend::SandboxId;
use k8s_openapi::api::{core::v1::Pod, networking::v1::NetworkPolicy};
use serde_json::{Value, json};

use super::{Shared, lock};

/// A status and a message.
pub(super) type Refusal = (u16, String);

/// Unknown fields are refused, as with strict validation: what a typed reading loses was none of its.
fn known<T: serde::de::DeserializeOwned + serde::Serialize>(object: &Value) -> Result<(), Refusal> {
    let invalid = |text: String| (422, format!("invalid: {text}"));
    let typed: T = serde_json::from_value(object.clone()).map_err(|error| invalid(error.to_string()))?;
    let mut back = serde_json::to_value(typed).unwrap();
    back["status"] = object["status"].clone();
    lost(object, &back, "").map_or(Ok(()), |path| Err(invalid(format!("unknown field {path}"))))
}

fn lost(from: &Value, to: &Value, path: &str) -> Option<String> {
    match (from, to) {
        (Value::Object(from), Value::Object(to)) => from.iter().find_map(|(key, value)| {
            let path = format!("{path}.{key}");
            match to.get(key) {
                Some(other) => lost(value, other, &path),
                None => Some(path),
            }
        }),
        (Value::Array(from), Value::Array(to)) => from
            .iter()
            .zip(to)
            .enumerate()
            .find_map(|(index, (a, b))| lost(a, b, &format!("{path}[{index}]"))),
        _ => (from != to).then(|| path.to_owned()),
    }
}

/// Fields of the custom resources (agent-sandbox, v1beta1).
fn fields(value: &Value, allowed: &[&str]) -> Result<(), Refusal> {
    let unknown = value.as_object().into_iter().flatten().find(|(key, _)| !allowed.contains(&key.as_str()));
    unknown.map_or(Ok(()), |(key, _)| Err((422, format!("invalid: unknown field {key}"))))
}

fn validated(resource: &str, object: &Value) -> Result<(), Refusal> {
    let spec = &object["spec"];
    match resource {
        "pods" => known::<Pod>(object),
        "networkpolicies" => known::<NetworkPolicy>(object),
        "sandboxes" => {
            fields(
                spec,
                &[
                    "podTemplate",
                    "volumeClaimTemplates",
                    "service",
                    "shutdownTime",
                    "shutdownPolicy",
                    "operatingMode",
                ],
            )?;
            fields(&spec["podTemplate"], &["spec", "metadata"])?;
            known::<Pod>(&json!({ "metadata": {}, "spec": spec["podTemplate"]["spec"] }))
        }
        "sandboxclaims" => {
            fields(spec, &["warmPoolRef", "lifecycle", "additionalPodMetadata", "safeToEvict", "env"])?;
            fields(&spec["lifecycle"], &["shutdownTime", "ttlSecondsAfterFinished", "shutdownPolicy"])?;
            spec["warmPoolRef"]["name"]
                .as_str()
                .map(drop)
                .ok_or((422, "invalid: warmPoolRef.name".to_owned()))
        }
        _ => Err((404, "the server could not find the requested resource".to_owned())),
    }
}

impl Shared {
    pub(super) fn create(self: &Arc<Self>, resource: &str, mut object: Value) -> Result<Value, Refusal> {
        validated(resource, &object)?;
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if lock(&self.state).get(resource, &name).is_some() {
            return Err((409, format!("{resource} \"{name}\" already exists")));
        }
        if resource == "pods" {
            self.quota(&name)?;
            if let Some(patch) = lock(&self.weather).mutation.clone() {
                merge(&mut object["spec"], &patch);
            }
            object["status"] = json!({ "phase": "Pending" });
        }
        object["metadata"]["uid"] = json!(SandboxId::random().unwrap().as_str());
        object["metadata"]["creationTimestamp"] = json!(k8s_openapi::jiff::Timestamp::now().to_string());
        self.put(resource, "ADDED", object.clone());
        match resource {
            "pods" => drop(tokio::spawn(Arc::clone(self).run(object.clone()))),
            "sandboxes" => drop(tokio::spawn(Arc::clone(self).control(object.clone()))),
            "sandboxclaims" => drop(tokio::spawn(Arc::clone(self).claim(object.clone()))),
            _ => {}
        }
        Ok(object)
    }

    fn quota(&self, name: &str) -> Result<(), Refusal> {
        let Some(limit) = lock(&self.weather).quota else { return Ok(()) };
        let used = lock(&self.state).all("pods").len();
        if used < limit {
            return Ok(());
        }
        let text = format!(
            "pods \"{name}\" is forbidden: exceeded quota: sandboxes, requested: pods=1, used: pods={used}, limited: pods={limit}"
        );
        Err((403, text))
    }

    /// Pods go when their node has ended them; everything else goes at once, and its pods after it.
    pub(super) fn delete(
        self: &Arc<Self>,
        resource: &str,
        name: &str,
        uid: Option<&str>,
    ) -> Result<Value, Refusal> {
        let found = lock(&self.state).get(resource, name);
        let object = found.ok_or_else(|| (404, format!("{resource} \"{name}\" not found")))?;
        if uid.is_some_and(|uid| object["metadata"]["uid"] != uid) {
            return Err((409, "the UID in the precondition does not match".to_owned()));
        }
        let own = object["metadata"]["uid"].clone();
        if resource == "pods" {
            if object["metadata"]["deletionTimestamp"].is_null() {
                let stamp = json!(k8s_openapi::jiff::Timestamp::now().to_string());
                self.change(resource, name, &own, |object| object["metadata"]["deletionTimestamp"] = stamp);
                self.kill(name, &own);
            }
            return Ok(object);
        }
        self.put(resource, "DELETED", object.clone());
        for pod in lock(&self.state).all("pods") {
            if pod["metadata"]["ownerReferences"][0]["uid"] == own {
                let shared = Arc::clone(self);
                let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
                tokio::spawn(async move { shared.delete("pods", &name, None) });
            }
        }
        Ok(object)
    }
}

/// RFC 7386.
pub(super) fn merge(into: &mut Value, patch: &Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    into.remove(key);
                } else {
                    merge(into.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (into, patch) => *into = patch.clone(),
    }
}
