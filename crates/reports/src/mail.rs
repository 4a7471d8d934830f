//! What the summary mail of a run says. How it is sent is the business of `mail`.

use crate::archive::{now_section, run_section};
use crate::letter::{Chart, Error, Letter, Link, Rendered};
use crate::section::{Block, Colour, Section, State, Table};
use crate::words::{self, count, grouped, one_line};
use crate::{chart, table_file};
use alerts::counts::Messages;
use alerts::mode::Mode;
use alerts::run::{
    job_run::RunStatus,
    report::{Details, RunReport},
    span::without,
};
use jiff::Timestamp;
use serde::Deserialize;

/// Where a reader may go on.
#[derive(Clone, Debug, Default)]
pub struct Links {
    pub dashboard: Option<String>,
    pub console: Option<String>,
}

/// What the mail tells.
#[derive(Clone, Debug)]
pub struct Summary<'a> {
    pub report: &'a RunReport,
    pub details: &'a Details,
    /// What the other pipelines have published, in the order in which it is told.
    pub pipelines: &'a [Section],
    pub links: &'a Links,
    /// The runs before this one, newest first.
    pub earlier: &'a [Earlier],
    /// Why an earlier mail about this run called it dead or refused; none where it was not.
    pub died_of: Option<&'a str>,
    /// This mail may have gone out before.
    pub duplicate: bool,
    /// The date of the mail, to which ages are relative.
    pub now: Timestamp,
}

/// A run as the chart of the last runs shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Earlier {
    pub run_id: String,
    #[serde(default)]
    pub mode: String,
    /// Where its range begins, as an instant in ISO 8601.
    pub from: String,
    pub outcome: String,
    pub messages: Messages,
    /// Messages of windows that failed or were set aside, and that no other run has committed.
    pub not_archived: u64,
    /// It has no report: what became of its messages is not known.
    #[serde(default)]
    pub uncounted: bool,
}

impl Earlier {
    /// What `dashboard/data/runs.json` says, newest first. What it says in another form by now is skipped: the chart is
    /// no proof.
    pub fn read(body: &[u8]) -> Vec<Earlier> {
        #[derive(Deserialize)]
        struct Listed {
            runs: Vec<serde_json::Value>,
        }
        let listed: Option<Listed> = serde_json::from_slice(body).ok();
        let runs = listed.into_iter().flat_map(|listed| listed.runs);
        runs.filter_map(|run| serde_json::from_value(run).ok()).collect()
    }

    fn of(report: &RunReport) -> Self {
        Earlier {
            run_id: report.run_id.clone(),
            mode: report.mode.clone(),
            from: identity::instant::iso(report.from),
            outcome: words::outcome_label(report),
            messages: report.messages,
            not_archived: words::left(report).not_archived(),
            uncounted: !report.is_counted(),
        }
    }

    fn bar(&self) -> Vec<chart::BarSegment> {
        let Messages { archived, already_archived, open, quarantined, .. } = self.messages;
        let part = |count, colour| chart::BarSegment { count, colour };
        vec![
            part(archived, Colour::Done),
            part(already_archived, Colour::DoneBefore),
            part(open, Colour::Waiting),
            part(quarantined, Colour::SetAside),
            part(self.not_archived, Colour::Failed),
        ]
    }
}

/// Runs in the chart, this one included.
const CHARTED: usize = 12;
/// The name of the chart, by which the HTML asks for it.
pub const CHART: &str = "last-runs";

/// A mail, the picture that its HTML shows, and the file that goes along.
#[derive(Clone, Debug)]
pub struct Mail {
    pub rendered: Rendered,
    /// PNG.
    pub chart: Option<Vec<u8>>,
    /// CSV.
    pub failed_windows: Option<Vec<u8>>,
}

