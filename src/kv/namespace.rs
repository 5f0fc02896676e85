//! One namespace of one tenant: its operations, each one step or a few.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::Connection;

use super::lease::{Lease, Leases};
use super::table::{self, ListOptions, NewRow, Owner, Stored};
use super::value::{Reader, Upload, Value};
use super::{Entry, Key, Kv, KvError, KvQuota, Page, PutOptions, bury_all};

/// How often a read begins anew because the value was replaced meanwhile.
const RETRIES_MAX: u32 = 16;

/// One namespace of one tenant.
#[derive(Clone)]
pub(crate) struct Namespace {
    pub(super) kv: Kv,
    pub(super) tenant: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) quota: KvQuota,
}

impl Namespace {
    /// The store's clock, in seconds since the Unix epoch.
    pub(crate) fn now_s(&self) -> u64 {
        (self.kv.inner.clock)()
    }

    fn owner(&self) -> Owner<'_> {
        Owner { tenant: &self.tenant, namespace: &self.name, quota: &self.quota }
    }

    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection, Owner<'_>, u64) -> Result<T, KvError> + Send + 'static,
    ) -> Result<T, KvError> {
        let own = self.clone();
        self.kv.read(&self.tenant, move |db, now_s| work(db, own.owner(), now_s)).await
    }

    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection, Owner<'_>) -> Result<T, KvError> + Send + 'static,
    ) -> Result<T, KvError> {
        let (tenant, name, quota) = (Arc::clone(&self.tenant), Arc::clone(&self.name), self.quota);
        let run = move |db: &Connection| work(db, Owner { tenant: &tenant, namespace: &name, quota: &quota });
        self.kv.write(&self.tenant, run).await
    }

    /// Makes it, if it is not there.
    pub(crate) async fn create(&self) -> Result<(), KvError> {
        self.write(|db, owner| table::namespace(db, owner).map(|_| ())).await
    }

    /// Removes it with all in it.
    pub(crate) async fn remove(&self) -> Result<(), KvError> {
        while !self.write(table::remove_namespace).await? {}
        self.kv.inner.wake.notify_one();
        Ok(())
    }

    /// The entry of a key.
    pub(crate) async fn get(&self, key: &Key) -> Result<Option<Entry>, KvError> {
        for attempt in 0..RETRIES_MAX {
            let (wanted, leases) = (key.clone(), Arc::clone(&self.kv.inner.leases));
            match self.read(move |db, owner, now_s| look(db, owner, &wanted, now_s, &leases)).await? {
                Found::Nothing => return Ok(None),
                Found::Entry(row, lease) => return Ok(Some(self.entry(row, lease))),
                // Its removal is on its way to the disk.
                Found::Going => tokio::time::sleep(Duration::from_millis(attempt.into())).await,
            }
        }
        Err(KvError::Restless)
    }

    /// The entries of several keys, in their order.
    pub(crate) async fn get_all(&self, keys: Vec<Key>) -> Result<Vec<Option<Entry>>, KvError> {
        let (wanted, leases) = (keys.clone(), Arc::clone(&self.kv.inner.leases));
        let found = self
            .read(move |db, owner, now_s| {
                let look = |key| look(db, owner, key, now_s, &leases);
                wanted.iter().map(look).collect::<Result<Vec<_>, _>>()
            })
            .await?;
        let mut entries = Vec::with_capacity(keys.len());
        for (found, key) in found.into_iter().zip(&keys) {
            entries.push(match found {
                Found::Nothing => None,
                Found::Entry(row, lease) => Some(self.entry(row, lease)),
                Found::Going => self.get(key).await?,
            });
        }
        Ok(entries)
    }

    fn entry(&self, row: table::Row, lease: Option<Lease>) -> Entry {
        let table::Row { value_bytes: bytes, metadata, expires_s, value } = row;
        let value = match (lease, value) {
            (Some(lease), _) => Value::Pieces(Reader::new(self.clone(), lease, bytes)),
            (None, Stored::Inline(bytes)) => Value::Whole(bytes.into()),
            // Chunks come with a lease.
            (None, Stored::Chunks(_)) => Value::Whole(Bytes::new()),
        };
        Entry { value, bytes, metadata, expires_s }
    }

    /// Writes a small value; a larger one is for [`Namespace::upload`].
    pub(super) async fn put_whole(
        &self,
        key: Key,
        value: Vec<u8>,
        options: PutOptions,
    ) -> Result<(), KvError> {
        let value_bytes = value.len() as u64;
        self.put_row(key, Stored::Inline(value), value_bytes, options).await
    }

    pub(super) async fn put_row(
        &self,
        key: Key,
        value: Stored,
        value_bytes: u64,
        options: PutOptions,
    ) -> Result<(), KvError> {
        let PutOptions { metadata, expires_s } = options;
        let row = NewRow { metadata, expires_s, value, value_bytes };
        let (leases, now_s) = (Arc::clone(&self.kv.inner.leases), self.now_s());
        self.write(move |db, owner| {
            table::put(db, owner, &key, &row, now_s, |db| bury_all(db, &leases, owner.tenant))
        })
        .await?;
        self.kv.inner.wake.notify_one();
        Ok(())
    }

    /// Begins a value whose bytes come over time.
    pub(crate) fn upload(&self) -> Upload {
        Upload::new(self.clone())
    }

    /// Removes a key, if it is there.
    pub(crate) async fn delete(&self, key: Key) -> Result<(), KvError> {
        if self.write(move |db, owner| table::delete(db, owner, &key)).await? {
            self.kv.inner.wake.notify_one();
        }
        Ok(())
    }

    /// A page of its keys.
    pub(crate) async fn list(&self, options: ListOptions) -> Result<Page, KvError> {
        self.read(move |db, owner, now_s| table::list(db, owner, &options, now_s)).await
    }
}

/// What a look at a key gave.
enum Found {
    Nothing,
    Entry(table::Row, Option<Lease>),
    Going,
}

fn look(
    db: &Connection,
    owner: Owner<'_>,
    key: &Key,
    now_s: u64,
    leases: &Arc<Leases>,
) -> Result<Found, KvError> {
    let Some(row) = table::get(db, owner, key, now_s)? else { return Ok(Found::Nothing) };
    let Stored::Chunks(number) = row.value else { return Ok(Found::Entry(row, None)) };
    let Some(lease) = Leases::take(leases, number) else { return Ok(Found::Going) };
    // It may have gone between the row and the lease; from now on it stays.
    Ok(if table::has_chunks(db, number)? { Found::Entry(row, Some(lease)) } else { Found::Going })
}
