//! Messages leave quarantine when a run judges them again: over each one's own millisecond, so that nothing else is
//! read.

use super::{Filter, Which, bar, listed, row_of};
use crate::{
    archive::{Archive, NotFound},
    commands::{
        Usage,
        watch::{ended, follow},
    },
};
use alerts::{
    message::{classification::Disposition, tracking::Row},
    run::{payloads::Input, unresolved::Unresolved},
};
use anyhow::{Result, bail, ensure};
use clap::{Args, builder::NonEmptyStringValueParser};
use identity::instant;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::json;

/// Messages that one command releases: each has a run of its own, one after the other.
const MOST: usize = 100;

#[derive(Args)]
#[command(after_help = "\
Examples:
  alert-archive quarantine release MSG-17
  alert-archive quarantine release MSG-17 MSG-18 --index messages-2024
  alert-archive quarantine release --reason unrecognised_status --from 2024-07-01 --to 2024-08-01 --dry-run

A message is judged by the rules as they are now. One that they still do not understand stays, and the exit code is 1.
No mail is sent about it.")]
pub struct Release {
    /// The messages' ids; without any, those that --reason, --from, --to and --index choose
    #[arg(conflicts_with_all = ["reason", "from", "to"], value_parser = NonEmptyStringValueParser::new())]
    message_ids: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    /// Name the messages, and do nothing
    #[arg(long)]
    dry_run: bool,
}

impl Release {
    pub fn has_run(&self) -> bool {
        !self.dry_run
    }
}

/// What became of one message.
#[derive(Debug, PartialEq, Serialize)]
struct Released {
    message_id: String,
    source_index: String,
    run_id: String,
    /// Whether it is out of quarantine.
    released: bool,
    /// `closed`, `open` or `quarantined`; nothing when its run did not go well.
    disposition: Option<&'static str>,
    reason: Option<String>,
}

enum Outcome {
    Judged(Released),
    /// No window had carried the exclusion out.
    TakenBack(Unresolved),
}

impl Release {
    pub async fn call(&self, archive: &Archive, json: bool) -> Result<bool> {
        let index = &self.filter.index;
        let which = |message_id: &String| Which { message_id: message_id.clone(), index: index.clone() };
        if let ([message_id], false) = (self.message_ids.as_slice(), self.dry_run) {
            return one(archive, &which(message_id), json).await;
        }
        let chosen = if self.message_ids.is_empty() {
            self.filtered(archive).await?
        } else {
            self.message_ids.iter().map(which).collect()
        };
        if self.dry_run && json {
            let chosen = chosen
                .iter()
                .map(|Which { message_id, index }| json!({"message_id": message_id, "source_index": index}));
            say!("{}", serde_json::to_string_pretty(&chosen.collect::<Vec<_>>())?);
            return Ok(true);
        }
        if self.dry_run {
            for Which { message_id, index } in &chosen {
                say!("{message_id}{}", index.as_ref().map(|index| format!(" of {index}")).unwrap_or_default());
            }
            say!("{} would be judged again; nothing was done", reports::count(chosen.len() as u64, "message"));
            return Ok(true);
        }
        many(archive, &chosen, json).await
    }

    async fn filtered(&self, archive: &Archive) -> Result<Vec<Which>> {
        let Filter { reason, from, to, index } = &self.filter;
        if [reason, from, to, index].iter().all(|choice| choice.is_none()) {
            let text = "name the messages, or choose them with --reason, --from, --to or --index";
            return Err(Usage(text.into()).into());
        }
        let listed = listed(archive, &self.filter).await?;
        if listed.len() > MOST && !self.dry_run {
            let dates = || listed.iter().filter_map(|line| line.date.as_deref());
            let (first, last) = (dates().min().unwrap_or_default(), dates().max().unwrap_or_default());
            bail!(
                "{} messages are chosen, and each takes a run of its own: release at most {MOST} at once. A run over \
                 their time judges all of them again: alert-archive run --from {first} --to {} --wait",
                reports::grouped(listed.len() as u64),
                day_after(last)
            );
        }
        Ok(listed.into_iter().map(|line| Which { message_id: line.id, index: Some(line.source_index) }).collect())
    }
}

fn day_after(date: &str) -> String {
    let next = |at: Timestamp| instant::date(at + SignedDuration::from_hours(24));
    instant::parse(date).map(next).unwrap_or_default()
}

fn new_name() -> String {
    format!("release-{}", Timestamp::now().strftime("%Y%m%dT%H%M%S%6f"))
}

