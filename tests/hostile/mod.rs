//! The hostile table against a real server. After every attack: the gateway lives, the neighbour is served, the
//! outcome has one of the row's stable codes, and what was used is in the answer.
//!
//! `ATOLL_TEST_ROW=21` runs the rows whose number is `21` (or `21a`, …).

mod aftermath;
mod calls;
mod control;
mod crowd;
mod egress;
mod http2;
mod late;
mod modules;
mod realm;
mod rows;
mod rpc;
mod vault;
mod watch;

use serde_json::{Value, json};

use crate::support::atoll::{Atoll, NEIGHBOUR, NEIGHBOUR_TOKEN, Options, TENANT};
use crate::support::client::Answer;
use crate::support::worker::{Request, Worker};
use crate::vault::Vault;
use rows::Row;
use watch::Watch;

/// Small, so that every attack ends soon.
fn limits() -> Value {
    json!({ "cpuMs": 300, "wallMs": 3_000, "heapMib": 64, "externalMib": 32 })
}

/// Fields of `usage` that every execution must report.
const USAGE: &[&str] = &["cpuUs", "wallUs", "isolateWaitUs", "heapBytesPeak", "subRequests"];
/// Most bytes of console output an answer may carry, above the limit of the invocation: for the JSON around it.
const LOG_ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The stage of the table: a tenant that ends host after host for the sake of the test is not to be suspended for it.
const PATIENT: &str = "[blame]\nquarantine_after = 1000\nsuspend_after = 2000\n";
/// Most requests that the neighbour may be asked to repeat (503 with `retry-after`) while a lost host is replaced.
const NEIGHBOUR_RETRIES_MAX: usize = 50;

