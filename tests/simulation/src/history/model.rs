//! What must be there after a history, told without a look at how the archive works.

use super::Doc;
use memory_cloud::{BUCKET, Cloud};
use serde_json::Value;
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
    for row in &rows {
        if !row["claim"].is_null() || row["status"] == "Processing" {
            findings.push(format!("a row stays claimed: {row}"));
        }
    }
    for window in cloud.window_rows() {
        if window["status"] == "Prepared" && window["messages"]["source"] != window["messages"]["open"] {
            findings.push(format!("window {} of {} stays Prepared", window["window_id"], window["run_id"]));
        }
    }
    let run = cloud.job_run(last);
    if run["status"] != "Completed" {
        findings.push(format!("the last run: {run}"));
    } else {
        let report = cloud.json(&format!("runs/{last}/report.json"));
        if report["reconciled"] != true || report["messages"]["source"] != documents.len() {
            findings.push(format!("the report does not add up: {}", report["messages"]));
        }
    }
    mails(cloud, &mut findings);
    findings
}

struct Copy {
    key: String,
    message: String,
    history: usize,
}

/// What readers of `archive/parquet` see, by id.
fn archived(contents: &BTreeMap<String, bytes::Bytes>, findings: &mut Vec<String>) -> BTreeMap<String, Vec<Copy>> {
    let mut archived: BTreeMap<String, Vec<Copy>> = BTreeMap::new();
    let manifests = contents.iter().filter(|(key, _)| key.starts_with("archive/_commits/"));
    let named: BTreeSet<String> = manifests
        .filter_map(|(_, body)| serde_json::from_slice::<Value>(body).ok())
        .flat_map(|manifest| manifest["objects"].as_array().cloned().unwrap_or_default())
        .filter_map(|object| object["key"].as_str().map(str::to_owned))
        .collect();
    for (key, body) in contents.iter().filter(|(key, _)| key.starts_with("archive/parquet/")) {
        if !named.contains(key) {
            findings.push(format!("no manifest names {key}"));
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

/// One mail a report: a second one says that it may be one.
fn mails(cloud: &Cloud, findings: &mut Vec<String>) {
    let sent = cloud.mails.sent();
    let is_marked = |subject: &String| subject.to_lowercase().contains("duplicate");
    let unmarked = sent.iter().filter(|mail| mail.header("Subject").is_none_or(|subject| !is_marked(&subject))).count();
    let noted = |run: &Value| run["outbox"].as_object().map_or(0, |mails| mails.len());
    let reports: usize = cloud.rows("job-runs").iter().map(noted).sum();
    if unmarked > reports {
        findings.push(format!("{unmarked} mails for {reports} reports"));
    }
}
