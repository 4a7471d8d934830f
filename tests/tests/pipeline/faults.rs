//! One line for each fault; one check for all of them: in the end nothing differs from an undisturbed run.

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use pipeline_tests::{
    Account, Cloud, Outcome, Snapshot, Stretch, account, check,
    documents::{instant, mixture},
    faults::{
        ALWAYS, CONFLICT, CUT_AFTER, CUT_BEFORE, ENDED_EARLY, Fault, KILL_AFTER, KILL_BEFORE, SHARDS_FAILED, THROTTLE,
        TIMED_OUT, Then, delay, dynamodb, fault, opensearch, s3, ses, states, with_rows,
    },
    proxy::Harm,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use std::{fs, io};
use tokio::sync::OnceCell;

/// Names the faults for `cargo test -- "[fault]"`.
pub const KIND: &str = "fault";

const MESSAGES: usize = 36;

#[rustfmt::skip]
pub const FAULTS: &[Fault] = &[
    fault("plan-windows killed before it takes the range", "plan-windows", dynamodb("PutItem", &["#lock"]), KILL_BEFORE),
    fault("plan-windows killed when it has taken the range", "plan-windows", dynamodb("PutItem", &["#lock"]), KILL_AFTER),
    fault("plan-windows killed when the source has counted", "plan-windows", opensearch("POST", "/messages/_search", &[]), KILL_AFTER),
    fault("plan-windows killed between the rows of its windows", "plan-windows", dynamodb("BatchExecuteStatement", &["-windows", "Planned"]), KILL_AFTER).quick(),
    fault("plan-windows killed before the plan is stored", "plan-windows", s3("PUT", "/windows.jsonl"), KILL_BEFORE),
    fault("plan-windows killed when the plan is stored", "plan-windows", s3("PUT", "/windows.jsonl"), KILL_AFTER).quick(),
    fault("plan-windows is refused by a busy source", "plan-windows", opensearch("POST", "/messages/_search", &[]), Harm::Answer(503)).times(2),
    fault("plan-windows is told of failed shards", "plan-windows", opensearch("POST", "/messages/_search", &["aggs"]), SHARDS_FAILED).times(2),
    fault("plan-windows is throttled", "plan-windows", dynamodb("BatchExecuteStatement", &["-windows"]), THROTTLE).times(3),
    fault("plan-windows is refused by a busy ledger", "plan-windows", dynamodb("BatchExecuteStatement", &["-windows"]), Harm::Answer(503)).times(2),

    fault("query-messages killed when its attempt has begun", "query-messages", dynamodb("PutItem", &["-windows\"", "Running"]), KILL_AFTER),
    fault("query-messages killed with points in time open", "query-messages", opensearch("POST", "/_search/point_in_time", &[]), KILL_AFTER),
    fault("query-messages killed between two pages", "query-messages", opensearch("POST", "/_search", &["search_after"]), KILL_BEFORE).quick(),
    fault("query-messages killed before its spool is stored", "query-messages", s3("PUT", "/records-"), KILL_BEFORE),
    fault("query-messages killed between records and index", "query-messages", s3("PUT", "/records-"), KILL_AFTER).quick(),
    fault("query-messages killed before its checkpoint", "query-messages", s3("PUT", "/checkpoint.json"), KILL_BEFORE),
    fault("query-messages killed after its checkpoint", "query-messages", s3("PUT", "/checkpoint.json"), KILL_AFTER),
    fault("query-messages loses the answer to a page", "query-messages", opensearch("POST", "/_search", &[]), CUT_AFTER).times(2),
    fault("query-messages is refused by a busy source", "query-messages", opensearch("POST", "/_search", &[]), Harm::Answer(503)).nth(2).times(3),
    fault("query-messages waits for a slow source", "query-messages", opensearch("POST", "/_search", &[]), delay(2)).nth(2),
    fault("query-messages gets a page without one shard", "query-messages", opensearch("POST", "/_search", &["range", "sort"]), SHARDS_FAILED).times(2).quick(),
    fault("query-messages gets a page that timed out", "query-messages", opensearch("POST", "/_search", &["range", "sort"]), TIMED_OUT).times(2),
    fault("query-messages gets a page that ended early", "query-messages", opensearch("POST", "/_search", &["range", "sort"]), ENDED_EARLY),
    fault("query-messages gets a count without one shard", "query-messages", opensearch("POST", "/_search", &["track_total_hits\":true"]), SHARDS_FAILED),
    fault("query-messages gets a history that timed out", "query-messages", opensearch("POST", "/_search", &["message_id"]), TIMED_OUT),
    fault("query-messages gets half a page", "query-messages", opensearch("POST", "/_search", &["range", "sort"]), Harm::Tear).times(2).quick(),
    fault("query-messages loses its points in time between two pages", "query-messages", opensearch("POST", "/_search", &["search_after"]), Harm::Forget).quick(),
    fault("query-messages loses its points in time before the first page", "query-messages", opensearch("POST", "/_search", &["sort"]), Harm::Forget),
    fault("query-messages gets failed shards each time, then redriven", "query-messages", opensearch("POST", "/_search", &["range", "sort"]), SHARDS_FAILED).times(ALWAYS).then(Then::Redrive),
    fault("query-messages loses its points in time each time, then redriven", "query-messages", opensearch("POST", "/_search", &["search_after"]), Harm::Forget).times(ALWAYS).then(Then::Redrive),
    fault("query-messages is refused by a busy store", "query-messages", s3("PUT", "/spool/"), Harm::Answer(503)).times(3).quick(),

    fault("classify-alerts killed between the rows", "classify-alerts", dynamodb("BatchExecuteStatement", &["-message-tracking", "Processing"]), KILL_AFTER).quick(),
    fault("classify-alerts killed before its decisions are stored", "classify-alerts", s3("PUT", "/decisions-"), KILL_BEFORE),
    fault("classify-alerts killed when its decisions are stored", "classify-alerts", s3("PUT", "/decisions-"), KILL_AFTER),
    fault("classify-alerts killed when its counts are noted", "classify-alerts", dynamodb("PutItem", &["-windows\"", "reasons"]), KILL_AFTER).nth(2),
    fault("classify-alerts is refused by a busy ledger", "classify-alerts", dynamodb("BatchGetItem", &[]), Harm::Answer(503)).times(3),
    fault("classify-alerts is throttled where it reads rows", "classify-alerts", dynamodb("BatchGetItem", &[]), THROTTLE).times(3).quick(),
    fault("classify-alerts is throttled where it writes rows", "classify-alerts", dynamodb("BatchExecuteStatement", &["-message-tracking"]), THROTTLE).times(9),
    fault("classify-alerts gets half of its rows, the others unprocessed", "classify-alerts", dynamodb("BatchGetItem", &[]), Harm::Half).times(3).quick(),
    fault("classify-alerts reads half of its index", "classify-alerts", s3("GET", "/index-"), Harm::Tear).times(2),
    fault("classify-alerts loses the answer to a row", "classify-alerts", dynamodb("BatchExecuteStatement", &["-message-tracking"]), CUT_AFTER),

    fault("write-partitions killed before its intent is stored", "write-partitions", s3("PUT", "/intent.json"), KILL_BEFORE),
    fault("write-partitions killed before its intent is registered", "write-partitions", s3("PUT", "/intent.json"), KILL_AFTER).quick(),
    fault("write-partitions killed when its intent is registered", "write-partitions", dynamodb("PutItem", &["-windows\"", "Prepared"]), KILL_AFTER),
    fault("write-partitions killed between the per-message objects", "write-partitions", s3("PUT", "/archive/messages/"), KILL_AFTER).nth(4),
    fault("write-partitions killed between JSONL and Parquet", "write-partitions", s3("PUT", "/archive/jsonl/"), KILL_AFTER),
    fault("write-partitions killed before the first Parquet object", "write-partitions", s3("PUT", "/archive/parquet/"), KILL_BEFORE),
    fault("write-partitions killed after the first Parquet object", "write-partitions", s3("PUT", "/archive/parquet/"), KILL_AFTER).quick(),
    fault("write-partitions killed after a quarantine object", "write-partitions", s3("PUT", "/quarantine/"), KILL_AFTER),
    fault("write-partitions killed while rows are completed", "write-partitions", dynamodb("BatchExecuteStatement", &["-message-tracking", "Completed"]), KILL_AFTER).quick(),
    fault("write-partitions killed before its manifest", "write-partitions", s3("PUT", "/archive/_commits/"), KILL_BEFORE).quick(),
    fault("write-partitions killed after its manifest", "write-partitions", s3("PUT", "/archive/_commits/"), KILL_AFTER),
    fault("write-partitions killed when its window is completed", "write-partitions", dynamodb("PutItem", &["-windows\"", "manifest_key"]), KILL_AFTER),
    fault("write-partitions loses the answer to a Parquet object", "write-partitions", s3("PUT", "/archive/parquet/"), CUT_AFTER).quick(),
    fault("write-partitions loses the answer to a row", "write-partitions", dynamodb("BatchExecuteStatement", &["-message-tracking", "Completed"]), CUT_AFTER),
    fault("write-partitions is throttled where it completes rows", "write-partitions", dynamodb("BatchExecuteStatement", &["-message-tracking", "Completed"]), THROTTLE).times(9).quick(),
    fault("write-partitions meets a failed condition at its window", "write-partitions", dynamodb("PutItem", &["-windows\"", "Prepared"]), CONFLICT).times(2),
    fault("write-partitions reads half of its spool", "write-partitions", s3("GET", "/records-"), Harm::Tear).times(2).quick(),
    fault("write-partitions waits for a slow store", "write-partitions", s3("PUT", "/archive/parquet/"), delay(3)).times(2),
    fault("write-partitions gets no answer from a store", "write-partitions", s3("PUT", "/archive/parquet/"), CUT_BEFORE).times(3),
    fault("write-partitions is refused by a busy store", "write-partitions", s3("PUT", "/archive/parquet/"), Harm::Answer(503)).times(3),
    fault("plan-windows killed each time before the plan is stored, then redriven", "plan-windows", s3("PUT", "/windows.jsonl"), KILL_BEFORE).times(ALWAYS).then(Then::Redrive),
    fault("plan-windows killed each time before the plan is stored, then a run over the same range", "plan-windows", s3("PUT", "/windows.jsonl"), KILL_BEFORE).times(ALWAYS).then(Then::SameEdges),
    fault("query-messages killed each time before its checkpoint, then redriven", "query-messages", s3("PUT", "/checkpoint.json"), KILL_BEFORE).times(ALWAYS).then(Then::Redrive).quick(),
    fault("query-messages killed each time before its checkpoint, then failed-only", "query-messages", s3("PUT", "/checkpoint.json"), KILL_BEFORE).times(ALWAYS).then(Then::FailedOnly),
    fault("query-messages killed each time before its checkpoint, then a run over the same range", "query-messages", s3("PUT", "/checkpoint.json"), KILL_BEFORE).times(ALWAYS).then(Then::SameEdges),
    fault("query-messages killed each time before its checkpoint, then runs with other edges", "query-messages", s3("PUT", "/checkpoint.json"), KILL_BEFORE).times(ALWAYS).then(Then::OtherEdges),
    fault("query-messages killed each time before its checkpoint, then the next schedule", "query-messages", s3("PUT", "/checkpoint.json"), KILL_BEFORE).times(ALWAYS).then(Then::Schedule),
    fault("classify-alerts killed each time before its decisions, then redriven", "classify-alerts", s3("PUT", "/decisions-"), KILL_BEFORE).times(ALWAYS).then(Then::Redrive),
    fault("classify-alerts killed each time before its decisions, then failed-only", "classify-alerts", s3("PUT", "/decisions-"), KILL_BEFORE).times(ALWAYS).then(Then::FailedOnly).quick(),
    fault("classify-alerts killed each time before its decisions, then a run over the same range", "classify-alerts", s3("PUT", "/decisions-"), KILL_BEFORE).times(ALWAYS).then(Then::SameEdges),
    fault("classify-alerts killed each time before its decisions, then runs with other edges", "classify-alerts", s3("PUT", "/decisions-"), KILL_BEFORE).times(ALWAYS).then(Then::OtherEdges),
    fault("classify-alerts killed each time before its decisions, then the next schedule", "classify-alerts", s3("PUT", "/decisions-"), KILL_BEFORE).times(ALWAYS).then(Then::Schedule),
    fault("write-partitions killed each time at its Parquet objects, then redriven", "write-partitions", s3("PUT", "/archive/parquet/"), KILL_BEFORE).times(ALWAYS).then(Then::Redrive),
    fault("write-partitions killed each time at its Parquet objects, then failed-only", "write-partitions", s3("PUT", "/archive/parquet/"), KILL_BEFORE).times(ALWAYS).then(Then::FailedOnly),
    fault("write-partitions killed each time at its Parquet objects, then a run over the same range", "write-partitions", s3("PUT", "/archive/parquet/"), KILL_BEFORE).times(ALWAYS).then(Then::SameEdges),
    fault("write-partitions killed each time at its Parquet objects, then runs with other edges", "write-partitions", s3("PUT", "/archive/parquet/"), KILL_BEFORE).times(ALWAYS).then(Then::OtherEdges).quick(),
    fault("write-partitions killed each time at its Parquet objects, then the next schedule", "write-partitions", s3("PUT", "/archive/parquet/"), KILL_BEFORE).times(ALWAYS).then(Then::Schedule),
    fault("write-partitions killed each time at its manifest, then redriven", "write-partitions", s3("PUT", "/archive/_commits/"), KILL_BEFORE).times(ALWAYS).then(Then::Redrive),
    fault("write-partitions killed each time at its manifest, then failed-only", "write-partitions", s3("PUT", "/archive/_commits/"), KILL_BEFORE).times(ALWAYS).then(Then::FailedOnly),
    fault("write-partitions killed each time at its manifest, then a run over the same range", "write-partitions", s3("PUT", "/archive/_commits/"), KILL_BEFORE).times(ALWAYS).then(Then::SameEdges).quick(),
    fault("write-partitions killed each time at its manifest, then runs with other edges", "write-partitions", s3("PUT", "/archive/_commits/"), KILL_BEFORE).times(ALWAYS).then(Then::OtherEdges),
    fault("write-partitions killed each time at its manifest, then the next schedule", "write-partitions", s3("PUT", "/archive/_commits/"), KILL_BEFORE).times(ALWAYS).then(Then::Schedule).quick(),
    fault("write-partitions killed each time when its rows are completed, then redriven", "write-partitions", dynamodb("PutItem", &["-windows\"", "manifest_key"]), KILL_BEFORE).times(ALWAYS).then(Then::Redrive),
    fault("write-partitions killed each time when its rows are completed, then a run over the same range", "write-partitions", dynamodb("PutItem", &["-windows\"", "manifest_key"]), KILL_BEFORE).times(ALWAYS).then(Then::SameEdges).quick(),
    fault("write-partitions killed each time before its intent, then redriven", "write-partitions", s3("PUT", "/intent.json"), KILL_BEFORE).times(ALWAYS).then(Then::Redrive),
    fault("write-partitions killed each time before its intent, then failed-only", "write-partitions", s3("PUT", "/intent.json"), KILL_BEFORE).times(ALWAYS).then(Then::FailedOnly),

    fault("collect-windows killed before its report", "collect-windows", s3("PUT", "/report.json"), KILL_BEFORE).quick(),
    fault("collect-windows killed after its report", "collect-windows", s3("PUT", "/report.json"), KILL_AFTER),
    fault("collect-windows does not hear from Step Functions", "collect-windows", states("DescribeExecution"), CUT_BEFORE).times(2),
    fault("send-summary killed when the mail is claimed", "send-summary", dynamodb("PutItem", &["-job-runs", "\"sent\":{\"BOOL\":false}"]), KILL_AFTER),
    fault("send-summary killed before the mail is sent", "send-summary", ses(&["SendRawEmail"]), KILL_BEFORE),
    fault("send-summary killed when the mail is sent", "send-summary", ses(&["SendRawEmail"]), KILL_AFTER).quick(),
    fault("aggregate-dashboard killed before the list of runs", "aggregate-dashboard", s3("PUT", "/runs.json"), KILL_BEFORE).quick(),
    fault("aggregate-dashboard killed after the list of runs", "aggregate-dashboard", s3("PUT", "/runs.json"), KILL_AFTER),
    fault("collect-windows is throttled", "collect-windows", dynamodb("Query", &["-windows\""]), THROTTLE).times(3),
    fault("collect-windows reads half of the plan", "collect-windows", s3("GET", "/windows.jsonl"), Harm::Tear).times(2),
    fault("send-summary meets a failed condition at its claim", "send-summary", dynamodb("PutItem", &["-job-runs", "\"sent\":{\"BOOL\":false}"]), CONFLICT),
    fault("aggregate-dashboard reads half of the list of runs", "aggregate-dashboard", s3("GET", "/runs.json"), Harm::Tear).times(2),
    fault("gate-run is throttled", "gate-run", dynamodb("PutItem", &["-job-runs"]), THROTTLE).times(3),
    fault("gate-run killed before it closes the run", "gate-run", dynamodb("PutItem", &["-job-runs", "Completed"]), KILL_BEFORE),
    fault("gate-run killed when it has closed the run", "gate-run", dynamodb("PutItem", &["-job-runs", "Completed"]), KILL_AFTER).quick(),
    fault("gate-run killed when it has freed the range", "gate-run", dynamodb("PutItem", &["#lock"]), KILL_AFTER),
    fault("collect-windows killed each time before its report, then redriven", "collect-windows", s3("PUT", "/report.json"), KILL_BEFORE).times(ALWAYS).then(Then::Redrive),
    fault("send-summary killed each time before the mail is sent, then redriven", "send-summary", ses(&["SendRawEmail"]), KILL_BEFORE).times(ALWAYS).then(Then::Redrive),
    fault("aggregate-dashboard killed each time before the list of runs, then redriven", "aggregate-dashboard", s3("PUT", "/runs.json"), KILL_BEFORE).times(ALWAYS).then(Then::Redrive),
    fault("gate-run killed each time before it closes the run, then redriven", "gate-run", dynamodb("PutItem", &["-job-runs", "Completed"]), KILL_BEFORE).times(ALWAYS).then(Then::Redrive),

    fault("plan-windows twice at once, at the lock", "plan-windows", dynamodb("PutItem", &["#lock"]), delay(5)).task_seconds(2),
    fault("plan-windows twice at once, at its plan", "plan-windows", s3("PUT", "/windows.jsonl"), delay(5)).task_seconds(2),
    fault("query-messages twice at once, at a page", "query-messages", opensearch("POST", "/_search", &["search_after"]), delay(5)).task_seconds(2),
    fault("query-messages twice at once, at its spool", "query-messages", s3("PUT", "/records-"), delay(5)).task_seconds(2).quick(),
    fault("query-messages twice at once, at its checkpoint", "query-messages", s3("PUT", "/checkpoint.json"), delay(5)).task_seconds(2),
    fault("classify-alerts twice at once, where it reads rows", "classify-alerts", dynamodb("BatchGetItem", &[]), delay(5)).task_seconds(2),
    fault("classify-alerts twice at once, where it writes rows", "classify-alerts", dynamodb("BatchExecuteStatement", &["-message-tracking"]), delay(5)).task_seconds(2),
    fault("classify-alerts twice at once, at its decisions", "classify-alerts", s3("PUT", "/decisions-"), delay(5)).task_seconds(2),
    fault("classify-alerts twice at once, at its counts", "classify-alerts", dynamodb("PutItem", &["-windows\"", "reasons"]), delay(5)).task_seconds(2),
    fault("write-partitions twice at once, at its intent", "write-partitions", s3("PUT", "/intent.json"), delay(5)).task_seconds(2).quick(),
    fault("write-partitions twice at once, where it registers its intent", "write-partitions", dynamodb("PutItem", &["-windows\"", "Prepared"]), delay(5)).task_seconds(2),
    fault("write-partitions twice at once, at a Parquet object", "write-partitions", s3("PUT", "/archive/parquet/"), delay(5)).task_seconds(2).quick(),
    fault("write-partitions twice at once, at its manifest", "write-partitions", s3("PUT", "/archive/_commits/"), delay(5)).task_seconds(2),
    fault("write-partitions twice at once, where it completes rows", "write-partitions", dynamodb("BatchExecuteStatement", &["-message-tracking", "Completed"]), delay(5)).task_seconds(2),
    fault("collect-windows twice at once, at its report", "collect-windows", s3("PUT", "/report.json"), delay(5)).task_seconds(2),
    fault("send-summary twice at once, at the mail", "send-summary", ses(&["SendRawEmail"]), delay(5)).task_seconds(2),
    fault("aggregate-dashboard twice at once, at the list of runs", "aggregate-dashboard", s3("PUT", "/runs.json"), delay(5)).task_seconds(2),
    fault("gate-run twice at once, where it closes the run", "gate-run", dynamodb("PutItem", &["-job-runs", "Completed"]), delay(5)).task_seconds(2).quick(),
];

/// The same documents in an undisturbed stretch, and what the run said of them.
static UNDISTURBED: OnceCell<(Snapshot, Value)> = OnceCell::const_new();

static SURVIVED: Mutex<BTreeMap<&str, Account>> = Mutex::new(BTreeMap::new());

async fn undisturbed(cloud: &Cloud) -> Result<&'static (Snapshot, Value)> {
    let make = async || -> Result<(Snapshot, Value)> {
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
    let first = match fault.task_seconds {
        None => cloud.run_stretch(&stretch).await?,
        Some(seconds) => {
            let change = |definition: &mut Value| limit_task(definition, fault.function, seconds);
            let first = cloud.with_definition(change, async || cloud.run_stretch(&stretch).await).await?;
            // The attempt whose Task timed out has yet to do its worst.
            if let Harm::Delay(time) = fault.harm {
                tokio::time::sleep(time + Duration::from_secs(1)).await;
            }
            first
        }
    };
    let fired = cloud.proxies.disarm()?.into_iter().sum::<u32>();
    ensure!(fired > 0, "the fault met no request");
    ensure!(fault.times == ALWAYS || fired == fault.times, "the fault struck {fired} times of {}", fault.times);
    let run_id = first.run_id().to_owned();
    let last = match fault.then {
        Then::Retry => first.completed()?,
        _ => {
            ensure!(!first.well, "the run went well in spite of the fault: {:#}\n{}", first.report, first.said);
            heal(cloud, &stretch, fault.then, &run_id).await?
        }
    };
    let account = account(cloud, &stretch, &messages).await?;
    ensure!(account.ok == account.attempted && account.unexpected == 0, "{account:?}");
    ensure!(check(cloud, &stretch, &messages).await? == *summary, "the rows differ from those of the undisturbed twin");
    cloud.verify(&stretch).await?;
    if last.run_id() == run_id {
        for field in ["messages", "windows"] {
            let (left, right) = (&last.report[field], &report[field]);
            ensure!(left == right, "{field}: {left}, undisturbed {right}");
        }
        let reports = last.report["attempt"].as_u64().unwrap_or_default() as usize;
        // An execution that died is told beside the reports, or in the place of one that it could not mail. Its subject
        // says so; the list of the last runs may say it of another.
        let mails = cloud.mails(last.run_id())?.into_iter();
        let (deaths, mails): (Vec<_>, Vec<_>) = mails.partition(|mail| mail.text.contains("Alert archive: Failed "));
        // A crash between sending and recording may cost one duplicate, and the second says so.
        let duplicate = mails.len() == reports + 1
            && fault.function == "send-summary"
            && mails.iter().any(|mail| mail.text.contains("uplicate"));
        let is_told = !mails.is_empty() && (mails.len()..=mails.len() + deaths.len()).contains(&reports);
        let (mails, deaths) = (mails.len(), deaths.len());
        ensure!(is_told || duplicate, "{mails} mails, and {deaths} of deaths, for {reports} reports");
    }
    // Run again, with the same edges and with others, it finds nothing to do.
    for (from, to) in [(stretch.from(), stretch.to()), (middle(&stretch), format!("{}-05-10T12:00:00Z", stretch.year))]
    {
        let again = cloud.run(&from, &to).await?.completed()?;
        ensure!(again.count("source") > 0 && again.count("archived") == 0, "run again: {:#}", again.report);
    }
    ensure!(check(cloud, &stretch, &messages).await? == *summary, "running again made a difference");
    SURVIVED.lock().unwrap_or_else(PoisonError::into_inner).insert(fault.name, account);
    Ok(())
}

/// In the middle of a day that has messages.
fn middle(stretch: &Stretch) -> String {
    format!("{}-02-02T11:30:00Z", stretch.year)
}

/// Gives the Task of a function a `TimeoutSeconds` that it will meet.
fn limit_task(definition: &mut Value, function: &str, seconds: u64) -> Result<()> {
    fn find<'a>(value: &'a mut Value, name: &str) -> Option<&'a mut Value> {
        match value {
            Value::Object(fields) => {
                fields.iter_mut().find_map(|(field, value)| if field == name { Some(value) } else { find(value, name) })
            }
            Value::Array(values) => values.iter_mut().find_map(|value| find(value, name)),
            _ => None,
        }
    }
    let state: String = function.split('-').map(|word| word[..1].to_uppercase() + &word[1..]).collect();
    find(definition, &state).with_context(|| format!("no state {state}"))?["TimeoutSeconds"] = json!(seconds);
    Ok(())
}

