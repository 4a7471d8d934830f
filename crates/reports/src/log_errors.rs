//! What mail and page say of the errors in the logs of a period. What a program wrote into its log is text here and
//! nothing else.

use crate::letter::{Letter, Link};
use crate::section::{Bar, Colour, Figure, Problem, Section, State, Table};
use crate::words::{count, grouped, minute, quoted};
use jiff::Timestamp;
use logs::{Finding, LogReport, Share};

/// Lines of a sample's trace.
const STACK_LINES: usize = 8;
/// More hours than these are told by the day.
const HOURS: usize = 48;

/// The section that mail and page show.
pub fn section(report: &LogReport) -> Section {
    let (headline, state) = (sentence(report), state(report));
    let (new, back, damaged_files) = report.totals();
    let figures = vec![
        Figure::count("Errors", report.entries).note(trend(report.entries, report.entries_before)),
        Figure::count("Kinds of error", report.kinds),
        Figure::count("New", new).state(alarming(new)),
        Figure::count("Back after silence", back).state(alarming(back)),
    ];
    let share = |share: &Share| {
        let Share { label, count, before } = share;
        [label.clone(), grouped(*count), grouped(*before), change(*count, *before)]
    };
    let by = |title: &str, column: &str, shares: &[Share]| {
        Table::new(title, &[column, "#Errors", "#Before", "Change"]).rows(shares.iter().map(share), None)
    };
    let growth = |finding: &Finding| {
        let Finding { service, count, before, .. } = finding;
        [title(finding), service.clone(), grouped(*count), grouped(*before), change(*count, *before)]
    };
    let growing = Table::new("Most growth", &["Error", "Service", "#Errors", "#Before", "Change"]);
    let files = report.worst_files.iter().map(|file| [file.object.clone(), grouped(file.count)]);
    let damaged = report.damaged.iter();
    let damaged = damaged.map(|file| [file.object.clone(), file.error.clone(), grouped(file.lines)]);
    let unread = report.unread_files.iter().map(|file| [file.object.clone(), grouped(file.count)]);
    let range = format!("--from {} --to {}", report.from, report.to);
    Section::new("Log errors", scope(report))
        .headline(state, headline)
        .figures(if report.entries + report.entries_before == 0 { Vec::new() } else { figures })
        .problems_of("New: never seen before", problems(&report.new, report), new)
        .problems_of("Back after silence", problems(&report.back, report), back)
        .problems("From before, in logs that came late", late(report))
        .table(by("By category", "Category", &report.by_category))
        .table(by("By service", "Service", &report.by_service))
        .table(growing.rows(report.top.iter().map(growth), None))
        .problems("Most frequent", problems(&report.frequent, report))
        .bars("Over time (UTC)", over_time(&report.by_hour))
        .table(Table::new("Files with most errors", &["File", "#Errors"]).rows(files, None))
        .table(
            Table::new("Damaged files", &["File", "What is wrong", "#Lines read"]).rows(damaged, Some(damaged_files)),
        )
        .table(Table::new("Lines in no known format", &["File", "#Lines"]).rows(unread, None))
        .command(
            "All of them, and the lines around one:",
            vec![
                format!("alert-archive logs errors {range}"),
                format!("alert-archive logs search TEXT {range} --context 5"),
            ],
        )
}

/// `duplicate`: the mail may have gone out before. `dashboard`: where the page is.
pub fn letter(report: &LogReport, duplicate: bool, dashboard: Option<&str>) -> Letter {
    let section = section(report);
    let link = |url: &str| Link { label: "Dashboard".into(), url: url.to_owned() };
    Letter {
        subject: format!("Log errors: {}", section.headline.trim_end_matches('.')),
        duplicate,
        about: format!("Log errors, {}", scope(report)),
        state: section.state,
        headline: section.headline.clone(),
        links: dashboard.map(link).into_iter().collect(),
        sections: vec![Section { headline: String::new(), ..section }],
        footer: "Secrets in samples are masked. Positions are the object's key and the line in the unpacked text."
            .into(),
        chart: None,
    }
}

fn scope(report: &LogReport) -> String {
    let at = |text: &str| text.parse::<Timestamp>().map_or_else(|_| text.to_owned(), minute);
    let only: Vec<&str> = report.services.iter().chain(&report.error_types).map(String::as_str).collect();
    let only = if only.is_empty() { String::new() } else { format!(", only {}", only.join(", ")) };
    format!("{} to {}{only}", at(&report.from), at(&report.to))
}

fn state(report: &LogReport) -> State {
    match report {
        LogReport { new, back, .. } if !new.is_empty() || !back.is_empty() => State::Bad,
        LogReport { entries: 0, late_entries: 0, damaged, .. } if damaged.is_empty() => State::Good,
        _ => State::Attention,
    }
}

fn alarming(findings: u64) -> State {
    if findings > 0 { State::Bad } else { State::Plain }
}

