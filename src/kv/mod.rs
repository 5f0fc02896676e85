//! Key-value data of tenants at rest: SQLite in the data directory, apart from the deployments.
//!
//! ```text
//!  Namespace::put ──▶ queue ──▶ one writer's thread: many writes, one transaction, one flush ──▶ told when it is on disk
//!  Namespace::get, list ──▶ a few reading connections on the blocking pool
//!  large values: pieces of 256 KiB in rows of their own, written and read one at a time
//! ```
//!
//! A namespace belongs to a tenant, and every statement names both: there is no number that leads to another tenant's data.
//! Nothing here holds a whole large value: an upload writes each piece as it comes under a number that no entry has yet, and the
//! last step, one transaction, gives it to the entry. A value that was replaced or deleted while somebody reads it is removed
//! when the last reader is done ([`lease`]).
//!
//! Expired entries are gone for every reader at once, and from the disk soon after.

mod lease;
mod schema;
mod table;
#[cfg(test)]
mod tests;
mod value;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use atoll_loader::limits::{KIB, MIB};
use bytes::Bytes;
use dashmap::DashMap;
use rusqlite::{Connection, OpenFlags};
use serde::Deserialize;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

pub(crate) use table::ListOptions;
pub(crate) use value::{Upload, Value, ValuesBody};

use lease::{Lease, Leases};
use table::{NewRow, Owner, Stored};
use value::Reader;
use writer::Writer;

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 512;
/// Largest value, in bytes.
pub const VALUE_BYTES_MAX: u64 = 25 * MIB as u64;
/// Largest metadata, in bytes of JSON.
pub const METADATA_BYTES_MAX: usize = 1_024;
/// Most keys of one page of a list.
pub const LIST_KEYS_MAX: usize = 1_000;
/// Longest name of a namespace, in bytes.
pub const NAMESPACE_NAME_BYTES_MAX: usize = 128;
/// Values up to this size lie in their entry, in bytes.
const INLINE_BYTES_MAX: usize = 32 * KIB;
/// One piece of a larger value, in bytes.
const CHUNK_BYTES: usize = 256 * KIB;
/// Row numbers that each large value has for its pieces.
const CHUNKS_PER_VALUE_MAX: i64 = 128;
/// Connections that read at once.
const READERS: usize = 2;
/// Steps of one tenant that may run or wait at once: the others' never wait behind more.
const STEPS_PER_TENANT_MAX: usize = 16;
/// Large values that one tenant may be writing at once.
const UPLOADS_PER_TENANT_MAX: usize = 8;
/// How often a read begins anew because the value was replaced meanwhile.
const RETRIES_MAX: u32 = 16;
/// How often expired entries and dead values are removed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(15);
/// Dead values that are removed in one step.
const BURIED_AT_ONCE: u32 = 4;

const _: () = assert!(VALUE_BYTES_MAX.div_ceil(CHUNK_BYTES as u64) <= CHUNKS_PER_VALUE_MAX as u64);
const _: () = assert!(INLINE_BYTES_MAX <= CHUNK_BYTES);

/// Why something could not be stored or read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum KvError {
    /// The data directory cannot be used.
    #[error("cannot use the data directory {path}: {source}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: Arc<std::io::Error>,
    },
    /// SQLite failed.
    #[error("the key-value store failed: {0}")]
    Sqlite(Arc<rusqlite::Error>),
    /// The thread that writes did not start.
    #[error("the key-value store's thread did not start: {0}")]
    Thread(Arc<std::io::Error>),
    /// Written by a newer Atoll.
    #[error("the key-value store has format {0}, which this version does not know")]
    Format(i64),
    /// What is stored is not what was stored.
    #[error("the key-value store is damaged: {0}")]
    Damaged(&'static str),
    /// A quota is used up.
    #[error("{0}")]
    Full(Quota),
    /// The value is larger than [`VALUE_BYTES_MAX`].
    #[error("Value length of {bytes} exceeds limit of {VALUE_BYTES_MAX}.")]
    ValueTooLarge {
        /// Its bytes, as far as they were read.
        bytes: u64,
    },
    /// There is no such namespace.
    #[error("there is no such namespace")]
    NoNamespace,
    /// The value was replaced again and again while it was to be read.
    #[error("the value changes too often to be read")]
    Restless,
    /// The server is shutting down.
    #[error("the server is shutting down")]
    Stopped,
}

