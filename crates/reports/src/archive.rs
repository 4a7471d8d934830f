//! The alert archive's own sections: the archive now, and one run. Each is labelled with what its numbers are about.

use crate::cost;
use crate::section::{Account, Bar, Colour, Figure, Problem, Section, State, Table};
use crate::words::{self, Left, bytes, count, grouped};
use alerts::counts::SourceSize;
use alerts::run::{
    job_run::RunStatus,
    overview::{Overview, span_of},
    report::{Before, Details, Failure, OpenMessage, RunReport},
    span::Span,
    unresolved::Unresolved,
};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;

/// Days after which an open message is worth a look.
const OLD: u64 = 60;
/// Ranges that a problem names.
const RANGES: usize = 6;

/// All runs together.
pub fn now_section(overview: &Overview, before: Option<&Before>, unresolved: &[Unresolved], now: Timestamp) -> Section {
    let since =
        overview.since.as_deref().map_or(String::new(), |since| format!("since {}, ", &since[..since.len().min(10)]));
    let scope = format!("all {}, {since}as of {} UTC", count(overview.runs, "run"), words::minute(overview.as_of));
    let gaps = overview.gaps_beside(unresolved);
    let (state, headline) = match (gaps.len(), overview.covered.first(), overview.covered.last()) {
        (0, Some(first), Some(last)) if !overview.gaps.is_empty() => {
            let whole = words::range(first.from, last.to);
            (State::Good, format!("Without a gap but for what is set aside: {whole}."))
        }
        (0, Some(first), Some(last)) => {
            let whole = words::range(first.from, last.to);
            (
                State::Good,
                if overview.covered.len() == 1 {
                    format!("Complete without a gap: {whole}.")
                } else {
                    format!(
                        "Complete within {} that runs have covered, {whole}.",
                        count(overview.covered.len() as u64, "range")
                    )
                },
            )
        }
        (0, ..) if overview.archived > 0 => (State::Plain, "No run over a whole range has ended yet.".to_owned()),
        (0, ..) => (State::Plain, "No run has archived anything yet.".to_owned()),
        (gaps, ..) => {
            (State::Bad, format!("{} that runs had planned and none has committed.", count(gaps as u64, "gap")))
        }
    };
    let change = |now: u64, then: fn(&Before) -> u64| match before {
        Some(before) => format!("{} since the last report", signed(i128::from(now) - i128::from(then(before)))),
        None => String::new(),
    };
    let mut open =
        Figure::count("Still open, held over", overview.open).note(change(overview.open, |before| before.open));
    let oldest = overview.oldest_open.first().map(|open| words::days(open.timestamp, now));
    if oldest.is_some_and(|days| days >= OLD) {
        open = open.state(State::Attention);
    }
    let mut quarantined = Figure::count("In quarantine", overview.quarantined)
        .note(change(overview.quarantined, |before| before.quarantined));
    if overview.quarantined > 0 {
        quarantined = quarantined.state(State::Attention);
    }
    let in_source = InSource::of(overview);
    let figures = vec![
        Figure::count("Messages in the archive", overview.archived)
            .note(change(overview.archived, |before| before.archived)),
        Figure::new("Size in the archive", bytes(overview.bytes))
            .note(in_source.map_or(String::new(), |size| size.beside(overview.bytes))),
        open,
        quarantined,
    ];
    let keeping = in_source.map(|size| cost::of_keeping(size.bytes, overview.bytes, overview.source_gb_month).to_vec());
    let gaps = gaps.iter().map(|Span { from, to }| [words::range(*from, *to)]);
    let reasons = overview.quarantine_reasons.iter();
    let section = Section::new("The archive now", scope)
        .headline(state, headline)
        .figures(figures)
        .notes(keeping.unwrap_or_default())
        .table(Table::new("Gaps", &["Messages of"]).rows(gaps, None))
        .bars(
            "In quarantine, by reason",
            reasons.map(|(reason, number)| Bar::count(reason.replace('_', " "), *number, Colour::SetAside)).collect(),
        )
        .table(oldest_open(&overview.oldest_open, overview.open, now));
    set_aside(section, unresolved, now)
}

