//! What an operator sets aside so that a run can end, and how every report tells of it until an operator resolves it.

use crate::tests;
use anyhow::{Context, Result, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use fixtures::{Disposition, load::Kind};
use hyper::Method;
use pipeline_tests::{
    Cloud, Message, Outcome, PATIENCE, Stretch, check, check_archive,
    documents::mixture,
    faults::{ALWAYS, KILL_BEFORE, delay, fault, opensearch, s3},
    proxy::Harm,
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

tests![
    a_skipped_window_ends_its_run_and_every_report_names_it_until_another_run_has_archived_it,
    a_skipped_window_that_is_wanted_again_is_archived_by_its_own_run,
    a_document_that_cannot_be_written_is_ordered_out_of_its_window_and_comes_back_when_it_is_released,
    a_document_that_kills_the_query_is_ordered_into_quarantine_unread,
    an_order_that_nothing_came_of_is_taken_back,
    an_order_that_comes_when_the_object_is_written_changes_nothing,
    a_write_that_an_order_overtakes_comes_to_nothing,
    a_message_leaves_quarantine_when_its_rule_has_changed_and_not_before,
    an_archived_message_that_became_unreadable_is_in_the_archive_once_when_it_can_be_read_again,
    restore_keeps_to_its_rate,
    an_execution_that_was_refused_is_listed_with_its_error,
    a_schedule_of_the_future_is_refused,
    a_watermark_that_was_moved_by_hand_is_told_until_a_run_has_covered_what_lies_between,
];

/// A scheduled run of the whole stretch, and the times around it.
fn scheduled(stretch: &Stretch, hour: u8) -> Value {
    // The settle margin of an hour: at one o'clock the range ends with the year.
    json!({"mode": "scheduled", "scheduled_for": format!("{}T{hour:02}:00:00Z", stretch.to())})
}

/// The next scheduled run begins where the stretch does. What other tests left behind it is dealt with before: a
/// scheduled run also looks for late documents and for those that were held over.
async fn begin_at(cloud: &Cloud, stretch: &Stretch) -> Result<()> {
    cloud.set_watermark(Some(&format!("{}-12-31T23:00:00.000Z", stretch.year - 1))).await?;
    // A scheduled time of its own: the stretch before ends with this hour, and each time has one run.
    let until = json!({"mode": "scheduled", "scheduled_for": format!("{}T00:30:00Z", stretch.from())});
    let ended = cloud.execute(&cloud.name("catches-up", stretch), &until).await?;
    ensure!(ended.status == "SUCCEEDED", "{ended:?}");
    cloud.set_watermark(Some(&format!("{}T00:00:00.000Z", stretch.from()))).await
}

async fn watermark_is(cloud: &Cloud, at: &str) -> Result<()> {
    let watermark = cloud.job_run("#watermark").await?;
    ensure!(watermark["at"] == format!("{at}.000Z"), "{watermark}, expected {at}");
    Ok(())
}

/// The window of the tenth of May.
fn may(stretch: &Stretch) -> String {
    format!("{0}0510T000000.000Z--{0}0511T000000.000Z", stretch.year)
}

/// What the report names of this run's windows, or of these documents.
fn named<'a>(report: &'a Value, field: &str, value: &str) -> Vec<&'a Value> {
    report["unresolved"].as_array().into_iter().flatten().filter(|item| item[field] == value).collect()
}

/// Runs over an hour that holds nothing and returns its report.
async fn next_report(cloud: &Cloud, stretch: &Stretch) -> Result<Value> {
    Ok(cloud
        .run(&format!("{}-12-31", stretch.year), &format!("{}-12-31T01:00:00Z", stretch.year))
        .await?
        .completed()?
        .report)
}

fn refused(outcome: &Outcome, because: &str) -> Result<()> {
    ensure!(!outcome.well && outcome.said.contains(because), "expected to be refused because `{because}`: {outcome:?}");
    Ok(())
}

