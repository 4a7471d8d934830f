//! Windows and plans that fail for a real reason, and what a person does about them.

use crate::tests;
use anyhow::{Result, ensure};
use fixtures::Disposition;
use hyper::Method;
use pipeline_tests::{
    Cloud, Message, PATIENCE, Stretch, account, check, check_archive,
    documents::mixture,
    faults::{ALWAYS, KILL_BEFORE, delay, fault, s3},
    runs::Ended,
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

tests![
    a_failed_window_leaves_the_others_archived_and_redrives_repair_it_alone,
    failed_only_repairs_the_failed_window_in_a_new_execution_of_the_same_run,
    a_range_whose_dates_are_reversed_is_invalid_input,
    an_execution_under_the_name_of_an_earlier_run_is_refused_and_leaves_that_run_alone,
    a_source_that_is_down_is_named_and_nothing_is_lost,
    an_index_that_does_not_exist_is_named_and_nothing_is_lost,
    a_bucket_that_does_not_exist_is_named_and_nothing_is_lost,
    a_run_that_dies_in_its_plan_is_marked_failed_and_its_range_is_free,
    a_plan_that_died_leaves_no_window_to_the_one_that_its_redrive_makes,
    a_run_that_died_over_the_range_keeps_no_redrive_from_it,
    an_aborted_run_is_marked_failed_and_its_redrive_works_beside_its_own_children,
    what_a_killed_attempt_left_open_in_the_source_is_closed_by_the_next,
];

/// Messages whose second window is the tenth of May.
fn two_windows(stretch: &Stretch) -> (Vec<Message>, Vec<Message>) {
    let messages = mixture(stretch, 40);
    let february = messages.iter().filter(|message| message.date() < format!("{}-03", stretch.year)).cloned().collect();
    (messages, february)
}

fn of_may(windows: &[Value]) -> (Value, Value) {
    let is_may = |window: &&Value| window["window_id"].as_str().is_some_and(|id| id[4..].starts_with("0510"));
    let find = |may: bool| windows.iter().find(|window| is_may(window) == may).cloned().unwrap_or_default();
    (find(true), find(false))
}

async fn a_failed_window_leaves_the_others_archived_and_redrives_repair_it_alone(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    let (messages, february) = two_windows(&stretch);
    cloud.load(&messages).await?;
    let broken = async || -> Result<String> {
        let first = cloud.run_stretch(&stretch).await?.failed(1, &["StoreDenied"])?;
        let run_id = first.run_id().to_owned();
        for attempt in 1..=3 {
            // Two redrives in a row change nothing as long as the cause stays, but each is counted and told.
            let outcome =
                if attempt == 1 { first.clone() } else { cloud.redrive(&run_id).await?.failed(1, &["StoreDenied"])? };
            ensure!(
                outcome.run_id() == run_id && outcome.report["attempt"] == attempt,
                "attempt {attempt}: {:#}",
                outcome.report
            );
            check_archive(cloud, &stretch, &february).await?;
            let mails = cloud.mails(&run_id)?;
            ensure!(
                mails.len() == attempt && mails.iter().all(|mail| mail.text.contains("StoreDenied")),
                "attempt {attempt}: {} mails",
                mails.len()
            );
            let run = cloud.job_run(&run_id).await?;
            ensure!(run["status"] == "Failed" && run["attempt"] == attempt, "{run}");
        }
        Ok(run_id)
    };
    let run_id = cloud.while_denied(&format!("archive/parquet/date={}-05-10/", stretch.year), broken).await?;
    let (_, others) = of_may(&cloud.window_rows(&run_id).await?);
    let repaired = cloud.redrive(&run_id).await?.completed()?;
    ensure!(
        repaired.report["attempt"] == 4
            && repaired.report["windows"] == json!({"planned": 2, "succeeded": 2, "failed": 0}),
        "{:#}",
        repaired.report
    );
    let (may, others_after) = of_may(&cloud.window_rows(&run_id).await?);
    ensure!(
        others == others_after && others["attempt"] == 1,
        "a window that was committed was touched: {others} became {others_after}"
    );
    ensure!(may["status"] == "Completed" && may["error"].is_null(), "{may}");
    ensure!(cloud.mails(&run_id)?.len() == 4, "{} mails", cloud.mails(&run_id)?.len());
    ensure!(cloud.job_run(&run_id).await?["status"] == "Completed");
    check(cloud, &stretch, &messages).await?;
    Ok(())
}

async fn failed_only_repairs_the_failed_window_in_a_new_execution_of_the_same_run(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    let (messages, _) = two_windows(&stretch);
    cloud.load(&messages).await?;
    let broken = async || cloud.run_stretch(&stretch).await?.failed(1, &["StoreDenied"]);
    let failed = cloud.while_denied(&format!("archive/parquet/date={}-05-10/", stretch.year), broken).await?;
    let before = cloud.job_run(failed.run_id()).await?;
    let (_, others) = of_may(&cloud.window_rows(failed.run_id()).await?);
    let repaired = cloud.run_failed_only(failed.run_id()).await?.completed()?;
    ensure!(repaired.run_id() == failed.run_id() && repaired.report["attempt"] == 2, "{:#}", repaired.report);
    let after = cloud.job_run(failed.run_id()).await?;
    ensure!(after["execution_arn"] != before["execution_arn"] && after["status"] == "Completed", "{after}");
    ensure!(of_may(&cloud.window_rows(failed.run_id()).await?).1 == others, "a window that was committed was touched");
    ensure!(cloud.mails(failed.run_id())?.len() == 2, "{} mails", cloud.mails(failed.run_id())?.len());
    check(cloud, &stretch, &messages).await?;
    Ok(())
}

async fn a_range_whose_dates_are_reversed_is_invalid_input(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    let said = cloud.run(&stretch.to(), &stretch.from()).await?;
    ensure!(!said.well && said.said.contains("is not before"), "{said:?}");
    let ended = cloud
        .execute(
            &cloud.name("reversed", &stretch),
            &json!({"mode": "range", "from": stretch.to(), "to": stretch.from()}),
        )
        .await?;
    ensure!(ended.status == "FAILED" && ended.error == "InvalidInput", "{ended:?}");
    Ok(())
}

async fn an_execution_under_the_name_of_an_earlier_run_is_refused_and_leaves_that_run_alone(
    cloud: &Cloud,
) -> Result<()> {
    let stretch = cloud.stretch();
    let (messages, _) = two_windows(&stretch);
    cloud.load(&messages).await?;
    // Names are free again after 90 days; what the run of the name left is still there.
    let name = cloud.name("again", &stretch);
    let first = cloud.run(&format!("{}-02-01", stretch.year), &format!("{}-02-04", stretch.year)).await?.completed()?;
    let mut row = cloud.job_run(first.run_id()).await?;
    (row["run_id"], row["created_at"]) = (json!(name), json!("2020-01-01T00:00:00.000Z"));
    cloud.put_job_run(&row).await?;
    let plan = cloud.get(&format!("runs/{}/windows.jsonl", first.run_id())).await?;
    cloud
        .s3
        .put_object()
        .bucket(&cloud.bucket)
        .key(format!("runs/{name}/windows.jsonl"))
        .body(plan.into())
        .send()
        .await?;
    let ended = cloud.execute(&name, &json!({"mode": "range", "from": stretch.from(), "to": stretch.to()})).await?;
    ensure!(ended.status == "FAILED" && ended.error == "ExecutionExists", "{ended:?}");
    ensure!(cloud.job_run(&name).await? == row, "{}", cloud.job_run(&name).await?);
    cloud.run_stretch(&stretch).await?.completed()?;
    check(cloud, &stretch, &messages).await?;
    Ok(())
}

/// A run that fails in its plan while `function` has a wrong setting; the next one must archive everything.
async fn plan_fails(cloud: &Cloud, variable: &str, value: &str, expected: &[&str]) -> Result<()> {
    let stretch = cloud.stretch();
    let messages: Vec<Message> = mixture(&stretch, 12);
    cloud.load(&messages).await?;
    let name = cloud.name("plan-fails", &stretch);
    let input = json!({"mode": "range", "from": stretch.from(), "to": stretch.to()});
    let ended: Ended =
        cloud.with_setting("plan-windows", variable, value, async || cloud.execute(&name, &input).await).await?;
    ensure!(ended.status == "FAILED" && expected.contains(&ended.error.as_str()), "{ended:?}");
    ensure!(!ended.cause.is_empty(), "the error has no cause");
    let run = cloud.job_run(&name).await?;
    // Without its bucket a run does not come as far as to its row.
    let unnoted = variable == "ALERT_ARCHIVE_BUCKET" && run.is_null();
    ensure!(unnoted || (run["status"] == "Failed" && run["error"] == ended.error), "{run}");
    ensure!(cloud.rows(&messages).await?.is_empty() && cloud.archived(&stretch).await?.is_empty());
    let outcome = cloud.run_stretch(&stretch).await?.completed()?;
    let closed = messages.iter().filter(|message| message.disposition == Disposition::Closed).count() as u64;
    ensure!(outcome.count("archived") == closed, "{:#}", outcome.report);
    check(cloud, &stretch, &messages).await?;
    Ok(())
}

async fn a_source_that_is_down_is_named_and_nothing_is_lost(cloud: &Cloud) -> Result<()> {
    plan_fails(cloud, "OPENSEARCH_URL", "http://127.0.0.1:9", &["SourceUnavailable"]).await
}

async fn an_index_that_does_not_exist_is_named_and_nothing_is_lost(cloud: &Cloud) -> Result<()> {
    plan_fails(cloud, "ALERT_ARCHIVE_MESSAGES_INDEX", "nowhere", &["SourceIndexMissing"]).await
}

async fn a_bucket_that_does_not_exist_is_named_and_nothing_is_lost(cloud: &Cloud) -> Result<()> {
    // A role that may not see the bucket cannot tell whether it is missing.
    plan_fails(cloud, "ALERT_ARCHIVE_BUCKET", "alert-archive-nowhere", &["BucketMissing", "StoreDenied"]).await
}

async fn a_run_that_dies_in_its_plan_is_marked_failed_and_its_range_is_free(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    let messages = mixture(&stretch, 12);
    cloud.load(&messages).await?;
    let name = cloud.name("dies", &stretch);
    cloud.proxies.arm(fault("", "plan-windows", s3("PUT", "/windows.jsonl"), KILL_BEFORE).times(ALWAYS));
    let ended = cloud.execute(&name, &json!({"mode": "range", "from": stretch.from(), "to": stretch.to()})).await?;
    ensure!(cloud.proxies.disarm()?[0] > 1 && ended.status == "FAILED", "{ended:?}");
    // Nothing inside of the execution could note it: the rule on dead executions does.
    let began = Instant::now();
    while cloud.job_run(&name).await?["status"] != "Failed" {
        ensure!(began.elapsed() < PATIENCE, "the dead run was not marked: {}", cloud.job_run(&name).await?);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    cloud.run_stretch(&stretch).await?.completed()?;
    check(cloud, &stretch, &messages).await?;
    Ok(())
}

async fn a_plan_that_died_leaves_no_window_to_the_one_that_its_redrive_makes(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    let (messages, february) = two_windows(&stretch);
    cloud.load(&messages).await?;
    let name = cloud.name("plans-twice", &stretch);
    cloud.proxies.arm(fault("", "plan-windows", s3("PUT", "/windows.jsonl"), KILL_BEFORE).times(ALWAYS));
    let ended = cloud.execute(&name, &json!({"mode": "range", "from": stretch.from(), "to": stretch.to()})).await?;
    ensure!(cloud.proxies.disarm()?[0] > 1 && ended.status == "FAILED", "{ended:?}");
    // The second plan is another: the tenth of May is empty by then.
    for gone in messages.iter().filter(|message| !february.iter().any(|kept| kept.id == message.id)) {
        let url = format!("{}/{}/_doc/{}?refresh=true", cloud.opensearch_url, gone.index, gone.id);
        ensure!(cloud.http.send(Method::DELETE, &url, "").await?.0.is_success(), "the document cannot be deleted");
    }
    let redriven = cloud.redrive(&name).await?.completed()?;
    ensure!(redriven.report["windows"]["planned"] == 1, "{:#}", redriven.report);
    let rows = cloud.window_rows(&name).await?;
    ensure!(rows.len() == 1, "one window is planned, rows are there for {rows:?}");
    cloud.run_failed_only(&name).await?.completed()?;
    let kept = cloud.keys(&format!("runs/{name}/")).await?;
    ensure!(
        kept.contains_key(&format!("runs/{name}/windows.jsonl")) && !kept.keys().any(|key| key.contains("attempt-2")),
        "nothing failed, and yet this ran again: {kept:?}"
    );
    check(cloud, &stretch, &february).await?;
    Ok(())
}

async fn a_run_that_died_over_the_range_keeps_no_redrive_from_it(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    let (messages, _) = two_windows(&stretch);
    cloud.load(&messages).await?;
    let broken = async || cloud.run_stretch(&stretch).await?.failed(1, &["StoreDenied"]);
    let failed = cloud.while_denied(&format!("archive/parquet/date={}-05-10/", stretch.year), broken).await?;
    // It dies with the range's lock in its hand.
    let name = cloud.name("dies-over", &stretch);
    cloud.proxies.arm(fault("", "plan-windows", s3("PUT", "/windows.jsonl"), KILL_BEFORE).times(ALWAYS));
    let ended = cloud.execute(&name, &json!({"mode": "range", "from": stretch.from(), "to": stretch.to()})).await?;
    ensure!(cloud.proxies.disarm()?[0] > 1 && ended.status == "FAILED", "{ended:?}");
    ensure!(cloud.job_run("#lock").await?["held"].to_string().contains(&name), "the dead run holds no lock");
    cloud.redrive(failed.run_id()).await?.completed()?;
    check(cloud, &stretch, &messages).await?;
    Ok(())
}

/// The emulator does not stop the children of an aborted Map, so that the redrive meets them at work.
async fn an_aborted_run_is_marked_failed_and_its_redrive_works_beside_its_own_children(cloud: &Cloud) -> Result<()> {
    for (function, key) in
        [("query-messages", "/records-"), ("classify-alerts", "/decisions-"), ("write-partitions", "/archive/parquet/")]
    {
        let stretch = cloud.stretch();
        let messages = mixture(&stretch, 24);
        cloud.load(&messages).await?;
        cloud.proxies.arm(fault("", function, s3("PUT", key), delay(4)).times(2));
        let name = cloud.name("aborted", &stretch);
        cloud.start(&name, &json!({"mode": "range", "from": stretch.from(), "to": stretch.to()})).await?;
        let began = Instant::now();
        while cloud.proxies.fired() == [0] {
            ensure!(began.elapsed() < PATIENCE, "the run does not get as far as {key}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        cloud.abort(&name).await?;
        while cloud.job_run(&name).await?["status"] != "Failed" {
            ensure!(began.elapsed() < PATIENCE, "the run is not marked: {}", cloud.job_run(&name).await?);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        ensure!(cloud.job_run(&name).await?["error"] == "ExecutionDied", "{}", cloud.job_run(&name).await?);
        cloud.redrive(&name).await?.completed()?;
        // The children of the first execution have yet to do their worst.
        tokio::time::sleep(Duration::from_secs(5)).await;
        cloud.proxies.disarm()?;
        let account = account(cloud, &stretch, &messages).await?;
        ensure!(account.ok == messages.len() && account.unexpected == 0, "{account:?}");
        check(cloud, &stretch, &messages).await?;
        cloud.verify(&stretch).await?;
        let run = cloud.job_run(&name).await?;
        ensure!(run["status"] == "Completed" && run["error"].is_null() && run["message"].is_null(), "{run}");
    }
    Ok(())
}

/// A node holds 300 of them, and then refuses every other.
async fn points_in_time(cloud: &Cloud) -> Result<usize> {
    let (_, body) =
        cloud.http.send(Method::GET, &format!("{}/_search/point_in_time/_all", cloud.opensearch_url), "").await?;
    let answer: Value = serde_json::from_slice(&body)?;
    Ok(answer["pits"].as_array().map_or(0, Vec::len))
}

async fn what_a_killed_attempt_left_open_in_the_source_is_closed_by_the_next(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    let messages = mixture(&stretch, 12);
    cloud.load(&messages).await?;
    let before = points_in_time(cloud).await?;
    cloud.proxies.arm(fault("", "query-messages", s3("PUT", "/checkpoint.json"), KILL_BEFORE).times(3));
    cloud.run_stretch(&stretch).await?.completed()?;
    ensure!(cloud.proxies.disarm()? == [3]);
    let after = points_in_time(cloud).await?;
    ensure!(after <= before, "{before} points in time were open before, {after} are after");
    check(cloud, &stretch, &messages).await?;
    Ok(())
}
