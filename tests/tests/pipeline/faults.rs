//! One line for each fault; one check for all of them: in the end nothing differs from a run that nobody disturbed.

use anyhow::{Context, Result, ensure};
use pipeline_tests::{
    Cloud, Summary, check,
    documents::mixture,
    faults::{ALWAYS, CUT_AFTER, CUT_BEFORE, Fault, KILL_AFTER, KILL_BEFORE, Then, delay, dynamodb, fault, opensearch, s3, ses, states},
    proxy::Harm,
};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use tokio::sync::OnceCell;

const MESSAGES: usize = 36;

#[rustfmt::skip]
pub const FAULTS: &[Fault] = &[
    fault("plan-windows killed before it takes the range", "plan-windows", dynamodb("PutItem", &["#lock"]), KILL_BEFORE),
    fault("plan-windows killed when it has taken the range", "plan-windows", dynamodb("PutItem", &["#lock"]), KILL_AFTER),
    fault("plan-windows killed when the source has counted", "plan-windows", opensearch("POST", "/messages/_search", &[]), KILL_AFTER),
    fault("plan-windows killed between the rows of its windows", "plan-windows", dynamodb("PutItem", &["-windows\"", "Planned"]), KILL_AFTER),
    fault("plan-windows killed before the plan is stored", "plan-windows", s3("PUT", "/windows.jsonl"), KILL_BEFORE),
    fault("plan-windows killed when the plan is stored", "plan-windows", s3("PUT", "/windows.jsonl"), KILL_AFTER),
    fault("plan-windows is refused by a busy source", "plan-windows", opensearch("POST", "/messages/_search", &[]), Harm::Answer(503)).times(2),
    fault("plan-windows is refused by a busy ledger", "plan-windows", dynamodb("PutItem", &["-windows\""]), Harm::Answer(503)).times(2),

    fault("query-messages killed when its attempt has begun", "query-messages", dynamodb("PutItem", &["-windows\"", "Running"]), KILL_AFTER),
    fault("query-messages killed with points in time open", "query-messages", opensearch("POST", "/history/_search/point_in_time", &[]), KILL_AFTER),
    fault("query-messages killed between two pages", "query-messages", opensearch("POST", "/_search", &["search_after"]), KILL_BEFORE),
    fault("query-messages killed before its spool is stored", "query-messages", s3("PUT", "/records-"), KILL_BEFORE),
    fault("query-messages killed between records and index", "query-messages", s3("PUT", "/records-"), KILL_AFTER),
    fault("query-messages killed before its checkpoint", "query-messages", s3("PUT", "/checkpoint.json"), KILL_BEFORE),
    fault("query-messages killed after its checkpoint", "query-messages", s3("PUT", "/checkpoint.json"), KILL_AFTER),
    fault("query-messages loses the answer to a page", "query-messages", opensearch("POST", "/_search", &[]), CUT_AFTER).times(2),
    fault("query-messages is refused by a busy source", "query-messages", opensearch("POST", "/_search", &[]), Harm::Answer(503)).nth(2).times(3),
    fault("query-messages waits for a slow source", "query-messages", opensearch("POST", "/_search", &[]), delay(2)).nth(2),
    fault("query-messages is refused by a busy store", "query-messages", s3("PUT", "/spool/"), Harm::Answer(503)).times(3),

    fault("classify-alerts killed between the rows", "classify-alerts", dynamodb("PutItem", &["-message-tracking", "Pending"]), KILL_AFTER).nth(5),
    fault("classify-alerts killed before its decisions are stored", "classify-alerts", s3("PUT", "/decisions-"), KILL_BEFORE),
    fault("classify-alerts killed when its decisions are stored", "classify-alerts", s3("PUT", "/decisions-"), KILL_AFTER),
    fault("classify-alerts killed when its counts are noted", "classify-alerts", dynamodb("PutItem", &["-windows\"", "reasons"]), KILL_AFTER).nth(2),
    fault("classify-alerts is refused by a busy ledger", "classify-alerts", dynamodb("BatchGetItem", &[]), Harm::Answer(503)).times(3),
    fault("classify-alerts loses the answer to a row", "classify-alerts", dynamodb("PutItem", &["-message-tracking"]), CUT_AFTER).nth(3),

    fault("write-partitions killed between its claims", "write-partitions", dynamodb("PutItem", &["-message-tracking", "Processing"]), KILL_AFTER).nth(3),
    fault("write-partitions killed before its intent is stored", "write-partitions", s3("PUT", "/intent.json"), KILL_BEFORE),
    fault("write-partitions killed before its intent is registered", "write-partitions", s3("PUT", "/intent.json"), KILL_AFTER),
    fault("write-partitions killed when its intent is registered", "write-partitions", dynamodb("PutItem", &["-windows\"", "Prepared"]), KILL_AFTER),
    fault("write-partitions killed between the per-message objects", "write-partitions", s3("PUT", "/archive/messages/"), KILL_AFTER).nth(4),
    fault("write-partitions killed between JSONL and Parquet", "write-partitions", s3("PUT", "/archive/jsonl/"), KILL_AFTER),
    fault("write-partitions killed before the first Parquet object", "write-partitions", s3("PUT", "/archive/parquet/"), KILL_BEFORE),
    fault("write-partitions killed after the first Parquet object", "write-partitions", s3("PUT", "/archive/parquet/"), KILL_AFTER),
    fault("write-partitions killed after a quarantine object", "write-partitions", s3("PUT", "/quarantine/"), KILL_AFTER),
    fault("write-partitions killed while rows are completed", "write-partitions", dynamodb("PutItem", &["-message-tracking", "Completed"]), KILL_AFTER).nth(3),
    fault("write-partitions killed before its manifest", "write-partitions", s3("PUT", "/archive/_commits/"), KILL_BEFORE),
    fault("write-partitions killed after its manifest", "write-partitions", s3("PUT", "/archive/_commits/"), KILL_AFTER),
    fault("write-partitions killed when its window is completed", "write-partitions", dynamodb("PutItem", &["-windows\"", "manifest_key"]), KILL_AFTER),
    fault("write-partitions loses the answer to a Parquet object", "write-partitions", s3("PUT", "/archive/parquet/"), CUT_AFTER),
    fault("write-partitions loses the answer to a row", "write-partitions", dynamodb("PutItem", &["-message-tracking", "Completed"]), CUT_AFTER).nth(2),
    fault("write-partitions is refused by a busy store", "write-partitions", s3("PUT", "/archive/parquet/"), Harm::Answer(503)).times(3),
    fault("plan-windows killed each time before the plan is stored, then redriven", "plan-windows", s3("PUT", "/windows.jsonl"), KILL_BEFORE).times(ALWAYS).then(Then::Redrive),
    fault("query-messages killed each time before its checkpoint, then redriven", "query-messages", s3("PUT", "/checkpoint.json"), KILL_BEFORE).times(ALWAYS).then(Then::Redrive),
    fault("query-messages killed each time before its checkpoint, then a run with other edges", "query-messages", s3("PUT", "/checkpoint.json"), KILL_BEFORE).times(ALWAYS).then(Then::OtherRun),
    fault("classify-alerts killed each time before its decisions, then redriven", "classify-alerts", s3("PUT", "/decisions-"), KILL_BEFORE).times(ALWAYS).then(Then::Redrive),
    fault("classify-alerts killed each time before its decisions, then a run with other edges", "classify-alerts", s3("PUT", "/decisions-"), KILL_BEFORE).times(ALWAYS).then(Then::OtherRun),
    fault("write-partitions killed each time before its intent, then redriven", "write-partitions", s3("PUT", "/intent.json"), KILL_BEFORE).times(ALWAYS).then(Then::Redrive),
    fault("write-partitions killed each time at its Parquet objects, then redriven", "write-partitions", s3("PUT", "/archive/parquet/"), KILL_BEFORE).times(ALWAYS).then(Then::Redrive),
    fault("write-partitions killed each time at its Parquet objects, then a run with other edges", "write-partitions", s3("PUT", "/archive/parquet/"), KILL_BEFORE).times(ALWAYS).then(Then::OtherRun),
    fault("write-partitions killed each time at its manifest, then redriven", "write-partitions", s3("PUT", "/archive/_commits/"), KILL_BEFORE).times(ALWAYS).then(Then::Redrive),
    fault("write-partitions killed each time at its manifest, then a run with other edges", "write-partitions", s3("PUT", "/archive/_commits/"), KILL_BEFORE).times(ALWAYS).then(Then::OtherRun),

    fault("collect-windows killed before its report", "collect-windows", s3("PUT", "/report.json"), KILL_BEFORE),
    fault("collect-windows killed after its report", "collect-windows", s3("PUT", "/report.json"), KILL_AFTER),
    fault("collect-windows does not hear from Step Functions", "collect-windows", states("DescribeExecution"), CUT_BEFORE).times(2),
    fault("send-summary killed when the mail is claimed", "send-summary", dynamodb("PutItem", &["Claimed"]), KILL_AFTER),
    fault("send-summary killed before the mail is sent", "send-summary", ses(&["SendRawEmail"]), KILL_BEFORE),
    fault("send-summary killed when the mail is sent", "send-summary", ses(&["SendRawEmail"]), KILL_AFTER),
    fault("aggregate-dashboard killed before the list of runs", "aggregate-dashboard", s3("PUT", "/runs.json"), KILL_BEFORE),
    fault("aggregate-dashboard killed after the list of runs", "aggregate-dashboard", s3("PUT", "/runs.json"), KILL_AFTER),
    fault("gate-run killed before it closes the run", "gate-run", dynamodb("PutItem", &["-job-runs", "Completed"]), KILL_BEFORE),
    fault("gate-run killed when it has closed the run", "gate-run", dynamodb("PutItem", &["-job-runs", "Completed"]), KILL_AFTER),
    fault("gate-run killed when it has freed the range", "gate-run", dynamodb("PutItem", &["#lock"]), KILL_AFTER),
    fault("collect-windows killed each time before its report, then redriven", "collect-windows", s3("PUT", "/report.json"), KILL_BEFORE).times(ALWAYS).then(Then::Redrive),
    fault("send-summary killed each time before the mail is sent, then redriven", "send-summary", ses(&["SendRawEmail"]), KILL_BEFORE).times(ALWAYS).then(Then::Redrive),
    fault("aggregate-dashboard killed each time before the list of runs, then redriven", "aggregate-dashboard", s3("PUT", "/runs.json"), KILL_BEFORE).times(ALWAYS).then(Then::Redrive),
    fault("gate-run killed each time before it closes the run, then redriven", "gate-run", dynamodb("PutItem", &["-job-runs", "Completed"]), KILL_BEFORE).times(ALWAYS).then(Then::Redrive),
];

