//! What `--repair` does. Nothing is repaired that was not seen twice, the second time with the whole archive locked,
//! and every write is on condition that what it changes is as it was seen. The last copy of a message is never deleted:
//! what leaves the readers' way is kept under `archive/superseded`.

use crate::{Archive, Error, evidence::AT_ONCE, rules::Named, unwritten};
use alerts::{
    commit::manifest::{Manifest, WrittenObject},
    keys::{gone_key, superseded_key},
    message::tracking::{Row, gone_unwritten, set_back},
    run::lock::Held,
    window::record::{Refused, State, WindowRecord},
};
use archive::{WindowError, Windows};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use identity::{Identity, instant};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;
use storage::{Objects, PutOnce, Table};

const PARQUET: &str = "application/vnd.apache.parquet";
/// How long the lock outlives a repair that was killed.
const LEASE: SignedDuration = SignedDuration::from_secs(60);

#[derive(Clone, Debug, PartialEq)]
pub enum Repair {
    /// Write a manifest that is missing.
    Manifest { key: String, manifest: Box<Manifest> },
    /// Let the manifests of an object say what it is.
    Name { key: String },
    /// Let no manifest name an object that is gone.
    Strike { key: String },
    /// Take an object that cannot be read out of the readers' way, and keep it.
    SetAside { key: String },
    /// Take a message out of an object, because it is damaged or belongs elsewhere, and keep it.
    TakeOut { key: String, identity: Identity },
    /// Make the row of a message from its object.
    Row { row: Box<Row> },
    /// Forget that the message is archived, once its object (`after`) is out of the way.
    SetBack { row: Box<Row>, after: Option<String> },
    /// Say in its row that the message left the source before it was written, and keep what was read of it.
    Gone { row: Box<Row> },
}

impl Repair {
    pub fn describe(&self) -> String {
        match self {
            Repair::Manifest { .. } => "write it again from the objects of its window".to_owned(),
            Repair::Name { .. } => "let its manifests say what it is".to_owned(),
            Repair::Strike { .. } => "let no manifest name it".to_owned(),
            Repair::SetAside { .. } => "move it to archive/superseded/damaged".to_owned(),
            Repair::TakeOut { key, .. } => format!("take it out of {key} and keep it under archive/superseded"),
            Repair::Row { .. } => "make its row from the object".to_owned(),
            Repair::SetBack { row, .. } => {
                format!("set its row back, so that a run over {} archives it again", instant::date(row.timestamp))
            }
            Repair::Gone { row } => {
                let kept = "what was read of it, as far as the spool still has it";
                format!("keep {kept}, as {}, and mark its row as gone", kept_as(row))
            }
        }
    }

    /// The object that the repair changes.
    fn object(&self) -> Option<&str> {
        match self {
            Repair::Name { key } | Repair::Strike { key } | Repair::SetAside { key } | Repair::TakeOut { key, .. } => {
                Some(key)
            }
            _ => None,
        }
    }
}

fn kept_as(row: &Row) -> String {
    gone_key(&instant::date(row.timestamp), &row.source_index, &row.message_id)
}

/// Does something while no run may plan, be redriven or begin anew: a message that moves in time is taken out of
/// objects of other days than those of its run.
pub async fn with_lock<T, E: From<Error>>(
    archive: &Archive,
    holder: &str,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let clock = &archive.clock;
    let holder = format!("{holder}-{}", clock.now().strftime("%Y%m%dT%H%M%S%9f"));
    let (from, to) = (instant::first(), instant::parse_edge("9999-12-31").unwrap_or(Timestamp::MAX));
    let acquire = async || {
        let until = Some(clock.now() + LEASE);
        let wanted = Held { holder: holder.clone(), execution_arn: String::new(), from, to, until };
        let is_running = async |held: &Held| Ok::<_, Error>(archive.workflow.is_running(&held.execution_arn).await?);
        match archive.job_runs.acquire(&wanted, clock.now(), is_running).await? {
            Some(Held { holder, .. }) => Err(Error::Busy { holder }),
            None => Ok(()),
        }
    };
    acquire().await?;
    let renew = async {
        loop {
            clock.sleep(Duration::from_secs(LEASE.as_secs().unsigned_abs() / 3)).await;
            if let Err(error) = acquire().await {
                return error;
            }
        }
    };
    let outcome = tokio::select! {
        // In this order, so that a simulated history can be repeated.
        biased;
        done = work => done,
        lost = renew => Err(Error::LockLost { source: Box::new(lost) }.into()),
    };
    archive.job_runs.release(&holder, "").await.map_err(Error::from)?;
    outcome
}

