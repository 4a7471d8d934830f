//! The one check: everything that a finished run must have left behind, whatever happened on the way.

use crate::{
    Cloud, Message, Stretch,
    archive::{Archived, Quarantined},
};
use anyhow::{Context, Result, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use fixtures::Disposition;
use identity::Identity;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// What must be the same in two stretches that hold the same documents.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// By the message's name.
    pub rows: BTreeMap<String, RowState>,
    pub archived: BTreeSet<String>,
}

/// What the ledger says of a message.
#[derive(Clone, Debug, PartialEq)]
pub struct RowState {
    pub index: String,
    pub disposition: String,
    pub status: String,
    /// What holds it.
    pub place: &'static str,
}

/// Where the messages of a stretch are, as sets of identities.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Account {
    /// Messages in the source.
    pub attempted: usize,
    /// Found once, and where they belong.
    pub ok: usize,
    /// Found nowhere.
    pub lost: usize,
    /// Found more than once, or in more than one place.
    pub duplicated: usize,
    /// Found where they do not belong, or not in the source at all.
    pub unexpected: usize,
}

impl std::ops::AddAssign for Account {
    fn add_assign(&mut self, other: Self) {
        self.attempted += other.attempted;
        self.ok += other.ok;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.unexpected += other.unexpected;
    }
}

/// Counts what is in the source, the archive, the staging area and the quarantine.
pub async fn account(cloud: &Cloud, stretch: &Stretch, messages: &[Message]) -> Result<Account> {
    let mut places: BTreeMap<Identity, Vec<Disposition>> = BTreeMap::new();
    let mut found = |identity: Identity, place| places.entry(identity).or_default().push(place);
    for row in cloud.archived(stretch).await? {
        found(row.identity(), Disposition::Closed);
    }
    for identity in cloud.staged(stretch).await? {
        found(identity, Disposition::Open);
    }
    for line in cloud.quarantined(stretch).await? {
        found(Identity::new(line.source_index, line.id), Disposition::Quarantined);
    }
    let mut account = Account { attempted: messages.len(), ..Account::default() };
    for message in messages {
        match places.remove(&identity(message)).unwrap_or_default().as_slice() {
            [] => account.lost += 1,
            [place] if *place == message.disposition => account.ok += 1,
            [_] => account.unexpected += 1,
            _ => account.duplicated += 1,
        }
    }
    account.unexpected += places.len();
    Ok(account)
}

/// Checks tables and objects against the messages of the stretch as the source has them now.
pub async fn check(cloud: &Cloud, stretch: &Stretch, messages: &[Message]) -> Result<Snapshot> {
    let of = |disposition| messages.iter().filter(move |message| message.disposition == disposition);
    let archived = cloud.archived(stretch).await?;
    check_parquet(of(Disposition::Closed), &archived)?;
    check_jsonl(of(Disposition::Closed), &cloud.jsonl(stretch).await?)?;
    check_message_objects(of(Disposition::Closed), &cloud.message_objects(stretch).await?)?;
    check_quarantine(of(Disposition::Quarantined), &cloud.quarantined(stretch).await?)?;
    let rows = cloud.rows(messages).await?;
    let objects = check_manifests(cloud, stretch).await?;
    let holder: BTreeMap<Identity, &str> = archived.iter().map(|row| (row.identity(), row.key.as_str())).collect();
    for message in messages {
        check_row(cloud, message, &rows, &objects, &holder)
            .with_context(|| format!("{} in {}", message.id, message.index))?;
    }
    let open: Vec<Identity> = of(Disposition::Open).map(identity).collect::<BTreeSet<_>>().into_iter().collect();
    let staged = cloud.staged(stretch).await?;
    ensure!(staged == open, "staged are {staged:?}, open are {open:?}");
    Ok(summary(messages, &rows, &archived))
}

/// Checks that DuckDB finds the closed ones of these messages, each once, and nothing else of the stretch.
pub async fn check_archive(cloud: &Cloud, stretch: &Stretch, messages: &[Message]) -> Result<()> {
    let closed = messages.iter().filter(|message| message.disposition == Disposition::Closed);
    check_parquet(closed, &cloud.archived(stretch).await?)
}

fn identity(message: &Message) -> Identity {
    Identity::new(&message.index, &message.id)
}

