//! Deployments at rest: SQLite in the data directory.
//!
//! A version is immutable. Which version of a worker is active is one row, changed in the same transaction that
//! adds or picks the version, so a crash at any point leaves the old state or the new one.

pub(crate) mod db;
pub(crate) mod schema;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use atoll_loader::bundle::CodeHash;
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use db::{Db, Stopped};

/// Versions kept of one worker; beyond it the oldest that is not active goes.
pub const VERSIONS_MAX: u64 = 100;
/// Workers of one tenant.
pub const WORKERS_MAX: u64 = 1_000;

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The data directory cannot be used.
    #[error("cannot use the data directory {path}: {source}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// SQLite failed.
    #[error("the deployment store failed: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// Written by a newer Atoll.
    #[error("the deployment store has format {0}, which this version does not know")]
    Format(i64),
    /// What is stored is not what was stored.
    #[error("the deployment store is damaged: {0}")]
    Damaged(&'static str),
    /// A bound of this module.
    #[error("a tenant can have at most {WORKERS_MAX} workers")]
    TooManyWorkers,
    /// Another worker has this host name.
    #[error("the host name {0} is taken by another worker")]
    HostTaken(String),
    /// There is no such worker or version.
    #[error("there is no such worker or version")]
    NotFound,
    /// The task that talked to SQLite was torn down.
    #[error("the server is shutting down")]
    Stopped,
}

/// One version, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Whose.
    pub tenant: String,
    /// Of which worker.
    pub worker: String,
    /// Its number, from 1.
    pub version: u64,
    /// Unique over all versions that ever were, so that no name made from it is ever reused.
    pub id: u64,
    /// Its code.
    pub hash: CodeHash,
    /// Everything else, as JSON text.
    pub settings: String,
    /// When it was deployed, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// Whether it serves.
    pub active: bool,
}

/// What to deploy.
#[derive(Clone, Debug)]
pub struct NewVersion {
    /// Whose.
    pub tenant: String,
    /// Which worker.
    pub worker: String,
    /// Hash of the code.
    pub hash: CodeHash,
    /// The code, in its canonical encoding.
    pub encoded: Bytes,
    /// Everything else, as JSON text.
    pub settings: String,
    /// Custom host names it claims.
    pub hosts: Vec<String>,
    /// Now, in milliseconds since the Unix epoch.
    pub created_ms: u64,
}

/// A handle on the store. Calls run on the blocking pool, one at a time.
#[derive(Clone)]
pub struct Store {
    db: Db,
}

impl Store {
    /// Opens or creates the store in this directory.
    pub async fn open(directory: &Path) -> Result<Self, StoreError> {
        let directory = directory.to_owned();
        let open = move || -> Result<Connection, StoreError> {
            let fail = |source| StoreError::Directory { path: directory.clone(), source };
            std::fs::create_dir_all(&directory).map_err(fail)?;
            let connection = Connection::open(directory.join("deployments.db"))?;
            schema::prepare(&connection, schema::TABLES, schema::FORMAT)?;
            Ok(connection)
        };
        Ok(Self { db: Db::open(open).await? })
    }

    /// Adds a version and makes it the active one.
    pub async fn deploy(&self, new: NewVersion) -> Result<Version, StoreError> {
        self.db.write(move |tx| {
            let (tenant, worker) = (&new.tenant, &new.worker);
            let count = "SELECT count(*) FROM worker WHERE tenant = ?1 AND name <> ?2";
            let others: u64 = tx.query_row(count, params![tenant, worker], |row| row.get(0))?;
            if others >= WORKERS_MAX {
                return Err(StoreError::TooManyWorkers);
            }
            tx.execute(
                "INSERT INTO bundle (hash, encoded) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
                params![new.hash.0, &new.encoded[..]],
            )?;
            let last = "SELECT coalesce(max(version), 0) FROM version WHERE tenant = ?1 AND worker = ?2";
            let last: u64 = tx.query_row(last, params![tenant, worker], |row| row.get(0))?;
            let version = last + 1;
            tx.execute(
                "INSERT INTO version (tenant, worker, version, hash, settings, created_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![tenant, worker, version, new.hash.0, new.settings, new.created_ms],
            )?;
            let id = u64::try_from(tx.last_insert_rowid()).map_err(|_| StoreError::Damaged("version id"))?;
            activate(tx, tenant, worker, version, &new.hosts)?;
            tx.execute(
                "DELETE FROM version WHERE tenant = ?1 AND worker = ?2 AND version <= ?3",
                params![tenant, worker, version.saturating_sub(VERSIONS_MAX)],
            )?;
            sweep(tx)?;
            Ok(Version {
                tenant: new.tenant,
                worker: new.worker,
                version,
                id,
                hash: new.hash,
                settings: new.settings,
                created_ms: new.created_ms,
                active: true,
            })
        })
        .await
    }