/// Where repairs are carried out, and when.
pub struct Place<'a> {
    pub objects: &'a Objects,
    pub rows: &'a Table<Row>,
    pub windows: &'a Windows,
    pub now: Timestamp,
}

/// Carries out repairs; says of each whether it was done. What has changed since it was seen is left alone. `named`:
/// the manifests that name each object.
pub async fn apply(
    place: Place<'_>,
    named: &BTreeMap<String, Vec<Named>>,
    repairs: &[Repair],
) -> Result<Vec<bool>, Error> {
    let Place { objects, rows, .. } = place;
    // All that is taken out of one object is taken at once.
    let mut outs: HashMap<&str, HashSet<Identity>> = HashMap::new();
    for repair in repairs {
        if let Repair::TakeOut { key, identity } = repair {
            outs.entry(key).or_default().insert(identity.clone());
        }
    }
    let mut changed: HashMap<&str, bool> = HashMap::new();
    for repair in repairs {
        let Some(key) = repair.object().filter(|key| !changed.contains_key(key)) else { continue };
        let object = Object { objects, named: named.get(key).map(Vec::as_slice).unwrap_or_default(), key };
        let done = match (repair, outs.get(key)) {
            (Repair::Strike { .. }, _) => object.strike().await?,
            (Repair::SetAside { .. }, _) => object.set_aside().await?,
            (_, Some(out)) => object.take_out(out).await?,
            (_, None) => object.name_as_it_is().await?,
        };
        changed.insert(key, done);
    }
    let marked = &place.mark_gone(repairs).await?;
    let changed = &changed;
    let done = repairs.iter().map(|repair| async move {
        Ok::<_, Error>(match repair {
            Repair::Manifest { key, manifest } => put_manifest(objects, key, manifest).await?,
            Repair::Row { row } => rows.put(row).await?,
            Repair::SetBack { row, after } => {
                let is_clear = after.as_deref().is_none_or(|key| changed.get(key).copied().unwrap_or_default());
                is_clear && rows.put(&set_back(row)).await?
            }
            Repair::Gone { row } => marked.contains(&row.identity()),
            _ => repair.object().and_then(|key| changed.get(key)).copied().unwrap_or_default(),
        })
    });
    stream::iter(done).buffered(AT_ONCE).try_collect().await
}

impl Place<'_> {
    /// Marks the rows of messages that are gone, and says of which that was done. All that one attempt has read is
    /// looked for at once.
    async fn mark_gone(&self, repairs: &[Repair]) -> Result<HashSet<Identity>, Error> {
        let mut of_attempts: BTreeMap<(&str, &str, u64), Vec<&Row>> = BTreeMap::new();
        for repair in repairs {
            if let Repair::Gone { row } = repair {
                of_attempts.entry((&row.run_id, &row.window_id, row.attempt)).or_default().push(row);
            }
        }
        let mut marked = HashSet::new();
        for rows in of_attempts.into_values() {
            if !self.fence_off(rows[0]).await? {
                continue;
            }
            let mut read = unwritten::read_of(self.objects, &rows).await?;
            for row in rows {
                if let Some(body) = read.remove(&row.identity()) {
                    keep(self.objects, &kept_as(row), body.into(), &row.message_id).await?;
                }
                let Some(next) = gone_unwritten(row, self.now) else { continue };
                if self.rows.put(&next).await? {
                    marked.insert(row.identity());
                }
            }
        }
        Ok(marked)
    }

    /// Sees to it that the attempt that has claimed a row registers no intent any more. `false`: it has registered one,
    /// or may be at work.
    async fn fence_off(&self, row: &Row) -> Result<bool, Error> {
        let Some(claim) = &row.claim else { return Ok(true) };
        let decide = |record: &WindowRecord| match record.status {
            _ if record.is_over(claim.attempt) => Ok(record.clone()),
            State::Prepared => Ok(record.clone()),
            _ => record.abandon(self.now),
        };
        match self.windows.change(&claim.run_id, &claim.window_id, decide).await {
            Ok(record) => Ok(record.is_over(claim.attempt)),
            // An attempt whose window has no row registers nothing.
            Err(WindowError::Refused(Refused::Unknown { .. })) => Ok(true),
            Err(WindowError::Ledger(error)) => Err(error.into()),
            Err(WindowError::Refused(_) | WindowError::NoAttempt { .. }) => Ok(false),
        }
    }
}

