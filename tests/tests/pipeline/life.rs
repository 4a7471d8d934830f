//! The life of a message over several runs: held over, looked at again, archived when it closes, or gone.

use crate::tests;
use anyhow::{Context, Result, ensure};
use pipeline_tests::{Cloud, Message, check};
use serde_json::{Value, json};

tests![
    a_message_that_closes_between_two_runs_is_archived_by_a_recheck_and_by_no_other_run_again,
    the_week_looks_at_held_over_messages_and_tells_the_one_that_is_gone,
];

fn three_open(cloud: &Cloud) -> (pipeline_tests::Stretch, Vec<Message>) {
    let stretch = cloud.stretch();
    let at = |day: u8| format!("{}-04-{day:02}T10:00:00.123Z", stretch.year);
    let messages = (1..=3).map(|n| Message::open(&stretch, &format!("held{n}"), &at(n))).collect();
    (stretch, messages)
}

async fn a_message_that_closes_between_two_runs_is_archived_by_a_recheck_and_by_no_other_run_again(
    cloud: &Cloud,
) -> Result<()> {
    let (stretch, mut messages) = three_open(cloud);
    cloud.load(&messages).await?;
    cloud.run_stretch(&stretch).await?.completed()?;
    let held = cloud.rows(&messages[..1]).await?.into_values().next().context("a row")?;
    messages[0] = messages[0].now_closed();
    cloud.load(&messages[..1]).await?;
    let recheck = cloud.archive(&["run", "--mode", "recheck", "--wait", "--json"]).await?.completed()?;
    let told = &recheck.report["recheck"];
    ensure!(told["closed"] == 1 && told["read"] == 1 && recheck.count("archived") == 1, "{:#}", recheck.report);
    ensure!(recheck.report["backlog"] == told["open"], "{:#}", recheck.report);
    check(cloud, &stretch, &messages).await?;
    let row = cloud.rows(&messages[..1]).await?.into_values().next().context("a row")?;
    ensure!(row["first_seen_open"] == held["first_seen_open"] && row["staging"] == Value::Null, "{row}");
    let again = cloud.archive(&["run", "--mode", "recheck", "--wait", "--json"]).await?.completed()?;
    ensure!(again.report["windows"]["planned"] == 0 && again.count("source") == 0, "{:#}", again.report);
    let whole = cloud.run_stretch(&stretch).await?.completed()?;
    ensure!(whole.count("archived") == 0 && whole.count("already_archived") == 1, "{:#}", whole.report);
    check(cloud, &stretch, &messages).await?;
    cloud.verify(&stretch).await
}

async fn the_week_looks_at_held_over_messages_and_tells_the_one_that_is_gone(cloud: &Cloud) -> Result<()> {
    let (stretch, mut messages) = three_open(cloud);
    cloud.load(&messages).await?;
    cloud.run_stretch(&stretch).await?.completed()?;
    messages[1] = messages[1].now_closed();
    cloud.load(&messages[1..2]).await?;
    cloud.delete(&messages[2]).await?;
    cloud.set_watermark(Some(&format!("{}T00:00:00.000Z", stretch.to()))).await?;
    let name = cloud.name("week", &stretch);
    let input = json!({"mode": "scheduled", "scheduled_for": format!("{}-01-02T00:00:00Z", stretch.year + 1)});
    let ended = cloud.execute(&name, &input).await?;
    ensure!(ended.status == "SUCCEEDED", "{ended:?}");
    let report = cloud.report(&name).await?;
    ensure!(report["recheck"]["closed"] == 1 && report["recheck"]["gone"] == 1, "{report:#}");
    let details: Value = serde_json::from_slice(&cloud.get(&format!("runs/{name}/details.json")).await?)?;
    ensure!(details["gone"][0]["message_id"] == messages[2].id, "{details:#}");
    let row = cloud.rows(&messages[2..]).await?.into_values().next().context("a row")?;
    ensure!(row["reason"] == "gone" && row["gone_at"].is_string() && row["staging"] == Value::Null, "{row}");
    messages.truncate(2);
    check(cloud, &stretch, &messages).await?;
    let again = cloud.archive(&["run", "--mode", "recheck", "--wait", "--json"]).await?.completed()?;
    ensure!(again.report["recheck"]["gone"] == 0, "{:#}", again.report);
    cloud.set_watermark(None).await
}
