//! Reports for people and for scripts, on standard output.

use alerts::run::{
    report::{Details, RunReport},
    unresolved::Unresolved,
};
use anyhow::Result;
use comfy_table::{Table, presets::NOTHING};
use identity::instant;
use jiff::Timestamp;
use reports::{
    SetAside,
    archive::{account, run_section},
    letter::Letter,
    section::State,
};
use std::borrow::Cow;
use std::io::{self, Write};

/// A text without characters that a terminal takes for commands, that hide, or that turn the text around: they are
/// spelled as JSON would spell them.
pub fn harmless(text: &str) -> Cow<'_, str> {
    let is_harmless = |c: char| match c {
        '\n' | '\t' => true,
        '\u{61c}'
        | '\u{200b}'
        | '\u{200e}'
        | '\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}' => false,
        c => !c.is_control(),
    };
    if text.chars().all(is_harmless) {
        return Cow::Borrowed(text);
    }
    let spell = |c: char| if is_harmless(c) { c.to_string() } else { format!("\\u{:04x}", u32::from(c)) };
    Cow::Owned(text.chars().map(spell).collect())
}

/// A line on standard output.
pub fn line(text: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{}", harmless(text))
}

/// A line on standard error. Where it cannot be read, nothing else can be told either.
pub fn aside(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", harmless(text));
}

/// A reader that has gone away (`| head`) hears no more, and nothing else changes: the command does what it was called
/// for, and its exit code says how that went.
pub fn unless_unread(told: io::Result<()>) -> io::Result<()> {
    told.or_else(|error| if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })
}

pub fn started(run_id: &str, json: bool) -> Result<()> {
    if json {
        say!("{}", serde_json::json!({"run_id": run_id}));
    } else {
        say!("started {run_id}\nfollow it with: alert-archive watch {run_id}");
    }
    Ok(())
}

/// Columns of a terminal that nobody has made wider.
const COLUMNS: usize = 80;

pub fn report(report: &RunReport, wide: bool, json: bool) -> Result<()> {
    if json {
        say!("{}", serde_json::to_string_pretty(report)?);
        return Ok(());
    }
    let text = text(report)?;
    for line in text.lines() {
        say!("{}", if wide { line.to_owned() } else { folded(line) });
    }
    unresolved(&report.unresolved, wide)
}

/// A line of prose, broken between its words. What a person copies is not broken: commands, links and names.
fn folded(line: &str) -> String {
    let (text, indent) = (line.trim_start(), line.len() - line.trim_start().len());
    if line.chars().count() <= COLUMNS || text.starts_with("alert-archive ") {
        return line.to_owned();
    }
    let hanging = " ".repeat(indent + if text.starts_with("- ") { 2 } else { 0 });
    let mut lines = vec![line[..indent].to_owned()];
    for word in text.split(' ') {
        let last = lines.last_mut().expect("there is a first line");
        let (is_begun, length) = (!last.trim().is_empty(), last.chars().count());
        if is_begun && length + 1 + word.chars().count() > COLUMNS {
            lines.push(format!("{hanging}{word}"));
        } else {
            *last = if is_begun { format!("{last} {word}") } else { format!("{last}{word}") };
        }
    }
    lines.join("\n")
}

/// The report in the words of the mail, but for what operators have set aside.
fn text(report: &RunReport) -> Result<String> {
    let extent = reports::extent(report);
    // Those of a recheck are messages by name.
    let mut about = vec![if extent.ends_with("messages") { extent } else { format!("messages of {extent}") }];
    about.extend(start_of(report).map(|at| format!("started {at}")));
    about.extend(took(report).map(|took| format!("took {took}")));
    let letter = Letter {
        headline: format!("{}: {}", report.run_id, reports::outcome_label(report)),
        about: about.join(", "),
        sections: vec![run_section(report, &Details::default())],
        ..Letter::default()
    };
    Ok(letter.render()?.text.trim_end().to_owned())
}

