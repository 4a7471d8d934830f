//! Little time and little memory.

use crate::tests;
use anyhow::{Result, ensure};
use fixtures::generate;
use pipeline_tests::{
    Cloud, Message, check, check_archive,
    documents::{instant, mixture, one_of_a_mixture},
    faults::{ALWAYS, delay_millis, fault, opensearch, s3},
    functions::FUNCTIONS,
    proxy::Harm,
};
use std::time::{Duration, Instant};

tests![
    a_window_that_needs_four_lambdas_at_each_step_arrives,
    a_second_call_in_a_row_that_gets_no_further_is_no_progress,
    each_function_carries_300_MB_in_128_MB_of_memory,
    a_document_of_50_MB_passes_in_256_MB_of_memory,
];

/// More than the plan puts into one window of its own accord.
const ONE_WINDOW: &str = "1000000";

/// How long the run of [`slowness`] takes on a machine of two cores that has nothing else to do.
const CALM: Duration = Duration::from_secs(8);

/// By how much this machine is slower now than a calm one: what takes time here takes as much longer.
async fn slowness(cloud: &Cloud) -> Result<f64> {
    let stretch = cloud.stretch();
    let at = |n: usize| format!("{}-03-01T{:02}:{:02}:00Z", stretch.year, n / 60, n % 60);
    let messages: Vec<Message> = (0..1_400).map(|n| Message::closed(&stretch, &format!("m{n:05}"), &at(n))).collect();
    cloud.load(&messages).await?;
    let began = Instant::now();
    cloud.run_stretch(&stretch).await?.completed()?;
    let slowness = (began.elapsed().as_secs_f64() / CALM.as_secs_f64()).max(1.0);
    eprintln!(
        "    {:.1} s for 1,400 messages: {slowness:.1} times as long as on a calm machine",
        began.elapsed().as_secs_f64()
    );
    Ok(slowness)
}

async fn a_window_that_needs_four_lambdas_at_each_step_arrives(cloud: &Cloud) -> Result<()> {
    let slowness = slowness(cloud).await?;
    let stretch = cloud.stretch();
    let at = |n: usize| format!("{}-03-{:02}T{:02}:{:02}:00Z", stretch.year, 1 + n % 30, n / 30 % 24, n / 720 % 60);
    let messages: Vec<Message> = (0..32_000).map(|n| Message::closed(&stretch, &format!("m{n:05}"), &at(n))).collect();
    cloud.load(&messages).await?;
    let wait = delay_millis((700.0 * slowness) as u64);
    let slow = |function, point| fault("", function, point, wait).times(ALWAYS);
    let calls = |function, point| fault("", function, point, Harm::Watch).times(ALWAYS);
    cloud.proxies.arm_all(&[
        slow("query-messages", opensearch("POST", "/_search", &["range", "sort"])),
        slow("write-partitions", s3("PUT", "/archive/parquet/")),
        calls("query-messages", s3("PUT", "/checkpoint.json")),
        calls("classify-alerts", s3("GET", "/checkpoint.json")),
        calls("write-partitions", s3("GET", "/intent.json")),
        calls("write-partitions", s3("GET", "/checkpoint.json")),
    ]);
    let run = async || cloud.run_stretch(&stretch).await;
    let timeouts = [("query-messages", 4.0), ("classify-alerts", 4.0), ("write-partitions", 5.0)];
    let timeouts = timeouts.map(|(function, seconds): (_, f64)| (function, (seconds * slowness).round() as u64));
    let one_window =
        async || cloud.with_setting("plan-windows", "ALERT_ARCHIVE_WINDOW_MESSAGES", ONE_WINDOW, run).await;
    // One object a message would be most of the work.
    let no_copies =
        async || cloud.with_setting("write-partitions", "ALERT_ARCHIVE_WRITE_MESSAGE_JSON", "false", one_window).await;
    let outcome = cloud.with_timeouts(&timeouts, no_copies).await?.completed()?;
    let fired = cloud.proxies.disarm()?;
    ensure!(outcome.report["windows"]["planned"] == 1 && outcome.count("archived") == 32_000, "{:#}", outcome.report);
    // A call of write-partitions reads the decisions, or the intent that an earlier one has registered.
    let calls = [fired[2], fired[3], fired[4] + fired[5]];
    ensure!(calls.iter().all(|calls| *calls >= 4), "query, classify and write were called {calls:?} times");
    check_archive(cloud, &stretch, &messages).await
}

