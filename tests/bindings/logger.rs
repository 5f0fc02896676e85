//! The logger.

use serde_json::{Value, json};

use super::{deployed, get};
use crate::support::atoll::{Atoll, Options};

const WORKER: &str = r#"
export default {
  async fetch(request, { LOG }) {
    const words = async (f) => { try { await f(); return "no error"; } catch (e) { return `${e.name}: ${e.message} ${e.remote}`; } };
    const bad = [
      await words(() => LOG.fatal("x")), await words(() => LOG.info(1)), await words(() => LOG.info("x", [1])),
      await words(() => LOG.fetch("http://x/")), await words(() => LOG.info("x", { f() {} })),
    ];
    await LOG.info("paid", { amount: 12.5, ids: [1, "b"], nested: { a: null } });
    console.log("between");
    LOG.log({ level: "error", message: "whole", code: 7 });
    LOG.warn("nobody waits");
    return Response.json(bad);
  },
};"#;

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_structured_ordered_and_kept_although_nobody_waits() {
    let server = Atoll::start(Options::default()).await;
    deployed(&server, "logs", WORKER, json!({ "LOG": { "type": "logger" } })).await;
    let bad = get(&server, "logs", "/").await;
    let bad: Vec<&str> = bad.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    assert!(
        bad[0].starts_with("TypeError: The RPC receiver does not implement the method \"fatal\"."),
        "{bad:?}"
    );
    assert!(bad[1..].iter().all(|text| !text.contains("no error")), "{bad:?}");
    let logs = server.control("GET", "/v1/workers/logs/logs", None).await.json();
    let lines: Vec<Value> = logs["logs"].as_array().unwrap().clone();
    let said: Vec<(&str, &str, &Value)> = lines
        .iter()
        .map(|line| (line["level"].as_str().unwrap(), line["message"].as_str().unwrap(), &line["fields"]))
        .collect();
    let paid = json!({ "amount": 12.5, "ids": [1, "b"], "nested": { "a": null } });
    let wanted = [
        ("info", "paid", &paid),
        ("log", "between", &Value::Null),
        ("error", "whole", &json!({ "code": 7 })),
        ("warn", "nobody waits", &Value::Null),
    ];
    assert_eq!(said, wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_execution_gets_its_lines_back_and_a_flood_stays_within_its_budget() {
    let server = Atoll::start(Options::default()).await;
    let code = "export default async (n, { LOG }) => { for (let i = 0; i < n; i++) await LOG.info('x'.repeat(100), { i }); }";
    let body = |n: u32| json!({ "code": code, "input": n, "bindings": { "LOG": { "type": "logger" } }, "limits": { "logBytes": 1000 } });
    let few = server.execute(body(2)).await.json();
    assert_eq!((few["ok"].as_bool(), few["logs"][1]["fields"]["i"].as_u64()), (Some(true), Some(1)), "{few}");
    let flood = server.execute(body(40)).await.json();
    assert_eq!(flood["ok"], true, "{flood}");
    let bytes: usize =
        flood["logs"].as_array().unwrap().iter().map(|line| line["message"].as_str().unwrap().len()).sum();
    assert!(bytes <= 1000, "{bytes}");
}