async fn a_skipped_window_ends_its_run_and_every_report_names_it_until_another_run_has_archived_it(
    cloud: &Cloud,
) -> Result<()> {
    let stretch = cloud.stretch();
    let messages = mixture(&stretch, 40);
    cloud.load(&messages).await?;
    begin_at(cloud, &stretch).await?;
    let (run_id, window) = (cloud.name("skips", &stretch), may(&stretch));
    let reason = format!("the shard of {} is lost", stretch.prefix);
    let broken = async || -> Result<Outcome> {
        let ended = cloud.execute(&run_id, &scheduled(&stretch, 1)).await?;
        ensure!(ended.status == "FAILED" && ended.error == "WindowsFailed", "{ended:?}");
        watermark_is(cloud, &format!("{}-05-10T00:00:00", stretch.year)).await?;
        let done = cloud
            .window_rows(&run_id)
            .await?
            .into_iter()
            .find(|row| row["window_id"] != window.as_str())
            .context("two windows")?;
        refused(
            &cloud.archive(&["skip", &run_id, done["window_id"].as_str().unwrap_or_default(), "--reason", "x"]).await?,
            "it is done",
        )?;
        refused(&cloud.archive(&["skip", &run_id, "nowhere", "--reason", "x"]).await?, "has no window nowhere")?;
        refused(&cloud.archive(&["skip", &run_id, &window, "--undo"]).await?, "it is not skipped")?;
        let skipped = cloud.archive(&["skip", &run_id, &window, "--reason", &reason]).await?;
        ensure!(skipped.well, "{skipped:?}");
        refused(&cloud.archive(&["skip", &run_id, &window, "--reason", "x"]).await?, "it is skipped already")?;
        cloud.redrive(&run_id).await
    };
    let outcome = cloud.while_denied(&format!("spool/{run_id}/{window}/"), broken).await?;
    let report = &outcome.report;
    ensure!(
        report["status"] == "Completed" && report["reconciled"] == false && !outcome.well,
        "{report:#}\n{}",
        outcome.said
    );
    ensure!(report["windows"] == json!({"planned": 2, "succeeded": 1, "failed": 0}), "{report:#}");
    ensure!(
        report["failures"][0]["error"] == "WindowSkipped" && report["failures"][0]["message"] == reason,
        "{report:#}"
    );
    ensure!(named(report, "window_id", &window).len() == 1, "{report:#}");
    ensure!(
        cloud
            .mails(&run_id)?
            .last()
            .is_some_and(|mail| mail.text.contains("Set aside by operators") && mail.text.contains(&reason))
    );
    watermark_is(cloud, &format!("{}T00:00:00", stretch.to())).await?;
    // The next scheduled run begins behind the window, and names it all the same.
    let next = cloud.name("next", &stretch);
    let ended = cloud.execute(&next, &scheduled(&stretch, 2)).await?;
    ensure!(ended.status == "SUCCEEDED", "{ended:?}");
    watermark_is(cloud, &format!("{}T01:00:00", stretch.to())).await?;
    let report = cloud.report(&next).await?;
    let items = named(&report, "window_id", &window);
    ensure!(
        items.len() == 1
            && items[0]["run_id"] == run_id
            && items[0]["reason"] == reason
            && items[0]["since"].is_string(),
        "{report:#}"
    );
    ensure!(items[0]["kind"] == "skipped_window" && report["reconciled"] == true, "{report:#}");
    ensure!(cloud.mails(&next)?.iter().any(|mail| mail.text.contains(&reason)), "the mail is silent");
    let latest: Value = serde_json::from_slice(&cloud.get("dashboard/data/latest.json").await?)?;
    ensure!(latest["set_aside"].to_string().contains(&reason), "{latest:#}");
    let status = cloud.archive(&["status"]).await?;
    ensure!(status.well && String::from_utf8_lossy(&status.printed).contains(&reason), "{status:?}");
    // Half of it is archived: the rest is still missing.
    let noon = format!("{}-05-10T12:00:00Z", stretch.year);
    let half = cloud.run(&format!("{}-05-10", stretch.year), &noon).await?.completed()?.report;
    let left = json!([{"from": format!("{}-05-10T12:00:00.000Z", stretch.year), "to": format!("{}-05-11T00:00:00.000Z", stretch.year)}]);
    ensure!(named(&half, "window_id", &window).first().is_some_and(|item| item["left"] == left), "{half:#}");
    let rest = cloud.run(&noon, &stretch.to()).await?.completed()?.report;
    ensure!(named(&rest, "window_id", &window).is_empty(), "{rest:#}");
    ensure!(named(&next_report(cloud, &stretch).await?, "window_id", &window).is_empty());
    check(cloud, &stretch, &messages).await?;
    cloud.set_watermark(None).await
}

