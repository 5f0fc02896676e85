//! Bills of users, and what the audit log says of sandboxes, over restarts and kills.

use std::time::Duration;

use serde_json::{Value, json};

use super::Server;
use super::backends::{Place, on_each_backend};

/// Longer than what a kill may lose.
const WRITTEN: Duration = Duration::from_secs(8);
/// Takes about a fifth of a second of CPU time.
const BUSY: &str = "python3 -c 'import time\nwhile time.process_time() < 0.2: pass'";

impl Server {
    async fn bill(&self, user: &str) -> Value {
        let answer = self.control("GET", &format!("/v1/sandboxes/{user}/usage"), None).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    async fn records(&self, query: &str) -> Vec<Value> {
        let page = self.control("GET", &format!("/v1/audit?limit=1000&{query}"), None).await.json();
        page["records"].as_array().unwrap_or_else(|| panic!("{page}")).clone()
    }
}

fn cpu_us(bill: &Value) -> u64 {
    bill["total"]["cpuUs"].as_u64().unwrap_or_else(|| panic!("{bill}"))
}

async fn bills_of_users_survive_restarts_and_kills(place: Place) {
    let Some(mut server) = place.plain().await else { return };
    server.out("ann", BUSY).await;
    server.out("bob", "true").await;
    let first = cpu_us(&server.bill("ann").await);
    assert!(first >= 200_000, "{first}");
    server.restart().await;
    let bill = server.bill("ann").await;
    assert!(bill["sandbox"].is_null() && cpu_us(&bill) >= first, "{bill}");
    let first = cpu_us(&bill);
    // What was alive when the gateway was killed is on the bill up to a few seconds before.
    server.out("ann", BUSY).await;
    tokio::time::sleep(WRITTEN).await;
    let second = cpu_us(&server.bill("ann").await);
    assert!(second >= first + 200_000, "{first} {second}");
    server.kill_and_restart().await;
    let third = cpu_us(&server.bill("ann").await);
    assert!(third >= first + 200_000 && third <= second + 100_000, "{first} {second} {third}");
    // And it is there once.
    server.kill_and_restart().await;
    assert_eq!(cpu_us(&server.bill("ann").await), third);
    assert!(cpu_us(&server.bill("bob").await) > 0);
    assert_eq!(cpu_us(&server.bill("nobody").await), 0);
    server.finish();
}

async fn every_hop_is_told_with_both_sides_and_what_it_took(place: Place) {
    let Some(mut server) = place.plain().await else { return };
    server.out("ann", "echo hello").await;
    let id = server.control("GET", "/v1/sandboxes/ann", None).await.json()["id"].clone();
    let step = json!({ "language": "shell", "runtime": "auto", "user": "ann", "code": "echo step" });
    let step = server.execute(step).await.json();
    assert_eq!(step["process"]["stdout"], "step\n", "{step}");
    assert_eq!(server.control("DELETE", "/v1/sandboxes/ann", None).await.status, 204);
    // A client's hop: by which token, into which sandbox of whom.
    let crossings = server.records("kind=crossing").await;
    let exec = crossings.iter().find(|record| record["capability"] == "sandbox/exec");
    let exec = exec.unwrap_or_else(|| panic!("{crossings:?}"));
    assert_eq!((&exec["user"], &exec["sandbox"]), (&json!("ann"), &id), "{exec}");
    assert!(exec["token"].as_str().is_some_and(|token| token.len() == 16), "{exec}");
    // A step: which execution, into which sandbox of whom, and what it took.
    let executions = server.records("kind=execution").await;
    let run = executions.iter().find(|record| record["id"] == step["id"]);
    let run = run.unwrap_or_else(|| panic!("{executions:?}"));
    assert_eq!((&run["user"], &run["sandbox"], &run["token"]), (&json!("ann"), &id, &exec["token"]), "{run}");
    for field in ["cpuUs", "wallUs", "memoryByteSeconds", "bytesIn", "bytesOut"] {
        assert!(run[field].as_u64() > Some(0), "{field}: {run}");
    }
    // The life: its beginning, its end, and all that it used.
    let lives = server.records("kind=sandbox").await;
    let of_ann: Vec<&Value> = lives.iter().filter(|record| record["sandbox"] == id).collect();
    let outcomes: Vec<&Value> = of_ann.iter().map(|record| &record["outcome"]).collect();
    assert_eq!(outcomes, [&json!("started"), &json!("destroyed")], "{of_ann:?}");
    let end = of_ann[1];
    assert!(end["cpuUs"].as_u64() > Some(0) && end["uses"].as_u64() >= Some(2), "{end}");
    assert_eq!(end["user"], "ann");
    // It is all there after a restart, and the chain holds.
    server.restart().await;
    assert_eq!(
        server.records("kind=sandbox").await.iter().filter(|record| record["sandbox"] == id).count(),
        2
    );
    server.finish();
}

on_each_backend!(
    bills_of_users_survive_restarts_and_kills,
    every_hop_is_told_with_both_sides_and_what_it_took,
);
