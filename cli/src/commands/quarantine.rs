use super::watch::follow;
use crate::archive::{Archive, date_of};
use alerts::{classification::Disposition, instant, ledger::Row, steps::Input};
use anyhow::{Context, Result, bail};
use base64::{Engine, prelude::BASE64_STANDARD};
use clap::{Args, Subcommand};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::io::Write;

#[derive(Args)]
#[command(after_help = "\
Examples:
  alert-archive quarantine                     list what is there and why
  alert-archive quarantine show MSG-17         the message's bytes on standard output
  alert-archive quarantine release MSG-17      judge it again, after its rule or the message has changed")]
pub struct Quarantine {
    #[command(subcommand)]
    action: Option<Action>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Action {
    /// Write the bytes of a message to standard output
    Show { message_id: String },
    /// Start a run over the message's own millisecond and follow it
    Release { message_id: String },
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
    date: String,
    source_index: String,
    id: String,
    reason: String,
    bytes: usize,
    object: String,
}

impl Quarantine {
    pub async fn call(self, archive: &Archive) -> Result<bool> {
        match &self.action {
            None => self.list(archive).await,
            Some(Action::Show { message_id }) => show(archive, message_id).await,
            Some(Action::Release { message_id }) => self.release(archive, message_id).await,
        }
    }

    async fn list(&self, archive: &Archive) -> Result<bool> {
        let mut listed = Vec::new();
        for key in archive.objects.list("quarantine/").await? {
            let lines: Vec<Line> = archive.objects.get_lines(&key).await?;
            let keys: Vec<_> = lines.iter().map(|line| (line.id.clone(), Some(line.source_index.clone()))).collect();
            let rows = archive.ledger.get_many(&keys).await?;
            for (line, row_key) in lines.into_iter().zip(keys) {
                // A message that was archived meanwhile has left; its line stays as it was written.
                let is_here = |row: &Row| row.disposition == Disposition::Quarantined && row.s3_path.as_deref() == Some(&archive.objects.uri(&key));
                if rows.get(&row_key).is_some_and(is_here) {
                    let bytes = BASE64_STANDARD.decode(&line.source_base64).map(|body| body.len()).unwrap_or(0);
                    let date = date_of(&key).unwrap_or_default().to_owned();
                    listed.push(Listed { date, source_index: line.source_index, id: line.id, reason: line.reason, bytes, object: key.clone() });
                }
            }
        }
        if self.json {
            say!("{}", serde_json::to_string_pretty(&listed)?);
            return Ok(true);
        }
        for line in &listed {
            say!("{}  {:<24} {:>9} bytes  {}  {}", line.date, line.reason, line.bytes, line.source_index, line.id);
        }
        say!("{} messages are in quarantine", listed.len());
        Ok(true)
    }

    async fn release(&self, archive: &Archive, message_id: &str) -> Result<bool> {
        let row = quarantined(archive, message_id).await?;
        let (from, to) = (instant::iso(row.timestamp), instant::iso(row.timestamp + SignedDuration::from_millis(1)));
        let name = format!("release-{}", Timestamp::now().strftime("%Y%m%dT%H%M%S%3f"));
        let input = serde_json::to_string(&Input::Range { from, to })?;
        let execution = archive.workflow.start(&archive.state_machine_arn, &name, input).await?;
        let ran = follow(archive, &name, &execution, self.json).await?;
        let after = archive.ledger.get(&row.message_id, Some(&row.source_index)).await?;
        let released = after.is_some_and(|row| row.disposition != Disposition::Quarantined);
        if !released {
            eprintln!("{message_id} is still in quarantine: the rules judge it as before ({})", row.reason.unwrap_or_default());
        }
        Ok(ran && released)
    }
}

async fn show(archive: &Archive, message_id: &str) -> Result<bool> {
    let row = quarantined(archive, message_id).await?;
    let path = row.s3_path.context("the row names no object")?;
    let key = archive.objects.key_of(&path).with_context(|| format!("{path} is not in this archive's bucket"))?;
    let lines: Vec<Line> = archive.objects.get_lines(key).await?;
    let line = lines.into_iter().find(|line| line.id == row.message_id && line.source_index == row.source_index);
    let line = line.with_context(|| format!("{path} does not hold {message_id}; alert-archive verify --deep says more"))?;
    std::io::stdout().write_all(&BASE64_STANDARD.decode(line.source_base64)?)?;
    Ok(true)
}

async fn quarantined(archive: &Archive, message_id: &str) -> Result<Row> {
    let mut rows = archive.ledger.partition(message_id).await?;
    rows.retain(|row| row.disposition == Disposition::Quarantined);
    match rows.pop() {
        Some(row) => Ok(row),
        None => bail!("{message_id} is not in quarantine; alert-archive find {message_id} tells where it is"),
    }
}