async fn a_skipped_window_that_is_wanted_again_is_archived_by_its_own_run(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    let messages = mixture(&stretch, 40);
    cloud.load(&messages).await?;
    begin_at(cloud, &stretch).await?;
    let (run_id, window) = (cloud.name("wanted", &stretch), may(&stretch));
    let broken = async || -> Result<Outcome> {
        let ended = cloud.execute(&run_id, &scheduled(&stretch, 1)).await?;
        ensure!(ended.error == "WindowsFailed", "{ended:?}");
        ensure!(cloud.archive(&["skip", &run_id, &window, "--reason", "not now"]).await?.well);
        cloud.run_failed_only(&run_id).await
    };
    let outcome = cloud.while_denied(&format!("spool/{run_id}/{window}/"), broken).await?;
    ensure!(outcome.report["status"] == "Completed" && outcome.report["windows"]["failed"] == 0, "{outcome:?}");
    ensure!(cloud.job_run(&run_id).await?["status"] == "Completed");
    watermark_is(cloud, &format!("{}T00:00:00", stretch.to())).await?;
    ensure!(named(&next_report(cloud, &stretch).await?, "window_id", &window).len() == 1);
    let undone = cloud.archive(&["skip", &run_id, &window, "--undo"]).await?;
    ensure!(undone.well, "{undone:?}");
    ensure!(named(&next_report(cloud, &stretch).await?, "window_id", &window).is_empty());
    let repaired = cloud.run_failed_only(&run_id).await?.completed()?;
    ensure!(
        repaired.report["windows"]["succeeded"] == 2 && repaired.report["unresolved"] == json!([]),
        "{:#}",
        repaired.report
    );
    check(cloud, &stretch, &messages).await?;
    cloud.set_watermark(None).await
}

/// The messages but for one of them.
fn others(messages: &[Message], poison: &Message) -> Vec<Message> {
    messages.iter().filter(|message| (&message.id, &message.index) != (&poison.id, &poison.index)).cloned().collect()
}

/// It stands in quarantine whole, excluded for this reason.
async fn is_quarantined(cloud: &Cloud, stretch: &Stretch, poison: &Message, words: &str) -> Result<()> {
    let lines = cloud.quarantined(stretch).await?;
    let line = lines
        .iter()
        .find(|line| line.id == poison.id && line.source_index == poison.index)
        .context("it is not in quarantine")?;
    ensure!(line.reason == "by_operator" && BASE64_STANDARD.decode(&line.source_base64)? == poison.source, "{line:?}");
    let row = cloud.rows(std::slice::from_ref(poison)).await?.into_values().next().context("a row")?;
    ensure!(
        row["status"] == "Completed"
            && row["disposition"] == "quarantined"
            && row["reason"] == "by_operator"
            && row["claim"].is_null(),
        "{row}"
    );
    let item = listed(cloud, poison).await?;
    ensure!(item["reason"] == "by_operator" && item["note"] == words && item["object"].is_string(), "{item}");
    Ok(())
}

/// What `alert-archive quarantine` says of a message; null when it does not name it.
async fn listed(cloud: &Cloud, message: &Message) -> Result<Value> {
    let listed = cloud.archive(&["quarantine", "--json"]).await?;
    ensure!(listed.well, "{listed:?}");
    let mut items = listed.report.as_array().into_iter().flatten();
    let own = items.find(|item| item["id"] == message.id.as_str() && item["source_index"] == message.index.as_str());
    Ok(own.cloned().unwrap_or_default())
}

