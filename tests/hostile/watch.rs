//! What the neighbour notices: a client of its own that asks all the while, and how long its answers took.
//!
//! The ratio of its p99 under an attack to that without one is printed with each row, and asserted nowhere: the machine that
//! runs the tests is shared. `benches/` has the numbers that are promises.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::support::atoll::{NEIGHBOUR, host_name};
use crate::support::client::Connection;
use crate::support::worker::Request;

/// Pause between two questions of the neighbour.
const PAUSE: Duration = Duration::from_millis(5);
/// Questions that find everything cold, and are not compared with.
const WARM_UP: usize = 20;
/// Questions without an attack, for comparison.
const BASE: usize = 100;
/// Fewer answers than this within a row say nothing about their p99.
const ENOUGH: usize = 20;

/// The neighbour's client.
pub(super) struct Watch {
    taken: Arc<Mutex<Vec<Duration>>>,
    task: tokio::task::JoinHandle<()>,
    base: Duration,
    since: Instant,
}

impl Watch {
    /// Begins to ask, and looks how long it takes while nobody attacks.
    pub(super) async fn begin(address: SocketAddr) -> Self {
        let taken = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(ask(address, taken.clone()));
        for count in [WARM_UP, BASE] {
            taken.lock().unwrap_or_else(PoisonError::into_inner).clear();
            while taken.lock().unwrap_or_else(PoisonError::into_inner).len() < count && !task.is_finished() {
                tokio::time::sleep(PAUSE).await;
            }
        }
        let base = p99(&mut taken.lock().unwrap_or_else(PoisonError::into_inner));
        Self { taken, task, base, since: Instant::now() }
    }

    /// A row begins.
    pub(super) fn row(&mut self) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.since = Instant::now();
    }

    /// A row is over: its time, and the neighbour's p99 against that without an attack, if it lasted long enough.
    pub(super) fn end(&mut self) -> (Duration, Option<f64>) {
        let time = self.since.elapsed();
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let enough = taken.len() >= ENOUGH;
        let ratio = p99(&mut taken).as_secs_f64() / self.base.as_secs_f64().max(1e-6);
        (time, enough.then_some(ratio))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn ask(address: SocketAddr, taken: Arc<Mutex<Vec<Duration>>>) {
    let host = host_name(NEIGHBOUR, "ping");
    while let Ok(mut connection) = Connection::open(address, &host).await {
        loop {
            let begin = Instant::now();
            if connection.send(&Request::new("GET", "/")).await.is_err() {
                break;
            }
            taken.lock().unwrap_or_else(PoisonError::into_inner).push(begin.elapsed());
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Of what was taken, which is put in order.
fn p99(taken: &mut [Duration]) -> Duration {
    taken.sort_unstable();
    taken.get((taken.len() * 99 / 100).min(taken.len().saturating_sub(1))).copied().unwrap_or_default()
}
