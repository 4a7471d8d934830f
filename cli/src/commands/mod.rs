pub mod cancel;
pub mod cost;
pub mod doctor;
mod dry_run;
pub mod feeds;
pub mod find;
#[cfg(test)]
mod given;
pub mod logs;
pub mod open;
pub mod purge;
pub mod quarantine;
pub mod rerun;
pub mod restore;
pub mod run;
pub mod skip;
pub mod status;
pub mod verify;
pub mod warehouse;
pub mod watch;
pub mod watermark;

use anyhow::Result;
use identity::instant;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::{SignedDuration, Timestamp};
use std::io::IsTerminal;

/// The command was not understood: an exit code of its own, as for what the parser of the command line refuses.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(String);

fn usage(is_right: bool, what: &str) -> Result<()> {
    if is_right { Ok(()) } else { Err(Usage(what.to_owned()).into()) }
}

/// Reads an option that names an instant.
fn instant_of(option: &str, text: Option<&str>) -> Result<Timestamp> {
    let missing = || Usage(format!("{option} is missing: it names a UTC date or instant, such as 2019-07-01"));
    let text = text.ok_or_else(missing)?;
    let no_date = || {
        let forms = "2019-07-01, 2019-07, 2019-07-01T12:00:00Z, today, yesterday, 7d or now, in UTC";
        Usage(format!("{option} `{text}` is not a date: write {forms}"))
    };
    Ok(instant_at(text, Timestamp::now()).ok_or_else(no_date)?)
}

/// What people type for an instant.
fn instant_at(text: &str, now: Timestamp) -> Option<Timestamp> {
    let today = || instant::parse(&instant::date(now));
    let day = SignedDuration::from_hours(24);
    match text.trim() {
        "now" => instant::parse(&instant::iso(now)),
        "today" => today(),
        "yesterday" => Some(today()? - day),
        text => match text.strip_suffix('d').and_then(|days| days.parse::<u16>().ok()) {
            Some(days) => today()?.checked_sub(day * i32::from(days)).ok(),
            None => instant::parse_edge(text),
        },
    }
}

/// Reads `--from` and `--to`.
fn range_of(from: Option<&str>, to: Option<&str>) -> Result<(Timestamp, Timestamp)> {
    let (from, to) = (instant_of("--from", from)?, instant_of("--to", to)?);
    if from >= to {
        let (from, to) = (instant::iso(from), instant::iso(to));
        return Err(Usage(format!("--from {from} is not before --to {to}: the range is empty")).into());
    }
    Ok((from, to))
}

/// A bar on a terminal, nothing in a pipe.
fn bar(length: usize, unit: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(length as u64);
    let template = format!("{{elapsed_precise}} [{{bar:40}}] {{pos}}/{{len}} {unit}  {{msg}}");
    match ProgressStyle::with_template(&template) {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_as_people_type_them() {
        let now: Timestamp = "2024-10-15T06:30:00.123456Z".parse().expect("an instant");
        for (text, expected) in [
            ("2024-07", "2024-07-01T00:00:00.000Z"),
            ("2024-07-03", "2024-07-03T00:00:00.000Z"),
            ("2024-07-03T12:00:00+02:00", "2024-07-03T10:00:00.000Z"),
            ("today", "2024-10-15T00:00:00.000Z"),
            ("yesterday", "2024-10-14T00:00:00.000Z"),
            ("7d", "2024-10-08T00:00:00.000Z"),
            ("now", "2024-10-15T06:30:00.123Z"),
        ] {
            assert_eq!(instant_at(text, now).map(instant::iso).as_deref(), Some(expected), "{text}");
        }
        for text in ["", "d", "-7d", "tomorrow", "2024-13", "7 days"] {
            assert_eq!(instant_at(text, now), None, "{text}");
        }
    }
}
