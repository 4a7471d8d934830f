//! Logs as nobody should write them, through the function.

use crate::world::{Cloud, KEY, KINDS, lines};
use flate2::{Compression, write::GzEncoder};
use log_entries::Sightings;
use network::Calm;
use serde_json::json;
use std::io::Write;
use storage::Objects;

/// What was extracted of `text` as the log object `key`.
async fn extracted(cloud: &Cloud, key: &str, text: &[u8]) {
    let mut event = cloud.put(key, "", "01").await;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text).expect("memory");
    let logs = Objects::over(cloud.objects.clone(), "logs");
    logs.put(key, encoder.finish().expect("memory"), "application/gzip").await.expect("stored");
    event["s3"]["object"]["versionId"] = json!(logs.open(key, None).await.expect("stored").version());
    assert_eq!(cloud.deliver(Calm::shared(), &[event]).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn utf_16_and_nul_bytes_cost_no_entry() {
    let text = "\u{feff}2024-07-01T10:00:00Z ERROR caf\u{e9} \0 closed\r\n2024-07-01T10:00:01Z INFO fine\r\n";
    for bytes in [u16::to_le_bytes, u16::to_be_bytes] {
        let cloud = Cloud::new();
        extracted(&cloud, KEY, &text.encode_utf16().flat_map(bytes).collect::<Vec<u8>>()).await;
        let rows = cloud.rows();
        assert_eq!((lines(&cloud), rows[0].message.as_str()), (vec![1], "caf\u{e9} \0 closed"));
        let version = cloud.row().await.current.expect("extracted");
        assert_eq!((version.lines, version.entries, version.unparsed), (2, 1, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_ten_megabytes_are_entries_like_others() {
    let cloud = Cloud::new();
    let long = "x".repeat(10 << 20);
    let text = format!("{long}\n2024-07-01T10:00:00Z ERROR {long}\n2024-07-01T10:00:01Z ERROR short\n");
    extracted(&cloud, KEY, text.as_bytes()).await;
    let rows = cloud.rows();
    assert_eq!((lines(&cloud), rows[0].message.len(), rows[1].message.as_str()), (vec![2, 3], 10 << 20, "short"));
    let version = cloud.row().await.current.expect("extracted");
    assert_eq!((version.unparsed, version.damaged, cloud.counted().await), (1, None, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_is_told_by_its_name_and_what_stands_before_it_counts() {
    let cloud = Cloud::new();
    let error = |what: &str| format!("2024-07-01T10:00:00Z ERROR {what}\n");
    let quiet = format!("2024-07-01T10:00:01Z INFO {}\n", "x".repeat(100_000));
    extracted(&cloud, KEY, [error("before"), quiet.repeat(1_000), error("behind")].concat().as_bytes()).await;
    let version = cloud.row().await.current.expect("extracted");
    assert_eq!(version.damaged.map(|damaged| damaged.error).as_deref(), Some("GzipBomb"));
    assert_eq!((lines(&cloud), cloud.counted().await), (vec![1], 1));
    assert!(version.bytes < 70 << 20, "{} bytes were unpacked", version.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_with_more_kinds_of_errors_than_are_noted_says_so_and_loses_none() {
    const MOST: u64 = KINDS as u64;
    let cloud = Cloud::new();
    // Letters that no number has: what looks like an id is of no kind.
    let word = |number: u64| -> String {
        (0..4).map(|digit| char::from(b'g' + u8::try_from(number / 17_u64.pow(digit) % 17).expect("small"))).collect()
    };
    let line = |number: u64| format!("2024-07-01T10:00:00Z ERROR cannot {} the order\n", word(number));
    let text: String = (0..MOST + 30).chain([3, MOST + 3]).map(line).collect();
    extracted(&cloud, KEY, text.as_bytes()).await;
    let version = cloud.row().await.current.expect("extracted");
    assert_eq!((version.entries, version.unlisted), (MOST + 32, 31));
    assert_eq!((cloud.rows().len() as u64, cloud.counted().await), (MOST + 32, MOST + 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_an_error_was_seen_stands_in_one_row_whatever_came_in_which_order() {
    let cloud = Cloud::new();
    let mut events = Vec::new();
    for (key, time) in [("shop/b.gz", "2024-07-03T10:00:00Z"), ("shop/a.gz", "2024-07-01T10:00:00Z")] {
        events.push(cloud.put(key, &format!("{time} ERROR gone\n"), "01").await);
    }
    for _ in 0..2 {
        assert_eq!(cloud.deliver(Calm::shared(), &events).await, 0);
    }
    let seen: Vec<Sightings> = cloud.sightings().await;
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].first_seen, "2024-07-01T10:00:00.000Z");
    assert_eq!(seen[0].days.keys().collect::<Vec<_>>(), ["2024-07-01", "2024-07-03"]);
    // As an earlier version left it: a row an object, and none over all.
    let earlier = Cloud::new();
    for row in cloud.tables.contents("errors").into_iter().filter(|row| row.contains_key("contribution")) {
        earlier.tables.plant("errors", row);
    }
    let event = earlier.put("shop/c.gz", "2024-07-09T10:00:00Z ERROR gone\n", "01").await;
    assert_eq!(earlier.deliver(Calm::shared(), &[event]).await, 0);
    let seen = earlier.sightings().await;
    assert_eq!(seen[0].first_seen, "2024-07-01T10:00:00.000Z");
    assert_eq!(seen[0].days.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_any_service_lie_in_objects_that_hive_spark_and_athena_read() {
    let cloud = Cloud::new();
    for service in ["_billing", ".net", "\u{dc}bersicht", "shop"] {
        let key = format!("{service}/2024/07/01/app.gz");
        for sequencer in ["01", "02"] {
            let event = cloud.put(&key, "2024-07-01T10:00:00Z ERROR gone\n", sequencer).await;
            assert_eq!(cloud.deliver(Calm::shared(), &[event]).await, 0);
        }
        assert!(cloud.rows().iter().any(|row| row.service == service && row.object == key), "{service}");
    }
    assert_eq!(cloud.rows().len(), 4, "a version replaces the one before");
    for key in cloud.objects.contents("archive").keys().filter(|key| key.ends_with(".parquet")) {
        assert!(key.split('/').all(|name| !name.starts_with(['_', '.'])), "{key} is hidden");
    }
}
