//! What must be there after a history, told without a look at how the archive works.

use super::Doc;
use alerts::{
    commit::manifest::{Manifest, WrittenObject},
    keys::{checkpoint_key, spool_prefix},
    message::document,
    run::job_run::{JobRun, RunStatus},
};
use memory_cloud::{BUCKET, Cloud, JOB_RUNS};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use std::collections::{BTreeMap, BTreeSet};

/// What of the promises does not hold.
pub async fn check(cloud: &Cloud, documents: &[Doc], last: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let contents = cloud.store.contents(BUCKET);
    let archived = archived(&contents, &mut findings);
    let rows = cloud.tracking_rows();
    for doc in documents {
        let copies = archived.get(&doc.id).map(Vec::as_slice).unwrap_or_default();
        let row = rows.iter().find(|row| row["message_id"] == doc.id.as_str());
        if doc.is_gone {
            judge_gone(doc, copies, row, &contents, &mut findings);
            continue;
        }
        judge(doc, copies, row, &mut findings);
        if !doc.is_open {
            let beside = contents.iter().find(|(key, _)| {
                key.starts_with(&format!("archive/messages/date=2024-07-0{}/", doc.day)) && key.contains(&doc.id)
            });
            let copy: Option<Value> = beside.and_then(|(_, body)| serde_json::from_slice(body).ok());
            let current: Value = serde_json::from_str(&doc.body()).expect("JSON");
            if copy.is_none_or(|copy| copy["message"] != current) {
                findings.push(format!("the object of {} under archive/messages is not its newest version", doc.id));
            }
        }
    }
    // What was claimed, never written, and is gone from the source: no run comes to it again, and `verify` tells it.
    let is_gone = |row: &&Value| documents.iter().any(|doc| doc.is_gone && row["message_id"] == doc.id.as_str());
    for row in rows.iter().filter(|row| !is_gone(row)) {
        if !row["claim"].is_null() || row["status"] == "Processing" {
            findings.push(format!("a row stays claimed: {row}"));
        }
    }
    for window in unfinished(cloud) {
        findings.push(format!("window {} of {} stays Prepared", window["window_id"], window["run_id"]));
    }
    let present = documents.iter().filter(|doc| !doc.is_gone).count();
    let run = cloud.job_run(last);
    if run["status"] != "Completed" {
        findings.push(format!("the last run: {run}"));
    } else {
        let report = cloud.json(&format!("runs/{last}/report.json"));
        if report["reconciled"] != true || report["messages"]["source"] != present {
            findings.push(format!("the report does not add up: {}", report["messages"]));
        }
    }
    mails(cloud, &mut findings);
    findings.extend(accounts(cloud));
    findings
}

/// Of each run that is complete, the report and the last mail are of its last attempt, and say so.
fn accounts(cloud: &Cloud) -> Vec<String> {
    let mails = cloud.mails.sent();
    let mut findings = Vec::new();
    let completed = |run: &JobRun| run.status == RunStatus::Completed;
    for JobRun { run_id, attempt, outbox, .. } in cloud.typed(JOB_RUNS).into_iter().filter(completed) {
        let report = cloud.json(&format!("runs/{run_id}/report.json"));
        if report["status"] != "Completed" || report["attempt"] != attempt {
            let (status, of) = (&report["status"], &report["attempt"]);
            findings.push(format!("{run_id} is Completed in attempt {attempt}; its report says {status} in {of}"));
        }
        let mut told = mails.iter().filter_map(|mail| Some((mail.header("Message-ID")?, mail.header("Subject")?)));
        // One that was held up between its claim and SES, which knows no conditions, goes out late and stays unmarked.
        let is_marked = |note: &str| {
            let notes = outbox.iter().filter(|(name, _)| name.starts_with(&format!("{note}/")));
            notes.map(|(_, once)| json!(once)).any(|once| once["sent"] == true)
        };
        let note_of = |id: &str| id.strip_prefix(&format!("<{run_id}."))?.split('@').next().map(str::to_owned);
        let last = told.rfind(|(id, _)| note_of(id).is_some_and(|note| is_marked(&note)));
        if let Some((id, subject)) = last
            && (!id.starts_with(&format!("<{run_id}.{attempt}@")) || subject.contains("failed"))
        {
            findings.push(format!("{run_id} is Completed in attempt {attempt}; the last mail is {id}, {subject}"));
        }
    }
    findings
}

