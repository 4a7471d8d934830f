use super::{instant_of, watch::follow};
use crate::archive::Archive;
use alerts::{
    keys::date_of,
    message::{
        classification::{Disposition, Reason},
        document,
        tracking::{Row, Status},
    },
    run::{
        payloads::Input,
        unresolved::{MOST, Unresolved},
    },
};
use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use clap::{Args, Subcommand, builder::NonEmptyStringValueParser};
use identity::{Identity, instant};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;

#[derive(Args)]
#[command(after_help = "\
Examples:
  alert-archive quarantine                     list what is there and why
  alert-archive quarantine --reason message_id_absent --from 2024-07-01 --to 2024-08-01
  alert-archive quarantine show MSG-17         the message's bytes on standard output
  alert-archive quarantine release MSG-17      judge it again, after its rule or the message has changed
  alert-archive quarantine add MSG-17 --index messages-2024 --reason 'kills its window, ticket 4711'

A document that makes its window fail, whatever the fault, is excluded by `add`: from the next attempt on it goes to
quarantine as it is, unread, and the window goes on without it. Every report names it until it is released.")]
pub struct Quarantine {
    #[command(subcommand)]
    action: Option<Action>,
    /// Only those with this reason
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
    /// Only messages of this UTC day and later
    #[arg(long, value_name = "D")]
    from: Option<String>,
    /// Only messages before this UTC day
    #[arg(long, value_name = "D")]
    to: Option<String>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Args)]
struct Which {
    /// The message's id
    message_id: String,
    /// The index that holds it, where the id stands in several
    #[arg(long, value_name = "INDEX")]
    index: Option<String>,
}

#[derive(Subcommand)]
enum Action {
    /// Write the bytes of a message to standard output, and on standard error why it is here
    #[command(after_help = "\
Examples:
  alert-archive quarantine show MSG-17               why, what was expected, and the message
  alert-archive quarantine show MSG-17 --raw > it    its bytes only, exactly as the source gave them")]
    Show {
        #[command(flatten)]
        which: Which,
        /// Only the bytes: nothing on standard error
        #[arg(long)]
        raw: bool,
    },
    /// Order a document into quarantine, because it makes its window fail
    #[command(after_help = "\
Example:
  alert-archive quarantine add MSG-17 --index messages-2024 --reason 'kills its window, ticket 4711'
  alert-archive rerun RUN --redrive --wait           ends the run; everything else of the window is archived
  alert-archive quarantine release MSG-17            when the fault is found")]
    Add {
        #[command(flatten)]
        which: Which,
        /// Why; stands in every report, the mail and the dashboard until the message is released
        #[arg(long, value_parser = NonEmptyStringValueParser::new())]
        reason: String,
    },
    /// Take back an order; then a run over the message's own millisecond judges it again
    Release(Which),
}

/// A line of a quarantine object.
#[derive(Deserialize)]
struct Line {
    source_index: String,
    id: String,
    reason: String,
    source_base64: String,
}

#[derive(Serialize)]
struct Listed {
    /// Absent, like the object, until the next attempt of its window carries the exclusion out.
    date: Option<String>,
    source_index: String,
    id: String,
    reason: String,
    /// The reason that the operator gave.
    note: Option<String>,
    bytes: Option<usize>,
    object: Option<String>,
}

impl Quarantine {
    pub async fn call(self, archive: &Archive) -> Result<bool> {
        match &self.action {
            None => self.list(archive).await,
            Some(Action::Show { which, raw }) => show(archive, which, *raw).await,
            Some(Action::Add { which, reason }) => self.add(archive, which, reason).await,
            Some(Action::Release(which)) => self.release(archive, which).await,
        }
    }