/// What the messages of the archive have in the source.
#[derive(Clone, Copy)]
struct InSource {
    bytes: u64,
    /// Of some, the size was not counted when they were archived: they are taken to be like the others.
    is_estimate: bool,
}

impl InSource {
    fn of(overview: &Overview) -> Option<Self> {
        let SourceSize { messages, bytes } = overview.in_source;
        let (known, bytes) = (u128::try_from(messages).ok()?, u128::try_from(bytes).ok()?);
        let all = u128::from(overview.archived);
        let bytes = u64::try_from((bytes * all).checked_div(known)?).ok()?;
        Some(InSource { bytes, is_estimate: known != all })
    }

    /// `20.0 GB in the source: 75 % less`.
    fn beside(self, archive_bytes: u64) -> String {
        let about = if self.is_estimate { "about " } else { "" };
        format!("{about}{} in the source{}", bytes(self.bytes), less(self.bytes, archive_bytes))
    }
}

/// Ages count from the messages' own time; how long a message was seen open stands beside it. The index is named where
/// there are several: a phone has no room for a column that says the same in each row.
fn oldest_open(oldest: &[OpenMessage], open: u64, now: Timestamp) -> Table {
    let has_one_index = oldest.windows(2).all(|pair| pair[0].source_index == pair[1].source_index);
    let rows = oldest.iter().map(|open| {
        let OpenMessage { message_id, source_index, timestamp, first_seen_open } = open;
        let name = if has_one_index { message_id.clone() } else { format!("{message_id} in {source_index}") };
        let (age, held) = (words::days(*timestamp, now), words::days(*first_seen_open, now));
        [name, words::date(*timestamp), grouped(age), grouped(held)]
    });
    Table::new("Oldest open messages", &["Message", "Message of", "#Age, days", "#Held over, days"])
        .rows(rows, Some(open))
}

fn set_aside(section: Section, unresolved: &[Unresolved], now: Timestamp) -> Section {
    let problem = |item: &Unresolved| {
        let item = words::set_aside(item, now);
        Problem {
            name: format!("{} {}", item.what, item.name),
            affected: format!("of {}, for {} (since {}), because: {}", item.of, item.age, item.since, item.reason),
            advice: format!("When the cause is gone: {}", item.way_back.join("; then ")),
            ..Problem::default()
        }
    };
    section.problems(
        "Set aside by operators, until one of them comes back to it",
        unresolved.iter().map(problem).collect(),
    )
}

/// One run.
pub fn run_section(report: &RunReport, details: &Details) -> Section {
    let extent = words::extent(report);
    let scope = format!("{}, {extent}, {}, attempt {}", report.run_id, report.mode, report.attempt);
    let mut section = Section::new("This run", scope).headline(words::state(report), words::sentence(report));
    if let Some(repaired) = repaired(report, details) {
        section = section.text(repaired);
    }
    if !report.is_counted() {
        let planned = match report.windows.planned {
            0 => "it had no plan yet".to_owned(),
            planned => format!("it had planned {}", count(planned, "window")),
        };
        // While a run is at work, its sentence says what it has planned.
        if report.status != RunStatus::Running {
            section = section.text(format!("Nothing was counted: {planned}."));
        }
    } else if report.windows.planned > 0 || report.messages.source > 0 {
        section = section.account(account(report));
    }
    let is_at_work = report.status == RunStatus::Running;
    let title = if is_at_work { "What had failed, and may run again now" } else { "What failed" };
    section = section.notes(notes(report)).problems(title, problems(report, &details.execution_arn));
    if !is_at_work && words::failures(report).next().is_some() {
        section = section.command(how_to_run_again(report), vec![words::rerun_command(&report.run_id)]);
    }
    let gone = details.gone.iter().map(|gone| {
        [
            gone.message_id.clone(),
            gone.source_index.clone(),
            words::date(gone.timestamp),
            words::date(gone.first_seen_open),
        ]
    });
    let columns = ["Message", "Index", "Message of", "First seen open"];
    section = section
        .table(Table::new("Gone from the source, told this once", &columns).rows(gone, Some(report.recheck.gone)));
    let reasons = details.quarantine_reasons.iter();
    section.bars(
        "Sent to quarantine by this run, by reason",
        reasons.map(|(reason, number)| Bar::count(reason.replace('_', " "), *number, Colour::SetAside)).collect(),
    )
}