pub fn mail(summary: &Summary) -> Result<Mail, Error> {
    let runs = last_runs(summary);
    let chart = match runs.len() {
        0 | 1 => None,
        _ => Some(chart::stacked(&runs.iter().rev().map(Earlier::bar).collect::<Vec<_>>())?),
    };
    let failed_windows = table_file::failed_windows(summary.report, &summary.details.execution_arn)?;
    Ok(Mail { rendered: letter(summary).render()?, chart, failed_windows })
}

/// This run and those before it, newest first.
fn last_runs(summary: &Summary) -> Vec<Earlier> {
    let this = Earlier::of(summary.report);
    let others = summary.earlier.iter().filter(|run| run.run_id != this.run_id).take(CHARTED - 1).cloned();
    std::iter::once(this.clone()).chain(others).collect()
}

/// The same runs as the chart, for those who see none.
fn last_runs_section(runs: &[Earlier]) -> Section {
    let done = |run: &Earlier| run.messages.archived + run.messages.already_archived;
    let told = |run: &Earlier, number| if run.uncounted { "-".to_owned() } else { grouped(number) };
    let row = |run: &Earlier| [begins(run), told(run, done(run)), told(run, run.not_archived), run.outcome.clone()];
    let rows = runs.iter().map(row);
    let columns = ["Messages from", "#Archived", "#Not yet", "Outcome"];
    Section::new("The last runs", "newest first").table(Table::new("", &columns).rows(rows, None))
}

/// A whole range would take five lines of a phone.
fn begins(run: &Earlier) -> String {
    if [Mode::Recheck, Mode::Process].iter().any(|mode| mode.as_str() == run.mode) {
        return "any time".to_owned();
    }
    let (date, time) = run.from.split_once('T').unwrap_or((&run.from, ""));
    match time.get(..5) {
        None | Some("00:00") => date.to_owned(),
        Some(minute) => format!("{date} {minute}"),
    }
}

/// Whether a report is of interest to others than the operator who started the run: a run over one instant, such as
/// the release of a message from quarantine, is not, unless it went wrong.
pub fn is_for_everybody(report: &RunReport) -> bool {
    let is_one_instant = report.to.duration_since(report.from).as_millis() <= 1;
    !(report.mode == "range" && is_one_instant && report.status == RunStatus::Completed)
}

fn letter(summary: &Summary) -> Letter {
    let &Summary { report, details, links, now, .. } = summary;
    let extent = words::extent(report);
    // The mail's headline says it already.
    let mut this_run = Section { headline: String::new(), ..run_section(report, details) };
    if let Some(died_of) = summary.died_of.filter(|_| words::all_well(report)) {
        let text =
            format!("Recovered: an earlier mail said that this run had ended with {died_of}. It is complete now.");
        this_run.blocks.insert(0, Block::Text { text });
    }
    let mut sections = vec![this_run];
    let mut beside = Vec::new();
    if let Some(overview) = &details.overview {
        let section = now_section(overview, details.before.as_ref(), &report.unresolved, now);
        // What failed in this run is told by its own sentence.
        let others = without(overview.gaps_beside(&report.unresolved), &report.uncommitted());
        if !others.is_empty() {
            beside.push((section.state, "there are gaps".to_owned()));
        }
        let before = details.before.as_ref().map_or(0, |before| before.quarantined);
        if overview.quarantined > before {
            let new = count(overview.quarantined - before, "message");
            beside.push((State::Attention, format!("{new} new in quarantine")));
        }
        let is_bad = words::state(report).max(section.state) == State::Bad;
        sections.insert(usize::from(is_bad), section);
    }
    let in_need = summary.pipelines.iter().filter(|section| section.state >= State::Attention);
    beside.extend(in_need.map(|section| (section.state, format!("see {}", one_line(&section.title)))));
    let state = beside.iter().map(|(state, _)| *state).fold(words::state(report), State::max);
    let beside: Vec<String> = beside.into_iter().map(|(_, what)| what).collect();
    let runs = last_runs(summary);
    let chart = (runs.len() > 1).then(|| Chart {
        name: CHART.to_owned(),
        told:
            "Messages of the last runs, oldest to the left: archived, archived earlier, open, in quarantine, not yet \
            archived."
                .to_owned(),
    });
    if chart.is_some() {
        sections.push(last_runs_section(&runs));
    }
    sections.extend(summary.pipelines.iter().cloned());
    let link = |label: &str, url: &Option<String>| url.clone().map(|url| Link { label: label.to_owned(), url });
    let links = [link("Page", &links.dashboard), link("Execution in the console", &links.console)];
    Letter {
        subject: format!("Alert archive: {} ({extent})", subject(report, &beside)),
        duplicate: summary.duplicate,
        about: format!("Alert archive, {extent}"),
        state,
        headline: headline(report, state, &beside),
        sections,
        chart,
        links: links.into_iter().flatten().collect(),
        footer: format!("Run {}, {}, attempt {}", one_line(&report.run_id), one_line(&report.mode), report.attempt),
    }
}