    async fn list(&self, archive: &Archive) -> Result<bool> {
        let mut listed = Vec::new();
        let mut excluded = excluded(archive).await?;
        let date = |option: &str, text: &Option<String>| match text {
            Some(text) => instant_of(option, Some(text)).map(|at| Some(instant::date(at))),
            None => Ok(None),
        };
        let (from, to) = (date("--from", &self.from)?, date("--to", &self.to)?);
        let is_of_days = |key: &String| {
            let date = date_of(key).unwrap_or_default();
            from.as_deref().is_none_or(|from| from <= date) && to.as_deref().is_none_or(|to| date < to)
        };
        for key in archive.objects.list("quarantine/date=").await?.into_iter().filter(is_of_days) {
            let lines: Vec<Line> = archive.objects.get_lines(&key).await?;
            let keys: Vec<_> = lines.iter().map(|line| (line.id.clone(), Some(line.source_index.clone()))).collect();
            let rows = archive.ledger.rows.get_many(&keys).await?;
            for (line, row_key) in lines.into_iter().zip(keys) {
                // A message that was archived meanwhile has left; its line stays as it was written.
                let is_here = |row: &&Row| {
                    row.disposition == Disposition::Quarantined
                        && row.s3_path.as_deref() == Some(&archive.objects.uri(&key))
                };
                if let Some(row) = rows.get(&row_key).filter(is_here) {
                    listed.push(Listed {
                        date: date_of(&key).map(str::to_owned),
                        note: excluded.remove(&Identity::new(&line.source_index, &line.id)),
                        reason: row.reason.clone().unwrap_or(line.reason),
                        bytes: BASE64_STANDARD.decode(&line.source_base64).ok().map(|body| body.len()),
                        source_index: line.source_index,
                        id: line.id,
                        object: Some(key.clone()),
                    });
                }
            }
        }
        let has_reason = |listed: &Listed| self.reason.as_ref().is_none_or(|reason| *reason == listed.reason);
        listed.retain(has_reason);
        let here = listed.len();
        let waiting = excluded.into_iter().map(|(Identity { source_index, id }, note)| {
            let reason = Reason::ByOperator.as_str().to_owned();
            Listed { date: None, source_index, id, reason, note: Some(note), bytes: None, object: None }
        });
        listed.extend(waiting.filter(has_reason));
        if self.json {
            say!("{}", serde_json::to_string_pretty(&listed)?);
            return Ok(true);
        }
        for line in &listed {
            let date = line.date.as_deref().unwrap_or("excluded");
            let bytes = line.bytes.map_or("-".to_owned(), |bytes| bytes.to_string());
            let note = line.note.as_ref().map(|note| format!("  ({note})")).unwrap_or_default();
            say!("{date:<10}  {:<24} {bytes:>9} bytes  {}  {}{note}", line.reason, line.source_index, line.id);
        }
        let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
        for line in &listed {
            *reasons.entry(&line.reason).or_default() += 1;
        }
        if reasons.len() > 1 {
            for (reason, messages) in reasons {
                say!("{messages:>10}  {reason}");
            }
        }
        say!("{} in quarantine", reports::count(here as u64, "message"));
        if listed.len() > here {
            say!("{} more are excluded: the next attempt of their windows puts them there", listed.len() - here);
        }
        Ok(true)
    }

    async fn add(&self, archive: &Archive, Which { message_id, index }: &Which, reason: &str) -> Result<bool> {
        let rows = archive.ledger.rows.partition(message_id).await?;
        let source = archive.source()?;
        let mut places: BTreeMap<String, Option<String>> =
            rows.iter().map(|row| (row.source_index.clone(), None)).collect();
        if let Some(source) = &source {
            places.extend(source.places_of(message_id).await?);
        }
        let names = places.keys().cloned().collect::<Vec<_>>().join(", ");
        let index = match (index, places.len()) {
            (Some(index), _) if places.contains_key(index) => index,
            // Without the source only a run can tell.
            (Some(index), 0) if source.is_none() => index,
            (Some(index), 1..) => bail!("{message_id} does not stand in {index}, but in: {names}"),
            (None, 1) => &names,
            (None, 2..) => bail!("{message_id} stands in several indices: choose with --index from: {names}"),
            (_, 0) if source.is_none() => {
                bail!("no run has seen {message_id}: name its index with --index, or set OPENSEARCH_URL")
            }
            _ => bail!("the source holds no message {message_id}"),
        };
        if let Some(row) =
            rows.iter().find(|row| row.source_index == *index && row.status == Status::Completed && row.claim.is_none())
        {
            let now = match &source {
                Some(source) => {
                    source.source_of(index, message_id, places.get(index).and_then(Option::as_deref), u64::MAX).await?
                }
                None => None,
            };
            // A newer version may well make its window fail.
            if now.is_none_or(|body| document::version(&body) == row.version) {
                let path = row.s3_path.as_deref().unwrap_or_default();
                bail!("{message_id} makes no window fail: it is where it belongs, in {path}");
            }
        }
        let exclusion = Unresolved::excluded(Identity::new(index, message_id), reason, Timestamp::now());
        let mut room = true;
        let change = archive.job_runs.change_unresolved(|register| {
            let next = register.with(exclusion.clone());
            room = next.is_some();
            next
        });
        change.await?;
        ensure!(room, "{MOST} windows and documents are set aside already; alert-archive status names them");
        if self.json {
            say!("{}", serde_json::to_string_pretty(&exclusion)?);
        } else {
            say!(
                "{message_id} of {index} goes to quarantine unread; run its window again: alert-archive rerun RUN --redrive --wait"
            );
        }
        Ok(true)
    }

