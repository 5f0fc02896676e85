//! The log on real files: killed in mid-write, changed behind its back, full, flooded.

mod checkpoints;

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tempfile::TempDir;

use super::entry::{Control, Entry};
use super::*;
use crate::config::Fsync;

fn config() -> AuditConfig {
    AuditConfig {
        enabled: true,
        fsync: Fsync::Never,
        file_bytes_max: 64 * 1024 * 1024,
        files_max: None,
        on_full: OnFull::Refuse,
        crossings_per_second: 1,
        crossings_burst: 2,
    }
}

fn entry(worker: &str) -> Entry {
    Entry::Control(Box::new(Control {
        time: now_ms(),
        tenant: "t".into(),
        worker: Some(worker.into()),
        name: None,
        token: None,
        actor: "configured".into(),
        action: "deploy",
        detail: String::new(),
        outcome: "done",
    }))
}

/// Opens, writes so many records, closes.
fn write(data: &TempDir, config: AuditConfig, records: usize) {
    let audit = Audit::open(data.path(), config, None).unwrap();
    for number in 0..records {
        audit.note(entry(&format!("w{number}")));
    }
    audit.close();
}

fn folder(data: &TempDir) -> PathBuf {
    data.path().join(FOLDER)
}

fn verified(data: &TempDir) -> Report {
    verify(&folder(data), &Trust::default()).unwrap()
}

fn files(data: &TempDir) -> Vec<PathBuf> {
    files::list(&folder(data)).unwrap().into_iter().map(|file| file.path).collect()
}

/// A folder like this one, to be broken.
fn copy(data: &TempDir) -> TempDir {
    let other = tempfile::tempdir().unwrap();
    fs::create_dir(other.path().join(FOLDER)).unwrap();
    for file in files(data) {
        fs::copy(&file, other.path().join(FOLDER).join(file.file_name().unwrap())).unwrap();
    }
    other
}

fn cut(path: &Path, length: u64) {
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(length).unwrap();
}

#[test]
fn files_follow_each_other_and_everything_is_there() {
    let data = tempfile::tempdir().unwrap();
    let small = AuditConfig { file_bytes_max: 4_096, ..config() };
    write(&data, small, 100);
    write(&data, small, 1);
    let report = verified(&data);
    assert!(report.ok && report.torn.is_none(), "{report:?}");
    assert!(report.files > 4, "{report:?}");
    assert_eq!(report.lines, 101 + report.files, "each file has a head");
    assert_eq!((report.first_seq, report.last_seq), (Some(0), Some(report.lines - 1)));
    for pair in files(&data).windows(2) {
        let before = fs::read_to_string(&pair[0]).unwrap();
        let last: serde_json::Value = serde_json::from_str(before.lines().last().unwrap()).unwrap();
        let after = fs::read_to_string(&pair[1]).unwrap();
        let first: serde_json::Value = serde_json::from_str(after.lines().next().unwrap()).unwrap();
        assert_eq!(first["prev"], last["hash"]);
        assert!(before.len() < 4_096 + line::LINE_BYTES_MAX);
    }
}

