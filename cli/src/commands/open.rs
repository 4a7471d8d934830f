use crate::archive::Archive;
use alerts::message::{classification::Disposition, tracking::Row};
use anyhow::{Context, Result};
use clap::Args;
use identity::instant;
use jiff::{Span, SpanRelativeTo, Timestamp};

#[derive(Args)]
#[command(after_help = "Examples:\n  alert-archive open --older-than 30d\n  alert-archive open --json | jq length")]
pub struct Open {
    /// Only messages that were first seen open this long ago, such as 30d or 12h
    #[arg(long, value_name = "AGE")]
    older_than: Option<String>,
    /// Print JSON: an array of ledger rows, longest held over first
    #[arg(long)]
    json: bool,
}

impl Open {
    pub async fn call(self, archive: &Archive) -> Result<bool> {
        let now = Timestamp::now();
        let since = match &self.older_than {
            Some(age) => {
                let span: Span =
                    age.parse().with_context(|| format!("--older-than `{age}` is no age: write 30d, 12h or 2w"))?;
                now - span.to_duration(SpanRelativeTo::days_are_24_hours())?
            }
            None => now,
        };
        let mut held: Vec<(Timestamp, Row)> = Vec::new();
        let is_open = |row: &Row| row.disposition == Disposition::Open;
        let held_since = |row: &Row| row.first_seen_open.filter(|at| is_open(row) && *at <= since);
        archive.ledger.staged(|row| held.extend(held_since(&row).map(|at| (at, row)))).await?;
        held.sort_by(|left, right| (left.0, &left.1.message_id).cmp(&(right.0, &right.1.message_id)));
        if self.json {
            say!("{}", serde_json::to_string_pretty(&held.iter().map(|(_, row)| row).collect::<Vec<_>>())?);
            return Ok(true);
        }
        for (first_seen_open, row) in &held {
            let days = now.duration_since(*first_seen_open).as_hours() / 24;
            say!("{:>5} days  {}  {}  {}", days, instant::iso(row.timestamp), row.source_index, row.message_id);
        }
        say!("{} messages are held over", held.len());
        Ok(true)
    }
}
