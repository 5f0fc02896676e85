//! The store over real files, against a model, and through its worst moments.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use atoll_bindings::body::RequestBody;
use bytes::Bytes;
use http_body::Body as _;
use proptest::prelude::*;

use super::*;

const ROOMY: KvQuota = KvQuota {
    bytes_max: u64::MAX >> 8,
    keys_max: 1 << 40,
    namespaces_max: 10,
    namespace_bytes_max: u64::MAX >> 8,
    namespace_keys_max: 1 << 40,
};

/// A store whose clock stands until it is set.
struct Stage {
    folder: tempfile::TempDir,
    now_s: Arc<AtomicU64>,
    kv: Kv,
}

impl Stage {
    async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let now_s = Arc::new(AtomicU64::new(1_000));
        let kv = open(&folder, &now_s).await;
        Self { folder, now_s, kv }
    }

    /// The same files, opened again.
    async fn reopened(self) -> Self {
        let Self { folder, now_s, kv } = self;
        drop(kv);
        let kv = open(&folder, &now_s).await;
        Self { folder, now_s, kv }
    }

    fn namespace(&self, tenant: &str, name: &str) -> Namespace {
        self.kv.namespace(tenant, name, ROOMY)
    }

    /// Rows of large values that are on disk, and dead values.
    fn leftovers(&self) -> (u64, u64) {
        let db = Connection::open(self.folder.path().join("kv.db")).unwrap();
        let count =
            |table| db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap();
        (count("chunk"), count("dead"))
    }
}

async fn open(folder: &tempfile::TempDir, now_s: &Arc<AtomicU64>) -> Kv {
    let clock = Arc::clone(now_s);
    Kv::open_at(folder.path(), Arc::new(move || clock.load(Relaxed))).await.unwrap()
}

fn key(name: &str) -> Key {
    Key::parse(name).unwrap()
}

async fn put(namespace: &Namespace, name: &str, value: &[u8], options: PutOptions) -> Result<(), KvError> {
    let mut upload = namespace.upload();
    for piece in value.chunks(100_000) {
        upload.push(Bytes::copy_from_slice(piece)).await?;
    }
    upload.finish(key(name), options).await
}

async fn value(entry: Entry) -> Vec<u8> {
    let mut body = RequestBody::from(entry.value);
    let mut bytes = Vec::new();
    while let Some(frame) = std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await {
        bytes.extend_from_slice(&frame.unwrap().into_data().unwrap());
    }
    bytes
}

async fn get(namespace: &Namespace, name: &str) -> Option<Vec<u8>> {
    let entry = namespace.get(&key(name)).await.unwrap()?;
    let (bytes, value) = (entry.bytes, value(entry).await);
    assert_eq!(bytes, value.len() as u64);
    Some(value)
}

fn expires(expires_s: u64) -> PutOptions {
    PutOptions { expires_s: Some(expires_s), metadata: None }
}

