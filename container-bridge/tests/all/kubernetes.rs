//! What only a cluster has: its objects, gateways that share it, watches, admission, and connections that break.

use std::time::Duration;

use atoll_container_bridge::{
    backend::{Backend, Launched, SandboxId, SandboxSpec},
    error::{Code, SandboxError},
    init::relay::LISTEN_WARM,
    kubernetes::{Access, Kubernetes, KubernetesConfig, Toleration, Wall},
    limits::Limits,
    native::End,
    protocol::ExecSpec,
    sandbox::Sandbox,
};
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, Cut, Kit, NAMESPACE},
    support::{HANG, Kind, Place, block},
};

/// As the tests want pods; with this place's cluster.
pub(crate) fn config(place: &Place) -> KubernetesConfig {
    let command = vec!["/usr/local/bin/atoll".to_owned(), place.config.args[0].clone()];
    let state = place.config.state_dir.clone();
    let mut config = KubernetesConfig::own_program(NAMESPACE, "workload:1", command, state).unwrap();
    config.access = Access::File(place.kubeconfig().to_owned(), None);
    config.agent_image = Some("agent:1".to_owned());
    config.program = place.config.program.clone();
    config
}

fn cluster(place: &Place) -> &Cluster {
    place.cluster.as_ref().unwrap()
}

async fn gateway(place: &Place) -> Kubernetes {
    Kubernetes::connect(config(place)).await.unwrap()
}

async fn launch(backend: &Kubernetes, spec: &SandboxSpec) -> Result<Launched, SandboxError> {
    backend.launch(&SandboxId::random().unwrap(), spec).await
}

async fn says(launched: &Launched, word: &str) {
    let done = Sandbox::new(launched.link.clone()).run(ExecSpec::argv(["echo", word])).await.unwrap();
    assert_eq!(String::from_utf8(done.stdout).unwrap(), format!("{word}\n"));
}

fn the_pod_has_its_walls_and_labels(kind: Kind) {
    block(async {
        let place = Place::of(kind);
        let mut config = config(&place);
        config.runtime_class = Some("gvisor".to_owned());
        config.pull_secret = Some("registry".to_owned());
        config.node_selector = [("pool".to_owned(), "sandboxes".to_owned())].into();
        config.tolerations = vec![Toleration {
            key: Some("sandboxes".to_owned()),
            effect: Some("NoSchedule".to_owned()),
            value: None,
        }];
        let backend = Kubernetes::connect(config).await.unwrap();
        let owner = place.owner("acme", "ann@example.com");
        let spec = SandboxSpec { owner: Some(owner), ..SandboxSpec::default() };
        let launched = launch(&backend, &spec).await.unwrap();
        says(&launched, "hi").await;
        let pods = cluster(&place).objects("pods");
        let (pod, disk) = (&pods[0], (256u64 << 20) / 16 * 10);
        for (path, wanted) in [
            ("/spec/automountServiceAccountToken", json!(false)),
            ("/spec/enableServiceLinks", json!(false)),
            ("/spec/restartPolicy", json!("Never")),
            ("/spec/hostNetwork", json!(false)),
            ("/spec/hostPID", json!(false)),
            ("/spec/hostIPC", json!(false)),
            ("/spec/runtimeClassName", json!("gvisor")),
            ("/spec/nodeSelector/pool", json!("sandboxes")),
            (
                "/spec/tolerations",
                json!([{ "operator": "Exists", "key": "sandboxes", "effect": "NoSchedule" }]),
            ),
            ("/spec/imagePullSecrets", json!([{ "name": "registry" }])),
            ("/spec/activeDeadlineSeconds", json!(631)),
            ("/spec/securityContext/runAsNonRoot", json!(true)),
            ("/spec/securityContext/seccompProfile/type", json!("RuntimeDefault")),
            ("/spec/containers/0/imagePullPolicy", json!("IfNotPresent")),
            ("/spec/containers/0/securityContext/allowPrivilegeEscalation", json!(false)),
            ("/spec/containers/0/securityContext/privileged", json!(false)),
            ("/spec/containers/0/securityContext/readOnlyRootFilesystem", json!(true)),
            ("/spec/containers/0/securityContext/capabilities", json!({ "drop": ["ALL"] })),
            ("/spec/containers/0/resources/limits/cpu", json!("1000m")),
            ("/spec/containers/0/resources/limits/memory", json!((512u64 << 20).to_string())),
            ("/spec/containers/0/resources/limits/ephemeral-storage", json!((528u64 << 20).to_string())),
            ("/spec/volumes/0/emptyDir", json!({ "medium": "Memory", "sizeLimit": disk.to_string() })),
            ("/spec/containers/0/volumeMounts/0/mountPath", json!("/workspace")),
            ("/metadata/labels/app.kubernetes.io~1name", json!("atoll-sandbox")),
        ] {
            assert_eq!(pod.pointer(path).unwrap_or(&Value::Null), &wanted, "{path}");
        }
        assert_eq!(pod["spec"]["containers"].as_array().unwrap().len(), 1);
        assert_eq!(
            pod["spec"]["containers"][0]["resources"]["requests"],
            pod["spec"]["containers"][0]["resources"]["limits"]
        );
        assert!(pod["spec"]["securityContext"]["runAsUser"].as_u64().unwrap() >= 1_000_000);
        let labels = pod["metadata"]["labels"].as_object().unwrap();
        for label in ["atoll.owner", "atoll.tenant", "atoll.user"] {
            assert_eq!(labels[label].as_str().unwrap().len(), 32, "a hash: {label}");
        }
        let everything = serde_json::to_string(&cluster(&place).objects("pods")).unwrap();
        assert!(
            !everything.contains("acme") && !everything.contains("example.com"),
            "names of people are told"
        );
        let sandboxes = cluster(&place).objects("sandboxes");
        assert_eq!(sandboxes.len(), usize::from(kind == Kind::AgentSandbox));
        for sandbox in sandboxes {
            assert_eq!(sandbox["spec"]["shutdownPolicy"], "Delete");
            assert!(sandbox["spec"]["shutdownTime"].is_string());
        }
        assert_eq!(launched.instance.stop().await.unwrap(), End::HostGone);
        place.assert_clean();
    });
}

