//! The statements. Nothing here waits, locks or looks at a clock: each function is one step within whatever transaction the caller
//! has open, and the time is an argument.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{CHUNKS_PER_VALUE_MAX, Key, KvError, KvQuota, LIST_KEYS_MAX, ListedKey, Page, Quota};

/// Expired entries that are removed in one step.
pub(super) const EXPIRED_AT_ONCE: u32 = 500;

/// Whose namespace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner<'a> {
    pub(super) tenant: &'a str,
    pub(super) namespace: &'a str,
    pub(super) quota: &'a KvQuota,
}

/// An entry as it lies in its table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) value_bytes: u64,
    pub(super) metadata: Option<String>,
    pub(super) expires_s: Option<u64>,
    pub(super) value: Stored,
}

/// Where a value lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    Inline(Vec<u8>),
    Chunks(i64),
}

/// An entry to be written.
#[derive(Clone, Debug)]
pub(super) struct NewRow {
    pub(super) metadata: Option<String>,
    pub(super) expires_s: Option<u64>,
    pub(super) value: Stored,
    /// Bytes of the value.
    pub(super) value_bytes: u64,
}

/// What to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ListOptions {
    /// Only keys that begin with this.
    pub(crate) prefix: Vec<u8>,
    /// Only keys after this one.
    pub(crate) after: Option<Vec<u8>>,
    /// At most so many keys.
    pub(crate) limit: usize,
}

fn namespace_id(db: &Connection, owner: Owner<'_>) -> Result<Option<i64>, KvError> {
    let mut query = db.prepare("SELECT id FROM namespace WHERE tenant = ?1 AND name = ?2")?;
    Ok(query.query_row(params![owner.tenant, owner.namespace], |row| row.get(0)).optional()?)
}

/// The namespace's number; made if it is not there and the tenant may have one more.
pub(super) fn namespace(db: &Connection, owner: Owner<'_>) -> Result<i64, KvError> {
    if let Some(id) = namespace_id(db, owner)? {
        return Ok(id);
    }
    let count = "SELECT count(*) FROM namespace WHERE tenant = ?1";
    let count: u64 = db.query_row(count, [owner.tenant], |row| row.get(0))?;
    if count >= u64::from(owner.quota.namespaces_max) {
        return Err(KvError::Full(Quota::Namespaces(owner.quota.namespaces_max)));
    }
    db.execute(
        "INSERT INTO namespace (tenant, name) VALUES (?1, ?2)",
        params![owner.tenant, owner.namespace],
    )?;
    Ok(db.last_insert_rowid())
}

