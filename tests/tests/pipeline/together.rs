//! Many at once, and what is left when one of them dies.

use crate::tests;
use anyhow::{Context, Result, ensure};
use fixtures::Disposition;
use identity::Identity;
use jiff::Timestamp;
use pipeline_tests::{
    Cloud, Message, PATIENCE, account, check,
    documents::{instant, mixture},
    faults::{ALWAYS, KILL_BEFORE, delay, fault, opensearch, s3},
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

tests![
    twenty_windows_at_once_archive_every_message_once,
    every_function_called_again_changes_nothing,
    claims_of_a_dead_run_are_taken_after_its_lease_and_not_before,
    a_window_at_work_renews_its_lease,
    an_earlier_version_taken_out_by_a_killed_function_stands_in_the_manifest,
    a_run_survives_the_restart_of_everything_but_its_data,
];

async fn twenty_windows_at_once_archive_every_message_once(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    let messages: Vec<Message> = (0..200)
        .map(|n| {
            Message::closed(
                &stretch,
                &format!("m{n:03}"),
                &format!("{}-03-{:02}T{:02}:00:00Z", stretch.year, 1 + n % 20, n / 20),
            )
        })
        .collect();
    cloud.load(&messages).await?;
    // All of them wait at their first page, so that all are at work at one time.
    cloud.proxies.arm(fault("", "query-messages", opensearch("POST", "/_search", &["sort"]), delay(6)).times(20));
    let name = cloud.name("twenty", &stretch);
    let run = async || {
        cloud.start(&name, &json!({"mode": "range", "from": stretch.from(), "to": stretch.to()})).await?;
        let began = Instant::now();
        loop {
            let running = cloud.window_rows(&name).await?.iter().filter(|window| window["status"] == "Running").count();
            if running == 20 {
                break;
            }
            ensure!(began.elapsed() < PATIENCE, "{running} windows are at work");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let ended = cloud.ended(&name).await?;
        ensure!(ended.status == "SUCCEEDED", "{ended:?}");
        Ok(())
    };
    let at_once = |definition: &mut Value| {
        definition["States"]["Windows"]["MaxConcurrency"] = json!(20);
        Ok(())
    };
    cloud
        .with_setting("plan-windows", "ALERT_ARCHIVE_WINDOW_MESSAGES", "10", async || {
            cloud.with_definition(at_once, run).await
        })
        .await?;
    check(cloud, &stretch, &messages).await?;
    Ok(())
}

/// A platform may deliver a call twice, even when the run is long over. Here each comes twice more, by hand.
async fn every_function_called_again_changes_nothing(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    let messages = mixture(&stretch, 36);
    cloud.load(&messages).await?;
    let outcome = cloud.run_stretch(&stretch).await?.completed()?;
    let run_id = outcome.run_id();
    let before = check(cloud, &stretch, &messages).await?;
    let objects = cloud.keys("archive/").await?;
    let again = async |function: &str, payload: Value| -> Result<Value> {
        let first = cloud.invoke(function, &payload).await?;
        let second = cloud.invoke(function, &payload).await?;
        ensure!(first["errorType"].is_null() && first == second, "{function} answers {first}, then {second}");
        ensure!(check(cloud, &stretch, &messages).await? == before, "{function} called again made a difference");
        Ok(second)
    };
    let execution = format!("{}:{run_id}", cloud.state_machine_arn.replacen(":stateMachine:", ":execution:", 1));
    let input = json!({"mode": "range", "from": stretch.from(), "to": stretch.to()});
    let plan =
        again("plan-windows", json!({"v": 1, "input": input, "run_id": run_id, "execution_arn": execution})).await?;
    let windows = cloud.get(plan["windows_key"].as_str().context("windows_key")?).await?;
    for window in serde_json::Deserializer::from_slice(&windows).into_iter::<Value>() {
        let task = json!({"v": 1, "run_id": run_id, "mode": "range", "window": window?});
        let task = again("query-messages", task).await?;
        let task = again("classify-alerts", task).await?;
        again("write-partitions", task).await?;
    }
    let collected = again("collect-windows", plan).await?;
    let report = json!({"v": 1, "run_id": run_id, "report_key": collected["report_key"], "reported_at": collected["reported_at"]});
    again("send-summary", report.clone()).await?;
    again("aggregate-dashboard", report).await?;
    again("gate-run", collected).await?;
    ensure!(cloud.mails(run_id)?.len() == 1, "{} mails", cloud.mails(run_id)?.len());
    let run = cloud.job_run(run_id).await?;
    ensure!(run["status"] == "Completed" && run["attempt"] == 1, "{run}");
    ensure!(cloud.report(run_id).await?["messages"] == outcome.report["messages"]);
    ensure!(cloud.keys("archive/").await? == objects, "an object changed");
    Ok(())
}

async fn claims_of_a_dead_run_are_taken_after_its_lease_and_not_before(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    let messages = mixture(&stretch, 24);
    cloud.load(&messages).await?;
    // Between the claims and the intent.
    cloud.proxies.arm(fault("", "write-partitions", s3("PUT", "/intent.json"), KILL_BEFORE).times(ALWAYS));
    let dead = cloud.run_stretch(&stretch).await?.failed(2, &["StepCrashed"])?;
    cloud.proxies.disarm()?;
    let lease = async || -> Result<Timestamp> {
        let windows = cloud.window_rows(dead.run_id()).await?;
        windows.iter().filter_map(|window| window["lease_until"].as_str()).map(instant).max().context("a lease")
    };
    let until = lease().await?;
    let claimed = claimed_by(cloud, &messages, dead.run_id()).await?;
    ensure!(!claimed.is_empty(), "the dead run left no claims");
    let early = cloud.run_stretch(&stretch).await?.failed(2, &["WindowBusy"])?;
    ensure!(Timestamp::now() < until, "the lease was over before the second run was");
    ensure!(
        claimed_by(cloud, &messages, dead.run_id()).await?.len() == claimed.len(),
        "claims were taken before the lease was over"
    );
    ensure!(lease().await? == until, "something renewed the lease of the dead run");
    tokio::time::sleep(Duration::try_from(until.duration_since(Timestamp::now()))?).await;
    cloud.redrive(early.run_id()).await?.completed()?;
    check(cloud, &stretch, &messages).await?;
    for window in cloud.window_rows(dead.run_id()).await? {
        ensure!(window["status"] == "Abandoned", "{window}");
    }
    Ok(())
}

async fn a_window_at_work_renews_its_lease(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    let messages = mixture(&stretch, 12);
    cloud.load(&messages).await?;
    cloud.proxies.arm(fault("", "write-partitions", s3("PUT", "/intent.json"), delay(12)).times(2));
    let name = cloud.name("renews", &stretch);
    cloud.start(&name, &json!({"mode": "range", "from": stretch.from(), "to": stretch.to()})).await?;
    let began = Instant::now();
    while cloud.proxies.fired() != [2] {
        ensure!(began.elapsed() < PATIENCE, "the run does not get as far as its intents");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let leases = async || -> Result<Vec<Timestamp>> {
        Ok(cloud
            .window_rows(&name)
            .await?
            .iter()
            .filter_map(|window| window["lease_until"].as_str())
            .map(instant)
            .collect())
    };
    let first = leases().await?;
    tokio::time::sleep(Duration::from_secs(11)).await;
    let second = leases().await?;
    ensure!(
        first.len() == 2 && first.iter().zip(&second).all(|(first, second)| first < second),
        "leases were {first:?}, then {second:?}"
    );
    cloud.proxies.disarm()?;
    ensure!(cloud.ended(&name).await?.status == "SUCCEEDED");
    check(cloud, &stretch, &messages).await?;
    Ok(())
}

async fn claimed_by(cloud: &Cloud, messages: &[Message], run_id: &str) -> Result<Vec<Message>> {
    let rows = cloud.rows(messages).await?;
    let is_claimed = |message: &&Message| {
        message.disposition == Disposition::Closed
            && rows
                .get(&Identity::new(&message.index, &message.id))
                .and_then(|row| row["claim"].as_str())
                .is_some_and(|claim| claim.starts_with(&format!("{run_id}/")))
    };
    Ok(messages.iter().filter(is_claimed).cloned().collect())
}

async fn an_earlier_version_taken_out_by_a_killed_function_stands_in_the_manifest(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    let mut messages = mixture(&stretch, 24);
    cloud.load(&messages).await?;
    cloud.run_stretch(&stretch).await?.completed()?;
    for message in messages.iter_mut().filter(|message| message.disposition == Disposition::Closed).step_by(3) {
        *message = message.changed("second");
    }
    cloud.load(&messages).await?;
    // Killed when the earlier versions are out of their object, and nothing says so yet.
    cloud.proxies.arm(fault("", "write-partitions", s3("PUT", "/archive/_commits/"), KILL_BEFORE));
    cloud.run_stretch(&stretch).await?.completed()?;
    ensure!(cloud.proxies.disarm()? == [1], "the fault did not strike");
    ensure!(!cloud.superseded(&stretch).await?.is_empty(), "nothing was replaced");
    check(cloud, &stretch, &messages).await?;
    cloud.verify(&stretch).await
}

/// Everything stops with the emulator: the execution, the functions, the services. Its data is kept.
async fn a_run_survives_the_restart_of_everything_but_its_data(cloud: &Cloud) -> Result<()> {
    let points = [
        ("query-messages", opensearch("POST", "/_search", &["search_after"])),
        ("write-partitions", s3("PUT", "/archive/parquet/")),
    ];
    for (function, point) in points {
        let stretch = cloud.stretch();
        let messages = mixture(&stretch, 36);
        cloud.load(&messages).await?;
        cloud.proxies.arm(fault("", function, point, delay(30)));
        let name = cloud.name("restarted", &stretch);
        cloud.start(&name, &json!({"mode": "range", "from": stretch.from(), "to": stretch.to()})).await?;
        let began = Instant::now();
        while cloud.proxies.fired() == [0] {
            ensure!(began.elapsed() < PATIENCE, "the run does not get as far as {point:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        cloud.restart().await?;
        cloud.proxies.disarm()?;
        let ended = cloud.ended(&name).await?;
        ensure!(ended.status != "SUCCEEDED", "{ended:?}");
        // The leases of the dead functions are long; a redrive of the same run needs not wait for them.
        cloud.redrive(&name).await?.completed()?;
        let account = account(cloud, &stretch, &messages).await?;
        ensure!(account.ok == messages.len() && account.unexpected == 0, "{account:?}");
        check(cloud, &stretch, &messages).await?;
    }
    Ok(())
}
