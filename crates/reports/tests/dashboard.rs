//! The page's own promises, and the data that it is given.

use alerts::run::unresolved::Unresolved;
use alerts::run::{
    job_run::RunStatus,
    report::{Failure, OpenMessage, RunReport},
};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use identity::Identity;
use jiff::Timestamp;
use reports::dashboard::{self, Latest};
use sha2::{Digest, Sha256};

fn at(text: &str) -> Timestamp {
    text.parse().expect("an instant")
}

fn report(run_id: &str) -> RunReport {
    let text = include_str!("report.json");
    RunReport { run_id: run_id.into(), ..serde_json::from_str(text).expect("a report") }
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    text.split_once(start).and_then(|(_, rest)| rest.split_once(end)).map(|(inside, _)| inside).expect(start)
}

#[test]
fn the_policy_admits_this_script_and_this_style_and_nothing_else() {
    let page = dashboard::page();
    let policy = between(page, "Content-Security-Policy\" content=\"", "\"");
    for (directive, block) in
        [("script-src", between(page, "<script>", "</script>")), ("style-src", between(page, "<style>", "</style>"))]
    {
        let expected = format!("{directive} 'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(block)));
        assert!(policy.split(';').any(|part| part.trim() == expected), "the policy needs: {expected}");
    }
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"));
}

#[test]
fn the_page_makes_no_markup_of_data_and_loads_nothing_from_elsewhere() {
    let page = dashboard::page();
    for forbidden in [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        " style=\"",
        "https://",
        "src=\"",
        "@import",
    ] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    assert_eq!(page.matches("http://").count(), 1, "only the name of SVG is a web address");
    assert!(
        page.contains("<html lang=\"en\">")
            && page.contains("prefers-color-scheme: dark")
            && page.contains("width=device-width")
    );
}

#[test]
fn runs_are_listed_as_they_come_and_without_their_failures() {
    let failures = vec![Failure { window_id: "w".into(), error: "CountMismatch".into(), message: "m".into() }];
    let data = dashboard::runs(
        &[RunReport { failures, status: RunStatus::Failed, ..report("newest") }, report("older")],
        &["row r0 is not readable".into()],
        at("2024-10-01T06:00:00Z"),
    );
    assert_eq!((&data["v"], &data["unreadable"][0]), (&1.into(), &"row r0 is not readable".into()));
    assert_eq!(data["runs"][0]["run_id"], "newest");
    assert_eq!(data["runs"][0]["failures"], 1);
    assert_eq!(data["runs"][0]["well"], false);
    assert_eq!(data["runs"][1]["range"], "2024-07-01 to 2024-09-28");
    assert_eq!(
        dashboard::runs(&vec![report("r"); 500], &[], at("2024-10-01T06:00:00Z"))["runs"].as_array().map(Vec::len),
        Some(104)
    );
}

#[test]
fn every_open_message_is_in_one_age_group() {
    let now = at("2024-10-01T00:00:00Z");
    let groups = dashboard::age_groups(
        [
            "2024-10-02T00:00:00Z",
            "2024-09-30T00:00:00Z",
            "2024-09-24T00:00:00.001Z",
            "2024-09-24T00:00:00Z",
            "2024-07-01T00:00:00Z",
            "2019-01-01T00:00:00Z",
        ]
        .map(at),
        now,
    );
    let shown: Vec<(&str, u64)> = groups.iter().map(|group| (group.label.as_str(), group.messages)).collect();
    assert_eq!(
        shown,
        [
            ("under 7 days", 3),
            ("7 to 29 days", 1),
            ("30 to 59 days", 0),
            ("60 to 89 days", 0),
            ("90 to 179 days", 1),
            ("180 days and more", 1)
        ]
    );
}

#[test]
fn the_latest_run_comes_with_its_sentence_and_its_advice() {
    let report = RunReport {
        failures: vec![Failure { window_id: "w".into(), error: "SourceUnavailable".into(), message: "refused".into() }],
        status: RunStatus::Failed,
        unresolved: vec![Unresolved::excluded(
            Identity::new("messages", "<i>"),
            "kills its window",
            at("2024-09-30T06:00:00Z"),
        )],
        ..report("run-7")
    };
    let open = OpenMessage {
        message_id: "<b>".into(),
        source_index: "messages".into(),
        timestamp: at("2024-01-01T00:00:00Z"),
        first_seen_open: at("2024-03-01T00:00:00Z"),
    };
    let data = dashboard::latest(&Latest {
        report: &report,
        oldest_open: &[open],
        open_ages: &[],
        quarantine_reasons: &[("unrecognised_status".into(), 3)],
        archived_by_month: &[("2024-07".into(), 9)],
        now: at("2024-10-01T06:00:00Z"),
    });
    assert_eq!(data["failures"][0]["advice"], errors::advice("SourceUnavailable"));
    assert_eq!(data["sentence"], reports::sentence(&report));
    assert_eq!(data["set_aside"][0]["name"], "<i>");
    assert_eq!(data["set_aside"][0]["age"], "1 day");
    assert_eq!(data["set_aside"][0]["way_back"][0], "alert-archive quarantine release '<i>' --index messages");
    assert_eq!(data["rerun"], "alert-archive rerun run-7 --redrive");
    assert_eq!(data["oldest_open"][0]["days"], 274);
    assert_eq!(data["archived_by_month"][0]["label"], "2024-07");
    assert_eq!(data["report"]["messages"]["source"], report.messages.source);
}
