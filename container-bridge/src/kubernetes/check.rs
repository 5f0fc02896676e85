//! Whether what the cluster has is what it must be: the walls of a pod, the denial of the network. Pure.
//!
//! Pods of this backend are made with all walls. A cluster may change what it is asked for, and pods of a warm pool are
//! made from somebody else's template: so each pod is looked at before anything is let in.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        core::v1::{Container, Pod, PodSpec, SecurityContext},
        networking::v1::NetworkPolicy,
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use serde_json::json;

use super::pod::{LABEL_NAME, NAME, typed};
use crate::error::Result;

/// The policy's name.
pub(super) const POLICY: &str = "atoll-sandbox-no-network";

/// The walls that a pod lacks.
pub(super) fn lacks(pod: &Pod) -> Vec<String> {
    let Some(spec) = &pod.spec else { return vec!["a specification".to_owned()] };
    let mut lacking = Vec::new();
    let mut wall = |stands: bool, what: &str| {
        if !stands {
            lacking.push(what.to_owned());
        }
    };
    wall(spec.automount_service_account_token == Some(false), "automountServiceAccountToken: false");
    wall(spec.host_network != Some(true), "hostNetwork: false");
    wall(spec.host_pid != Some(true), "hostPID: false");
    wall(spec.host_ipc != Some(true), "hostIPC: false");
    wall(spec.share_process_namespace != Some(true), "shareProcessNamespace: false");
    wall(spec.restart_policy.as_deref() == Some("Never"), "restartPolicy: Never");
    wall(spec.containers.len() == 1, "one container alone");
    wall(only_empty_volumes(spec), "volumes of the kind emptyDir alone");
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        for what in container_lacks(spec, container) {
            wall(false, &format!("{what} (container {})", container.name));
        }
    }
    lacking
}

fn only_empty_volumes(spec: &PodSpec) -> bool {
    spec.volumes.iter().flatten().all(|volume| volume.empty_dir.is_some())
}

fn container_lacks(spec: &PodSpec, container: &Container) -> Vec<&'static str> {
    let none = SecurityContext::default();
    let own = container.security_context.as_ref().unwrap_or(&none);
    let pods = spec.security_context.as_ref();
    let non_root = own.run_as_non_root.or_else(|| pods.and_then(|pods| pods.run_as_non_root));
    let user = own.run_as_user.or_else(|| pods.and_then(|pods| pods.run_as_user));
    let profile =
        own.seccomp_profile.as_ref().or_else(|| pods.and_then(|pods| pods.seccomp_profile.as_ref()));
    let capabilities = own.capabilities.as_ref();
    let dropped = capabilities.and_then(|all| all.drop.as_ref());
    let added = capabilities.and_then(|all| all.add.as_ref());
    let bound = |name: &str| {
        let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
        limits.is_some_and(|limits| limits.contains_key(name))
    };
    let walls = [
        (non_root == Some(true) && user != Some(0), "runAsNonRoot: true"),
        (own.privileged != Some(true), "privileged: false"),
        (own.allow_privilege_escalation == Some(false), "allowPrivilegeEscalation: false"),
        (own.read_only_root_filesystem == Some(true), "readOnlyRootFilesystem: true"),
        (dropped.is_some_and(|all| all.iter().any(|one| one == "ALL")), "capabilities.drop: [ALL]"),
        (added.is_none_or(Vec::is_empty), "no capabilities.add"),
        (profile.is_some_and(|profile| profile.type_ == "RuntimeDefault"), "seccompProfile: RuntimeDefault"),
        (bound("cpu") && bound("memory"), "limits for cpu and memory"),
    ];
    walls.into_iter().filter(|(stands, _)| !stands).map(|(_, what)| what).collect()
}

