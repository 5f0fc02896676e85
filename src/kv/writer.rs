//! The one thread that writes.
//!
//! ```text
//!  queue ──▶ BEGIN ▸ step in a savepoint ▸ step in a savepoint ▸ … ▸ COMMIT ──▶ each caller is told
//! ```
//!
//! A flush to disk takes longer than a step, so all steps that wait share one. A step that fails takes nothing of the others
//! with it; nobody is told that a step is done before it is on disk.

use std::sync::Arc;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::KvError;
use super::lease::Leases;

/// Steps of one transaction.
const STEPS_PER_COMMIT_MAX: usize = 64;
/// Steps that wait in the queue; more wait before it.
const QUEUE_MAX: usize = 64;

/// Tells a caller whether what its step did is on disk.
type Tell = Box<dyn FnOnce(Result<(), KvError>) + Send>;
/// A step: runs in the transaction, if there is one.
type Step = Box<dyn FnOnce(Result<&Connection, KvError>) -> Tell + Send>;

/// The end of the queue where steps go in.
#[derive(Debug)]
pub(super) struct Writer {
    steps: mpsc::Sender<Step>,
}

impl Writer {
    /// Starts the thread. It ends when the queue does.
    pub(super) fn start(connection: Connection, leases: Arc<Leases>) -> Result<Self, KvError> {
        let (steps, queue) = mpsc::channel(QUEUE_MAX);
        std::thread::Builder::new()
            .name("kv-writer".into())
            .spawn(move || run(&connection, queue, &leases))
            .map_err(|error| KvError::Thread(Arc::new(error)))?;
        Ok(Self { steps })
    }

    /// Runs a step; what it did is on disk when this returns well.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, KvError> + Send + 'static,
    ) -> Result<T, KvError> {
        let (tell, told) = oneshot::channel();
        let step: Step = Box::new(move |db| {
            let result = db.and_then(|db| in_savepoint(db, work));
            Box::new(move |committed| {
                // A caller that went away need not know.
                let _ = tell.send(committed.and(result));
            })
        });
        self.steps.send(step).await.map_err(|_| KvError::Stopped)?;
        told.await.map_err(|_| KvError::Stopped)?
    }
}

fn run(connection: &Connection, mut queue: mpsc::Receiver<Step>, leases: &Leases) {
    let mut steps = Vec::with_capacity(STEPS_PER_COMMIT_MAX);
    while queue.blocking_recv_many(&mut steps, STEPS_PER_COMMIT_MAX) > 0 {
        let (tells, result) = commit(connection, &mut steps);
        leases.settle();
        for tell in tells {
            tell(result.clone());
        }
    }
}

fn commit(connection: &Connection, steps: &mut Vec<Step>) -> (Vec<Tell>, Result<(), KvError>) {
    let begun = connection.execute_batch("BEGIN IMMEDIATE").map_err(KvError::from);
    let db = begun.map(|()| connection);
    let tells = steps.drain(..).map(|step| step(db.clone())).collect();
    let committed = db.and_then(|db| Ok(db.execute_batch("COMMIT")?));
    if let Err(error) = &committed {
        tracing::error!(%error, "the key-value store cannot be written");
        if !connection.is_autocommit() {
            let _ = connection.execute_batch("ROLLBACK");
        }
    }
    (tells, committed)
}

fn in_savepoint<T>(
    db: &Connection,
    work: impl FnOnce(&Connection) -> Result<T, KvError>,
) -> Result<T, KvError> {
    db.prepare("SAVEPOINT step")?.execute([])?;
    let result = work(db);
    if result.is_err() {
        db.prepare("ROLLBACK TO step")?.execute([])?;
    }
    db.prepare("RELEASE step")?.execute([])?;
    result
}