/// What operators have set aside, and the way back.
pub fn unresolved(items: &[Unresolved], wide: bool) -> Result<()> {
    for line in items.iter().flat_map(told_of) {
        say!("{}", if wide { line } else { folded(&line) });
    }
    Ok(())
}

/// The commands quote what they name: ids come from the source, and a person copies them.
fn told_of(item: &Unresolved) -> Vec<String> {
    let SetAside { name, of, reason, since, way_back, .. } = reports::set_aside(item, Timestamp::UNIX_EPOCH);
    const GONE: &str = "when its cause is gone:";
    let (told, more, when) = match item {
        Unresolved::SkippedWindow { .. } => (format!("window {name}"), format!("of {of}, skipped {since}"), GONE),
        Unresolved::QuarantinedByOperator { .. } => {
            (format!("message {name}"), format!("of {of}, quarantined by an operator {since}"), GONE)
        }
        Unresolved::WatermarkSet { .. } => (
            "the watermark".to_owned(),
            format!("moved from {of} to {name} {since}"),
            "unless the next scheduled run covers it:",
        ),
    };
    let facts = [format!("unresolved: {told}"), format!("  {more}"), format!("  because: {reason}")];
    let commands = way_back.iter().map(|command| format!("    {command}"));
    facts.into_iter().chain([format!("  {when}")]).chain(commands).collect()
}

/// All runs, newest first: a few lines each that fit 80 columns, or one line with everything.
pub fn reports(reports: &[RunReport], wide: bool, json: bool) -> Result<()> {
    if json {
        say!("{}", serde_json::to_string_pretty(reports)?);
        return Ok(());
    }
    if reports.is_empty() {
        say!("no runs yet; start one with: alert-archive run --from 2024-07-01 --to 2024-10-01 --wait");
        return Ok(());
    }
    if wide {
        say!("{}", table(reports));
        return Ok(());
    }
    for report in reports {
        let mark = match reports::state(report) {
            State::Good => "ok",
            State::Plain => "..",
            State::Attention => "! ",
            State::Bad => "X ",
        };
        say!("{mark} {}", report.run_id);
        say!("{}", lines_of(&facts(report)));
    }
    Ok(())
}

fn facts(report: &RunReport) -> Vec<String> {
    let mut facts = vec![reports::outcome_label(report), reports::extent(report)];
    if report.is_counted() {
        let done = report.messages.archived + report.messages.already_archived;
        facts.push(format!("{} of {} archived", reports::grouped(done), reports::grouped(account(report).total)));
    } else {
        facts.push(format!("{} planned", reports::count(report.windows.planned, "window")));
    }
    facts.extend(start_of(report).map(|at| format!("started {at}")));
    facts.extend(took(report).map(|took| format!("took {took}")));
    facts
}

/// As many facts to a line as fit, none of them broken.
fn lines_of(facts: &[String]) -> String {
    let mut lines: Vec<String> = Vec::new();
    for fact in facts {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 2 + fact.chars().count() < COLUMNS => {
                *line = format!("{line}; {fact}");
            }
            Some(line) => {
                line.push(';');
                lines.push(format!("   {fact}"));
            }
            None => lines.push(format!("   {fact}")),
        }
    }
    lines.join("\n")
}

/// `2024-10-01 06:00 UTC`.
fn start_of(report: &RunReport) -> Option<String> {
    let at = instant::parse(report.started_at.as_deref()?)?;
    Some(format!("{} UTC", reports::minute(at)))
}

fn table(reports: &[RunReport]) -> Table {
    let mut table = plain();
    table.set_header([
        "run",
        "outcome",
        "messages of",
        "started",
        "took",
        "windows",
        "source",
        "archived",
        "open",
        "quarantined",
    ]);
    for report in reports {
        table.add_row([
            report.run_id.clone(),
            reports::outcome_label(report),
            reports::extent(report),
            report.started_at.clone().unwrap_or_default(),
            took(report).unwrap_or_default(),
            format!("{}/{}", report.windows.succeeded, report.windows.planned),
            reports::grouped(report.messages.source),
            reports::grouped(report.messages.archived),
            reports::grouped(report.messages.open),
            reports::grouped(report.messages.quarantined),
        ]);
    }
    table
}

