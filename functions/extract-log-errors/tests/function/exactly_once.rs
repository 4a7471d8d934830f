//! Whatever happens to a call, once the queue is empty each entry of the newest version is there once.

use crate::world::{Cloud, KEY, lines, log};
use async_trait::async_trait;
use log_entries::ENTRIES;
use network::{Broken, Calm, Network, OneFault, Request, Strike};
use runtime::Clock;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use storage::Objects;

fn is_of_an_attempt(key: &str) -> bool {
    key.starts_with("log-errors/staging/") || key.starts_with("log-errors/objects/")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_becomes_entries_by_the_date_of_their_time() {
    let cloud = Cloud::new();
    let event = cloud.put(KEY, &(log(0..6) + "no format\nERROR without a time\n"), "01").await;
    assert_eq!(cloud.deliver(Calm::shared(), &[event]).await, 0);
    assert_eq!(lines(&cloud), [1, 3, 5, 7, 9, 11, 14]);
    let keys: Vec<String> =
        cloud.objects.contents("archive").into_keys().filter(|key| key.starts_with(ENTRIES)).collect();
    for date in ["date=2024-07-01", "date=2024-07-02", "date=2024-07-03", "date=2026-11-21"] {
        assert!(keys.iter().any(|key| key.contains(date)), "{date} is not among {keys:?}");
    }
    let version = cloud.row().await.current.expect("extracted");
    assert_eq!((version.lines, version.entries, version.unparsed, version.damaged), (14, 7, 0, None));
    assert_eq!(cloud.counted().await, 7);
    assert!(!cloud.objects.contents("archive").keys().any(|key| key.contains("/staging/")));
}

#[tokio::test(flavor = "multi_thread")]
async fn twice_out_of_order_and_again_changes_nothing() {
    let cloud = Cloud::new();
    let first = cloud.put(KEY, &log(0..3), "01").await;
    let second = cloud.put(KEY, &log(0..5), "02").await;
    assert_eq!(cloud.deliver(Calm::shared(), &[second.clone(), first.clone(), second.clone()]).await, 0);
    assert_eq!(lines(&cloud), [1, 3, 5, 7, 9]);
    let before = cloud.objects.contents("archive");
    assert_eq!(cloud.deliver(Calm::shared(), &[first, second]).await, 0);
    assert_eq!(cloud.objects.contents("archive"), before);
    assert_eq!(cloud.counted().await, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_replaces_the_rows_of_the_one_before() {
    let cloud = Cloud::new();
    for (errors, sequencer) in [(0..4, "01"), (0..9, "02"), (7..9, "03")] {
        let event = cloud.put(KEY, &log(errors), sequencer).await;
        assert_eq!(cloud.deliver(Calm::shared(), &[event]).await, 0);
    }
    assert_eq!(lines(&cloud), [1, 3]);
    assert_eq!(cloud.counted().await, 2);
    let other = cloud.put(KEY, "2024-07-01T10:00:00Z ERROR another\n", "04").await;
    assert_eq!(cloud.deliver(Calm::shared(), &[other]).await, 0);
    assert_eq!((lines(&cloud), cloud.counted().await), (vec![1], 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_message_that_fails_takes_no_other_with_it() {
    let cloud = Cloud::new();
    let event = cloud.put(KEY, &log(0..3), "01").await;
    let mut gone = event.clone();
    gone["s3"]["object"]["key"] = json!("shop/2024/07/01/gone.gz");
    gone["s3"]["object"]["versionId"] = json!(null);
    assert_eq!(cloud.deliver(Calm::shared(), &[gone, event]).await, 1);
    assert_eq!(lines(&cloud), [1, 3, 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_object_that_fails_takes_no_other_of_its_message_with_it() {
    let cloud = Cloud::new();
    let event = cloud.put(KEY, &log(0..3), "01").await;
    let mut gone = event.clone();
    gone["s3"]["object"]["key"] = json!("shop/2024/07/01/gone.gz");
    gone["s3"]["object"]["versionId"] = json!(null);
    assert_eq!(cloud.deliver_messages(Calm::shared(), &[&[gone, event]]).await, 1);
    assert_eq!(lines(&cloud), [1, 3, 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_before_a_damage_counts_and_the_damage_is_noted() {
    let cloud = Cloud::new();
    let event = cloud.put(KEY, &log(0..500), "01").await;
    let logs = Objects::over(cloud.objects.clone(), "logs");
    let body = logs.get(KEY).await.expect("stored");
    logs.put(KEY, body.slice(..body.len() - 20), "application/gzip").await.expect("stored");
    let mut event = event;
    event["s3"]["object"]["versionId"] = json!(logs.open(KEY, None).await.expect("stored").version());
    assert_eq!(cloud.deliver(Calm::shared(), &[event]).await, 0);
    let version = cloud.row().await.current.expect("extracted");
    assert_eq!(version.damaged.map(|damaged| damaged.error).as_deref(), Some("GzipTruncated"));
    assert!(version.entries > 100 && version.entries == cloud.rows().len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_at_any_request_costs_no_entry_and_doubles_none() {
    let extracted = Cloud::new();
    let first = extracted.put(KEY, &log(0..4), "01").await;
    assert_eq!(extracted.deliver(Calm::shared(), std::slice::from_ref(&first)).await, 0);
    let second = extracted.put(KEY, &log(2..9), "02").await;
    for strike in [Strike::Request, Strike::Answer, Strike::AnswerThenRetry] {
        let mut nth = 0;
        loop {
            let cloud = extracted.copied();
            let fault = OneFault::at(nth, strike);
            let mut left = cloud.deliver(fault.clone(), std::slice::from_ref(&second)).await;
            let mut tries = 0;
            while left > 0 {
                // What a dead call claimed is free after the time that it had.
                cloud.clock.advance(Duration::from_secs(1000));
                left = cloud.deliver(Calm::shared(), &[first.clone(), second.clone()]).await;
                tries += 1;
                assert!(tries < 4, "request {nth}, {strike:?}: it does not get further");
            }
            assert_eq!(lines(&cloud), (0..7).map(|n| n * 2 + 1).collect::<Vec<_>>(), "request {nth}, {strike:?}");
            assert_eq!(cloud.counted().await, 7, "request {nth}, {strike:?}");
            // Only where nothing came after the attempt that failed does something of it stay, for the lifecycle.
            let attempts = cloud.row().await.work.map_or(0, |work| work.attempt());
            let left: Vec<String> =
                cloud.objects.contents("archive").into_keys().filter(|key| is_of_an_attempt(key)).collect();
            assert!(attempts < 2 || left.len() == 1, "request {nth}, {strike:?}: {left:?}");
            if !fault.struck() {
                assert!(nth > 15, "only {nth} requests were looked at");
                break;
            }
            nth += 1;
        }
    }
}

/// A network that is gone from its nth request on.
struct SilentFrom {
    nth: usize,
    seen: AtomicUsize,
}

#[async_trait]
impl Network for SilentFrom {
    async fn sent(&self, _: &Request) -> Result<(), Broken> {
        if self.seen.fetch_add(1, Ordering::Relaxed) < self.nth { Ok(()) } else { Err(Broken) }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_log_is_at_work_elsewhere_waits_for_it_and_fails_when_that_takes_too_long() {
    let cloud = Cloud::new();
    let event = cloud.put(KEY, &log(0..3), "01").await;
    // A call that dies without a word: its claim stands for as long as it might have lived.
    let silent = Arc::new(SilentFrom { nth: 3, seen: AtomicUsize::new(0) });
    assert_eq!(cloud.deliver(silent, std::slice::from_ref(&event)).await, 1);
    let began = cloud.clock.elapsed();
    assert_eq!(cloud.deliver(Calm::shared(), std::slice::from_ref(&event)).await, 1, "the holder may still live");
    assert!(cloud.clock.elapsed() - began >= Duration::from_secs(60), "it did not wait");
    // Seconds before the claim is over.
    cloud.clock.advance(Duration::from_secs(840));
    assert_eq!((cloud.deliver(Calm::shared(), &[event]).await, lines(&cloud)), (0, vec![1, 3, 5]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_stands_in_the_entries_and_in_no_table() {
    let cloud = Cloud::new();
    let event = cloud.put(KEY, "2024-07-01T10:00:00Z ERROR login failed password=hunter2\n", "01").await;
    assert_eq!(cloud.deliver(Calm::shared(), &[event]).await, 0);
    assert!(cloud.rows()[0].message.contains("hunter2"));
    let tables = format!("{:?}", ["errors", "objects"].map(|table| cloud.tables.contents(table)));
    assert!(tables.contains("login failed") && !tables.contains("hunter2"), "{tables}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_text_is_too_long_for_a_row() {
    let cloud = Cloud::new();
    let long = "A".repeat(500_000);
    let json = json!({"level": "error", "logger": long, "msg": long});
    let text = format!("2024-07-01T10:00:00Z ERROR {long}Exception: boom\n{json}\n");
    let event = cloud.put(KEY, &text, "01").await;
    assert_eq!(cloud.deliver(Calm::shared(), &[event]).await, 0);
    assert_eq!((lines(&cloud), cloud.counted().await), (vec![1, 2], 2));
    assert_eq!(cloud.rows()[0].exception.as_ref().map(String::len), Some(500_009), "the rows hold it whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_may_have_errors_of_each_day_of_years() {
    const DAYS: i64 = 400;
    let cloud = Cloud::new();
    let key = format!("shop/2024/07/01/{}.gz", "long".repeat(50));
    let time = |day: i64| jiff::Timestamp::from_second(day * 86_400 + 1_600_000_000).expect("in range");
    let text: String = (0..DAYS).map(|day| format!("{:.3} ERROR gone\n", time(day))).collect();
    // The second version has the first one beside it.
    for sequencer in ["01", "02"] {
        let event = cloud.put(&key, &text, sequencer).await;
        assert_eq!(cloud.deliver(Calm::shared(), &[event]).await, 0);
        assert_eq!((cloud.rows().len(), cloud.counted().await), (DAYS as usize, DAYS as u64));
    }
}