fn gateways_share_a_cluster(kind: Kind) {
    block(async {
        let (place, elsewhere) = (Place::of(kind), tempfile::tempdir().unwrap());
        let ours = gateway(&place).await;
        let other = KubernetesConfig { state_dir: elsewhere.path().to_owned(), ..config(&place) };
        let theirs = Kubernetes::connect(other).await.unwrap();
        let spec = SandboxSpec { owner: Some(place.owner("a", "ann")), ..SandboxSpec::default() };
        let first = launch(&ours, &spec).await.unwrap();
        let error = launch(&theirs, &spec).await.err().unwrap();
        assert_eq!(error.code, Code::SandboxUnavailable, "{error}");
        assert_eq!((theirs.reap().await.unwrap(), ours.reap().await.unwrap()), (0, 0));
        says(&first, "alive").await;
        // A second gateway in the same directory is another one.
        let beside = gateway(&place).await;
        assert_eq!(beside.reap().await.unwrap(), 0);
        says(&first, "alive").await;
        // Dropped rather than stopped: the next one waits until the name is free.
        drop(first);
        launch(&ours, &spec).await.unwrap().instance.stop().await.unwrap();
        launch(&theirs, &spec).await.unwrap().instance.stop().await.unwrap();
        place.assert_clean();
    });
}

/// Objects as gateways leave that died at some point, and as living ones have them.
fn a_reaper_removes_what_nobody_needs(kind: Kind) {
    block(async {
        let place = Place::of(kind);
        let backend = gateway(&place).await;
        let living = launch(&backend, &SandboxSpec::default()).await.unwrap();
        let object = |name: &str, starts_by: u64, expires: u64, phase: &str| {
            json!({ "metadata": { "name": name, "uid": name,
                "labels": { "app.kubernetes.io/name": "atoll-sandbox", "atoll.sandbox": name,
                            "atoll.instance": "another", "atoll.incarnation": "other" },
                "annotations": { "atoll.starts-by": starts_by.to_string(), "atoll.expires": expires.to_string() } },
                "spec": { "containers": [] }, "status": { "phase": phase } })
        };
        let far = u64::from(u32::MAX);
        let rows = [
            ("over", far, far, "Succeeded", false),
            ("failed", far, far, "Failed", false),
            ("never-started", 1, far, "Pending", false),
            ("expired", 1, 2, "Running", false),
            ("starting", far, far, "Pending", true),
            ("running", 1, far, "Running", true),
        ];
        for (name, starts_by, expires, phase, _) in rows {
            cluster(&place).apply("pods", object(name, starts_by, expires, phase));
        }
        // Somebody else's pods have none of the labels.
        cluster(&place).apply(
            "pods",
            json!({ "metadata": { "name": "theirs", "uid": "t" }, "status": { "phase": "Failed" } }),
        );
        assert_eq!(backend.reap().await.unwrap(), 4);
        let left: Vec<String> =
            cluster(&place).objects("pods").iter().map(|pod| pod["metadata"]["name"].to_string()).collect();
        for (name, .., there) in rows {
            assert_eq!(left.contains(&format!("\"{name}\"")), there, "{name}: {left:?}");
        }
        assert!(left.contains(&"\"theirs\"".to_owned()));
        says(&living, "alive").await;
        living.instance.stop().await.unwrap();
    });
}