#[tokio::test(flavor = "multi_thread")]
async fn every_attack_in_code_mode_ends_as_the_table_says() {
    let mut stage = Stage::open().await;
    let rows = rows::TABLES.iter().copied().flatten().chain(vault::ROWS);
    for row in rows.filter(|row| selected(row.id)) {
        stage.begin();
        let answer = stage.atoll.execute(json!({ "code": row.code, "limits": limits() })).await;
        stage.judge_execution(row.id, row.name, row.allowed, &answer).await;
    }
    for bundle in modules::bundles().into_iter().filter(|bundle| selected(bundle.id)) {
        let body = json!({ "mainModule": "main.js", "modules": bundle.modules, "limits": limits() });
        stage.begin();
        let answer = stage.atoll.execute(body).await;
        stage.judge_execution(bundle.id, bundle.name, bundle.allowed, &answer).await;
    }
    Vault::look(&stage.atoll).await;
    stage.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_attack_from_a_deployed_worker_ends_as_the_table_says() {
    let mut stage = Stage::open().await;
    let rows = rows::TABLES.iter().copied().flatten();
    for row in rows.filter(|row| row.deployed && selected(row.id)) {
        let name = format!("attacker-{}", row.id);
        stage.atoll.deploy(&Worker::single(&name, &as_worker(row))).await;
        stage.begin();
        let answer = stage.atoll.send(&name, &Request::new("GET", "/")).await;
        stage.judge_deployed(row, &answer).await;
    }
    Vault::look(&stage.atoll).await;
    stage.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_bundles_are_refused_before_an_isolate_exists() {
    let mut stage = Stage::open().await;
    for row in modules::refused().into_iter().filter(|row| selected(row.id)) {
        let request = Request::new("PUT", "/v1/workers/refused")
            .header("authorization", &format!("Bearer {}", crate::support::atoll::TOKEN))
            .header("content-type", "application/json")
            .body(row.body);
        let answer = crate::support::client::send(stage.atoll.address(), "localhost", &request).await;
        match answer {
            Ok(answer) if (400..500).contains(&answer.status) => {
                stage.require(row.id, row.name, problem_code(&answer).is_some(), "the problem has no code");
            }
            Ok(answer) => {
                let text = format!("{} {}", answer.status, cut(&answer.text()));
                stage.fail(row.id, row.name, &format!("was not refused: {text}"));
            }
            // A body beyond the listener's bound may be answered and cut before it was sent.
            Err(_) if row.id == "48b" => {}
            Err(error) => stage.fail(row.id, row.name, &format!("no answer: {error}")),
        }
        stage.check_others(row.id, row.name, false).await;
    }
    let listed = stage.atoll.control("GET", "/v1/workers/refused", None).await;
    stage.require("48", "refused deployments", listed.status == 404, "one was stored");
    stage.close();
}

/// A server with an attacker and a neighbour, and what went wrong so far.
pub(crate) struct Stage {
    pub(crate) atoll: Atoll,
    failures: Vec<String>,
    rows: usize,
    watch: Watch,
    vault: Vault,
}

impl Stage {
    pub(crate) async fn open() -> Self {
        Self::open_with(Options { config: PATIENT.into(), ..Options::default() }).await
    }

    pub(crate) async fn open_with(options: Options) -> Self {
        let (atoll, vault) = Vault::start(options).await;
        let pong = "export default { fetch: (request, env) => new URL(request.url).pathname === '/vault' ?\
                    env.VAULT.fetch(`${env.VAULT_URL}/echo`) : new Response('pong') }";
        atoll.deploy_as(NEIGHBOUR_TOKEN, &Worker::single("ping", pong)).await;
        let watch = Watch::begin(atoll.address()).await;
        let mut stage = Self { atoll, failures: vec![], rows: 0, watch, vault };
        stage.check_others("0", "before any attack", false).await;
        stage
    }

    /// A row begins: from here on its time and what the neighbour notices are taken.
    pub(crate) fn begin(&mut self) {
        self.watch.row();
    }

    /// A line of the table: how the row ended, after what time, and the neighbour's p99 against that without an attack.
    fn print(&mut self, id: &str, name: &str, outcome: &str) {
        let (time, ratio) = self.watch.end();
        let ratio = ratio.map_or_else(|| "-".to_owned(), |ratio| format!("x {ratio:.1}"));
        println!("{id:<5} {name:<56} {outcome:<24} {:>7} ms  neighbour p99 {ratio}", time.as_millis());
    }

    /// The same, and whether everybody else is well.
    pub(crate) async fn told(&mut self, id: &str, name: &str, outcome: &str) {
        self.print(id, name, outcome);
        self.check_others(id, name, false).await;
        self.begin();
    }

    pub(crate) fn fail(&mut self, id: &str, name: &str, problem: &str) {
        self.failures.push(format!("row {id} ({name}): {problem}"));
    }

    pub(crate) fn require(&mut self, id: &str, name: &str, holds: bool, problem: &str) {
        if !holds {
            self.fail(id, name, problem);
        }
    }

    /// An execution's answer: allowed code, usage, bounded logs; then everybody else.
    async fn judge_execution(&mut self, id: &str, name: &str, allowed: rows::Codes, answer: &Answer) {
        let code = outcome(answer);
        self.print(id, name, &code);
        self.require(
            id,
            name,
            allowed.contains(&code.as_str()),
            &format!("ended as {code}, not one of {allowed:?}: {} {}", answer.status, cut(&answer.text())),
        );
        if answer.status == 200 {
            let usage = &answer.json()["usage"];
            for field in USAGE {
                let recorded = usage[*field].is_u64();
                self.require(id, name, recorded, &format!("usage.{field} is missing: {usage}"));
            }
            let used = usage["cpuUs"].as_u64().unwrap_or(0) > 0 || code == "refused";
            self.require(id, name, used, "no CPU time was recorded");
        }
        if code == "host_fault" {
            let known = answer.json()["usage"]["wallUs"].as_u64().unwrap_or(0) > 0;
            self.require(id, name, known, "a lost host lost the wall time");
        }
        self.require(id, name, answer.body.len() <= LOG_ANSWER_BYTES_MAX, "the answer is not bounded");
        self.check_record(id, name, &code, answer).await;
        self.check_others(id, name, code == "host_fault").await;
    }

    /// The audit log has exactly one record of the execution, and it says the same.
    async fn check_record(&mut self, id: &str, name: &str, code: &str, answer: &Answer) {
        let body = answer.json();
        let Some(execution) = body["id"].as_str() else { return }; // refused before it had one
        let page = self.atoll.control("GET", &format!("/v1/audit?worker={execution}"), None).await.json();
        let records = page["records"].as_array().map_or(&[][..], Vec::as_slice);
        let of: Vec<&Value> = records.iter().filter(|record| record["kind"] == "execution").collect();
        let one = of.len() == 1 && of[0]["outcome"] == *code;
        self.require(id, name, one, &format!("ended as {code}, and the audit log says {of:?}"));
    }

    /// A deployed worker's answer: the worker's own, or a problem with an allowed code; then everybody else.
    async fn judge_deployed(&mut self, row: &Row, answer: &Answer) {
        let code = match answer.status {
            200 if answer.text() == "survived" => "done".to_owned(),
            status => problem_code(answer).unwrap_or_else(|| format!("status {status} without a code")),
        };
        self.print(row.id, row.name, &format!("{code}, deployed"));
        let allowed = row.allowed.contains(&code.as_str());
        let text = cut(&answer.text());
        self.require(row.id, row.name, allowed, &format!("deployed, it ended as {code}: {text}"));
        self.check_others(row.id, row.name, code == "host_fault").await;
    }

    /// The gateway lives and the neighbour is served: at once, or after a lost host was replaced.
    pub(crate) async fn check_others(&mut self, id: &str, name: &str, host_lost: bool) {
        self.rows += 1;
        let alive = self.atoll.alive();
        assert!(alive, "row {id} ({name}) ended the gateway:\n{}", self.atoll.log());
        let health = self.atoll.control("GET", "/healthz", None).await;
        self.require(id, name, health.status == 200, &format!("/healthz gave {}", health.status));
        let ping = Request::new("GET", "/");
        let mut retries = 0;
        loop {
            let answer = self.atoll.send_to(NEIGHBOUR, "ping", &ping).await;
            if answer.status == 200 && answer.text() == "pong" {
                return self.check_secret(id, name, host_lost).await;
            }
            let may_retry = host_lost && answer.status == 503 && retries < NEIGHBOUR_RETRIES_MAX;
            if !may_retry {
                let problem = format!("the neighbour got {} {}", answer.status, cut(&answer.text()));
                return self.fail(id, name, &problem);
            }
            retries += 1;
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }

    /// The neighbour uses its secret, which nobody sees; nor is it in the numbers.
    async fn check_secret(&mut self, id: &str, name: &str, host_lost: bool) {
        let answer = self.atoll.send_to(NEIGHBOUR, "ping", &Request::new("GET", "/vault")).await;
        let used = answer.status == 200 && answer.text().ends_with("the end");
        let problem = format!("the neighbour's proxy gave {} {}", answer.status, cut(&answer.text()));
        self.require(id, name, used || host_lost, &problem);
        // The client looks through each answer.
        self.atoll.control("GET", "/metrics", None).await;
    }

    pub(crate) fn close(self) {
        let Self { failures, rows, vault, mut atoll, .. } = self;
        vault.search(&mut atoll);
        assert!(
            failures.is_empty(),
            "{} failures in {rows} rows:\n\n{}\n",
            failures.len(),
            failures.join("\n\n")
        );
        println!("{rows} hostile rows ended as the table says");
    }
}

/// The stable code of an execution's answer; `done` only if the attack did not say that it broke something.
fn outcome(answer: &Answer) -> String {
    if answer.status != 200 {
        return match problem_code(answer) {
            None => format!("status {} without a code", answer.status),
            // Each check of the code has a code of its own; all of them mean that no isolate was made.
            Some(_) if [400, 413, 422].contains(&answer.status) => "refused".into(),
            Some(code) => code,
        };
    }
    let body = answer.json();
    if body["ok"] == json!(true) {
        // A row that has something to prove returns text; one that just ran to its end proves that it may.
        let survived = body["result"] == json!("survived") || body["result"].is_null();
        return if survived { "done".into() } else { format!("done with {}", body["result"]) };
    }
    body["error"]["code"].as_str().unwrap_or("an error without a code").to_owned()
}

/// The `code` of a problem document.
pub(crate) fn problem_code(answer: &Answer) -> Option<String> {
    if answer.header("content-type") != Some("application/problem+json") {
        return None;
    }
    Some(answer.json()["code"].as_str()?.to_owned())
}

/// The same attack as a deployed worker: what the function returns is the body of the answer.
fn as_worker(row: &Row) -> String {
    format!(
        "const attack = async () => {{ {} }};\nexport default {{ fetch: async () => new Response(await attack()) }};",
        row.code
    )
}

fn selected(id: &str) -> bool {
    let Ok(wanted) = std::env::var("ATOLL_TEST_ROW") else { return true };
    id == wanted || id.trim_end_matches(|c: char| c.is_ascii_alphabetic()) == wanted
}

pub(crate) fn cut(text: &str) -> String {
    text.chars().take(300).collect()
}

#[test]
fn the_table_covers_the_promised_rows() {
    // 63 is an accepted risk; 72 to 76 are raw bytes, which `tests/framing` has by their numbers; 44 is the differential
    // program `globals-absent.js`.
    let elsewhere = [
        crowd::ROWS,
        calls::ROWS,
        late::ROWS,
        http2::ROWS,
        egress::ROWS,
        control::ROWS,
        &[44, 63, 72, 73, 74, 75, 76],
    ];
    let ids: Vec<String> = rows::TABLES
        .iter()
        .copied()
        .flatten()
        .map(|row| row.id)
        .chain(modules::bundles().iter().map(|row| row.id))
        .chain(modules::refused().iter().map(|row| row.id))
        .map(|id| id.trim_end_matches(|c: char| c.is_ascii_alphabetic()).to_owned())
        .chain(elsewhere.into_iter().flatten().map(ToString::to_string))
        .collect();
    let promised = (1..=87).chain(97..=101).chain(103..=108).chain(112..=116);
    let missing: Vec<u32> = promised.filter(|row| !ids.contains(&row.to_string())).collect();
    assert!(missing.is_empty(), "no program for rows {missing:?}; tenant {TENANT}");
}
