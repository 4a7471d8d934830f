use super::{bar, range_of};
use crate::archive::{Archive, date_of};
use alerts::{
    commit::manifest::{Manifest, WrittenObject},
    keys::manifest_key,
    message::{
        classification::Disposition,
        document,
        tracking::{Row, Status, restored, set_back},
    },
    window::{
        plan::{Interval, Window},
        record::{State, WindowRecord},
    },
};
use anyhow::Result;
use base64::{Engine, prelude::BASE64_STANDARD};
use clap::Args;
use identity::instant;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sources::OpenSearch;
use std::collections::{BTreeMap, HashMap, HashSet};
use storage::StoreError;

#[derive(Args)]
#[command(after_help = "\
Examples:
  alert-archive verify                                     sizes and checksums, as S3 holds them
  alert-archive verify --from 2024-07-01 --to 2024-08-01 --deep    reads every row of every object again
  alert-archive verify --deep --repair --json

Exit code 0 means: nothing differs (or, with --repair, nothing is left that differs).
With OPENSEARCH_URL set, the source is counted too.")]
pub struct Verify {
    /// First instant of a range of message timestamps; without a range, everything
    #[arg(long, value_name = "D", requires = "to")]
    from: Option<String>,
    /// End of the range, not included
    #[arg(long, value_name = "D", requires = "from")]
    to: Option<String>,
    /// Read the objects and compare each row's bytes with its sha256 and its ledger row
    #[arg(long)]
    deep: bool,
    /// Repair what can be repaired: rebuild rows and manifests, and set messages whose object is lost back,
    /// so that the next run over their days archives them again
    #[arg(long)]
    repair: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Something that is not as it should be.
#[derive(Debug, Serialize)]
struct Finding {
    kind: &'static str,
    /// The object's key or the message's id.
    what: String,
    detail: String,
    /// What `--repair` did about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    repaired: Option<String>,
}

#[derive(Default, Serialize)]
struct Outcome {
    ok: bool,
    windows: u64,
    objects: u64,
    bytes: u64,
    rows: u64,
    messages_read: u64,
    findings: Vec<Finding>,
}

type Identity = (String, String);

impl Verify {
    pub async fn call(self, archive: &Archive) -> Result<bool> {
        let (from, to) = match &self.from {
            Some(_) => range_of(self.from.as_deref(), self.to.as_deref())?,
            None => (Timestamp::MIN, Timestamp::MAX),
        };
        let mut check = Check { archive, verify: &self, from, to, named_by: HashMap::new(), outcome: Outcome::default() };
        let expected = check.manifests().await?;
        let rows = check.ledger(&expected).await?;
        let sound = check.objects(&expected, &rows).await?;
        if self.deep {
            check.contents(&sound, &rows).await?;
        }
        check.source().await?;
        let mut outcome = check.outcome;
        outcome.ok = outcome.findings.iter().all(|finding| finding.repaired.is_some());
        self.print(&outcome)?;
        Ok(outcome.ok)
    }

    fn print(&self, outcome: &Outcome) -> Result<()> {
        if self.json {
            say!("{}", serde_json::to_string_pretty(outcome)?);
            return Ok(());
        }
        for Finding { kind, what, detail, repaired } in &outcome.findings {
            let repaired = repaired.as_ref().map(|repair| format!("; repaired: {repair}")).unwrap_or_default();
            say!("{kind}  {what}: {detail}{repaired}");
        }
        let read = if self.deep { format!(", {} messages read and compared", outcome.messages_read) } else { String::new() };
        let Outcome { windows, objects, rows, findings, .. } = outcome;
        say!("{windows} windows, {objects} objects, {rows} rows{read}: {} differences", findings.len());
        Ok(())
    }
}

struct Check<'a> {
    archive: &'a Archive,
    verify: &'a Verify,
    from: Timestamp,
    to: Timestamp,
    /// The manifests that name an object.
    named_by: HashMap<String, Vec<String>>,
    outcome: Outcome,
}