/// Does what an operator, or the next schedule, does about a run that failed.
async fn heal(cloud: &Cloud, stretch: &Stretch, then: Then, run_id: &str) -> Result<Outcome> {
    if matches!(then, Then::SameEdges | Then::OtherEdges | Then::Schedule) {
        await_leases(cloud, run_id).await?;
    }
    match then {
        Then::Retry => bail!("the execution heals itself"),
        Then::Redrive => cloud.redrive(run_id).await?.completed(),
        Then::FailedOnly => cloud.run_failed_only(run_id).await?.completed(),
        Then::SameEdges => cloud.run_stretch(stretch).await?.completed(),
        Then::OtherEdges => {
            cloud.run(&middle(stretch), &stretch.to()).await?.completed()?;
            cloud.run(&stretch.from(), &middle(stretch)).await?.completed()
        }
        Then::Schedule => {
            cloud.set_watermark(Some(&format!("{}T00:00:00.000Z", stretch.from()))).await?;
            let name = cloud.name("scheduled", stretch);
            // The settle margin of an hour ends the range at the end of the year.
            let ended = cloud
                .execute(&name, &json!({"mode": "scheduled", "scheduled_for": format!("{}T01:00:00Z", stretch.to())}))
                .await?;
            cloud.set_watermark(None).await?;
            ensure!(ended.status == "SUCCEEDED", "{ended:?}");
            cloud.archive(&["status", &name, "--json"]).await?.completed()
        }
    }
}

