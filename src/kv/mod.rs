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
mod namespace;
mod schema;
mod table;
#[cfg(test)]
mod tests;
mod types;
mod value;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use atoll_loader::limits::{KIB, MIB};
use dashmap::DashMap;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

pub(crate) use namespace::Namespace;
pub(crate) use table::ListOptions;
pub(crate) use types::{BadKey, Entry, Key, ListedKey, NamespaceInfo, Page, PutOptions};
pub use types::{KvError, KvQuota, Quota, is_namespace_name};
pub(crate) use value::{Value, ValuesBody};

use lease::Leases;
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
/// How often expired entries and dead values are removed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(15);
/// Dead values that are removed in one step.
const BURIED_AT_ONCE: u32 = 4;

const _: () = assert!(VALUE_BYTES_MAX.div_ceil(CHUNK_BYTES as u64) <= CHUNKS_PER_VALUE_MAX as u64);
const _: () = assert!(INLINE_BYTES_MAX <= CHUNK_BYTES);

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