/// A copy, which S3 has verified, under a key that nothing else has. `of`: what it is a copy of, and what stays as it
/// is when there is no such key.
async fn keep(objects: &Objects, key: &str, body: Bytes, of: &str) -> Result<(), Error> {
    let unlike_others = format!("{key}.{}", &storage::sha256_hex(&body)[..16]);
    for key in [key, &unlike_others] {
        let put = objects.put_once(key, body.clone(), "application/octet-stream").await?;
        if matches!(put, PutOnce::Created(_)) {
            return Ok(());
        }
    }
    Err(Error::NotKept { key: of.to_owned(), first: key.to_owned(), second: unlike_others })
}

async fn put_manifest(objects: &Objects, key: &str, manifest: &Manifest) -> Result<bool, Error> {
    let body = json_of(key, manifest)?;
    match objects.find_versioned(key).await? {
        None => Ok(matches!(objects.put_once(key, body, "application/json").await?, PutOnce::Created(_))),
        // One that cannot be read; one that can has come back.
        Some((damaged, tag)) if serde_json::from_slice::<Manifest>(&damaged).is_err() => {
            Ok(objects.replace(key, body, "application/json", &tag).await?)
        }
        Some(_) => Ok(false),
    }
}

fn json_of(key: &str, manifest: &Manifest) -> Result<Bytes, Error> {
    let body = serde_json::to_vec(manifest).map_err(|source| Error::Manifest { key: key.to_owned(), source })?;
    Ok(body.into())
}

/// An object that is to be changed.
struct Object<'a> {
    objects: &'a Objects,
    named: &'a [Named],
    key: &'a str,
}

