//! Checkpoints against what the chain alone does not show: an end that was cut off, a log that was computed anew.

use super::*;
use crate::audit::line::Link;
use crate::audit::note::tests::Key;
use crate::audit::stamps::CHECKPOINT_LINES;

/// Like `write`, with a notary.
fn stamped(data: &TempDir, config: AuditConfig, key: &Arc<Key>, records: usize) {
    let audit = Audit::open(data.path(), config, None).unwrap();
    audit.sign_with(key.clone());
    for number in 0..records {
        audit.note(entry(&format!("w{number}")));
    }
    audit.close();
}

/// A folder like this one with its checkpoints, to be broken.
fn copy_all(data: &TempDir) -> TempDir {
    let other = copy(data);
    for entry in fs::read_dir(folder(data)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder(&other).join(path.file_name().unwrap())).unwrap();
    }
    other
}

fn check(data: &TempDir, keys: &[&Arc<Key>], given: &str) -> Report {
    let keys = (!keys.is_empty()).then(|| keys.iter().map(|key| key.public()).collect());
    let trust = Trust { given: Notes::read(given.as_bytes()), keys };
    verify(&folder(data), &trust).unwrap()
}

fn breach(report: &Report) -> Option<Breach> {
    assert_eq!(report.ok, report.bad.is_none() && report.checkpoints.bad.is_none());
    report.checkpoints.bad.as_ref().map(|bad| bad.code)
}

/// Changes a record and computes every hash from there on anew, as somebody would who can write the files.
fn compute_anew(data: &TempDir, from: &str, to: &str) {
    let mut link = Link::FIRST;
    for path in files(data) {
        let mut out = Vec::new();
        for text in fs::read_to_string(&path).unwrap().lines() {
            let (_, rest) = text.split_once("\"seq\":").unwrap();
            let (_, members) = rest.split_once(',').unwrap();
            link.append(&members[..members.len() - 1].replace(from, to), &mut out);
        }
        fs::write(path, out).unwrap();
    }
}

/// Takes so many lines off the end of the log.
fn shorten(data: &TempDir, lines: usize) {
    let path = files(data).pop().unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let kept: Vec<&str> = text.split_inclusive('\n').collect();
    fs::write(path, kept[..kept.len() - lines].concat()).unwrap();
}

#[test]
fn they_are_made_at_the_start_at_each_new_file_and_at_the_end() {
    let (data, key) = (tempfile::tempdir().unwrap(), Key::new(1));
    let small = AuditConfig { file_bytes_max: 4_096, ..config() };
    stamped(&data, small, &key, 50);
    stamped(&data, small, &key, 1);
    let report = check(&data, &[&key], "");
    assert!(report.ok, "{report:?}");
    let stamps = &report.checkpoints;
    assert!(stamps.read >= report.files, "{report:?}");
    assert_eq!((stamps.matched, stamps.signed), (stamps.read, stamps.read));
    assert_eq!(stamps.covered, Some(report.lines), "the end is covered");
    let told = key.told.lock().unwrap();
    assert_eq!(told.len() as u64, stamps.read, "each is told once");
    assert_eq!(Notes::read(told.join("\n").as_bytes()).notes.len(), told.len());
    // Without keys, hashes are compared all the same.
    let unsigned = check(&data, &[], "");
    assert_eq!(
        (unsigned.ok, unsigned.checkpoints.matched, unsigned.checkpoints.signed),
        (true, stamps.read, 0)
    );
}

