//! What there is to be seen of some days: objects, the manifests that explain them, rows and windows.

use crate::{
    Archive, Error,
    rules::{Days, Named, RunWindow, Verdict, committer_of, is_alive, is_unfinished, judge, taker_of, writer_of},
};
use alerts::{
    commit::manifest::{Manifest, WrittenObject},
    message::tracking::Row,
    run::job_run::JobRun,
    window::record::{State, WindowRecord},
};
use futures::{StreamExt, TryStreamExt, stream};
use identity::Identity;
use jiff::Timestamp;
use std::collections::{BTreeMap, HashMap, HashSet};
use storage::{Head, LedgerError, Scanned, StoreError};

/// Requests under way at once.
pub const AT_ONCE: usize = 16;
/// Where the objects of a window stand.
pub const PARQUET: &str = "archive/parquet/";
pub const JSONL: &str = "archive/jsonl/";
pub const QUARANTINE: &str = "quarantine/";
const PLACES: [&str; 3] = [PARQUET, JSONL, QUARANTINE];

pub struct Evidence {
    pub days: Days,
    pub runs: Vec<JobRun>,
    /// One error for each run that cannot be read.
    pub malformed: Vec<LedgerError>,
    pub windows: Vec<WindowRecord>,
    /// Windows that a run is at work on.
    pub alive: HashSet<RunWindow>,
    /// Windows that may still write.
    pub unfinished: HashSet<RunWindow>,
    /// Objects of these days, as S3 holds them.
    pub objects: BTreeMap<String, Head>,
    /// What manifests say of objects of these days, by key.
    pub named: BTreeMap<String, Vec<Named>>,
    /// Windows that took rows out of an object, by its key.
    pub takers: HashMap<String, HashSet<RunWindow>>,
    /// Manifests that a committed window should have and has not, made again from what it left.
    pub rebuilt: Vec<Rebuilt>,
    /// Rows of these days, by the message's instant or by the partition of the object that they name.
    pub rows: HashMap<Identity, Row>,
}

pub struct Rebuilt {
    pub key: String,
    pub manifest: Manifest,
    pub why: String,
    pub window_from: Timestamp,
}

impl Evidence {
    /// Windows come before rows and rows before objects, so that what a run does meanwhile looks unfinished and not
    /// lost. At the end windows come once more: those that began or went on meanwhile may have done anything to the rest.
    pub async fn gather(archive: &Archive, days: Days) -> Result<Self, Error> {
        let now = archive.clock.now();
        let Scanned { rows: runs, malformed } = archive.job_runs.runs.scan().await?;
        let mut windows = Vec::new();
        archive.windows.rows.for_each(|record: WindowRecord| windows.push(record)).await?;
        let by_id: HashMap<&str, &JobRun> = runs.iter().map(|run| (run.run_id.as_str(), run)).collect();
        let run_of = |record: &WindowRecord| by_id.get(record.run_id.as_str()).copied();
        let alive = windows.iter().filter(|record| is_alive(record, run_of(record), now)).map(window_of).collect();
        let unfinished =
            windows.iter().filter(|record| is_unfinished(record, run_of(record), now)).map(window_of).collect();
        let mut evidence = Evidence {
            days,
            runs,
            malformed,
            windows,
            alive,
            unfinished,
            objects: BTreeMap::new(),
            named: BTreeMap::new(),
            takers: HashMap::new(),
            rebuilt: Vec::new(),
            rows: HashMap::new(),
        };
        evidence.read_rows(archive).await?;
        evidence.look_at_objects(archive).await?;
        evidence.read_manifests(archive).await?;
        evidence.note_windows_that_changed(archive).await?;
        Ok(evidence)
    }

    async fn note_windows_that_changed(&mut self, archive: &Archive) -> Result<(), Error> {
        let known: HashMap<RunWindow, u64> =
            self.windows.iter().map(|record| (window_of(record), record.revision)).collect();
        let mut changed = HashSet::new();
        let note = |record: WindowRecord| {
            let window = window_of(&record);
            if known.get(&window) != Some(&record.revision) {
                changed.insert(window);
            }
        };
        archive.windows.rows.for_each(note).await?;
        self.alive.extend(changed.iter().cloned());
        self.unfinished.extend(changed);
        Ok(())
    }