/// The same documents in a stretch that nobody disturbed, and what the run said of them.
static UNDISTURBED: OnceCell<(Summary, Value)> = OnceCell::const_new();

static SURVIVED: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());

async fn undisturbed(cloud: &Cloud) -> Result<&'static (Summary, Value)> {
    let make = async || -> Result<(Summary, Value)> {
        let stretch = cloud.stretch();
        let messages = mixture(&stretch, MESSAGES);
        cloud.load(&messages).await?;
        let outcome = cloud.run_stretch(&stretch).await?.completed()?;
        Ok((check(cloud, &stretch, &messages).await?, outcome.report))
    };
    UNDISTURBED.get_or_try_init(make).await
}

pub async fn makes_no_difference(cloud: &Cloud, fault: &'static Fault) -> Result<()> {
    let (summary, report) = undisturbed(cloud).await.context("the undisturbed twin")?;
    let stretch = cloud.stretch();
    let messages = mixture(&stretch, MESSAGES);
    cloud.load(&messages).await?;
    cloud.proxies.arm(*fault);
    let first = cloud.run_stretch(&stretch).await?;
    let fired = cloud.proxies.disarm()?;
    ensure!(fired > 0, "the fault met no request");
    ensure!(fault.times == ALWAYS || fired == fault.times, "the fault struck {fired} times of {}", fault.times);
    let last = match fault.then {
        Then::Retry => first.completed()?,
        Then::Redrive => {
            ensure!(!first.well, "the run went well in spite of the fault: {:#}\n{}", first.report, first.said);
            cloud.redrive(first.run_id()).await?.completed()?
        }
        Then::OtherRun => {
            ensure!(!first.well, "the run went well in spite of the fault: {:#}\n{}", first.report, first.said);
            let middle = format!("{}-02-02T11:30:00Z", stretch.year);
            cloud.run(&middle, &stretch.to()).await?.completed()?;
            cloud.run(&stretch.from(), &middle).await?.completed()?
        }
    };
    ensure!(check(cloud, &stretch, &messages).await? == *summary, "the rows differ from those of the undisturbed twin");
    if fault.then != Then::OtherRun {
        for field in ["messages", "windows", "bytes"] {
            let (left, right) = (&last.report[field], &report[field]);
            ensure!(left == right || field == "bytes", "{field}: {left}, undisturbed {right}");
        }
        let (mails, reports) = (cloud.mails(last.run_id())?, last.report["attempt"].as_u64().unwrap_or_default() as usize);
        // A crash between sending and recording may cost one duplicate, and the second says so.
        let duplicate =
            mails.len() == reports + 1 && fault.function == "send-summary" && mails.last().is_some_and(|mail| mail.text.contains("uplicate"));
        ensure!(mails.len() == reports || duplicate, "{} mails for {reports} reports", mails.len());
    }
    SURVIVED.lock().unwrap_or_else(PoisonError::into_inner).insert(fault.name);
    Ok(())
}

/// `tests/README.md` lists the faults, once all of them were survived.
pub fn write_table() {
    let survived = SURVIVED.lock().unwrap_or_else(PoisonError::into_inner);
    if !FAULTS.iter().all(|fault| survived.contains(fault.name)) {
        return;
    }
    let mut text = include_str!("faults.md").to_owned();
    text.push_str("\n| function | fault | what makes it good | test |\n|---|---|---|---|\n");
    for fault in FAULTS {
        let then = match fault.then {
            Then::Retry => "the same execution",
            Then::Redrive => "a redrive",
            Then::OtherRun => "runs with other edges",
        };
        let _ = writeln!(text, "| {} | {} | {then} | `{}` |", fault.function, fault.what(), fault.name.replace(' ', "_"));
    }
    if let Err(error) = std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"), text) {
        eprintln!("tests/README.md cannot be written: {error}");
    }
}