fn sentence(report: &LogReport) -> String {
    let (new, back, damaged_files) = report.totals();
    let damaged = match damaged_files {
        0 => String::new(),
        files => format!("; {} damaged", count(files, "file")),
    };
    let late = match report.late_entries {
        0 => String::new(),
        entries => format!("; {} from before in late logs", count(entries, "error")),
    };
    if report.entries == 0 {
        return format!("no errors found{late}{damaged}.");
    }
    let part = |findings: u64, word: &str| match findings {
        0 => String::new(),
        findings => format!(", {} {word}", grouped(findings)),
    };
    format!(
        "{} of {}{}{} ({}){late}{damaged}.",
        count(report.entries, "error"),
        count(report.kinds, "kind"),
        part(new, "new"),
        part(back, "back after silence"),
        trend(report.entries, report.entries_before)
    )
}

/// Against the period of the same length before.
fn trend(now: u64, before: u64) -> String {
    match (now, before) {
        (0, 0) => "none before either".to_owned(),
        (_, 0) => "none in the period before".to_owned(),
        (now, before) if now == before => "as many as in the period before".to_owned(),
        (now, before) if now > before => format!("up from {}", grouped(before)),
        (_, before) => format!("down from {}", grouped(before)),
    }
}

fn change(now: u64, before: u64) -> String {
    match (now, before) {
        (_, 0) => "new".to_owned(),
        (0, _) => "gone".to_owned(),
        (now, before) if now == before => "=".to_owned(),
        (now, before) => {
            let per_cent = (i128::from(now) - i128::from(before)) * 100 / i128::from(before);
            format!("{per_cent:+} %")
        }
    }
}

fn title(finding: &Finding) -> String {
    let message = finding.message.lines().next().unwrap_or_default();
    match &finding.exception {
        Some(exception) if message.contains(exception.as_str()) => message.to_owned(),
        Some(exception) => format!("{exception}: {message}"),
        None => message.to_owned(),
    }
}

fn problems(findings: &[Finding], report: &LogReport) -> Vec<Problem> {
    findings.iter().map(|finding| problem(finding, report)).collect()
}

/// What the report of its own period could not tell. The command lists the period of the errors, not the report's.
fn late(report: &LogReport) -> Vec<Problem> {
    let told = |finding: &Finding| {
        let list = format!("alert-archive logs search TEXT --service {}", quoted(&finding.service));
        let date = logs::date_of(&finding.object)
            .map(|date| format!("{list} --from {date} --to {}", date.tomorrow().unwrap_or(date)));
        Problem { advice: format!("Its log: {}", date.unwrap_or(list)), ..problem(finding, report) }
    };
    report.late.iter().map(told).collect()
}

/// An error with its one sample.
fn problem(finding: &Finding, report: &LogReport) -> Problem {
    let Finding { service, category, level, .. } = finding;
    let times = match finding.before {
        0 => count(finding.count, "time"),
        before => format!("{}, {} before", count(finding.count, "time"), grouped(before)),
    };
    let at = |text: &str| text.parse::<Timestamp>().map_or_else(|_| text.to_owned(), minute);
    let mut places = vec![format!("{}, line {}", finding.object, finding.line)];
    if let Some(first) = &finding.first_seen {
        places.push(format!("first seen {}", at(first)));
    }
    if let Some(last) = &finding.last_before {
        places.push(format!("before this, last seen {}", at(last)));
    }
    let stack: Vec<&str> = finding.stack.as_deref().unwrap_or_default().lines().collect();
    places.extend(stack.iter().take(STACK_LINES).map(|line| line.trim_end().to_owned()));
    if stack.len() > STACK_LINES {
        places.push(format!("... {} more lines", stack.len() - STACK_LINES));
    }
    let (from, to, fingerprint) = (&report.from, &report.to, quoted(&finding.fingerprint));
    Problem {
        name: title(finding),
        affected: format!("{times}, {level}, {service}, {category}"),
        places,
        message: String::new(),
        advice: format!("List them: alert-archive logs errors --from {from} --to {to} --type {fingerprint} --json"),
        link: None,
    }
}

