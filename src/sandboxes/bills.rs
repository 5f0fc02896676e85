//! What each user's sandboxes have used: in memory for whoever asks, and on disk for after a restart.
//!
//! ```text
//!  Ended: usage ──▶ bill of the user ─┐ soon           ┌─ bill   (tenant, user, usage)
//!  alive sandboxes, every few seconds ┴─▶ one step ──▶ bills.db
//!                                                      └─ alive  (sandbox, tenant, user, usage)
//!  at start: what is in `alive` belongs to sandboxes that went with a gateway that was killed, and is added to the bills
//! ```
//!
//! Bills are written whole, so a step that is done twice changes nothing. After a kill the last few seconds of what was alive are
//! missing, and nothing else. Each tenant has room for so many users: whose bill is the oldest goes, and never another tenant's.

mod file;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use atoll_container_bridge::error::{Code, SandboxError};
use atoll_container_bridge::manager::{Manager, Owner, Usage};
use rusqlite::Connection;
use tokio::sync::Notify;

use crate::store::db::Db;
use file::BillsError;

/// Users of one tenant whose bill is kept.
const USERS_BILLED_MAX: usize = 10_000;
/// How often what alive sandboxes have used is written down, in seconds: so much of it a kill can lose.
const ALIVE_SECONDS: u64 = 5;
/// Both together; a peak is the larger one.
pub(crate) fn sum(a: Usage, b: Usage) -> Usage {
    Usage {
        cpu_us: a.cpu_us.saturating_add(b.cpu_us),
        memory_byte_seconds: a.memory_byte_seconds.saturating_add(b.memory_byte_seconds),
        memory_bytes: 0,
        memory_bytes_peak: a.memory_bytes_peak.max(b.memory_bytes_peak),
        oom_kills: a.oom_kills.saturating_add(b.oom_kills),
        wall_us: a.wall_us.saturating_add(b.wall_us),
        bytes_in: a.bytes_in.saturating_add(b.bytes_in),
        bytes_out: a.bytes_out.saturating_add(b.bytes_out),
        uses: a.uses.saturating_add(b.uses),
    }
}

/// All bills.
pub(super) struct Bills {
    table: Mutex<Table>,
    file: Db,
    changed: Notify,
    /// One step at a time; whether the last one wrote down anything alive.
    writing: tokio::sync::Mutex<bool>,
}

/// Pure.
#[derive(Default)]
struct Table {
    tenants: HashMap<String, HashMap<String, Bill>>,
    /// Counts changes.
    clock: u64,
    /// Not on disk yet.
    dirty: HashSet<Owner>,
    /// On disk still.
    gone: HashSet<Owner>,
}

#[derive(Clone, Copy)]
struct Bill {
    usage: Usage,
    changed: u64,
}

impl Table {
    fn add(&mut self, owner: Owner, usage: Usage) {
        self.clock += 1;
        let changed = self.clock;
        let bills = self.tenants.entry(owner.tenant.clone()).or_default();
        if bills.len() >= USERS_BILLED_MAX && !bills.contains_key(&owner.user) {
            let oldest = bills.iter().min_by_key(|(_, bill)| bill.changed).map(|(user, _)| user.clone());
            if let Some(user) = oldest {
                bills.remove(&user);
                let tenant = owner.tenant.clone();
                let oldest = Owner { tenant, user };
                self.dirty.remove(&oldest);
                self.gone.insert(oldest);
            }
        }
        let bill = bills.entry(owner.user.clone()).or_insert(Bill { usage: Usage::default(), changed });
        *bill = Bill { usage: sum(bill.usage, usage), changed };
        self.gone.remove(&owner);
        self.dirty.insert(owner);
    }

    fn get(&self, owner: &Owner) -> Option<Bill> {
        self.tenants.get(&owner.tenant)?.get(&owner.user).copied()
    }
}

/// A sandbox that lives: its name, whose it is, and what it has used.
type Alive = (String, Owner, Usage);

