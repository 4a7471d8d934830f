//! What the summary mail of a run says, in plain text and in HTML. How it is sent is the business of `mail`.

use crate::words::{self, count, grouped, one_line};
use alerts::run::report::{OpenMessage, RunReport};
use jiff::Timestamp;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;

const LISTED: usize = 10;

#[derive(Debug, thiserror::Error)]
#[error("the mail's text could not be put together")]
pub struct Error(#[from] minijinja::Error);

/// Where a reader may go on; only http and https are linked.
#[derive(Clone, Debug, Default)]
pub struct Links {
    pub dashboard: Option<String>,
    pub console: Option<String>,
}

/// What the mail tells.
#[derive(Clone, Debug)]
pub struct Summary<'a> {
    pub report: &'a RunReport,
    /// Oldest first.
    pub oldest_open: &'a [OpenMessage],
    pub quarantine_reasons: &'a [(String, u64)],
    pub links: &'a Links,
    /// This mail may have gone out before.
    pub duplicate: bool,
    /// The date of the mail, to which ages are relative.
    pub now: Timestamp,
}

/// The mail's subject and its two parts of the same content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    pub subject: String,
    pub text: String,
    pub html: String,
}

pub fn summary(summary: &Summary) -> Result<Rendered, Error> {
    let view = View::new(summary);
    let (text, html) = (render("summary.txt", &view)?, render("summary.html", &view)?);
    Ok(Rendered { subject: view.subject, text, html })
}

fn render(name: &str, view: &View) -> Result<String, Error> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment
        .set_auto_escape_callback(|name| if name.ends_with(".html") { AutoEscape::Html } else { AutoEscape::None });
    environment.add_template("summary.txt", include_str!("../templates/summary.txt"))?;
    environment.add_template("summary.html", include_str!("../templates/summary.html"))?;
    Ok(environment.get_template(name)?.render(Serde(view))?)
}

/// What the templates fill in: texts ready to be shown, each on one line.
#[derive(Serialize)]
struct View {
    subject: String,
    well: bool,
    duplicate: bool,
    sentence: String,
    run_id: String,
    mode: String,
    range: String,
    attempt: u64,
    counts: Vec<Row>,
    source: String,
    unaccounted: Option<String>,
    /// Widths in per cent, of what there is.
    bar: Vec<Slice>,
    notes: Vec<String>,
    failures: Vec<FailureView>,
    failures_left_out: usize,
    rerun: String,
    set_aside: Vec<words::SetAside>,
    set_aside_left_out: usize,
    backlog: String,
    oldest: Vec<OpenView>,
    reasons: Vec<Row>,
    dashboard: Option<String>,
    console: Option<String>,
}

#[derive(Serialize)]
struct Row {
    label: String,
    count: String,
    colour: &'static str,
}

#[derive(Serialize)]
struct Slice {
    width: u64,
    colour: &'static str,
}

#[derive(Serialize)]
struct FailureView {
    window: String,
    error: String,
    message: String,
    advice: &'static str,
}

#[derive(Serialize)]
struct OpenView {
    id: String,
    index: String,
    date: String,
    age: String,
}

impl View {
    fn new(summary: &Summary) -> Self {
        let &Summary { report, links, now, duplicate, .. } = summary;
        let messages = &report.messages;
        let range = words::range(report.from, report.to);
        let well = words::all_well(report);
        let parts = [
            ("Archived", messages.archived, "#1a7f4b"),
            ("Archived earlier", messages.already_archived, "#8fbfa5"),
            ("Still open, held over", messages.open, "#c77700"),
            ("In quarantine", messages.quarantined, "#8a4fbf"),
        ];
        let missing = words::unaccounted(report);
        View {
            subject: subject(report, &range, duplicate),
            well,
            duplicate,
            sentence: words::sentence(report),
            run_id: one_line(&report.run_id),
            mode: one_line(&report.mode),
            range,
            attempt: report.attempt,
            counts: parts
                .iter()
                .map(|&(label, number, colour)| Row { label: label.to_owned(), count: grouped(number), colour })
                .collect(),
            source: grouped(messages.source),
            unaccounted: (missing != 0).then(|| grouped(missing.unsigned_abs())),
            bar: bar(&parts.map(|(_, number, colour)| (number, colour))),
            notes: notes(report),
            failures: words::failures(report).take(LISTED).map(FailureView::new).collect(),
            failures_left_out: words::failures(report).count().saturating_sub(LISTED),
            rerun: words::rerun_command(&report.run_id),
            set_aside: report.unresolved.iter().take(LISTED).map(|item| words::set_aside(item, now)).collect(),
            set_aside_left_out: report.unresolved.len().saturating_sub(LISTED),
            backlog: grouped(report.backlog),
            oldest: summary.oldest_open.iter().take(LISTED).map(|open| OpenView::new(open, now)).collect(),
            reasons: summary
                .quarantine_reasons
                .iter()
                .map(|(reason, number)| Row {
                    label: one_line(reason).replace('_', " "),
                    count: grouped(*number),
                    colour: "#8a4fbf",
                })
                .collect(),
            dashboard: links.dashboard.as_deref().and_then(web),
            console: links.console.as_deref().and_then(web),
        }
    }
}

