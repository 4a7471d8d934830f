//! What mail and page say of the errors in the logs of a period. What a program wrote into its log is text here and
//! nothing else: one line of it, cut, with what could hide or turn text made visible, and escaped in HTML.

use crate::words::{count, grouped, one_line};
use logs::{Finding, LogReport, Share};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;

const LISTED: usize = 10;
const STACK_LINES: usize = 6;

#[derive(Debug, thiserror::Error)]
#[error("the report's text could not be put together")]
pub struct Error(#[from] minijinja::Error);

/// A subject, and the same content as text and as HTML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    pub subject: String,
    pub text: String,
    pub html: String,
}

/// `duplicate`: the mail may have gone out before. `dashboard`: where the page is.
pub fn log_errors(report: &LogReport, duplicate: bool, dashboard: Option<&str>) -> Result<Rendered, Error> {
    let view = View::new(report, duplicate, dashboard);
    let text = template("log-errors.txt", include_str!("../templates/log-errors.txt"), &view)?;
    let html = template("log-errors.html", include_str!("../templates/log-errors.html"), &view)?;
    Ok(Rendered { subject: view.subject, text, html })
}

fn template(name: &str, source: &str, view: &View) -> Result<String, Error> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_auto_escape_callback(|name| if name.ends_with(".html") { AutoEscape::Html } else { AutoEscape::None });
    environment.add_template(name, source)?;
    Ok(environment.get_template(name)?.render(Serde(view))?)
}

#[derive(Serialize)]
struct View {
    subject: String,
    duplicate: bool,
    sentence: String,
    quiet: bool,
    range: String,
    only: Option<String>,
    categories: Vec<Row>,
    services: Vec<Row>,
    sections: Vec<Section>,
    files: Vec<Row>,
    dashboard: Option<String>,
    search: String,
}

#[derive(Serialize)]
struct Row {
    label: String,
    count: String,
    trend: String,
}

#[derive(Serialize)]
struct Section {
    title: &'static str,
    findings: Vec<FindingView>,
    left_out: usize,
}

#[derive(Serialize)]
struct FindingView {
    title: String,
    facts: String,
    place: String,
    stack: Vec<String>,
}

impl View {
    fn new(report: &LogReport, duplicate: bool, dashboard: Option<&str>) -> Self {
        let range = format!("{} to {}", minute(&report.from), minute(&report.to));
        let sentence = sentence(report);
        let only: Vec<String> = report.services.iter().chain(&report.error_types).map(|name| one_line(name)).collect();
        let row = |share: &Share| Row { label: one_line(&share.label), count: grouped(share.count), trend: trend(share.count, share.before) };
        let section = |title, list: &[Finding]| Section {
            title,
            findings: list.iter().take(LISTED).map(FindingView::new).collect(),
            left_out: list.len().saturating_sub(LISTED),
        };
        let sections = [section("New", &report.new), section("Back after silence", &report.back), section("Most growth", &report.top)];
        let files = report.worst_files.iter().map(|file| Row { label: one_line(&file.object), count: grouped(file.count), trend: String::new() });
        View {
            subject: format!("{}Log errors: {sentence}", if duplicate { "[duplicate] " } else { "" }),
            duplicate,
            sentence,
            quiet: report.entries == 0,
            range,
            only: (!only.is_empty()).then(|| only.join(", ")),
            categories: report.by_category.iter().map(row).collect(),
            services: report.by_service.iter().map(row).collect(),
            sections: sections.into_iter().filter(|section| !section.findings.is_empty()).collect(),
            files: files.take(LISTED).collect(),
            dashboard: dashboard.filter(|link| link.starts_with("https://") || link.starts_with("http://")).map(one_line),
            search: format!("alert-archive logs errors --from {} --to {}", report.from, report.to),
        }
    }
}

impl FindingView {
    fn new(finding: &Finding) -> Self {
        let kind = finding.exception.as_deref().map(|kind| format!("{kind}: ")).unwrap_or_default();
        let since = finding.first_seen.as_deref().map(|first| format!(", known since {}", minute(first))).unwrap_or_default();
        let silent = finding.last_before.as_deref().map(|last| format!(", before that last on {}", minute(last))).unwrap_or_default();
        let Finding { service, category, level, count, before, .. } = finding;
        let times = trend(*count, *before);
        FindingView {
            title: one_line(&format!("{kind}{}", finding.message)),
            facts: one_line(&format!("{} times ({times}), {level}, {service}, {category}{since}{silent}", grouped(*count))),
            place: one_line(&format!("{}, line {}", finding.object, finding.line)),
            stack: finding.stack.as_deref().unwrap_or_default().lines().take(STACK_LINES).map(one_line).collect(),
        }
    }
}

fn sentence(report: &LogReport) -> String {
    if report.entries == 0 {
        return "no errors found".to_owned();
    }
    let new = if report.new.is_empty() { String::new() } else { format!(", {} new", grouped(report.new.len() as u64)) };
    format!("{} of {}{new} ({})", count(report.entries, "error"), count(report.kinds, "kind"), trend(report.entries, report.entries_before))
}

/// Against the period before.
fn trend(now: u64, before: u64) -> String {
    match (now, before) {
        (now, 0) if now > 0 => "none before".to_owned(),
        (now, before) if now == before => "as before".to_owned(),
        (now, before) if now > before => format!("up from {}", grouped(before)),
        (_, before) => format!("down from {}", grouped(before)),
    }
}

/// `2024-07-01T10:00:00.000Z` as `2024-07-01 10:00`.
fn minute(instant: &str) -> String {
    one_line(instant).chars().take(16).map(|c| if c == 'T' { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> LogReport {
        let finding = Finding {
            fingerprint: "00".into(),
            service: "shop".into(),
            category: "other".into(),
            level: "ERROR".into(),
            exception: Some("a.B".into()),
            message: "<script>alert(1)</script>\r\nBcc: x\u{202e}".into(),
            count: 1200,
            before: 3,
            first_seen: Some("2024-07-01T10:00:00.000Z".into()),
            last_before: None,
            object: "shop/a.gz".into(),
            line: 7,
            stack: Some("at <b>x</b>".into()),
        };
        LogReport {
            from: "2024-07-01T00:00:00.000Z".into(),
            to: "2024-07-02T00:00:00.000Z".into(),
            entries: 1200,
            entries_before: 3,
            kinds: 1,
            new: vec![finding],
            ..LogReport::default()
        }
    }

    #[test]
    fn a_hostile_log_line_stays_text() {
        let rendered = log_errors(&report(), false, Some("javascript:alert(1)")).expect("rendered");
        assert!(
            !rendered.html.contains("<script>") && !rendered.html.contains("<b>x") && !rendered.html.contains("javascript:"),
            "{}",
            rendered.html
        );
        assert!(!rendered.subject.contains(['\r', '\n']) && !rendered.text.contains('\u{202e}'), "{}", rendered.text);
        assert!(rendered.text.contains("shop/a.gz, line 7"), "{}", rendered.text);
        assert_eq!(rendered.subject, "Log errors: 1,200 errors of 1 kind, 1 new (up from 3)");
    }

    #[test]
    fn nothing_found_is_said_too() {
        let empty = LogReport { from: "2024-07-01T00:00:00.000Z".into(), to: "2024-07-02T00:00:00.000Z".into(), ..LogReport::default() };
        let rendered = log_errors(&empty, true, None).expect("rendered");
        assert_eq!(rendered.subject, "[duplicate] Log errors: no errors found");
        assert!(rendered.text.contains("no errors found") && rendered.html.contains("no errors found"));
    }
}