/// No traffic in either direction for any sandbox of the namespace.
pub(super) fn policy() -> Result<NetworkPolicy> {
    typed(json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": { "name": POLICY, "labels": { "app.kubernetes.io/managed-by": "atoll" } },
        "spec": {
            "podSelector": { "matchLabels": { LABEL_NAME: NAME } },
            "policyTypes": ["Ingress", "Egress"],
        },
    }))
}

/// What the network policies of a namespace come to for sandboxes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Denial {
    /// All is denied.
    Complete,
    /// Nobody denies.
    Absent,
    /// This policy lets something through: what several policies let through adds up.
    Opened(String),
}

/// Reads all policies of the namespace.
pub(super) fn denial(policies: &[NetworkPolicy]) -> Denial {
    let (mut ingress, mut egress) = (false, false);
    for policy in policies {
        let Some(spec) = &policy.spec else { continue };
        if !spec.pod_selector.as_ref().is_none_or(may_select) {
            continue;
        }
        let opens = !spec.ingress.as_ref().is_none_or(Vec::is_empty)
            || !spec.egress.as_ref().is_none_or(Vec::is_empty);
        if opens {
            return Denial::Opened(policy.metadata.name.clone().unwrap_or_default());
        }
        if spec.pod_selector.as_ref().is_none_or(surely_selects) {
            let types = spec.policy_types.as_deref().unwrap_or_default();
            // Without types, a policy is about ingress.
            ingress |= types.is_empty() || types.iter().any(|one| one == "Ingress");
            egress |= types.iter().any(|one| one == "Egress");
        }
    }
    if ingress && egress { Denial::Complete } else { Denial::Absent }
}

/// Labels that every sandbox has.
fn known() -> BTreeMap<String, String> {
    BTreeMap::from([
        (LABEL_NAME.to_owned(), NAME.to_owned()),
        ("app.kubernetes.io/managed-by".to_owned(), "atoll".to_owned()),
    ])
}

/// Whether some sandbox may be meant. Labels whose values differ from one to the next may have any.
fn may_select(selector: &LabelSelector) -> bool {
    let known = known();
    let fits = |(key, value): (&String, &String)| match known.get(key) {
        Some(own) => own == value,
        None => key.starts_with("atoll."),
    };
    // Expressions only narrow; that one is not understood must not hide an opening.
    selector.match_labels.iter().flatten().all(fits)
}

