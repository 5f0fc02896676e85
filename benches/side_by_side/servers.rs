//! The servers under test, each serving the same workers.

use std::net::SocketAddr;

use crate::support::atoll::{Atoll, NEIGHBOUR, NEIGHBOUR_TOKEN, Options, TENANT, TOKEN, host_name};
use crate::support::memory::{self, Memory};
use crate::support::worker::Worker;
use crate::support::workerd::Workerd;

/// Shares wide enough never to matter here: admission is not what is measured.
const WIDE_SHARES: &str = "concurrent_max = 100000\nexecutions_max = 100000\nloads_per_second = 10000000\n\
     loads_burst = 10000000\nlimits = { subrequests = 10000 }";
/// Clock ticks per second of `/proc/PID/stat`, the same on every Linux that Rust supports.
const TICKS_PER_SECOND: u64 = 100;

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The oracle.
    Workerd,
    /// Gateway and isolate host in two processes.
    AtollWall,
    /// Both in one process.
    AtollInProcess,
}

impl Kind {
    /// Its column in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Workerd => "workerd",
            Self::AtollWall => "atoll",
            Self::AtollInProcess => "atoll in-process",
        }
    }
}

/// A running server.
pub(crate) enum Server {
    Workerd(Workerd),
    Atoll(Box<Atoll>),
}

/// Where one worker answers.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) host: String,
}

impl Server {
    /// Starts one; `neighbours` belong to another tenant where there are tenants.
    pub(crate) async fn start(kind: Kind, workers: &[Worker], neighbours: &[Worker]) -> Self {
        if kind == Kind::Workerd {
            return Self::Workerd(Workerd::start(&[workers, neighbours].concat()));
        }
        let isolate_hosts = u32::from(kind == Kind::AtollWall);
        let config = std::env::var("ATOLL_BENCH_CONFIG").unwrap_or_default();
        let options = Options { isolate_hosts, config, tenant: WIDE_SHARES.into(), ..Options::default() };
        let atoll = Atoll::start(options).await;
        for worker in workers {
            atoll.deploy_as(TOKEN, worker).await;
        }
        for worker in neighbours {
            atoll.deploy_as(NEIGHBOUR_TOKEN, worker).await;
        }
        Self::Atoll(Box::new(atoll))
    }

    /// A worker of the tenant under test.
    pub(crate) fn target(&self, worker: &str) -> Target {
        self.target_of(TENANT, worker)
    }

    /// A worker of the other tenant.
    pub(crate) fn neighbour(&self, worker: &str) -> Target {
        self.target_of(NEIGHBOUR, worker)
    }

    fn target_of(&self, tenant: &str, worker: &str) -> Target {
        let host = host_name(tenant, worker);
        match self {
            Self::Workerd(server) => Target { address: server.address(worker), host },
            Self::Atoll(server) => Target { address: server.address(), host },
        }
    }

    fn pid(&self) -> u32 {
        match self {
            Self::Workerd(server) => server.pid(),
            Self::Atoll(server) => server.pid(),
        }
    }

    /// Memory of all its processes.
    pub(crate) fn memory(&self) -> Memory {
        memory::tree(self.pid())
    }

    /// CPU time of all its processes, in microseconds.
    pub(crate) fn cpu_us(&self) -> u64 {
        memory::members(self.pid()).into_iter().map(|pid| ticks(pid) * 1_000_000 / TICKS_PER_SECOND).sum()
    }
}

/// User and system time of one process, in clock ticks.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let Some((_, rest)) = stat.rsplit_once(") ") else { return 0 };
    // Fields 14 and 15 of the line; the rest begins with field 3.
    rest.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
}
