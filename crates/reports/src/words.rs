//! How outcomes, errors, counts and ages are put into words, the same way everywhere.

use crate::state::State;
use alerts::counts::Messages;
use alerts::mode::Mode;
use alerts::run::{
    job_run::RunStatus,
    overview::Extent,
    report::{Failure, Recheck, RunReport},
    span::Span,
    unresolved::Unresolved,
};
use identity::{Identity, instant::iso};
use jiff::{Timestamp, tz::TimeZone};
use serde::Serialize;

/// The outcome of a run in a sentence, for a reader of nothing else; and one more while something is set aside.
pub fn sentence(report: &RunReport) -> String {
    let outcome = outcome(report);
    let (mut skipped, mut excluded, mut moved) = (0, 0, 0);
    for item in &report.unresolved {
        match item {
            Unresolved::SkippedWindow { .. } => skipped += 1,
            Unresolved::QuarantinedByOperator { .. } => excluded += 1,
            Unresolved::WatermarkSet { .. } => moved += 1,
        }
    }
    let mut waiting = Vec::new();
    if skipped > 0 {
        waiting.push(count(skipped, "skipped window"));
    }
    if excluded > 0 {
        waiting.push(format!("{} excluded by an operator", count(excluded, "message")));
    }
    if moved > 0 {
        waiting.push(format!("{} of the watermark by hand", count(moved, "correction")));
    }
    let Some(last) = waiting.pop() else { return outcome };
    let waiting = if waiting.is_empty() { last } else { format!("{} and {last}", waiting.join(", ")) };
    format!("{outcome} Set aside, to be resolved: {waiting}.")
}

fn outcome(report: &RunReport) -> String {
    let (windows, messages) = (&report.windows, &report.messages);
    let earlier = match messages.already_archived {
        0 => String::new(),
        earlier => format!(", {} archived earlier", grouped(earlier)),
    };
    let done = format!(
        "{} archived{earlier}, {} still open, {} in quarantine",
        count(messages.archived, "message"),
        grouped(messages.open),
        grouped(messages.quarantined)
    );
    let missing = unaccounted(report);
    let left = left(report);
    let in_all = messages.source + left.failed.all() + left.set_aside.all();
    // While the run is at work again, what had failed is what it does now.
    if report.status != RunStatus::Running && windows.failed > 0 {
        return format!(
            "{} of {} failed{}{}.",
            grouped(windows.failed),
            count(windows.planned, "window"),
            left_in_failed(left.failed, in_all),
            beside_failed(report),
        );
    }
    match report.status {
        RunStatus::Failed if is_refused(report) => {
            "The run was refused (RangeBusy), because another run is at work on a part of its range; nothing was lost."
                .to_owned()
        }
        RunStatus::Failed
            if report.reported_at.is_none() && (windows.succeeded < windows.planned || windows.planned == 0) =>
        {
            format!(
                "The run ended before its windows were done{}; nothing was lost, but it has to run again.",
                cause(report)
            )
        }
        RunStatus::Failed => format!("The run failed after its report{}: {done}.", cause(report)),
        // How far it is by now is known to those who watch it.
        RunStatus::Running if windows.planned == 0 => "The run has not finished.".to_owned(),
        RunStatus::Running if report.reported_at.is_none() => {
            format!("The run has not finished: {} planned.", count(windows.planned, "window"))
        }
        RunStatus::Running => {
            format!(
                "The run has not finished: at its last report {} of {} were done.",
                grouped(windows.succeeded),
                count(windows.planned, "window")
            )
        }
        _ if missing != 0 => {
            format!(
                "The counts do not add up: {} of {} cannot be accounted for.",
                grouped(missing.unsigned_abs()),
                count(messages.source, "message")
            )
        }
        RunStatus::Completed if set_aside_here(report) > 0 => {
            format!(
                "{} set aside by an operator, with {} of {}{}; the others: {done}.",
                count(set_aside_here(report), "window"),
                grouped(left.set_aside.all()),
                count(in_all, "message"),
                match left.set_aside.by_other_runs {
                    0 => String::new(),
                    some => format!(" ({} committed by other runs before)", grouped(some)),
                },
            )
        }
        _ if !report.reconciled => format!("The run ended, but its counts could not be confirmed: {done}."),
        RunStatus::Completed if messages.source == 0 && report.recheck.looked_at == 0 => {
            "There was nothing to archive.".to_owned()
        }
        RunStatus::Completed if messages.source == 0 => format!("{}.", looked_at_again(&report.recheck)),
        RunStatus::Completed if staged(report) > 0 => format!(
            "Nothing is archived yet: {} wait to be written (alert-archive run --mode process), {} still open, {} for quarantine.",
            count(staged(report), "message"),
            grouped(messages.open),
            grouped(messages.quarantined)
        ),
        RunStatus::Completed => format!("All went well: {done}."),
    }
}