#[test]
fn old_files_go_where_the_operator_says_so_and_the_rest_verifies() {
    let data = tempfile::tempdir().unwrap();
    write(&data, AuditConfig { file_bytes_max: 4_096, files_max: Some(2), ..config() }, 200);
    let report = verified(&data);
    assert!(report.ok && report.files == 2, "{report:?}");
    assert!(report.first_seq > Some(0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Killed at any byte, again and again: what was written whole stays, the chain goes on, and all of it verifies.
    #[test]
    fn a_torn_end_is_sealed_and_the_chain_goes_on(cuts in proptest::collection::vec((1u64..2_000, 0usize..4), 1..4)) {
        let data = tempfile::tempdir().unwrap();
        write(&data, config(), 5);
        for (back, records) in cuts {
            let last = files(&data).pop().unwrap();
            let length = fs::metadata(&last).unwrap().len();
            cut(&last, length.saturating_sub(back));
            let before = verified(&data);
            prop_assert!(before.ok, "a torn end is no crime: {before:?}");
            let torn = u64::from(before.torn.is_some());
            write(&data, config(), records);
            let after = verified(&data);
            prop_assert!(after.ok && after.torn.is_none(), "{after:?}");
            prop_assert!(after.sealed >= torn);
            prop_assert_eq!(after.lines, before.lines + 1 + records as u64);
        }
    }

    /// One changed byte anywhere is found, wherever it is and whatever is written afterwards.
    #[test]
    fn a_changed_byte_is_found(at in any::<prop::sample::Index>(), flip in 1u8..=255, more in any::<bool>()) {
        let data = tempfile::tempdir().unwrap();
        write(&data, config(), 3);
        write(&data, config(), 2);
        let files = files(&data);
        let path = &files[at.index(files.len())];
        let mut bytes = fs::read(path).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        // The very last line's end is the one byte whose loss looks like a kill.
        let last = path == files.last().unwrap() && at == bytes.len() - 1;
        prop_assume!(!last);
        fs::write(path, bytes).unwrap();
        prop_assert!(!verified(&data).ok);
        if more {
            write(&data, config(), 2);
            prop_assert!(!verified(&data).ok, "what comes later does not hide it");
        }
    }
}

#[test]
fn what_is_removed_repeated_or_exchanged_is_found() {
    let data = tempfile::tempdir().unwrap();
    let small = AuditConfig { file_bytes_max: 4_096, ..config() };
    write(&data, small, 60);
    let lines = |path: &Path| -> Vec<String> {
        fs::read_to_string(path).unwrap().split_inclusive('\n').map(str::to_owned).collect()
    };
    type Edit = fn(&mut Vec<String>);
    let edits: &[(&str, Edit)] = &[
        ("a line removed", |lines| drop(lines.remove(3))),
        ("a line repeated", |lines| lines.insert(3, lines[3].clone())),
        ("two lines exchanged", |lines| lines.swap(3, 4)),
        ("the head removed", |lines| drop(lines.remove(0))),
        ("the end of a file removed", |lines| drop(lines.pop())),
        ("a line added", |lines| lines.push("{\"kind\":\"x\"}\n".into())),
    ];
    for (what, edit) in edits {
        let broken = copy(&data);
        let path = files(&broken)[1].clone();
        let mut text = lines(&path);
        edit(&mut text);
        fs::write(&path, text.concat()).unwrap();
        let bad = verified(&broken).bad;
        let bad = bad.unwrap_or_else(|| panic!("{what} was not found"));
        assert!(bad.file.ends_with("2.jsonl") || bad.file.ends_with("3.jsonl"), "{what}: {bad:?}");
    }
    let gap = copy(&data);
    fs::remove_file(&files(&gap)[1]).unwrap();
    assert!(!verified(&gap).ok, "a file is missing");
    // A torn end that the next file names cannot be changed either.
    let torn = copy(&data);
    let last = files(&torn).pop().unwrap();
    cut(&last, fs::metadata(&last).unwrap().len() - 7);
    write(&torn, small, 1);
    assert!(verified(&torn).ok);
    cut(&last, fs::metadata(&last).unwrap().len() - 1);
    assert!(!verified(&torn).ok);
}

/// A kill between the making of a file and its first line, and one in the middle of that line, after a torn end.
#[test]
fn files_without_a_line_are_gone_over() {
    let data = tempfile::tempdir().unwrap();
    write(&data, config(), 3);
    let first = files(&data).pop().unwrap();
    cut(&first, fs::metadata(&first).unwrap().len() - 9);
    fs::write(folder(&data).join(files::file_name(2)), "").unwrap();
    fs::write(folder(&data).join(files::file_name(3)), "{\"hash\":\"ab").unwrap();
    assert!(verified(&data).ok);
    write(&data, config(), 2);
    let report = verified(&data);
    assert!(report.ok && report.sealed == 2 && report.torn.is_none(), "{report:?}");
    assert_eq!(report.lines, 3 + 3, "a head and two records of each writer");
}

/// A folder in which the next file cannot be made.
fn blocked(data: &TempDir) -> PathBuf {
    folder(data).join(files::file_name(2))
}

#[test]
fn without_a_disk_nothing_is_promised_and_what_was_promised_is_kept() {
    let data = tempfile::tempdir().unwrap();
    let audit = Audit::open(data.path(), AuditConfig { file_bytes_max: 4_096, ..config() }, None).unwrap();
    fs::write(blocked(&data), "").unwrap();
    let promised: Vec<Place> = (0..40).map(|_| audit.place().unwrap()).collect();
    for number in 0..20 {
        audit.note(entry(&format!("w{number}")));
    }
    while !audit.is_failing() {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!audit.is_ready());
    assert_eq!(audit.place().err(), Some(Unavailable));
    // What runs already ends meanwhile, and its records wait.
    promised.into_iter().for_each(|place| place.write(entry("promised")));
    fs::remove_file(blocked(&data)).unwrap();
    while !audit.is_ready() {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(audit.place().is_ok());
    audit.close();
    let report = verified(&data);
    assert!(report.ok, "{report:?}");
    assert_eq!(report.lines, 60 + report.files);
    assert_eq!(audit.dropped(), 0);
}

#[test]
fn where_the_operator_lets_records_go_the_log_says_how_many() {
    let data = tempfile::tempdir().unwrap();
    let config = AuditConfig { file_bytes_max: 4_096, on_full: OnFull::Drop, ..config() };
    let audit = Audit::open(data.path(), config, None).unwrap();
    fs::write(blocked(&data), "").unwrap();
    for number in 0..20 {
        audit.note(entry(&format!("w{number}")));
    }
    while !audit.is_failing() {
        std::thread::sleep(Duration::from_millis(5));
    }
    for _ in 0..7 {
        audit.place().unwrap().write(entry("dropped"));
    }
    assert!(audit.is_ready());
    assert_eq!(audit.dropped(), 7);
    fs::remove_file(blocked(&data)).unwrap();
    audit.close();
    let text: String = files(&data).iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    assert!(text.contains("\"kind\":\"lost\"") && text.contains("\"records\":7}"), "{text}");
    assert!(!text.contains("\"dropped\""));
    assert!(verified(&data).ok);
}

#[test]
fn places_are_bounded_and_come_back() {
    let data = tempfile::tempdir().unwrap();
    let audit = Audit::open(data.path(), config(), None).unwrap();
    let places: Vec<Place> = (0..PLACES_MAX).map(|_| audit.place().unwrap()).collect();
    assert_eq!(audit.place().err(), Some(Unavailable));
    assert!(!audit.is_ready());
    drop(places);
    audit.place().unwrap().write(entry("w"));
    audit.flush();
    let shared = audit.0.as_ref().unwrap();
    assert_eq!(shared.places.load(Ordering::Relaxed), 0);
    audit.close();
    assert_eq!(verified(&data).lines, 2);
}

#[test]
fn pages_lead_through_the_whole_log_and_show_nobody_elses() {
    let data = tempfile::tempdir().unwrap();
    let small = AuditConfig { file_bytes_max: 4_096, ..config() };
    write(&data, small, 50);
    let ask = |tenant: &str, cursor| Query {
        tenant: tenant.into(),
        since_ms: 0,
        worker: None,
        kind: None,
        limit: 7,
        cursor,
    };
    let (mut cursor, mut found) = (None, Vec::new());
    loop {
        let page = query(&folder(&data), &ask("t", cursor)).unwrap();
        assert!(page.records.len() <= 7);
        found.extend(page.records.iter().map(|record| {
            let record: serde_json::Value = serde_json::from_str(record.get()).unwrap();
            record["worker"].as_str().unwrap().to_owned()
        }));
        let Some(next) = page.next else { break };
        cursor = Some(next.to_string().parse().unwrap());
    }
    assert_eq!(found, (0..50).map(|number| format!("w{number}")).collect::<Vec<_>>());
    assert!(query(&folder(&data), &ask("other", None)).unwrap().records.is_empty());
    let mut one = ask("t", None);
    one.worker = Some("w3".into());
    assert_eq!(query(&folder(&data), &one).unwrap().records.len(), 1);
    one.kind = Some("execution".into());
    assert!(query(&folder(&data), &one).unwrap().records.is_empty());
    let mut late = ask("t", None);
    late.since_ms = now_ms() + 60_000;
    assert!(query(&folder(&data), &late).unwrap().records.is_empty());
    // Whatever a client says as a cursor, it reads at worst nothing.
    for cursor in ["0-0", "1-5", "1-999999999", "99-0"] {
        let page = query(&folder(&data), &ask("other", Some(cursor.parse().unwrap()))).unwrap();
        assert!(page.records.is_empty(), "{cursor}");
    }
}

#[test]
fn crossings_beyond_the_rate_are_counted_and_none_is_lost() {
    use atoll_bindings::crossing::{Crossing, Verdict};
    let data = tempfile::tempdir().unwrap();
    let prices = Prices { egress_gib: 1 << 30, ..Prices::default() };
    let audit = Audit::open(data.path(), config(), Some(prices)).unwrap();
    let crossing = Crossing {
        tenant: "t".into(),
        worker: "w".into(),
        sandbox: None,
        token: None,
        execution: Some("e".into()),
        capability: "fetch".into(),
        policy: None,
        method: http::Method::GET,
        origin: "https://example.com".into(),
        minted: None,
        redirects: 0,
        verdict: Verdict::Answered(200),
        request_bytes: 1,
        response_bytes: 2,
        elapsed: Duration::from_millis(1),
    };
    for _ in 0..100 {
        audit.crossing(&crossing);
    }
    audit.close();
    let text = fs::read_to_string(&files(&data)[0]).unwrap();
    let records = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let (mut single, mut counted, mut cost) = (0, 0, 0);
    for record in records {
        cost += record["cost"].as_u64().unwrap_or(0);
        match record["kind"].as_str().unwrap() {
            "crossing" => single += 1,
            "counted" => counted += record["count"].as_u64().unwrap(),
            _ => {}
        }
    }
    assert_eq!(single + counted, 100);
    assert!(single <= 3, "{single} records of their own");
    assert_eq!(cost, 300, "the price of counted ones is there as well");
    assert!(verified(&data).ok);
}
