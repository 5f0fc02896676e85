//! The same programs on Atoll and on workerd must give the same status, headers and bytes.
//!
//! Nothing is recorded: the oracle runs beside Atoll each time. A difference is either a bug or a row of
//! [`INTENDED`], which says why.
//!
//! `ATOLL_TEST_PROGRAM=name` runs the programs whose name contains `name`.

mod alone;
pub(crate) mod compare;

use std::collections::BTreeSet;
use std::path::Path;

use self::compare::{Excused, Excuses};
use crate::support::atoll::{Atoll, Options, TENANT, host_name};
use crate::support::client::{Answer, ClientError, Connection};
use crate::support::worker::{Kind, Module, Program};
use crate::support::workerd::Workerd;

/// Fewest programs the suite promises.
const PROGRAMS_MIN: usize = 60;

/// A difference that is meant.
struct Intended {
    /// The program's file name without `.js`.
    program: &'static str,
    /// Which requests, by method and target; empty for all.
    request: &'static str,
    /// What may differ.
    part: Part,
    /// Why.
    reason: &'static str,
}

/// What of an answer may differ.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The body and its type, as of an error page.
    Body,
    /// The reason phrase, which HTTP/2 and HTTP/3 do not even carry.
    Reason,
    /// Report lines with one of these labels.
    Lines(&'static [&'static str]),
}