fn check_parquet<'a>(closed: impl Iterator<Item = &'a Message>, archived: &[Archived]) -> Result<()> {
    let mut rows: BTreeMap<Identity, &Archived> = BTreeMap::new();
    for row in archived {
        ensure!(
            rows.insert(row.identity(), row).is_none(),
            "{} is in the archive twice, for example in {}",
            row.message_id,
            row.key
        );
    }
    for message in closed {
        let row = rows
            .remove(&identity(message))
            .with_context(|| format!("{} of {} is not in the archive", message.id, message.index))?;
        let context = || format!("{} in {}", message.id, row.key);
        let sha256 = hex::encode(Sha256::digest(&message.source));
        ensure!(
            row.message.as_bytes() == message.source,
            "{}: the message is {}, was {}",
            context(),
            row.message,
            String::from_utf8_lossy(&message.source)
        );
        ensure!(
            row.sha256 == sha256 && row.version == sha256,
            "{}: sha256 {} and version {}, expected {sha256}",
            context(),
            row.sha256,
            row.version
        );
        ensure!(
            row.date == message.date() && row.timestamp_ms == message.at.as_millisecond(),
            "{}: date {} and timestamp {}",
            context(),
            row.date,
            row.timestamp_ms
        );
        ensure!(
            row.no_alerts == message.no_alerts && (row.alert_count == 0) == message.no_alerts,
            "{}: no_alerts {}",
            context(),
            row.no_alerts
        );
        for (found, count, expected) in
            [(&row.history, row.history_count, &message.history), (&row.audit, row.audit_count, &message.audit)]
        {
            let expected: Vec<_> = expected.iter().map(|document| String::from_utf8_lossy(&document.source)).collect();
            ensure!(
                *found == expected && count == expected.len() as u64,
                "{}: trail {found:?} ({count}), expected {expected:?}",
                context()
            );
        }
    }
    ensure!(rows.is_empty(), "the archive holds what is not closed: {:?}", rows.keys());
    Ok(())
}

/// `{"message":...,"history":[...],"audit":[...]}`, every document as it was.
fn as_json(message: &Message) -> Vec<u8> {
    let list = |documents: &[fixtures::Fixture]| {
        documents.iter().map(|document| document.source.as_slice()).collect::<Vec<_>>().join(&b","[..])
    };
    [
        b"{\"message\":",
        message.source.as_slice(),
        b",\"history\":[",
        &list(&message.history),
        b"],\"audit\":[",
        &list(&message.audit),
        b"]}",
    ]
    .concat()
}

/// A replaced version stays in the JSONL of its day, so the lines hold the present ones at least.
fn check_jsonl<'a>(closed: impl Iterator<Item = &'a Message>, lines: &[Vec<u8>]) -> Result<()> {
    let lines: BTreeSet<&[u8]> = lines.iter().map(Vec::as_slice).collect();
    for message in closed {
        let line: Vec<u8> = as_json(message).into_iter().filter(|byte| *byte != b'\n').collect();
        ensure!(lines.contains(line.as_slice()), "{} is not in the JSONL as it is in the source", message.id);
    }
    Ok(())
}

fn check_message_objects<'a>(
    closed: impl Iterator<Item = &'a Message>,
    objects: &BTreeMap<String, Bytes>,
) -> Result<()> {
    for message in closed {
        let key = format!("archive/messages/date={}/{}/{}.json", message.date(), message.index, message.id);
        let object = objects.get(&key).with_context(|| format!("{key} does not exist"))?;
        ensure!(*object == as_json(message), "{key} holds something else");
    }
    Ok(())
}

fn check_quarantine<'a>(quarantined: impl Iterator<Item = &'a Message>, found: &[Quarantined]) -> Result<()> {
    let mut found = found.to_vec();
    for message in quarantined {
        let own = |line: &Quarantined| line.id == message.id && line.source_index == message.index;
        let position = found.iter().position(own).with_context(|| format!("{} is not in quarantine", message.id))?;
        let line = found.remove(position);
        ensure!(Some(line.reason.as_str()) == message.reason, "{}: quarantined for {}", message.id, line.reason);
        ensure!(
            BASE64_STANDARD.decode(&line.source_base64)? == message.source,
            "{}: quarantine holds other bytes",
            message.id
        );
    }
    ensure!(found.is_empty(), "in quarantine, but not expected there: {found:?}");
    Ok(())
}