/// ` (SourceUnavailable)`, of a run that failed as a whole.
fn cause(report: &RunReport) -> String {
    let first = report.failures.first().filter(|failure| failure.window_id.is_empty());
    first.map(|failure| format!(" ({})", one_line(&failure.error))).unwrap_or_default()
}

/// What there is beside failed windows.
fn beside_failed(report: &RunReport) -> String {
    let aside = match set_aside_here(report) {
        0 => String::new(),
        1 => "; 1 is set aside".to_owned(),
        some => format!("; {} are set aside", grouped(some)),
    };
    let others = if report.windows.succeeded > 0 { "; the others are safe" } else { "" };
    format!("{aside}{others}")
}

/// `5 open messages looked at again: 3 closed since, 1 still open, 1 gone from the source`; what is none is left out,
/// but for the open ones.
pub fn looked_at_again(recheck: &Recheck) -> String {
    let parts = [
        (recheck.closed, "closed since"),
        (recheck.open, "still open"),
        (recheck.quarantined, "sent to quarantine"),
        (recheck.gone, "gone from the source"),
    ];
    let told = parts.iter().filter(|(count, what)| *count > 0 || *what == "still open");
    let told: Vec<String> = told.map(|(count, what)| format!("{} {what}", grouped(*count))).collect();
    format!("{} looked at again: {}", count(recheck.looked_at, "open message"), told.join(", "))
}

/// Refused before it did anything: at its plan, or when it was to go on.
fn is_refused(report: &RunReport) -> bool {
    let first = report.failures.first();
    first.is_some_and(|failure| failure.window_id.is_empty() && failure.error == "RangeBusy")
}

/// Messages that a run of mode `extract` leaves to be written.
pub fn staged(report: &RunReport) -> u64 {
    let Messages { source, archived, already_archived, open, quarantined, .. } = report.messages;
    if report.mode == Mode::Extract.as_str() {
        source.saturating_sub(archived + already_archived + open + quarantined)
    } else {
        0
    }
}

/// Of which messages the run is: those of its range, or others wherever they lie.
pub fn extent(report: &RunReport) -> String {
    if report.mode == Mode::Recheck.as_str() {
        "held-over messages".to_owned()
    } else if report.mode == Mode::Process.as_str() {
        "staged messages".to_owned()
    } else {
        range(report.from, report.to)
    }
}

/// The outcome of a run in few words, the same in mail, page and command line.
pub fn outcome_label(report: &RunReport) -> String {
    match report.status {
        RunStatus::Running => "Running".to_owned(),
        RunStatus::Failed if report.windows.failed > 0 => {
            format!("Failed, {} of {}", grouped(report.windows.failed), count(report.windows.planned, "window"))
        }
        RunStatus::Failed if is_refused(report) => "Refused, its range is busy".to_owned(),
        RunStatus::Failed if report.reported_at.is_some() => "Failed after its report".to_owned(),
        RunStatus::Failed => "Failed before its report".to_owned(),
        RunStatus::Completed if all_well(report) => "Completed".to_owned(),
        RunStatus::Completed if set_aside_here(report) > 0 => {
            format!("Completed, {} set aside", count(set_aside_here(report), "window"))
        }
        RunStatus::Completed => "Completed, counts not confirmed".to_owned(),
    }
}

/// How much a reader of the run has to care.
pub fn state(report: &RunReport) -> State {
    match report.status {
        RunStatus::Running => State::Plain,
        RunStatus::Completed if all_well(report) => State::Good,
        RunStatus::Completed if set_aside_here(report) > 0 && unaccounted(report) == 0 => State::Attention,
        RunStatus::Completed | RunStatus::Failed => State::Bad,
    }
}

/// Whether a reader can go back to work.
pub fn all_well(report: &RunReport) -> bool {
    report.status == RunStatus::Completed && report.windows.failed == 0 && report.reconciled && unaccounted(report) == 0
}