impl From<rusqlite::Error> for KvError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(Arc::new(error))
    }
}

/// A quota, with its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Quota {
    /// Bytes of all namespaces.
    #[error("The tenant's KV namespaces may hold {0} bytes.")]
    Bytes(u64),
    /// Keys of all namespaces.
    #[error("The tenant's KV namespaces may hold {0} keys.")]
    Keys(u64),
    /// Bytes of one namespace.
    #[error("A KV namespace may hold {0} bytes.")]
    NamespaceBytes(u64),
    /// Keys of one namespace.
    #[error("A KV namespace may hold {0} keys.")]
    NamespaceKeys(u64),
    /// Namespaces.
    #[error("The tenant may have {0} KV namespaces.")]
    Namespaces(u32),
}

/// What one tenant may store: `kv` of its table in the configuration. Keys, metadata and values count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KvQuota {
    /// Bytes of all its namespaces.
    pub bytes_max: u64,
    /// Keys of all its namespaces.
    pub keys_max: u64,
    /// Its namespaces.
    pub namespaces_max: u32,
    /// Bytes of one namespace.
    pub namespace_bytes_max: u64,
    /// Keys of one namespace.
    pub namespace_keys_max: u64,
}

impl Default for KvQuota {
    fn default() -> Self {
        const GIB: u64 = 1024 * MIB as u64;
        let (bytes_max, keys_max) = (GIB, 1_000_000);
        Self {
            bytes_max,
            keys_max,
            namespaces_max: 100,
            namespace_bytes_max: bytes_max,
            namespace_keys_max: keys_max,
        }
    }
}

/// Why a text is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadKey {
    #[error("Key name cannot be empty.")]
    Empty,
    #[error("\".\" is not allowed as a key name.")]
    Dot,
    #[error("\"..\" is not allowed as a key name.")]
    Dots,
    #[error("UTF-8 encoded length of {0} exceeds key length limit of {KEY_BYTES_MAX}.")]
    TooLong(usize),
}

/// A key that was checked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key(Box<str>);

impl Key {
    pub(crate) fn parse(name: &str) -> Result<Self, BadKey> {
        match name {
            "" => Err(BadKey::Empty),
            "." => Err(BadKey::Dot),
            ".." => Err(BadKey::Dots),
            name if name.len() > KEY_BYTES_MAX => Err(BadKey::TooLong(name.len())),
            name => Ok(Self(name.into())),
        }
    }

    fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// Whether a text can name a namespace.
#[must_use]
pub fn is_namespace_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    !name.is_empty()
        && name.len() <= NAMESPACE_NAME_BYTES_MAX
        && name != "."
        && name != ".."
        && name.bytes().all(legal)
}

/// An entry that was found.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) value: Value,
    /// Bytes of the value.
    pub(crate) bytes: u64,
    /// JSON text.
    pub(crate) metadata: Option<String>,
    /// Seconds since the Unix epoch.
    pub(crate) expires_s: Option<u64>,
}

/// A key of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListedKey {
    pub(crate) name: String,
    pub(crate) expires_s: Option<u64>,
    pub(crate) metadata: Option<String>,
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) keys: Vec<ListedKey>,
    /// Whether no key comes after.
    pub(crate) complete: bool,
}

/// What goes with a value.
#[derive(Clone, Debug, Default)]
pub(crate) struct PutOptions {
    /// JSON text, at most [`METADATA_BYTES_MAX`].
    pub(crate) metadata: Option<String>,
    /// Seconds since the Unix epoch.
    pub(crate) expires_s: Option<u64>,
}

/// A namespace as told to its tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamespaceInfo {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) keys: u64,
}