async fn a_document_that_cannot_be_written_is_ordered_out_of_its_window_and_comes_back_when_it_is_released(
    cloud: &Cloud,
) -> Result<()> {
    let stretch = cloud.stretch();
    let mut messages = mixture(&stretch, 40);
    let poison = messages[33].clone();
    ensure!(
        poison.disposition == Disposition::Closed
            && poison.date() == format!("{}-05-10", stretch.year)
            && !poison.history.is_empty()
    );
    // The same id in another index is another document, and innocent.
    messages.push(Message { index: "messages-b".into(), ..poison.clone() });
    ensure!(poison.index == "messages-a");
    cloud.load(&messages).await?;
    begin_at(cloud, &stretch).await?;
    let (run_id, window, id) = (cloud.name("poison", &stretch), may(&stretch), poison.id.as_str());
    let words = format!("nobody may write {}, ticket 4712", stretch.prefix);
    let broken = async || -> Result<Outcome> {
        let ended = cloud.execute(&run_id, &scheduled(&stretch, 1)).await?;
        ensure!(ended.error == "WindowsFailed", "{ended:?}");
        cloud.redrive(&run_id).await?.failed(1, &["StoreDenied"])?;
        watermark_is(cloud, &format!("{}-05-10T00:00:00", stretch.year)).await?;
        // Its intent is registered, so that it can be finished without the document, but not skipped.
        refused(&cloud.archive(&["skip", &run_id, &window, "--reason", "x"]).await?, "its intent is registered")?;
        let add =
            async |more: &[&str]| cloud.archive(&[&["quarantine", "add", id, "--reason", &words], more].concat()).await;
        refused(&add(&[]).await?, "stands in several indices")?;
        refused(&add(&["--index", "messages-c"]).await?, "does not stand in messages-c")?;
        refused(
            &cloud.archive(&["quarantine", "add", &messages[0].id, "--reason", "x"]).await?,
            "it is where it belongs",
        )?;
        refused(&cloud.archive(&["quarantine", "add", "nobody", "--reason", "x"]).await?, "holds no message nobody")?;
        let excluded = add(&["--index", &poison.index, "--json"]).await?;
        ensure!(excluded.well && excluded.report["kind"] == "quarantined_by_operator", "{excluded:?}");
        ensure!(listed(cloud, &poison).await?["note"] == words.as_str(), "an exclusion that waits is not listed");
        refused(&cloud.archive(&["quarantine", "release", id]).await?, "run it again first")?;
        cloud.redrive(&run_id).await?.completed()
    };
    let key = format!("archive/messages/date={}/{}/{id}.json", poison.date(), poison.index);
    let outcome = cloud.while_denied(&key, broken).await?;
    let of = |disposition| {
        others(&messages, &poison).iter().filter(|message| message.disposition == disposition).count() as u64
    };
    ensure!(outcome.count("source") == messages.len() as u64, "{:#}", outcome.report);
    ensure!(outcome.count("archived") == of(Disposition::Closed), "{:#}", outcome.report);
    ensure!(outcome.count("quarantined") == of(Disposition::Quarantined) + 1, "{:#}", outcome.report);
    ensure!(named(&outcome.report, "id", id).len() == 1, "{:#}", outcome.report);
    ensure!(
        cloud
            .mails(&run_id)?
            .last()
            .is_some_and(|mail| mail.text.contains("by operator") && mail.text.contains(&words))
    );
    watermark_is(cloud, &format!("{}T00:00:00", stretch.to())).await?;
    check_archive(cloud, &stretch, &others(&messages, &poison)).await?;
    is_quarantined(cloud, &stretch, &poison, &words).await?;
    // The same range again leaves it there, and the next scheduled report names it.
    let again = cloud.run_stretch(&stretch).await?.completed()?;
    ensure!(
        again.count("archived") == 0 && again.count("quarantined") == outcome.count("quarantined"),
        "{:#}",
        again.report
    );
    is_quarantined(cloud, &stretch, &poison, &words).await?;
    let next = cloud.name("next", &stretch);
    ensure!(cloud.execute(&next, &scheduled(&stretch, 2)).await?.status == "SUCCEEDED");
    let report = cloud.report(&next).await?;
    let items = named(&report, "id", id);
    ensure!(
        items.len() == 1 && items[0]["source_index"] == poison.index.as_str() && items[0]["reason"] == words.as_str(),
        "{report:#}"
    );
    ensure!(cloud.mails(&next)?.iter().any(|mail| mail.text.contains(&words)), "the mail is silent");
    let released = cloud.archive(&["quarantine", "release", id, "--json"]).await?;
    ensure!(released.well && released.report["unresolved"] == json!([]), "{released:?}");
    check_archive(cloud, &stretch, &messages).await?;
    let objects = cloud.message_objects(&stretch).await?;
    ensure!(
        objects.get(&key).is_some_and(|object| object.windows(poison.source.len()).any(|part| part == poison.source)),
        "{key} is missing"
    );
    ensure!(listed(cloud, &poison).await?.is_null(), "it is still listed");
    ensure!(named(&next_report(cloud, &stretch).await?, "id", id).is_empty());
    let (from, to) = (stretch.from(), stretch.to());
    let verified = cloud.archive(&["verify", "--from", &from, "--to", &to, "--deep", "--json"]).await?;
    ensure!(verified.well, "{:#}", verified.report);
    cloud.set_watermark(None).await
}

