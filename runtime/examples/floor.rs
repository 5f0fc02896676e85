//! What a load costs in CPU, against the floor: a bare V8 isolate with a context from V8's own snapshot.
//!
//! `cargo run --release -p atoll-runtime --example floor` prints one JSON line:
//! `floor_cpu_us` (create and drop, own thread), `load_cpu_us` (a fresh isolate that answers one request, create to
//! drop, through the in-process link), and what a live bare isolate keeps resident.
//!
//! Isolates of one process share V8's read-only heap, which belongs to one snapshot: bare ones live in a process of
//! their own, this same program with the argument `bare`. Both keep one isolate alive all the time, or each new one
//! would pay for that heap.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use atoll_bindings::body::RequestBody;
use atoll_bindings::link::{Answer, Link, Start, StartEvent, in_process};
use atoll_bindings::seam::{Identity, IsolateKey};
use atoll_loader::WorkerCode;
use atoll_loader::bundle::Bundle;
use atoll_loader::limits::Limits;
use atoll_runtime::host::{HostConfig, run};

const ROUNDS: usize = 5;
const PER_ROUND: usize = 200;

fn main() {
    if std::env::args().nth(1).as_deref() == Some("bare") {
        return bare_process();
    }
    let mut bare = Bare::start();
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let (link, endpoint) = tokio.block_on(async { in_process() });
    let host = tokio.spawn(run(endpoint, HostConfig { pool_size: 2, ..HostConfig::default() }));
    let code = WorkerCode::new("hello.js")
        .js("hello.js", "export default { fetch() { return new Response('hello') } }");
    let bundle = Arc::new(code.build().expect("a worker"));
    tokio.block_on(load(&link, &bundle));
    let mut floors = Vec::new();
    let mut loads = Vec::new();
    // Alternating rounds, so that a noisy neighbour disturbs both.
    for _ in 0..ROUNDS {
        floors.push(bare.ask("round"));
        loads.push(cpu_per(|| tokio.block_on(load(&link, &bundle))));
    }
    let (floor, load) = (median(floors), median(loads));
    let bytes = bare.ask("resident");
    println!(
        "{{\"floor_cpu_us\":{floor:.0},\"load_cpu_us\":{load:.0},\"ratio\":{:.2},\"floor_resident_bytes\":{bytes:.0}}}",
        load / floor
    );
    link.close();
    tokio.block_on(async { tokio::time::timeout(Duration::from_secs(5), host).await.ok() });
    std::process::exit(0);
}

/// The process with bare isolates: one number per line asked.
struct Bare {
    _child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Bare {
    fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .arg("bare")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program starts again");
        let (ask, answers) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        Self { _child: child, ask, answers: BufReader::new(answers) }
    }

    fn ask(&mut self, what: &str) -> f64 {
        writeln!(self.ask, "{what}").expect("the other process reads");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the other process answers");
        line.trim().parse().expect("a number")
    }
}

/// Ends when its standard input does.
fn bare_process() {
    deno_core::JsRuntime::init_platform(None);
    let blob = bare_snapshot();
    let params = v8::CreateParams::default().snapshot_blob(v8::StartupData::from(blob));
    let _parked = v8::Isolate::new(params);
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let number = match line.as_str() {
            "round" => cpu_per(|| std::thread::spawn(move || bare(blob)).join().expect("a bare isolate")),
            _ => resident_per_bare(blob) as f64,
        };
        println!("{number}");
    }
}

async fn load(link: &Link, bundle: &Arc<Bundle>) {
    let request = http::Request::get("http://localhost/").body(RequestBody::Empty).expect("a request");
    let mut running = link
        .start(Start {
            bundle: Arc::clone(bundle),
            isolate: IsolateKey::Fresh,
            entrypoint: None,
            props: None,
            event: StartEvent::Fetch(request),
            identity: Identity { tenant: "t".into(), worker: "w".into(), traceparent: None },
            limits: Limits::default(),
            env: Vec::new(),
            outbound: None,
        })
        .expect("the host is there");
    let Ok(Answer::Response(response)) = running.answer().await else { panic!("no response") };
    drop(response);
    running.ended().await;
}

fn bare_snapshot() -> &'static [u8] {
    let mut creator = v8::Isolate::snapshot_creator(None, None);
    {
        v8::scope!(scope, &mut creator);
        let context = v8::Context::new(scope, v8::ContextOptions::default());
        scope.set_default_context(context);
    }
    let blob = creator.create_blob(v8::FunctionCodeHandling::Keep).expect("a snapshot");
    Box::leak(blob.to_vec().into_boxed_slice())
}

fn bare(blob: &'static [u8]) {
    let params = v8::CreateParams::default().snapshot_blob(v8::StartupData::from(blob));
    let mut isolate = v8::Isolate::new(params);
    v8::scope!(scope, &mut isolate);
    let _context = v8::Context::new(scope, v8::ContextOptions::default());
}

fn resident_per_bare(blob: &'static [u8]) -> u64 {
    const ALIVE: u64 = 100;
    let before = resident();
    let mut stops = Vec::new();
    for _ in 0..ALIVE {
        let (ready, is_ready) = mpsc::channel();
        let (stop, stopped) = mpsc::channel::<()>();
        std::thread::spawn(move || {
            let params = v8::CreateParams::default().snapshot_blob(v8::StartupData::from(blob));
            let mut isolate = v8::Isolate::new(params);
            v8::scope!(scope, &mut isolate);
            let _context = v8::Context::new(scope, v8::ContextOptions::default());
            ready.send(()).expect("main waits");
            stopped.recv().ok();
        });
        is_ready.recv().expect("an isolate");
        stops.push(stop);
    }
    (resident().saturating_sub(before)) / ALIVE
}

fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("pages") * 4_096
}

/// Process CPU time per call, in microseconds.
fn cpu_per(mut run: impl FnMut()) -> f64 {
    let before = cpu_us();
    for _ in 0..PER_ROUND {
        run();
    }
    (cpu_us() - before) / PER_ROUND as f64
}

fn cpu_us() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the out pointer is a local.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
