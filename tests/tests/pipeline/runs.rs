//! What a run does with documents of every kind.

use crate::tests;
use anyhow::{Context, Result, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use fixtures::{Disposition, Spec, generate, golden};
use hyper::Method;
use identity::Identity;
use pipeline_tests::{
    Cloud, Message, PATIENCE, check,
    documents::{instant, mixture},
    faults::{delay, fault, opensearch},
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

tests![
    every_message_is_archived_held_or_quarantined_and_duckdb_reads_it_byte_for_byte,
    the_tables_and_manifests_say_what_a_run_did,
    generated_messages_of_real_size_reconcile,
    every_document_of_the_golden_set_comes_to_its_outcome,
    ten_thousand_and_fifty_messages_of_one_instant_behind_an_alias_of_three_indices_arrive,
    an_open_message_is_staged_and_leaves_the_staging_area_when_it_closes,
    windows_end_to_the_millisecond,
    extract_stages_and_process_writes,
    a_stretch_without_messages_completes_without_windows,
    a_window_whose_documents_are_gone_commits_a_manifest_all_the_same,
    a_document_that_no_refresh_has_shown_is_archived_by_the_next_run,
    an_id_in_two_indices_is_a_collision_also_across_windows,
];

async fn every_message_is_archived_held_or_quarantined_and_duckdb_reads_it_byte_for_byte(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    let messages = mixture(&stretch, 60);
    cloud.load(&messages).await?;
    let outcome = cloud.run_stretch(&stretch).await?.completed()?;
    let of = |disposition| messages.iter().filter(|message| message.disposition == disposition).count() as u64;
    let expected = [
        ("source", 60),
        ("archived", of(Disposition::Closed)),
        ("open", of(Disposition::Open)),
        ("quarantined", of(Disposition::Quarantined)),
        ("already_archived", 0),
        ("no_alerts", 5),
    ];
    for (name, count) in expected {
        ensure!(outcome.count(name) == count, "{name}: expected {count} in {}", outcome.report);
    }
    check(cloud, &stretch, &messages).await?;
    Ok(())
}

async fn the_tables_and_manifests_say_what_a_run_did(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    let messages = mixture(&stretch, 24);
    cloud.load(&messages).await?;
    let outcome = cloud.run_stretch(&stretch).await?.completed()?;
    let run = cloud.job_run(outcome.run_id()).await?;
    ensure!(run["status"] == "Completed" && run["mode"] == "range" && run["attempt"] == 1, "{run}");
    ensure!(
        run["from"] == format!("{}T00:00:00.000Z", stretch.from())
            && run["to"] == format!("{}T00:00:00.000Z", stretch.to()),
        "{run}"
    );
    ensure!(
        run["created_at"].is_string() && run["updated_at"].is_string() && run["counts"] == outcome.report["messages"],
        "{run}"
    );
    let windows = cloud.window_rows(outcome.run_id()).await?;
    ensure!(
        windows.len() == 2 && outcome.report["windows"] == json!({"planned": 2, "succeeded": 2, "failed": 0}),
        "{windows:?}"
    );
    let mut sum = BTreeMap::<String, u64>::new();
    for window in &windows {
        let id = window["window_id"].as_str().unwrap_or_default();
        ensure!(
            window["status"] == "Completed"
                && window["attempt"] == 1
                && !id.contains(':')
                && id.starts_with(&stretch.year.to_string()),
            "{window}"
        );
        ensure!(cloud.get(window["manifest_key"].as_str().context("manifest_key")?).await.is_ok(), "{window}");
        for (name, count) in window["messages"].as_object().into_iter().flatten() {
            *sum.entry(name.clone()).or_default() += count.as_u64().unwrap_or_default();
        }
    }
    ensure!(json!(sum) == outcome.report["messages"], "the windows come to {sum:?}");
    // Each manifest names what stands there, with its size.
    let manifests = cloud.manifests(outcome.run_id()).await?;
    let mut named = BTreeSet::new();
    for object in manifests.iter().flat_map(|manifest| manifest["objects"].as_array().into_iter().flatten()) {
        let key = object["key"].as_str().context("key")?;
        let body = cloud.get(key).await?;
        ensure!(object["bytes"] == body.len() as u64 && object["sha256"].as_str() == Some(&sha256(&body)), "{object}");
        named.insert(key.to_owned());
    }
    let year = stretch.year;
    for prefix in [
        format!("archive/parquet/date={year}-"),
        format!("archive/jsonl/date={year}-"),
        format!("quarantine/date={year}-"),
    ] {
        let stray: Vec<_> = cloud.keys(&prefix).await?.into_keys().filter(|key| !named.contains(key)).collect();
        ensure!(stray.is_empty(), "no manifest names {stray:?}");
    }
    ensure!(cloud.mails(outcome.run_id())?.len() == 1, "{} mails", cloud.mails(outcome.run_id())?.len());
    let runs: Value = serde_json::from_slice(&cloud.get("dashboard/data/runs.json").await?)?;
    ensure!(runs.to_string().contains(outcome.run_id()), "the dashboard does not list the run");
    Ok(())
}

fn sha256(body: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    hex::encode(Sha256::digest(body))
}

async fn generated_messages_of_real_size_reconcile(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    let mut spec = Spec {
        seed: 7,
        count: 150,
        from: instant(&format!("{}-03-01", stretch.year)),
        to: instant(&format!("{}-03-31", stretch.year)),
        defect_share: 0.05,
        ..Spec::default()
    };
    (spec.indices.messages, spec.indices.history, spec.indices.audit) =
        ("messages-b".into(), "history-a".into(), "audit-a".into());
    let documents: Vec<_> = generate(&spec).flat_map(fixtures::Message::into_documents).collect();
    cloud.source.write(documents.into_iter(), |_| {}).await?;
    cloud.source.refresh(&["messages", "history", "audit"]).await?;
    let outcome = cloud.run_stretch(&stretch).await?.completed()?;
    let counts = spec.counts();
    for (name, count) in [
        ("source", counts.source),
        ("archived", counts.closed),
        ("open", counts.open),
        ("quarantined", counts.quarantined),
        ("no_alerts", counts.no_alerts),
    ] {
        ensure!(outcome.count(name) == count, "{name}: expected {count} in {}", outcome.report);
    }
    let archived: BTreeMap<_, _> =
        cloud.archived(&stretch).await?.into_iter().map(|row| (row.message_id.clone(), row)).collect();
    ensure!(archived.len() as u64 == counts.closed, "{} rows", archived.len());
    for message in generate(&spec).filter(|message| message.expected.disposition == Disposition::Closed) {
        let row = archived.get(&message.document.id).with_context(|| message.document.id.clone())?;
        ensure!(row.message.as_bytes() == message.document.source, "{} is not what it was", message.document.id);
        ensure!(
            row.history.len() == message.history.len() && row.audit.len() == message.audit.len(),
            "{} lacks history or audit",
            message.document.id
        );
    }
    Ok(())
}

/// The golden documents of `kind` that name the message `id`, alone or in a list, sorted by their bytes.
fn related(cloud: &Cloud, kind: &str, id: &str) -> Vec<String> {
    let of_kind = cloud.golden.iter().filter(|golden| golden.document.index.starts_with(kind));
    let texts = of_kind.filter_map(|golden| std::str::from_utf8(&golden.document.source).ok());
    let names = |text: &&str| match serde_json::from_str::<Value>(text).map(|mut body| body["message_id"].take()) {
        Ok(Value::String(one)) => one == id,
        Ok(Value::Array(several)) => several.iter().any(|one| one == id),
        Ok(Value::Number(number)) => number.to_string() == id,
        _ => false,
    };
    sorted(&texts.filter(names).map(str::to_owned).collect::<Vec<_>>())
}

fn sorted(texts: &[String]) -> Vec<String> {
    let mut texts = texts.to_vec();
    texts.sort();
    texts
}

async fn every_document_of_the_golden_set_comes_to_its_outcome(cloud: &Cloud) -> Result<()> {
    let (from, to) = (golden::FROM, golden::TO);
    let expected = golden::counts(&cloud.golden, instant(from), instant(to));
    let outcome = cloud.run(from, to).await?.completed()?;
    for (name, count) in [
        ("source", expected.source),
        ("archived", expected.closed),
        ("open", expected.open),
        ("quarantined", expected.quarantined),
        ("no_alerts", expected.no_alerts),
    ] {
        ensure!(outcome.count(name) == count, "{name}: expected {count} in {:#}", outcome.report);
    }
    ensure!(outcome.report["undated"] == expected.undated, "{:#}", outcome.report);
    ensure!(outcome.report["collisions"] == golden::collisions(&cloud.golden), "{:#}", outcome.report);
    let dated = |date: &str| date.starts_with("2024-01-0") && date != "2024-01-08";
    let rows: Vec<_> =
        cloud.parquet("archive/parquet/date=2024-01-").await?.into_iter().filter(|row| dated(&row.date)).collect();
    let archived: BTreeMap<_, _> = rows.iter().map(|row| (row.identity(), row)).collect();
    ensure!(archived.len() == rows.len(), "a golden message is archived twice");
    let stretch = pipeline_tests::Stretch { year: 2024, prefix: String::new() };
    let quarantined: BTreeMap<_, _> = cloud
        .quarantined(&stretch)
        .await?
        .into_iter()
        .map(|line| (Identity::new(&line.source_index, &line.id), line))
        .collect();
    let mut faults = Vec::new();
    for golden in &cloud.golden {
        let (Some(expect), Some(at)) = (&golden.expected, golden.timestamp) else { continue };
        if at < instant(from) || at >= instant(to) {
            continue;
        }
        let key = Identity::new(&golden.document.index, &golden.document.id);
        let (row, line) = (archived.get(&key), quarantined.get(&key));
        let id = golden.document.id.as_str();
        let kept = match expect.disposition {
            Disposition::Closed => {
                line.is_none()
                    && row.is_some_and(|row| {
                        let (history, audit) = (related(cloud, "history", id), related(cloud, "audit", id));
                        row.message.as_bytes() == golden.document.source
                            && sorted(&row.history) == history
                            && sorted(&row.audit) == audit
                    })
            }
            Disposition::Open => row.is_none() && line.is_none(),
            Disposition::Quarantined => {
                row.is_none()
                    && line.is_some_and(|line| {
                        Some(&line.reason) == expect.reason.as_ref()
                            && BASE64_STANDARD
                                .decode(&line.source_base64)
                                .is_ok_and(|bytes| bytes == golden.document.source)
                    })
            }
        };
        if !kept {
            faults.push(format!(
                "{key:?}: expected {expect:?}, because {}; archived: {}, quarantined: {:?}",
                golden.why,
                row.is_some(),
                line.map(|line| &line.reason)
            ));
        }
    }
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

async fn ten_thousand_and_fifty_messages_of_one_instant_behind_an_alias_of_three_indices_arrive(
    cloud: &Cloud,
) -> Result<()> {
    const COUNT: usize = 10_050;
    let stretch = cloud.stretch();
    let at = format!("{}-06-15T12:00:00.123Z", stretch.year);
    let messages: Vec<Message> = (0..COUNT)
        .map(|n| {
            Message::closed(&stretch, &format!("{n:05}"), &at)
                .in_index(["messages-a", "messages-b", "messages-c"][n % 3])
        })
        .collect();
    cloud.load(&messages).await?;
    // One object a message would take longer than all the rest.
    let plainly = async || cloud.run_stretch(&stretch).await?.completed();
    let outcome = cloud.with_setting("write-partitions", "ALERT_ARCHIVE_WRITE_MESSAGE_JSON", "false", plainly).await?;
    ensure!(
        outcome.count("source") == COUNT as u64 && outcome.count("archived") == COUNT as u64,
        "{:#}",
        outcome.report
    );
    let archived: BTreeMap<_, _> =
        cloud.archived(&stretch).await?.into_iter().map(|row| (row.identity(), row.message)).collect();
    ensure!(archived.len() == COUNT, "{} rows", archived.len());
    for message in &messages {
        ensure!(archived[&Identity::new(&message.index, &message.id)].as_bytes() == message.source, "{}", message.id);
    }
    Ok(())
}

async fn an_open_message_is_staged_and_leaves_the_staging_area_when_it_closes(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    let at = format!("{}-04-01T10:00:00Z", stretch.year);
    let mut messages = vec![
        Message::open(&stretch, "waits", &at),
        Message::closed(&stretch, "done", &at),
        Message::open(&stretch, "closes", &at),
    ];
    cloud.load(&messages).await?;
    let first = cloud.run_stretch(&stretch).await?.completed()?;
    ensure!(first.count("open") == 2, "{:#}", first.report);
    check(cloud, &stretch, &messages).await?;
    let seen = cloud.rows(&messages[2..]).await?.into_values().next().context("a row")?;
    messages[2] = messages[2].now_closed();
    cloud.load(&messages[2..]).await?;
    let second = cloud.run_stretch(&stretch).await?.completed()?;
    ensure!(
        second.count("open") == 1 && second.count("archived") == 1 && second.count("already_archived") == 1,
        "{:#}",
        second.report
    );
    check(cloud, &stretch, &messages).await?;
    let row = cloud.rows(&messages[2..]).await?.into_values().next().context("a row")?;
    ensure!(
        row["first_seen_open"] == seen["first_seen_open"] && row["inserted_at"] == seen["inserted_at"],
        "{seen} became {row}"
    );
    Ok(())
}

async fn windows_end_to_the_millisecond(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    let day = format!("{}-07-01T", stretch.year);
    let named = |name: &str, time: &str| Message::closed(&stretch, name, &format!("{day}{time}"));
    let messages = [
        named("before", "09:59:59.999Z"),
        named("first", "10:00:00.000Z"),
        named("last", "10:00:00.001Z"),
        named("after", "10:00:00.002Z"),
    ];
    cloud.load(&messages).await?;
    let outcome = cloud.run(&format!("{day}10:00:00.000Z"), &format!("{day}10:00:00.002Z")).await?.completed()?;
    ensure!(outcome.count("source") == 2, "{:#}", outcome.report);
    check(cloud, &stretch, &messages[1..3]).await?;
    let next = cloud.run(&format!("{day}10:00:00.002Z"), &format!("{day}10:00:00.003Z")).await?.completed()?;
    ensure!(next.count("archived") == 1, "{:#}", next.report);
    let rest = cloud.run_stretch(&stretch).await?.completed()?;
    ensure!(rest.count("archived") == 1 && rest.count("already_archived") == 3, "{:#}", rest.report);
    check(cloud, &stretch, &messages).await?;
    Ok(())
}

async fn extract_stages_and_process_writes(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    let messages = mixture(&stretch, 24);
    cloud.load(&messages).await?;
    let extracted = cloud
        .archive(&["run", "--mode", "extract", "--from", &stretch.from(), "--to", &stretch.to(), "--wait", "--json"])
        .await?;
    ensure!(extracted.well && extracted.report["status"] == "Completed", "{:#}\n{}", extracted.report, extracted.said);
    ensure!(cloud.archived(&stretch).await?.is_empty(), "an extraction wrote to the archive");
    ensure!(cloud.staged(&stretch).await?.len() == messages.len(), "not everything is staged");
    let processed = cloud.archive(&["run", "--mode", "process", "--wait", "--json"]).await?.completed()?;
    ensure!(processed.count("archived") > 0, "{:#}", processed.report);
    check(cloud, &stretch, &messages).await?;
    Ok(())
}

async fn a_stretch_without_messages_completes_without_windows(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    let outcome = cloud.run_stretch(&stretch).await?.completed()?;
    ensure!(outcome.report["windows"]["planned"] == 0 && outcome.count("source") == 0, "{:#}", outcome.report);
    ensure!(cloud.mails(outcome.run_id())?.len() == 1, "a run without windows owes its report too");
    Ok(())
}

async fn a_window_whose_documents_are_gone_commits_a_manifest_all_the_same(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    let messages = [Message::closed(&stretch, "gone", &format!("{}-04-01T10:00:00Z", stretch.year))];
    cloud.load(&messages).await?;
    cloud.proxies.arm(fault("", "query-messages", opensearch("POST", "/_search/point_in_time", &[]), delay(3)));
    let name = cloud.name("gone", &stretch);
    cloud.start(&name, &json!({"mode": "range", "from": stretch.from(), "to": stretch.to()})).await?;
    let began = Instant::now();
    while cloud.proxies.fired() == [0] {
        ensure!(began.elapsed() < PATIENCE, "the run does not get as far as its point in time");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let url = format!("{}/{}/_doc/{}?refresh=true", cloud.opensearch_url, messages[0].index, messages[0].id);
    ensure!(cloud.http.send(Method::DELETE, &url, "").await?.0.is_success(), "the document cannot be deleted");
    ensure!(cloud.ended(&name).await?.status == "SUCCEEDED");
    let report = cloud.report(&name).await?;
    ensure!(
        report["windows"]["succeeded"] == 1 && report["messages"]["source"] == 0 && report["reconciled"] == true,
        "{report:#}"
    );
    let manifests = cloud.manifests(&name).await?;
    ensure!(
        manifests.len() == 1 && manifests[0]["source"] == 0 && manifests[0]["objects"] == json!([]),
        "{manifests:?}"
    );
    Ok(())
}

async fn a_document_that_no_refresh_has_shown_is_archived_by_the_next_run(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    let at = |hour: u32| format!("{}-04-01T{hour:02}:00:00Z", stretch.year);
    let (shown, hidden) = (Message::closed(&stretch, "shown", &at(1)), Message::closed(&stretch, "hidden", &at(2)));
    cloud.load(std::slice::from_ref(&shown)).await?;
    let set = async |interval: Value| -> Result<()> {
        let url = format!("{}/{}/_settings", cloud.opensearch_url, hidden.index);
        let (status, body) =
            cloud.http.send(Method::PUT, &url, json!({"index": {"refresh_interval": interval}}).to_string()).await?;
        ensure!(status.is_success(), "{}", String::from_utf8_lossy(&body));
        Ok(())
    };
    set(json!("-1")).await?;
    cloud.source.write([hidden.document()].into_iter(), |_| {}).await?;
    let first = cloud.run_stretch(&stretch).await?.completed()?;
    set(Value::Null).await?;
    ensure!(first.count("source") == 1, "{:#}", first.report);
    cloud.source.refresh(&["messages"]).await?;
    cloud.run_stretch(&stretch).await?.completed()?;
    check(cloud, &stretch, &[shown, hidden]).await?;
    Ok(())
}

async fn an_id_in_two_indices_is_a_collision_also_across_windows(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    let at = |month: u32| format!("{}-{month:02}-01T10:00:00Z", stretch.year);
    let near =
        [Message::closed(&stretch, "near", &at(2)), Message::open(&stretch, "near", &at(2)).in_index("messages-b")];
    let far =
        [Message::closed(&stretch, "far", &at(2)), Message::closed(&stretch, "far", &at(9)).in_index("messages-c")];
    let alone = [Message::closed(&stretch, "alone", &at(5))];
    let messages = [&near[..], &far[..], &alone[..]].concat();
    cloud.load(&messages).await?;
    let outcome = cloud.run_stretch(&stretch).await?.completed()?;
    ensure!(outcome.report["windows"]["planned"] == 3 && outcome.report["collisions"] == 2, "{:#}", outcome.report);
    check(cloud, &stretch, &messages).await?;
    Ok(())
}
