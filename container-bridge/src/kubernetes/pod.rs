//! What the cluster is asked for. Pure.
//!
//! ```text
//!  Sandbox (agents.x-k8s.io)      where that is installed        ┐
//!  Pod                            else                           ├─▶ one pod: labels, walls, bounds, the init
//!  SandboxClaim (extensions.…)    if a warm pool is configured   ┘   (a claimed pod is the pool's: see check.rs)
//! ```

use std::time::Duration;

use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{KubernetesConfig, UID_BASE, UIDS};
use crate::{
    backend::{SandboxId, SandboxSpec},
    error::{Code, Result, SandboxError},
    init::relay::{INSTALL, LISTEN, RELAY},
    kit::Kit,
    limits::{MIB, START_MAX},
    owned::{DISK_SIXTEENTHS, KIT_DIR, hash, uid},
};

/// The workload's container.
pub(super) const CONTAINER: &str = "sandbox";
/// All sandboxes of all gateways.
pub(super) const SELECTOR: &str = "app.kubernetes.io/name=atoll-sandbox";
pub(super) const LABEL_NAME: &str = "app.kubernetes.io/name";
pub(super) const NAME: &str = "atoll-sandbox";
/// One sandbox: also on its pod.
pub(super) const LABEL_ID: &str = "atoll.sandbox";
/// The gateway that made it: see `instance.rs`.
pub(super) const LABEL_INSTANCE: &str = "atoll.instance";
/// The process of that gateway.
pub(super) const LABEL_INCARNATION: &str = "atoll.incarnation";
/// Tenant and user together, the tenant, the user, each as a hash: labels are for everybody with eyes in the cluster.
const LABEL_OWNER: &str = "atoll.owner";
const LABEL_TENANT: &str = "atoll.tenant";
const LABEL_USER: &str = "atoll.user";
/// When its life is over at the latest, and until when it must have started, in seconds since 1970.
pub(super) const EXPIRES: &str = "atoll.expires";
pub(super) const STARTS_BY: &str = "atoll.starts-by";
/// What the copied init takes of a node's disk at most.
const KIT_MAX: u64 = 512 * MIB;
/// What else a container may take of a node's disk: its log.
const LOG_MAX: u64 = 16 * MIB;

/// As what a sandbox is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Pod,
    Sandbox,
    Claim,
}

impl Shape {
    /// How the cluster's API calls it.
    pub(super) fn resource(self) -> ApiResource {
        let (group, version, kind, plural) = match self {
            Self::Pod => ("", "v1", "Pod", "pods"),
            Self::Sandbox => ("agents.x-k8s.io", "v1beta1", "Sandbox", "sandboxes"),
            Self::Claim => ("extensions.agents.x-k8s.io", "v1beta1", "SandboxClaim", "sandboxclaims"),
        };
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
    }
}

pub(super) fn typed<T: DeserializeOwned>(value: Value) -> Result<T> {
    serde_json::from_value(value).map_err(|error| {
        SandboxError::new(Code::BackendFailed, format!("an object for the cluster: {error}"))
    })
}

/// A moment as Kubernetes writes it.
pub(super) fn rfc3339(at: Duration) -> String {
    use k8s_openapi::jiff::Timestamp;
    Timestamp::from_second(at.as_secs().cast_signed()).unwrap_or(Timestamp::MAX).to_string()
}

/// All that a sandbox is made from.
pub(super) struct Plan<'a> {
    pub(super) config: &'a KubernetesConfig,
    pub(super) kit: &'a Kit,
    pub(super) id: &'a SandboxId,
    pub(super) spec: &'a SandboxSpec,
    pub(super) instance: &'a str,
    pub(super) incarnation: &'a SandboxId,
    /// Now, since 1970.
    pub(super) now: Duration,
}