/// Bytes that differ everywhere.
fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|at| (at / 251) as u8 ^ (at % 251) as u8 ^ seed).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_every_size_come_back_also_after_reopening() {
    let stage = Stage::open().await;
    let sizes = [0, 1, INLINE_BYTES_MAX, INLINE_BYTES_MAX + 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3_000_000];
    let space = stage.namespace("acme", "a");
    for size in sizes {
        put(&space, &format!("k{size}"), &pattern(size, 1), PutOptions::default()).await.unwrap();
    }
    let stage = stage.reopened().await;
    let space = stage.namespace("acme", "a");
    for size in sizes {
        assert_eq!(get(&space, &format!("k{size}")).await, Some(pattern(size, 1)), "{size}");
    }
    let mut largest = space.upload();
    for _ in 0..25 {
        largest.push(Bytes::from(vec![7; MIB])).await.unwrap();
    }
    largest.finish(key("largest"), PutOptions::default()).await.unwrap();
    assert_eq!(get(&space, "largest").await.unwrap().len() as u64, VALUE_BYTES_MAX);
    let mut larger = space.upload();
    larger.push(Bytes::from(vec![7; VALUE_BYTES_MAX as usize])).await.unwrap();
    let refused = larger.push(Bytes::from_static(b"x")).await;
    assert!(matches!(refused, Err(KvError::ValueTooLarge { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_and_namespaces_never_meet() {
    let stage = Stage::open().await;
    for (tenant, name) in [("a", "x"), ("a", "y"), ("b", "x")] {
        put(&stage.namespace(tenant, name), "k", format!("{tenant}{name}").as_bytes(), PutOptions::default())
            .await
            .unwrap();
    }
    stage.namespace("a", "x").delete(key("k")).await.unwrap();
    assert_eq!(get(&stage.namespace("a", "x"), "k").await, None);
    assert_eq!(get(&stage.namespace("a", "y"), "k").await.unwrap(), b"ay");
    assert_eq!(get(&stage.namespace("b", "x"), "k").await.unwrap(), b"bx");
    stage.namespace("a", "y").remove().await.unwrap();
    assert!(matches!(stage.namespace("b", "y").remove().await, Err(KvError::NoNamespace)));
    let left: Vec<_> = stage.kv.namespaces("a").await.unwrap().into_iter().map(|info| info.name).collect();
    assert_eq!(left, ["x"]);
    assert_eq!(get(&stage.namespace("b", "x"), "k").await.unwrap(), b"bx");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_expired_is_gone_at_once_and_from_the_disk_when_swept() {
    let stage = Stage::open().await;
    let space = stage.namespace("acme", "a");
    put(&space, "soon", &pattern(300_000, 2), expires(1_060)).await.unwrap();
    put(&space, "late", b"late", expires(2_000)).await.unwrap();
    stage.now_s.store(1_059, Relaxed);
    assert!(get(&space, "soon").await.is_some());
    stage.now_s.store(1_060, Relaxed);
    assert_eq!(get(&space, "soon").await, None);
    let page = space.list(ListOptions { limit: 10, ..ListOptions::default() }).await.unwrap();
    assert_eq!(page.keys.iter().map(|key| &key.name[..]).collect::<Vec<_>>(), ["late"]);
    stage.kv.sweep().await.unwrap();
    assert_eq!(stage.leftovers(), (0, 0));
    assert_eq!(
        stage.kv.namespaces("acme").await.unwrap()[0],
        NamespaceInfo { name: "a".into(), bytes: 8, keys: 1 }
    );
    // A new value without an expiry replaces one that has one.
    put(&space, "late", b"for ever", PutOptions::default()).await.unwrap();
    stage.now_s.store(9_999, Relaxed);
    assert_eq!(get(&space, "late").await.unwrap(), b"for ever");
}

/// Story: a reader that is slower than a writer must get the value that it began with, whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_is_read_stays_until_its_last_reader_is_done() {
    let stage = Stage::open().await;
    let space = stage.namespace("acme", "a");
    let old = pattern(1_000_000, 3);
    put(&space, "k", &old, PutOptions::default()).await.unwrap();
    let entry = space.get(&key("k")).await.unwrap().unwrap();
    put(&space, "k", &pattern(1_000_000, 4), PutOptions::default()).await.unwrap();
    space.delete(key("k")).await.unwrap();
    stage.kv.sweep().await.unwrap();
    assert_eq!(stage.leftovers().1, 1, "the old value is dead, and still there");
    assert_eq!(value(entry).await, old);
    stage.kv.sweep().await.unwrap();
    assert_eq!(stage.leftovers(), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_given_up_leaves_nothing_not_even_over_a_crash() {
    let stage = Stage::open().await;
    let space = stage.namespace("acme", "a");
    put(&space, "k", b"old", PutOptions::default()).await.unwrap();
    let mut upload = space.upload();
    upload.push(Bytes::from(vec![1; MIB])).await.unwrap();
    assert!(stage.leftovers().0 > 0);
    // As if the process had died: nobody removes anything.
    std::mem::forget(upload);
    drop(space);
    let stage = stage.reopened().await;
    stage.kv.sweep().await.unwrap();
    assert_eq!(stage.leftovers(), (0, 0));
    assert_eq!(get(&stage.namespace("acme", "a"), "k").await.unwrap(), b"old");
    let mut upload = stage.namespace("acme", "a").upload();
    upload.push(Bytes::from(vec![1; MIB])).await.unwrap();
    drop(upload);
    stage.kv.sweep().await.unwrap();
    assert_eq!(stage.leftovers(), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_hold_for_tenants_and_namespaces_and_free_what_is_deleted() {
    let stage = Stage::open().await;
    let quota = KvQuota {
        bytes_max: 1_000_000,
        keys_max: 4,
        namespaces_max: 2,
        namespace_bytes_max: 800_000,
        namespace_keys_max: 3,
    };
    let space = |name: &str| stage.kv.namespace("acme", name, quota);
    let (a, b) = (space("a"), space("b"));
    let refused = |result: Result<(), KvError>| match result {
        Err(KvError::Full(quota)) => quota,
        other => panic!("{other:?}"),
    };
    let none = PutOptions::default;
    put(&a, "1", &pattern(700_000, 1), none()).await.unwrap();
    assert_eq!(refused(put(&a, "2", &pattern(200_000, 1), none()).await), Quota::NamespaceBytes(800_000));
    assert_eq!(refused(put(&b, "1", &pattern(400_000, 1), none()).await), Quota::Bytes(1_000_000));
    assert_eq!(get(&b, "1").await, None, "a refused value leaves nothing");
    // Replacing is no more than what it leaves, and deleting makes room at once.
    put(&a, "1", &pattern(200_000, 1), none()).await.unwrap();
    put(&b, "1", &pattern(700_000, 1), none()).await.unwrap();
    b.delete(key("1")).await.unwrap();
    put(&b, "1", &pattern(700_000, 2), none()).await.unwrap();
    b.delete(key("1")).await.unwrap();
    for name in ["2", "3"] {
        put(&a, name, b"", none()).await.unwrap();
    }
    assert_eq!(refused(put(&a, "4", b"", none()).await), Quota::NamespaceKeys(3));
    put(&b, "1", b"", expires(1_060)).await.unwrap();
    assert_eq!(refused(put(&b, "2", b"", none()).await), Quota::Keys(4));
    stage.now_s.store(1_061, Relaxed);
    put(&b, "2", b"", none()).await.expect("what expired makes room");
    assert_eq!(refused(space("c").create().await), Quota::Namespaces(2));
    put(&stage.kv.namespace("other", "c", quota), "k", &pattern(700_000, 1), none()).await.unwrap();
}

/// Many at once, each on its own keys and all on one.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_and_readers_at_once_see_whole_values() {
    let stage = Stage::open().await;
    let tasks: Vec<_> = (0..8_u8)
        .map(|task| {
            let space = stage.namespace(if task % 2 == 0 { "a" } else { "b" }, "x");
            tokio::spawn(async move {
                for round in 0..10 {
                    put(&space, "shared", &pattern(300_000, round), PutOptions::default()).await.unwrap();
                    let own = format!("{task}");
                    put(&space, &own, &[round], PutOptions::default()).await.unwrap();
                    assert_eq!(get(&space, &own).await.unwrap(), [round]);
                    let seen = get(&space, "shared").await.unwrap();
                    assert!((0..10).any(|round| seen == pattern(300_000, round)), "a value in parts");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    stage.kv.sweep().await.unwrap();
    assert_eq!(stage.leftovers(), (4, 0), "two values of two pieces each");
}

#[derive(Clone, Debug)]
enum Op {
    Put { key: String, size: usize, ttl: Option<u64>, metadata: bool },
    Get(String),
    Delete(String),
    List { prefix: String, limit: usize },
    Pass(u64),
    Sweep,
}

fn op() -> impl Strategy<Value = Op> {
    let name = || "[ab/é]{1,3}";
    let size = prop_oneof![0_usize..10, Just(INLINE_BYTES_MAX + 1), Just(CHUNK_BYTES * 2)];
    prop_oneof![
        4 => (name(), size, proptest::option::of(1_u64..50), any::<bool>())
            .prop_map(|(key, size, ttl, metadata)| Op::Put { key, size, ttl, metadata }),
        2 => name().prop_map(Op::Get),
        1 => name().prop_map(Op::Delete),
        2 => ("[ab/é]{0,2}", 1_usize..4).prop_map(|(prefix, limit)| Op::List { prefix, limit }),
        1 => (1_u64..30).prop_map(Op::Pass),
        1 => Just(Op::Sweep),
    ]
}

struct Model {
    value: Vec<u8>,
    expires_s: Option<u64>,
    metadata: Option<String>,
}

/// All keys of a prefix, page by page.
async fn listed(space: &Namespace, prefix: &str, limit: usize) -> Vec<ListedKey> {
    let mut all: Vec<ListedKey> = Vec::new();
    loop {
        let after = all.last().map(|key| key.name.clone().into_bytes());
        let options = ListOptions { prefix: prefix.into(), after, limit };
        let page = space.list(options).await.unwrap();
        assert!(page.keys.len() <= limit && (page.complete || page.keys.len() == limit));
        all.extend(page.keys);
        if page.complete {
            return all;
        }
    }
}

async fn run(stage: &Stage, ops: Vec<Op>) {
    let space = stage.namespace("acme", "a");
    let mut model: BTreeMap<String, Model> = BTreeMap::new();
    for (at, op) in ops.into_iter().enumerate() {
        let now_s = stage.now_s.load(Relaxed);
        model.retain(|_, entry| entry.expires_s.is_none_or(|expires_s| expires_s > now_s));
        match op {
            Op::Put { key, size, ttl, metadata } => {
                let value = pattern(size, at as u8);
                let metadata = metadata.then(|| format!("{at}"));
                let expires_s = ttl.map(|ttl| now_s + ttl);
                let options = PutOptions { metadata: metadata.clone(), expires_s };
                put(&space, &key, &value, options).await.unwrap();
                model.insert(key, Model { value, expires_s, metadata });
            }
            Op::Get(name) => {
                let wanted = model.get(&name);
                let entry = space.get(&key(&name)).await.unwrap();
                let got = entry.as_ref().map(|entry| (entry.expires_s, entry.metadata.clone()));
                assert_eq!(got, wanted.map(|entry| (entry.expires_s, entry.metadata.clone())));
                if let Some(entry) = entry {
                    assert_eq!(value(entry).await, wanted.unwrap().value);
                }
            }
            Op::Delete(name) => {
                space.delete(key(&name)).await.unwrap();
                model.remove(&name);
            }
            Op::List { prefix, limit } => {
                let wanted: Vec<_> = model
                    .iter()
                    .filter(|(name, _)| name.starts_with(&prefix))
                    .map(|(name, entry)| ListedKey {
                        name: name.clone(),
                        expires_s: entry.expires_s,
                        metadata: entry.metadata.clone(),
                    })
                    .collect();
                assert_eq!(listed(&space, &prefix, limit).await, wanted);
            }
            Op::Pass(seconds) => _ = stage.now_s.fetch_add(seconds, Relaxed),
            Op::Sweep => stage.kv.sweep().await.unwrap(),
        }
    }
    let now_s = stage.now_s.load(Relaxed);
    model.retain(|_, entry| entry.expires_s.is_none_or(|expires_s| expires_s > now_s));
    stage.kv.sweep().await.unwrap();
    let bytes = |(name, entry): (&String, &Model)| {
        (name.len() + entry.value.len() + entry.metadata.as_ref().map_or(0, String::len)) as u64
    };
    let wanted = (model.iter().map(bytes).sum::<u64>(), model.len() as u64);
    let got = stage.kv.namespaces("acme").await.unwrap();
    assert_eq!(got.first().map_or((0, 0), |info| (info.bytes, info.keys)), wanted, "the counts are exact");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn the_store_is_a_sorted_map_with_expiry(ops in proptest::collection::vec(op(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let stage = Stage::open().await;
            run(&stage, ops).await;
        });
    }
}

#[test]
fn names_of_namespaces_are_plain() {
    for good in ["a", "KV_1", "0f2ac74b498b48028cb68387c421e279", "a.b-c"] {
        assert!(is_namespace_name(good), "{good}");
    }
    for bad in ["", ".", "..", "a/b", "ä", "a b", &"x".repeat(129)] {
        assert!(!is_namespace_name(bad), "{bad}");
    }
}
