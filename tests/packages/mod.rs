//! Published npm packages, unchanged, bundled as a user bundles them: code that was written for another server must run here.
//!
//! ```text
//!   src/NAME.js   a worker; its leading comments say which requests to send, and `// < TEXT` what an answer must contain
//!      │ esbuild, with the conditions that wrangler gives it
//!      ▼
//!   Atoll ◀── the same requests ──▶ workerd       equal answers, and the wanted ones
//!      │ fetch, WebSocket                ▲
//!      ▼                                 │ fetch, WebSocket
//!   src/far.mjs  servers in Node      src/near.mjs  clients in Node
//! ```
//!
//! The versions are those of `tests/packages/package-lock.json`. A request without a `// <` line is answered by a report
//! (`src/check.js`) in which every case must have come out as wanted.

pub(crate) mod node;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::json;

use self::node::NodeServer;
use crate::differential::compare::{self, Excuses};
use crate::differential::run;
use crate::support::atoll::{Atoll, Options, TENANT, deployment, host_name};
use crate::support::client::Answer;
use crate::support::worker::{Program, Request, Worker, unescape};
use crate::support::workerd::Workerd;

/// How esbuild bundles a worker: what wrangler tells it.
const ESBUILD: &[&str] = &[
    "--bundle",
    "--format=esm",
    "--target=es2024",
    "--keep-names",
    "--conditions=workerd,worker,browser",
    "--main-fields=browser,module,main",
    "--define:process.env.NODE_ENV=\"production\"",
    "--external:cloudflare:*",
    "--external:node:*",
    "--log-level=error",
];

/// Reports that workerd cannot give: its EventSource has no events without data, and waits for the last one for ever.
const ALONE: &[(&str, &str)] = &[("clients", "/subscription")];

/// What a report says of a case that did not come out as wanted.
const FAILED: &str = " but wanted ";

/// The folder of the packages, installed on first use.
pub(crate) fn packages() -> PathBuf {
    static INSTALL: std::sync::Once = std::sync::Once::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/packages");
    INSTALL.call_once(|| {
        if !folder.join("node_modules/ws").exists() {
            let status = Command::new("npm").args(["ci", "--ignore-scripts"]).current_dir(&folder).status();
            assert!(status.expect("npm is needed").success(), "npm ci in tests/packages failed");
        }
    });
    folder
}

/// A worker of `tests/packages/src`, what to ask it, and what each answer must contain.
struct Case {
    program: Program,
    wanted: Vec<Vec<String>>,
}

impl Case {
    fn read(path: &Path) -> Option<Self> {
        let source = std::fs::read_to_string(path).expect("a readable worker");
        let about = source.strip_prefix("// Shows: ")?;
        let name = path.file_stem().expect("a file name").to_string_lossy();
        let mut program = Program::parse(&name, &source);
        program.worker.modules[0].body = bundles()[&*name].clone();
        let mut wanted = vec![];
        for line in about.lines().filter_map(|line| line.strip_prefix("// ")) {
            match line.split_once(' ') {
                Some((">", _)) => wanted.push(vec![]),
                Some(("<", text)) => {
                    let text = String::from_utf8(unescape(text)).expect("UTF-8");
                    wanted.last_mut().expect("a `>` line comes first").push(text);
                }
                _ => {}
            }
        }
        Some(Self { program, wanted })
    }
}

/// All workers, in one run of esbuild.
fn bundles() -> &'static HashMap<String, Vec<u8>> {
    static BUNDLES: OnceLock<HashMap<String, Vec<u8>>> = OnceLock::new();
    BUNDLES.get_or_init(|| {
        let folder = packages();
        let out = tempfile::tempdir().expect("a temporary folder");
        let sources = sources().into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "js"));
        let output = Command::new(folder.join("node_modules/.bin/esbuild"))
            .args(ESBUILD)
            .arg(format!("--outdir={}", out.path().display()))
            .args(sources)
            .output()
            .expect("esbuild runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let entries = std::fs::read_dir(out.path()).expect("the bundles");
        let paths = entries.map(|entry| entry.expect("a readable entry").path());
        let name = |path: &Path| path.file_stem().expect("a file name").to_string_lossy().into_owned();
        paths.map(|path| (name(&path), std::fs::read(&path).expect("a bundle"))).collect()
    })
}

fn sources() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(packages().join("src")).expect("the folder");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a readable entry").path()).collect();
    paths.sort();
    paths
}

/// Both servers with all workers, which may reach one server in Node.
struct World {
    atoll: Atoll,
    workerd: Workerd,
    cases: Vec<Case>,
    _far: NodeServer,
}

impl World {
    async fn start(wanted: &[&str]) -> Self {
        let far = NodeServer::start("far.mjs");
        let mut cases: Vec<Case> = sources().iter().filter_map(|path| Case::read(path)).collect();
        cases.retain(|case| wanted.is_empty() || wanted.contains(&case.program.worker.name.as_str()));
        for case in &mut cases {
            case.program.worker.env.push(("FAR".into(), json!(far.address)));
        }
        let workers: Vec<Worker> = cases.iter().map(|case| case.program.worker.clone()).collect();
        let workerd = Workerd::start(&workers);
        let atoll = Atoll::start(Options {
            config: format!("[outbound]\nallow_private = [\"{}\"]\n", far.address),
            tenant: "limits = { cpu_ms = 30000, subrequests = 1000 }".into(),
            ..Options::default()
        })
        .await;
        for worker in &workers {
            deploy(&atoll, worker, &far.address).await;
        }
        Self { atoll, workerd, cases, _far: far }
    }
}