/// Windows that are done are never run again; of a run that has not come so far, nothing is known to be done.
fn how_to_run_again(report: &RunReport) -> &'static str {
    if report.windows.failed > 0 {
        "Only what failed runs again, with this command or with Redrive in the console:"
    } else {
        "When the cause is gone, run it again with this command or with Redrive in the console; what is done stays \
        done:"
    }
}

/// What was to be archived, and what became of it: counted against the plan.
pub fn account(report: &RunReport) -> Account {
    let (messages, Left { failed, set_aside }) = (&report.messages, words::left(report));
    let mut parts = vec![
        ("Archived", messages.archived, Colour::Done),
        ("Archived earlier", messages.already_archived, Colour::DoneBefore),
        ("Still open, held over", messages.open, Colour::Waiting),
        ("In quarantine", messages.quarantined, Colour::SetAside),
    ];
    for (label, count, colour) in [
        ("Staged, to be written by mode process", words::staged(report), Colour::Waiting),
        ("Not archived yet, in failed windows", failed.missing, Colour::Failed),
        ("In failed windows, in part committed by other runs", failed.in_part, Colour::Failed),
        ("In failed windows that other runs have committed", failed.by_other_runs, Colour::Other),
        ("Not archived, set aside", set_aside.missing, Colour::Failed),
        ("Set aside, in part committed by other runs", set_aside.in_part, Colour::Failed),
        ("Set aside, but committed by other runs", set_aside.by_other_runs, Colour::Other),
    ] {
        if count > 0 {
            parts.push((label, count, colour));
        }
    }
    Account::new("In the source, in all", messages.source + failed.all() + set_aside.all(), &parts)
}

/// Told when failed windows of an earlier attempt are done now.
fn repaired(report: &RunReport, details: &Details) -> Option<String> {
    let before = details.before.as_ref().filter(|before| before.run_id == report.run_id)?;
    let left = words::left(report);
    // What an operator has set aside since is no repair.
    let windows_aside = words::set_aside_here(report).saturating_sub(before.set_aside_windows);
    let messages_aside = left.set_aside.all().saturating_sub(before.set_aside_messages);
    let windows = before.failed_windows.saturating_sub(report.windows.failed + windows_aside);
    let messages = before.failed_messages.saturating_sub(left.failed.all() + messages_aside);
    (windows > 0).then(|| {
        format!("Repaired: {}, {} since the last report.", count(windows, "window"), count(messages, "message"))
    })
}

/// What failed, by error: how many windows, how many messages, where, and what to do. The log of one of them is linked.
pub fn problems(report: &RunReport, execution_arn: &str) -> Vec<Problem> {
    let mut by_error: BTreeMap<&str, Vec<&Failure>> = BTreeMap::new();
    for failure in words::failures(report) {
        by_error.entry(&failure.error).or_default().push(failure);
    }
    let mut groups: Vec<_> = by_error.into_iter().collect();
    groups.sort_by_key(|(_, failures)| std::cmp::Reverse(failures.len()));
    let problem = |(error, failures): (&str, Vec<&Failure>)| {
        let messages: u64 = failures.iter().map(|failure| failure.messages).sum();
        let windows = failures.iter().filter(|failure| !failure.window_id.is_empty()).count() as u64;
        let affected = match (windows, messages) {
            (0, _) => "the whole run".to_owned(),
            (windows, 0) => count(windows, "window"),
            (windows, messages) => format!("{}, {}", count(windows, "window"), count(messages, "message")),
        };
        Problem {
            name: error.to_owned(),
            affected,
            places: folded(&failures),
            message: failures.first().map(|failure| failure.message.clone()).unwrap_or_default(),
            advice: errors::advice(error).to_owned(),
            link: failures.iter().find_map(|failure| words::log_of_failure(failure, execution_arn)),
        }
    };
    groups.into_iter().map(problem).collect()
}