/// What holds whenever nothing is at work: where no intent waits to be carried out, nothing stands twice, and what a
/// row calls Completed is there.
pub fn check_quiet(cloud: &Cloud) -> Vec<String> {
    let mut findings = accounts(cloud);
    if !unfinished(cloud).is_empty() {
        return findings;
    }
    let contents = cloud.store.contents(BUCKET);
    let archived = archived(&contents, &mut findings);
    for (id, copies) in &archived {
        if copies.len() > 1 {
            let keys: Vec<&str> = copies.iter().map(|copy| copy.key.as_str()).collect();
            findings.push(format!("{id} is archived {} times before the last run: {keys:?}", copies.len()));
        }
    }
    for row in cloud.tracking_rows().iter().filter(|row| row["status"] == "Completed") {
        let path = row["s3_path"].as_str().unwrap_or_default();
        let id = row["message_id"].as_str().unwrap_or_default();
        let is_there = |copies: &Vec<Copy>| copies.iter().any(|copy| path.ends_with(&copy.key));
        if path.contains("/archive/parquet/") && !archived.get(id).is_some_and(is_there) {
            findings.push(format!("{id} is not where its row says: {row}"));
        }
    }
    findings
}

/// Windows with an intent that is not carried out: it claims a row, or has no manifest. One that only lacks the mark in
/// its own row is carried out; a rerun of its run would mark it, and no other run has a reason to look at it.
pub fn unfinished(cloud: &Cloud) -> Vec<Value> {
    let (rows, contents) = (cloud.tracking_rows(), cloud.store.contents(BUCKET));
    let is_unfinished = |window: &Value| {
        if window["status"] != "Prepared" {
            return false;
        }
        let text = |field: &str| window[field].as_str().unwrap_or_default();
        let (run, window_id, attempt) = (text("run_id"), text("window_id"), &window["attempt"]);
        let claim = format!("{run}/{window_id}/{attempt}");
        let manifest = format!("archive/_commits/{window_id}/{run}-{attempt}.json");
        let is_claimed = rows.iter().any(|row| row["claim"] == claim.as_str());
        // With nothing to write it holds nothing, and no reader needs its manifest.
        let intent = contents.get(text("intent_key")).expect("a registered intent is there");
        let intent: Vec<Value> = cloud.objects().decode_lines(text("intent_key"), intent).expect("an intent");
        let is_empty = intent[0]["objects"] == json!([]);
        is_claimed || !(is_empty || contents.contains_key(&manifest))
    };
    cloud.window_rows().into_iter().filter(is_unfinished).collect()
}

/// The runs of such windows, each once.
pub fn unfinished_runs(cloud: &Cloud) -> BTreeSet<String> {
    unfinished(cloud).iter().filter_map(|window| window["run_id"].as_str()).map(str::to_owned).collect()
}

struct Copy {
    key: String,
    message: String,
    history: usize,
}

/// What a manifest says of an object.
#[derive(Debug)]
struct Said {
    rows: u64,
    sha256: String,
}

/// What all manifests say of each object that they name, by its key.
fn said_by_manifests(contents: &BTreeMap<String, bytes::Bytes>) -> BTreeMap<String, Vec<Said>> {
    let mut said: BTreeMap<String, Vec<Said>> = BTreeMap::new();
    for (_, body) in contents.iter().filter(|(key, _)| key.starts_with("archive/_commits/")) {
        let manifest: Manifest = serde_json::from_slice(body).expect("a manifest");
        for WrittenObject { key, rows, sha256, .. } in manifest.objects {
            said.entry(key).or_default().push(Said { rows, sha256 });
        }
    }
    said
}

/// What readers of `archive/parquet` see, by id.
fn archived(contents: &BTreeMap<String, bytes::Bytes>, findings: &mut Vec<String>) -> BTreeMap<String, Vec<Copy>> {
    let mut archived: BTreeMap<String, Vec<Copy>> = BTreeMap::new();
    let said = said_by_manifests(contents);
    for key in said.keys().filter(|key| !contents.contains_key(*key)) {
        findings.push(format!("a manifest names {key}, which is not there"));
    }
    for (key, body) in contents.iter().filter(|(key, _)| key.starts_with("archive/parquet/")) {
        match said.get(key).into_iter().flatten().min_by_key(|said| said.rows) {
            None => findings.push(format!("no manifest names {key}")),
            // Rows are only ever taken out of an object: what was said of the fewest was said last.
            Some(Said { rows, .. }) => {
                let sha256 = storage::sha256_hex(body);
                if !said[key].iter().any(|said| said.rows == *rows && said.sha256 == sha256) {
                    findings.push(format!("{key} is not as any manifest says that was written last: {:?}", said[key]));
                }
            }
        }
        for row in columnar::rows(body.clone()).expect("Parquet") {
            let row = row.expect("a row");
            let message = String::from_utf8(row.record.message).expect("UTF-8");
            let copy = Copy { key: key.clone(), message, history: row.record.history.len() };
            archived.entry(row.identity.id).or_default().push(copy);
        }
    }
    archived
}

