//! Running again: the same range, other edges, other versions, the same scheduled time.

use crate::tests;
use anyhow::{Context, Result, ensure};
use fixtures::Disposition;
use identity::Identity;
use pipeline_tests::{
    Cloud, Message, Stretch, check, check_archive,
    documents::{iso, mixture},
    faults::{delay, fault, opensearch},
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

tests![
    the_same_range_again_archives_nothing_and_changes_no_object_and_no_row,
    windows_with_other_edges_over_the_same_messages_change_nothing,
    the_same_scheduled_time_twice_works_and_mails_once,
    a_range_that_overlaps_a_run_at_work_is_refused_and_the_run_is_named,
    a_changed_message_replaces_its_earlier_version_which_is_kept,
    a_reopened_message_is_held_and_its_archived_row_stays,
];

/// Everything of the stretch that a run without news must leave alone: objects by key and entity tag, and Completed
/// rows.
async fn state(
    cloud: &Cloud,
    stretch: &Stretch,
    messages: &[Message],
) -> Result<(BTreeMap<String, String>, BTreeMap<Identity, Value>)> {
    let mut objects = BTreeMap::new();
    for prefix in ["archive/parquet", "archive/jsonl", "archive/messages", "archive/superseded", "quarantine"] {
        objects.extend(cloud.keys(&format!("{prefix}/date={}-", stretch.year)).await?);
    }
    let mut rows = cloud.rows(messages).await?;
    // An open row says which run looked at it last.
    rows.retain(|_, row| row["status"] == "Completed");
    Ok((objects, rows))
}

async fn the_same_range_again_archives_nothing_and_changes_no_object_and_no_row(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    let messages = mixture(&stretch, 36);
    cloud.load(&messages).await?;
    let first = cloud.run_stretch(&stretch).await?.completed()?;
    let before = state(cloud, &stretch, &messages).await?;
    let second = cloud.run_stretch(&stretch).await?.completed()?;
    ensure!(
        second.count("archived") == 0 && second.count("already_archived") == first.count("archived"),
        "{:#}",
        second.report
    );
    ensure!(before == state(cloud, &stretch, &messages).await?, "something changed");
    check(cloud, &stretch, &messages).await?;
    Ok(())
}

async fn windows_with_other_edges_over_the_same_messages_change_nothing(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    let messages = mixture(&stretch, 36);
    cloud.load(&messages).await?;
    cloud.run_stretch(&stretch).await?.completed()?;
    let before = state(cloud, &stretch, &messages).await?;
    let year = stretch.year;
    for (from, to) in
        [("02-01T05:00:00Z", "02-02T11:30:00Z"), ("02-02T11:00:00Z", "05-10T12:00:00Z"), ("01-31", "05-11")]
    {
        let run = cloud.run(&format!("{year}-{from}"), &format!("{year}-{to}")).await?.completed()?;
        ensure!(run.count("source") > 0 && run.count("archived") == 0, "{:#}", run.report);
        ensure!(before == state(cloud, &stretch, &messages).await?, "something changed by a run from {from} to {to}");
    }
    check(cloud, &stretch, &messages).await?;
    Ok(())
}

async fn the_same_scheduled_time_twice_works_and_mails_once(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    let messages = mixture(&stretch, 24);
    cloud.load(&messages).await?;
    cloud.set_watermark(Some(&format!("{}T00:00:00.000Z", stretch.from()))).await?;
    // The settle margin of an hour ends the range at the end of the year.
    let input = json!({"mode": "scheduled", "scheduled_for": format!("{}T01:00:00Z", stretch.to())});
    let names = ["scheduled-first", "scheduled-second"].map(|name| cloud.name(name, &stretch));
    for name in &names {
        let ended = cloud.execute(name, &input).await?;
        ensure!(ended.status == "SUCCEEDED", "{ended:?}");
        check(cloud, &stretch, &messages).await?;
    }
    // The same time, spelled otherwise.
    let spelled = cloud.name("scheduled-third", &stretch);
    let ended = cloud
        .execute(&spelled, &json!({"mode": "scheduled", "scheduled_for": format!("{}T01:00:00.000Z", stretch.to())}))
        .await?;
    ensure!(ended.status == "SUCCEEDED", "{ended:?}");
    ensure!(cloud.mails(&names[0])?.len() == 1, "the first run mailed {} times", cloud.mails(&names[0])?.len());
    for again in [&names[1], &spelled] {
        ensure!(
            cloud.mails(again)?.is_empty() && cloud.window_rows(again).await?.is_empty(),
            "{again} planned or mailed"
        );
    }
    let watermark = cloud.job_run("#watermark").await?;
    ensure!(watermark["at"] == format!("{}T00:00:00.000Z", stretch.to()), "{watermark}");
    cloud.set_watermark(None).await
}

async fn a_range_that_overlaps_a_run_at_work_is_refused_and_the_run_is_named(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    let messages = mixture(&stretch, 12);
    cloud.load(&messages).await?;
    cloud.proxies.arm(fault("", "query-messages", opensearch("POST", "/_search", &[]), delay(4)));
    let first = cloud.name("busy", &stretch);
    cloud.start(&first, &json!({"mode": "range", "from": stretch.from(), "to": stretch.to()})).await?;
    while cloud.window_rows(&first).await?.is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let second = cloud.run(&format!("{}-05-01", stretch.year), &stretch.to()).await?;
    ensure!(!second.well && second.said.contains("RangeBusy") && second.said.contains(&first), "{second:?}");
    // A range beside it is free.
    let beside = cloud.stretch();
    cloud.run_stretch(&beside).await?.completed()?;
    let ended = cloud.ended(&first).await?;
    ensure!(ended.status == "SUCCEEDED", "{ended:?}");
    check(cloud, &stretch, &messages).await?;
    Ok(())
}

async fn a_changed_message_replaces_its_earlier_version_which_is_kept(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    let mut messages = mixture(&stretch, 24);
    cloud.load(&messages).await?;
    cloud.run_stretch(&stretch).await?.completed()?;
    let earlier: Vec<Message> = [0, 3, 12].map(|n| messages[n].clone()).to_vec();
    for (n, message) in [0, 3, 12].into_iter().zip(&earlier) {
        ensure!(message.disposition == Disposition::Closed);
        messages[n] = message.changed("second");
    }
    cloud.load(&messages).await?;
    let second = cloud.run_stretch(&stretch).await?.completed()?;
    ensure!(second.count("archived") == 3, "{:#}", second.report);
    check(cloud, &stretch, &messages).await?;
    let kept: BTreeMap<Identity, String> =
        cloud.superseded(&stretch).await?.into_iter().map(|row| (row.identity(), row.message)).collect();
    ensure!(kept.len() == 3, "superseded are {:?}", kept.keys());
    for message in &earlier {
        let text = kept.get(&Identity::new(&message.index, &message.id)).with_context(|| message.id.clone())?;
        ensure!(text.as_bytes() == message.source, "{} was not kept as it was", message.id);
    }
    Ok(())
}

async fn a_reopened_message_is_held_and_its_archived_row_stays(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    let at = format!("{}-04-01T10:00:00Z", stretch.year);
    let closed = vec![Message::closed(&stretch, "again", &at), Message::closed(&stretch, "stays", &at)];
    cloud.load(&closed).await?;
    cloud.run_stretch(&stretch).await?.completed()?;
    let mut messages = closed.clone();
    messages[0] = closed[0].reopened();
    cloud.load(&messages).await?;
    let second = cloud.run_stretch(&stretch).await?.completed()?;
    ensure!(second.count("open") == 1 && second.count("already_archived") == 1, "{:#}", second.report);
    check_archive(cloud, &stretch, &closed).await?;
    ensure!(cloud.staged(&stretch).await?.len() == 1, "the reopened message is not staged");
    let row = cloud.rows(&messages[..1]).await?.into_values().next().context("a row")?;
    ensure!(row["status"] == "Completed" && row["disposition"] == "open" && row["s3_path"].is_string(), "{row}");
    // It closes anew, with another text: the newer version replaces the archived one.
    messages[0] = closed[0].changed(&iso(closed[0].at));
    cloud.load(&messages).await?;
    cloud.run_stretch(&stretch).await?.completed()?;
    check(cloud, &stretch, &messages).await?;
    Ok(())
}