    /// Makes an older version active: the given one, or the one before the active one. `hosts` reads the claims
    /// out of a version's settings.
    pub async fn rollback(
        &self,
        tenant: &str,
        worker: &str,
        version: Option<u64>,
        hosts: fn(&str) -> Vec<String>,
    ) -> Result<Version, StoreError> {
        let (tenant, worker) = (tenant.to_owned(), worker.to_owned());
        self.db
            .write(move |tx| {
                let active = "SELECT active FROM worker WHERE tenant = ?1 AND name = ?2";
                let active: Option<u64> =
                    tx.query_row(active, params![tenant, worker], |row| row.get(0)).optional()?;
                let active = active.ok_or(StoreError::NotFound)?;
                let all = versions(tx, &tenant, &worker)?;
                let picked = match version {
                    Some(version) => all.into_iter().find(|candidate| candidate.version == version),
                    None => all
                        .into_iter()
                        .filter(|candidate| candidate.version < active)
                        .max_by_key(|v| v.version),
                };
                let mut picked = picked.ok_or(StoreError::NotFound)?;
                activate(tx, &tenant, &worker, picked.version, &hosts(&picked.settings))?;
                picked.active = true;
                Ok(picked)
            })
            .await
    }

    /// Deletes a worker with all its versions.
    pub async fn delete(&self, tenant: &str, worker: &str) -> Result<(), StoreError> {
        let (tenant, worker) = (tenant.to_owned(), worker.to_owned());
        self.db
            .write(move |tx| {
                let gone = tx
                    .execute("DELETE FROM worker WHERE tenant = ?1 AND name = ?2", params![tenant, worker])?;
                if gone == 0 {
                    return Err(StoreError::NotFound);
                }
                tx.execute("DELETE FROM version WHERE tenant = ?1 AND worker = ?2", params![tenant, worker])?;
                tx.execute("DELETE FROM host WHERE tenant = ?1 AND worker = ?2", params![tenant, worker])?;
                sweep(tx)
            })
            .await
    }

    /// The versions of one worker, newest first.
    pub async fn versions(&self, tenant: &str, worker: &str) -> Result<Vec<Version>, StoreError> {
        let (tenant, worker) = (tenant.to_owned(), worker.to_owned());
        self.db.with(move |connection| versions(connection, &tenant, &worker)).await
    }

    /// The active versions of one tenant, or of all, by worker name.
    pub async fn active(&self, tenant: Option<&str>) -> Result<Vec<Version>, StoreError> {
        let tenant = tenant.map(str::to_owned);
        self.db
            .with(move |connection| {
                let query = format!(
                    "{SELECT} WHERE v.version = w.active AND (?1 IS NULL OR v.tenant = ?1) ORDER BY v.worker"
                );
                let mut statement = connection.prepare(&query)?;
                let rows = statement.query_map(params![tenant], read)?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    /// The code of this hash.
    pub async fn bundle(&self, hash: CodeHash) -> Result<Bytes, StoreError> {
        self.db
            .with(move |connection| {
                let query = "SELECT encoded FROM bundle WHERE hash = ?1";
                let encoded: Option<Vec<u8>> =
                    connection.query_row(query, params![hash.0], |row| row.get(0)).optional()?;
                encoded.map(Bytes::from).ok_or(StoreError::Damaged("a bundle is missing"))
            })
            .await
    }

    /// Whether the store answers.
    pub async fn ready(&self) -> bool {
        let answers: Result<(), StoreError> =
            self.db.with(|connection| Ok(connection.query_row("SELECT 1", [], |_| Ok(()))?)).await;
        answers.is_ok()
    }
}

impl From<Stopped> for StoreError {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

const SELECT: &str = "SELECT v.tenant, v.worker, v.version, v.id, v.hash, v.settings, v.created_ms, v.version = w.active \
     FROM version v JOIN worker w ON w.tenant = v.tenant AND w.name = v.worker";

fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Version> {
    Ok(Version {
        tenant: row.get(0)?,
        worker: row.get(1)?,
        version: row.get(2)?,
        id: row.get(3)?,
        hash: CodeHash(row.get(4)?),
        settings: row.get(5)?,
        created_ms: row.get(6)?,
        active: row.get(7)?,
    })
}

fn versions(connection: &Connection, tenant: &str, worker: &str) -> Result<Vec<Version>, StoreError> {
    let query = format!("{SELECT} WHERE v.tenant = ?1 AND v.worker = ?2 ORDER BY v.version DESC");
    let mut statement = connection.prepare(&query)?;
    let rows = statement.query_map(params![tenant, worker], read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn activate(
    tx: &Transaction<'_>,
    tenant: &str,
    worker: &str,
    version: u64,
    hosts: &[String],
) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO worker (tenant, name, active) VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET active = ?3",
        params![tenant, worker, version],
    )?;
    tx.execute("DELETE FROM host WHERE tenant = ?1 AND worker = ?2", params![tenant, worker])?;
    for host in hosts {
        let claim = "INSERT INTO host (name, tenant, worker) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
        if tx.execute(claim, params![host, tenant, worker])? == 0 {
            return Err(StoreError::HostTaken(host.clone()));
        }
    }
    Ok(())
}

/// Deletes code that no version names any more.
fn sweep(tx: &Transaction<'_>) -> Result<(), StoreError> {
    tx.execute("DELETE FROM bundle WHERE hash NOT IN (SELECT hash FROM version)", [])?;
    Ok(())
}
