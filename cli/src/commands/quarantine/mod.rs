//! Messages in quarantine: listed, shown, excluded and released.

mod release;
mod show;

use super::{bar, instant_of, usage};
use crate::archive::{Archive, NotFound};
use ::archive::{Quarantined, quarantined};
use alerts::{
    keys::date_of,
    message::{
        classification::{Disposition, Reason},
        document,
        tracking::{Row, Status},
    },
    run::unresolved::Unresolved,
};
use anyhow::{Result, bail, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use clap::{Args, Subcommand, builder::NonEmptyStringValueParser};
use identity::{Identity, instant};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Args)]
#[command(after_help = "\
Examples:
  alert-archive quarantine                     list what is there and why
  alert-archive quarantine list --reason message_id_absent --from 2024-07-01 --to 2024-08-01
  alert-archive quarantine show MSG-17         what was found and expected, and the message's bytes on standard output
  alert-archive quarantine release MSG-17      judge it again, after its rule or the message has changed
  alert-archive quarantine release --reason unrecognised_status --from 2024-07 --to 2024-08
  alert-archive quarantine add MSG-17 --index messages-2024 --reason 'kills its window, ticket 4711'

A document that makes its window fail, whatever the fault, is excluded by `add`: from the next attempt on it goes to
quarantine as it is, unread, and the window goes on without it. Every report names it until it is released.")]
pub struct Quarantine {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    list: List,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

/// Which of the messages in quarantine.
#[derive(Args, Clone, Default)]
struct Filter {
    /// Only those with this reason
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
    /// Only messages of this UTC day and later
    #[arg(long, value_name = "D")]
    from: Option<String>,
    /// Only messages before this UTC day; an instant within a day stands for the end of it
    #[arg(long, value_name = "D")]
    to: Option<String>,
    /// Only messages of this index of the source
    #[arg(long, value_name = "INDEX")]
    index: Option<String>,
}

impl Filter {
    /// Whether it lets everything through.
    fn is_any(&self) -> bool {
        let Filter { reason, from, to, index } = self;
        [reason, from, to, index].iter().all(|part| part.is_none())
    }

    /// The first and the last of the days that are asked for: an instant within a day stands for all of it.
    fn days(&self) -> Result<(Option<String>, Option<String>)> {
        let at = |option, text: &Option<String>| text.as_deref().map(|text| instant_of(option, Some(text))).transpose();
        let (from, to) = (at("--from", &self.from)?, at("--to", &self.to)?);
        let is_empty = from.zip(to).is_some_and(|(from, to)| from >= to);
        usage(!is_empty, "--from is not before --to: the range is empty")?;
        let last = to.map(|to| instant::date(to - SignedDuration::from_millis(1)));
        Ok((from.map(instant::date), last))
    }
}

#[derive(Args)]
struct List {
    #[command(flatten)]
    filter: Filter,
    /// Print at most so many; counts are of all
    #[arg(long, value_name = "N", default_value_t = usize::MAX, hide_default_value = true)]
    limit: usize,
}

#[derive(Args)]
struct Which {
    /// The message's id
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    message_id: String,
    /// The index that holds it, where the id stands in several
    #[arg(long, value_name = "INDEX")]
    index: Option<String>,
}

#[derive(Subcommand)]
enum Action {
    /// List what is in quarantine, with what was found; the same as without a word
    List(List),
    /// Write the bytes of a message to standard output, and on standard error why it is here
    #[command(after_help = "\
Examples:
  alert-archive quarantine show MSG-17               why, what was found and expected, and the message
  alert-archive quarantine show MSG-17 --raw > it    its bytes only, exactly as the source gave them")]
    Show {
        #[command(flatten)]
        which: Which,
        /// Only the bytes: nothing on standard error
        #[arg(long)]
        raw: bool,
    },
    /// Exclude a document that makes its window fail: it goes to quarantine unread
    #[command(after_help = "\
Example:
  alert-archive quarantine add MSG-17 --index messages-2024 --reason 'kills its window, ticket 4711'
  alert-archive rerun RUN --wait                     ends the run; everything else of the window is archived
  alert-archive quarantine release MSG-17            when the fault is found")]
    Add {
        #[command(flatten)]
        which: Which,
        /// Why; stands in every report, the mail and the dashboard until the message is released
        #[arg(long, value_parser = NonEmptyStringValueParser::new())]
        reason: String,
    },
    /// Judge messages again, each by a run over its own millisecond; an exclusion is taken back
    Release(release::Release),
}

#[derive(Debug, Serialize)]
struct Listed {
    /// Absent, like the object, until the next attempt of its window carries the exclusion out.
    date: Option<String>,
    source_index: String,
    id: String,
    reason: String,
    /// What stands in the message in the place of what the rule expects.
    found: Option<String>,
    /// The reason that the operator gave.
    note: Option<String>,
    bytes: Option<usize>,
    object: Option<String>,
}

impl Quarantine {
    pub fn has_run(&self) -> bool {
        matches!(&self.action, Some(Action::Release(release)) if release.has_run())
    }

