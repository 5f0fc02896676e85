//! The tables, and the settings that make them survive a crash.
//!
//! ```text
//!  namespace ─┬─▶ entry: a key, its metadata and expiry, and either its value or the value's number
//!   counts    │                                                                  │
//!             └── bytes and keys of all its entries          chunk ◀─────────────┘  pieces of a large value
//!                                                            dead: numbers of values that no entry has
//! ```
//!
//! A value that is being written is dead until its entry names it, so a crash at any moment leaves nothing but rows that the
//! next start removes. Chunks of one value have consecutive row numbers.

use rusqlite::Connection;

use super::KvError;

/// Format of the tables, in `user_version`.
const FORMAT: i64 = 1;
/// What the write-ahead log is cut back to after a checkpoint, in bytes.
const LOG_BYTES_KEPT: i64 = 64 * 1024 * 1024;

const TABLES: &str = "
CREATE TABLE namespace (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    bytes INTEGER NOT NULL DEFAULT 0,
    keys INTEGER NOT NULL DEFAULT 0,
    UNIQUE (tenant, name)
) STRICT;
CREATE TABLE entry (
    id INTEGER PRIMARY KEY,
    namespace INTEGER NOT NULL,
    key BLOB NOT NULL,
    expires_s INTEGER,
    metadata TEXT,
    bytes INTEGER NOT NULL,
    value INTEGER,
    inline BLOB,
    UNIQUE (namespace, key)
) STRICT;
CREATE INDEX entry_expires ON entry (expires_s) WHERE expires_s IS NOT NULL;
CREATE TABLE chunk (
    id INTEGER PRIMARY KEY,
    bytes BLOB NOT NULL
) STRICT;
CREATE TABLE dead (
    value INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    bytes INTEGER NOT NULL
) STRICT;
CREATE INDEX dead_tenant ON dead (tenant);
";

/// Makes the file ready for writing.
pub(super) fn prepare(connection: &Connection) -> Result<(), KvError> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // What was confirmed survives loss of power; many writes share one flush.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES_KEPT)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    match connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))? {
        FORMAT => Ok(()),
        0 => {
            let make = format!("BEGIN IMMEDIATE;{TABLES}PRAGMA user_version = {FORMAT};COMMIT;");
            Ok(connection.execute_batch(&make)?)
        }
        other => Err(KvError::Format(other)),
    }
}