impl Check<'_> {
    fn find(&mut self, kind: &'static str, what: &str, detail: impl Into<String>, repaired: Option<String>) {
        self.outcome.findings.push(Finding { kind, what: what.to_owned(), detail: detail.into(), repaired });
    }

    fn is_in_range(&self, key: &str) -> bool {
        let (first, last) = (instant::date(self.from), instant::date(self.to));
        date_of(key).is_some_and(|date| self.verify.from.is_none() || (first.as_str() <= date && date <= last.as_str()))
    }

    /// What the manifests of committed windows say should be there; of several that name an object, the newest.
    async fn manifests(&mut self) -> Result<BTreeMap<String, WrittenObject>> {
        let mut windows: Vec<WindowRecord> = Vec::new();
        let (from, to) = (self.from, self.to);
        self.archive
            .windows
            .rows
            .for_each(|record: WindowRecord| {
                let is_committed = record.status == State::Completed && record.manifest_key.is_some();
                if (is_committed || record.status == State::Prepared) && record.window.from < to && from < record.window.to {
                    windows.push(record);
                }
            })
            .await?;
        self.outcome.windows = windows.len() as u64;
        let mut newest: BTreeMap<String, (Timestamp, WrittenObject)> = BTreeMap::new();
        let progress = bar(windows.len(), "manifests");
        for record in &windows {
            let key = record.manifest_key.clone().unwrap_or_else(|| manifest_key(&record.window_id, &record.run_id, record.attempt));
            let manifest = match self.archive.objects.get_json::<Manifest>(&key).await {
                Ok(manifest) => manifest,
                // Its messages are named one by one, by their rows. With a manifest, only the window's own row is behind.
                Err(StoreError::Missing { .. }) if record.status == State::Prepared => continue,
                Err(error @ (StoreError::Missing { .. } | StoreError::Corrupt { .. })) => {
                    let rebuilt = self.rebuild_manifest(record, &key).await?;
                    let repaired = self.verify.repair.then(|| "rebuilt from the objects of the window".to_owned());
                    self.find("manifest_missing", &key, error.to_string(), repaired);
                    rebuilt
                }
                Err(error) => return Err(error.into()),
            };
            for object in manifest.objects {
                let at = manifest.committed_at;
                self.named_by.entry(object.key.clone()).or_default().push(key.clone());
                if newest.get(&object.key).is_none_or(|(known, _)| *known <= at) {
                    newest.insert(object.key.clone(), (at, object));
                }
            }
            progress.inc(1);
        }
        progress.finish_and_clear();
        newest.retain(|key, _| self.is_in_range(key));
        Ok(newest.into_iter().map(|(key, (_, object))| (key, object)).collect())
    }

    /// The objects of a window carry its id and its run's in their names.
    async fn rebuild_manifest(&self, record: &WindowRecord, key: &str) -> Result<Manifest> {
        let name = format!("/{}.{}.", record.window_id, record.run_id);
        let mut objects = Vec::new();
        for prefix in ["archive/parquet/", "archive/jsonl/", "quarantine/"] {
            for object in self.archive.objects.list(prefix).await?.into_iter().filter(|object| object.contains(&name)) {
                let Some(head) = self.archive.objects.head(&object).await? else { continue };
                objects.push(WrittenObject { key: object, rows: 0, bytes: head.bytes, sha256: head.sha256.unwrap_or_default() });
            }
        }
        let manifest = Manifest {
            v: 1,
            run_id: record.run_id.clone(),
            window_id: record.window_id.clone(),
            attempt: record.attempt,
            committed_at: record.updated_at,
            source: record.messages.source,
            counts: record.messages,
            objects,
        };
        if self.verify.repair {
            self.archive.objects.put_json(key, &manifest).await?;
        }
        Ok(manifest)
    }

    /// Completed rows by object. A row that names an object of no manifest is a finding.
    async fn ledger(&mut self, expected: &BTreeMap<String, WrittenObject>) -> Result<HashMap<String, HashMap<Identity, Row>>> {
        let mut by_object: HashMap<String, HashMap<Identity, Row>> = HashMap::new();
        let (mut astray, mut unfinished, mut count) = (Vec::new(), Vec::new(), 0);
        let (archive, from, to) = (self.archive, self.from, self.to);
        archive
            .ledger
            .rows
            .for_each(|row| {
                if row.timestamp < from || to <= row.timestamp {
                    return;
                }
                count += 1;
                match row.s3_path.as_deref().and_then(|path| archive.objects.key_of(path)).map(str::to_owned) {
                    Some(key) if row.status == Status::Completed && expected.contains_key(&key) => {
                        by_object.entry(key).or_default().insert((row.message_id.clone(), row.source_index.clone()), row);
                    }
                    _ if row.status == Status::Completed => astray.push(row),
                    _ if row.disposition != Disposition::Open => unfinished.push(row),
                    _ => {}
                }
            })
            .await?;
        self.outcome.rows = count;
        for row in astray {
            let detail = format!("its ledger row is Completed and names {}, which no manifest holds", row.s3_path.as_deref().unwrap_or("no object"));
            let repaired = self.set_back(&row).await?;
            self.find("object_unknown_to_manifests", &row.message_id, detail, repaired);
        }
        for row in unfinished {
            let detail = format!(
                "its ledger row is {:?} since run {}; a run over its day, or alert-archive run --mode process, finishes it",
                row.status, row.run_id
            );
            self.find("message_unfinished", &row.message_id, detail, None);
        }
        Ok(by_object)
    }

    /// Looks at each object that should be there; answers those that are as their manifest says.
    async fn objects(
        &mut self,
        expected: &BTreeMap<String, WrittenObject>,
        rows: &HashMap<String, HashMap<Identity, Row>>,
    ) -> Result<Vec<WrittenObject>> {
        let mut sound = Vec::new();
        let progress = bar(expected.len(), "objects");
        for object in expected.values() {
            self.outcome.objects += 1;
            self.outcome.bytes += object.bytes;
            let fault = match self.archive.objects.head(&object.key).await? {
                None => Some(("object_missing", "it is not in S3".to_owned())),
                Some(head) if head.bytes != object.bytes => Some(("object_differs", format!("{} bytes instead of {}", head.bytes, object.bytes))),
                Some(head) if head.sha256.as_ref() != Some(&object.sha256) => {
                    Some(("object_differs", format!("sha256 {} instead of {}", head.sha256.unwrap_or_else(|| "unknown".into()), object.sha256)))
                }
                Some(_) => None,
            };
            match fault {
                Some((kind, detail)) => self.lose_object(kind, &object.key, detail, rows.get(&object.key)).await?,
                None => sound.push(object.clone()),
            }
            progress.inc(1);
        }
        for prefix in ["archive/parquet/", "archive/jsonl/", "quarantine/"] {
            for key in self.archive.objects.list(prefix).await? {
                if self.is_in_range(&key) && !expected.contains_key(&key) {
                    self.find("object_without_manifest", &key, "no committed window wrote it; a run that is still on may be about to", None);
                }
            }
        }
        progress.finish_and_clear();
        Ok(sound)
    }

    /// Names every message of an object that cannot be trusted, and with `--repair` sets them back.
    async fn lose_object(&mut self, kind: &'static str, key: &str, detail: String, rows: Option<&HashMap<Identity, Row>>) -> Result<()> {
        let mut repaired = None;
        if self.verify.repair && (key.starts_with("archive/parquet/") || key.starts_with("quarantine/")) {
            if let Some(body) = self.archive.objects.find(key).await? {
                // Out of the readers' way, kept for whoever wants to look into it.
                let aside = format!("archive/superseded/damaged/{key}");
                self.archive.objects.put(&aside, body, "application/octet-stream").await?;
                self.archive.objects.delete(key).await?;
            }
            let held = rows.map_or(0, HashMap::len);
            for row in rows.into_iter().flat_map(HashMap::values) {
                self.set_back(row).await?;
            }
            // Its messages will stand in another object: nobody needs to look for this one again.
            for manifest in self.named_by.get(key).into_iter().flatten() {
                let mut kept: Manifest = self.archive.objects.get_json(manifest).await?;
                kept.objects.retain(|object| object.key != key);
                self.archive.objects.put_json(manifest, &kept).await?;
            }
            repaired = Some(format!("set {held} messages back; run their day again"));
        }
        self.find(kind, key, detail, repaired);
        for ((id, _), _) in rows.into_iter().flatten() {
            let repaired = self.verify.repair.then(|| "set back".to_owned());
            self.find("message_lost", id, format!("its object {key} cannot be trusted"), repaired);
        }
        Ok(())
    }

    async fn set_back(&self, row: &Row) -> Result<Option<String>> {
        if !self.verify.repair {
            return Ok(None);
        }
        self.archive.ledger.rows.put(&set_back(row)).await?;
        let day = instant::date(row.timestamp);
        Ok(Some(format!("set back; archived again by a run over {day}")))
    }

    /// Reads every sound object and compares it, row by row, with the ledger.
    async fn contents(&mut self, sound: &[WrittenObject], ledger: &HashMap<String, HashMap<Identity, Row>>) -> Result<()> {
        let none = HashMap::new();
        let mut seen: HashMap<Identity, String> = HashMap::new();
        let progress = bar(sound.len(), "objects read");
        for object in sound {
            progress.inc(1);
            let rows = ledger.get(&object.key).unwrap_or(&none);
            let Some(body) = self.archive.objects.find(&object.key).await? else { continue };
            let sha256 = storage::sha256_hex(&body);
            if sha256 != object.sha256 {
                self.lose_object("object_differs", &object.key, format!("its bytes have sha256 {sha256} instead of {}", object.sha256), Some(rows))
                    .await?;
                continue;
            }
            let mut held: HashSet<Identity> = HashSet::new();
            if object.key.starts_with("archive/parquet/") {
                let read = match columnar::rows(body) {
                    Ok(read) => read,
                    Err(error) => {
                        self.lose_object("object_damaged", &object.key, error.to_string(), Some(rows)).await?;
                        continue;
                    }
                };
                let mut damage = None;
                for row in read {
                    let row = match row {
                        Ok(row) => row,
                        Err(error) => {
                            damage = Some(error.to_string());
                            break;
                        }
                    };
                    self.outcome.messages_read += 1;
                    let identity = (row.message_id.clone(), row.source_index.clone());
                    if document::version(&row.record.message) != row.version {
                        self.find("message_damaged", &row.message_id, format!("its bytes in {} are not those that were archived", object.key), None);
                    }
                    if let Some(other) = seen.insert(identity.clone(), object.key.clone()) {
                        self.find("message_twice", &row.message_id, format!("it stands in {other} and in {}", object.key), None);
                    }
                    self.compare(&object.key, &row, rows.get(&identity)).await?;
                    held.insert(identity);
                }
                if let Some(damage) = damage {
                    self.lose_object("object_damaged", &object.key, damage, Some(rows)).await?;
                    continue;
                }
            } else if object.key.starts_with("quarantine/") {
                for line in self.archive.objects.get_lines::<QuarantineLine>(&object.key).await? {
                    self.outcome.messages_read += 1;
                    let identity = (line.id.clone(), line.source_index);
                    let version = BASE64_STANDARD.decode(&line.source_base64).map(|body| document::version(&body)).unwrap_or_default();
                    if rows.get(&identity).is_some_and(|row| row.version != version) {
                        self.find("message_damaged", &line.id, format!("its bytes in {} are not those that were kept", object.key), None);
                    }
                    held.insert(identity);
                }
            } else {
                continue;
            }
            for (identity, row) in rows.iter().filter(|(identity, _)| !held.contains(*identity)) {
                let repaired = self.set_back(row).await?;
                self.find("message_lost", &identity.0, format!("its ledger row names {}, which does not hold it", object.key), repaired);
            }
        }
        progress.finish_and_clear();
        Ok(())
    }

    async fn compare(&mut self, key: &str, archived: &columnar::ArchivedRow, row: Option<&Row>) -> Result<()> {
        let fault = match row {
            Some(row) if row.version == archived.version => return Ok(()),
            Some(row) => format!("its ledger row says sha256 {}, {key} holds {}", row.version, archived.version),
            None => {
                let now = self.archive.ledger.rows.get(&archived.message_id, Some(&archived.source_index)).await?;
                let uri = self.archive.objects.uri(key);
                match now {
                    // Rows outside the range, rows of a run that is on, and those whose newer version is in quarantine.
                    Some(row) if row.status == Status::Completed && [&row.s3_path, &row.archived_path].contains(&&Some(uri)) => return Ok(()),
                    Some(row) => format!(
                        "it stands in {key}, but its ledger row is {:?} and names {}",
                        row.status,
                        row.s3_path.as_deref().unwrap_or("no object")
                    ),
                    None => format!("it stands in {key}, but the ledger has no row for it"),
                }
            }
        };
        let mut repaired = None;
        if self.verify.repair {
            let before = self.archive.ledger.rows.get(&archived.message_id, Some(&archived.source_index)).await?;
            let identity = (archived.message_id.clone(), archived.source_index.clone());
            let facts = (archived.timestamp, archived.version.clone(), archived.run_id.clone(), archived.no_alerts);
            let row = restored(before.as_ref(), identity, facts, self.archive.objects.uri(key), Timestamp::now());
            self.archive.ledger.rows.put(&row).await?;
            repaired = Some("row rebuilt from the object".to_owned());
        }
        self.find("row_differs", &archived.message_id, fault, repaired);
        Ok(())
    }

    /// Counts the source by day against the ledger: what stands in the source and in no row, within committed windows.
    async fn source(&mut self) -> Result<()> {
        let Some(source) = self.archive.source()? else { return Ok(()) };
        let mut windows = Vec::new();
        self.archive
            .windows
            .rows
            .for_each(|record: WindowRecord| windows.extend((record.status == State::Completed).then_some(record.window)))
            .await?;
        let mut days: BTreeMap<String, u64> = BTreeMap::new();
        self.archive.ledger.rows.for_each(|row: Row| *days.entry(instant::date(row.timestamp)).or_default() += 1).await?;
        let (earliest, latest) = (windows.iter().map(|window| window.from).min(), windows.iter().map(|window| window.to).max());
        let (Some(earliest), Some(latest)) = (earliest, latest) else { return Ok(()) };
        let (from, to) = (self.from.max(earliest), self.to.min(latest));
        if from >= to {
            return Ok(());
        }
        let mut suspicious = Vec::new();
        for day in source.histogram(from, to, Interval::Day).await? {
            // Only days that committed windows cover as a whole can be held against the ledger.
            let covered = windows.iter().any(|window| window.from <= day.from && day.to <= window.to);
            let date = instant::date(day.from);
            let known = days.get(&date).copied().unwrap_or(0);
            if !covered || (day.count <= known && !self.verify.deep) {
                continue;
            }
            let held = day.count - source.foreign(day.from, day.to).await?.min(day.count);
            if held > known {
                let detail = format!("the source holds {held} messages of that day, the ledger {known}; run the day again");
                self.find("source_unaccounted", &date, detail, None);
            }
            // Counts may be equal although names differ: one message came, another went.
            if held > known || self.verify.deep {
                suspicious.push(Window::new(day.from, day.to, held));
            }
        }
        self.names(&source, &suspicious).await
    }

    /// Names the messages of these days that are in the source and in no row.
    async fn names(&mut self, source: &OpenSearch, days: &[Window]) -> Result<()> {
        let mut known: HashSet<Identity> = HashSet::new();
        if !days.is_empty() {
            self.archive.ledger.rows.for_each(|row: Row| known.extend([(row.message_id, row.source_index)])).await?;
        }
        for day in days {
            let mut unknown = Vec::new();
            source
                .for_each_name(day, |document| {
                    if day.contains(document.at) && !known.contains(&(document.hit.id.clone(), document.hit.index.clone())) {
                        unknown.push((document.hit.id, document.hit.index));
                    }
                })
                .await?;
            for (id, index) in unknown {
                self.find("message_unaccounted", &id, format!("it stands in {index} and in no row of the ledger; run its day again"), None);
            }
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct QuarantineLine {
    source_index: String,
    id: String,
    source_base64: String,
}
