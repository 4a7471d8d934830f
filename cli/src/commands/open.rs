use super::Usage;
use crate::archive::Archive;
use alerts::message::{classification::Disposition, tracking::Row};
use anyhow::Result;
use clap::Args;
use identity::instant;
use jiff::{Span, SpanRelativeTo, Timestamp};

#[derive(Args)]
#[command(after_help = "\
Examples:
  alert-archive open --older-than 30d
  alert-archive open --held-for 2w
  alert-archive open --json | jq length

--older-than asks for the age of a message, by its own time, as mail and page do. --held-for asks how long ago a run
first saw it open.")]
pub struct Open {
    /// Only messages of this age, such as 30d, 12h or 2w
    #[arg(long, value_name = "AGE")]
    older_than: Option<String>,
    /// Only messages that have been held over for so long
    #[arg(long, value_name = "AGE")]
    held_for: Option<String>,
    /// Print at most so many, oldest first
    #[arg(long, value_name = "N", default_value_t = usize::MAX, hide_default_value = true)]
    limit: usize,
    /// Print JSON: an array of ledger rows, oldest message first
    #[arg(long)]
    json: bool,
}

impl Open {
    pub async fn call(self, archive: &Archive) -> Result<bool> {
        let now = Timestamp::now();
        let (old, held) = (ago("--older-than", &self.older_than, now)?, ago("--held-for", &self.held_for, now)?);
        let mut open: Vec<(Timestamp, Row)> = Vec::new();
        let mut held_over = 0;
        let take = |row: Row| {
            let since = row.first_seen_open.filter(|_| row.disposition == Disposition::Open);
            held_over += u64::from(since.is_some());
            open.extend(since.filter(|since| is_wanted(row.timestamp, *since, old, held)).map(|since| (since, row)));
        };
        archive.ledger.staged(take).await?;
        open.sort_by(|left, right| {
            (left.1.timestamp, &left.1.message_id).cmp(&(right.1.timestamp, &right.1.message_id))
        });
        let all = open.len();
        open.truncate(self.limit);
        if self.json {
            say!("{}", serde_json::to_string_pretty(&open.iter().map(|(_, row)| row).collect::<Vec<_>>())?);
            return Ok(true);
        }
        if !open.is_empty() {
            say!("{:>10}  {:>10}  {:<10}  index and message", "age, days", "held, days", "date, UTC");
        }
        for (since, row) in &open {
            let (age, held) = (reports::days(row.timestamp, now), reports::days(*since, now));
            say!("{age:>10}  {held:>10}  {}  {}  {}", instant::date(row.timestamp), row.source_index, row.message_id);
        }
        say!("{}", told(held_over, all as u64, open.len() as u64));
        Ok(true)
    }
}

/// How many are held over in all, how many of them were asked for, and how many of those are shown.
fn told(held_over: u64, wanted: u64, shown: u64) -> String {
    let mut told = format!("{} held over", reports::count(held_over, "message"));
    if wanted < held_over {
        told.push_str(&format!(", {} of them for so long", reports::grouped(wanted)));
    }
    if shown < wanted {
        told.push_str(&format!(", {} shown", reports::grouped(shown)));
    }
    told
}

/// The instant that lies an age before now.
fn ago(option: &str, age: &Option<String>, now: Timestamp) -> Result<Timestamp> {
    let Some(age) = age else { return Ok(Timestamp::MAX) };
    let span = age.parse::<Span>().ok().filter(|span| !span.is_negative());
    let age_of = |span: Span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok();
    let no_age = || Usage(format!("{option} `{age}` is not an age: write 30d, 12h or 2w"));
    // Nothing is older than the calendar.
    Ok(now.checked_sub(span.and_then(age_of).ok_or_else(no_age)?).unwrap_or(Timestamp::MIN))
}

/// Whether a message of `timestamp`, first seen open at `since`, is as old as is asked for.
fn is_wanted(timestamp: Timestamp, since: Timestamp, old: Timestamp, held: Timestamp) -> bool {
    timestamp <= old && since <= held
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_none_is_so_old_does_not_mean_that_none_is_held_over() {
        assert_eq!(told(952, 0, 0), "952 messages held over, 0 of them for so long");
        assert_eq!(told(952, 952, 3), "952 messages held over, 3 shown");
        assert_eq!(told(952, 17, 3), "952 messages held over, 17 of them for so long, 3 shown");
        assert_eq!(told(1, 1, 1), "1 message held over");
    }

    #[test]
    fn the_age_of_a_message_is_not_how_long_it_was_held_over() {
        let now: Timestamp = "2024-10-01T00:00:00Z".parse().expect("an instant");
        let at = |age: &str| ago("--older-than", &Some(age.into()), now).expect("an age");
        let (message, seen) = (at("90d"), at("2h"));
        let any = ago("--held-for", &None, now).expect("any");
        assert!(is_wanted(message, seen, at("30d"), any), "an old message that today's run saw first");
        assert!(!is_wanted(message, seen, any, at("30d")) && is_wanted(message, seen, any, at("1h")));
        assert_eq!(at("7304484d"), Timestamp::MIN, "older than anything");
        for age in ["old", "", "30", "-30d", "1mo", "1y"] {
            let refused = ago("--older-than", &Some(age.into()), now).expect_err(age);
            assert!(refused.is::<Usage>(), "{age}: {refused}");
        }
    }
}