/// From the run's beginning to its report.
fn took(report: &RunReport) -> Option<String> {
    let at = |text: &Option<String>| instant::parse(text.as_deref()?);
    let seconds = at(&report.reported_at)?.duration_since(at(&report.started_at)?).as_secs();
    Some(reports::duration(u64::try_from(seconds).ok()?))
}

fn plain() -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use alerts::{
        counts::{Bytes, Messages},
        run::{
            job_run::RunStatus,
            report::{Failure, Windows},
        },
    };
    use identity::Identity;

    fn report(failures: &[&str]) -> RunReport {
        RunReport {
            run_id: "r1".into(),
            windows: Windows { planned: 3, succeeded: 1, failed: 0 },
            bytes: Bytes { source: 12_340_000, archive: 0 },
            failures: failures
                .iter()
                .map(|window_id| Failure {
                    window_id: (*window_id).to_owned(),
                    error: "WindowSkipped".to_owned(),
                    message: "shard 3 is lost".to_owned(),
                    ..Failure::default()
                })
                .collect(),
            ..serde_json::from_str(REPORT).expect("a report")
        }
    }

    const REPORT: &str = r#"{"run_id":"","mode":"range","from":"2024-07-01T00:00:00.000Z","to":"2024-08-01T00:00:00.000Z",
        "status":"Completed","attempt":1,"windows":{"planned":0,"succeeded":0,"failed":0},
        "messages":{"source":0,"archived":0,"open":0,"quarantined":0,"already_archived":0,"no_alerts":0},
        "recheck":{"looked_at":0,"closed":0,"open":0,"gone":0},"sweep":{"late":0,"changed":0,"reopened":0},
        "collisions":0,"undated":0,"backlog":0,"bytes":{"source":0,"archive":0},"reconciled":false,"failures":[],
        "unresolved":[],"reported_at":"2024-08-01T06:00:00.000Z"}"#;

    fn skipped(run_id: &str, window_id: &str) -> Unresolved {
        Unresolved::SkippedWindow {
            run_id: run_id.into(),
            window_id: window_id.into(),
            reason: "shard 3 is lost".into(),
            since: Timestamp::UNIX_EPOCH,
            left: Vec::new(),
        }
    }

    #[test]
    fn nothing_that_is_printed_acts_on_the_terminal() {
        assert_eq!(harmless("a\u{1b}[2Jb\r\u{9b}31m\tc\n"), "a\\u001b[2Jb\\u000d\\u009b31m\tc\n");
        assert_eq!(harmless("MSG-\u{202e}71"), "MSG-\\u202e71", "turned around, it would read as another id");
        assert!(matches!(harmless("Grüße, 世界"), Cow::Borrowed(_)));
        let spelled = harmless("{\"id\":\"\u{9b}\"}").into_owned();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&spelled).expect("JSON")["id"], "\u{9b}");
    }

    #[test]
    fn what_is_set_aside_is_told_with_commands_that_a_shell_takes_as_they_are_meant() {
        let id = Identity::new("messages", "a'; rm -rf ~");
        let lines = told_of(&Unresolved::excluded(id, "kills its window", Timestamp::UNIX_EPOCH)).join("\n");
        let said = "unresolved: message a'; rm -rf ~\n  of messages, quarantined by an operator 1970-01-01\n  \
                    because: kills its window\n  when its cause is gone:\n    \
                    alert-archive quarantine release 'a'\\''; rm -rf ~' --index messages";
        assert_eq!(lines, said);
        let lines = told_of(&skipped("r1", "w1"));
        assert_eq!(lines[..3], ["unresolved: window w1", "  of r1, skipped 1970-01-01", "  because: shard 3 is lost"]);
        assert_eq!(lines[4], "    alert-archive skip r1 w1 --undo");
    }

    #[test]
    fn a_run_in_the_list_fits_80_columns_with_its_start() {
        let at = |text: &str| text.parse::<Timestamp>().expect("an instant");
        let report = RunReport {
            from: at("2024-07-01T06:12:00Z"),
            to: at("2024-09-29T05:00:00Z"),
            status: RunStatus::Failed,
            windows: Windows { planned: 1_691, succeeded: 1_668, failed: 23 },
            messages: Messages { source: 12_345_678, archived: 12_000_000, ..Messages::default() },
            started_at: Some("2024-10-01T06:00:00.000Z".into()),
            reported_at: Some("2024-10-01T08:05:00.000Z".into()),
            ..report(&[])
        };
        let lines = lines_of(&facts(&report));
        let said = "   Failed, 23 of 1,691 windows; 2024-07-01 06:12 to 2024-09-29 05:00 UTC;\n   \
                    12,000,000 of 12,345,678 archived; started 2024-10-01 06:00 UTC;\n   took 2 h 5 min";
        assert_eq!(lines, said);
        assert!(lines.lines().all(|line| line.chars().count() <= COLUMNS));
        let dead = RunReport { reported_at: None, messages: Messages::default(), ..report };
        assert!(lines_of(&facts(&dead)).contains("   1,691 windows planned; started"), "not `0 of 0 archived`");
    }

    #[test]
    fn prose_is_folded_and_what_is_copied_is_not() {
        let line = format!("- It cost about {}.", "a little more than we thought it would, ".repeat(4));
        let lines: Vec<String> = folded(&line).lines().map(str::to_owned).collect();
        assert!(lines.len() > 1 && lines.iter().all(|line| line.chars().count() <= COLUMNS), "{lines:?}");
        assert!(lines[1].starts_with("  "), "{lines:?}");
        assert_eq!(lines.join(" ").replace("   ", " "), line);
        let command = format!("  alert-archive rerun {} --wait", "r".repeat(70));
        assert_eq!(folded(&command), command);
        let name = format!("  {}", "w".repeat(90));
        assert_eq!(folded(&name), name, "a name is never broken");
        let text = text(&report(&["w1"])).expect("a text");
        let longest = text.lines().map(folded).flat_map(|text| text.lines().map(str::len).max().into_iter()).max();
        assert!(longest.is_some_and(|longest| longest <= COLUMNS), "{text}");
    }

    #[test]
    fn a_recheck_is_told_by_what_it_looks_at() {
        let recheck = RunReport { mode: "recheck".into(), from: Timestamp::UNIX_EPOCH, ..report(&[]) };
        let text = text(&recheck).expect("a text");
        assert!(text.contains("\nheld-over messages") && !text.contains("1970"), "{text}");
    }

    #[test]
    fn a_skipped_window_is_named_among_the_failures_unless_it_is_named_below() {
        let mut report = report(&["w1", "w2"]);
        report.unresolved = vec![skipped("another run", "w2"), skipped("r1", "w1")];
        let text = text(&report).expect("a text");
        assert!(text.contains("  w2\n") && !text.contains("w1"), "{text}");
    }

    #[test]
    fn sizes_are_those_of_the_mail() {
        let messages = Messages { source: 10, archived: 10, ..Messages::default() };
        let report = RunReport { messages, bytes: Bytes { source: 12_340_000, archive: 1_234_000 }, ..report(&[]) };
        let text = text(&report).expect("a text");
        assert!(text.contains("10 messages of 12.3 MB became 1.2 MB in the archive: 90 % less."), "{text}");
    }

    #[test]
    fn a_window_that_is_set_aside_has_one_word_everywhere() {
        let report = RunReport { windows: Windows { planned: 3, succeeded: 2, failed: 0 }, ..report(&["w1"]) };
        let text = text(&report).expect("a text");
        assert!(text.starts_with("r1: Completed, 1 window set aside\n"), "{text}");
        assert!(!crate::archive::went_well(&report));
    }
}