/// Windows of the run that an operator has set aside.
pub fn set_aside_here(report: &RunReport) -> u64 {
    report.windows.planned.saturating_sub(report.windows.succeeded + report.windows.failed)
}

/// Messages that the plan counted, in windows that this run has not committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// In failed windows.
    pub failed: Uncommitted,
    /// In windows that an operator has set aside.
    pub set_aside: Uncommitted,
}

/// What other runs have of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uncommitted {
    /// No run has archived them yet.
    pub missing: u64,
    /// In windows of which other runs have committed a part.
    pub in_part: u64,
    /// In windows that other runs have committed whole.
    pub by_other_runs: u64,
}

impl Uncommitted {
    pub fn all(self) -> u64 {
        self.missing + self.in_part + self.by_other_runs
    }
}

impl Left {
    /// Messages that may be in no archive yet.
    pub fn not_archived(self) -> u64 {
        let Left { failed, set_aside } = self;
        failed.missing + failed.in_part + set_aside.missing + set_aside.in_part
    }
}

pub fn left(report: &RunReport) -> Left {
    let mut left = Left::default();
    for failure in &report.failures {
        let of = if failure.error == "WindowSkipped" { &mut left.set_aside } else { &mut left.failed };
        match failure.by_other_runs {
            Extent::Nothing => of.missing += failure.messages,
            Extent::Part => of.in_part += failure.messages,
            Extent::All => of.by_other_runs += failure.messages,
        }
    }
    left
}

fn left_in_failed(failed: Uncommitted, in_all: u64) -> String {
    let mut facts = Vec::new();
    let mut fact = |messages: u64, said: &str| {
        if messages > 0 {
            let of = if facts.is_empty() { format!(" of {}", count(in_all, "message")) } else { String::new() };
            facts.push(format!("{}{of} {said}", grouped(messages)));
        }
    };
    fact(failed.missing, "are not archived yet");
    fact(failed.in_part, "are in windows of which other runs have committed a part");
    fact(failed.by_other_runs, "were not looked at again, but other runs have committed their windows before");
    if facts.is_empty() { String::new() } else { format!(", and {}", facts.join(", ")) }
}

/// Documents of the source that became nothing; negative when more came out than went in.
pub fn unaccounted(report: &RunReport) -> i128 {
    let messages = &report.messages;
    i128::from(messages.source)
        - i128::from(messages.archived)
        - i128::from(messages.already_archived)
        - i128::from(messages.open)
        - i128::from(messages.quarantined)
        - i128::from(staged(report))
}

/// The command that repeats what failed, and nothing else.
pub fn rerun_command(run_id: &str) -> String {
    format!("alert-archive rerun {} --wait", quoted(run_id))
}

/// An argument of a command, whatever it holds.
pub fn quoted(text: &str) -> String {
    let plain = !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && !text.starts_with('-');
    if plain { text.to_owned() } else { format!("'{}'", one_line(text).replace('\'', r"'\''")) }
}

/// What failed by itself: what an operator skipped is told among what is unresolved.
pub fn failures(report: &RunReport) -> impl Iterator<Item = &Failure> {
    let is_set_aside = |failure: &Failure| {
        let same = |item: &Unresolved| matches!(item, Unresolved::SkippedWindow { run_id, window_id, .. } if *run_id == report.run_id && *window_id == failure.window_id);
        failure.error == "WindowSkipped" && report.unresolved.iter().any(same)
    };
    report.failures.iter().filter(move |failure| !is_set_aside(failure))
}

/// Something that an operator has set aside, each text on one line.
#[derive(Serialize)]
pub struct SetAside {
    /// `Window`, `Message` or `Watermark`.
    pub what: &'static str,
    pub name: String,
    /// The run, the index, or where the watermark stood before.
    pub of: String,
    pub reason: String,
    pub since: String,
    pub age: String,
    pub way_back: Vec<String>,
}