/// A connection that breaks in each phase: what can be repeated is, and whatever comes of it leaves nothing.
fn connections_break_in_each_phase(kind: Kind) {
    block(async {
        let place = Place::of(kind);
        let backend = gateway(&place).await;
        let words: &[[&'static str; 2]] = &[
            ["POST pods", "POST sandboxes"],
            ["LIST pods", "LIST pods"],
            ["WATCH pods", "WATCH pods"],
            ["EXEC pods", "EXEC pods"],
            ["DELETE pods", "DELETE sandboxes"],
            ["GET pods", "GET sandboxes"],
        ];
        let of_kind = |pair: &[&'static str; 2]| pair[usize::from(kind == Kind::AgentSandbox)];
        for (word, cut, times) in words.iter().map(of_kind).flat_map(|word| {
            [
                (word, Cut::Before, 2),
                (word, Cut::After, 1),
                (word, Cut::Amid, 1),
                (word, Cut::Refused(503, "busy"), 1),
            ]
        }) {
            cluster(&place).weather().faults = [(word, (cut.clone(), times))].into();
            // No node takes the pod at once, so that there is something to watch for.
            cluster(&place).weather().full = true;
            let room = async {
                tokio::time::sleep(Duration::from_millis(200)).await;
                cluster(&place).weather().full = false;
            };
            let spec = SandboxSpec::default();
            let (launched, ()) = tokio::join!(launch(&backend, &spec), room);
            // The init takes one connection: one that it had and lost is the sandbox's end.
            let lost = word == "EXEC pods" && !matches!(cut, Cut::Before | Cut::Refused(..));
            match launched {
                Ok(launched) => {
                    assert!(!lost, "{word} {cut:?}");
                    says(&launched, "on").await;
                    launched.instance.stop().await.unwrap();
                }
                Err(error) => {
                    assert!(lost, "{word} {cut:?}: {error}");
                    assert!(
                        matches!(error.code, Code::BackendFailed | Code::SandboxUnavailable),
                        "{word} {cut:?}: {error}"
                    );
                }
            }
            let (_, left) = cluster(&place).weather().faults[word];
            assert!(left < times, "{word}: never asked");
            cluster(&place).weather().faults.clear();
            place.assert_clean();
        }
    });
}

#[test]
fn refusals_are_told_with_what_to_do() {
    block(async {
        for kind in [Kind::Kubernetes, Kind::AgentSandbox] {
            let place = Place::of(kind);
            let quick = KubernetesConfig { start_max: Duration::from_secs(2), ..config(&place) };
            let backend = Kubernetes::connect(quick).await.unwrap();
            let refused = async |code: Code, word: &str| {
                let error = launch(&backend, &SandboxSpec::default()).await.err().expect(word);
                assert_eq!(error.code, code, "{error}");
                assert!(error.message.contains(word), "{error}");
                cluster(&place).weather().faults.clear();
                place.assert_clean();
            };
            let create = if kind == Kind::Kubernetes { "POST pods" } else { "POST sandboxes" };
            let forbidden =
                Cut::Refused(403, "is forbidden: User \"system:serviceaccount:a:b\" cannot create resource");
            cluster(&place).weather().faults = [(create, (forbidden, 1))].into();
            refused(Code::ClusterForbidden, "role").await;
            let strict = Cut::Refused(403, "violates PodSecurity \"restricted:latest\"");
            cluster(&place).weather().faults = [(create, (strict, 1))].into();
            refused(Code::ClusterForbidden, "pod security").await;
            let exec = Cut::Refused(403, "pods \"x\" is forbidden: cannot create resource \"pods/exec\"");
            cluster(&place).weather().faults = [("EXEC pods", (exec, 1))].into();
            refused(Code::ClusterForbidden, "pods/exec").await;
            cluster(&place).weather().quota = Some(0);
            refused(Code::ClusterQuotaExceeded, "ResourceQuota").await;
            cluster(&place).weather().quota = None;
            cluster(&place).weather().full = true;
            refused(Code::Unschedulable, "Insufficient memory").await;
            cluster(&place).weather().full = false;
            cluster(&place).weather().no_image = true;
            refused(Code::BackendFailed, "can the nodes get the image").await;
            cluster(&place).weather().no_image = false;
            // And when the cluster has room again, all is well.
            launch(&backend, &SandboxSpec::default()).await.unwrap().instance.stop().await.unwrap();
            place.assert_clean();
        }
    });
}

#[test]
fn a_cluster_that_cannot_be_used_is_told_at_once() {
    block(async {
        let place = Place::of(Kind::Kubernetes);
        let dir = tempfile::tempdir().unwrap();
        let refused = async |config: KubernetesConfig, code: Code, word: &str| {
            let error = match Kubernetes::connect(config).await {
                Ok(backend) => backend.reap().await.expect_err(word),
                Err(error) => error,
            };
            assert_eq!(error.code, code, "{error}");
            assert!(error.message.contains(word), "{error}");
        };
        let file = |path: &std::path::Path| KubernetesConfig {
            access: Access::File(path.to_owned(), None),
            ..config(&place)
        };
        refused(file(&dir.path().join("none")), Code::InvalidArgument, "find the cluster").await;
        std::fs::write(dir.path().join("bad"), "{").unwrap();
        refused(file(&dir.path().join("bad")), Code::InvalidArgument, "find the cluster").await;
        refused(file(&cluster(&place).kubeconfig_of_a_stranger()), Code::ClusterForbidden, "credentials")
            .await;
        // Another cluster under that name: its certificate is not the one that is trusted.
        let other = Place::of(Kind::Kubernetes);
        let text = std::fs::read_to_string(other.kubeconfig()).unwrap();
        let (own, theirs) =
            (place.kubeconfig().with_file_name("ca.pem"), other.kubeconfig().with_file_name("ca.pem"));
        std::fs::write(
            dir.path().join("mixed"),
            text.replace(theirs.to_str().unwrap(), own.to_str().unwrap()),
        )
        .unwrap();
        refused(file(&dir.path().join("mixed")), Code::SandboxUnavailable, "certificate").await;
        std::fs::write(dir.path().join("nobody"), text.replace("https://127.0.0.1:", "https://127.0.0.1:1#"))
            .unwrap();
        refused(file(&dir.path().join("nobody")), Code::SandboxUnavailable, "").await;
        let context = Access::File(place.kubeconfig().to_owned(), Some("none".to_owned()));
        refused(KubernetesConfig { access: context, ..config(&place) }, Code::InvalidArgument, "context")
            .await;
        for namespace in ["", "A", "a/b", &"x".repeat(64)] {
            let bad = KubernetesConfig { namespace: namespace.to_owned(), ..config(&place) };
            refused(bad, Code::InvalidArgument, "namespace").await;
        }
        refused(KubernetesConfig { image: String::new(), ..config(&place) }, Code::InvalidArgument, "image")
            .await;
        let pool = KubernetesConfig { warm_pool: Some("p".to_owned()), ..config(&place) };
        refused(pool, Code::Unsupported, "warm pool").await;
        cluster(&place).weather().faults =
            [("LIST pods", (Cut::Refused(403, "cannot list resource"), 1))].into();
        refused(config(&place), Code::ClusterForbidden, "role").await;
        // A namespace that is not there shows when something is to be made in it.
        let nowhere =
            KubernetesConfig { namespace: "nowhere".to_owned(), wall: Wall::External, ..config(&place) };
        let error = launch(&Kubernetes::connect(nowhere).await.unwrap(), &SandboxSpec::default())
            .await
            .err()
            .unwrap();
        assert_eq!(error.code, Code::InvalidArgument, "{error}");
        place.assert_clean();
    });
}

#[test]
fn without_the_denial_of_the_network_nothing_starts() {
    block(async {
        let place = Place::of(Kind::Kubernetes);
        let forbidden = Cut::Refused(403, "cannot create resource \"networkpolicies\"");
        cluster(&place).weather().faults = [("POST networkpolicies", (forbidden, u32::MAX))].into();
        let backend = gateway(&place).await;
        assert_eq!(backend.missing(), ["network_policy"]);
        let error = launch(&backend, &SandboxSpec::default()).await.err().unwrap();
        assert_eq!(error.code, Code::ClusterForbidden, "{error}");
        assert!(cluster(&place).objects("pods").is_empty());
        // As soon as it may, without a restart.
        cluster(&place).weather().faults.clear();
        launch(&backend, &SandboxSpec::default()).await.unwrap().instance.stop().await.unwrap();
        assert_eq!(backend.missing(), Vec::<&str>::new());
        let policy = &cluster(&place).objects("networkpolicies")[0]["spec"];
        assert_eq!(policy["policyTypes"], json!(["Ingress", "Egress"]));
        assert!(policy["egress"].is_null() && policy["ingress"].is_null());
        // Somebody opens it for all pods of the namespace: seen by the next look.
        let opening = json!({ "metadata": { "name": "dns", "uid": "d" }, "spec": { "podSelector": {}, "egress": [{}] } });
        cluster(&place).apply("networkpolicies", opening);
        backend.reap().await.unwrap();
        assert_eq!(backend.missing(), ["network_policy"]);
        let error = launch(&backend, &SandboxSpec::default()).await.err().unwrap();
        assert!(error.message.contains("dns"), "{error}");
        // Who vouches for it by other means is not asked.
        let external = KubernetesConfig { wall: Wall::External, ..config(&place) };
        let backend = Kubernetes::connect(external).await.unwrap();
        launch(&backend, &SandboxSpec::default()).await.unwrap().instance.stop().await.unwrap();
        place.assert_clean();
    });
}

#[test]
fn nothing_is_let_into_a_pod_without_its_walls() {
    block(async {
        let place = Place::of(Kind::Kubernetes);
        let backend = gateway(&place).await;
        for (mutation, word) in [
            (json!({ "hostNetwork": true }), "hostNetwork"),
            (json!({ "automountServiceAccountToken": null }), "automountServiceAccountToken"),
            (json!({ "securityContext": { "runAsNonRoot": null } , "initContainers": null }), ""),
            (json!({ "restartPolicy": "Always" }), "restartPolicy"),
            (json!({ "securityContext": { "seccompProfile": null } }), "seccompProfile"),
        ] {
            cluster(&place).weather().mutation = Some(mutation);
            let launched = launch(&backend, &SandboxSpec::default()).await;
            if word.is_empty() {
                // The containers say it themselves: that wall stands.
                launched.unwrap().instance.stop().await.unwrap();
            } else {
                let error = launched.err().expect(word);
                assert_eq!(error.code, Code::BackendFailed, "{error}");
                assert!(error.message.contains(word), "{error}");
            }
            place.assert_clean();
        }
        let asked = |log: &[String]| log.iter().filter(|word| *word == "EXEC pods").count();
        assert_eq!(asked(&cluster(&place).weather().log), 1);
    });
}

#[test]
fn versions_that_are_gone_are_listed_anew() {
    block(async {
        let place = Place::of(Kind::Kubernetes);
        let backend = gateway(&place).await;
        cluster(&place).weather().full = true;
        let compacting = async {
            for round in 0.. {
                cluster(&place).compact();
                cluster(&place).weather().full = round < 40;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let spec = SandboxSpec::default();
        let launched = tokio::select! {
            launched = launch(&backend, &spec) => launched.unwrap(),
            () = compacting => unreachable!("it never ends"),
        };
        says(&launched, "on").await;
        launched.instance.stop().await.unwrap();
        place.assert_clean();
    });
}

#[test]
fn the_older_exec_protocol_carries_as_much() {
    block(async {
        let place = Place::of(Kind::Kubernetes);
        cluster(&place).weather().old_exec = true;
        let sandbox = place.start().await;
        let bytes: Vec<u8> = (0..3_000_000u32).map(|index| (index % 251) as u8).collect();
        sandbox.write("big", &bytes).await.unwrap();
        assert_eq!(sandbox.read("big", 4_000_000).await.unwrap(), bytes);
        assert_eq!(sandbox.out("wc -c < big").await, "3000000\n");
        sandbox.stop().await;
    });
}

#[test]
fn a_claimed_pod_of_a_warm_pool() {
    block(async {
        let place = Place::of(Kind::AgentSandbox);
        let claims = Cluster::start(&place.config, Kit::Claims);
        let wall = json!({ "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] } });
        let bounds = json!({ "cpu": "1000m", "memory": (512u64 << 20).to_string() });
        let spec = json!({
            "automountServiceAccountToken": false, "restartPolicy": "Never",
            "securityContext": { "runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": { "type": "RuntimeDefault" } },
            "containers": [{ "name": "sandbox", "image": "workload:1", "command": ["/usr/local/bin/atoll", LISTEN_WARM],
                             "securityContext": wall, "resources": { "limits": bounds } }],
            "volumes": [{ "name": "w", "emptyDir": { "medium": "Memory", "sizeLimit": (256u64 << 20).to_string() } }],
        });
        let pool = claims.pool("warm", 2, &spec);
        while pool.free() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let config = KubernetesConfig {
            access: Access::File(claims.kubeconfig().to_owned(), None),
            warm_pool: Some("warm".to_owned()),
            agent_image: None,
            ..config(&place)
        };
        let backend = Kubernetes::connect(config.clone()).await.unwrap();
        let launched = launch(&backend, &SandboxSpec::default()).await.unwrap();
        assert_eq!((pool.free(), claims.objects("sandboxclaims").len()), (1, 1));
        let claim = &claims.objects("sandboxclaims")[0]["spec"];
        assert_eq!(
            (&claim["warmPoolRef"]["name"], &claim["lifecycle"]["shutdownPolicy"]),
            (&json!("warm"), &json!("Delete"))
        );
        says(&launched, "warm").await;
        launched.instance.stop().await.unwrap();
        assert!(claims.leftovers().is_empty(), "{:?}", claims.leftovers());
        // A pool whose template lacks a wall: nothing is let into its pods.
        let mut open = spec.clone();
        open["hostNetwork"] = json!(true);
        let pool = claims.pool("open", 1, &open);
        while pool.free() < 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let open = KubernetesConfig { warm_pool: Some("open".to_owned()), ..config };
        let backend = Kubernetes::connect(open).await.unwrap();
        let error = launch(&backend, &SandboxSpec::default()).await.err().unwrap();
        assert!(error.message.contains("hostNetwork"), "{error}");
        assert!(claims.leftovers().is_empty(), "{:?}", claims.leftovers());
        drop(claims);
        place.assert_clean();
    });
}

fn a_dropped_launch_leaves_nothing(kind: Kind) {
    block(async {
        let place = Place::of(kind);
        let backend = gateway(&place).await;
        for wait_ms in [0, 3, 8, 15, 25, 40, 80] {
            let (id, spec) = (SandboxId::random().unwrap(), SandboxSpec::default());
            let launching = backend.launch(&id, &spec);
            drop(tokio::time::timeout(Duration::from_millis(wait_ms), launching).await);
            // It may still be under way: what counts is that it goes away.
            tokio::time::sleep(Duration::from_millis(300)).await;
            place.assert_clean();
        }
    });
}

fn a_pod_that_somebody_deletes_is_a_lost_sandbox(kind: Kind) {
    block(async {
        let place = Place::of(kind);
        let backend = gateway(&place).await;
        let limits = Limits { lifetime_ms: 120_000, ..Limits::default() };
        let launched = launch(&backend, &SandboxSpec { limits, ..SandboxSpec::default() }).await.unwrap();
        let client = kube::Client::try_from(
            kube::Config::from_custom_kubeconfig(
                kube::config::Kubeconfig::read_from(place.kubeconfig()).unwrap(),
                &kube::config::KubeConfigOptions::default(),
            )
            .await
            .unwrap(),
        )
        .unwrap();
        let pods = kube::Api::<k8s_openapi::api::core::v1::Pod>::namespaced(client, NAMESPACE);
        let name = cluster(&place).objects("pods")[0]["metadata"]["name"].as_str().unwrap().to_owned();
        pods.delete(&name, &kube::api::DeleteParams::default()).await.unwrap();
        tokio::time::timeout(HANG, launched.link.closed()).await.unwrap();
        // Also without anybody who asks for its end, and though a controller would make another one.
        place.assert_clean();
        launched.instance.stop().await.unwrap();
        place.assert_clean();
    });
}

crate::support::for_each_cluster! {
    the_pod_has_its_walls_and_labels,
    gateways_share_a_cluster,
    a_reaper_removes_what_nobody_needs,
    connections_break_in_each_phase,
    a_dropped_launch_leaves_nothing,
    a_pod_that_somebody_deletes_is_a_lost_sandbox,
}
