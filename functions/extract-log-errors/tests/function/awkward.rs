//! Logs as nobody should write them, through the function.

use crate::world::{Cloud, KEY, lines};
use flate2::{Compression, write::GzEncoder};
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
    let mut text = b"2024-07-01T10:00:00Z ERROR before\n".to_vec();
    text.resize(100 << 20, b'\n');
    text.extend_from_slice(b"2024-07-01T10:00:00Z ERROR behind\n");
    extracted(&cloud, KEY, &text).await;
    let version = cloud.row().await.current.expect("extracted");
    assert_eq!(version.damaged.map(|damaged| damaged.error).as_deref(), Some("GzipBomb"));
    assert_eq!((lines(&cloud), cloud.counted().await), (vec![1], 1));
    assert!(version.bytes < 70 << 20, "{} bytes were unpacked", version.bytes);
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