pub fn set_aside(item: &Unresolved, now: Timestamp) -> SetAside {
    let (what, name, of, reason, since, way_back) = match item {
        Unresolved::SkippedWindow { run_id, window_id, reason, since, .. } => {
            let undo = format!("alert-archive skip {} {} --undo", quoted(run_id), quoted(window_id));
            (
                "Window",
                window_id.clone(),
                run_id.clone(),
                reason,
                *since,
                vec![undo, format!("alert-archive rerun {} --wait", quoted(run_id))],
            )
        }
        Unresolved::QuarantinedByOperator { document: Identity { source_index, id }, reason, since, .. } => {
            let release = format!("alert-archive quarantine release {} --index {}", quoted(id), quoted(source_index));
            ("Message", id.clone(), source_index.clone(), reason, *since, vec![release])
        }
        Unresolved::WatermarkSet { before, at, reason, since, left } => {
            let runs = left
                .iter()
                .map(|Span { from, to }| format!("alert-archive run --from {} --to {} --wait", iso(*from), iso(*to)));
            ("Watermark", iso(*at), iso(*before), reason, *since, runs.collect())
        }
    };
    let age = count(days(since, now), "day");
    SetAside {
        what,
        name: one_line(&name),
        of: one_line(&of),
        reason: one_line(reason),
        since: date(since),
        age,
        way_back,
    }
}

