//! The store over real files.

use super::*;

fn version(worker: &str, code: u8, hosts: &[&str]) -> NewVersion {
    NewVersion {
        tenant: "acme".into(),
        worker: worker.into(),
        hash: CodeHash([code; 32]),
        encoded: Bytes::from(vec![code; 10]),
        settings: hosts.join(" "),
        hosts: hosts.iter().map(|&host| host.into()).collect(),
        created_ms: 1,
    }
}

fn hosts(settings: &str) -> Vec<String> {
    settings.split_whitespace().map(str::to_owned).collect()
}

#[tokio::test]
async fn versions_are_added_activated_and_rolled_back() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).await.unwrap();
    for code in 1..=3 {
        let deployed = store.deploy(version("hello", code, &[])).await.unwrap();
        assert_eq!(deployed.version, u64::from(code));
    }
    let back = store.rollback("acme", "hello", None, hosts).await.unwrap();
    assert_eq!((back.version, back.hash), (2, CodeHash([2; 32])));
    assert_eq!(store.rollback("acme", "hello", Some(1), hosts).await.unwrap().version, 1);
    assert!(matches!(store.rollback("acme", "hello", None, hosts).await, Err(StoreError::NotFound)));
    assert!(matches!(store.rollback("acme", "hello", Some(9), hosts).await, Err(StoreError::NotFound)));
    assert!(matches!(store.rollback("other", "hello", Some(1), hosts).await, Err(StoreError::NotFound)));
    let all = store.versions("acme", "hello").await.unwrap();
    assert_eq!(
        all.iter().map(|v| (v.version, v.active)).collect::<Vec<_>>(),
        [(3, false), (2, false), (1, true)]
    );
    let next = store.deploy(version("hello", 4, &[])).await.unwrap();
    assert_eq!(next.version, 4, "a number is never given twice");
}

#[tokio::test]
async fn what_was_confirmed_is_there_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).await.unwrap();
    store.deploy(version("hello", 7, &["a.example"])).await.unwrap();
    drop(store);
    let store = Store::open(directory.path()).await.unwrap();
    let active = store.active(None).await.unwrap();
    assert_eq!(active.len(), 1);
    assert_eq!(store.bundle(active[0].hash).await.unwrap(), vec![7; 10]);
    assert!(store.active(Some("other")).await.unwrap().is_empty());
}

/// Story: a deploy that fails half way (here: its host name is taken) must leave no trace, as after a crash
/// between its statements.
#[tokio::test]
async fn a_failed_deploy_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).await.unwrap();
    store.deploy(version("one", 1, &["a.example"])).await.unwrap();
    store.deploy(version("two", 2, &[])).await.unwrap();
    let error = store.deploy(version("two", 3, &["b.example", "a.example"])).await.unwrap_err();
    assert!(matches!(error, StoreError::HostTaken(host) if host == "a.example"));
    let two = store.versions("acme", "two").await.unwrap();
    assert_eq!(two.iter().map(|v| (v.version, v.active)).collect::<Vec<_>>(), [(1, true)]);
    assert!(matches!(store.bundle(CodeHash([3; 32])).await, Err(StoreError::Damaged(_))));
    store.deploy(version("three", 4, &["b.example"])).await.expect("the claim was rolled back too");
}

/// Story: SIGKILL in the middle of a write. The write-ahead log of an unfinished transaction is copied away while
/// it is open, which is what a kill leaves behind; the copy must open with the state before it.
#[tokio::test]
async fn a_crash_in_the_middle_of_a_write_leaves_the_state_before() {
    let directory = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).await.unwrap();
    store.deploy(version("hello", 1, &[])).await.unwrap();
    let (from, to) = (directory.path().to_owned(), copy.path().to_owned());
    let crashed = store
        .db
        .write(move |tx| {
            tx.execute("UPDATE worker SET active = 99", [])?;
            tx.execute("INSERT INTO bundle (hash, encoded) VALUES (x'01', zeroblob(20000000))", [])?;
            for entry in std::fs::read_dir(&from).unwrap() {
                let entry = entry.unwrap();
                std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            }
            Err::<(), _>(StoreError::Stopped)
        })
        .await;
    assert!(crashed.is_err());
    for path in [directory.path(), copy.path()] {
        let store = Store::open(path).await.unwrap();
        let active = store.active(None).await.unwrap();
        assert_eq!(active.iter().map(|v| v.version).collect::<Vec<_>>(), [1]);
    }
}

#[tokio::test]
async fn deleting_frees_names_and_code_but_never_an_id() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).await.unwrap();
    let first = store.deploy(version("hello", 1, &["a.example"])).await.unwrap();
    store.delete("acme", "hello").await.unwrap();
    assert!(matches!(store.delete("acme", "hello").await, Err(StoreError::NotFound)));
    assert!(store.bundle(first.hash).await.is_err());
    let again = store.deploy(version("hello", 1, &["a.example"])).await.unwrap();
    assert_eq!(again.version, 1);
    assert!(again.id > first.id, "or a warm isolate of the old worker would serve the new one");
}

#[tokio::test]
async fn old_versions_go_when_there_are_too_many() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).await.unwrap();
    for code in 0..VERSIONS_MAX + 3 {
        store.deploy(version("hello", u8::try_from(code).unwrap(), &[])).await.unwrap();
    }
    let kept = store.versions("acme", "hello").await.unwrap();
    assert_eq!(kept.len() as u64, VERSIONS_MAX);
    assert_eq!(kept.last().unwrap().version, 4);
    assert!(store.bundle(CodeHash([0; 32])).await.is_err());
}

#[tokio::test]
async fn a_store_of_the_future_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let connection = Connection::open(directory.path().join("deployments.db")).unwrap();
    connection.pragma_update(None, "user_version", 2).unwrap();
    assert!(matches!(Store::open(directory.path()).await, Err(StoreError::Format(2))));
}
