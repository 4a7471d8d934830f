//! The stores against the local cloud (AWS_ENDPOINT_URL; `make test` starts it), under keys of their own.

use bytes::Bytes;
use errors::Named;
use ledger::Keyed;
use serde::{Deserialize, Serialize};
use storage::{Objects, PutOnce, Table};

fn variable(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: use `make test`, or eval \"$(make -s env)\" after `make up`"))
}

async fn objects() -> Objects {
    Objects::new(&runtime::aws_config().await, variable("ALERT_ARCHIVE_BUCKET"))
}

/// A row of no table of ours.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Note {
    name: String,
    revision: u64,
}

impl Keyed for Note {
    const PARTITION: &'static str = "name";
    const SORT: Option<&'static str> = None;

    fn key(&self) -> (String, Option<String>) {
        (self.name.clone(), None)
    }

    fn revision(&self) -> u64 {
        self.revision
    }

    fn revised(self, revision: u64) -> Self {
        Note { revision, ..self }
    }
}

fn unique(name: &str) -> String {
    format!("adapter-{name}-{}-{}", std::process::id(), jiff::Timestamp::now().as_nanosecond())
}

#[tokio::test]
async fn a_key_is_created_once_and_one_s_own_success_is_recognised() {
    let (objects, key) = (objects().await, format!("spool/{}", unique("once")));
    let body = Bytes::from_static(b"first");
    let created = |end: PutOnce| matches!(end, PutOnce::Created(head) if head.bytes == 5 && head.sha256.is_some());
    assert!(created(objects.put_once(&key, body.clone(), "text/plain").await.expect("written")));
    // What a retry after a lost answer sees: 412, and one's own bytes.
    assert!(created(objects.put_once(&key, body, "text/plain").await.expect("recognised")));
    let other = objects.put_once(&key, Bytes::from_static(b"second"), "text/plain").await.expect("refused");
    assert!(matches!(other, PutOnce::Exists(head) if head.bytes == 5));
    assert_eq!(objects.get(&key).await.expect("object"), "first");
}

#[tokio::test]
async fn an_object_is_replaced_only_as_it_was_read() {
    let (objects, key) = (objects().await, format!("spool/{}", unique("replace")));
    objects.put(&key, Bytes::from_static(b"one"), "text/plain").await.expect("written");
    let (_, tag) = objects.find_versioned(&key).await.expect("found").expect("there");
    assert!(objects.replace(&key, Bytes::from_static(b"two"), "text/plain", &tag).await.expect("replaced"));
    assert!(!objects.replace(&key, Bytes::from_static(b"three"), "text/plain", &tag).await.expect("refused"));
    assert_eq!(objects.get(&key).await.expect("object"), "two");
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let objects = objects().await;
    assert_eq!(objects.get("spool/adapter-no-such-object").await.expect_err("missing").name(), "ObjectMissing");
    assert_eq!(objects.head("spool/adapter-no-such-object").await.expect("no error"), None);
    let nowhere = Objects::new(&runtime::aws_config().await, "alert-archive-no-such-bucket".into());
    assert_eq!(nowhere.get("x").await.expect_err("missing").name(), "BucketMissing");
    let nowhere: Table<Note> = Table::new(&runtime::aws_config().await, "alert-archive-no-such-table".into());
    assert_eq!(nowhere.get("x", None).await.expect_err("missing").name(), "TableMissing");
}
