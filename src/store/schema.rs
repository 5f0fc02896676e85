//! The tables, and the settings that make them survive a crash.

use rusqlite::Connection;

use super::StoreError;

/// Format of the tables, in `user_version`.
pub(super) const FORMAT: i64 = 1;

pub(super) const TABLES: &str = "
CREATE TABLE bundle (
    hash BLOB PRIMARY KEY NOT NULL,
    encoded BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE worker (
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    active INTEGER NOT NULL,
    PRIMARY KEY (tenant, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE version (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    worker TEXT NOT NULL,
    version INTEGER NOT NULL,
    hash BLOB NOT NULL,
    settings TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    UNIQUE (tenant, worker, version)
) STRICT;
CREATE INDEX version_hash ON version (hash);
CREATE TABLE host (
    name TEXT PRIMARY KEY NOT NULL,
    tenant TEXT NOT NULL,
    worker TEXT NOT NULL
) STRICT, WITHOUT ROWID;
";

/// Makes the tables in an empty file; refuses one of another format.
pub(crate) fn prepare(connection: &Connection, tables: &str, format: i64) -> Result<(), StoreError> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // A deploy that was confirmed survives loss of power, not only of the process.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    match connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))? {
        found if found == format => Ok(()),
        0 => {
            connection
                .execute_batch(&format!("BEGIN IMMEDIATE;{tables}PRAGMA user_version = {format};COMMIT;"))?;
            Ok(())
        }
        other => Err(StoreError::Format(other)),
    }
}