    async fn release(&self, archive: &Archive, which: &Which) -> Result<bool> {
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
        let row = match quarantined(archive, which).await {
            Ok(row) => row,
            Err(error) => match &exclusion {
                Some(exclusion) => return self.take_back(archive, which, exclusion).await,
                None => return Err(error),
            },
        };
        let (from, to) = (instant::iso(row.timestamp), instant::iso(row.timestamp + SignedDuration::from_millis(1)));
        let name = format!("release-{}", Timestamp::now().strftime("%Y%m%dT%H%M%S%3f"));
        if let Some(exclusion) = &exclusion {
            // Should this command be stopped, the document stays excluded from every other run.
            let released = exclusion.clone().released_by(&name);
            archive.job_runs.change_unresolved(|register| register.with(released.clone())).await?;
        }
        let input = serde_json::to_string(&Input::Range { from, to })?;
        let ran = match archive.workflow.start(&archive.state_machine_arn, &name, input).await {
            Ok(execution) => follow(archive, &name, &execution, self.json).await,
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
        let after = archive.ledger.rows.get(&row.message_id, Some(&row.source_index)).await?;
        let released = after.as_ref().is_some_and(|row| row.disposition != Disposition::Quarantined);
        if ran && !released {
            let reason = after.and_then(|row| row.reason).unwrap_or_default();
            eprintln!(
                "{message_id} is still in quarantine: the rules say {reason}; change the message or the rule, then release it again"
            );
        }
        Ok(ran && released)
    }

    /// No window has carried the exclusion out yet, so that no run has to classify the document again.
    async fn take_back(
        &self,
        archive: &Archive,
        Which { message_id, .. }: &Which,
        exclusion: &Unresolved,
    ) -> Result<bool> {
        let rows = archive.ledger.rows.partition(message_id).await?;
        if let Some(claim) = rows.iter().find_map(|row| row.claim.as_ref()) {
            // Its intent may say already that the document goes to quarantine.
            bail!(
                "window {} of run {} is at work on {message_id}: run it again first, then release",
                claim.window_id,
                claim.run_id
            );
        }
        archive.job_runs.change_unresolved(|register| Some(register.without(exclusion))).await?;
        if self.json {
            say!("{}", serde_json::to_string_pretty(exclusion)?);
        } else {
            say!("{message_id} is no longer excluded; no window had carried it out");
        }
        Ok(true)
    }
}

/// The documents that operators have excluded, each with the reason.
async fn excluded(archive: &Archive) -> Result<BTreeMap<Identity, String>> {
    let exclusion = |item| match item {
        Unresolved::QuarantinedByOperator { document, reason, .. } => Some((document, reason)),
        Unresolved::SkippedWindow { .. } | Unresolved::WatermarkSet { .. } => None,
    };
    Ok(archive.job_runs.unresolved().await?.items.into_iter().filter_map(exclusion).collect())
}

/// The message on standard output; why it is there on standard error, unless only the bytes are wanted.
async fn show(archive: &Archive, which: &Which, raw: bool) -> Result<bool> {
    let row = quarantined(archive, which).await?;
    let message_id = &which.message_id;
    let path = row.s3_path.context("the row names no object")?;
    let key = archive.objects.key_of(&path).with_context(|| format!("{path} is not in this archive's bucket"))?;
    let lines: Vec<Line> = archive.objects.get_lines(key).await?;
    let line = lines.into_iter().find(|line| line.id == row.message_id && line.source_index == row.source_index);
    let line =
        line.with_context(|| format!("{path} does not hold {message_id}; alert-archive verify --deep says more"))?;
    let body = BASE64_STANDARD.decode(line.source_base64)?;
    if !raw {
        let reason = row.reason.clone().unwrap_or(line.reason);
        eprintln!("{message_id} of {}: {reason}", row.source_index);
        eprintln!("expected: {}", expected(&reason));
        eprintln!("judge it again: alert-archive quarantine release {}", reports::quoted(message_id));
    }
    std::io::stdout().write_all(&body)?;
    Ok(true)
}

/// What a message would have to be like, so as not to be here.
fn expected(reason: &str) -> &'static str {
    match reason {
        "unrecognised_status" => "each alert's status is a text that is one of the closed or of the open ones",
        "message_id_absent" => "a field message_id",
        "message_id_not_a_string" => "a message_id that is a text",
        "message_id_differs" => "a message_id that is the document's own id",
        "by_operator" => "nothing: an operator excluded it, and its note says why",
        "unreadable_history" => "history and audit that are valid JSON",
        _ => "a document that can be read without guessing: valid JSON, alerts in a list, a timestamp",
    }
}

async fn quarantined(archive: &Archive, Which { message_id, index }: &Which) -> Result<Row> {
    let mut rows = archive.ledger.rows.partition(message_id).await?;
    let is_here = |row: &Row| row.disposition == Disposition::Quarantined && row.status == Status::Completed;
    rows.retain(|row| is_here(row) && index.as_ref().is_none_or(|index| *index == row.source_index));
    ensure!(rows.len() < 2, "{message_id} is in quarantine from several indices: choose with --index");
    match rows.pop() {
        Some(row) => Ok(row),
        None => bail!("{message_id} is not in quarantine; alert-archive find {message_id} tells where it is"),
    }
}
