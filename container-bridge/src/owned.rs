//! What all backends share whose containers somebody else makes: one name per owner, one user per sandbox, the shares of
//! the disk, and the set-up of the init inside. Pure.

use sha2::{Digest, Sha256};

use crate::{
    backend::{Owner, SandboxId, SandboxSpec},
    protocol::{Disk, Root, Setup},
};

/// Where the init and its libraries are inside.
pub(crate) const KIT_DIR: &str = "/.atoll";
/// Shares of the disk in sixteenths, by place, with the places' modes. Each is a store of its own; together they are
/// the disk.
pub(crate) const DISK_SIXTEENTHS: &[(&str, u64, &str)] = &[
    ("/workspace", 10, "0755"),
    ("/tmp", 2, "1777"),
    ("/home/user", 2, "0755"),
    ("/var/tmp", 1, "1777"),
    ("/dev/shm", 1, "1777"),
];

/// Short hash of some texts, in hexadecimal.
pub(crate) fn hash(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes()); // so that no two lists of parts are the same bytes
        hash.update(part);
    }
    hash.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One name per owner.
pub(crate) fn name(id: &SandboxId, owner: Option<&Owner>) -> String {
    match owner {
        Some(owner) => format!("atoll-{}", hash(&[owner.tenant.as_bytes(), owner.user.as_bytes()])),
        None => format!("atoll-{}", id.as_str()),
    }
}

/// The init's own set-up: what the engine does not know.
pub(crate) fn setup(id: &SandboxId, spec: &SandboxSpec) -> Setup {
    Setup {
        id: id.as_str().to_owned(),
        limits: spec.limits,
        uid_base: None,
        root: Root::Host,
        disk: Disk::Memory,
        env: spec.env.clone(),
        cgroup: None,
        allow_no_cgroup: false,
    }
}

/// A user that hardly any other sandbox has, by the sandbox's name.
pub(crate) fn uid(id: &SandboxId, base: u32, count: u32) -> u32 {
    let number = u32::from_str_radix(&hash(&[id.as_str().as_bytes()])[..8], 16).unwrap_or(0);
    base + number % count.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        /// Two owners have one name only if they are one, however their ids are cut.
        #[test]
        fn names_are_owners(a in ".{0,8}", b in ".{0,8}", c in ".{0,8}", d in ".{0,8}") {
            let id = SandboxId::random().unwrap();
            let owner = |tenant: &str, user: &str| Owner { tenant: tenant.into(), user: user.into() };
            let (one, two) = (owner(&a, &b), owner(&c, &d));
            proptest::prop_assert_eq!(name(&id, Some(&one)) == name(&id, Some(&two)), one == two);
        }

        #[test]
        fn users_are_in_range_and_never_root(base in 1u32..2_000_000_000, count in 0u32..70_000) {
            let uid = uid(&SandboxId::random().unwrap(), base, count);
            proptest::prop_assert!(uid >= base && uid < base + count.max(1));
        }
    }

    #[test]
    fn the_shares_are_the_disk() {
        assert_eq!(DISK_SIXTEENTHS.iter().map(|(_, share, _)| share).sum::<u64>(), 16);
    }
}
