//! Which bundles the host has, so that each is sent before it is used and the host's memory for them is bounded.

use std::collections::HashMap;

use atoll_loader::bundle::CodeHash;
use atoll_loader::limits::{CODE_BYTES_MAX, MIB};

/// Most bundles kept by a host.
const BUNDLES_MAX: usize = 4_096;
/// Bytes of encoded bundles kept by a host.
const BUNDLE_BYTES_MAX: usize = 512 * MIB;
/// When a bound is passed, this share (one in so many) of the bundles goes, oldest use first.
const EVICT_SHARE: usize = 8;

const _: () = assert!(2 * CODE_BYTES_MAX <= BUNDLE_BYTES_MAX);

/// Pure bookkeeping: what was sent and when it was last used.
#[derive(Debug, Default)]
pub(super) struct Bundles {
    sent: HashMap<CodeHash, Sent>,
    bytes: usize,
    /// Counts uses.
    clock: u64,
}

#[derive(Debug)]
struct Sent {
    bytes: usize,
    used: u64,
}

impl Bundles {
    /// Notes a use; false if the host does not have the bundle.
    pub(super) fn touch(&mut self, hash: &CodeHash) -> bool {
        self.clock += 1;
        let Some(sent) = self.sent.get_mut(hash) else { return false };
        sent.used = self.clock;
        true
    }

    /// Notes that a bundle is sent; returns those that the host must forget first.
    pub(super) fn insert(&mut self, hash: CodeHash, bytes: usize) -> Vec<CodeHash> {
        let mut forgotten = Vec::new();
        if self.sent.len() >= BUNDLES_MAX || self.bytes + bytes > BUNDLE_BYTES_MAX {
            let mut by_use: Vec<_> = self.sent.iter().map(|(hash, sent)| (sent.used, *hash)).collect();
            by_use.sort_unstable();
            let share = by_use.len().div_ceil(EVICT_SHARE);
            for (_, old) in by_use {
                if forgotten.len() >= share && self.bytes + bytes <= BUNDLE_BYTES_MAX {
                    break;
                }
                if let Some(sent) = self.sent.remove(&old) {
                    self.bytes -= sent.bytes;
                    forgotten.push(old);
                }
            }
        }
        self.clock += 1;
        self.bytes += bytes;
        self.sent.insert(hash, Sent { bytes, used: self.clock });
        forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(number: usize) -> CodeHash {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        CodeHash(bytes)
    }

    #[test]
    fn the_least_recently_used_bundles_are_forgotten() {
        let mut bundles = Bundles::default();
        for number in 0..BUNDLES_MAX {
            assert!(bundles.insert(hash(number), 10).is_empty());
        }
        assert!(bundles.touch(&hash(0)));
        let forgotten = bundles.insert(hash(BUNDLES_MAX), 10);
        assert_eq!(forgotten.len(), BUNDLES_MAX / EVICT_SHARE);
        assert!(bundles.touch(&hash(0)), "used last, so it stays");
        assert!(!bundles.touch(&hash(1)), "oldest, so it went");
        assert_eq!(bundles.bytes, bundles.sent.len() * 10);
    }

    #[test]
    fn bytes_are_bounded_too() {
        let mut bundles = Bundles::default();
        for number in 0..100 {
            bundles.insert(hash(number), CODE_BYTES_MAX);
            assert!(bundles.bytes <= BUNDLE_BYTES_MAX);
        }
        assert!(bundles.touch(&hash(99)));
    }
}
