//! The page's own promises, and the data that it is given.

use alerts::counts::AlertCounts;
use alerts::run::{
    grid::{Cell, CellState, Grid},
    job_run::RunStatus,
    overview::{Day, Overview},
    report::{Details, Failure, RunReport},
    span::Span,
    unresolved::Unresolved,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use identity::Identity;
use jiff::Timestamp;
use reports::dashboard::{self, Latest, ListedRun, Runs};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

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

fn listed(reports: &[RunReport]) -> Value {
    let of = |report: &RunReport| ListedRun { report: report.clone(), execution_arn: String::new(), grid: Grid::new() };
    listed_as(&reports.iter().map(of).collect::<Vec<_>>())
}

fn listed_as(listed: &[ListedRun]) -> Value {
    let unreadable = ["row r0 is not readable".to_owned()];
    let now = at("2024-10-01T06:00:00Z");
    dashboard::runs(&Runs { listed, unreadable: &unreadable, last_completed: Some(now), silent_days: 8, now })
}

#[test]
fn the_policy_admits_the_scripts_and_the_style_of_the_page_and_nothing_else() {
    let page = dashboard::page(None, &listed(&[report("r1")]), &[], at("2024-10-01T06:00:00Z"));
    let policy = between(&page, "Content-Security-Policy\" content=\"", "\"");
    let scripts: Vec<&str> = page
        .split("<script>")
        .skip(1)
        .filter_map(|rest| rest.split_once("</script>"))
        .map(|(inside, _)| inside)
        .collect();
    assert_eq!(scripts.len(), 2);
    for (directive, block) in
        [("script-src", scripts[0]), ("script-src", scripts[1]), ("style-src", between(&page, "<style>", "</style>"))]
    {
        let hash = format!("'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(block)));
        let admitted = policy.split(';').find(|part| part.trim().starts_with(directive)).expect(directive);
        assert!(admitted.contains(&hash), "{directive} needs {hash}");
    }
    assert!(
        policy.contains("default-src 'none'") && !policy.contains("unsafe") && policy.contains("connect-src 'self'")
    );
    assert!(!page.contains("{{"), "a place is left empty");
}

#[test]
fn the_page_makes_no_markup_of_data_and_loads_nothing() {
    let (html, script) = (include_str!("../../../web/index.html"), include_str!("../../../web/page.js"));
    for forbidden in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "XMLHttp"] {
        assert!(!script.contains(forbidden), "{forbidden}");
    }
    for forbidden in ["src=\"", " style=\"", "https://", "@import", "<link rel=\"stylesheet"] {
        assert!(!html.contains(forbidden), "{forbidden}");
    }
    assert!(script.matches("fetch(").count() == 1 && script.contains("fetch(`data/${encodeURIComponent(name)}.json`"));
    assert_eq!(script.matches("http://").count(), 1, "only the name of SVG is a web address");
    let style = include_str!("../../../web/page.css");
    for wanted in ["prefers-color-scheme: dark", "prefers-reduced-motion", "@media print"] {
        assert!(style.contains(wanted), "{wanted}");
    }
}

#[test]
fn hostile_data_does_not_end_its_element_or_fill_another_place() {
    let bad = "</script><script>alert(1)</script>{{ script }}";
    let runs = listed(&[RunReport { run_id: bad.into(), mode: bad.into(), ..report("r1") }]);
    let page = dashboard::page(None, &runs, &[], at("2024-10-01T06:00:00Z"));
    assert_eq!(page.matches("</script>").count(), 3, "data, charts, script");
    let data: Value = serde_json::from_str(between(&page, "id=\"data\">", "</script>")).expect("JSON");
    assert_eq!(data["runs"]["runs"][0]["run_id"], bad);
}

#[test]
fn runs_are_listed_as_they_come_with_what_failed_and_the_one_word_for_it() {
    let failures =
        vec![Failure { window_id: "w".into(), error: "CountMismatch".into(), messages: 433, ..Failure::default() }];
    let windows = alerts::run::report::Windows { planned: 91, succeeded: 90, failed: 1 };
    let failed = RunReport { failures, status: RunStatus::Failed, reconciled: false, windows, ..report("newest") };
    let data = listed(&[failed, report("older")]);
    assert_eq!((&data["v"], &data["unreadable"][0]), (&1.into(), &"row r0 is not readable".into()));
    let [newest, older] = [&data["runs"][0], &data["runs"][1]];
    assert_eq!(
        (&newest["run_id"], &newest["outcome"], &newest["state"]),
        (&"newest".into(), &"Failed, 1 of 91 windows".into(), &"bad".into())
    );
    assert_eq!((&newest["planned"], &newest["not_archived"]), (&5433.into(), &433.into()));
    assert!(newest["section"].to_string().contains(errors::advice("CountMismatch")));
    assert_eq!((&older["range"], &older["outcome"]), (&"2024-07-01 to 2024-09-28".into(), &"Completed".into()));
    // A part of the run was archived before; what it wrote is compared with what that was in the source.
    let became = reports::archive::became(&report("older")).expect("it wrote something");
    assert!(became.source < 127179533 && became.archive == 28400000);
    assert_eq!(older["became"], serde_json::json!(became));
    assert!(older["usd"].as_f64().is_some_and(|usd| usd > 0.0 && usd < 1.0), "{older}");
    assert!(data["prices"].as_str().is_some_and(|prices| prices.contains("us-east-1")));
    assert_eq!(listed(&vec![report("r"); 500])["runs"].as_array().map(Vec::len), Some(dashboard::RUNS));
}

#[test]
fn a_run_leads_to_its_execution_and_to_each_of_its_windows() {
    let cell = Cell {
        window_id: "20240701T000000.000Z--20240702T000000.000Z".into(),
        state: CellState::SetAside,
        messages: 433,
        seconds: Some(12),
        error: Some("WindowSkipped".into()),
        step: Some("query-messages".into()),
    };
    let arn = "arn:aws:states:eu-central-1:123456789012:execution:archive-alerts:r1";
    let of = |arn: &str, grid: &Grid| ListedRun { report: report("r1"), execution_arn: arn.into(), grid: grid.clone() };
    let data = listed_as(&[of(arn, &vec![cell]), of(&arn.replace("123456789012", "000000000000"), &Grid::new())]);
    let [run, local] = [&data["runs"][0], &data["runs"][1]];
    assert!(
        run["console"].as_str().is_some_and(|link| link.starts_with("https://eu-central-1.") && link.ends_with(arn))
    );
    let log = reports::log_of(arn, "query-messages", "20240701T000000.000Z--20240702T000000.000Z");
    assert!(log.is_some());
    let expected = serde_json::json!([{
        "window_id": "20240701T000000.000Z--20240702T000000.000Z", "state": "set_aside", "messages": 433, "seconds": 12,
        "error": "WindowSkipped", "step": "query-messages", "log": log,
    }]);
    assert_eq!(run["grid"], expected);
    assert!(local["console"].is_null() && local["grid"].is_null(), "a local cloud has no console: {local}");
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
    let shown: Vec<(&str, u64)> = groups.iter().map(|group| (group.label.as_str(), group.value)).collect();
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
fn the_latest_run_stands_beside_the_archive_as_it_is() {
    let since = at("2024-09-30T06:00:00Z");
    let unresolved = vec![Unresolved::excluded(Identity::new("messages", "<i>"), "kills its window", since)];
    let report = RunReport { unresolved, ..report("run-7") };
    let gaps = vec![Span { from: at("2024-03-01T00:00:00Z"), to: at("2024-03-02T00:00:00Z") }];
    let days =
        vec![Day { date: "2024-07-01".into(), archived: 9, open: 1, quarantined: 2, bytes: 77, source_bytes: 300 }];
    let details = Details { overview: Some(Overview { gaps, days, ..Overview::default() }), ..Details::default() };
    let data = dashboard::latest(&Latest {
        report: &report,
        details: &Details::default(),
        // A message was released since.
        newest: &RunReport { run_id: "release".into(), ..report.clone() },
        details_of_newest: &details,
        open_ages: &[],
        now: at("2024-10-01T06:00:00Z"),
    });
    assert_eq!(data["run_id"], "run-7");
    assert_eq!(data["sections"][0]["title"], "The archive now");
    // Not the latest of all: one that died has none.
    assert_eq!(data["sections"][1]["title"], "The latest run with a report");
    assert_eq!(data["sections"][1]["headline"], reports::sentence(&report));
    assert_eq!(data["state"], "bad", "the run went well, and there is a gap");
    assert_eq!(data["set_aside"][0]["name"], "<i>");
    assert_eq!(data["set_aside"][0]["way_back"][0], "alert-archive quarantine release '<i>' --index messages");
    assert_eq!(data["days"][0], serde_json::json!(["2024-07-01", 9, 1, 2, 77, 300]));
    assert_eq!(data["gaps"][0]["from"], "2024-03-01T00:00:00.000Z");
    assert_eq!(dashboard::covered(data.to_string().as_bytes()), []);
    let silent = dashboard::silent_days(listed(&[]).to_string().as_bytes());
    assert_eq!((silent, dashboard::silent_days(b"no JSON")), (Some(8), None));
    assert_eq!(data["report"]["messages"]["source"], report.messages.source);
}

/// Alerts of one message.
fn alerts(of: &[(&str, &str)]) -> AlertCounts {
    let mut counts = AlertCounts { messages: 1, ..AlertCounts::default() };
    of.iter().for_each(|(severity, category)| counts.add_alert(Some(severity), Some(category)));
    counts
}

fn latest_with(alerts: BTreeMap<String, AlertCounts>) -> Value {
    let details = Details { overview: Some(Overview { alerts, ..Overview::default() }), ..Details::default() };
    let now = at("2024-10-01T06:00:00Z");
    let (report, details) = (&report("run-7"), &details);
    dashboard::latest(&Latest { report, details, newest: report, details_of_newest: details, open_ages: &[], now })
}

#[test]
fn alerts_are_told_by_month_the_worst_severity_first_and_the_most_frequent_category_first() {
    let july = alerts(&[("low", "fraud"), ("low", "abuse"), ("odd", "abuse"), ("critical", "abuse"), ("", "")]);
    let august = alerts(&[("HIGH", "fraud")]);
    let data = latest_with(BTreeMap::from([("2024-07".into(), july), ("2024-08".into(), august)]));
    let told = &data["alerts"];
    assert_eq!((&told["messages"], &told["months"]), (&2.into(), &serde_json::json!(["2024-07", "2024-08"])));
    let of = |kind: &str| -> Vec<(String, Value)> {
        let series = told[kind].as_array().expect("a list").iter();
        series.map(|one| (one["name"].as_str().expect("a name").to_owned(), one["counts"].clone())).collect()
    };
    let expect = |of: &[(&str, [i64; 2])]| -> Vec<(String, Value)> {
        of.iter().map(|(name, counts)| ((*name).to_owned(), serde_json::json!(counts))).collect()
    };
    let severities = [("critical", [1, 0]), ("high", [0, 1]), ("low", [2, 0]), ("odd", [1, 0]), ("(none)", [1, 0])];
    assert_eq!(of("severities"), expect(&severities));
    assert_eq!(of("categories"), expect(&[("abuse", [3, 0]), ("fraud", [1, 1]), ("(none)", [1, 0])]));
}

#[test]
fn a_hundred_categories_are_seven_and_the_others_together_and_none_is_lost() {
    let names: Vec<String> = (0..100).map(|n| format!("category {n}")).collect();
    let all: Vec<(&str, &str)> = names.iter().map(|name| ("high", name.as_str())).collect();
    let data = latest_with(BTreeMap::from([("2024-07".into(), alerts(&all))]));
    let series = data["alerts"]["categories"].as_array().expect("a list");
    assert_eq!((series.len(), &series[7]["name"]), (8, &"all others".into()));
    assert_eq!(series.iter().map(|one| one["counts"][0].as_i64().expect("a number")).sum::<i64>(), 100);
}

#[test]
fn an_archive_whose_alerts_were_never_counted_says_nothing_of_them() {
    let empty: Overview = serde_json::from_str(
        r#"{"as_of":"2024-10-01T06:00:00.000Z","runs":1,"archived":9,"bytes":9,"open":0,"quarantined":0,
            "quarantine_reasons":[],"gaps":[],"covered":[],"days":[],"oldest_open":[]}"#,
    )
    .expect("as it was before");
    assert_eq!(latest_with(empty.alerts)["alerts"]["months"], serde_json::json!([]));
}