/// Whether every sandbox is meant.
fn surely_selects(selector: &LabelSelector) -> bool {
    let known = known();
    selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
        && selector.match_labels.iter().flatten().all(|(key, value)| known.get(key) == Some(value))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn good() -> Value {
        let security = json!({ "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                               "capabilities": { "drop": ["ALL"] } });
        json!({ "spec": {
            "automountServiceAccountToken": false, "restartPolicy": "Never",
            "securityContext": { "runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": { "type": "RuntimeDefault" } },
            "containers": [{ "name": "c", "securityContext": security,
                             "resources": { "limits": { "cpu": "1", "memory": "1Gi" } } }],
            "volumes": [{ "name": "v", "emptyDir": {} }],
        } })
    }

    #[test]
    fn each_wall_is_missed() {
        let lacking = |value: Value| lacks(&typed(value).unwrap());
        assert_eq!(lacking(good()), Vec::<String>::new());
        let changes: &[(&str, Value, &str)] = &[
            ("/spec/automountServiceAccountToken", json!(true), "automount"),
            ("/spec/automountServiceAccountToken", Value::Null, "automount"),
            ("/spec/hostNetwork", json!(true), "hostNetwork"),
            ("/spec/hostPID", json!(true), "hostPID"),
            ("/spec/hostIPC", json!(true), "hostIPC"),
            ("/spec/shareProcessNamespace", json!(true), "shareProcess"),
            ("/spec/restartPolicy", json!("Always"), "restartPolicy"),
            ("/spec/securityContext/runAsNonRoot", Value::Null, "runAsNonRoot"),
            ("/spec/securityContext/runAsUser", json!(0), "runAsNonRoot"),
            ("/spec/securityContext/seccompProfile/type", json!("Unconfined"), "seccomp"),
            ("/spec/containers/0/securityContext", Value::Null, "allowPrivilegeEscalation"),
            ("/spec/containers/0/securityContext/privileged", json!(true), "privileged"),
            ("/spec/containers/0/securityContext/allowPrivilegeEscalation", json!(true), "allowPrivilege"),
            ("/spec/containers/0/securityContext/readOnlyRootFilesystem", json!(false), "readOnlyRoot"),
            ("/spec/containers/0/securityContext/runAsUser", json!(0), "runAsNonRoot"),
            ("/spec/containers/0/securityContext/capabilities/drop", json!(["NET_RAW"]), "drop"),
            ("/spec/containers/0/securityContext/capabilities/add", json!(["SYS_ADMIN"]), "add"),
            ("/spec/containers/0/resources/limits", json!({ "cpu": "1" }), "limits"),
            ("/spec/volumes/0", json!({ "name": "v", "hostPath": { "path": "/" } }), "emptyDir"),
            ("/spec/volumes/0", json!({ "name": "v", "secret": {} }), "emptyDir"),
            ("/spec/initContainers", json!([{ "name": "i" }]), "(container i)"),
            ("/spec/containers/1", json!({ "name": "d" }), "one container"),
        ];
        for (path, value, missed) in changes {
            let mut pod = good();
            let (parent, key) = path.rsplit_once('/').unwrap();
            match pod.pointer_mut(parent).unwrap() {
                Value::Array(list) if key == "1" => list.push(value.clone()),
                Value::Array(list) => list[0] = value.clone(),
                object => object[key] = value.clone(),
            }
            let lacking = lacking(pod);
            assert!(lacking.iter().any(|one| one.contains(missed)), "{path} {value}: {lacking:?}");
        }
        assert!(!lacking(json!({})).is_empty());
    }

    #[test]
    fn policies_add_up() {
        let one = |selector: Value, more: Value| {
            let mut spec = json!({ "podSelector": selector });
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            typed::<NetworkPolicy>(json!({ "metadata": { "name": "p" }, "spec": spec })).unwrap()
        };
        let ours = policy().unwrap();
        let named = json!({ "matchLabels": { LABEL_NAME: NAME } });
        let both = json!({ "policyTypes": ["Ingress", "Egress"] });
        let opening = json!({ "egress": [{}], "policyTypes": ["Egress"] });
        let rows = [
            (vec![], Denial::Absent),
            (vec![ours.clone()], Denial::Complete),
            (vec![one(named.clone(), both.clone())], Denial::Complete),
            (vec![one(json!({}), both.clone())], Denial::Complete),
            // Half of it, somebody else's, or some sandboxes only.
            (vec![one(named.clone(), json!({}))], Denial::Absent),
            (vec![one(named.clone(), json!({ "policyTypes": ["Egress"] }))], Denial::Absent),
            (vec![one(json!({ "matchLabels": { "app": "x" } }), both.clone())], Denial::Absent),
            (vec![one(json!({ "matchLabels": { "atoll.tenant": "x" } }), both.clone())], Denial::Absent),
            (
                vec![one(json!({ "matchExpressions": [{ "key": "a", "operator": "Exists" }] }), both)],
                Denial::Absent,
            ),
            // What lets something through, whoever denies.
            (vec![ours.clone(), one(json!({}), opening.clone())], Denial::Opened("p".to_owned())),
            (vec![one(named, opening.clone()), ours.clone()], Denial::Opened("p".to_owned())),
            (
                vec![ours.clone(), one(json!({ "matchLabels": { "atoll.tenant": "x" } }), opening.clone())],
                Denial::Opened("p".to_owned()),
            ),
            (vec![ours, one(json!({ "matchLabels": { "app": "x" } }), opening)], Denial::Complete),
        ];
        for (policies, wanted) in rows {
            assert_eq!(denial(&policies), wanted, "{policies:?}");
        }
    }
}