/// Every object of the stretch is what the last manifest that names it says, and whatever a manifest names is there;
/// returns their keys.
async fn check_manifests(cloud: &Cloud, stretch: &Stretch) -> Result<BTreeSet<String>> {
    let mut manifests = Vec::new();
    for body in
        cloud.get_many(cloud.keys(&format!("archive/_commits/{}", stretch.year)).await?.into_keys()).await?.values()
    {
        let manifest: Value = serde_json::from_slice(body)?;
        let count = |name: &str| manifest["counts"][name].as_u64().unwrap_or_default();
        let sum = count("archived") + count("already_archived") + count("open") + count("quarantined");
        ensure!(manifest["source"] == sum && count("source") == sum, "the manifest does not reconcile: {manifest}");
        manifests.push(manifest);
    }
    // An object that lost a row to a newer version is named again, as it is since.
    manifests.sort_by_key(|manifest| manifest["committed_at"].to_string());
    let mut named: BTreeMap<String, (u64, String)> = BTreeMap::new();
    for object in manifests.iter().flat_map(|manifest| manifest["objects"].as_array().into_iter().flatten()) {
        let text = |name: &str| object[name].as_str().unwrap_or_default().to_owned();
        named.insert(text("key"), (object["bytes"].as_u64().unwrap_or_default(), text("sha256")));
    }
    let mut keys = BTreeSet::new();
    for prefix in ["archive/parquet", "archive/jsonl", "quarantine"] {
        keys.extend(cloud.keys(&format!("{prefix}/date={}-", stretch.year)).await?.into_keys());
    }
    for (key, body) in cloud.get_many(keys.iter().cloned()).await? {
        let said = named.remove(&key).with_context(|| format!("no manifest names {key}"))?;
        let is = (body.len() as u64, hex::encode(Sha256::digest(&body)));
        ensure!(said == is, "{key} is {is:?}, its manifest says {said:?}");
    }
    ensure!(named.is_empty(), "manifests name objects that do not exist: {:?}", named.keys());
    Ok(keys)
}

fn check_row(
    cloud: &Cloud,
    message: &Message,
    rows: &BTreeMap<Identity, Value>,
    objects: &BTreeSet<String>,
    holder: &BTreeMap<Identity, &str>,
) -> Result<()> {
    let row = rows.get(&identity(message)).context("no row in message-tracking")?;
    let (status, disposition) = match message.disposition {
        Disposition::Closed => ("Completed", "closed"),
        Disposition::Open => ("Pending", "open"),
        Disposition::Quarantined => ("Completed", "quarantined"),
    };
    ensure!(row["status"] == status && row["disposition"] == disposition, "expected {status} and {disposition}: {row}");
    ensure!(row["version"] == hex::encode(Sha256::digest(&message.source)), "the row has another version: {row}");
    ensure!(row["claim"].is_null() && row["inserted_at"].is_string(), "{row}");
    if message.disposition == Disposition::Open {
        ensure!(row["s3_path"].is_null() && row["first_seen_open"].is_string(), "{row}");
        return Ok(());
    }
    ensure!(row["processed_at"].is_string() && row["staging"].is_null(), "{row}");
    let path = row["s3_path"].as_str().context("s3_path")?;
    let key = path.strip_prefix(&format!("s3://{}/", cloud.bucket)).with_context(|| format!("s3_path {path}"))?;
    ensure!(objects.contains(key), "s3_path {path} does not exist");
    match message.disposition {
        Disposition::Closed => {
            ensure!(
                holder.get(&identity(message)) == Some(&key),
                "s3_path is {path}, but {:?} holds it",
                holder.get(&identity(message))
            )
        }
        _ => ensure!(row["reason"].as_str() == message.reason, "{row}"),
    }
    Ok(())
}

fn summary(messages: &[Message], rows: &BTreeMap<Identity, Value>, archived: &[Archived]) -> Snapshot {
    let names: BTreeMap<Identity, &str> = messages.iter().map(|message| (identity(message), message.name())).collect();
    let describe = |row: &Value| {
        let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
        let path = text("s3_path");
        let place = if path.contains("/archive/parquet/") {
            "archive"
        } else if path.contains("/quarantine/") {
            "quarantine"
        } else {
            "nowhere"
        };
        RowState { index: text("source_index"), disposition: text("disposition"), status: text("status"), place }
    };
    Snapshot {
        rows: rows
            .iter()
            .filter_map(|(identity, row)| Some(((*names.get(identity)?).to_owned(), describe(row))))
            .collect(),
        archived: archived.iter().filter_map(|row| names.get(&row.identity()).map(|name| (*name).to_owned())).collect(),
    }
}