async fn a_second_call_in_a_row_that_gets_no_further_is_no_progress(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    let messages = mixture(&stretch, 12);
    cloud.load(&messages).await?;
    let stuck = async || {
        // The time is over before the first pair is read: of ten seconds two are kept for a clean end.
        cloud
            .proxies
            .arm(fault("", "classify-alerts", s3("GET", "/checkpoint.json"), delay_millis(8100)).times(ALWAYS));
        cloud.run_stretch(&stretch).await?.failed(2, &["NoProgress"])
    };
    let failed = cloud.with_timeouts(&[("classify-alerts", 10)], stuck).await?;
    let calls = cloud.proxies.disarm()?;
    ensure!(calls == [4], "two windows were called {calls:?} times, expected twice each");
    cloud.redrive(failed.run_id()).await?.completed()?;
    check(cloud, &stretch, &messages).await?;
    Ok(())
}

#[allow(non_snake_case)]
async fn each_function_carries_300_MB_in_128_MB_of_memory(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    let mut spec = fixtures::Spec {
        seed: 11,
        count: 14_000,
        from: instant(&format!("{}-03-01", stretch.year)),
        to: instant(&format!("{}-03-02", stretch.year)),
        ..fixtures::Spec::default()
    };
    (spec.indices.messages, spec.indices.history, spec.indices.audit) =
        ("messages-b".into(), "history-a".into(), "audit-a".into());
    let mut bytes = 0;
    // Loading the trail of every message would take longer than the run.
    let documents = generate(&spec).enumerate().flat_map(|(n, message)| {
        bytes += message.document.source.len();
        if n % 20 == 0 { message.into_documents().collect() } else { vec![message.document] }
    });
    cloud.source.write(documents, |_| {}).await?;
    cloud.source.refresh(&["messages", "history", "audit"]).await?;
    ensure!(bytes >= 300_000_000, "the window has {bytes} bytes");
    let run = async || cloud.run_stretch(&stretch).await;
    let one_window =
        async || cloud.with_setting("plan-windows", "ALERT_ARCHIVE_WINDOW_MESSAGES", ONE_WINDOW, run).await;
    let outcome = cloud.with_memory(&FUNCTIONS, 128, one_window).await?.completed()?;
    let (report, counts) = (&outcome.report, spec.counts());
    ensure!(report["windows"]["planned"] == 1 && report["bytes"]["source"] == bytes as u64, "{report:#}");
    ensure!(outcome.count("archived") == counts.closed && outcome.count("open") == counts.open, "{report:#}");
    cloud.verify(&stretch).await?;
    // The limit bites: with a small part of it not even a small window passes.
    let beside = cloud.stretch();
    cloud.load(&mixture(&beside, 12)).await?;
    cloud
        .with_memory(&["query-messages"], 2, async || {
            cloud.run_stretch(&beside).await?.failed(2, &["StepCrashed", "NotStarted"])
        })
        .await?;
    Ok(())
}

#[allow(non_snake_case)]
async fn a_document_of_50_MB_passes_in_256_MB_of_memory(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    let mut messages = mixture(&stretch, 12);
    // OpenSearch takes no string of that length, but a list of them.
    let text = "\"".to_owned() + &"All work and no play. ".repeat(46_000) + "\"";
    let texts = vec![text; 50].join(",");
    for (n, quarantined) in [(12, false), (17, true)] {
        let mut large = one_of_a_mixture(&stretch, n, 60);
        large.source = String::from_utf8(large.source)?
            .replacen(r#""alerts""#, &format!(r#""texts":[{texts}],"alerts""#), 1)
            .into_bytes();
        ensure!(large.source.len() > 50_000_000 && quarantined == large.reason.is_some());
        messages.push(large);
    }
    cloud.load(&messages).await?;
    cloud.with_memory(&FUNCTIONS, 256, async || cloud.run_stretch(&stretch).await).await?.completed()?;
    check(cloud, &stretch, &messages).await?;
    Ok(())
}
