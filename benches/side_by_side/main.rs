//! Atoll and workerd side by side in one run: same programs, same client, rounds that alternate.
//!
//! ```text
//! cargo bench --bench side_by_side -- [--quick] [--only abcdefgh] [--servers workerd,atoll] [--seconds N] [--rounds N] [--isolates N] [--loads N]
//! ```
//!
//! Prints a table and writes `bench-results/side-by-side.json`. Ratios are the result; absolute numbers belong to
//! the machine. `ATOLL_TEST_ATOLL` and `ATOLL_TEST_WORKERD` name other binaries; `ATOLL_BENCH_CONFIG` is added to the
//! configuration of Atoll.
#![forbid(unsafe_code)]

#[path = "../../tests/support/mod.rs"]
mod support;

mod items;
mod load;
mod servers;
mod stop;
mod table;

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// How much to measure.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Seconds of each measurement.
    pub(crate) seconds: f64,
    /// Rounds; the median counts.
    pub(crate) rounds: usize,
    /// Live idle isolates of item (c).
    pub(crate) isolates: usize,
    /// Most loads of item (e).
    pub(crate) loads: usize,
    /// Letters of the items to run; `f` is the floor.
    only: String,
    /// Names of the servers to run, as in the table's columns.
    servers: Vec<String>,
}

impl Plan {
    fn from_arguments() -> Self {
        let servers = ["workerd", "atoll", "atoll in-process"].map(String::from).to_vec();
        let only = "abcdefgh".into();
        let mut plan = Self { seconds: 5.0, rounds: 3, isolates: 1_000, loads: 100_000, only, servers };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} needs a value"));
            match argument.as_str() {
                "--quick" => {
                    plan = Self { seconds: 1.0, rounds: 1, isolates: 200, loads: 2_000, ..plan };
                }
                "--only" => plan.only = value(),
                "--servers" => plan.servers = value().split(',').map(String::from).collect(),
                "--seconds" => plan.seconds = number(&value()),
                "--rounds" => plan.rounds = number(&value()),
                "--isolates" => plan.isolates = number(&value()),
                "--loads" => plan.loads = number(&value()),
                _ => {} // cargo's own `--bench`, and filters
            }
        }
        plan
    }

    fn wants(&self, letter: char) -> bool {
        self.only.contains(letter)
    }

    /// Those of some servers that this run asks for.
    pub(crate) fn servers(&self, kinds: &[servers::Kind]) -> Vec<servers::Kind> {
        kinds.iter().copied().filter(|kind| self.servers.iter().any(|name| name == kind.name())).collect()
    }
}

fn number<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is not a number"))
}

// One thread drives the load, so that the servers have the other cores.
#[tokio::main(flavor = "current_thread")]
async fn main() {
    let plan = Plan::from_arguments();
    let mut table = table::Table::new(&plan);
    if plan.wants('f') {
        floor(&mut table);
    }
    if plan.wants('a') {
        items::fresh_isolates(&plan, &mut table).await;
    }
    if plan.wants('b') {
        items::warm_hello(&plan, &mut table).await;
    }
    if plan.wants('c') {
        items::idle_memory(&plan, &mut table).await;
    }
    if plan.wants('d') {
        items::spinning_neighbours(&plan, &mut table).await;
    }
    if plan.wants('e') {
        items::memory_after_loads(&plan, &mut table).await;
    }
    if plan.wants('g') {
        items::rpc(&plan, &mut table).await;
    }
    if plan.wants('h') {
        stop::stopping(&plan, &mut table).await;
    }
    table.print();
    table.write(Path::new(env!("CARGO_MANIFEST_DIR")));
}

/// The floor: a bare isolate and context, and Atoll's own load, as CPU time without any HTTP.
fn floor(table: &mut table::Table) {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["run", "--quiet", "--release", "-p", "atoll-runtime", "--example", "floor"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    let text = match &output {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(_) => String::new(),
    };
    let line = text.lines().rev().find(|line| line.starts_with('{')).unwrap_or_default();
    let Ok(Value::Object(values)) = serde_json::from_str(line) else {
        let error =
            output.map_or_else(|e| e.to_string(), |o| String::from_utf8_lossy(&o.stderr).into_owned());
        eprintln!("the floor could not be measured: {error}");
        return;
    };
    for (name, value) in &values {
        if let Some(value) = value.as_f64() {
            table.row("floor", name, "", &[("atoll", value)]);
        }
    }
    let pair = (values.get("load_cpu_us"), values.get("floor_cpu_us"));
    if let (Some(Value::Number(load)), Some(Value::Number(floor))) = pair
        && let (Some(load), Some(floor)) = (load.as_f64(), floor.as_f64())
    {
        table.row("floor", "CPU per load / floor", "at most 1.6", &[("atoll", load / floor)]);
    }
}
