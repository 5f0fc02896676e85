//! What tenants hold, at rest: sealed secrets, proxies, hashes of tokens, and what was revoked. One SQLite file, `access.db`,
//! that only the gateway's user can read. Values are sealed before they come here.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::secrets::seal::Sealed;
use crate::config::Scope;
use crate::store::StoreError;
use crate::store::db::{Db, Stopped};
use crate::store::schema::prepare;

/// Format of the tables.
const FORMAT: i64 = 1;
/// Secrets of one tenant.
pub(crate) const SECRETS_MAX: u64 = 1_000;
/// API tokens of one tenant, besides those in the configuration.
pub(crate) const TOKENS_MAX: u64 = 1_000;
/// Proxies of one tenant, besides the operator's.
pub(crate) const OWN_PROXIES_MAX: u64 = 1_000;
/// Revocations of one tenant that still matter.
pub(crate) const REVOKED_MAX: u64 = 10_000;

const TABLES: &str = "
CREATE TABLE counter (last INTEGER NOT NULL) STRICT;
INSERT INTO counter (last) VALUES (0);
CREATE TABLE master (id TEXT PRIMARY KEY NOT NULL, proof BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE secret (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    key_id TEXT NOT NULL,
    wrapped BLOB NOT NULL,
    value BLOB NOT NULL,
    created_ms INTEGER NOT NULL,
    changed_ms INTEGER NOT NULL,
    PRIMARY KEY (tenant, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE proxy (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    settings TEXT NOT NULL,
    PRIMARY KEY (tenant, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE token (
    id TEXT PRIMARY KEY NOT NULL,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    sha256 BLOB NOT NULL UNIQUE,
    scopes TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER
) STRICT, WITHOUT ROWID;
CREATE TABLE revoked (
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    until_ms INTEGER NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;
";

/// Why something could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The file cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// SQLite failed.
    #[error("the store of secrets and tokens failed: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// There are as many as there may be.
    #[error("a tenant can have at most {max} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The bound.
        max: u64,
    },
    /// It is not there.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// It could not be sealed or opened.
    #[error(transparent)]
    Seal(#[from] super::secrets::seal::SealError),
    /// What is stored is not what was stored.
    #[error("the store of secrets and tokens is damaged: {0}")]
    Damaged(&'static str),
}

impl From<Stopped> for KeepError {
    fn from(_: Stopped) -> Self {
        Self::Store(StoreError::Stopped)
    }
}

/// One secret, sealed.
#[derive(Clone, Debug)]
pub(crate) struct SecretRow {
    pub(crate) tenant: String,
    pub(crate) name: String,
    pub(crate) sealed: Sealed,
    pub(crate) created_ms: u64,
    pub(crate) changed_ms: u64,
}

/// One API token, as its hash.
#[derive(Clone, Debug)]
pub(crate) struct TokenRow {
    pub(crate) id: String,
    pub(crate) tenant: String,
    pub(crate) name: String,
    pub(crate) sha256: [u8; 32],
    pub(crate) scopes: Vec<Scope>,
    pub(crate) created_ms: u64,
    pub(crate) expires_ms: Option<u64>,
}

/// A handle on the file.
#[derive(Clone)]
pub(crate) struct AccessStore {
    db: Db,
    /// What SQLite said last about changes by others; see [`AccessStore::changed`].
    seen: Arc<AtomicI64>,
}

/// No version that SQLite gives.
const UNSEEN: i64 = -1;

impl AccessStore {
    /// Opens or creates it in this directory.
    pub(crate) async fn open(directory: &Path) -> Result<Self, KeepError> {
        let directory = directory.to_owned();
        let db = Db::open(move || open(&directory)).await?;
        let store = Self { db, seen: Arc::new(AtomicI64::new(UNSEEN)) };
        // Before anything is read: what changes from now on is seen as changed.
        store.changed().await?;
        Ok(store)
    }

    /// Whether another process, or another handle, changed anything since this was asked last.
    pub(crate) async fn changed(&self) -> Result<bool, KeepError> {
        let version = |connection: &mut Connection| -> Result<i64, KeepError> {
            Ok(connection.pragma_query_value(None, "data_version", |row| row.get(0))?)
        };
        let now = self.db.with(version).await?;
        Ok(self.seen.swap(now, Relaxed) != now)
    }

    /// Whoever asks next is told that something changed: what did could not be read.
    pub(crate) fn look_again(&self) {
        self.seen.store(UNSEEN, Relaxed);
    }

    /// Keeps what `seal` makes of a new version number in the place of what was there.
    pub(crate) async fn put_secret(
        &self,
        tenant: &str,
        name: &str,
        now_ms: u64,
        seal: impl FnOnce(u64) -> Result<Sealed, super::secrets::seal::SealError> + Send + 'static,
    ) -> Result<SecretRow, KeepError> {
        let (tenant, name) = (tenant.to_owned(), name.to_owned());
        self.db
            .write(move |tx| {
                room(tx, "secret", "secrets", &tenant, &name, SECRETS_MAX)?;
                // One count for all: no number is used twice, also not for a name that was deleted.
                tx.execute("UPDATE counter SET last = last + 1", [])?;
                let version: u64 = tx.query_row("SELECT last FROM counter", [], |row| row.get(0))?;
                let created = "SELECT created_ms FROM secret WHERE tenant = ?1 AND name = ?2";
                let created: Option<u64> =
                    tx.query_row(created, params![tenant, name], |row| row.get(0)).optional()?;
                let sealed = seal(version)?;
                let created_ms = created.unwrap_or(now_ms);
                tx.execute(
                    "INSERT OR REPLACE INTO secret (tenant, name, version, key_id, wrapped, value, created_ms, changed_ms) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                    params![tenant, name, version, sealed.key_id, sealed.wrapped, sealed.value, created_ms, now_ms],
                )?;
                Ok(SecretRow { tenant, name, sealed, created_ms, changed_ms: now_ms })
            })
            .await
    }

    /// All secrets of all tenants.
    pub(crate) async fn secrets(&self) -> Result<Vec<SecretRow>, KeepError> {
        self.db.with(|connection| secrets(connection)).await
    }

    /// Gives every secret that is not under this key what `rewrap` makes of it; how many there were.
    pub(crate) async fn rewrap(
        &self,
        key_id: &str,
        rewrap: impl Fn(&SecretRow) -> Result<Sealed, super::secrets::seal::SealError> + Send + 'static,
    ) -> Result<u64, KeepError> {
        let key_id = key_id.to_owned();
        self.db
            .write(move |tx| {
                let mut count = 0;
                for row in secrets(tx)?.into_iter().filter(|row| row.sealed.key_id != key_id) {
                    let sealed = rewrap(&row)?;
                    tx.execute(
                        "UPDATE secret SET key_id = ?3, wrapped = ?4 WHERE tenant = ?1 AND name = ?2",
                        params![row.tenant, row.name, sealed.key_id, sealed.wrapped],
                    )?;
                    count += 1;
                }
                Ok(count)
            })
            .await
    }

    /// What was sealed once under each master key, to know it again.
    pub(crate) async fn proofs(&self) -> Result<Vec<(String, Vec<u8>)>, KeepError> {
        self.db
            .with(|connection| {
                let mut statement = connection.prepare("SELECT id, proof FROM master")?;
                let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
                Ok(rows.collect::<Result<_, rusqlite::Error>>()?)
            })
            .await
    }

    /// Keeps the proof of a new master key.
    pub(crate) async fn put_proof(&self, id: &str, proof: Vec<u8>) -> Result<(), KeepError> {
        let id = id.to_owned();
        let sql = "INSERT OR IGNORE INTO master (id, proof) VALUES (?1, ?2)";
        self.db.write(move |tx| Ok(tx.execute(sql, params![id, proof]).map(|_| ())?)).await
    }

    /// Takes a secret away.
    pub(crate) async fn delete_secret(&self, tenant: &str, name: &str) -> Result<(), KeepError> {
        self.delete("secret", tenant, name).await
    }

    /// Keeps a proxy's settings.
    pub(crate) async fn put_proxy(
        &self,
        tenant: &str,
        name: &str,
        settings: String,
    ) -> Result<(), KeepError> {
        let (tenant, name) = (tenant.to_owned(), name.to_owned());
        self.db
            .write(move |tx| {
                room(tx, "proxy", "proxies", &tenant, &name, OWN_PROXIES_MAX)?;
                let sql = "INSERT OR REPLACE INTO proxy (tenant, name, settings) VALUES (?1, ?2, ?3)";
                Ok(tx.execute(sql, params![tenant, name, settings]).map(|_| ())?)
            })
            .await
    }

    /// All proxies of all tenants: tenant, name, settings.
    pub(crate) async fn proxies(&self) -> Result<Vec<(String, String, String)>, KeepError> {
        self.db
            .with(|connection| {
                let mut statement = connection.prepare("SELECT tenant, name, settings FROM proxy")?;
                let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
                Ok(rows.collect::<Result<_, rusqlite::Error>>()?)
            })
            .await
    }

    /// Takes a proxy away.
    pub(crate) async fn delete_proxy(&self, tenant: &str, name: &str) -> Result<(), KeepError> {
        self.delete("proxy", tenant, name).await
    }

    async fn delete(&self, table: &'static str, tenant: &str, name: &str) -> Result<(), KeepError> {
        let (tenant, name) = (tenant.to_owned(), name.to_owned());
        let sql = format!("DELETE FROM {table} WHERE tenant = ?1 AND name = ?2");
        self.db
            .write(move |tx| match tx.execute(&sql, params![tenant, name])? {
                0 => Err(KeepError::NotFound(table)),
                _ => Ok(()),
            })
            .await
    }

    /// Keeps a token's hash.
    pub(crate) async fn put_token(&self, row: TokenRow) -> Result<(), KeepError> {
        self.db
            .write(move |tx| {
                room(tx, "token", "API tokens", &row.tenant, "", TOKENS_MAX)?;
                let scopes = row.scopes.iter().map(|scope| scope.name()).collect::<Vec<_>>().join(" ");
                tx.execute(
                    "INSERT INTO token (id, tenant, name, sha256, scopes, created_ms, expires_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                    params![row.id, row.tenant, row.name, row.sha256, scopes, row.created_ms, row.expires_ms],
                )?;
                Ok(())
            })
            .await
    }

    /// All tokens of all tenants.
    pub(crate) async fn tokens(&self) -> Result<Vec<TokenRow>, KeepError> {
        self.db
            .with(|connection| {
                let sql = "SELECT id, tenant, name, sha256, scopes, created_ms, expires_ms FROM token";
                let mut statement = connection.prepare(sql)?;
                let read = |row: &rusqlite::Row<'_>| {
                    let scopes: String = row.get(4)?;
                    let row = TokenRow {
                        id: row.get(0)?,
                        tenant: row.get(1)?,
                        name: row.get(2)?,
                        sha256: row.get(3)?,
                        scopes: Vec::new(),
                        created_ms: row.get(5)?,
                        expires_ms: row.get(6)?,
                    };
                    Ok((row, scopes))
                };
                let rows: Vec<(TokenRow, String)> =
                    statement.query_map([], read)?.collect::<Result<_, rusqlite::Error>>()?;
                let scope = |name: &str| Scope::parse(name).ok_or(KeepError::Damaged("a token's scope"));
                let whole = |(mut row, scopes): (TokenRow, String)| {
                    row.scopes = scopes.split_whitespace().map(scope).collect::<Result<_, _>>()?;
                    Ok(row)
                };
                rows.into_iter().map(whole).collect()
            })
            .await
    }

    /// Takes a tenant's token away.
    pub(crate) async fn delete_token(&self, tenant: &str, id: &str) -> Result<(), KeepError> {
        let (tenant, id) = (tenant.to_owned(), id.to_owned());
        self.db
            .write(move |tx| {
                match tx.execute("DELETE FROM token WHERE tenant = ?1 AND id = ?2", params![tenant, id])? {
                    0 => Err(KeepError::NotFound("token")),
                    _ => Ok(()),
                }
            })
            .await
    }

    /// Remembers a revocation for as long as it matters, and forgets those that do not any more.
    pub(crate) async fn revoke(
        &self,
        tenant: &str,
        id: &str,
        until_ms: u64,
        now_ms: u64,
    ) -> Result<(), KeepError> {
        let (tenant, id) = (tenant.to_owned(), id.to_owned());
        self.db
            .write(move |tx| {
                tx.execute("DELETE FROM revoked WHERE until_ms < ?1", params![now_ms])?;
                let count = "SELECT count(*) FROM revoked WHERE tenant = ?1";
                let count: u64 = tx.query_row(count, params![tenant], |row| row.get(0))?;
                if count >= REVOKED_MAX {
                    return Err(KeepError::TooMany { what: "revocations", max: REVOKED_MAX });
                }
                let sql = "INSERT OR REPLACE INTO revoked (tenant, id, until_ms) VALUES (?1, ?2, ?3)";
                Ok(tx.execute(sql, params![tenant, id, until_ms]).map(|_| ())?)
            })
            .await
    }

    /// All revocations: tenant, id, until when.
    pub(crate) async fn revoked(&self) -> Result<Vec<(String, String, u64)>, KeepError> {
        self.db
            .with(|connection| {
                let mut statement = connection.prepare("SELECT tenant, id, until_ms FROM revoked")?;
                let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
                Ok(rows.collect::<Result<_, rusqlite::Error>>()?)
            })
            .await
    }
}

fn open(directory: &Path) -> Result<Connection, KeepError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let fail = |path: PathBuf| move |source| StoreError::Directory { path, source };
    std::fs::create_dir_all(directory).map_err(fail(directory.to_owned()))?;
    let path = directory.join("access.db");
    // Made here so that it is never readable for others; SQLite gives its side files the same mode.
    let mut options = std::fs::OpenOptions::new();
    options.create(true).append(true).mode(0o600).open(&path).map_err(fail(path.clone()))?;
    let connection = Connection::open(&path)?;
    // What is deleted is overwritten.
    connection.pragma_update(None, "secure_delete", true)?;
    prepare(&connection, TABLES, FORMAT)?;
    Ok(connection)
}

fn secrets(connection: &Connection) -> Result<Vec<SecretRow>, KeepError> {
    let sql = "SELECT tenant, name, version, key_id, wrapped, value, created_ms, changed_ms FROM secret";
    let mut statement = connection.prepare(sql)?;
    let read = |row: &rusqlite::Row<'_>| {
        let (version, key_id) = (row.get(2)?, row.get(3)?);
        let sealed = Sealed { version, key_id, wrapped: row.get(4)?, value: row.get(5)? };
        let (created_ms, changed_ms) = (row.get(6)?, row.get(7)?);
        Ok(SecretRow { tenant: row.get(0)?, name: row.get(1)?, sealed, created_ms, changed_ms })
    };
    Ok(statement.query_map([], read)?.collect::<Result<_, rusqlite::Error>>()?)
}

/// Whether one more of this name fits.
fn room(
    tx: &Transaction<'_>,
    table: &str,
    what: &'static str,
    tenant: &str,
    name: &str,
    max: u64,
) -> Result<(), KeepError> {
    let sql = format!("SELECT count(*) FROM {table} WHERE tenant = ?1 AND name <> ?2");
    let others: u64 = tx.query_row(&sql, params![tenant, name], |row| row.get(0))?;
    if others >= max { Err(KeepError::TooMany { what, max }) } else { Ok(()) }
}
