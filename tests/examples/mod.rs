//! Every example is deployed with the real command and called; those in plain JavaScript also run on workerd,
//! because an example must be a valid worker everywhere.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::sandbox::backends::{Place, on_each_backend};
use crate::support::atoll::{self, Atoll, Options, TENANT, TOKEN, host_name, read_folder};
use crate::support::client::{self, Answer};
use crate::support::worker::{Request, Service, Worker};
use crate::support::workerd::Workerd;

/// Examples with tests of their own: a snippet for code mode, a Rust program, and those that need a sandbox.
const NOT_WORKERS: &[&str] = &["execute", "embed", "agent-js", "agent-python"];

/// One request to an example and what its answer must be.
struct Call {
    request: Request,
    status: u16,
    /// Text that the body must contain, each.
    contains: Vec<&'static str>,
    /// Whether workerd must give the very same bytes.
    same_on_workerd: bool,
}

impl Call {
    fn get(target: &str, contains: &[&'static str]) -> Self {
        Self::new(Request::new("GET", target), 200, contains)
    }

    fn post(target: &str, kind: &str, body: &str, status: u16, contains: &[&'static str]) -> Self {
        let request = Request::new("POST", target).header("content-type", kind).body(body);
        Self::new(request, status, contains)
    }

    fn new(request: Request, status: u16, contains: &[&'static str]) -> Self {
        Self { request, status, contains: contains.to_vec(), same_on_workerd: true }
    }

    /// Words of an error are each runtime's own.
    fn own_words(mut self) -> Self {
        self.same_on_workerd = false;
        self
    }
}

fn calls(example: &str) -> Vec<Call> {
    let text = "text/plain";
    match example {
        "hello" => vec![Call::get("/", &["Hello, world!"]), Call::get("/?name=Ada", &["Hello, Ada!"])],
        "typescript" => vec![
            Call::get("/?value=100&unit=celsius", &[r#""value":212"#, r#""value":373.15"#]),
            Call::new(Request::new("GET", "/?value=x"), 400, &["must be a number"]),
        ],
        "hono" => vec![
            Call::get("/", &["hono"]),
            Call::get("/greet/%3Cb%3E", &["Hello, &lt;b&gt;!"]),
            Call::post("/notes", "application/json", r#"{"text":"hi"}"#, 201, &[r#""text":"hi""#]),
            Call::post("/notes", "application/json", r#"{"text":""}"#, 400, &["non-empty"]),
            Call::get("/notes/1", &[r#""id":1"#]),
            Call::new(Request::new("GET", "/nowhere"), 404, &["not found"]),
            Call::new(Request::new("DELETE", "/notes/1"), 204, &[]),
        ],
        "dispatcher" => vec![
            Call::get("/some/path", &["hello from the dispatcher", "/some/path", "blocked: "]),
            Call::post("/", text, "export default { fetch: () => new Response('guest') }", 200, &["guest"]),
            Call::post("/", text, "this is not JavaScript", 422, &["error"]).own_words(),
            Call::post(
                "/",
                text,
                "export default { fetch() { throw new Error('inside') } }",
                422,
                &["inside"],
            ),
        ],
        "codemode" => vec![
            Call::get("/", &["search(input: { word: string })"]),
            Call::post(
                "/",
                text,
                "async () => { const found = await tools.search({ word: 'reef' }); console.log(found.length); return found.map(({ id }) => id); }",
                200,
                &[r#"{"result":[1,3],"logs":["2"]}"#],
            ),
            Call::post("/", text, "async () => tools.get({ id: 9 })", 200, &["RangeError: no note 9"]),
            Call::post("/", text, "async () => tools.constructor({})", 200, &[r#"{"error":""#]).own_words(),
            Call::post(
                "/",
                text,
                "async () => (await fetch('https://example.com/')).status",
                200,
                &[r#"{"error":""#],
            ),
            Call::post("/", text, "this is not JavaScript", 422, &["error"]).own_words(),
        ],
        "streaming" => vec![
            Call::get("/?count=3&every=1", &["data: tick 1\n\n", "data: tick 3\n\n"]),
            Call::post("/", text, "quiet words", 200, &["QUIET WORDS"]),
        ],
        "wasm" => vec![
            Call::get("/?n=10000", &[r#""primes":1229"#]),
            Call::new(Request::new("GET", "/?n=-1"), 400, &["whole number"]),
        ],
        "prices" => vec![Call::get("/", &[r#""apple":3"#])],
        "shop" => vec![
            Call::get("/", &[r#""apple":3"#]),
            Call::get("/?apple=4&bread=1", &[r#""item":"bread""#, r#""total":22"#]),
            Call::new(Request::new("GET", "/?pear=1"), 400, &["There is no pear."]),
        ],
        "scheduled" => vec![Call::get("/", &[r#"{"runs":"#]).own_words()],
        other => panic!("examples/{other} has no test: add its calls here"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_deploys_and_answers() {
    let server = Atoll::start(Options::default()).await;
    for example in worker_examples() {
        deploy(&server, &example);
        for call in calls(&example) {
            let answer = server.send(&example, &call.request).await;
            check(&example, &call, &answer);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_javascript_example_answers_the_same_on_workerd() {
    let examples: Vec<(String, Worker)> =
        worker_examples().into_iter().filter_map(|name| Some((name.clone(), as_worker(&name)?))).collect();
    let workers: Vec<Worker> = examples.iter().map(|(_, worker)| worker.clone()).collect();
    let oracle = Workerd::start(&workers);
    let mut wanted = vec![];
    for (example, _) in &examples {
        for call in calls(example) {
            let host = host_name(TENANT, example);
            let answer = client::send(oracle.address(example), &host, &call.request).await;
            let answer = answer.expect("workerd answers");
            check(example, &call, &answer);
            wanted.push(answer);
        }
    }
    let server = Atoll::start(Options::default()).await;
    let mut wanted = wanted.into_iter();
    for (example, _) in &examples {
        deploy(&server, example);
        for call in calls(example) {
            let got = server.send(example, &call.request).await;
            let wanted = wanted.next().expect("one for each call");
            if call.same_on_workerd {
                let title = format!("{example}: {} {}", call.request.method, call.request.target);
                assert_eq!(got.text(), wanted.text(), "{title}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scheduled_example_runs_when_fired_by_hand() {
    let server = Atoll::start(Options::default()).await;
    deploy(&server, "scheduled");
    let fired = server.control("POST", "/v1/workers/scheduled/scheduled", Some(json!({}))).await;
    assert!((200..300).contains(&fired.status), "{} {}", fired.status, fired.text());
    let runs = server.send("scheduled", &Request::new("GET", "/")).await.json();
    assert!(runs["runs"][0]["cron"].is_string(), "{runs}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_execute_example_gives_result_logs_and_usage() {
    let server = Atoll::start(Options::default()).await;
    let request = std::fs::read_to_string(folder("execute").join("request.json")).expect("request.json");
    let request: Value = serde_json::from_str(&request).expect("request.json is JSON");
    let answer = server.execute(request).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    assert_eq!(answer["ok"], json!(true), "{answer}");
    assert!(answer["result"].is_object(), "{answer}");
    assert!(answer["logs"].is_array(), "{answer}");
    assert!(answer["usage"]["cpuUs"].as_u64() > Some(0), "{answer}");
}

/// Whether the programs that an agent runs are where a sandbox sees them; said aloud if not.
pub(crate) fn has_programs(who: &str, programs: &[&str]) -> bool {
    let missing =
        |name: &&&str| !["/usr/bin", "/usr/local/bin"].iter().any(|dir| Path::new(dir).join(name).exists());
    let missing: Vec<_> = programs.iter().filter(missing).collect();
    if !missing.is_empty() {
        eprintln!("SKIPPED: {who} needs {missing:?} in /usr");
    }
    missing.is_empty()
}

fn check_report(report: &Value) {
    assert_eq!(report["fibonacci"], 832_040, "{report}");
    assert_eq!(
        (&report["tests"]["success"], &report["tests"]["pass"]),
        (&json!(true), &json!(2)),
        "{report}"
    );
    assert!(report["usage"]["cpuMs"].as_u64() > Some(0), "{report}");
}

async fn the_agent_in_javascript_clones_installs_tests_and_reports(place: Place) {
    if !has_programs("examples/agent-js", &["git", "node", "npm"]) {
        return;
    }
    let Some(server) = place.plain().await else { return };
    deploy(&server, "agent-js");
    let answer = server.send("agent-js", &Request::new("GET", "/?user=ann")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    check_report(&answer.json());
    server.finish();
}

async fn the_agent_in_python_clones_installs_tests_and_reports(place: Place) {
    if !has_programs("examples/agent-python", &["git", "python3"]) {
        return;
    }
    let Some(server) = place.plain().await else { return };
    let output = Command::new("/usr/bin/python3")
        .arg(folder("agent-python").join("agent.py"))
        .arg("ann")
        .env("ATOLL_URL", format!("http://{}", server.address()))
        .env("ATOLL_TOKEN", TOKEN)
        .output()
        .expect("python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    check_report(&serde_json::from_slice(&output.stdout).expect("a JSON report"));
    server.finish();
}

on_each_backend!(
    the_agent_in_javascript_clones_installs_tests_and_reports,
    the_agent_in_python_clones_installs_tests_and_reports,
);

fn check(example: &str, call: &Call, answer: &Answer) {
    let title = format!("{example}: {} {}", call.request.method, call.request.target);
    let text = answer.text();
    assert_eq!(answer.status, call.status, "{title}: {text}");
    for part in &call.contains {
        assert!(text.contains(part), "{title} lacks {part:?}: {text}");
    }
}

/// With the command a newcomer would use.
fn deploy(server: &Atoll, example: &str) {
    let output = Command::new(atoll::binary())
        .arg("deploy")
        .arg(folder(example))
        .args(["--name", example])
        .env("ATOLL_URL", format!("http://{}", server.address()))
        .env("ATOLL_TOKEN", TOKEN)
        .output()
        .expect("atoll runs");
    assert!(
        output.status.success(),
        "atoll deploy examples/{example}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn folder(example: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(example)
}

/// Every folder in `examples/` that is a worker: a new one without a test fails the tests.
fn worker_examples() -> Vec<String> {
    let entries =
        std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")).expect("examples/");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("a readable entry"))
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !NOT_WORKERS.contains(&name.as_str()))
        .collect();
    names.sort();
    assert!(names.len() >= 9, "examples are missing: {names:?}");
    names
}

/// An example for workerd, which takes JavaScript only.
fn as_worker(example: &str) -> Option<Worker> {
    let text = std::fs::read_to_string(folder(example).join("wrangler.jsonc")).expect("wrangler.jsonc");
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let config: Value =
        serde_json::from_str(&lines.collect::<String>()).expect("JSON with whole-line comments");
    let main = Path::new(config["main"].as_str().expect("a main module"));
    if main.extension().is_none_or(|extension| extension != "js") {
        return None;
    }
    let root = folder(example).join(main.parent().unwrap_or(Path::new("")));
    let main = main.file_name().expect("a file").to_string_lossy();
    let mut worker = read_folder(example, &root, &main);
    let wanted = ["js", "wasm", "txt", "bin"];
    worker.modules.retain(|module| module.name.rsplit('.').next().is_some_and(|end| wanted.contains(&end)));
    for (name, value) in config["vars"].as_object().into_iter().flatten() {
        worker.env.push((name.clone(), value.clone()));
    }
    for loader in config["worker_loaders"].as_array().into_iter().flatten() {
        worker.loaders.push(loader["binding"].as_str().expect("a binding name").into());
    }
    for service in config["services"].as_array().into_iter().flatten() {
        worker.services.push(Service {
            binding: service["binding"].as_str().expect("a binding name").into(),
            worker: service["service"].as_str().expect("a worker's name").into(),
            entrypoint: service["entrypoint"].as_str().map(Into::into),
            props: service.get("props").cloned(),
        });
    }
    Some(worker)
}