impl Object<'_> {
    async fn set_aside(&self) -> Result<bool, Error> {
        let Some(body) = self.objects.find(self.key).await? else { return Ok(false) };
        keep(self.objects, &format!("archive/superseded/damaged/{}", self.key), body, self.key).await?;
        self.objects.delete(self.key).await?;
        self.strike().await
    }

    async fn take_out(&self, out: &HashSet<Identity>) -> Result<bool, Error> {
        let Some((body, tag)) = self.objects.find_versioned(self.key).await? else { return Ok(false) };
        let Some(split) = columnar::split(body.clone(), out).map_err(|source| self.unreadable(source))? else {
            return Ok(false);
        };
        let kept_as = superseded_key(self.key, "verify", &storage::sha256_hex(&body)[..16]);
        keep(self.objects, &kept_as, split.taken, self.key).await?;
        Ok(self.objects.replace(self.key, split.kept, PARQUET, &tag).await? && self.name_as_it_is().await?)
    }

    fn unreadable(&self, source: columnar::ColumnarError) -> Error {
        Error::Parquet { key: self.key.to_owned(), source }
    }

    /// Every manifest that names the object says what it is now.
    async fn name_as_it_is(&self) -> Result<bool, Error> {
        let Some(body) = self.objects.find(self.key).await? else { return Ok(false) };
        let counted = self.key.ends_with(".parquet").then(|| columnar::row_count(body.clone()));
        let rows = counted.transpose().map_err(|source| self.unreadable(source))?;
        let (bytes, sha256) = (body.len() as u64, storage::sha256_hex(&body));
        let is = |object: WrittenObject| {
            Some(WrittenObject { rows: rows.unwrap_or(object.rows), bytes, sha256: sha256.clone(), ..object })
        };
        self.edit_manifests(is).await
    }

    /// No manifest names the object any more: its messages will stand in another one.
    async fn strike(&self) -> Result<bool, Error> {
        self.edit_manifests(|_| None).await
    }

    async fn edit_manifests(&self, edit: impl Fn(WrittenObject) -> Option<WrittenObject>) -> Result<bool, Error> {
        let (objects, mut all) = (self.objects, true);
        for named in self.named {
            let Some((body, tag)) = objects.find_versioned(&named.manifest).await? else { continue };
            let mut manifest: Manifest = serde_json::from_slice(&body)
                .map_err(|source| Error::Manifest { key: named.manifest.clone(), source })?;
            let entries = std::mem::take(&mut manifest.objects).into_iter();
            manifest.objects =
                entries.filter_map(|entry| if entry.key == self.key { edit(entry) } else { Some(entry) }).collect();
            let body = json_of(&named.manifest, &manifest)?;
            all &= objects.replace(&named.manifest, body, "application/json", &tag).await?;
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alerts::message::{
        classification::{Disposition, Outcome},
        document,
        entry::Entry,
        tracking::{Archived, Status, restored},
    };
    use alerts::{counts::Messages, keys::parquet_key, source::Source, window::spool::Record};
    use columnar::{ObjectWriter, Origin};
    use network::Calm;
    use storage::{MemoryObjects, MemoryTables};

    const WINDOW: &str = "20240301T000000.000Z--20240302T000000.000Z";
    const MANIFEST: &str = "archive/_commits/w/r1-1.json";

    fn source(id: &str) -> Vec<u8> {
        format!(r#"{{"message_id":"{id}"}}"#).into_bytes()
    }

    /// An archive object with the messages a and b, its manifest, and their rows.
    struct Bench {
        store: MemoryObjects,
        objects: Objects,
        rows: Table<Row>,
        windows: Windows,
        key: String,
        named: BTreeMap<String, Vec<Named>>,
    }

    impl Bench {
        async fn new() -> Self {
            let store = MemoryObjects::new(Calm::shared()).bucket("bucket");
            let tables = MemoryTables::new(Calm::shared()).table("messages", "message_id", Some("source_index")).table(
                "windows",
                "run_id",
                Some("window_id"),
            );
            let objects = Objects::over(store.clone(), "bucket");
            let (rows, windows) = (Table::over(tables.clone(), "messages"), Windows::over(tables, "windows"));
            let key = parquet_key("2024-03-01", WINDOW, "r1", 0);
            let origin = Origin { run_id: "r1".into(), archived_at: Timestamp::UNIX_EPOCH };
            let mut writer = ObjectWriter::new(origin).expect("a writer");
            for id in ["a", "b"] {
                let outcome = Outcome { disposition: Disposition::Closed, reason: None, no_alerts: false };
                let (at, version) = (Timestamp::UNIX_EPOCH, document::version(&source(id)));
                let entry = Entry {
                    index: "messages".into(),
                    id: id.into(),
                    at,
                    version,
                    related: String::new(),
                    related_bytes: 0,
                    bytes: 1,
                    source: Source::Opensearch,
                    written: None,
                    outcome,
                };
                let record = Record { message: source(id), ..Record::default() };
                writer.push(&entry, record).expect("encoded");
            }
            let body = writer.finish().expect("an object");
            let object = WrittenObject {
                key: key.clone(),
                rows: 2,
                bytes: body.len() as u64,
                sha256: storage::sha256_hex(&body),
            };
            objects.put(&key, body, PARQUET).await.expect("written");
            let manifest = Manifest {
                v: 1,
                run_id: "r1".into(),
                window_id: WINDOW.into(),
                attempt: 1,
                committed_at: Timestamp::UNIX_EPOCH,
                source: 2,
                counts: Messages::default(),
                objects: vec![object.clone()],
            };
            objects.put_json(MANIFEST, &manifest).await.expect("written");
            let named = BTreeMap::from([(key.clone(), vec![Named { manifest: MANIFEST.into(), object }])]);
            Bench { store, objects, rows, windows, key, named }
        }

        fn row(&self, id: &str) -> Row {
            let facts = Archived {
                document: Identity::new("messages", id),
                timestamp: Timestamp::UNIX_EPOCH,
                version: document::version(&source(id)),
                related: String::new(),
                related_bytes: 0,
                run_id: "r1".to_owned(),
                no_alerts: false,
            };
            restored(None, facts, self.objects.uri(&self.key), Timestamp::UNIX_EPOCH)
        }

        async fn apply(&self, repairs: &[Repair]) -> Vec<bool> {
            let Bench { objects, rows, windows, .. } = self;
            let place = Place { objects, rows, windows, now: Timestamp::UNIX_EPOCH };
            apply(place, &self.named, repairs).await.expect("applied")
        }

        async fn held(&self, key: &str) -> Vec<String> {
            let body = self.objects.get(key).await.expect("an object");
            columnar::rows(body).expect("Parquet").map(|row| row.expect("a row").identity.id).collect()
        }
    }

    #[tokio::test]
    async fn a_row_that_changed_since_it_was_seen_is_left_alone_and_not_called_repaired() {
        let bench = Bench::new().await;
        let seen = bench.row("a");
        assert!(bench.rows.put(&seen).await.expect("written"));
        let changed = Row { revision: 2, run_id: "r2".into(), ..seen.clone() };
        assert!(bench.rows.put(&changed).await.expect("written"));
        let repair = Repair::SetBack { row: Box::new(seen.clone()), after: None };
        assert_eq!(bench.apply(&[repair]).await, [false]);
        assert_eq!(bench.rows.get("a", Some("messages")).await.expect("read"), Some(changed.clone()));
        let repair = Repair::SetBack { row: Box::new(changed), after: None };
        assert_eq!(bench.apply(&[repair]).await, [true]);
        let row = bench.rows.get("a", Some("messages")).await.expect("read").expect("a row");
        assert_eq!((row.status, row.s3_path), (Status::Pending, None));
    }

    #[tokio::test]
    async fn what_is_taken_out_is_kept_and_the_manifest_says_what_the_object_is_since() {
        let bench = Bench::new().await;
        let identity = Identity::new("messages", "a");
        let repairs = [Repair::Name { key: bench.key.clone() }, Repair::TakeOut { key: bench.key.clone(), identity }];
        assert_eq!(bench.apply(&repairs).await, [true, true]);
        assert_eq!(bench.held(&bench.key).await, ["b"]);
        let kept: Vec<String> = bench.objects.list("archive/superseded/").await.expect("listed");
        assert_eq!((kept.len(), bench.held(&kept[0]).await), (1, vec!["a".to_owned()]));
        let manifest: Manifest = bench.objects.get_json(MANIFEST).await.expect("a manifest");
        let head = bench.objects.head(&bench.key).await.expect("asked").expect("there");
        assert_eq!((manifest.objects[0].rows, Some(&manifest.objects[0].sha256)), (1, head.sha256.as_ref()));
        assert_eq!(bench.apply(&repairs[1..]).await, [false], "it is out already");
    }

    #[tokio::test]
    async fn a_message_is_set_back_only_when_its_object_is_out_of_the_way() {
        let bench = Bench::new().await;
        let row = bench.row("a");
        assert!(bench.rows.put(&row).await.expect("written"));
        let set_back = |after: &str| Repair::SetBack { row: Box::new(row.clone()), after: Some(after.to_owned()) };
        assert_eq!(bench.apply(&[set_back(&bench.key)]).await, [false], "its object was not moved");
        assert_eq!(
            bench.apply(&[Repair::SetAside { key: bench.key.clone() }, set_back(&bench.key)]).await,
            [true, true]
        );
        assert!(!bench.store.contents("bucket").contains_key(&bench.key));
        assert_eq!(
            bench.held(&format!("archive/superseded/damaged/{}", bench.key)).await,
            ["a", "b"],
            "the last copy is kept"
        );
        let manifest: Manifest = bench.objects.get_json(MANIFEST).await.expect("a manifest");
        assert_eq!(manifest.objects, []);
    }
}