/// Seconds since the Unix epoch.
pub(crate) type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The store. Clones are the same store; its writer ends with the last one.
#[derive(Clone)]
pub struct Kv {
    inner: Arc<Inner>,
}

struct Inner {
    writer: Writer,
    readers: Mutex<Vec<Connection>>,
    reading: Arc<Semaphore>,
    /// The keys are configured tenants, so the map is bounded.
    tenants: DashMap<String, Arc<Places>>,
    leases: Arc<Leases>,
    clock: Clock,
    /// There is something to sweep.
    wake: Arc<Notify>,
}

/// What one tenant may have under way at once.
struct Places {
    steps: Arc<Semaphore>,
    uploads: Arc<Semaphore>,
}

impl Kv {
    /// Opens or creates the store in this directory.
    pub async fn open(directory: &Path) -> Result<Self, KvError> {
        Self::open_at(directory, Arc::new(now_s)).await
    }

    /// The same by another clock.
    pub(crate) async fn open_at(directory: &Path, clock: Clock) -> Result<Self, KvError> {
        let directory = directory.to_owned();
        let open = move || {
            let fail = |source| KvError::Directory { path: directory.clone(), source: Arc::new(source) };
            std::fs::create_dir_all(&directory).map_err(fail)?;
            let path = directory.join("kv.db");
            let connection = Connection::open(&path)?;
            schema::prepare(&connection)?;
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let reader = |_| {
                let reader = Connection::open_with_flags(&path, flags)?;
                reader.busy_timeout(Duration::from_secs(5))?;
                Ok(reader)
            };
            let readers = (0..READERS).map(reader).collect::<Result<Vec<_>, KvError>>()?;
            Ok::<_, KvError>((connection, readers))
        };
        let (connection, readers) =
            tokio::task::spawn_blocking(open).await.map_err(|_| KvError::Stopped)??;
        let leases = Arc::new(Leases::default());
        let inner = Arc::new(Inner {
            writer: Writer::start(connection, Arc::clone(&leases))?,
            readers: Mutex::new(readers),
            reading: Arc::new(Semaphore::new(READERS)),
            tenants: DashMap::new(),
            leases,
            clock,
            wake: Arc::new(Notify::new()),
        });
        tokio::spawn(sweeping(Arc::downgrade(&inner), Arc::clone(&inner.wake)));
        Ok(Self { inner })
    }

    /// A tenant's namespace; it need not be there.
    pub(crate) fn namespace(&self, tenant: &str, name: &str, quota: KvQuota) -> Namespace {
        Namespace { kv: self.clone(), tenant: tenant.into(), name: name.into(), quota }
    }

    /// A tenant's namespaces, by name.
    pub(crate) async fn namespaces(&self, tenant: &str) -> Result<Vec<NamespaceInfo>, KvError> {
        let of: Arc<str> = tenant.into();
        let found = self.read(tenant, move |db, _| table::namespaces(db, &of)).await?;
        let info = |(name, bytes, keys)| NamespaceInfo { name, bytes, keys };
        Ok(found.into_iter().map(info).collect())
    }

    /// Removes expired entries and dead values that nobody reads, until there are none.
    pub(crate) async fn sweep(&self) -> Result<(), KvError> {
        loop {
            let now_s = (self.inner.clock)();
            let removed = self.inner.writer.write(move |db| table::expire(db, now_s, None)).await?;
            if removed < table::EXPIRED_AT_ONCE {
                break;
            }
        }
        let mut after = 0;
        loop {
            let leases = Arc::clone(&self.inner.leases);
            let step = move |db: &Connection| {
                let dead = table::dead(db, after, None, BURIED_AT_ONCE)?;
                bury(db, &leases, &dead)?;
                Ok(dead.last().copied())
            };
            match self.inner.writer.write(step).await? {
                Some(last) => after = last,
                None => return Ok(()),
            }
        }
    }