impl Plan<'_> {
    /// The object to create.
    pub(super) fn object(&self, shape: Shape, name: &str) -> Result<DynamicObject> {
        let resource = shape.resource();
        // Later than the init's own deadline and than this gateway's: who is left over is ended by the cluster.
        let shutdown = rfc3339(self.expires());
        let spec = match shape {
            Shape::Pod => self.pod_spec(),
            Shape::Sandbox => json!({
                "shutdownTime": shutdown,
                "shutdownPolicy": "Delete",
                "service": false,
                "podTemplate": { "metadata": { "labels": self.labels() }, "spec": self.pod_spec() },
            }),
            Shape::Claim => json!({
                "warmPoolRef": { "name": self.config.warm_pool },
                "lifecycle": { "shutdownTime": shutdown, "shutdownPolicy": "Delete", "ttlSecondsAfterFinished": 0 },
                "additionalPodMetadata": { "labels": self.labels() },
            }),
        };
        let annotations = json!({
            EXPIRES: self.expires().as_secs().to_string(),
            STARTS_BY: (self.now + START_MAX).as_secs().to_string(),
        });
        typed(json!({
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": { "name": name, "labels": self.labels(), "annotations": annotations },
            "spec": spec,
        }))
    }

    fn expires(&self) -> Duration {
        self.now + START_MAX + Duration::from_millis(self.spec.limits.lifetime_ms)
    }

    /// The command that carries bytes to the init, inside.
    pub(super) fn relay(&self) -> Vec<String> {
        self.init(RELAY)
    }

    fn init(&self, argument: &str) -> Vec<String> {
        let mut command = match self.config.agent_image {
            Some(_) => {
                let arguments = self.config.command.iter().skip(1).cloned();
                self.kit.command(KIT_DIR).into_iter().chain(arguments).collect()
            }
            None => self.config.command.clone(),
        };
        command.push(argument.to_owned());
        command
    }

    fn labels(&self) -> Value {
        let mut labels = json!({
            LABEL_NAME: NAME,
            "app.kubernetes.io/managed-by": "atoll",
            LABEL_ID: self.id.as_str(),
            LABEL_INSTANCE: self.instance,
            LABEL_INCARNATION: self.incarnation.as_str(),
        });
        if let Some(owner) = &self.spec.owner {
            labels[LABEL_OWNER] = json!(hash(&[owner.tenant.as_bytes(), owner.user.as_bytes()]));
            labels[LABEL_TENANT] = json!(hash(&[owner.tenant.as_bytes()]));
            labels[LABEL_USER] = json!(hash(&[owner.user.as_bytes()]));
        }
        labels
    }

    fn pod_spec(&self) -> Value {
        let uid = uid(self.id, UID_BASE, UIDS);
        let config = self.config;
        let tolerations: Vec<Value> = config.tolerations.iter().map(toleration).collect();
        let secrets: Vec<Value> = config.pull_secret.iter().map(|name| json!({ "name": name })).collect();
        let (volumes, mounts) = self.volumes();
        let mut spec = json!({
            // From when the node has the pod, so with what a start may take.
            "activeDeadlineSeconds": (START_MAX + Duration::from_millis(self.spec.limits.lifetime_ms)).as_secs() + 1,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "restartPolicy": "Never",
            // Not 0, which would take the object away before its node has ended the container.
            "terminationGracePeriodSeconds": 1,
            "hostNetwork": false, "hostPID": false, "hostIPC": false, "shareProcessNamespace": false,
            "hostname": "sandbox",
            "dnsPolicy": "None",
            "dnsConfig": { "nameservers": ["127.0.0.1"] }, // nobody answers: there is no network
            "nodeSelector": config.node_selector,
            "tolerations": tolerations,
            "imagePullSecrets": secrets,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": uid, "runAsGroup": uid, "fsGroup": uid,
                "seccompProfile": { "type": "RuntimeDefault" },
            },
            "containers": [{
                "name": CONTAINER, "image": config.image, "imagePullPolicy": config.pull.as_str(),
                "command": self.init(LISTEN), "workingDir": "/",
                "securityContext": security(), "resources": self.resources(), "volumeMounts": mounts,
            }],
            "volumes": volumes,
        });
        if let Some(class) = &config.runtime_class {
            spec["runtimeClassName"] = json!(class);
        }
        if let Some(image) = &config.agent_image {
            let install: Vec<&str> =
                config.command.iter().map(String::as_str).chain([INSTALL, KIT_DIR]).collect();
            spec["initContainers"] = json!([{
                "name": "agent", "image": image, "imagePullPolicy": config.pull.as_str(), "command": install,
                "securityContext": security(), "resources": self.resources(),
                "volumeMounts": [{ "name": "agent", "mountPath": KIT_DIR }],
            }]);
        }
        spec
    }

    /// Requests as large as limits: a node that has no room for a sandbox gets none.
    fn resources(&self) -> Value {
        let limits = &self.spec.limits;
        let kit = if self.config.agent_image.is_some() { KIT_MAX } else { 0 };
        let all = json!({
            "cpu": format!("{}m", limits.cpu_millis),
            "memory": limits.memory_bytes.to_string(),
            "ephemeral-storage": (LOG_MAX + kit).to_string(),
        });
        json!({ "limits": all, "requests": all })
    }

    /// What can be written to is in memory: the kernel keeps its size at once, while a node looks at its disk now and
    /// then. The places' sum is part of the memory's bound.
    fn volumes(&self) -> (Vec<Value>, Vec<Value>) {
        let (mut volumes, mut mounts) = (Vec::new(), Vec::new());
        for (index, (path, sixteenths, _)) in DISK_SIXTEENTHS.iter().enumerate() {
            let (name, bytes) = (format!("disk-{index}"), self.spec.limits.disk_bytes / 16 * sixteenths);
            volumes.push(
                json!({ "name": name, "emptyDir": { "medium": "Memory", "sizeLimit": bytes.to_string() } }),
            );
            mounts.push(json!({ "name": name, "mountPath": path }));
        }
        if self.config.agent_image.is_some() {
            volumes.push(json!({ "name": "agent", "emptyDir": { "sizeLimit": KIT_MAX.to_string() } }));
            mounts.push(json!({ "name": "agent", "mountPath": KIT_DIR, "readOnly": true }));
        }
        (volumes, mounts)
    }
}

/// Of each container.
fn security() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "privileged": false,
        "readOnlyRootFilesystem": true,
        "runAsNonRoot": true,
        "capabilities": { "drop": ["ALL"] },
    })
}

fn toleration(toleration: &super::Toleration) -> Value {
    let operator = if toleration.value.is_some() { "Equal" } else { "Exists" };
    let mut all = json!({ "operator": operator });
    for (name, value) in
        [("key", &toleration.key), ("value", &toleration.value), ("effect", &toleration.effect)]
    {
        if let Some(value) = value {
            all[name] = json!(value);
        }
    }
    all
}
