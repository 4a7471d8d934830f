pub mod feeds;
pub mod find;
pub mod logs;
pub mod open;
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

use anyhow::{Result, bail};
use identity::instant;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use std::io::IsTerminal;

/// Reads an option that names an instant.
fn instant_of(option: &str, text: Option<&str>) -> Result<Timestamp> {
    let Some(text) = text else { bail!("{option} is missing: it names a UTC date or instant, such as 2019-07-01") };
    match instant::parse_edge(text) {
        Some(at) => Ok(at),
        None => bail!(
            "{option} `{text}` is no date: write a UTC date or instant, such as 2019-07-01 or 2019-07-01T12:00:00Z"
        ),
    }
}

/// Reads `--from` and `--to`.
fn range_of(from: Option<&str>, to: Option<&str>) -> Result<(Timestamp, Timestamp)> {
    let (from, to) = (instant_of("--from", from)?, instant_of("--to", to)?);
    if from >= to {
        bail!("--from {} is not before --to {}: the range is empty", instant::iso(from), instant::iso(to));
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