impl Bills {
    /// Opens the file, and adds what an earlier process could not.
    pub(super) async fn open(directory: &Path) -> Result<Self, SandboxError> {
        let directory = directory.to_owned();
        let opened = Self::load(move || file::open(&directory));
        opened.await.map_err(|error| SandboxError::new(Code::System, error.to_string()))
    }

    async fn load(
        open: impl FnOnce() -> Result<Connection, BillsError> + Send + 'static,
    ) -> Result<Self, BillsError> {
        let file = Db::open(move || {
            let connection = open()?;
            file::prepare(&connection)?;
            Ok::<_, BillsError>(connection)
        })
        .await?;
        let (bills, alive) = file.with(|connection| file::read(connection)).await?;
        let mut table = Table::default();
        for (owner, bill) in bills {
            table.clock = table.clock.max(bill.changed);
            table.tenants.entry(owner.tenant).or_default().insert(owner.user, bill);
        }
        for (_, owner, usage) in alive {
            table.add(owner, usage);
        }
        let (changed, writing) = (Notify::new(), tokio::sync::Mutex::new(true));
        let bills = Self { table: Mutex::new(table), file, changed, writing };
        // What was alive is on bills now: it must not be there a second time after the next start.
        bills.write(Vec::new).await?;
        Ok(bills)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A sandbox is over.
    pub(super) fn add(&self, owner: Owner, usage: Usage) {
        self.table().add(owner, usage);
        self.changed.notify_one();
    }

    pub(super) fn get(&self, owner: &Owner) -> Usage {
        self.table().get(owner).map(|bill| bill.usage).unwrap_or_default()
    }

    /// Writes down what changed, and what lives: soon after an end, and every few seconds.
    pub(super) async fn keep(self: Arc<Self>, manager: Manager) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(ALIVE_SECONDS)) => {}
                () = self.changed.notified() => {}
            }
            self.flush(&manager).await;
        }
    }

    /// The same now.
    pub(super) async fn flush(&self, manager: &Manager) {
        let alive = || {
            let all = manager.list().into_iter();
            all.filter_map(|(owner, id)| {
                let usage = manager.describe(&owner).ok()?.usage;
                Some((id.as_str().to_owned(), owner, usage))
            })
            .collect()
        };
        if let Err(error) = self.write(alive).await {
            // What changed still counts as not written, so the next step tries again.
            tracing::warn!(%error, "the bills of sandboxes could not be written");
        }
    }

    async fn write(&self, alive: impl FnOnce() -> Vec<Alive>) -> Result<(), BillsError> {
        let mut had_alive = self.writing.lock().await;
        // In this order: a sandbox that ends in between is on its bill and, until the next step, alive as well; one that had ended
        // before is in no list any more.
        let alive = alive();
        let (dirty, gone) = {
            let mut table = self.table();
            (std::mem::take(&mut table.dirty), std::mem::take(&mut table.gone))
        };
        if dirty.is_empty() && gone.is_empty() && alive.is_empty() && !*had_alive {
            return Ok(());
        }
        let any = !alive.is_empty();
        let bills: Vec<(Owner, Bill)> = {
            let table = self.table();
            dirty.iter().filter_map(|owner| Some((owner.clone(), table.get(owner)?))).collect()
        };
        let removed: Vec<Owner> = gone.iter().cloned().collect();
        let written = self.file.write(move |tx| file::store(tx, &bills, &removed, &alive)).await;
        match written {
            Ok(()) => *had_alive = any,
            Err(_) => {
                let mut table = self.table();
                table.dirty.extend(dirty);
                let still = gone.into_iter().filter(|owner| table.get(owner).is_none()).collect::<Vec<_>>();
                table.gone.extend(still);
            }
        }
        written
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bills that are on no disk.
    pub(in crate::sandboxes) async fn in_memory() -> Arc<Bills> {
        Arc::new(Bills::load(|| Ok(Connection::open_in_memory()?)).await.unwrap())
    }

    fn owner(tenant: &str, user: &str) -> Owner {
        Owner { tenant: tenant.into(), user: user.into() }
    }

    #[test]
    fn bills_add_up_and_a_tenant_pushes_out_its_own_only() {
        let mut table = Table::default();
        let usage = Usage { cpu_us: 1, memory_bytes_peak: 3, uses: 2, ..Usage::default() };
        table.add(owner("other", "first"), usage);
        table.add(owner("acme", "first"), usage);
        table.add(owner("acme", "first"), Usage { memory_bytes_peak: 2, ..usage });
        assert_eq!(table.get(&owner("acme", "first")).unwrap().usage, Usage { cpu_us: 2, uses: 4, ..usage });
        for at in 0..USERS_BILLED_MAX {
            table.add(owner("acme", &at.to_string()), usage);
        }
        assert_eq!(table.tenants["acme"].len(), USERS_BILLED_MAX);
        assert!(table.get(&owner("acme", "first")).is_none() && table.gone.contains(&owner("acme", "first")));
        assert!(table.get(&owner("other", "first")).is_some());
        table.add(owner("acme", "first"), usage);
        assert!(!table.gone.contains(&owner("acme", "first")), "it is there again");
    }

    #[tokio::test]
    async fn what_was_alive_at_a_kill_is_on_the_bill_once() {
        let folder = tempfile::tempdir().unwrap();
        let usage = Usage { cpu_us: 5, uses: 1, memory_bytes_peak: 9, ..Usage::default() };
        let (ann, bob) = (owner("acme", "ann"), owner("acme", "bob"));
        let bills = Bills::open(folder.path()).await.unwrap();
        bills.add(ann.clone(), usage);
        let living = vec![("s1".to_owned(), ann.clone(), usage), ("s2".to_owned(), bob.clone(), usage)];
        bills.write(move || living).await.unwrap();
        assert_eq!(
            (bills.get(&ann).cpu_us, bills.get(&bob).cpu_us),
            (5, 0),
            "who lives is not on a bill yet"
        );
        drop(bills);
        for _ in 0..3 {
            let bills = Bills::open(folder.path()).await.unwrap();
            assert_eq!((bills.get(&ann).cpu_us, bills.get(&bob).cpu_us), (10, 5));
            assert_eq!(bills.get(&ann).memory_bytes_peak, 9);
        }
        assert!(Bills::open(Path::new("/proc/nowhere")).await.is_err());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Ends(u8, u64),
        Flush,
        Kill,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u8..4, 0u64..100).prop_map(|(user, cpu)| Step::Ends(user, cpu)),
            2 => Just(Step::Flush),
            1 => Just(Step::Kill),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Whatever ends when, and however often the process is killed after a step, the bills are the sums.
        #[test]
        fn bills_are_sums_over_restarts(steps in prop::collection::vec(step(), 1..30)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let folder = tempfile::tempdir().unwrap();
                let mut bills = Bills::open(folder.path()).await.unwrap();
                let (mut kept, mut since) = ([0u64; 4], [0u64; 4]);
                for step in steps {
                    match step {
                        Step::Ends(user, cpu_us) => {
                            let usage = Usage { cpu_us, ..Usage::default() };
                            bills.add(owner("t", &user.to_string()), usage);
                            since[usize::from(user)] += cpu_us;
                        }
                        Step::Flush => {
                            bills.write(Vec::new).await.unwrap();
                            for (kept, since) in kept.iter_mut().zip(&mut since) {
                                *kept += std::mem::take(since);
                            }
                        }
                        Step::Kill => {
                            drop(bills);
                            bills = Bills::open(folder.path()).await.unwrap();
                            since = [0; 4];
                        }
                    }
                    for (user, (kept, since)) in kept.iter().zip(&since).enumerate() {
                        assert_eq!(bills.get(&owner("t", &user.to_string())).cpu_us, kept + since);
                    }
                }
            });
        }
    }
}