    async fn read_rows(&mut self, archive: &Archive) -> Result<(), Error> {
        let (days, rows) = (self.days, &mut self.rows);
        let is_of_days = |row: &Row| {
            let places = [&row.s3_path, &row.archived_path];
            let mut keys = places.into_iter().flatten().filter_map(|path| archive.objects.key_of(path));
            days.hold(row.timestamp) || keys.any(|key| days.hold_key(key))
        };
        let keep = |row: Row| {
            if is_of_days(&row) {
                rows.insert(row.identity(), row);
            }
        };
        Ok(archive.ledger.rows.for_each(keep).await?)
    }

    async fn look_at_objects(&mut self, archive: &Archive) -> Result<(), Error> {
        let mut keys = Vec::new();
        for place in PLACES {
            keys.extend(archive.objects.list(place).await?.into_iter().filter(|key| self.days.hold_key(key)));
        }
        archive.progress.begin(keys.len(), "objects");
        let heads =
            keys.into_iter().map(|key| async move { Ok::<_, StoreError>((archive.objects.head(&key).await?, key)) });
        let mut heads = stream::iter(heads).buffer_unordered(AT_ONCE);
        while let Some((head, key)) = heads.try_next().await? {
            self.objects.extend(head.map(|head| (key, head)));
            archive.progress.step();
        }
        archive.progress.end();
        for key in archive.objects.list("archive/superseded/").await? {
            if let Some((object, taker)) = taker_of(&key).filter(|(object, _)| self.days.hold_key(object)) {
                self.takers.entry(object).or_default().insert(taker);
            }
        }
        Ok(())
    }

    /// The manifests of the windows of these days, and of all that wrote an object of them or took rows out of one.
    async fn read_manifests(&mut self, archive: &Archive) -> Result<(), Error> {
        let of_days: HashSet<RunWindow> = self.windows_of_days().map(window_of).collect();
        let writers = self.objects.keys().filter_map(|key| writer_of(key));
        let wanted: HashSet<RunWindow> =
            writers.chain(self.takers.values().flatten().cloned()).chain(of_days).collect();
        let mut keys = archive.objects.list("archive/_commits/").await?;
        keys.retain(|key| committer_of(key).is_some_and(|claim| wanted.contains(&claim)));
        let present: HashSet<&String> = keys.iter().collect();
        let absent = |record: &&WindowRecord| record.manifest_key.as_ref().is_some_and(|key| !present.contains(key));
        let mut absent: Vec<WindowRecord> = self.windows_of_days().filter(absent).cloned().collect();
        archive.progress.begin(keys.len(), "manifests");
        let reads = keys.into_iter().map(|key| async move { (archive.objects.get_json::<Manifest>(&key).await, key) });
        let mut reads = stream::iter(reads).buffer_unordered(AT_ONCE);
        let mut damaged = Vec::new();
        while let Some((manifest, key)) = reads.next().await {
            match manifest {
                Ok(manifest) => self.name(&key, &manifest),
                Err(error @ StoreError::Corrupt { .. }) => damaged.push((key, error.to_string())),
                Err(error) => return Err(error.into()),
            }
            archive.progress.step();
        }
        archive.progress.end();
        absent.extend(
            self.windows
                .iter()
                .filter(|record| damaged.iter().any(|(key, _)| record.manifest_key.as_ref() == Some(key)))
                .cloned(),
        );
        for record in absent {
            let Some(key) = record.manifest_key.clone() else { continue };
            let manifest = rebuild(archive, &record).await?;
            self.name(&key, &manifest);
            let why = damaged.iter().find(|(damaged, _)| *damaged == key).map(|(_, why)| why.clone());
            let why = why.unwrap_or_else(|| "its window is completed, and it is not in S3".to_owned());
            self.rebuilt.push(Rebuilt { key, manifest, why, window_from: record.window.from });
        }
        Ok(())
    }

    fn name(&mut self, key: &str, manifest: &Manifest) {
        for object in manifest.objects.iter().filter(|object| self.days.hold_key(&object.key)) {
            let named = Named { manifest: key.to_owned(), object: object.clone() };
            self.named.entry(object.key.clone()).or_default().push(named);
        }
    }

