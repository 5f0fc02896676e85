//! Sandboxes as pods, through the real binary, against the cluster of the bridge's tests, whose pods are native sandboxes.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::backends::{kubernetes, node};
use super::cluster::{Cluster, Cut, Kit};
use crate::support::atoll::{Atoll, Options};

fn config(kubeconfig: &std::path::Path) -> String {
    format!("sandbox = {{ memory_mib = 192, disk_mib = 64, {} }}", kubernetes(kubeconfig).join(", "))
}

fn json_of(answer: &crate::support::client::Answer) -> Value {
    serde_json::from_str(&answer.text()).unwrap_or_else(|_| panic!("{}", answer.text()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_makes_the_sandboxes() {
    let state = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start(&node(state.path()), Kit::Sandboxes);
    let server = Atoll::start(Options { config: config(cluster.kubeconfig()), ..Options::default() }).await;
    let ready = json_of(&server.control("GET", "/readyz", None).await);
    assert_eq!(ready["sandboxes"], json!({ "backend": "kubernetes", "missing": [] }));

    let made = server.control("PUT", "/v1/sandboxes/ann", None).await;
    assert_eq!(made.status, 201, "{}\n{}", made.text(), server.log());
    assert_eq!(cluster.objects("sandboxes").len(), 1);
    let run = json!({ "command": "echo $((6 * 7)); i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done" });
    let done = server.control("POST", "/v1/sandboxes/ann/exec", Some(run)).await;
    assert_eq!((done.status, json_of(&done)["stdout"].as_str()), (200, Some("42\n")), "{}", done.text());
    let step =
        json!({ "language": "shell", "runtime": "auto", "user": "ann", "code": "cat /proc/self/status" });
    let step = json_of(&server.control("POST", "/v1/execute", Some(step)).await);
    assert!(step["process"]["stdout"].to_string().contains("NoNewPrivs:\\t1"), "{step}");

    // What a cluster refuses, its tenants read with a code.
    let forbidden = Cut::Refused(403, "User \"x\" cannot create resource \"sandboxes\"");
    cluster.weather().faults = [("POST sandboxes", (forbidden, 1))].into();
    let refused = server.control("PUT", "/v1/sandboxes/bob", None).await;
    assert_eq!((refused.status, json_of(&refused)["code"].as_str()), (502, Some("CLUSTER_FORBIDDEN")));

    assert_eq!(server.control("DELETE", "/v1/sandboxes/ann", None).await.status, 204);
    let begun = Instant::now();
    while !cluster.leftovers().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", cluster.leftovers());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_denial_of_the_network_the_server_says_so_and_makes_no_sandbox() {
    let state = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start(&node(state.path()), Kit::Plain);
    let forbidden = Cut::Refused(403, "cannot create resource \"networkpolicies\"");
    cluster.weather().faults = [("POST networkpolicies", (forbidden, u32::MAX))].into();
    let server = Atoll::start(Options { config: config(cluster.kubeconfig()), ..Options::default() }).await;
    let ready = json_of(&server.control("GET", "/readyz", None).await);
    assert_eq!(ready["sandboxes"], json!({ "backend": "kubernetes", "missing": ["network_policy"] }));
    let refused = server.control("PUT", "/v1/sandboxes/ann", None).await;
    assert_eq!((refused.status, json_of(&refused)["code"].as_str()), (502, Some("CLUSTER_FORBIDDEN")));
    assert!(cluster.objects("pods").is_empty());
    // As soon as it may deny it, it goes on: to the next refusal, here.
    cluster.weather().faults.clear();
    cluster.weather().quota = Some(0);
    let full = server.control("PUT", "/v1/sandboxes/bob", None).await;
    assert_eq!(
        (full.status, json_of(&full)["code"].as_str()),
        (503, Some("CLUSTER_QUOTA_EXCEEDED")),
        "{}",
        full.text()
    );
    let ready = json_of(&server.control("GET", "/readyz", None).await);
    assert_eq!(ready["sandboxes"]["missing"], json!([]));
}

#[test]
fn a_cluster_that_is_not_there_is_told_at_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("atoll.toml");
    let text = format!("listen = [\"127.0.0.1:0\"]\ndata_dir = {:?}\n", folder.path().join("data"));
    std::fs::write(&file, text + &config(&folder.path().join("none"))).expect("the folder is writable");
    let output = Command::new(env!("CARGO_BIN_EXE_atoll")).args(["serve", "--config"]).arg(&file).output();
    let output = output.expect("atoll runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("find the cluster") && said.contains("name a kubeconfig"), "{said}");
}
