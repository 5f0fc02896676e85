//! The fuzz targets' functions over their corpus, and over what is near it: the part of fuzzing that needs no nightly compiler.

#[path = "../../fuzz/entries.rs"]
#[allow(
    unreachable_pub,
    clippy::expect_used,
    reason = "shared with the fuzz targets, a workspace of their own"
)]
mod entries;

use std::path::{Path, PathBuf};

/// Changed copies of each file.
const COPIES: u64 = 200;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = folder("corpus").join(name);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = files.map(|file| file.expect("an entry").path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("a readable file")).collect()
}

/// A copy with a few bytes changed, removed, repeated or added; always the same one for the same number.
fn changed(bytes: &[u8], number: u64) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % (below.max(1) as u64)).expect("a small number")
    };
    let mut out = bytes.to_vec();
    for _ in 0..=next(4) {
        let at = next(out.len());
        match next(5) {
            0 if !out.is_empty() => out[at] ^= 1 << next(8),
            1 if !out.is_empty() => drop(out.remove(at)),
            2 => out.insert(at, [0, 0xff, b'\n', b'"', 0x80, b'.'][next(6)]),
            3 => out.truncate(at),
            _ => out.extend_from_within(at..),
        }
    }
    out
}

#[test]
fn the_corpus_is_read_without_a_panic() {
    for (name, read) in entries::ENTRIES {
        let files = corpus(name);
        assert!(files.len() >= 3, "{name} has a corpus");
        for bytes in &files {
            read(bytes);
            (0..COPIES).for_each(|number| read(&changed(bytes, number)));
        }
    }
}

#[test]
fn every_entry_has_a_target_and_every_target_an_entry() {
    let names = |folder: PathBuf| -> Vec<String> {
        let files = std::fs::read_dir(folder).expect("the folder is there");
        let mut names: Vec<String> = files
            .map(|file| file.expect("an entry").path())
            .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    };
    let entries: Vec<String> = entries::ENTRIES.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(folder("fuzz_targets")), entries);
    assert_eq!(names(folder("corpus")), entries);
    let manifest = std::fs::read_to_string(folder("Cargo.toml")).expect("a manifest");
    for name in &entries {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in fuzz/Cargo.toml");
    }
}