async fn a_document_that_kills_the_query_is_ordered_into_quarantine_unread(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    let messages = mixture(&stretch, 24);
    cloud.load(&messages).await?;
    let poison = messages[3].clone();
    ensure!(poison.disposition == Disposition::Closed && !poison.history.is_empty());
    // A function that asks for its history dies: it may be longer than the memory of the function.
    let asked: &'static [&'static str] = Box::leak(Box::new(["\"message_id\"", &*poison.id.clone().leak()]));
    cloud.proxies.arm(fault("", "query-messages", opensearch("POST", "/_search", asked), KILL_BEFORE).times(ALWAYS));
    let failed = cloud.run_stretch(&stretch).await?;
    ensure!(failed.report["windows"]["failed"] == 1, "{failed:?}");
    let excluded = cloud.archive(&["quarantine", "add", &poison.id, "--reason", "kills the query"]).await?;
    ensure!(excluded.well, "{excluded:?}");
    let outcome = cloud.run_failed_only(failed.run_id()).await?.completed()?;
    ensure!(cloud.proxies.disarm()?[0] > 1, "nothing was killed");
    ensure!(outcome.count("source") == messages.len() as u64, "{:#}", outcome.report);
    check_archive(cloud, &stretch, &others(&messages, &poison)).await?;
    is_quarantined(cloud, &stretch, &poison, "kills the query").await?;
    let released = cloud.archive(&["quarantine", "release", &poison.id, "--index", &poison.index]).await?;
    ensure!(released.well, "{released:?}");
    check_archive(cloud, &stretch, &messages).await
}

async fn an_order_that_nothing_came_of_is_taken_back(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    let messages = mixture(&stretch, 12);
    cloud.load(&messages).await?;
    let id = messages[0].id.as_str();
    ensure!(cloud.archive(&["quarantine", "add", id, "--reason", "a mistake"]).await?.well);
    ensure!(named(&next_report(cloud, &stretch).await?, "id", id).len() == 1);
    ensure!(cloud.archive(&["quarantine", "release", id]).await?.well);
    refused(&cloud.archive(&["quarantine", "release", id]).await?, "is not in quarantine")?;
    ensure!(named(&cloud.run_stretch(&stretch).await?.completed()?.report, "id", id).is_empty());
    check(cloud, &stretch, &messages).await?;
    Ok(())
}

async fn an_order_that_comes_when_the_object_is_written_changes_nothing(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    let messages = mixture(&stretch, 12);
    cloud.load(&messages).await?;
    let id = messages[0].id.as_str();
    cloud.proxies.arm(fault("", "write-partitions", s3("PUT", "/archive/_commits/"), KILL_BEFORE).times(ALWAYS));
    let failed = cloud.run_stretch(&stretch).await?;
    ensure!(cloud.proxies.disarm()?[0] > 1 && !failed.well, "{failed:?}");
    ensure!(cloud.archive(&["quarantine", "add", id, "--reason", "too late"]).await?.well);
    let outcome = cloud.redrive(failed.run_id()).await?.completed()?;
    ensure!(
        named(&outcome.report, "id", id).len() == 1,
        "the order stands until it is taken back: {:#}",
        outcome.report
    );
    check(cloud, &stretch, &messages).await?;
    // Another run has nothing to keep it from either.
    cloud.run_stretch(&stretch).await?.completed()?;
    check(cloud, &stretch, &messages).await?;
    let released = cloud.archive(&["quarantine", "release", id]).await?;
    ensure!(released.well, "{released:?}");
    ensure!(named(&next_report(cloud, &stretch).await?, "id", id).is_empty());
    Ok(())
}

/// In seconds: after this a function sends a request again.
const LONGEST_REQUEST: u64 = 55;