/// Another run takes messages over from a dead one that has no intent once its leases are over. The workflow waits for
/// that, but the waits of the tests' cloud are too short; `together.rs` sees what comes before the end.
async fn await_leases(cloud: &Cloud, run_id: &str) -> Result<()> {
    let windows = cloud.window_rows(run_id).await?;
    let without_intent = windows.iter().filter(|window| window["status"] != "Prepared");
    let until = without_intent.filter_map(|window| window["lease_until"].as_str()).map(instant).max();
    if let Some(left) = until.and_then(|until| Duration::try_from(until.duration_since(Timestamp::now())).ok()) {
        tokio::time::sleep(left).await;
    }
    Ok(())
}

/// `tests/README.md` lists the faults, once all of them were survived.
pub fn write_table() {
    let survived = SURVIVED.lock().unwrap_or_else(PoisonError::into_inner);
    let mut rows = String::new();
    let mut sum = Account::default();
    for fault in FAULTS {
        let Some(account) = survived.get(fault.name) else { return };
        let Account { attempted, ok, lost, duplicated, unexpected } = account;
        let (name, what, then) = (fault.name.replace(' ', "_"), fault.what(), fault.then.describe());
        let _ = writeln!(
            rows,
            "| {} | {what} | {then} | {attempted} | {ok} | {lost} | {duplicated} | {unexpected} | `{name}` |",
            fault.function
        );
        sum += *account;
    }
    let Account { attempted, ok, lost, duplicated, unexpected } = sum;
    let _ = writeln!(
        rows,
        "| all | {} faults | | {attempted} | {ok} | {lost} | {duplicated} | {unexpected} | |",
        FAULTS.len()
    );
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let no_table = || io::Error::other("it has no table of faults");
    let written = fs::read_to_string(path)
        .and_then(|readme| with_rows(&readme, &rows).ok_or_else(no_table))
        .and_then(|readme| fs::write(path, readme));
    if let Err(error) = written {
        eprintln!("tests/README.md cannot be written: {error}");
    }
}