/// `1,234`.
pub fn grouped(number: impl Into<u128>) -> String {
    let digits = number.into().to_string();
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 window`, `2,000 windows`.
pub fn count(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// Whole days between two instants; none when the first is the later one.
pub fn days(since: Timestamp, now: Timestamp) -> u64 {
    u64::try_from(now.duration_since(since).as_hours() / 24).unwrap_or(0)
}

/// `2024-07-01 to 2024-09-28` for whole days, else with times and the end as it stands, no finer than is needed to tell
/// them apart; `up to 2024-10-01 05:50 UTC` for an empty range.
pub fn range(from: Timestamp, to: Timestamp) -> String {
    const DAY: i64 = 86_400_000;
    let midnight = |at: Timestamp| at.as_millisecond().rem_euclid(DAY) == 0;
    if from < to && midnight(from) && midnight(to) {
        let last = Timestamp::from_millisecond(to.as_millisecond() - 1).unwrap_or(to);
        let (first, last) = (date(from), date(last));
        return if first == last { first } else { format!("{first} to {last}") };
    }
    if from >= to {
        return format!("up to {} UTC", minute(to));
    }
    if minute(from) == minute(to) {
        return format!("{} to {}", iso(from), iso(to));
    }
    format!("{} to {} UTC", minute(from), minute(to))
}

pub fn date(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d").to_string()
}

pub fn minute(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M").to_string()
}

/// `45 s`, `1 min 20 s`, `2 h 5 min`.
pub fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", grouped(seconds / 3600), seconds % 3600 / 60),
    }
}

/// `12.3 MB`, in powers of ten.
pub fn bytes(number: u64) -> String {
    let (mut value, mut unit) = (number as f64, "B");
    for next in ["kB", "MB", "GB", "TB"] {
        if value < 999.5 {
            break;
        }
        (value, unit) = (value / 1000.0, next);
    }
    if unit == "B" || value >= 99.95 { format!("{value:.0} {unit}") } else { format!("{value:.1} {unit}") }
}

/// Characters of a text at most.
const LONGEST: usize = 300;

/// Foreign text on one line: what could start a new line, hide or turn the text around is made visible, and no text is
/// endless.
pub fn one_line(text: &str) -> String {
    let tame = |c: char| match c {
        '\t' | '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}' => ' ',
        c if c.is_control() => '\u{fffd}',
        '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' => {
            '\u{fffd}'
        }
        c => c,
    };
    let mut out: String = text.chars().take(LONGEST).map(tame).collect();
    if text.chars().nth(LONGEST).is_some() {
        out.push('…');
    }
    out
}

/// The execution in the console of AWS; none on a local cloud, whose account is made up.
pub fn console_of(execution_arn: &str) -> Option<String> {
    let region = region_of(execution_arn)?;
    Some(format!(
        "https://{region}.console.aws.amazon.com/states/home?region={region}#/v2/executions/details/{execution_arn}"
    ))
}

/// In the console of AWS, what a function of the execution's deployment has logged about a window; none on a local
/// cloud.
pub fn log_of(execution_arn: &str, function: &str, window_id: &str) -> Option<String> {
    let region = region_of(execution_arn)?;
    let deployment = execution_arn.split(':').nth(6)?.strip_suffix("archive-alerts")?;
    let group = within_fragment(&format!("/aws/lambda/{deployment}{function}"));
    let filter = within_fragment(&format!("\"{window_id}\""));
    let link = format!(
        "https://{region}.console.aws.amazon.com/cloudwatch/home?region={region}#logsV2:log-groups/log-group/{group}\
         /log-events$3FfilterPattern$3D{filter}"
    );
    // A longer one would be cut like any text.
    Some(link).filter(|link| link.len() <= LONGEST)
}

/// The log of the function at which a window failed.
pub fn log_of_failure(failure: &Failure, execution_arn: &str) -> Option<String> {
    log_of(execution_arn, failure.step.as_deref()?, &failure.window_id)
}

fn region_of(execution_arn: &str) -> Option<&str> {
    let parts: Vec<&str> = execution_arn.split(':').collect();
    match parts.as_slice() {
        ["arn", "aws", "states", region, account, ..] if *account != "000000000000" => Some(region),
        _ => None,
    }
}

/// As the console of CloudWatch writes what stands in its fragment: encoded twice, with `$` for the second `%`.
fn within_fragment(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
        byte => format!("$25{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_easy_to_read() {
        assert_eq!([0u64, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(count(1, "window"), "1 window");
        assert_eq!(
            [0, 999, 1000, 999_950, 12_340_000, 127_179_533].map(bytes),
            ["0 B", "999 B", "1.0 kB", "1.0 MB", "12.3 MB", "127 MB"]
        );
    }

    #[test]
    fn whole_days_are_named_by_their_last_day() {
        let at = |text: &str| text.parse::<Timestamp>().expect("an instant");
        assert_eq!(range(at("2024-07-01T00:00:00Z"), at("2024-09-29T00:00:00Z")), "2024-07-01 to 2024-09-28");
        assert_eq!(range(at("2024-07-01T00:00:00Z"), at("2024-07-02T00:00:00Z")), "2024-07-01");
        assert_eq!(
            range(at("2024-07-01T00:00:00Z"), at("2024-07-02T06:30:00Z")),
            "2024-07-01 00:00 to 2024-07-02 06:30 UTC"
        );
        let [instant, next] = [at("2024-07-01T10:00:00.017Z"), at("2024-07-01T10:00:00.018Z")];
        assert_eq!(range(instant, next), "2024-07-01T10:00:00.017Z to 2024-07-01T10:00:00.018Z");
        assert_eq!(range(instant, instant), "up to 2024-07-01 10:00 UTC", "a scheduled run found nothing new");
    }

    #[test]
    fn other_peoples_text_stays_on_its_line() {
        assert_eq!(one_line("a\r\nb\u{202e}c\0d"), "a  b\u{fffd}c\u{fffd}d");
        assert_eq!(one_line(&"x".repeat(5000)).chars().count(), 301);
    }

    #[test]
    fn a_command_survives_any_run_id() {
        assert_eq!(rerun_command("run-1"), "alert-archive rerun run-1 --wait");
        assert_eq!(rerun_command("a'; rm -rf ~"), r"alert-archive rerun 'a'\''; rm -rf ~' --wait");
    }

    #[test]
    fn a_window_leads_to_what_its_function_logged_about_it() {
        let arn = "arn:aws:states:eu-central-1:123456789012:execution:production-archive-alerts:r1";
        let id = "20240701T000000.000Z--20240702T000000.000Z";
        let link = log_of(arn, "query-messages", id).expect("a link");
        assert!(
            link.starts_with("https://eu-central-1.console.aws.amazon.com/cloudwatch/home?region=eu-central-1#logsV2:")
        );
        assert!(link.contains("/log-group/$252Faws$252Flambda$252Fproduction-query-messages/log-events$3F"), "{link}");
        assert!(link.ends_with(&format!("filterPattern$3D$2522{id}$2522")), "{link}");
        assert_eq!(log_of(&arn.replace("123456789012", "000000000000"), "query-messages", id), None, "a local cloud");
        let hostile = log_of(arn, "query-messages", "\" onclick='x' <b>").expect("a link");
        assert!(!hostile.contains(['"', '<', ' ', '\'']), "{hostile}");
    }

    #[test]
    fn an_age_is_never_negative() {
        let at = |text: &str| text.parse::<Timestamp>().expect("an instant");
        assert_eq!(days(at("2024-07-01T00:00:00Z"), at("2024-07-03T23:59:59Z")), 2);
        assert_eq!(days(at("2024-07-03T00:00:00Z"), at("2024-07-01T00:00:00Z")), 0);
    }
}