    pub async fn call(self, archive: &Archive) -> Result<bool> {
        // What would be passed over in silence may be what mattered.
        let is_said_twice = self.action.is_some() && !(self.list.filter.is_any() && self.list.limit == usize::MAX);
        usage(!is_said_twice, "options stand behind the word that they are for: alert-archive quarantine list --help")?;
        match &self.action {
            None => self.list(archive, &self.list).await,
            Some(Action::List(list)) => self.list(archive, list).await,
            Some(Action::Show { which, raw }) => show::show(archive, which, *raw).await,
            Some(Action::Add { which, reason }) => self.add(archive, which, reason).await,
            Some(Action::Release(release)) => release.call(archive, self.json).await,
        }
    }

    async fn list(&self, archive: &Archive, List { filter, limit }: &List) -> Result<bool> {
        let listed = listed(archive, filter).await?;
        if self.json {
            say!("{}", serde_json::to_string_pretty(&listed[..listed.len().min(*limit)])?);
            return Ok(true);
        }
        for line in listed.iter().take(*limit) {
            let date = line.date.as_deref().unwrap_or("excluded");
            let size = line.bytes.map_or("-".to_owned(), |bytes| reports::bytes(bytes as u64));
            let notes = [line.found.as_ref().map(|found| format!("found {found}")), line.note.clone()];
            let notes: String = notes.into_iter().flatten().map(|note| format!("  ({note})")).collect();
            say!("{date:<10}  {:<24} {size:>8}  {}  {}{notes}", line.reason, line.source_index, line.id);
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
        let here = listed.iter().filter(|line| line.object.is_some()).count();
        let shown = if listed.len() > *limit { format!(", {limit} of them shown") } else { String::new() };
        // With a filter there may be others.
        let asked = if filter.is_any() { "" } else { " that you asked for" };
        say!("{} in quarantine{asked}{shown}", reports::count(here as u64, "message"));
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
                let told = format!("no run has seen {message_id}: name its index with --index, or set OPENSEARCH_URL");
                return Err(NotFound(told).into());
            }
            _ => return Err(NotFound(format!("the source holds no message {message_id}")).into()),
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
        archive.set_aside(&exclusion).await?;
        if self.json {
            say!("{}", serde_json::to_string_pretty(&exclusion)?);
        } else {
            say!(
                "{message_id} of {index} goes to quarantine unread; run its window again: alert-archive rerun RUN \
                --wait"
            );
        }
        Ok(true)
    }
}

/// What is in quarantine, day by day, and behind it what is excluded and waits for its window.
async fn listed(archive: &Archive, filter: &Filter) -> Result<Vec<Listed>> {
    let mut listed = Vec::new();
    let mut excluded = excluded(archive).await?;
    let (first, last) = filter.days()?;
    let is_of_days = |key: &str| {
        let date = date_of(key).unwrap_or_default();
        first.as_deref().is_none_or(|first| first <= date) && last.as_deref().is_none_or(|last| date <= last)
    };
    let look = |Quarantined { key, source_index, id, reason, source_base64 }: Quarantined| {
        let body = BASE64_STANDARD.decode(&source_base64).ok();
        listed.push(Listed {
            date: date_of(&key).map(str::to_owned),
            note: excluded.remove(&Identity::new(&source_index, &id)),
            found: body.as_ref().and_then(|body| show::found(&reason, &id, body)),
            reason,
            bytes: body.map(|body| body.len()),
            source_index,
            id,
            object: Some(key),
        });
    };
    quarantined(&archive.objects, &archive.ledger, is_of_days, look).await?;
    let of_other_days = filter.from.is_some() || filter.to.is_some();
    listed.extend(excluded.into_iter().filter(|_| !of_other_days).map(|(Identity { source_index, id }, note)| {
        let reason = Reason::ByOperator.as_str().to_owned();
        Listed { date: None, source_index, id, reason, found: None, note: Some(note), bytes: None, object: None }
    }));
    listed.retain(|line| {
        filter.reason.as_ref().is_none_or(|reason| *reason == line.reason)
            && filter.index.as_ref().is_none_or(|index| *index == line.source_index)
    });
    Ok(listed)
}

/// The documents that operators have excluded, each with the reason.
async fn excluded(archive: &Archive) -> Result<BTreeMap<Identity, String>> {
    let exclusion = |item| match item {
        Unresolved::QuarantinedByOperator { document, reason, .. } => Some((document, reason)),
        Unresolved::SkippedWindow { .. } | Unresolved::WatermarkSet { .. } => None,
    };
    Ok(archive.job_runs.unresolved().await?.items.into_iter().filter_map(exclusion).collect())
}

async fn row_of(archive: &Archive, Which { message_id, index }: &Which) -> Result<Row> {
    let mut rows = archive.ledger.rows.partition(message_id).await?;
    let is_here = |row: &Row| row.disposition == Disposition::Quarantined && row.status == Status::Completed;
    rows.retain(|row| is_here(row) && index.as_ref().is_none_or(|index| *index == row.source_index));
    ensure!(rows.len() < 2, "{message_id} is in quarantine from several indices: choose with --index");
    match rows.pop() {
        Some(row) => Ok(row),
        None => {
            let find = format!("alert-archive find {}", reports::quoted(message_id));
            Err(NotFound(format!("{message_id} is not in quarantine; {find} tells where it is")).into())
        }
    }
}
