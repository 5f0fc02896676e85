//! What isolates turned out to lack, remembered by tenant and code, so that the same code goes to the sandbox at
//! once the next time.
//!
//! ```text
//! (tenant, hash) ──record──▶ missing, until expiry ──▶ lookup
//!       bounded twice: a tenant forgets its own oldest first, then all forget the oldest
//! ```
//! Pure: the caller brings the time. One tenant's entries never speak for another's code.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::missing::Missing;
use super::step::CodeHash;

/// Most entries of all tenants together.
pub const ENTRIES_MAX: usize = 65_536;
/// Most entries of one tenant.
pub const ENTRIES_PER_TENANT_MAX: usize = 1_024;
/// How long an entry holds since it was last recorded, in milliseconds: a day. After that the isolate gets a new
/// chance, as it may have learned to do it.
pub const EXPIRY_MS: u64 = 24 * 60 * 60 * 1_000;

const _: () = assert!(ENTRIES_PER_TENANT_MAX <= ENTRIES_MAX);

type Order = BTreeMap<u64, (Arc<str>, CodeHash)>;

#[derive(Clone, Copy, Debug)]
struct Entry {
    missing: Missing,
    expires_ms: u64,
    /// When it was last used, in uses of the whole store.
    used: u64,
}

#[derive(Debug, Default)]
struct OfTenant {
    entries: HashMap<CodeHash, Entry>,
    /// Uses, oldest first.
    order: BTreeMap<u64, CodeHash>,
}

/// The store.
#[derive(Debug, Default)]
pub struct Learned {
    tenants: HashMap<Arc<str>, OfTenant>,
    /// Uses of all, oldest first.
    order: Order,
    uses: u64,
}

impl Learned {
    /// What an isolate lacked for this code, if that is known and not too old.
    pub fn lookup(&mut self, tenant: &str, hash: CodeHash, now_ms: u64) -> Option<Missing> {
        let entry = *self.tenants.get(tenant)?.entries.get(&hash)?;
        self.forget(tenant, hash);
        if entry.expires_ms <= now_ms {
            return None;
        }
        self.insert(tenant, hash, entry.missing, entry.expires_ms);
        Some(entry.missing)
    }

    /// Remembers that an isolate lacked something for this code.
    pub fn record(&mut self, tenant: &str, hash: CodeHash, missing: Missing, now_ms: u64) {
        self.forget(tenant, hash);
        let own = self.tenants.get(tenant).filter(|own| own.entries.len() >= ENTRIES_PER_TENANT_MAX);
        if let Some(oldest) = own.and_then(|own| own.order.values().next().copied()) {
            self.forget(tenant, oldest);
        } else if self.len() >= ENTRIES_MAX
            && let Some((whose, oldest)) = self.order.values().next().cloned()
        {
            self.forget(&whose, oldest);
        }
        self.insert(tenant, hash, missing, now_ms.saturating_add(EXPIRY_MS));
    }

    /// Forgets one entry, for example because the sandbox did no better.
    pub fn forget(&mut self, tenant: &str, hash: CodeHash) {
        let Some(own) = self.tenants.get_mut(tenant) else { return };
        let Some(entry) = own.entries.remove(&hash) else { return };
        own.order.remove(&entry.used);
        self.order.remove(&entry.used);
        if own.entries.is_empty() {
            self.tenants.remove(tenant);
        }
    }

    /// Entries, expired ones that nobody asked for included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    fn insert(&mut self, tenant: &str, hash: CodeHash, missing: Missing, expires_ms: u64) {
        self.uses += 1;
        let used = self.uses;
        let tenant: Arc<str> = tenant.into();
        let own = self.tenants.entry(Arc::clone(&tenant)).or_default();
        own.entries.insert(hash, Entry { missing, expires_ms, used });
        own.order.insert(used, hash);
        self.order.insert(used, (tenant, hash));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hash(n: u32) -> CodeHash {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_le_bytes());
        CodeHash(bytes)
    }

    #[test]
    fn remembers_until_it_expires_and_for_its_own_tenant_only() {
        let mut learned = Learned::default();
        learned.record("a", hash(1), Missing::Process, 1_000);
        assert_eq!(learned.lookup("a", hash(1), 1_000 + EXPIRY_MS - 1), Some(Missing::Process));
        assert_eq!(learned.lookup("b", hash(1), 1_000), None);
        assert_eq!(learned.lookup("a", hash(2), 1_000), None);
        assert_eq!(learned.lookup("a", hash(1), 1_000 + EXPIRY_MS), None, "looking it up does not renew it");
        assert!(learned.is_empty(), "an expired entry is gone once it was asked for");
        learned.record("a", hash(1), Missing::Process, u64::MAX);
        assert_eq!(learned.len(), 1);
    }

    #[test]
    fn a_tenant_pushes_out_only_its_own_oldest() {
        let mut learned = Learned::default();
        learned.record("quiet", hash(0), Missing::Module, 0);
        for n in 0..ENTRIES_PER_TENANT_MAX as u32 {
            learned.record("loud", hash(n), Missing::Module, 0);
        }
        assert!(learned.lookup("loud", hash(0), 0).is_some(), "used, so no longer the oldest");
        learned.record("loud", hash(u32::MAX), Missing::Module, 0);
        assert_eq!(learned.lookup("loud", hash(1), 0), None);
        assert!(learned.lookup("loud", hash(0), 0).is_some());
        assert!(learned.lookup("quiet", hash(0), 0).is_some());
        assert_eq!(learned.len(), ENTRIES_PER_TENANT_MAX + 1);
    }

    #[test]
    fn all_tenants_together_are_bounded_too() {
        let mut learned = Learned::default();
        let tenant = |n: u32| format!("t{}", n % 100);
        let last = ENTRIES_MAX as u32 + 99;
        for n in 0..=last {
            learned.record(&tenant(n), hash(n), Missing::Module, 0);
        }
        assert_eq!(learned.len(), ENTRIES_MAX);
        assert_eq!(learned.lookup(&tenant(0), hash(0), 0), None);
        assert!(learned.lookup(&tenant(last), hash(last), 0).is_some());
    }

    proptest! {
        /// Against a list that nobody bounded: what is found is right, and both indexes agree.
        #[test]
        fn agrees_with_a_plain_list(
            steps in prop::collection::vec((0..3_u8, 0..3_usize, 0..6_u32, 0..EXPIRY_MS / 4), 0..200),
        ) {
            let tenants = ["a", "b", "c"];
            let (mut learned, mut model, mut now) = (Learned::default(), HashMap::new(), 0);
            for (kind, tenant, code, passed) in steps {
                now += passed;
                let key = (tenants[tenant], code);
                match kind {
                    0 => {
                        learned.record(key.0, hash(code), Missing::Process, now);
                        model.insert(key, now + EXPIRY_MS);
                    }
                    1 => {
                        learned.forget(key.0, hash(code));
                        model.remove(&key);
                    }
                    _ => {
                        let expect = model.get(&key).is_some_and(|expires| *expires > now);
                        prop_assert_eq!(learned.lookup(key.0, hash(code), now).is_some(), expect);
                    }
                }
                let entries: usize = learned.tenants.values().map(|own| own.entries.len()).sum();
                let orders: usize = learned.tenants.values().map(|own| own.order.len()).sum();
                prop_assert_eq!((entries, orders), (learned.len(), learned.len()));
                prop_assert!(learned.tenants.values().all(|own| !own.entries.is_empty()));
            }
        }
    }
}