/// A function that outlives its execution writes the object as it was planned, when the document is excluded from it.
async fn a_write_that_an_order_overtakes_comes_to_nothing(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    let messages = mixture(&stretch, 12);
    cloud.load(&messages).await?;
    // Long enough for another run in between, however slow this machine is now.
    let before = cloud.stretch();
    cloud.load(&mixture(&before, 12)).await?;
    let began = Instant::now();
    cloud.run_stretch(&before).await?.completed()?;
    let late = (10 + 3 * began.elapsed().as_secs()).min(LONGEST_REQUEST);
    let poison = messages[0].clone();
    let key: &'static str = format!("/parquet/date%3D{}/", poison.date()).leak();
    // Behind each upload the function looks at the object: so a late one is seen.
    let looks = fault("", "write-partitions", s3("HEAD", key), Harm::Watch).times(ALWAYS);
    cloud.proxies.arm_all(&[fault("", "write-partitions", s3("PUT", key), delay(late)), looks]);
    let name = cloud.name("overtaken", &stretch);
    cloud.start(&name, &json!({"mode": "range", "from": stretch.from(), "to": stretch.to()})).await?;
    let began = Instant::now();
    while cloud.proxies.fired()[0] != 1 {
        ensure!(began.elapsed() < PATIENCE, "the run does not get as far as its object");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let delayed = Instant::now();
    let arn = format!("{}:{name}", cloud.state_machine_arn.replacen(":stateMachine:", ":execution:", 1));
    cloud.sfn.stop_execution().execution_arn(arn).send().await?;
    ensure!(cloud.archive(&["quarantine", "add", &poison.id, "--reason", "overtakes"]).await?.well);
    let outcome = cloud.run_stretch(&stretch).await?.completed()?;
    ensure!(
        delayed.elapsed().as_secs() < late,
        "the other run took too long to be overtaken by: {:?}",
        delayed.elapsed()
    );
    let unharmed = async || -> Result<()> {
        check_archive(cloud, &stretch, &others(&messages, &poison)).await?;
        is_quarantined(cloud, &stretch, &poison, "overtakes").await
    };
    unharmed().await.context("before the late write")?;
    let (committed, looked) = (cloud.manifests(&name).await?, cloud.proxies.fired()[1]);
    tokio::time::sleep(Duration::from_secs(late + 2).saturating_sub(delayed.elapsed())).await;
    ensure!(cloud.proxies.disarm()?[1] > looked, "no function wrote late");
    unharmed().await.context("after the late write")?;
    ensure!(cloud.manifests(&name).await? == committed, "the late write changed the manifest");
    let windows = cloud.window_rows(&name).await?;
    ensure!(
        windows.iter().all(|window| window["status"] == "Completed" && window["error"].is_null()),
        "the late function changed a window that is completed: {windows:?}"
    );
    ensure!(outcome.count("quarantined") == 2, "{:#}", outcome.report);
    let released = cloud.archive(&["quarantine", "release", &poison.id]).await?;
    ensure!(released.well, "{released:?}");
    check_archive(cloud, &stretch, &messages).await
}

async fn a_message_leaves_quarantine_when_its_rule_has_changed_and_not_before(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    let mut messages = mixture(&stretch, 12);
    cloud.load(&messages).await?;
    cloud.run_stretch(&stretch).await?.completed()?;
    ensure!(messages[5].reason == Some("unrecognised_status"));
    let id = messages[5].id.clone();
    refused(&cloud.archive(&["quarantine", "release", &id]).await?, "the rules say unrecognised_status")?;
    check(cloud, &stretch, &messages).await?;
    let release = async || cloud.archive(&["quarantine", "release", &id, "--json"]).await;
    let released =
        cloud.with_setting("query-messages", "ALERT_ARCHIVE_CLOSED_STATUSES", "closed,resolved", release).await?;
    ensure!(released.well && released.count("archived") == 1, "{released:?}");
    ensure!(listed(cloud, &messages[5]).await?.is_null(), "it is still listed");
    messages[5].disposition = Disposition::Closed;
    check_archive(cloud, &stretch, &messages).await?;
    refused(&cloud.archive(&["quarantine", "release", &id]).await?, "is not in quarantine")
}

async fn an_archived_message_that_became_unreadable_is_in_the_archive_once_when_it_can_be_read_again(
    cloud: &Cloud,
) -> Result<()> {
    let stretch = cloud.stretch();
    let at = format!("{}-04-01T10:00:00Z", stretch.year);
    let good = [Message::closed(&stretch, "turns", &at), Message::closed(&stretch, "stays", &at)];
    cloud.load(&good).await?;
    cloud.run_stretch(&stretch).await?.completed()?;
    let source =
        String::from_utf8_lossy(&good[0].source).replace(r#""status":"closed""#, r#""status":"melted""#).into_bytes();
    cloud.load(&[Message { source, ..good[0].clone() }]).await?;
    let second = cloud.run_stretch(&stretch).await?.completed()?;
    ensure!(second.count("quarantined") == 1 && second.count("already_archived") == 1, "{:#}", second.report);
    // The newest closed version stays where it is, and that is not taken for a fault.
    check_archive(cloud, &stretch, &good).await?;
    let (from, to) = (stretch.from(), stretch.to());
    let verified = cloud.archive(&["verify", "--from", &from, "--to", &to, "--deep", "--json"]).await?;
    ensure!(verified.well, "{:#}", verified.report);
    let third = [good[0].changed("third"), good[1].clone()];
    cloud.load(&third).await?;
    cloud.run_stretch(&stretch).await?.completed()?;
    check_archive(cloud, &stretch, &third).await?;
    let kept = cloud.superseded(&stretch).await?;
    ensure!(kept.len() == 1 && kept[0].message.as_bytes() == good[0].source, "{kept:?}");
    Ok(())
}

async fn restore_keeps_to_its_rate(cloud: &Cloud) -> Result<()> {
    const RATE: f64 = 4.0;
    let stretch = cloud.stretch();
    let at = |n: usize| format!("{}-04-01T10:00:{n:02}Z", stretch.year);
    let messages: Vec<Message> = (0..13).map(|n| Message::closed(&stretch, &format!("{n}"), &at(n))).collect();
    cloud.load(&messages).await?;
    cloud.run_stretch(&stretch).await?.completed()?;
    let index = format!("messages-restored-{}", stretch.prefix);
    cloud.source.create_index(&index, Kind::Messages).await?;
    let stored = async || -> Result<f64> {
        let (_, body) =
            cloud.http.send(Method::GET, &format!("{}/{index}/_stats/indexing", cloud.opensearch_url), "").await?;
        let stats: Value = serde_json::from_slice(&body)?;
        stats["_all"]["primaries"]["indexing"]["index_total"].as_f64().context("no figure")
    };
    let (from, to, began) = (stretch.from(), stretch.to(), Instant::now());
    let arguments = ["restore", "--from", &from, "--to", &to, "--into-index", &index, "--rate", "4"];
    let mut restore = std::pin::pin!(cloud.archive(&arguments));
    let (mut before, mut asked) = (0.0, Instant::now());
    let outcome = loop {
        tokio::select! {
            outcome = &mut restore => break outcome?,
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
        // From before the earlier look to after this one: longer than the messages took, so that haste shows and
        // slowness does not.
        let earlier = std::mem::replace(&mut asked, Instant::now());
        let now = stored().await?;
        let most = RATE * earlier.elapsed().as_secs_f64() + RATE;
        ensure!(now - before <= most, "{} messages arrived where {most:.1} may", now - before);
        before = now;
    };
    let least = (messages.len() as f64 - RATE) / RATE;
    ensure!(outcome.well && began.elapsed().as_secs_f64() >= least, "{outcome:?} after {:?}", began.elapsed());
    ensure!(stored().await? == messages.len() as f64);
    for message in &messages {
        let (status, body) = cloud
            .http
            .send(Method::GET, &format!("{}/{index}/_source/{}", cloud.opensearch_url, message.id), "")
            .await?;
        ensure!(status.is_success() && *body == *message.source, "{}: {status}", message.id);
    }
    Ok(())
}

async fn an_execution_that_was_refused_is_listed_with_its_error(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    for (what, input, because) in [
        ("reversed", json!({"mode": "range", "from": stretch.to(), "to": stretch.from()}), "is not before"),
        ("no-such", json!({"mode": "failed-only", "run_id": "nowhere"}), "there is no run nowhere"),
    ] {
        let name = cloud.name(what, &stretch);
        let ended = cloud.execute(&name, &input).await?;
        ensure!(ended.error == "InvalidInput", "{ended:?}");
        let status = cloud.archive(&["status", &name, "--json"]).await?;
        let failure = &status.report["failures"][0];
        ensure!(
            !status.well && status.report["status"] == "Failed" && status.report["mode"] == input["mode"],
            "{status:?}"
        );
        ensure!(
            failure["error"] == "InvalidInput"
                && failure["message"].as_str().is_some_and(|message| message.contains(because)),
            "{failure}"
        );
        let all = cloud.archive(&["status", "--json"]).await?;
        ensure!(
            all.report.as_array().into_iter().flatten().any(|report| report["run_id"] == name),
            "{name} is not listed"
        );
    }
    // What is refused for the sake of another run leaves that run's row alone.
    let messages = mixture(&stretch, 12);
    cloud.load(&messages).await?;
    let run_id = cloud.run_stretch(&stretch).await?.completed()?.run_id().to_owned();
    let before = cloud.job_run(&run_id).await?;
    cloud.proxies.arm(fault("", "query-messages", opensearch("POST", "/_search", &[]), delay(4)));
    let first = cloud.name("busy", &stretch);
    cloud.start(&first, &json!({"mode": "range", "from": stretch.from(), "to": stretch.to()})).await?;
    while cloud.window_rows(&first).await?.is_empty() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let refused = cloud.name("refused", &stretch);
    let ended = cloud.execute(&refused, &json!({"mode": "failed-only", "run_id": run_id})).await?;
    ensure!(ended.error == "RangeBusy", "{ended:?}");
    ensure!(cloud.job_run(&run_id).await? == before, "the other run's row was touched");
    let row = cloud.job_run(&refused).await?;
    ensure!(row["status"] == "Failed" && row["error"] == "RangeBusy", "{row}");
    ensure!(cloud.ended(&first).await?.status == "SUCCEEDED");
    check(cloud, &stretch, &messages).await?;
    Ok(())
}

async fn a_schedule_of_the_future_is_refused(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    begin_at(cloud, &stretch).await?;
    let ended = cloud
        .execute(
            &cloud.name("future", &stretch),
            &json!({"mode": "scheduled", "scheduled_for": "2962-11-16T06:00:00Z"}),
        )
        .await?;
    ensure!(ended.status == "FAILED" && ended.error == "InvalidInput" && ended.cause.contains("future"), "{ended:?}");
    watermark_is(cloud, &format!("{}T00:00:00", stretch.from())).await?;
    cloud.set_watermark(None).await
}

async fn a_watermark_that_was_moved_by_hand_is_told_until_a_run_has_covered_what_lies_between(
    cloud: &Cloud,
) -> Result<()> {
    let stretch = cloud.stretch();
    begin_at(cloud, &stretch).await?;
    let february = format!("{}-02-01", stretch.year);
    refused(&cloud.archive(&["watermark", "--set", "2962-01-01", "--reason", "x"]).await?, "lies in the future")?;
    refused(&cloud.archive(&["watermark", "--set", &february]).await?, "--reason")?;
    let reason = format!("january of {} is elsewhere", stretch.prefix);
    let set = cloud.archive(&["watermark", "--set", &february, "--reason", &reason, "--json"]).await?;
    ensure!(set.well && set.report["watermark"] == format!("{february}T00:00:00.000Z"), "{set:?}");
    watermark_is(cloud, &format!("{february}T00:00:00")).await?;
    let report = next_report(cloud, &stretch).await?;
    let items = named(&report, "reason", &reason);
    ensure!(
        items.len() == 1
            && items[0]["kind"] == "watermark_set"
            && items[0]["left"].as_array().is_some_and(|left| left.len() == 1),
        "{report:#}"
    );
    let status = cloud.archive(&["status"]).await?;
    ensure!(status.well && String::from_utf8_lossy(&status.printed).contains(&reason), "{status:?}");
    let covered = cloud.run(&stretch.from(), &february).await?.completed()?.report;
    ensure!(named(&covered, "reason", &reason).is_empty(), "{covered:#}");
    cloud.set_watermark(None).await
}
