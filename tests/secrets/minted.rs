//! What the audit log says about tokens that workers make.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::World;
use super::identity::verified;
use crate::support::atoll::{TENANT, deployment, host_name};
use crate::support::worker::{Request, Worker};

/// Each token that a worker makes is on record: whose, for whom, for how long and by which id it ends; never itself.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_workers_make_are_on_record() {
    let world = World::new("").await;
    let source = "export default { async fetch(r, env) {\
                    const out = [];\
                    for (const wish of await r.json()) out.push(await env.ME.token(wish).catch((e) => e.message));\
                    return Response.json(out);\
                  } }";
    let mut body = deployment(&Worker::single("who", source));
    body["bindings"] =
        json!({ "ME": { "type": "identity", "audiences": ["https://a.example", "https://b.example"] } });
    let deployed = world.server.control("PUT", "/v1/workers/who", Some(body)).await;
    assert!(deployed.status < 300, "{}", deployed.text());
    let wishes = json!([
        { "audience": "https://a.example" },
        { "audience": "https://b.example", "expiresInSeconds": 7 },
        { "audience": "https://of-a-guest.example/text" },
        { "nonsense": true },
    ]);
    let made = world.server.send("who", &Request::new("POST", "/").body(wishes.to_string())).await.json();
    let token = |at: usize| made[at].as_str().expect("text").to_owned();
    let mut claims = Vec::new();
    for (at, audience) in ["https://a.example", "https://b.example"].into_iter().enumerate() {
        claims.push(verified(&world, &token(at), audience).await.expect("valid"));
    }
    let page = world.server.control("GET", "/v1/audit?worker=who&kind=crossing", None).await.json();
    let told = page["records"].as_array().expect("records");
    let part = |record: &Value| ["capability", "outcome", "origin", "minted"].map(|key| record[key].clone());
    let minted = |at: usize, seconds: u64| json!({ "id": claims[at]["jti"], "seconds": seconds });
    // What makes no sense is no use; and whom a guest asked for in vain is its own text.
    let expected = [
        [json!("identity"), json!("answered"), json!("https://a.example"), minted(0, 60)],
        [json!("identity"), json!("answered"), json!("https://b.example"), minted(1, 7)],
        [json!("identity"), json!("egress_origin"), json!(""), Value::Null],
    ];
    assert_eq!(told.iter().map(part).collect::<Vec<_>>(), expected, "{page}");
    let execution = world.server.control("GET", "/v1/audit?worker=who&kind=execution", None).await.json();
    for record in told {
        assert_eq!((&record["tenant"], &record["worker"]), (&json!("acme"), &json!("who")), "{record}");
        assert_eq!(record["execution"], claims[0]["inv"], "{record}");
        assert_eq!(record["execution"], execution["records"][0]["id"], "{record}");
    }
    // Neither a token nor its signature alone, in the log's files either.
    let files = std::fs::read_dir(world.server.data().join("audit")).expect("a log");
    let files = files.map(|file| std::fs::read_to_string(file.expect("an entry").path()).expect("text"));
    let all = page.to_string() + &files.collect::<String>();
    assert!(all.contains(claims[0]["jti"].as_str().expect("an id")));
    for secret in
        (0..2).map(token).flat_map(|token| token.split('.').skip(1).map(str::to_owned).collect::<Vec<_>>())
    {
        assert!(!all.contains(&secret), "{all}");
    }
    assert!(!all.contains("of-a-guest"), "{all}");
}

/// A token that could not be told is not made, also by what runs already.
#[tokio::test(flavor = "multi_thread")]
async fn without_room_for_its_record_no_token_is_made() {
    /// Tries until the log is full, or takes records again.
    const ROUNDS_MAX: usize = 600;
    let world = World::new("[audit]\nfile_bytes_max = 4096").await;
    let source = "export default { async fetch(r, env) {\
                    await r.text();\
                    return new Response(await env.ME.token({ audience: 'https://a.example' }).catch((e) => e.message));\
                  } }";
    let mut body = deployment(&Worker::single("late", source));
    body["bindings"] = json!({ "ME": { "type": "identity", "audiences": ["https://a.example"] } });
    let deployed = world.server.control("PUT", "/v1/workers/late", Some(body)).await;
    assert!(deployed.status < 300, "{}", deployed.text());
    // The next file cannot be made: as good as a full disk.
    let blocked = world.server.data().join("audit/audit-00000002.jsonl");
    std::fs::write(&blocked, "").expect("the folder is writable");
    let mut connection = TcpStream::connect(world.server.address()).await.expect("the server listens");
    let host = host_name(TENANT, "late");
    let head =
        format!("POST / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: 4\r\n\r\nwai");
    connection.write_all(head.as_bytes()).await.expect("the server reads");
    let mut statuses = Vec::new();
    while statuses.last() != Some(&503) && statuses.len() < ROUNDS_MAX {
        statuses.push(world.server.execute(json!({ "code": "return 1" })).await.status);
    }
    assert_eq!(statuses.last(), Some(&503), "a full log stops everything");
    connection.write_all(b"t").await.expect("the server reads");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("(egress_audit)"), "{answer}");
    assert!(!answer.contains("eyJ"), "no token: {answer}");
    // That it was tried is counted, and told when there is room again.
    std::fs::remove_file(&blocked).expect("removed");
    let mut page = json!(null);
    for _ in 0..ROUNDS_MAX {
        page = world.server.control("GET", "/v1/audit?kind=counted&limit=1000", None).await.json();
        let records = page["records"].as_array().cloned().unwrap_or_default();
        let tried = |r: &&Value| r["capability"] == "identity" && r["outcome"] == "egress_audit";
        if let Some(record) = records.iter().find(tried) {
            assert_eq!((&record["worker"], &record["count"]), (&json!("late"), &json!(1)), "{record}");
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("{page}");
}