async fn one(archive: &Archive, which: &Which, json: bool) -> Result<bool> {
    let follow = async |name: &str, execution: &str| follow(archive, name, execution, json).await;
    let message_id = &which.message_id;
    match release(archive, look_up(archive, which).await?, &new_name(), follow).await? {
        Outcome::TakenBack(exclusion) if json => say!("{}", serde_json::to_string_pretty(&exclusion)?),
        Outcome::TakenBack(_) => say!("{message_id} is no longer excluded; no window had carried it out"),
        Outcome::Judged(Released { released, disposition, reason, .. }) => {
            if disposition.is_some() && !released {
                eprintln!(
                    "{message_id} is still in quarantine: the rules say {}; change the message or the rule, then \
                    release it again",
                    reason.unwrap_or_default()
                );
            }
            return Ok(released);
        }
    }
    Ok(true)
}

async fn many(archive: &Archive, chosen: &[Which], json: bool) -> Result<bool> {
    // All before the first run: a name that is not there stops the command while nothing has been done.
    let mut meant = Vec::new();
    for which in chosen {
        meant.push(look_up(archive, which).await?);
    }
    if !json {
        eprintln!("{} to judge again, each by a short run", reports::count(chosen.len() as u64, "message"));
    }
    let quietly = async |_: &str, execution: &str| Ok(ended(archive, execution).await?.status == "SUCCEEDED");
    let (progress, stem) = (bar(chosen.len(), "messages"), new_name());
    let (mut judged, mut taken_back) = (Vec::new(), 0u64);
    for (n, message) in meant.into_iter().enumerate() {
        match release(archive, message, &format!("{stem}-{n}"), quietly).await? {
            Outcome::TakenBack(_) => taken_back += 1,
            Outcome::Judged(released) => {
                if !json {
                    progress.suspend(|| told(&released))?;
                }
                judged.push(released);
            }
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    let left = judged.iter().filter(|released| !released.released).count();
    if json {
        say!("{}", serde_json::to_string_pretty(&judged)?);
    } else {
        say!("{} of {} left quarantine", judged.len() - left, reports::count(judged.len() as u64, "message"));
        if taken_back > 0 {
            say!("{} no longer excluded; no window had carried it out", reports::count(taken_back, "message"));
        }
    }
    Ok(left == 0)
}

fn told(released: &Released) -> Result<()> {
    let Released { message_id, source_index, run_id, disposition, reason, .. } = released;
    let what = match (disposition, reason) {
        (None, _) => format!("its run did not go well: alert-archive status {run_id}"),
        (Some("quarantined"), reason) => format!("still in quarantine: {}", reason.as_deref().unwrap_or_default()),
        (Some("open"), _) => "an alert is open: held over".to_owned(),
        (Some(_), _) => "archived".to_owned(),
    };
    say!("{message_id} of {source_index}: {what}");
    Ok(())
}

/// A message that is to be released, as it stands now: with a row in quarantine, an exclusion, or both.
struct Meant {
    message_id: String,
    row: Option<Row>,
    exclusion: Option<Unresolved>,
}

async fn look_up(archive: &Archive, which: &Which) -> Result<Meant> {
    let Which { message_id, index } = which;
    let is_meant = |item: &Unresolved| match item {
        Unresolved::QuarantinedByOperator { document, .. } => {
            document.id == *message_id && index.as_ref().is_none_or(|index| *index == document.source_index)
        }
        Unresolved::SkippedWindow { .. } | Unresolved::WatermarkSet { .. } => false,
    };
    let mut excluded: Vec<Unresolved> = archive.job_runs.unresolved().await?.items;
    excluded.retain(is_meant);
    ensure!(excluded.len() < 2, "{message_id} is excluded in several indices: choose with --index");
    let exclusion = excluded.pop();
    let row = match row_of(archive, which).await {
        Ok(row) => Some(row),
        Err(error) if exclusion.is_none() || !error.is::<NotFound>() => return Err(error),
        Err(_) => None,
    };
    Ok(Meant { message_id: message_id.clone(), row, exclusion })
}

/// Judges a message again. `run` sees a run to its end, and says whether it went well.
async fn release(
    archive: &Archive,
    Meant { message_id, row, exclusion }: Meant,
    name: &str,
    run: impl AsyncFn(&str, &str) -> Result<bool>,
) -> Result<Outcome> {
    let row = match (row, &exclusion) {
        (Some(row), _) => row,
        (None, Some(exclusion)) => return take_back(archive, &message_id, exclusion.clone()).await,
        (None, None) => return Err(NotFound(format!("{message_id} is not in quarantine")).into()),
    };
    let (from, to) = (instant::iso(row.timestamp), instant::iso(row.timestamp + SignedDuration::from_millis(1)));
    if let Some(exclusion) = &exclusion {
        // Should this command be stopped, the document stays excluded from every other run.
        let released = exclusion.clone().released_by(name);
        archive.job_runs.change_unresolved(|register| register.with(released.clone())).await?;
    }
    let input = serde_json::to_string(&Input::Range { from, to })?;
    let ran = match archive.workflow.start(&archive.state_machine_arn, name, input).await {
        Ok(execution) => run(name, &execution).await,
        Err(error) => Err(error.into()),
    };
    if let Some(exclusion) = exclusion {
        if matches!(ran, Ok(true)) {
            archive.job_runs.change_unresolved(|register| Some(register.without(&exclusion))).await?;
        } else {
            archive.job_runs.change_unresolved(|register| register.with(exclusion.clone())).await?;
            eprintln!("the run did not go well: {message_id} stays excluded");
        }
    }
    let ran = ran?;
    let after = archive.ledger.rows.get(&row.message_id, Some(&row.source_index)).await?.filter(|_| ran);
    let disposition = after.as_ref().map(|row| row.disposition);
    Ok(Outcome::Judged(Released {
        message_id: row.message_id,
        source_index: row.source_index,
        run_id: name.to_owned(),
        released: disposition.is_some_and(|disposition| disposition != Disposition::Quarantined),
        disposition: disposition.map(Disposition::as_str),
        reason: after.and_then(|row| row.reason),
    }))
}

/// No window has carried the exclusion out yet, so that no run has to classify the document again.
async fn take_back(archive: &Archive, message_id: &str, exclusion: Unresolved) -> Result<Outcome> {
    let rows = archive.ledger.rows.partition(message_id).await?;
    if let Some(claim) = rows.iter().find_map(|row| row.claim.as_ref()) {
        // Its intent may say already that the document goes to quarantine.
        bail!(
            "window {} of run {} is at work on {message_id}: run it again first, then release",
            claim.window_id,
            claim.run_id
        );
    }
    archive.job_runs.change_unresolved(|register| Some(register.without(&exclusion))).await?;
    Ok(Outcome::TakenBack(exclusion))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::{
        given::{World, given},
        quarantine::{Action, Quarantine},
    };
    use alerts::message::tracking::Status;
    use async_trait::async_trait;
    use base64::{Engine, prelude::BASE64_STANDARD};
    use clap::Parser;
    use memory_cloud::{Cloud, TRACKING, given::arn};
    use network::{Broken, Network, Request};
    use std::sync::Arc;

    #[derive(Parser)]
    struct Words {
        #[command(flatten)]
        quarantine: Quarantine,
    }

    fn typed(words: &str) -> Quarantine {
        Words::try_parse_from(["quarantine"].into_iter().chain(words.split_whitespace()))
            .expect("understood")
            .quarantine
    }

    /// Puts these of the world's messages into quarantine, by id and reason, as a run leaves them there.
    async fn put_in_quarantine(world: &World, messages: &[(&str, &str)]) {
        let key = "quarantine/date=2024-07-01/w.jsonl.zst";
        let line = |(id, reason): &(&str, &str)| {
            let body = format!(r#"{{"message_id":"{id}","alerts":[{{"status":"odd"}}]}}"#);
            json!({"source_index": "messages", "id": id, "reason": reason, "source_base64": BASE64_STANDARD.encode(body)})
        };
        let lines: Vec<_> = messages.iter().map(line).collect();
        world.archive.objects.put_lines(key, &lines).await.expect("written");
        for (n, (id, reason)) in messages.iter().enumerate() {
            let row = row(&world.cloud, id);
            let later = row.timestamp + SignedDuration::from_secs(n as i64);
            let next = Row {
                disposition: Disposition::Quarantined,
                reason: Some((*reason).to_owned()),
                s3_path: Some(world.archive.objects.uri(key)),
                timestamp: later,
                revision: row.revision + 1,
                ..row.clone()
            };
            assert!(world.archive.ledger.rows.put(&next).await.expect("written"));
        }
    }

    fn row(cloud: &Cloud, id: &str) -> Row {
        let mut rows = cloud.typed::<Row>(TRACKING).into_iter();
        rows.find(|row| row.message_id == id).expect("a row")
    }

    /// The workflow: each run that is asked for has ended before it is looked at. `b` is understood by none.
    struct Judge(Cloud);

    #[async_trait]
    impl Network for Judge {
        async fn sent(&self, request: &Request) -> Result<(), Broken> {
            let Judge(cloud) = self;
            if request.operation == "DescribeExecution" {
                let input = cloud.executions.input(&request.subject).expect("it was started");
                let judged = cloud.typed::<Row>(TRACKING).into_iter().filter(|row| {
                    row.disposition == Disposition::Quarantined && input.contains(&instant::iso(row.timestamp))
                });
                for row in judged.filter(|row| row.message_id != "b") {
                    let disposition = if row.message_id == "c" { Disposition::Open } else { Disposition::Closed };
                    let next = Row { disposition, reason: None, revision: row.revision + 1, ..row.clone() };
                    assert!(cloud.tracking().rows.put(&next).await.expect("written"));
                }
                cloud.executions.end(&request.subject, "SUCCEEDED", None);
            }
            Ok(())
        }
    }

    /// An archive whose runs judge messages again.
    async fn judged() -> World {
        let World { cloud, archive, key } = given().await;
        let workflow = cloud.through(Arc::new(Judge(cloud.clone()))).workflow();
        World { archive: Archive { workflow, ..archive }, cloud, key }
    }

    async fn release_of(world: &World, words: &str) -> Result<bool> {
        typed(&format!("release {words}")).call(&world.archive).await
    }

    fn left(world: &World) -> Vec<String> {
        let rows = world.cloud.typed::<Row>(TRACKING).into_iter();
        let here = |row: &Row| row.disposition == Disposition::Quarantined && row.status == Status::Completed;
        let mut left: Vec<String> = rows.filter(here).map(|row| row.message_id).collect();
        left.sort();
        left
    }

    const ALL: [(&str, &str); 4] = [
        ("a", "unrecognised_status"),
        ("b", "unrecognised_status"),
        ("c", "unrecognised_status"),
        ("d", "message_id_differs"),
    ];

    #[tokio::test]
    async fn those_of_one_reason_are_judged_again_each_by_a_run_over_its_own_instant() {
        let world = judged().await;
        put_in_quarantine(&world, &ALL).await;
        assert!(release_of(&world, "--reason unrecognised_status --dry-run").await.expect("named"));
        assert_eq!(left(&world), ["a", "b", "c", "d"]);
        let is_whole = release_of(&world, "--reason unrecognised_status --json").await.expect("judged");
        assert!(!is_whole, "b is not understood yet");
        assert_eq!(left(&world), ["b", "d"]);
        let refused = release_of(&world, "d a --index messages").await.expect_err("a is in quarantine no more");
        assert!(refused.is::<NotFound>(), "{refused:#}");
        assert_eq!(left(&world), ["b", "d"], "nothing was done");
        assert!(!release_of(&world, "d b --index messages").await.expect("judged"));
        assert_eq!(left(&world), ["b"]);
    }

    #[tokio::test]
    async fn what_is_not_chosen_or_not_there_is_told_apart() {
        let world = judged().await;
        put_in_quarantine(&world, &ALL).await;
        assert!(release_of(&world, "").await.expect_err("nothing is chosen").is::<Usage>());
        assert!(release_of(&world, "nobody").await.expect_err("it is not there").is::<NotFound>());
        assert!(release_of(&world, "--from 2024-07-02").await.expect("there is none"));
        assert_eq!(left(&world).len(), 4);
    }

    #[tokio::test]
    async fn a_list_tells_what_was_found_and_is_filtered() {
        let world = judged().await;
        put_in_quarantine(&world, &ALL).await;
        let of = async |words: &str| -> Vec<String> {
            let Some(Action::List(list)) = typed(&format!("list {words}")).action else { panic!("it is no list") };
            let listed = listed(&world.archive, &list.filter).await.expect("listed");
            listed.into_iter().map(|line| format!("{} {}", line.id, line.found.unwrap_or_default())).collect()
        };
        assert_eq!(of("--reason message_id_differs").await, [r#"d message_id "d" in document "d""#]);
        assert_eq!(of("--index messages --reason unrecognised_status").await[0], r#"a status "odd""#);
        assert!(of("--index other").await.is_empty() && of("--to 2024-07-01").await.is_empty());
        assert!(typed("list").call(&world.archive).await.expect("printed"));
        assert_eq!(of("--from 2024-07-01T12:00:00Z --to 2024-07-01T12:00:01Z").await.len(), 4, "whole days");
        for words in ["list --from 2024-07-02 --to 2024-07-01", "--index other release a", "--limit 1 list"] {
            assert!(typed(words).call(&world.archive).await.expect_err(words).is::<Usage>());
        }
    }

    #[test]
    fn a_run_is_named_after_the_release() {
        assert!(arn(&new_name()).contains(":release-20"));
        assert_eq!(day_after("2024-07-31"), "2024-08-01");
    }
}
