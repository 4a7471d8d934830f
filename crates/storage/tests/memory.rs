//! The stores in memory have the semantics of the services, and what is built on them keeps its promises when requests
//! fail, answers are lost and other writers come between.

use async_trait::async_trait;
use bytes::Bytes;
use errors::Named;
use futures::TryStreamExt;
use ledger::Keyed;
use network::{Broken, Calm, Network, OneFault, Request, Strike};
use serde::{Deserialize, Serialize};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};
use storage::{
    Algorithm, Change, Condition, Item, LedgerError, MemoryObjects, MemoryTables, ObjectStore, Objects, Part, Put,
    PutEnd, PutOnce, Table, TableStore, Write,
};
use tokio::io::AsyncReadExt;

const BUCKET: &str = "bucket";

fn s3() -> MemoryObjects {
    MemoryObjects::new(Calm::shared()).bucket(BUCKET)
}

fn body(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// Writes a key before another's write of it arrives.
struct Overtake {
    store: MemoryObjects,
    key: &'static str,
    times: AtomicUsize,
}

#[async_trait]
impl Network for Overtake {
    async fn sent(&self, request: &Request) -> Result<(), Broken> {
        let is_left = |times: usize| times.checked_sub(1);
        let put = request.operation == "PutObject" || request.operation == "CompleteMultipartUpload";
        if put && self.times.fetch_update(Ordering::SeqCst, Ordering::SeqCst, is_left).is_ok() {
            let objects = Objects::over(self.store.clone(), BUCKET);
            objects.put(self.key, body("theirs"), "text/plain").await.expect("written");
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_part_of_an_object_comes_by_itself_and_of_that_object_only() {
    let objects = Objects::over(s3().with_chunks_of(3), BUCKET);
    objects.put("k", body("0123456789"), "text/plain").await.expect("written");
    let first = objects.find_part("k", 0..4, None).await.expect("read").expect("it is there");
    assert_eq!((first.body, first.object_bytes), (body("0123"), 10));
    for (range, expected) in [(4..9, "45678"), (8..10, "89"), (8..99, "89"), (0..10, "0123456789"), (3..3, "")] {
        let part = objects.find_part("k", range.clone(), Some(&first.tag)).await.expect("read").expect("it is there");
        assert_eq!((part.body, part.object_bytes), (body(expected), 10), "{range:?}");
    }
    objects.put("k", body("abcdefghij"), "text/plain").await.expect("written");
    let other = objects.find_part("k", 4..9, Some(&first.tag)).await.expect_err("another object");
    assert_eq!(other.name(), "StoreUnavailable");
    assert_eq!(objects.find_part("none", 0..4, None).await.expect("read"), None);
}

#[tokio::test]
async fn two_uploads_of_a_key_at_once_are_a_conflict_and_then_decided() {
    let store = s3();
    let overtaken = || {
        let network = Overtake { store: store.clone(), key: "k", times: AtomicUsize::new(1) };
        store.through(Arc::new(network))
    };
    let put = Put {
        bucket: BUCKET,
        key: "k",
        body: body("mine"),
        checksum: Algorithm::Sha256.of(b"mine"),
        content_type: "text/plain",
        condition: Condition::Absent,
    };
    assert_eq!(overtaken().put(put.clone()).await.expect("answered"), PutEnd::Conflict);
    assert_eq!(store.put(put).await.expect("answered"), PutEnd::Refused);
    // What is built on it asks again, and finds out.
    store.expire(BUCKET, "");
    let objects = Objects::over(overtaken(), BUCKET);
    let end = objects.put_once("k", body("mine"), "text/plain").await.expect("decided");
    assert!(matches!(end, PutOnce::Exists(head) if head.bytes == 6));
    store.expire(BUCKET, "");
    let end = Objects::over(overtaken(), BUCKET).put_once("k", body("theirs"), "text/plain").await.expect("decided");
    assert!(matches!(end, PutOnce::Created(_)), "the other writer wrote the same");
    let objects = Objects::over(store.clone(), BUCKET);
    objects.put("k", body("before"), "text/plain").await.expect("written");
    let (_, tag) = objects.find_versioned("k").await.expect("found").expect("there");
    assert!(!Objects::over(overtaken(), BUCKET).replace("k", body("mine"), "text/plain", &tag).await.expect("decided"));
}

#[tokio::test]
async fn bytes_that_are_not_those_of_their_sha256_are_refused() {
    let objects = Objects::over(s3(), BUCKET);
    let other = storage::sha256_hex(b"other");
    let end = objects.put_once_hashed("k", body("mine"), &other, "text/plain").await;
    assert!(end.is_err_and(|error| error.to_string().contains("BadDigest")));
    assert_eq!(objects.find("k").await.expect("answered"), None);
    let end = objects.put_once_hashed("k", body("other"), &other, "text/plain").await.expect("written");
    assert!(matches!(end, PutOnce::Created(head) if head.sha256 == Some(other)));
}

#[tokio::test]
async fn a_copy_is_another_object_and_of_nothing_there_is_none() {
    let objects = Objects::over(s3(), BUCKET);
    objects.put("a", body("first"), "text/plain").await.expect("written");
    objects.copy("a", "b").await.expect("copied");
    objects.put("a", body("second"), "text/plain").await.expect("written");
    assert_eq!(objects.find("b").await.expect("answered"), Some(body("first")));
    let missing = objects.copy("c", "d").await;
    assert!(missing.is_err_and(|error| error.name() == "ObjectMissing"));
    assert_eq!(objects.find("d").await.expect("answered"), None);
}

#[tokio::test]
async fn a_key_that_is_always_being_written_is_no_damage() {
    struct Contended;
    #[async_trait]
    impl ObjectStore for Contended {
        async fn get(&self, _: storage::Get<'_>) -> Result<Option<storage::Content>, storage::StoreError> {
            Ok(None)
        }
        async fn head(&self, _: &str, _: &str) -> Result<Option<storage::Head>, storage::StoreError> {
            Ok(None)
        }
        async fn put(&self, _: Put<'_>) -> Result<PutEnd, storage::StoreError> {
            Ok(PutEnd::Conflict)
        }
        async fn copy(&self, _: &str, _: &str, _: &str) -> Result<bool, storage::StoreError> {
            Ok(false)
        }
        async fn delete(&self, _: &str, _: &str) -> Result<(), storage::StoreError> {
            Ok(())
        }
        async fn list(&self, _: &str, _: &str, _: Option<&str>) -> Result<storage::ListPage, storage::StoreError> {
            Ok(storage::ListPage::default())
        }
        async fn create_upload(&self, _: &str, _: &str, _: &str, _: Algorithm) -> Result<String, storage::StoreError> {
            Ok("u".into())
        }
        async fn put_part(&self, part: storage::Part<'_>) -> Result<storage::PartDone, storage::StoreError> {
            Ok(storage::PartDone { number: part.number, tag: "t".into(), checksum: part.checksum })
        }
        async fn complete_upload(&self, _: storage::Complete<'_>) -> Result<PutEnd, storage::StoreError> {
            Ok(PutEnd::Conflict)
        }
        async fn abort_upload(&self, _: &str, _: &str, _: &str) -> Result<(), storage::StoreError> {
            Ok(())
        }
        async fn wait(&self, _: std::time::Duration) {}
    }
    let objects = Objects::over(Contended, BUCKET);
    let error = objects.put_once("k", body("mine"), "text/plain").await.expect_err("never decided");
    assert_eq!(error.name(), "StoreUnavailable", "{error}");
    let error = objects.replace("k", body("mine"), "text/plain", "t").await.expect_err("never decided");
    assert_eq!(error.name(), "StoreUnavailable", "{error}");
}

#[tokio::test]
async fn one_s_own_success_is_recognised_after_a_lost_answer() {
    for strike in [Strike::Answer, Strike::AnswerThenRetry] {
        let store = s3();
        let lossy = Objects::over(store.through(OneFault::at(0, strike)), BUCKET);
        let first = lossy.put_once("k", body("mine"), "text/plain").await;
        assert_eq!(first.is_ok(), strike == Strike::AnswerThenRetry);
        let again = Objects::over(store, BUCKET).put_once("k", body("mine"), "text/plain").await.expect("recognised");
        assert!(matches!(again, PutOnce::Created(_)));
    }
}

#[tokio::test]
async fn versions_stay_and_a_removed_key_is_gone_but_for_them() {
    let store = MemoryObjects::new(Calm::shared()).bucket_with_versions(BUCKET);
    let objects = Objects::over(store, BUCKET);
    objects.put("k", body("one"), "text/plain").await.expect("written");
    let one = objects.open("k", None).await.expect("opened").version().expect("a version").to_owned();
    objects.put("k", body("two"), "text/plain").await.expect("written");
    objects.delete("k").await.expect("removed");
    assert_eq!(objects.find("k").await.expect("answered"), None);
    assert_eq!(objects.list("").await.expect("listed"), Vec::<String>::new());
    let reader = objects.open("k", Some(&one)).await.expect("opened");
    assert_eq!(reader.collect().await.expect("read"), "one");
    let missing = objects.open("k", Some("v99999999")).await.err().expect("missing");
    assert_eq!(missing.name(), "ObjectMissing");
}

/// Breaks the connection at each of these pieces of a body, once.
struct BreakAt(Mutex<Vec<usize>>, AtomicUsize);

#[async_trait]
impl Network for BreakAt {
    async fn sent(&self, request: &Request) -> Result<(), Broken> {
        if request.operation != "GetObjectBody" {
            return Ok(());
        }
        let piece = self.1.fetch_add(1, Ordering::SeqCst);
        let mut breaks = self.0.lock().expect("a lock");
        match breaks.iter().position(|at| *at == piece) {
            Some(at) => {
                breaks.remove(at);
                Err(Broken)
            }
            None => Ok(()),
        }
    }
}

#[tokio::test]
async fn a_broken_connection_goes_on_at_the_byte_behind_the_last() {
    let store = s3().with_chunks_of(3);
    let whole: Vec<u8> = (0..100).collect();
    Objects::over(store.clone(), BUCKET).put("k", whole.clone(), "text/plain").await.expect("written");
    for breaks in [vec![], vec![0], vec![0, 1, 2], vec![5, 6, 20], vec![32], (0..5).collect()] {
        let broken = store.through(Arc::new(BreakAt(Mutex::new(breaks.clone()), AtomicUsize::new(0))));
        let objects = Objects::over(broken, BUCKET);
        let (mut read, mut reader) = (Vec::new(), objects.open("k", None).await.expect("opened").into_read());
        reader.read_to_end(&mut read).await.expect("read");
        assert_eq!(read, whole, "{breaks:?}");
    }
}

#[tokio::test]
async fn two_objects_are_never_spliced() {
    let store = s3().with_chunks_of(3);
    let objects = Objects::over(store.clone(), BUCKET);
    objects.put("k", body("the first of them"), "text/plain").await.expect("written");
    let broken = store.through(Arc::new(BreakAt(Mutex::new(vec![1]), AtomicUsize::new(0))));
    let mut reader = Objects::over(broken, BUCKET).open("k", None).await.expect("opened");
    reader.chunk().await.expect("read");
    objects.put("k", body("and now the other"), "text/plain").await.expect("written");
    reader.chunk().await.expect("read before the connection broke");
    assert!(matches!(reader.chunk().await, Err(storage::StoreError::Changed { .. })));
}

#[tokio::test]
async fn a_list_comes_page_by_page_and_can_go_on_behind_a_key() {
    let store = s3().with_list_pages_of(2);
    let objects = Objects::over(store, BUCKET);
    for key in ["a/1", "a/2", "a/3", "a/4", "a/5", "b/1"] {
        objects.put(key, body(key), "text/plain").await.expect("written");
    }
    let keys = async |after: Option<&str>| {
        let pages: Vec<Vec<_>> = objects.pages("a/", after).try_collect().await.expect("listed");
        pages.iter().map(|page| page.iter().map(|object| object.key.clone()).collect()).collect::<Vec<Vec<_>>>()
    };
    assert_eq!(keys(None).await, [vec!["a/1", "a/2"], vec!["a/3", "a/4"], vec!["a/5"]]);
    assert_eq!(keys(Some("a/3")).await, [vec!["a/4", "a/5"]]);
    assert_eq!(objects.list("a/").await.expect("listed").len(), 5);
}

#[tokio::test]
async fn an_upload_in_parts_is_seen_whole_or_not_at_all() {
    let store = s3();
    let objects = Objects::over(store.clone(), BUCKET);
    let piece = vec![7u8; 1 << 20];
    let mut upload = objects.upload("k", "text/plain");
    for _ in 0..20 {
        upload.write(&piece).await.expect("taken");
    }
    assert_eq!(objects.find("k").await.expect("answered"), None);
    let head = upload.finish().await.expect("finished");
    assert_eq!((head.bytes, objects.head("k").await.expect("answered")), (20 << 20, Some(head)));
    assert_eq!(objects.get("k").await.expect("read"), piece.repeat(20));
    let mut small = objects.upload("small", "text/plain");
    small.write(b"few").await.expect("taken");
    small.finish().await.expect("finished");
    assert_eq!(objects.get("small").await.expect("read"), "few");
    // The same once more is one's own success; another content is not.
    for (byte, is_own) in [(7, true), (8, false)] {
        let mut upload = objects.upload("k", "text/plain");
        upload.write(&vec![byte; 20 << 20]).await.expect("taken");
        assert_eq!(matches!(upload.finish_once().await.expect("decided"), PutOnce::Created(_)), is_own);
    }
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(store.unfinished_uploads(BUCKET), 0);
}

#[tokio::test]
async fn staged_bytes_are_verified_by_a_crc32_in_parts_and_as_a_whole() {
    let store = s3();
    let objects = Objects::over(store.clone(), BUCKET);
    for bytes in [3, 9 << 20] {
        let mut upload = objects.staged_upload("k", "text/plain");
        upload.write(&vec![7; bytes]).await.expect("taken");
        let head = upload.finish().await.expect("finished");
        assert_eq!((head.bytes, head.sha256.clone()), (bytes as u64, None));
        assert_eq!(objects.head("k").await.expect("answered"), Some(head));
        assert!(objects.get("k").await.expect("read").iter().all(|byte| *byte == 7));
    }
    let id = store.create_upload(BUCKET, "k", "text/plain", Algorithm::Crc32).await.expect("begun");
    for (checksum, what) in
        [(Algorithm::Crc32.of(b"others"), "BadDigest"), (Algorithm::Sha256.of(b"mine"), "InvalidRequest")]
    {
        let body = body("mine");
        let part = Part { bucket: BUCKET, key: "k", upload_id: &id, number: 1, body: &body, checksum };
        let refused = store.put_part(part).await.expect_err("another checksum");
        assert!(refused.to_string().contains(what), "{refused}");
    }
}

#[tokio::test]
async fn an_upload_that_fails_or_is_dropped_leaves_nothing() {
    // Requests: create, part, part, part, complete.
    for nth in 0..5 {
        let store = s3();
        let fault = OneFault::at(nth, Strike::Request);
        let objects = Objects::over(store.through(fault.clone()), BUCKET);
        let written = async {
            let mut upload = objects.upload("k", "text/plain");
            upload.write(&vec![7u8; 20 << 20]).await?;
            upload.finish().await
        };
        written.await.expect_err("one request failed");
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(fault.struck());
        assert_eq!((store.unfinished_uploads(BUCKET), store.contents(BUCKET).len()), (0, 0), "request {nth}");
    }
    let store = s3();
    let mut upload = Objects::over(store.clone(), BUCKET).upload("k", "text/plain");
    upload.write(&vec![7u8; 9 << 20]).await.expect("taken");
    assert_eq!(store.unfinished_uploads(BUCKET), 1);
    upload.abort().await.expect("removed");
    assert_eq!(store.unfinished_uploads(BUCKET), 0);
}

#[tokio::test]
async fn the_end_of_an_upload_whose_answer_was_lost_is_recognised() {
    for (strike, is_known) in [(Strike::AnswerThenRetry, true), (Strike::Answer, false)] {
        let store = s3();
        let objects = Objects::over(store.through(OneFault::at(4, strike)), BUCKET);
        let mut upload = objects.upload("k", "text/plain");
        upload.write(&vec![7u8; 20 << 20]).await.expect("taken");
        assert_eq!(upload.finish_once().await.is_ok(), is_known);
        assert_eq!(store.contents(BUCKET)["k"].len(), 20 << 20);
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Count {
    name: String,
    part: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    shard: Option<String>,
    value: u64,
    revision: u64,
}

impl Keyed for Count {
    const PARTITION: &'static str = "name";
    const SORT: Option<&'static str> = Some("part");
    fn key(&self) -> (String, Option<String>) {
        (self.name.clone(), Some(self.part.clone()))
    }
    fn revision(&self) -> u64 {
        self.revision
    }
    fn revised(self, revision: u64) -> Self {
        Count { revision, ..self }
    }
    fn holds(partition: &str) -> bool {
        !partition.starts_with('#')
    }
}

fn dynamodb() -> MemoryTables {
    MemoryTables::new(Calm::shared()).table("counts", "name", Some("part")).index("counts", "shards", "shard", "part")
}

fn count(name: &str, part: u64) -> Count {
    Count { name: name.into(), part: format!("{part:05}"), shard: Some("s".into()), value: part, revision: 1 }
}

fn insert(after: Count) -> Change<Count> {
    Change { before: None, after }
}

/// Leaves some of each batch unprocessed, and lets indices lag.
struct Busy {
    /// Of a hundred.
    unprocessed: usize,
    lag: usize,
}

#[async_trait]
impl Network for Busy {
    fn unprocessed(&self, _: &Request, items: usize) -> usize {
        items * self.unprocessed / 100
    }
    fn lag(&self, _: &Request) -> usize {
        self.lag
    }
}

#[tokio::test]
async fn keys_left_unprocessed_are_asked_for_again_until_there_is_no_progress() {
    let tables = dynamodb();
    let counts: Table<Count> = Table::over(tables.clone(), "counts");
    assert!(counts.change_many((0..250).map(|n| insert(count("a", n))).collect()).await.expect("written").is_empty());
    let keys: Vec<_> = (0..260).map(|n| count("a", n).key()).collect();
    let through = |unprocessed| Table::<Count>::over(tables.through(Arc::new(Busy { unprocessed, lag: 0 })), "counts");
    assert_eq!(through(50).get_many(&keys).await.expect("read").len(), 250);
    let error = through(100).get_many(&keys).await.expect_err("never processed");
    assert!(
        matches!(error, LedgerError::Throttled { left: 100, .. } | LedgerError::Throttled { left: 60, .. }),
        "{error}"
    );
    assert_eq!(counts.partition("a").await.expect("read").len(), 250);
}

#[tokio::test]
async fn of_a_batch_each_row_is_written_on_its_own_condition() {
    let tables = dynamodb();
    let counts: Table<Count> = Table::over(tables.clone(), "counts");
    assert!(counts.change_many((0..60).map(|n| insert(count("a", n))).collect()).await.expect("written").is_empty());
    let theirs = Count { value: 1000, revision: 2, ..count("a", 30) };
    assert!(counts.put(&theirs).await.expect("written"));
    let raised = |n| {
        let after = Count { shard: None, value: n + 100, revision: 2, ..count("a", n) };
        Change { before: Some(count("a", n)), after }
    };
    let refused = counts.change_many((0..61).map(raised).collect()).await.expect("answered");
    let mut refused: Vec<_> = refused.into_iter().map(|refused| (refused.key.1, refused.stands)).collect();
    refused.sort_by(|left, right| left.0.cmp(&right.0));
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert_eq!(refused[0].1.as_ref().map(|row| row.value), Some(1000), "the row that stood in the way");
    assert_eq!((refused[1].0.as_deref(), refused[1].1.is_none()), (Some("00060"), true), "there is no such row");
    let rows = counts.partition("a").await.expect("read");
    let written = rows.iter().filter(|row| row.revision == 2 && row.shard.is_none()).count();
    assert_eq!((rows.len(), written), (60, 59));
    assert!(tables.write_batch("counts", &vec![Write::Insert(Item::new()); 26]).await.is_err());
    // A row that was there already is no error of the others.
    let again = counts.change_many(vec![insert(count("a", 0)), insert(count("b", 0))]).await.expect("answered");
    assert_eq!(again.len(), 1);
    assert_eq!(counts.partition("b").await.expect("read").len(), 1);
}

#[tokio::test]
async fn a_batch_whose_answer_is_lost_is_made_once() {
    let tables = dynamodb();
    let counts: Table<Count> = Table::over(tables.clone(), "counts");
    assert!(counts.put(&count("a", 1)).await.expect("written"));
    let network = OneFault::at(0, Strike::AnswerThenRetry);
    let through: Table<Count> = Table::over(tables.through(network.clone()), "counts");
    let change = Change { before: Some(count("a", 1)), after: Count { value: 7, revision: 2, ..count("a", 1) } };
    assert_eq!(through.change_many(vec![change]).await.expect("answered"), []);
    assert!(network.struck());
    assert_eq!(counts.get("a", Some("00001")).await.expect("read").expect("a row").value, 7);
}

#[tokio::test]
async fn statements_left_unprocessed_are_asked_for_again() {
    let tables = dynamodb();
    let through = |unprocessed| Table::<Count>::over(tables.through(Arc::new(Busy { unprocessed, lag: 0 })), "counts");
    let inserts = || (0..40).map(|n| insert(count("a", n))).collect::<Vec<_>>();
    assert_eq!(through(50).change_many(inserts()).await.expect("written"), []);
    let error = through(100).change_many(inserts()).await.expect_err("never processed");
    assert!(matches!(error, LedgerError::Throttled { operation: "BatchExecuteStatement", .. }), "{error}");
}

#[tokio::test]
async fn a_key_that_is_asked_for_twice_is_read_once() {
    let counts: Table<Count> = Table::over(dynamodb(), "counts");
    assert!(counts.change_many(vec![insert(count("a", 1))]).await.expect("written").is_empty());
    let keys = [count("a", 1).key(), count("a", 2).key(), count("a", 1).key()];
    assert_eq!(counts.get_many(&keys).await.expect("read").len(), 1);
}

#[tokio::test]
async fn of_two_writers_one_is_refused_and_decides_again() {
    let tables = dynamodb();
    let counts: Table<Count> = Table::over(tables, "counts");
    assert!(counts.put(&count("a", 0)).await.expect("written"));
    assert!(!counts.put(&count("a", 0)).await.expect("refused"), "it is there already");
    let newer = Count { revision: 2, ..count("a", 0) };
    assert!(counts.put(&newer).await.expect("written"));
    assert!(!counts.put(&newer).await.expect("refused"), "it was changed in between");
    let add = |row: Option<&Count>| Ok::<_, LedgerError>(row.map(|row| Count { value: row.value + 1, ..row.clone() }));
    let after = counts.update("a", Some("00000"), add).await.expect("changed").expect("a row");
    assert_eq!((after.value, after.revision), (1, 3));
}

#[tokio::test]
async fn an_index_is_sparse_in_order_and_behind() {
    let tables = dynamodb();
    let counts: Table<Count> = Table::over(tables.clone(), "counts");
    for n in [3, 1, 2] {
        counts.put(&count(&format!("n{n}"), n)).await.expect("written");
    }
    counts.put(&Count { shard: None, ..count("n9", 9) }).await.expect("written");
    let parts = async |lag| {
        let counts: Table<Count> = Table::over(tables.through(Arc::new(Busy { unprocessed: 0, lag })), "counts");
        let rows = counts.by_index("shards", "shard", "s", None).await.expect("read");
        assert_eq!(counts.count("shards", ("shard", "s"), "shard", "s").await.expect("counted"), rows.len() as u64);
        rows.into_iter().map(|row| row.value).collect::<Vec<_>>()
    };
    assert_eq!(parts(0).await, [1, 2, 3]);
    assert_eq!(parts(2).await, [1, 3]);
    counts.put(&Count { shard: None, revision: 2, ..count("n1", 1) }).await.expect("written");
    assert_eq!((parts(0).await, parts(1).await), (vec![2, 3], vec![1, 2, 3]));
    let limited = counts.by_index("shards", "shard", "s", Some(1)).await.expect("read");
    assert_eq!(limited.len(), 1);
}

#[tokio::test]
async fn many_rows_come_in_pages_and_each_once() {
    let counts: Table<Count> = Table::over(dynamodb(), "counts");
    let large = |n| Count { shard: Some("s".repeat(100_000)), ..count(&format!("n{n}"), n) };
    counts.change_many((0..40).map(|n| insert(large(n))).collect()).await.expect("written");
    let mut seen = Vec::new();
    counts.for_each(|row| seen.push(row.value)).await.expect("read");
    seen.sort_unstable();
    assert_eq!(seen, (0..40).collect::<Vec<_>>());
    let rows = counts.by_index("shards", "shard", &"s".repeat(100_000), None).await.expect("read");
    assert_eq!(rows.len(), 40);
    // Two partitions side by side, both in pages.
    let other = |n| Count { shard: Some("t".repeat(100_000)), ..count(&format!("t{n}"), n) };
    counts.change_many((40..60).map(|n| insert(other(n))).collect()).await.expect("written");
    let (both, mut seen) = (["s", "t", "u"].map(|shard| shard.repeat(100_000)), Vec::new());
    counts.for_each_by_index("shards", "shard", &both, |row| seen.push(row.value)).await.expect("read");
    seen.sort_unstable();
    assert_eq!(seen, (0..60).collect::<Vec<_>>());
    let too_large = Count { shard: Some("s".repeat(500_000)), ..count("n", 0) };
    assert!(counts.put(&too_large).await.is_err());
    assert!(counts.get("", Some("x")).await.is_err(), "keys are not empty");
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_reported_with_its_key() {
    let tables = dynamodb();
    let counts: Table<Count> = Table::over(tables.clone(), "counts");
    counts.put(&count("a", 1)).await.expect("written");
    let mut broken: Item = serde_dynamo::to_item(count("b", 2)).expect("an item");
    broken.insert("value".into(), aws_sdk_dynamodb::types::AttributeValue::S("many".into()));
    tables.plant("counts", broken.clone());
    // Another type's row in the same table is not one of these, and no fault.
    let key = aws_sdk_dynamodb::types::AttributeValue::S("#lock".into());
    tables.plant("counts", Item::from([("name".into(), key), ("part".into(), broken["part"].clone())]));
    let scanned = counts.scan().await.expect("read");
    assert_eq!(scanned.rows, [count("a", 1)]);
    let faults: Vec<String> = scanned.malformed.iter().map(ToString::to_string).collect();
    assert!(faults.len() == 1 && faults[0].contains("row b/00002 of table counts is not readable"), "{faults:?}");
    assert_eq!(scanned.malformed[0].name(), "LedgerCorrupt");
    assert_eq!(counts.get("b", Some("00002")).await.expect_err("unreadable").name(), "LedgerCorrupt");
    let mut read = 0;
    counts.for_each(|_| read += 1).await.expect_err("unreadable");
}

#[tokio::test]
async fn what_is_not_there_has_a_name() {
    let nowhere = Objects::over(s3(), "nowhere");
    assert_eq!(nowhere.get("k").await.expect_err("missing").name(), "BucketMissing");
    assert_eq!(Objects::over(s3(), BUCKET).get("k").await.expect_err("missing").name(), "ObjectMissing");
    let nowhere: Table<Count> = Table::over(dynamodb(), "nowhere");
    assert_eq!(nowhere.get("a", Some("b")).await.expect_err("missing").name(), "TableMissing");
}
