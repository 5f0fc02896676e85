//! One SQLite connection: calls run on the blocking pool, one at a time.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, Transaction, TransactionBehavior};

/// The task that talked to SQLite was torn down: the server is shutting down.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopped;

/// A handle on the connection.
#[derive(Clone)]
pub(crate) struct Db(Arc<Mutex<Connection>>);

impl Db {
    /// Opens on the blocking pool.
    pub(crate) async fn open<E>(
        open: impl FnOnce() -> Result<Connection, E> + Send + 'static,
    ) -> Result<Self, E>
    where
        E: From<Stopped> + Send + 'static,
    {
        let opened = tokio::task::spawn_blocking(open).await.map_err(|_| Stopped)?;
        Ok(Self(Arc::new(Mutex::new(opened?))))
    }

    /// Work that only reads.
    pub(crate) async fn with<T, E>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Stopped> + Send + 'static,
    {
        let connection = self.0.clone();
        let work = move || work(&mut connection.lock().unwrap_or_else(PoisonError::into_inner));
        tokio::task::spawn_blocking(work).await.map_err(|_| Stopped)?
    }

    /// Work in one transaction: all of it or nothing.
    pub(crate) async fn write<T, E>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Stopped> + From<rusqlite::Error> + Send + 'static,
    {
        self.with(move |connection| {
            let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = work(&tx)?;
            tx.commit()?;
            Ok(value)
        })
        .await
    }
}