/// Every intended difference. Anything else is a bug.
const INTENDED: &[Intended] = &[
    Intended {
        program: "tcp-sockets",
        request: "GET /",
        part: Part::Lines(&["exports"]),
        reason: "workerd also exports a function that only its own node:http uses",
    },
    Intended {
        program: "websocket-pair",
        request: "GET /shape",
        part: Part::Lines(&["length", "handlers"]),
        reason: "the WebSockets standard: one argument is required, and event handlers that are not set are null",
    },
    Intended {
        program: "websocket-pair",
        request: "GET /messages",
        part: Part::Lines(&["lone surrogate"]),
        reason: "Web IDL's USVString makes one U+FFFD of a lone surrogate, workerd three",
    },
    Intended {
        program: "websocket-pair",
        request: "GET /closing",
        part: Part::Lines(&["auto events", "auto later", "answered events", "answered later", "no code"]),
        reason: "workerd tells the end of a pair that was closed cleanly of a lost connection as well",
    },
    Intended {
        program: "event-source",
        request: "",
        part: Part::Lines(&["identifier with a zero", "empty type", "empty data", "closed at the first"]),
        reason: "the HTML standard: such an identifier is ignored, an empty type is `message`, empty data is data, a closed source is silent",
    },
    Intended {
        program: "error-thrown",
        request: "",
        part: Part::Body,
        reason: "an error page is each server's own: Atoll answers problem+json",
    },
    Intended {
        program: "error-bad-answers",
        request: "",
        part: Part::Body,
        reason: "an error page is each server's own: Atoll answers problem+json",
    },
    Intended {
        program: "response-error",
        request: "GET /answer",
        part: Part::Body,
        reason: "an error page is each server's own: Atoll answers problem+json",
    },
    Intended {
        program: "response-status-texts",
        request: "GET /299",
        part: Part::Reason,
        reason: "workerd invents a phrase for unassigned codes; Atoll sends an empty one",
    },
    Intended {
        program: "response-status-texts",
        request: "GET /599",
        part: Part::Reason,
        reason: "workerd invents a phrase for unassigned codes; Atoll sends an empty one",
    },
    Intended {
        program: "headers-invalid",
        request: "",
        part: Part::Lines(&["empty name", "non-ascii name"]),
        reason: "the Fetch standard refuses these with a TypeError, workerd lets them pass",
    },
    Intended {
        program: "crypto-ecdsa",
        request: "",
        part: Part::Lines(&["P-256 jwk", "P-384 jwk"]),
        reason: "workerd's JWK has every possible member, most of them undefined; the standard's only those it has",
    },
    Intended {
        program: "event-target",
        request: "",
        part: Part::Lines(&["not cancelable"]),
        reason: "the DOM standard ignores preventDefault on an event that is not cancelable, workerd does not",
    },
    Intended {
        program: "stream-readable",
        request: "",
        part: Part::Lines(&["enqueue after close"]),
        reason: "the Streams standard throws out of the constructor when start() throws",
    },
    Intended {
        program: "body-blob-type",
        request: "",
        part: Part::Lines(&["Text/HTML; charset=UTF-8"]),
        reason: "the File API puts a blob's type in lower case, workerd keeps the parameters' case",
    },
    Intended {
        program: "url-edge-cases",
        request: "",
        part: Part::Lines(&["\"http://xn--/\""]),
        reason: "the URL standard refuses a label that is empty after its punycode prefix, workerd does not",
    },
    Intended {
        program: "response-json",
        request: "",
        part: Part::Lines(&["undefined"]),
        reason: "the Fetch standard refuses a value that has no JSON text with a TypeError",
    },
    Intended {
        program: "eval-forbidden",
        request: "",
        part: Part::Lines(&["eval of an object"]),
        reason: "ECMAScript's eval returns a value that is not a string as it is: no code is made from it",
    },
    Intended {
        program: "formdata-multipart-out",
        request: "",
        part: Part::Lines(&["read back"]),
        reason: "the standard's multipart parser turns %22 in a name back into the quote that it stands for",
    },
    Intended {
        program: "formdata-urlencoded",
        request: "POST /percent",
        part: Part::Lines(&["form"]),
        reason: "the URL standard keeps a percent sign that starts no escape, workerd drops it",
    },
    Intended {
        program: "structured-clone-transfer",
        request: "",
        part: Part::Lines(&["again", "not transferable"]),
        reason: "the HTML standard refuses to move what is detached or cannot move with a DataCloneError",
    },
    Intended {
        program: "loader-startup",
        request: "",
        part: Part::Lines(&["syntax"]),
        reason: "Atoll parses the code when it is loaded, so load() itself throws and names line and column",
    },
    Intended {
        program: "loader-startup",
        request: "",
        part: Part::Lines(&["no default"]),
        reason: "workerd wants every export of a main module to be a handler, Atoll only those that are called",
    },
    Intended {
        program: "stream-identity",
        request: "GET /report",
        part: Part::Lines(&["too short"]),
        reason: "a FixedLengthStream that lacks bytes fails for the writer, too, not for the reader alone",
    },
    Intended {
        program: "node-async-hooks",
        request: "GET /flow",
        part: Part::Lines(&["enterWith"]),
        reason: "Node.js has enterWith(), workerd refuses it; nothing of it outlives its invocation",
    },
    Intended {
        program: "node-buffer",
        request: "GET /encodings",
        part: Part::Lines(&["transcode"]),
        reason: "Node.js's latin1 is ISO-8859-1, which has no euro sign; workerd's is windows-1252",
    },
    Intended {
        program: "node-buffer",
        request: "GET /errors",
        part: Part::Lines(&["alloc negative", "alloc fill", "transcode"]),
        reason: "Node.js's errors have codes there, workerd's come from the engine and have none",
    },
    Intended {
        program: "node-stream",
        request: "GET /flow",
        part: Part::Lines(&["read", "transform", "subclasses"]),
        reason: "newer versions of Node.js hand on each chunk as it was pushed, older ones join what waits",
    },
    Intended {
        program: "node-small",
        request: "GET /path",
        part: Part::Lines(&["resolve"]),
        reason: "Node.js resolves against process.cwd(), workerd's against the root whatever that says",
    },
    Intended {
        program: "rpc-pipelining",
        request: "",
        part: Part::Lines(&["disposers run"]),
        reason: "workerd keeps what a call gave for as long as its promise is not collected; Atoll lets it go when it is disposed of",
    },
    Intended {
        program: "loader-limits",
        request: "",
        part: Part::Lines(&["typescript"]),
        reason: "Atoll takes TypeScript and strips the types",
    },
    Intended {
        program: "loader-tails",
        request: "",
        part: Part::Lines(&["streaming"]),
        reason: "streaming tails are experimental, and Atoll has none: it says so instead of never calling them",
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn every_program_answers_as_on_workerd() {
    let programs = programs();
    let oracle = Workerd::start(&workers(&programs));
    // What a program computes is not what it shows: two RSA keys can take longer than the default allows, and a list
    // of calls is longer.
    let options = Options {
        tenant: "limits = { cpu_ms = 30000, subrequests = 1000 }".into(),
        config: "[checks]\nexperimental = \"allowed\"\n".into(),
        ..Options::default()
    };
    let atoll = Atoll::start(options).await;
    let mut differences = vec![];
    let mut requests = 0;
    let mut used = BTreeSet::new();
    for program in &programs {
        let name = &program.worker.name;
        for other in &program.others {
            atoll.deploy(other).await;
        }
        let refused = atoll.try_deploy_as(crate::support::atoll::TOKEN, &program.worker).await;
        if !(200..300).contains(&refused.status) {
            differences.push(format!("{name}: Atoll refuses it: {} {}", refused.status, refused.text()));
            continue;
        }
        let host = host_name(TENANT, name);
        let wanted = run(oracle.address(name), &host, program).await;
        let got = run(atoll.address(), &host, program).await;
        for ((request, wanted), got) in program.requests.iter().zip(wanted).zip(got) {
            requests += 1;
            let title = format!("{} {}", request.method, request.target);
            let wanted = wanted.unwrap_or_else(|error| panic!("{name} {title} fails on workerd: {error}"));
            let mut excuses = Excuses { rows: intended(name, &title).collect(), used: &mut used };
            differences.extend(
                compare::differences(&wanted, got, &mut excuses)
                    .into_iter()
                    .map(|difference| format!("{name} {title}: {difference}")),
            );
        }
    }
    differences.extend(rows_without_a_difference(&programs, &used));
    assert!(
        differences.is_empty(),
        "{} differences in {requests} requests of {} programs:\n\n{}\n",
        differences.len(),
        programs.len(),
        differences.join("\n\n")
    );
}

#[test]
fn the_suite_has_the_promised_number_of_programs() {
    let count = all_programs().len();
    assert!(count >= PROGRAMS_MIN, "{count} programs");
}

#[test]
fn every_intended_difference_names_a_program_and_a_reason() {
    let names: Vec<String> = all_programs().into_iter().map(|program| program.worker.name).collect();
    for row in INTENDED {
        assert!(names.iter().any(|name| name == row.program), "no program {}", row.program);
        assert!(row.reason.len() > 10, "{} has no reason", row.program);
    }
}

/// For writing programs: what the oracle says. `cargo test print_what -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints for a person to read, checks nothing"]
async fn print_what_the_oracle_answers() {
    let programs = programs();
    let oracle = Workerd::start(&workers(&programs));
    for program in &programs {
        let name = &program.worker.name;
        println!("===== {name}");
        let answers = run(oracle.address(name), &host_name(TENANT, name), program).await;
        for (request, answer) in program.requests.iter().zip(answers) {
            println!("--- {} {}", request.method, request.target);
            match answer {
                Ok(answer) => println!("{}", compare::print(&answer)),
                Err(error) => println!("no answer: {error}"),
            }
        }
    }
}

/// All requests of a program on one connection, in order; a new connection after a failure.
pub(crate) async fn run(
    address: std::net::SocketAddr,
    host: &str,
    program: &Program,
) -> Vec<Result<Answer, ClientError>> {
    let mut answers = vec![];
    let mut connection = Connection::open(address, host).await.ok();
    for request in &program.requests {
        let mut open = match connection.take() {
            Some(open) => open,
            None => match Connection::open(address, host).await {
                Ok(open) => open,
                Err(error) => {
                    answers.push(Err(error));
                    continue;
                }
            },
        };
        let answer = open.send(request).await;
        if answer.as_ref().is_ok_and(|answer| answer.header("connection") != Some("close")) {
            connection = Some(open);
        }
        answers.push(answer);
    }
    answers
}

fn intended(program: &str, request: &str) -> impl Iterator<Item = (usize, &'static Part)> {
    INTENDED
        .iter()
        .enumerate()
        .filter(move |(_, row)| row.program == program && (row.request.is_empty() || row.request == request))
        .map(|(number, row)| (number, &row.part))
}

/// Rows, and labels of rows, that excused nothing: the two runtimes agree there by now, so the row must go.
fn rows_without_a_difference(programs: &[Program], used: &BTreeSet<Excused>) -> Vec<String> {
    let ran = |row: &Intended| programs.iter().any(|program| program.worker.name == row.program);
    INTENDED
        .iter()
        .enumerate()
        .filter(|(_, row)| ran(row))
        .flat_map(|(number, row)| {
            let labels = match row.part {
                Part::Lines(labels) => labels,
                Part::Body | Part::Reason => &[""],
            };
            labels.iter().filter(move |label| !used.contains(&(number, **label))).map(|label| {
                format!("{} {}: the intended difference {label:?} does not exist", row.program, row.request)
            })
        })
        .collect()
}

fn workers(programs: &[Program]) -> Vec<crate::support::worker::Worker> {
    programs
        .iter()
        .flat_map(|program| std::iter::once(&program.worker).chain(&program.others))
        .cloned()
        .collect()
}

/// The programs to run, after the filter.
fn programs() -> Vec<Program> {
    let filter = std::env::var("ATOLL_TEST_PROGRAM").unwrap_or_default();
    all_programs().into_iter().filter(|program| program.worker.name.contains(&filter)).collect()
}

fn all_programs() -> Vec<Program> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/differential");
    let report = std::fs::read(folder.join("report.js")).expect("report.js");
    let mut paths: Vec<_> = std::fs::read_dir(folder.join("programs"))
        .expect("the programs folder")
        .map(|entry| entry.expect("a readable entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "js"))
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| {
            let name = path.file_stem().expect("a file name").to_string_lossy();
            let source = std::fs::read_to_string(path).expect("a readable program");
            assert!(source.starts_with("// Shows: "), "{name} does not say what it shows");
            let mut program = Program::parse(&name, &source);
            let report = Module { name: "report.js".into(), kind: Kind::Js, body: report.clone() };
            program.worker.modules.push(report);
            program
        })
        .collect()
}
