//! What the summary mail of a run says. How it is sent is the business of `mail`.

use crate::archive::{now_section, run_section};
use crate::letter::{Error, Letter, Link, Rendered};
use crate::section::{Section, State};
use crate::words::{self, count, grouped, one_line};
use alerts::run::{
    job_run::RunStatus,
    report::{Details, RunReport},
};
use jiff::Timestamp;

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
    /// This mail may have gone out before.
    pub duplicate: bool,
    /// The date of the mail, to which ages are relative.
    pub now: Timestamp,
}

/// Whether a report is of interest to anybody but the operator who started the run: a run over one instant, such as
/// the release of a message from quarantine, is not, unless it went wrong.
pub fn is_for_everybody(report: &RunReport) -> bool {
    let is_one_instant = report.to.duration_since(report.from).as_millis() <= 1;
    !(report.mode == "range" && is_one_instant && report.status == RunStatus::Completed)
}

pub fn summary(summary: &Summary) -> Result<Rendered, Error> {
    letter(summary).render()
}

fn letter(summary: &Summary) -> Letter {
    let &Summary { report, details, links, now, .. } = summary;
    let range = words::range(report.from, report.to);
    // The mail's headline says it already.
    let mut sections = vec![Section { headline: String::new(), ..run_section(report, details) }];
    let mut state = words::state(report);
    if let Some(overview) = &details.overview {
        let section = now_section(overview, details.before.as_ref(), &report.unresolved, now);
        state = state.max(section.state);
        sections.insert(if state == State::Bad { 1 } else { 0 }, section);
    }
    sections.extend(summary.pipelines.iter().cloned());
    let link = |label: &str, url: &Option<String>| url.clone().map(|url| Link { label: label.to_owned(), url });
    let links = [link("Page", &links.dashboard), link("Execution in the console", &links.console)];
    Letter {
        subject: format!("Alert archive: {} ({range})", subject(report, state)),
        duplicate: summary.duplicate,
        about: format!("Alert archive, {range}"),
        state,
        headline: format!("{} {}", call(state, report), words::sentence(report)),
        sections,
        links: links.into_iter().flatten().collect(),
        footer: format!("Run {}, {}, attempt {}", one_line(&report.run_id), one_line(&report.mode), report.attempt),
    }
}

/// Whether anything needs doing.
fn call(state: State, report: &RunReport) -> &'static str {
    match state {
        State::Bad => "Please act.",
        State::Attention => "Please look.",
        State::Good | State::Plain if !report.unresolved.is_empty() => "Nothing new to do.",
        State::Good | State::Plain => "Nothing to do.",
    }
}

fn subject(report: &RunReport, state: State) -> String {
    match (report.windows.failed, state) {
        (0, State::Good | State::Plain) => format!("{} archived", count(report.messages.archived, "message")),
        (0, _) if words::all_well(report) => "there are gaps".to_owned(),
        (0, _) => words::outcome_label(report),
        (failed, _) => format!("{} of {} failed", grouped(failed), count(report.windows.planned, "window")),
    }
}
