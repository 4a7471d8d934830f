//! What a person asks of the command line, on an archive that real runs wrote.

use crate::tests;
use anyhow::{Context, Result, ensure};
use fixtures::Disposition;
use hyper::Method;
use pipeline_tests::{Cloud, Message, check, documents::mixture};
use serde_json::Value;
use std::collections::BTreeSet;

tests![
    verify_finds_nothing_wrong_then_a_lost_object_which_is_repaired,
    verify_names_a_message_that_came_after_its_window_and_one_whose_row_is_gone,
    restored_messages_are_identical_in_a_file_and_in_an_index,
    find_open_and_quarantine_tell_where_a_message_is,
];

fn closed(messages: &[Message]) -> Vec<&Message> {
    messages.iter().filter(|message| message.disposition == Disposition::Closed).collect()
}

async fn verify_finds_nothing_wrong_then_a_lost_object_which_is_repaired(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    let messages = mixture(&stretch, 24);
    cloud.load(&messages).await?;
    cloud.run_stretch(&stretch).await?.completed()?;
    let (from, to) = (stretch.from(), stretch.to());
    let verify = ["verify", "--from", &from, "--to", &to, "--deep", "--json"];
    let good = cloud.archive(&verify).await?;
    ensure!(
        good.well && good.report["ok"] == true && good.report["findings"] == serde_json::json!([]),
        "{:#}\n{}",
        good.report,
        good.said
    );
    let key = cloud
        .keys(&format!("archive/parquet/date={}-02-01/", stretch.year))
        .await?
        .into_keys()
        .next()
        .context("an object")?;
    cloud.s3.delete_object().bucket(&cloud.bucket).key(&key).send().await?;
    let bad = cloud.archive(&verify).await?;
    ensure!(
        !bad.well && bad.report["ok"] == false && bad.report["findings"].to_string().contains(&key),
        "{:#}\n{}",
        bad.report,
        bad.said
    );
    cloud.archive(&[&verify[..], &["--repair"]].concat()).await?;
    cloud.run_stretch(&stretch).await?.completed()?;
    check(cloud, &stretch, &messages).await?;
    let again = cloud.archive(&verify).await?;
    ensure!(again.well, "{:#}\n{}", again.report, again.said);
    Ok(())
}

async fn verify_names_a_message_that_came_after_its_window_and_one_whose_row_is_gone(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    let mut messages = mixture(&stretch, 24);
    cloud.load(&messages).await?;
    cloud.run_stretch(&stretch).await?.completed()?;
    // One goes and one comes, so that the counts of the day stay equal.
    let gone =
        messages.iter().position(|message| message.disposition == Disposition::Open).context("an open message")?;
    let gone = messages.remove(gone);
    let late = Message::closed(&stretch, "late", &format!("{}T12:00:00Z", gone.date()));
    let url = format!("{}/{}/_doc/{}?refresh=true", cloud.opensearch_url, gone.index, gone.id);
    ensure!(cloud.http.send(Method::DELETE, &url, "").await?.0.is_success(), "the document cannot be deleted");
    let rowless = &messages[0];
    cloud.forget(rowless).await?;
    messages.push(late);
    cloud.load(&messages).await?;
    let verified =
        cloud.archive(&["verify", "--from", &stretch.from(), "--to", &stretch.to(), "--deep", "--json"]).await?;
    let findings = verified.report["findings"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|finding| finding["kind"] != "source_unaccounted");
    let named: BTreeSet<&str> = findings.filter_map(|finding| finding["what"].as_str()).collect();
    ensure!(!verified.well, "verify finds nothing: {:#}", verified.report);
    ensure!(
        named == BTreeSet::from([messages[0].id.as_str(), messages[messages.len() - 1].id.as_str()]),
        "{:#}",
        verified.report
    );
    Ok(())
}

async fn restored_messages_are_identical_in_a_file_and_in_an_index(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    let messages = mixture(&stretch, 24);
    cloud.load(&messages).await?;
    cloud.run_stretch(&stretch).await?.completed()?;
    let (from, to) = (stretch.from(), stretch.to());
    let file = cloud.scratch.join(format!("restored-{}.jsonl", stretch.prefix));
    let path = file.to_string_lossy().into_owned();
    let restored = cloud.archive(&["restore", "--from", &from, "--to", &to, "--out", &path]).await?;
    ensure!(restored.well, "{}", restored.said);
    let text = String::from_utf8(std::fs::read(&file)?)?;
    for message in closed(&messages) {
        ensure!(
            text.contains(&format!("{}\n", String::from_utf8_lossy(&message.source))),
            "{} is not in the file as it was",
            message.id
        );
    }
    let length: usize = closed(&messages).iter().map(|message| message.source.len() + 1).sum();
    ensure!(text.len() == length, "the file has {} bytes, expected {length}", text.len());
    let index = format!("messages-restored-{}", stretch.prefix);
    cloud.source.create_index(&index, fixtures::load::Kind::Messages).await?;
    let restored = cloud.archive(&["restore", "--from", &from, "--to", &to, "--into-index", &index]).await?;
    ensure!(restored.well, "{}", restored.said);
    for message in closed(&messages) {
        let (status, body) = cloud
            .http
            .send(Method::GET, &format!("{}/{index}/_source/{}", cloud.opensearch_url, message.id), "")
            .await?;
        ensure!(
            status.is_success() && *body == *message.source,
            "{}: {status}: {}",
            message.id,
            String::from_utf8_lossy(&body)
        );
    }
    Ok(())
}

async fn find_open_and_quarantine_tell_where_a_message_is(cloud: &Cloud) -> Result<()> {
    let stretch = cloud.stretch();
    let messages = mixture(&stretch, 24);
    cloud.load(&messages).await?;
    cloud.run_stretch(&stretch).await?.completed()?;
    for message in &messages {
        let found = cloud.archive(&["find", &message.id, "--json"]).await?;
        ensure!(
            found.well
                && found.report[0]["message_id"] == message.id
                && found.report[0]["source_index"] == message.index,
            "{found:?}"
        );
    }
    let listed = |outcome: &Value, field: &str| -> BTreeSet<String> {
        let rows = outcome.as_array().into_iter().flatten();
        rows.filter_map(|row| row[field].as_str())
            .filter(|id| id.starts_with(&format!("{}-", stretch.prefix)))
            .map(str::to_owned)
            .collect()
    };
    let of = |disposition| {
        messages
            .iter()
            .filter(|message| message.disposition == disposition)
            .map(|message| message.id.clone())
            .collect::<BTreeSet<_>>()
    };
    let open = cloud.archive(&["open", "--json"]).await?;
    ensure!(open.well && listed(&open.report, "message_id") == of(Disposition::Open), "{:#}", open.report);
    for message in messages.iter().filter(|message| message.disposition == Disposition::Quarantined) {
        let shown = cloud.archive(&["quarantine", "show", &message.id]).await?;
        ensure!(
            shown.well && shown.printed.strip_suffix(b"\n").unwrap_or(&shown.printed) == message.source,
            "{shown:?}"
        );
    }
    Ok(())
}