async fn deploy(atoll: &Atoll, worker: &Worker, far: &str) {
    let mut body = deployment(worker);
    body["outbound"] = json!([format!("http://{far}")]);
    let deployed = atoll.control("PUT", &format!("/v1/workers/{}", worker.name), Some(body)).await;
    assert!(deployed.status < 300, "{}: {}", worker.name, deployed.text());
}

/// What of an answer is not as the worker's comments say.
fn failures(wanted: &[String], answer: &Answer) -> Vec<String> {
    let body = answer.text();
    if wanted.is_empty() {
        let failed = body.lines().filter(|line| line.contains(FAILED));
        let mut out: Vec<String> = failed.map(String::from).collect();
        if answer.status != 200 || body.trim().is_empty() {
            out.push(format!("no report: {} {body}", answer.status));
        }
        return out;
    }
    let mut whole = format!("{}\n", answer.status);
    for (name, value) in &answer.headers {
        whole += &format!("{name}: {}\n", String::from_utf8_lossy(value));
    }
    whole += &body;
    let missing = wanted.iter().filter(|text| !whole.contains(text.as_str()));
    missing.map(|text| format!("lacks {text:?}: {}", &whole)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_package_answers_as_wanted_and_as_on_workerd() {
    let filter = std::env::var("ATOLL_TEST_PROGRAM").unwrap_or_default();
    let world = World::start(&[]).await;
    let mut differences = vec![];
    for Case { program, wanted } in &world.cases {
        let name = &program.worker.name;
        if !name.contains(&filter) {
            continue;
        }
        let host = host_name(TENANT, name);
        let theirs = run(world.workerd.address(name), &host, program).await;
        let ours = run(world.atoll.address(), &host, program).await;
        for (((request, wanted), theirs), ours) in program.requests.iter().zip(wanted).zip(theirs).zip(ours) {
            let title = format!("{name} {} {}", request.method, request.target);
            let theirs = theirs.unwrap_or_else(|error| panic!("{title} fails on workerd: {error}"));
            let mut told = ours.as_ref().map_or_else(|_| vec![], |ours| failures(wanted, ours));
            let mut none = Excuses { rows: vec![], used: &mut BTreeSet::new() };
            told.extend(compare::differences(&theirs, ours, &mut none));
            differences.extend(told.into_iter().map(|difference| format!("{title}: {difference}")));
        }
    }
    for (name, target) in ALONE.iter().filter(|(name, _)| name.contains(&filter)) {
        let ours = world.atoll.send(name, &Request::new("GET", target)).await;
        differences.extend(failures(&[], &ours).into_iter().map(|told| format!("{name} {target}: {told}")));
    }
    let log = world.atoll.log();
    assert!(differences.is_empty(), "{}\n\n{log}", differences.join("\n\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_in_node_reach_workers_as_on_workerd() {
    const WORKERS: [&str; 5] = ["agents", "apis", "capnweb", "hono", "mcp"];
    let world = World::start(&WORKERS).await;
    let ours = WORKERS.map(|name| (name, format!("http://{}/w/{TENANT}/{name}", world.atoll.address())));
    let theirs = WORKERS.map(|name| (name, format!("http://{}", world.workerd.address(name))));
    let mut reports = vec![];
    for bases in [theirs, ours] {
        let bases = json!(HashMap::from(bases)).to_string();
        let (report, errors) = node::run("near.mjs", &["client", &bases]).await;
        let failed: Vec<&str> = report.lines().filter(|line| line.contains(FAILED)).collect();
        assert!(failed.is_empty() && report.lines().count() > 20, "{failed:?}\n{report}\n{errors}\n{bases}");
        reports.push(report);
    }
    assert_eq!(reports[0], reports[1]);
}

/// Workers' own ciphers refuse with errors of their own; packages look for Node's codes.
#[tokio::test(flavor = "multi_thread")]
async fn ciphers_refuse_as_in_node() {
    let atoll = Atoll::start(Options::default()).await;
    let source = std::fs::read_to_string(packages().join("src/ciphers.mjs")).expect("it is there");
    let flags = vec!["nodejs_compat".into()];
    atoll.deploy(&Worker { flags, ..Worker::single("ciphers", &source) }).await;
    let ours = atoll.send("ciphers", &Request::new("GET", "/")).await.json();
    let (theirs, errors) = node::run("ciphers.mjs", &[]).await;
    let theirs: serde_json::Value = serde_json::from_str(&theirs).expect(&errors);
    assert!(theirs.as_object().is_some_and(|cases| cases.len() > 25), "{theirs}");
    for (case, theirs) in theirs.as_object().into_iter().flatten() {
        assert_eq!(&ours[case], theirs, "{case}");
    }
}

/// workerd would compute for ever: what stops this code is a limit, here one of the loader and one of the tenant.
#[tokio::test(flavor = "multi_thread")]
async fn code_that_computes_for_ever_is_stopped_and_its_executor_told() {
    let atoll = Atoll::start(Options::default()).await;
    let source = String::from_utf8(bundles()["codemode"].clone()).expect("UTF-8");
    atoll.deploy(&Worker::single("codemode", &source).with_loader("LOADER")).await;
    let answer = atoll.send("codemode", &Request::new("GET", "/spin")).await;
    let failed = failures(&[], &answer);
    assert!(failed.is_empty(), "{failed:?}\n{}", atoll.log());
}
