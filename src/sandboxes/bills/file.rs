//! The file of bills: two tables, read once and written in whole rows.

use std::path::Path;

use atoll_container_bridge::manager::{Owner, Usage};
use rusqlite::{Connection, Row, params};

use super::{Alive, Bill};
use crate::store::StoreError;
use crate::store::db::Stopped;
use crate::store::schema;

/// The file in the data directory.
const FILE: &str = "bills.db";
/// Format of the tables.
const FORMAT: i64 = 1;

const TABLES: &str = "
CREATE TABLE bill (
    tenant TEXT NOT NULL,
    user TEXT NOT NULL,
    changed INTEGER NOT NULL,
    cpu_us INTEGER NOT NULL,
    memory_byte_seconds INTEGER NOT NULL,
    memory_bytes_peak INTEGER NOT NULL,
    oom_kills INTEGER NOT NULL,
    wall_us INTEGER NOT NULL,
    bytes_in INTEGER NOT NULL,
    bytes_out INTEGER NOT NULL,
    uses INTEGER NOT NULL,
    PRIMARY KEY (tenant, user)
) STRICT, WITHOUT ROWID;
CREATE TABLE alive (
    sandbox TEXT PRIMARY KEY NOT NULL,
    tenant TEXT NOT NULL,
    user TEXT NOT NULL,
    cpu_us INTEGER NOT NULL,
    memory_byte_seconds INTEGER NOT NULL,
    memory_bytes_peak INTEGER NOT NULL,
    oom_kills INTEGER NOT NULL,
    wall_us INTEGER NOT NULL,
    bytes_in INTEGER NOT NULL,
    bytes_out INTEGER NOT NULL,
    uses INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";
const COLUMNS: &str =
    "cpu_us, memory_byte_seconds, memory_bytes_peak, oom_kills, wall_us, bytes_in, bytes_out, uses";

/// Why bills cannot be kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum BillsError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the file of bills failed: {0}")]
    Sqlite(#[from] rusqlite::Error),
}

impl From<Stopped> for BillsError {
    fn from(_: Stopped) -> Self {
        Self::Store(StoreError::Stopped)
    }
}

/// Opens or makes it in this directory.
pub(super) fn open(directory: &Path) -> Result<Connection, BillsError> {
    let fail = |source| StoreError::Directory { path: directory.to_owned(), source };
    std::fs::create_dir_all(directory).map_err(fail)?;
    Ok(Connection::open(directory.join(FILE))?)
}

/// Makes the tables where there are none.
pub(super) fn prepare(connection: &Connection) -> Result<(), BillsError> {
    Ok(schema::prepare(connection, TABLES, FORMAT)?)
}

fn usage(row: &Row<'_>, first: usize) -> rusqlite::Result<Usage> {
    Ok(Usage {
        cpu_us: row.get(first)?,
        memory_byte_seconds: row.get(first + 1)?,
        memory_bytes: 0,
        memory_bytes_peak: row.get(first + 2)?,
        oom_kills: row.get(first + 3)?,
        wall_us: row.get(first + 4)?,
        bytes_in: row.get(first + 5)?,
        bytes_out: row.get(first + 6)?,
        uses: row.get(first + 7)?,
    })
}

pub(super) type Stored = (Vec<(Owner, Bill)>, Vec<Alive>);

pub(super) fn read(connection: &Connection) -> Result<Stored, BillsError> {
    let sql = format!("SELECT tenant, user, changed, {COLUMNS} FROM bill");
    let mut statement = connection.prepare(&sql)?;
    let bills = statement.query_map([], |row| {
        let owner = Owner { tenant: row.get(0)?, user: row.get(1)? };
        Ok((owner, Bill { changed: row.get(2)?, usage: usage(row, 3)? }))
    })?;
    let bills = bills.collect::<Result<_, _>>()?;
    let mut statement = connection.prepare(&format!("SELECT sandbox, tenant, user, {COLUMNS} FROM alive"))?;
    let alive = statement.query_map([], |row| {
        let owner = Owner { tenant: row.get(1)?, user: row.get(2)? };
        Ok((row.get(0)?, owner, usage(row, 3)?))
    })?;
    Ok((bills, alive.collect::<Result<_, _>>()?))
}

/// Numbers as SQLite has them, which ends at 2^63.
fn numbers(usage: &Usage) -> [u64; 8] {
    let Usage {
        cpu_us,
        memory_byte_seconds,
        memory_bytes_peak,
        oom_kills,
        wall_us,
        bytes_in,
        bytes_out,
        uses,
        ..
    } = *usage;
    [cpu_us, memory_byte_seconds, memory_bytes_peak, oom_kills, wall_us, bytes_in, bytes_out, uses]
        .map(|number| number.min(i64::MAX as u64))
}

pub(super) fn store(
    tx: &Connection,
    bills: &[(Owner, Bill)],
    removed: &[Owner],
    alive: &[Alive],
) -> Result<(), BillsError> {
    let mut statement = tx.prepare("DELETE FROM bill WHERE tenant = ?1 AND user = ?2")?;
    for Owner { tenant, user } in removed {
        statement.execute(params![tenant, user])?;
    }
    let mut statement = tx.prepare(&format!(
        "INSERT OR REPLACE INTO bill (tenant, user, changed, {COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)"
    ))?;
    for (Owner { tenant, user }, bill) in bills {
        let [a, b, c, d, e, f, g, h] = numbers(&bill.usage);
        statement.execute(params![tenant, user, bill.changed, a, b, c, d, e, f, g, h])?;
    }
    tx.execute("DELETE FROM alive", [])?;
    let mut statement = tx.prepare(&format!(
        "INSERT INTO alive (sandbox, tenant, user, {COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)"
    ))?;
    for (sandbox, Owner { tenant, user }, usage) in alive {
        let [a, b, c, d, e, f, g, h] = numbers(usage);
        statement.execute(params![sandbox, tenant, user, a, b, c, d, e, f, g, h])?;
    }
    Ok(())
}