/// The namespaces of a tenant by name, with their bytes and keys, expired ones that were not removed yet included.
pub(super) fn namespaces(db: &Connection, tenant: &str) -> Result<Vec<(String, u64, u64)>, KvError> {
    let mut query = db.prepare("SELECT name, bytes, keys FROM namespace WHERE tenant = ?1 ORDER BY name")?;
    let rows = query.query_map([tenant], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn get(db: &Connection, owner: Owner<'_>, key: &Key, now_s: u64) -> Result<Option<Row>, KvError> {
    let mut query = db.prepare(
        "SELECT e.bytes, e.metadata, e.expires_s, e.value, e.inline FROM entry e JOIN namespace n ON n.id = e.namespace
         WHERE n.tenant = ?1 AND n.name = ?2 AND e.key = ?3 AND (e.expires_s IS NULL OR e.expires_s > ?4)",
    )?;
    let read = |row: &rusqlite::Row<'_>| {
        let value: Option<i64> = row.get(3)?;
        let (bytes, metadata): (u64, Option<String>) = (row.get(0)?, row.get(1)?);
        let others = key.bytes().len() + metadata.as_ref().map_or(0, String::len);
        Ok(Row {
            value_bytes: bytes.saturating_sub(others as u64),
            metadata,
            expires_s: row.get(2)?,
            value: match value {
                Some(number) => Stored::Chunks(number),
                None => Stored::Inline(row.get(4)?),
            },
        })
    };
    Ok(query.query_row(params![owner.tenant, owner.namespace, key.bytes(), now_s], read).optional()?)
}

/// Writes an entry in place of whatever was there. `free` is asked to remove dead values of the tenant when there is no room.
pub(super) fn put(
    db: &Connection,
    owner: Owner<'_>,
    key: &Key,
    new: &NewRow,
    now_s: u64,
    free: impl Fn(&Connection) -> Result<(), KvError>,
) -> Result<(), KvError> {
    let namespace = namespace(db, owner)?;
    remove(db, owner.tenant, namespace, key)?;
    if let Stored::Chunks(number) = new.value {
        // From here on it is alive, if the transaction is.
        db.prepare("DELETE FROM dead WHERE value = ?1")?.execute([number])?;
    }
    let metadata_bytes = new.metadata.as_ref().map_or(0, String::len) as u64;
    let bytes = key.bytes().len() as u64 + metadata_bytes + new.value_bytes;
    let (number, inline) = match &new.value {
        Stored::Inline(value) => (None, Some(&value[..])),
        Stored::Chunks(number) => (Some(*number), None),
    };
    db.prepare(
        "INSERT INTO entry (namespace, key, expires_s, metadata, bytes, value, inline) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![namespace, key.bytes(), new.expires_s, new.metadata, bytes, number, inline])?;
    count(db, namespace, i64::try_from(bytes).unwrap_or(i64::MAX), 1)?;
    fit(db, owner, Some(namespace), now_s, free)
}

/// Refuses what is more than a quota allows, after room was made of what has expired and what is dead.
pub(super) fn fit(
    db: &Connection,
    owner: Owner<'_>,
    namespace: Option<i64>,
    now_s: u64,
    free: impl Fn(&Connection) -> Result<(), KvError>,
) -> Result<(), KvError> {
    match check_quota(db, owner, namespace) {
        Err(KvError::Full(_)) => {}
        other => return other,
    }
    expire(db, now_s, Some(owner.tenant))?;
    free(db)?;
    check_quota(db, owner, namespace)
}

/// Whether the tenant, and this namespace of it, hold no more than they may.
fn check_quota(db: &Connection, owner: Owner<'_>, namespace: Option<i64>) -> Result<(), KvError> {
    let Owner { tenant, quota, .. } = owner;
    if let Some(namespace) = namespace {
        let mut query = db.prepare("SELECT bytes, keys FROM namespace WHERE id = ?1")?;
        let (bytes, keys): (u64, u64) = query.query_row([namespace], |row| Ok((row.get(0)?, row.get(1)?)))?;
        within(bytes, quota.namespace_bytes_max, Quota::NamespaceBytes)?;
        within(keys, quota.namespace_keys_max, Quota::NamespaceKeys)?;
    }
    let mut query = db.prepare(
        "SELECT coalesce(sum(bytes), 0) + (SELECT coalesce(sum(bytes), 0) FROM dead WHERE tenant = ?1),
         coalesce(sum(keys), 0) FROM namespace WHERE tenant = ?1",
    )?;
    let (bytes, keys): (u64, u64) = query.query_row([tenant], |row| Ok((row.get(0)?, row.get(1)?)))?;
    within(bytes, quota.bytes_max, Quota::Bytes)?;
    within(keys, quota.keys_max, Quota::Keys)
}

fn within(used: u64, max: u64, quota: fn(u64) -> Quota) -> Result<(), KvError> {
    if used > max { Err(KvError::Full(quota(max))) } else { Ok(()) }
}

fn count(db: &Connection, namespace: i64, bytes: i64, keys: i64) -> Result<(), KvError> {
    let update = "UPDATE namespace SET bytes = bytes + ?2, keys = keys + ?3 WHERE id = ?1";
    db.prepare(update)?.execute([namespace, bytes, keys])?;
    Ok(())
}

/// Removes an entry. True if it was there, expired or not.
pub(super) fn delete(db: &Connection, owner: Owner<'_>, key: &Key) -> Result<bool, KvError> {
    match namespace_id(db, owner)? {
        None => Ok(false),
        Some(namespace) => remove(db, owner.tenant, namespace, key),
    }
}

fn remove(db: &Connection, tenant: &str, namespace: i64, key: &Key) -> Result<bool, KvError> {
    let mut gone =
        db.prepare("DELETE FROM entry WHERE namespace = ?1 AND key = ?2 RETURNING bytes, value, namespace")?;
    let gone = gone.query_map(params![namespace, key.bytes()], read_gone)?.collect::<Result<Vec<_>, _>>()?;
    forget(db, tenant, &gone)?;
    Ok(!gone.is_empty())
}

/// Bytes, value and namespace of a removed entry.
type Gone = (i64, Option<i64>, i64);

fn read_gone(row: &rusqlite::Row<'_>) -> rusqlite::Result<Gone> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

/// Takes removed entries out of the counts; their large values are dead.
fn forget(db: &Connection, tenant: &str, gone: &[Gone]) -> Result<(), KvError> {
    for (bytes, value, namespace) in gone {
        count(db, *namespace, -bytes, -1)?;
        if let Some(value) = value {
            let dead = "INSERT INTO dead (value, tenant, bytes) VALUES (?1, ?2, ?3)";
            db.prepare(dead)?.execute(params![value, tenant, bytes])?;
        }
    }
    Ok(())
}

/// Removes expired entries, of one tenant or of all, a bounded number of them. Gives how many.
pub(super) fn expire(db: &Connection, now_s: u64, tenant: Option<&str>) -> Result<u32, KvError> {
    let mut found = db.prepare(
        "SELECT e.id, n.tenant FROM entry e JOIN namespace n ON n.id = e.namespace
         WHERE e.expires_s <= ?1 AND (?2 IS NULL OR n.tenant = ?2) LIMIT ?3",
    )?;
    let rows =
        found.query_map(params![now_s, tenant, EXPIRED_AT_ONCE], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let rows = rows.collect::<Result<Vec<(i64, String)>, _>>()?;
    for (entry, tenant) in &rows {
        let mut gone = db.prepare("DELETE FROM entry WHERE id = ?1 RETURNING bytes, value, namespace")?;
        let gone = gone.query_map([entry], read_gone)?.collect::<Result<Vec<_>, _>>()?;
        forget(db, tenant, &gone)?;
    }
    Ok(u32::try_from(rows.len()).unwrap_or(u32::MAX))
}

/// Keys in the order of their bytes.
pub(super) fn list(
    db: &Connection,
    owner: Owner<'_>,
    options: &ListOptions,
    now_s: u64,
) -> Result<Page, KvError> {
    let limit = options.limit.clamp(1, LIST_KEYS_MAX);
    let mut query = db.prepare(
        "SELECT e.key, e.expires_s, e.metadata FROM entry e JOIN namespace n ON n.id = e.namespace
         WHERE n.tenant = ?1 AND n.name = ?2 AND e.key >= ?3 AND (?4 IS NULL OR e.key < ?4) AND (?5 IS NULL OR e.key > ?5)
         AND (e.expires_s IS NULL OR e.expires_s > ?6) ORDER BY e.key LIMIT ?7",
    )?;
    let read = |row: &rusqlite::Row<'_>| {
        let key: Vec<u8> = row.get(0)?;
        let name = String::from_utf8_lossy(&key).into_owned();
        Ok(ListedKey { name, expires_s: row.get(1)?, metadata: row.get(2)? })
    };
    let end = end_of(&options.prefix);
    let rows = query.query_map(
        params![owner.tenant, owner.namespace, options.prefix, end, options.after, now_s, limit + 1],
        read,
    )?;
    let mut keys = rows.collect::<Result<Vec<_>, _>>()?;
    let complete = keys.len() <= limit;
    keys.truncate(limit);
    Ok(Page { keys, complete })
}

/// The least string of bytes after all that begin with `prefix`; `None`: there is none.
fn end_of(prefix: &[u8]) -> Option<Vec<u8>> {
    let kept = prefix.iter().rposition(|byte| *byte < u8::MAX)?;
    let mut end = prefix[..=kept].to_vec();
    end[kept] += 1;
    Some(end)
}

/// Removes a namespace with all in it, a bounded number of entries at a time. True once it is gone.
pub(super) fn remove_namespace(db: &Connection, owner: Owner<'_>) -> Result<bool, KvError> {
    let Some(namespace) = namespace_id(db, owner)? else { return Err(KvError::NoNamespace) };
    let mut gone = db.prepare(
        "DELETE FROM entry WHERE id IN (SELECT id FROM entry WHERE namespace = ?1 LIMIT ?2) RETURNING bytes, value, namespace",
    )?;
    let gone = gone.query_map(params![namespace, EXPIRED_AT_ONCE], read_gone)?;
    let gone = gone.collect::<Result<Vec<_>, _>>()?;
    forget(db, owner.tenant, &gone)?;
    if gone.len() == EXPIRED_AT_ONCE as usize {
        return Ok(false);
    }
    db.execute("DELETE FROM namespace WHERE id = ?1", [namespace])?;
    Ok(true)
}

// ---- Large values -----------------------------------------------------------------------------------------------

/// A number for a value that is about to be written. It is never given again.
pub(super) fn new_value(db: &Connection, tenant: &str) -> Result<i64, KvError> {
    db.prepare("INSERT INTO dead (tenant, bytes) VALUES (?1, 0)")?.execute([tenant])?;
    Ok(db.last_insert_rowid())
}

/// Adds the next piece of a value.
pub(super) fn add_chunk(db: &Connection, value: i64, at: u32, bytes: &[u8]) -> Result<(), KvError> {
    debug_assert!(i64::from(at) < CHUNKS_PER_VALUE_MAX, "a value has a bounded number of pieces");
    let add = "INSERT INTO chunk (id, bytes) VALUES (?1, ?2)";
    db.prepare(add)?.execute(params![chunk_id(value, at), bytes])?;
    db.prepare("UPDATE dead SET bytes = bytes + ?2 WHERE value = ?1")?
        .execute(params![value, bytes.len()])?;
    Ok(())
}

/// A piece of a value, if it is there.
pub(super) fn chunk(db: &Connection, value: i64, at: u32) -> Result<Option<Vec<u8>>, KvError> {
    let mut query = db.prepare("SELECT bytes FROM chunk WHERE id = ?1")?;
    Ok(query.query_row([chunk_id(value, at)], |row| row.get(0)).optional()?)
}

/// Whether a value has its first piece.
pub(super) fn has_chunks(db: &Connection, value: i64) -> Result<bool, KvError> {
    Ok(db.prepare("SELECT 1 FROM chunk WHERE id = ?1")?.exists([chunk_id(value, 0)])?)
}

/// Numbers of dead values after this one, of one tenant or of all, a bounded number of them.
pub(super) fn dead(
    db: &Connection,
    after: i64,
    tenant: Option<&str>,
    limit: u32,
) -> Result<Vec<i64>, KvError> {
    let mut query = db.prepare(
        "SELECT value FROM dead WHERE value > ?1 AND (?2 IS NULL OR tenant = ?2) ORDER BY value LIMIT ?3",
    )?;
    let rows = query.query_map(params![after, tenant, limit], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Removes a dead value for good.
pub(super) fn bury(db: &Connection, value: i64) -> Result<(), KvError> {
    let chunks = "DELETE FROM chunk WHERE id BETWEEN ?1 AND ?2";
    let last = chunk_id(value, 0) + CHUNKS_PER_VALUE_MAX - 1;
    db.prepare(chunks)?.execute([chunk_id(value, 0), last])?;
    db.prepare("DELETE FROM dead WHERE value = ?1")?.execute([value])?;
    Ok(())
}

fn chunk_id(value: i64, at: u32) -> i64 {
    value * CHUNKS_PER_VALUE_MAX + i64::from(at)
}