fn judge(doc: &Doc, copies: &[Copy], row: Option<&Value>, findings: &mut Vec<String>) {
    let id = &doc.id;
    if copies.len() > 1 {
        let keys: Vec<&str> = copies.iter().map(|copy| copy.key.as_str()).collect();
        findings.push(format!("{id} is archived {} times: {keys:?}", copies.len()));
    }
    let Some(row) = row else {
        findings.push(format!("{id} has no row"));
        return;
    };
    if doc.is_open {
        if row["disposition"] != "open" || row["staging"].is_null() {
            findings.push(format!("{id} is open and not held over: {row}"));
        }
        return;
    }
    let Some(copy) = copies.first() else {
        findings.push(format!("{id} is closed and not archived: {row}"));
        return;
    };
    if copy.message != doc.body() {
        findings.push(format!("{id} is archived in an older version: {}, not {}", copy.message, doc.body()));
    }
    if copy.history != doc.events as usize {
        findings.push(format!("{id} is archived with {} of {} lines of history", copy.history, doc.events));
    }
    if row["status"] != "Completed" || row["s3_path"].as_str().is_none_or(|path| !path.ends_with(&copy.key)) {
        findings.push(format!("the row of {id} does not name {}: {row}", copy.key));
    }
}

/// What is archived of a document that the source has let go stays, once; what was read and not written is kept.
fn judge_gone(
    doc: &Doc,
    copies: &[Copy],
    row: Option<&Value>,
    contents: &BTreeMap<String, bytes::Bytes>,
    findings: &mut Vec<String>,
) {
    // A newer version may be in quarantine.
    let names = |copy: &Copy| {
        let paths = row.into_iter().flat_map(|row| [&row["s3_path"], &row["archived_path"]]);
        paths.filter_map(Value::as_str).any(|path| path.ends_with(&copy.key))
    };
    let id = &doc.id;
    if copies.len() > 1 {
        findings.push(format!("{id} is gone and archived {} times", copies.len()));
    }
    if copies.first().is_some_and(|copy| !names(copy)) {
        findings.push(format!("the row of {id}, which is gone, does not name where it is archived: {row:?}"));
    }
    let marked = row.filter(|row| row["status"] == "Failed" && has_spool(contents, row));
    if marked.is_some_and(|row| !is_kept(contents, id, &row["version"])) {
        findings.push(format!("{id} is gone, and what was read of it is not kept: {row:?}"));
    }
}

/// Whether what the row's attempt has read has not expired.
fn has_spool(contents: &BTreeMap<String, bytes::Bytes>, row: &Value) -> bool {
    let text = |field: &str| row[field].as_str().unwrap_or_default();
    let attempt = row["attempt"].as_u64().unwrap_or_default();
    contents.contains_key(&checkpoint_key(&spool_prefix(text("run_id"), text("window_id"), attempt)))
}

/// Whether this version of a message that left before it was written is kept.
fn is_kept(contents: &BTreeMap<String, bytes::Bytes>, id: &str, version: &Value) -> bool {
    #[derive(Deserialize)]
    struct Kept<'a> {
        #[serde(borrow)]
        message: &'a RawValue,
    }
    let of_id = contents.iter().filter(|(key, _)| key.starts_with("archive/superseded/gone/") && key.contains(id));
    let mut kept = of_id.map(|(_, body)| serde_json::from_slice::<Kept>(body).expect("message, history and audit"));
    kept.any(|kept| *version == document::version(kept.message.get().as_bytes()))
}

/// One mail a report: a second one says that it may be one.
fn mails(cloud: &Cloud, findings: &mut Vec<String>) {
    let mut unmarked: BTreeMap<String, usize> = BTreeMap::new();
    for mail in cloud.mails.sent() {
        let is_marked = mail.header("Subject").is_some_and(|subject| subject.to_lowercase().contains("duplicate"));
        let report = mail.header("Message-ID").unwrap_or_default();
        *unmarked.entry(report).or_default() += usize::from(!is_marked);
    }
    let twice = unmarked.iter().filter(|(_, mails)| **mails > 1);
    findings.extend(twice.map(|(report, mails)| format!("{mails} unmarked mails of {report}")));
}

#[cfg(test)]
mod tests {
    use super::*;
    use alerts::{mode::Mode, window::plan::Window, window::record::WindowRecord};
    use jiff::Timestamp;

    #[tokio::test]
    async fn a_registered_intent_with_objects_and_no_manifest_is_unfinished_and_an_empty_one_is_not() {
        for (objects, unfinished) in [(json!([{"key": "archive/parquet/p"}]), 1), (json!([]), 0)] {
            let (cloud, now) = (Cloud::default(), Timestamp::UNIX_EPOCH);
            let key = "runs/intent".to_owned();
            cloud.objects().put_lines(&key, &[json!({"objects": objects})]).await.expect("written");
            let window = Window::new(now, now + jiff::SignedDuration::from_hours(24), 1);
            let running = WindowRecord::planned("r0", Mode::Range, window, now).begin("query-messages", now).0;
            let prepared = running.prepare(1, key, now).expect("its own");
            assert!(cloud.windows().rows.put(&WindowRecord { revision: 1, ..prepared }).await.expect("written"));
            assert_eq!(super::unfinished(&cloud).len(), unfinished, "{objects}");
        }
    }
}