    fn places(&self, tenant: &str) -> Arc<Places> {
        if let Some(places) = self.inner.tenants.get(tenant) {
            return Arc::clone(&places);
        }
        let new = || {
            Arc::new(Places {
                steps: Arc::new(Semaphore::new(STEPS_PER_TENANT_MAX)),
                uploads: Arc::new(Semaphore::new(UPLOADS_PER_TENANT_MAX)),
            })
        };
        Arc::clone(&self.inner.tenants.entry(tenant.to_owned()).or_insert_with(new))
    }

    /// A step of this tenant's that reads.
    async fn read<T: Send + 'static>(
        &self,
        tenant: &str,
        work: impl FnOnce(&Connection, u64) -> Result<T, KvError> + Send + 'static,
    ) -> Result<T, KvError> {
        let step = self.step(tenant).await?;
        let place = Arc::clone(&self.inner.reading).acquire_owned().await.map_err(|_| KvError::Stopped)?;
        let inner = Arc::clone(&self.inner);
        let run = move || {
            // Both are held until the step is over, also if its caller goes away.
            let _held = (step, place);
            // There are as many places as connections.
            let connection = inner.readers().pop().ok_or(KvError::Stopped)?;
            let result = work(&connection, (inner.clock)());
            inner.readers().push(connection);
            result
        };
        tokio::task::spawn_blocking(run).await.map_err(|_| KvError::Stopped)?
    }

    /// A step of this tenant's that writes: all of it or nothing, on disk when this returns.
    async fn write<T: Send + 'static>(
        &self,
        tenant: &str,
        work: impl FnOnce(&Connection) -> Result<T, KvError> + Send + 'static,
    ) -> Result<T, KvError> {
        let step = self.step(tenant).await?;
        let run = move |db: &Connection| {
            let _held = step;
            work(db)
        };
        self.inner.writer.write(run).await
    }

    async fn step(&self, tenant: &str) -> Result<OwnedSemaphorePermit, KvError> {
        let steps = Arc::clone(&self.places(tenant).steps);
        steps.acquire_owned().await.map_err(|_| KvError::Stopped)
    }
}

impl Inner {
    fn readers(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Removes those of the dead values that nobody holds.
fn bury(db: &Connection, leases: &Leases, dead: &[i64]) -> Result<(), KvError> {
    dead.iter().filter(|value| leases.claim(**value)).try_for_each(|value| table::bury(db, *value))
}

/// Removes a tenant's dead values.
fn bury_all(db: &Connection, leases: &Leases, tenant: &str) -> Result<(), KvError> {
    bury(db, leases, &table::dead(db, 0, Some(tenant), u32::MAX)?)
}

async fn sweeping(inner: Weak<Inner>, wake: Arc<Notify>) {
    loop {
        let _ = tokio::time::timeout(SWEEP_INTERVAL, wake.notified()).await;
        let Some(inner) = inner.upgrade() else { return };
        match (Kv { inner }).sweep().await {
            Ok(()) => {}
            Err(KvError::Stopped) => return,
            Err(error) => tracing::warn!(%error, "expired keys could not be removed"),
        }
    }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// One namespace of one tenant.
#[derive(Clone)]
pub(crate) struct Namespace {
    kv: Kv,
    tenant: Arc<str>,
    name: Arc<str>,
    quota: KvQuota,
}

impl Namespace {
    /// The store's clock, in seconds since the Unix epoch.
    pub(crate) fn now_s(&self) -> u64 {
        (self.kv.inner.clock)()
    }

    fn owner(&self) -> Owner<'_> {
        Owner { tenant: &self.tenant, namespace: &self.name, quota: &self.quota }
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection, Owner<'_>, u64) -> Result<T, KvError> + Send + 'static,
    ) -> Result<T, KvError> {
        let own = self.clone();
        self.kv.read(&self.tenant, move |db, now_s| work(db, own.owner(), now_s)).await
    }

    async fn write<T: Send + 'static>(
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
    async fn put_whole(&self, key: Key, value: Vec<u8>, options: PutOptions) -> Result<(), KvError> {
        let value_bytes = value.len() as u64;
        self.put_row(key, Stored::Inline(value), value_bytes, options).await
    }

    async fn put_row(
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