/// Windows that follow each other are one range; a window that stands alone keeps its id, which commands take.
fn folded(failures: &[&Failure]) -> Vec<String> {
    let mut ids: Vec<&str> =
        failures.iter().map(|failure| failure.window_id.as_str()).filter(|id| !id.is_empty()).collect();
    ids.sort_unstable();
    let mut ranges: Vec<(Span, Vec<&str>)> = Vec::new();
    let mut places = Vec::new();
    for id in ids {
        match (span_of(id), ranges.last_mut()) {
            (Some(span), Some((last, members))) if span.from <= last.to => {
                last.to = last.to.max(span.to);
                members.push(id);
            }
            (Some(span), _) => ranges.push((span, vec![id])),
            (None, _) => places.push(id.to_owned()),
        }
    }
    places.extend(ranges.into_iter().map(|(span, members)| match members.as_slice() {
        [id] => (*id).to_owned(),
        members => format!("{}: {}", words::range(span.from, span.to), count(members.len() as u64, "window")),
    }));
    let left_out = places.len().saturating_sub(RANGES);
    places.truncate(RANGES);
    if left_out > 0 {
        places.push(format!("and {} more", count(left_out as u64, "range")));
    }
    places
}

/// The smaller facts, told only when there is something to tell.
fn notes(report: &RunReport) -> Vec<String> {
    let RunReport { messages, recheck, sweep, .. } = report;
    let mut notes = Vec::new();
    let mut note = |when: u64, text: String| notes.extend((when > 0).then_some(text));
    note(
        messages.no_alerts,
        format!("{} had no alerts at all and count as closed.", count(messages.no_alerts, "message")),
    );
    note(recheck.looked_at, format!("Of earlier runs: {}.", words::looked_at_again(recheck)));
    note(
        sweep.late + sweep.changed + sweep.reopened,
        format!(
            "Found behind the range: {} late, {} changed, {} reopened.",
            grouped(sweep.late),
            grouped(sweep.changed),
            grouped(sweep.reopened)
        ),
    );
    note(sweep.moved, format!("{} in an index that took the place of another.", count(sweep.moved, "known message")));
    note(
        sweep.left,
        format!(
            "Not looked at behind the range: {} to the source at most, because one run takes no more. The next \
            scheduled run goes on with them.",
            count(sweep.left, "write")
        ),
    );
    note(
        report.reopened,
        format!(
            "{} open again: what is archived of them is not final (archive/reopened lists them).",
            count(report.reopened, "archived message")
        ),
    );
    if let Some(left) = &report.left {
        note(
            left.messages.max(1),
            format!(
                "Left to the next run, because one run takes no more: {}, {}. To go on at once: alert-archive run \
                --mode scheduled --catch-up.",
                count(left.messages, "message"),
                words::range(left.from, left.to)
            ),
        );
    }
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
    notes.extend(size(report));
    notes.extend(cost::told(report));
    notes
}

/// Bytes of what a run wrote: in the source, where repeats that earlier runs wrote do not count, and in the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Became {
    pub source: u64,
    pub archive: u64,
}

pub fn became(report: &RunReport) -> Option<Became> {
    let (messages, sizes) = (&report.messages, &report.bytes);
    let written = u128::from(messages.archived + messages.quarantined);
    if written == 0 || messages.source == 0 || sizes.archive == 0 {
        return None;
    }
    let source = u128::from(sizes.source) * written / u128::from(messages.source);
    Some(Became { source: u64::try_from(source).unwrap_or(u64::MAX), archive: sizes.archive })
}

/// What was written, and about how large it was in the source.
pub fn size(report: &RunReport) -> Option<String> {
    let Became { source, archive } = became(report)?;
    let messages = &report.messages;
    let what = count(messages.archived + messages.quarantined, "message");
    let about = if messages.archived + messages.quarantined == messages.source { "" } else { "about " };
    let (before, less) = (bytes(source), less(source, archive));
    Some(format!("{what} of {about}{before} became {} in the archive{less}.", bytes(archive)))
}

/// `: 75 % less`; nothing where it is not less.
fn less(source: u64, archive: u64) -> String {
    if archive >= source {
        return String::new();
    }
    format!(": {} % less", (100 - u128::from(archive) * 100 / u128::from(source)).min(99))
}

/// `+1,234`, `-5`, `no change`.
fn signed(difference: i128) -> String {
    match difference {
        0 => "no change".to_owned(),
        more if more > 0 => format!("+{}", grouped(more.unsigned_abs())),
        less => format!("-{}", grouped(less.unsigned_abs())),
    }
}