/// Runs stay away.
#[derive(Clone, Copy, Debug)]
pub struct Overdue<'a> {
    /// Whole days since the last completed run, or since the first was planned.
    pub days: u64,
    /// After how many days one is missed.
    pub expected: u64,
    /// The last run that completed, if any did.
    pub completed: Option<&'a str>,
    pub dashboard: Option<&'a str>,
}

/// The mail that tells it.
pub fn overdue(silence: &Overdue, duplicate: bool) -> Result<Rendered, Error> {
    let days = count(silence.days, "day");
    let headline = match silence.completed {
        Some(run) => format!("No run has completed for {days}, since {}.", one_line(run)),
        None => format!("No run has completed yet, {days} after the first was planned."),
    };
    let why = format!("One is expected at least every {}.", count(silence.expected, "day"));
    let section = Section::new("What to do", "all runs")
        .text(format!(
            "{why} Nothing is lost as long as the source keeps its messages: the next scheduled run begins where the \
            last one ended."
        ))
        .command(
            "How the last runs ended, and whether all is there that they need:",
            vec!["alert-archive status --limit 5".into(), "alert-archive doctor".into()],
        )
        .text(
            "Where no run was even started, look at the schedule in EventBridge Scheduler, and at its dead-letter \
            queue.",
        );
    let letter = Letter {
        subject: format!("Alert archive: no run for {days}"),
        duplicate,
        about: "Alert archive, told once a week while it lasts".to_owned(),
        state: State::Bad,
        headline: format!("Please act. {headline}"),
        sections: vec![section],
        links: silence.dashboard.map(|url| Link { label: "Page".into(), url: url.into() }).into_iter().collect(),
        ..Letter::default()
    };
    letter.render()
}

/// Whether anything in the mail needs doing, and how the run went. `beside` is what needs it beside the run.
fn headline(report: &RunReport, state: State, beside: &[String]) -> String {
    let (sentence, others) = (words::sentence(report), beside.join(", "));
    let call = match state {
        State::Bad => "Please act",
        State::Attention => "Please look",
        State::Good | State::Plain if !report.unresolved.is_empty() => "Nothing new to do",
        State::Good | State::Plain => "Nothing to do",
    };
    if beside.is_empty() {
        format!("{call}. {sentence}")
    } else if words::state(report) == state {
        format!("{call}. {sentence} Besides: {others}.")
    } else {
        format!("{call}: {others}. This run: {sentence}")
    }
}

fn subject(report: &RunReport, beside: &[String]) -> String {
    match report.windows.failed {
        0 if !words::all_well(report) => words::outcome_label(report),
        0 if !beside.is_empty() => beside.join(", "),
        0 if words::staged(report) > 0 => format!("{} staged", count(words::staged(report), "message")),
        0 if report.messages.archived == 0 => "nothing new to archive".to_owned(),
        0 => format!("{} archived", count(report.messages.archived, "message")),
        failed => format!("{} of {} failed", grouped(failed), count(report.windows.planned, "window")),
    }
}