    /// Committed windows that lie on these days, or reach into them.
    pub fn windows_of_days(&self) -> impl Iterator<Item = &WindowRecord> {
        let is_committed = |record: &&WindowRecord| record.status == State::Completed && record.manifest_key.is_some();
        self.windows.iter().filter(is_committed).filter(|record| self.days.meet(record.window.from, record.window.to))
    }

    /// Whether nothing may still write this object or take rows out of it, and S3 holds it as the last manifest says.
    pub fn is_sound(&self, key: &str, found: Option<&Head>) -> bool {
        let named = self.named.get(key).map(Vec::as_slice).unwrap_or_default();
        let writer = writer_of(key).is_some_and(|writer| self.unfinished.contains(&writer) || self.is_new(&writer));
        !self.may_lose_rows(key) && judge(found, named, writer, false) == Verdict::Sound
    }

    /// Whether a window that may still write takes rows out of this object: it has begun to keep them, or its manifest
    /// says so already.
    pub fn may_lose_rows(&self, key: &str) -> bool {
        let named = self.named.get(key).into_iter().flatten();
        let mut committers = named.filter_map(|named| committer_of(&named.manifest));
        self.takers.get(key).is_some_and(|takers| !takers.is_disjoint(&self.unfinished))
            || committers.any(|committer| self.unfinished.contains(&committer))
    }

    /// Whether a window that may still write has a claim on the row.
    pub fn may_change(&self, row: &Row) -> bool {
        row.claim
            .as_ref()
            .map(RunWindow::from)
            .is_some_and(|claim| self.unfinished.contains(&claim) || self.is_new(&claim))
    }

    /// Whether an intent that is registered and not carried out writes the row's message.
    pub fn is_meant(&self, row: &Row) -> bool {
        let Some(claim) = &row.claim else { return false };
        let is_of = |record: &&WindowRecord| record.run_id == claim.run_id && record.window_id == claim.window_id;
        let window = self.windows.iter().find(is_of);
        window.is_some_and(|record| record.status == State::Prepared && !record.is_over(claim.attempt))
    }

    /// Whether a run is at work on the row.
    pub fn is_at_work(&self, row: &Row) -> bool {
        row.claim.as_ref().map(RunWindow::from).is_some_and(|claim| self.alive.contains(&claim) || self.is_new(&claim))
    }

    /// Of a run that began after the runs were read.
    pub fn is_new(&self, claim: &RunWindow) -> bool {
        !self.runs.iter().any(|run| run.run_id == claim.run_id)
    }
}

fn window_of(record: &WindowRecord) -> RunWindow {
    RunWindow { run_id: record.run_id.clone(), window_id: record.window_id.clone() }
}

/// The objects of a window carry its id and its run's in their names; those that it took rows out of have what it took
/// beside them.
async fn rebuild(archive: &Archive, record: &WindowRecord) -> Result<Manifest, Error> {
    let own = Some(window_of(record));
    let mut keys = Vec::new();
    for place in PLACES {
        keys.extend(archive.objects.list(place).await?.into_iter().filter(|key| writer_of(key) == own));
    }
    let superseded = archive.objects.list("archive/superseded/").await?;
    keys.extend(
        superseded
            .iter()
            .filter_map(|key| taker_of(key))
            .filter(|(_, by)| Some(by) == own.as_ref())
            .map(|(object, _)| object),
    );
    let mut objects = Vec::new();
    for key in keys {
        let Some(head) = archive.objects.head(&key).await? else { continue };
        let mut rows = 0;
        if key.ends_with(".parquet") {
            let body = archive.objects.find(&key).await?;
            rows = body.and_then(|body| columnar::row_count(body).ok()).unwrap_or_default();
        }
        objects.push(WrittenObject { key, rows, bytes: head.bytes, sha256: head.sha256.unwrap_or_default() });
    }
    Ok(Manifest {
        v: 1,
        run_id: record.run_id.clone(),
        window_id: record.window_id.clone(),
        attempt: record.fence.attempt,
        committed_at: record.updated_at,
        source: record.messages.source,
        counts: record.messages,
        objects,
    })
}