#[test]
fn one_is_made_after_so_many_lines() {
    let (data, key) = (tempfile::tempdir().unwrap(), Key::new(1));
    let audit = Audit::open(data.path(), config(), None).unwrap();
    audit.sign_with(key.clone());
    while audit.checkpoint().is_none() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let first = Notes::read(audit.checkpoint().unwrap().as_bytes()).notes.remove(0).checkpoint.size;
    for number in 0..CHECKPOINT_LINES {
        audit.note(entry(&format!("w{number}")));
    }
    let newest = || Notes::read(audit.checkpoint().unwrap().as_bytes()).notes.remove(0).checkpoint.size;
    while newest() == first {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(newest() >= first + CHECKPOINT_LINES);
    audit.close();
    assert!(check(&data, &[&key], "").ok);
}

#[test]
fn an_end_that_was_cut_off_is_found() {
    let (data, key) = (tempfile::tempdir().unwrap(), Key::new(1));
    stamped(&data, config(), &key, 5);
    let kept = key.told.lock().unwrap().last().unwrap().clone();
    for lines in [1, 3, 6] {
        let cut = copy_all(&data);
        shorten(&cut, lines);
        assert_eq!(breach(&check(&cut, &[&key], "")), Some(Breach::Truncated));
        assert_eq!(breach(&check(&cut, &[], "")), Some(Breach::Truncated));
        // Who cuts the log cuts the file beside it, too.
        fs::remove_file(folder(&cut).join("checkpoints.txt")).unwrap();
        assert!(check(&cut, &[&key], "").ok, "nothing is left to know it by");
        assert_eq!(breach(&check(&cut, &[&key], &kept)), Some(Breach::Truncated));
        // Going on does not hide it. A log of which nothing is left is another one.
        write(&cut, config(), 9);
        let expected = if lines == 6 { Breach::Foreign } else { Breach::Rewritten };
        assert_eq!(breach(&check(&cut, &[&key], &kept)), Some(expected));
    }
    let gone = tempfile::tempdir().unwrap();
    fs::create_dir(folder(&gone)).unwrap();
    assert_eq!(breach(&check(&gone, &[&key], &kept)), Some(Breach::Truncated));
}

#[test]
fn a_log_that_was_computed_anew_is_found() {
    let (data, key, thief) = (tempfile::tempdir().unwrap(), Key::new(1), Key::new(2));
    stamped(&data, config(), &key, 5);
    let kept = key.told.lock().unwrap().last().unwrap().clone();
    compute_anew(&data, "\"worker\":\"w2\"", "\"worker\":\"w9\"");
    assert!(verified(&data).bad.is_none(), "the chain itself is whole");
    assert_eq!(breach(&check(&data, &[&key], "")), Some(Breach::Rewritten));
    // With checkpoints of its own beside it, by a key of its own.
    fs::remove_file(folder(&data).join("checkpoints.txt")).unwrap();
    stamped(&data, config(), &thief, 1);
    assert!(check(&data, &[], "").ok);
    assert_eq!(breach(&check(&data, &[&key], "")), Some(Breach::UnknownKey));
    assert_eq!(breach(&check(&data, &[&key, &thief], &kept)), Some(Breach::Rewritten));
}

#[test]
fn checkpoints_that_are_none_of_this_log_are_told_from_bad_logs() {
    let (data, other, key, thief) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), Key::new(1), Key::new(2));
    stamped(&data, config(), &key, 5);
    stamped(&other, config(), &key, 5);
    stamped(&other, config(), &thief, 0);
    let note = |key: &Arc<Key>, at: usize| key.told.lock().unwrap()[at].clone();
    let count = key.told.lock().unwrap().len();
    let own = note(&key, 0);
    let forged = own.replacen("\ntime 1", "\ntime 2", 1);
    for (given, expected) in [
        (own.clone(), None),
        (format!("{own}\n{own}"), None),
        (forged, Some(Breach::Forged)),
        (note(&key, count - 1), Some(Breach::Foreign)),
        (note(&thief, 0), Some(Breach::UnknownKey)),
        (own.replace("time", "tame"), Some(Breach::Unreadable)),
        ("nonsense".into(), Some(Breach::Unreadable)),
    ] {
        let report = check(&data, &[&key], &given);
        assert_eq!(breach(&report), expected, "{given}");
        assert!(report.bad.is_none());
    }
}

#[test]
fn keys_and_files_that_went_leave_a_log_that_verifies() {
    let (data, old, new) = (tempfile::tempdir().unwrap(), Key::new(1), Key::new(2));
    let small = AuditConfig { file_bytes_max: 4_096, files_max: Some(2), ..config() };
    stamped(&data, small, &old, 50);
    stamped(&data, small, &new, 50);
    let report = check(&data, &[&new], "");
    assert!(report.ok && report.checkpoints.older > 0, "{report:?}");
    assert!(report.checkpoints.signed > 0 && report.checkpoints.signed < report.checkpoints.read);
    // The old key alone does not do: the newest is by none that is known.
    assert_eq!(breach(&check(&data, &[&old], "")), Some(Breach::UnknownKey));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Killed while it wrote a checkpoint: it may be lost, all others are found, and those that come later, too.
    #[test]
    fn a_torn_checkpoint_is_gone_over(back in 0u64..400) {
        let (data, key) = (tempfile::tempdir().unwrap(), Key::new(1));
        stamped(&data, config(), &key, 2);
        let path = folder(&data).join("checkpoints.txt");
        let length = fs::metadata(&path).unwrap().len();
        cut(&path, length.saturating_sub(back));
        prop_assert!(check(&data, &[&key], "").ok);
        stamped(&data, config(), &key, 2);
        let report = check(&data, &[&key], "");
        prop_assert!(report.ok, "{report:?}");
        prop_assert_eq!(report.checkpoints.covered, Some(report.lines));
        prop_assert!(report.checkpoints.matched >= 1);
    }
}