fn over_time(by_hour: &[Share]) -> Vec<Bar> {
    let bar = |label: &str, count: u64| Bar::count(label.replace('T', " "), count, Colour::Failed);
    if by_hour.len() <= HOURS {
        return by_hour.iter().map(|hour| bar(&format!("{}:00", hour.label), hour.count)).collect();
    }
    let mut days: Vec<(&str, u64)> = Vec::new();
    for Share { label, count, .. } in by_hour {
        let day = label.get(..10).unwrap_or(label);
        match days.last_mut() {
            Some((last, sum)) if *last == day => *sum += count,
            _ => days.push((day, *count)),
        }
    }
    days.iter().map(|(day, count)| bar(day, *count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use logs::{DamagedFile, FileShare};

    fn finding(message: &str) -> Finding {
        Finding {
            fingerprint: "00".into(),
            service: "shop".into(),
            category: "other".into(),
            level: "ERROR".into(),
            exception: Some("a.B".into()),
            message: message.into(),
            count: 1200,
            before: 3,
            first_seen: Some("2024-07-01T10:00:00.000Z".into()),
            last_before: None,
            object: "shop/a.gz".into(),
            line: 7,
            stack: Some("at <b>x</b>".into()),
        }
    }

    fn report() -> LogReport {
        LogReport {
            from: "2024-07-01T00:00:00.000Z".into(),
            to: "2024-07-02T00:00:00.000Z".into(),
            entries: 1200,
            entries_before: 3,
            kinds: 1,
            by_category: vec![Share { label: "other".into(), count: 1200, before: 3 }],
            by_hour: vec![Share { label: "2024-07-01T10".into(), count: 1200, before: 0 }],
            ..LogReport::default()
        }
    }

    #[test]
    fn a_hostile_log_line_stays_text() {
        let hostile = finding("<script>alert(1)</script>\r\nBcc: x\u{202e}");
        let report = LogReport {
            new: vec![hostile.clone()],
            top: vec![hostile.clone()],
            frequent: vec![hostile],
            worst_files: vec![FileShare { object: "shop/<i>\r\n.gz".into(), count: 1 }],
            ..report()
        };
        let rendered = letter(&report, false, Some("javascript:alert(1)")).render().expect("rendered");
        for tag in ["<script>", "<b>x", "<i>", "javascript:"] {
            assert!(!rendered.html.contains(tag), "{tag} in {}", rendered.html);
        }
        assert!(!rendered.subject.contains(['\r', '\n']) && !rendered.text.contains('\u{202e}'), "{}", rendered.text);
        assert!(!rendered.text.contains("\nBcc"), "{}", rendered.text);
        assert!(rendered.text.contains("shop/a.gz, line 7"), "{}", rendered.text);
        assert_eq!(rendered.subject, "Log errors: 1,200 errors of 1 kind, 1 new (up from 3)");
    }

    #[test]
    fn nothing_found_is_said_too() {
        let (from, to) = ("2024-07-01T00:00:00.000Z".to_owned(), "2024-07-02T00:00:00.000Z".to_owned());
        let empty = LogReport { from, to, ..LogReport::default() };
        let rendered = letter(&empty, true, None).render().expect("rendered");
        assert_eq!(rendered.subject, "[duplicate] Log errors: no errors found");
        assert!(rendered.text.contains("no errors found") && rendered.html.contains("no errors found"));
        assert_eq!(section(&empty).state, State::Good);
        let file = DamagedFile { object: "shop/a.gz".into(), error: "GzipTruncated".into(), lines: 5 };
        let damaged = section(&LogReport { damaged: vec![file], ..empty });
        assert_eq!((damaged.state, damaged.headline.as_str()), (State::Attention, "no errors found; 1 file damaged."));
    }

    #[test]
    fn what_came_after_the_report_of_its_own_period_is_told_by_the_next() {
        let (from, to) = ("2024-07-01T00:00:00.000Z".to_owned(), "2024-07-02T00:00:00.000Z".to_owned());
        let late = Finding { object: "shop/2024/06/20/a.gz".into(), ..finding("gone") };
        let report = LogReport { from, to, late_entries: 2, late: vec![late], ..LogReport::default() };
        let rendered = letter(&report, false, None).render().expect("rendered");
        assert_eq!(rendered.subject, "Log errors: no errors found; 2 errors from before in late logs");
        assert_eq!(section(&report).state, State::Attention);
        for part in ["From before, in logs that came late", "--from 2024-06-20 --to 2024-06-21"] {
            assert!(rendered.text.contains(part), "{part}: {}", rendered.text);
        }
    }

    #[test]
    fn what_is_not_listed_counts_too() {
        let file = DamagedFile { object: "shop/a.gz".into(), error: "GzipTruncated".into(), lines: 5 };
        let report = LogReport {
            new: vec![finding("new")],
            new_kinds: 1500,
            back: vec![finding("back")],
            back_kinds: 250,
            damaged: vec![file],
            damaged_files: 130,
            ..report()
        };
        let text = letter(&report, false, None).render().expect("rendered").text;
        for part in ["1,500 new", "250 back after silence", "130 files damaged", "1,499", "249", "129"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn counts_are_compared_with_the_period_before() {
        let text = letter(&report(), false, None).render().expect("rendered").text;
        assert!(text.contains("+39900 %") && text.contains("2024-07-01 10:00"), "{text}");
        for (now, before, expected) in [(5, 5, "="), (0, 5, "gone"), (5, 0, "new"), (5, 10, "-50 %")] {
            assert_eq!(change(now, before), expected);
        }
    }
}