impl FailureView {
    fn new(failure: &alerts::run::report::Failure) -> Self {
        FailureView {
            window: one_line(&failure.window_id),
            error: one_line(&failure.error),
            message: one_line(&failure.message),
            advice: errors::advice(&failure.error),
        }
    }
}

impl OpenView {
    fn new(open: &OpenMessage, now: Timestamp) -> Self {
        OpenView {
            id: one_line(&open.message_id),
            index: one_line(&open.source_index),
            date: words::date(open.timestamp),
            age: count(words::days(open.timestamp, now), "day"),
        }
    }
}

fn subject(report: &RunReport, range: &str, duplicate: bool) -> String {
    let outcome = match (words::all_well(report), report.windows.failed) {
        (true, _) => format!("{} archived", count(report.messages.archived, "message")),
        (false, 0) => "needs attention".to_owned(),
        (false, failed) => format!("{} of {} failed", grouped(failed), count(report.windows.planned, "window")),
    };
    format!("{}Alert archive: {outcome} ({range})", if duplicate { "[duplicate] " } else { "" })
}

/// The smaller facts, told only when there is something to tell.
fn notes(report: &RunReport) -> Vec<String> {
    let RunReport { messages, recheck, sweep, bytes, .. } = report;
    let mut notes = Vec::new();
    let mut note = |when: u64, text: String| notes.extend((when > 0).then_some(text));
    note(
        messages.no_alerts,
        format!("{} had no alerts at all and count as closed.", count(messages.no_alerts, "message")),
    );
    note(
        recheck.looked_at,
        format!(
            "{} of earlier runs looked at again: {} closed since, {} still open, {} gone from the source.",
            count(recheck.looked_at, "open message"),
            grouped(recheck.closed),
            grouped(recheck.open),
            grouped(recheck.gone)
        ),
    );
    note(
        sweep.late + sweep.changed + sweep.reopened,
        format!(
            "Found behind the range: {} late, {} changed, {} reopened.",
            grouped(sweep.late),
            grouped(sweep.changed),
            grouped(sweep.reopened)
        ),
    );
    note(report.collisions, format!("{} in more than one index; every copy is kept.", count(report.collisions, "id")));
    note(
        report.undated,
        format!(
            "{} without a usable timestamp: in no window, and left where they are.",
            count(report.undated, "document")
        ),
    );
    note(
        report.absent.len() as u64,
        format!("The source has no {}: messages were archived without.", report.absent.join(" and no ")),
    );
    note(
        bytes.archive,
        format!("{} of documents became {} in the archive.", words::bytes(bytes.source), words::bytes(bytes.archive)),
    );
    notes
}

/// Whole per cent that add up to 100, none of them nothing for something.
fn bar(parts: &[(u64, &'static str)]) -> Vec<Slice> {
    let total: u128 = parts.iter().map(|&(number, _)| u128::from(number)).sum();
    let present = parts.iter().filter(|&&(number, _)| number > 0);
    let mut slices: Vec<Slice> = present
        .map(|&(number, colour)| Slice {
            width: u64::try_from((u128::from(number) * 100 / total).max(1)).unwrap_or(100),
            colour,
        })
        .collect();
    let rest = 100 - slices.iter().map(|slice| slice.width as i64).sum::<i64>();
    if let Some(widest) = slices.iter_mut().max_by_key(|slice| slice.width) {
        widest.width = widest.width.saturating_add_signed(rest);
    }
    slices
}

fn web(link: &str) -> Option<String> {
    let sound = (link.starts_with("https://") || link.starts_with("http://"))
        && !link.chars().any(|c| c.is_control() || c.is_whitespace());
    sound.then(|| link.to_owned())
}
