//! The summary mail as a recipient reads it.

use alerts::counts::{Bytes, Messages, SourceSize};
use alerts::run::{
    job_run::RunStatus,
    overview::{Day, Extent, Overview},
    report::{Before, Details, Failure, OpenMessage, Recheck, RunReport, Windows},
    span::Span,
    unresolved::Unresolved,
};
use identity::Identity;
use jiff::Timestamp;
use reports::letter::Rendered;
use reports::mail::{Earlier, Links, Mail, Summary, is_for_everybody, mail};
use reports::section::{Section, State};

fn at(text: &str) -> Timestamp {
    text.parse().expect("an instant")
}

fn report() -> RunReport {
    serde_json::from_str(include_str!("report.json")).expect("a report")
}

fn failure(window: &str, error: &str, messages: u64) -> Failure {
    let (window_id, message) = (window.into(), format!("{error} was met"));
    Failure { window_id, error: error.into(), message, messages, ..Failure::default() }
}

fn window(day: u8) -> String {
    format!("202407{day:02}T000000.000Z--202407{:02}T000000.000Z", day + 1)
}

fn failed() -> RunReport {
    let failures = vec![
        failure(&window(3), "SourceUnavailable", 100),
        failure(&window(4), "SourceUnavailable", 200),
        failure(&window(12), "CountMismatch", 133),
    ];
    let windows = Windows { planned: 91, succeeded: 88, failed: 3 };
    RunReport { status: RunStatus::Failed, reconciled: false, windows, failures, ..report() }
}

fn open(id: &str, since: &str, seen: &str) -> OpenMessage {
    let (message_id, source_index) = (id.to_owned(), "messages".to_owned());
    OpenMessage { message_id, source_index, timestamp: at(since), first_seen_open: at(seen) }
}

fn overview() -> Overview {
    let covered = vec![Span { from: at("2019-01-01T00:00:00Z"), to: at("2024-09-29T00:00:00Z") }];
    let day =
        Day { date: "2024-07-01".into(), archived: 952_000, open: 952, quarantined: 68, bytes: 1, source_bytes: 4 };
    Overview {
        as_of: at("2024-10-01T05:59:00Z"),
        since: Some("2024-01-05T06:00:00.000Z".into()),
        runs: 39,
        archived: 952_000,
        bytes: 5_000_000_000,
        in_source: SourceSize { messages: 952_000, bytes: 20_000_000_000 },
        source_gb_month: None,
        open: 952,
        quarantined: 68,
        quarantine_reasons: vec![("unrecognised_status".into(), 68)],
        gaps: vec![],
        covered,
        days: vec![day],
        alerts: Default::default(),
        oldest_open: vec![open("MSG-1", "2024-01-02T00:00:00Z", "2024-09-29T00:00:00Z")],
    }
}

fn details() -> Details {
    Details { overview: Some(overview()), before: Some(before()), ..Details::default() }
}

/// Nothing new lies in quarantine.
fn before() -> Before {
    Before { run_id: "weekly-2024-38".into(), archived: 947_700, open: 1000, quarantined: 68, ..Before::default() }
}

fn mailed_after(report: &RunReport, details: &Details, earlier: &[Earlier], died_of: Option<&str>) -> Mail {
    let (links, now, pipelines) = (Links::default(), at("2024-10-01T06:00:00Z"), &[]);
    mail(&Summary { report, details, pipelines, links: &links, earlier, died_of, duplicate: false, now })
        .expect("a mail")
}

fn mailed(report: &RunReport, details: &Details) -> Rendered {
    mailed_after(report, details, &[], None).rendered
}

fn first_line(report: &RunReport) -> String {
    mailed(report, &details()).text.lines().next().expect("a line").to_owned()
}

#[test]
fn the_first_line_says_whether_anything_needs_doing() {
    assert_eq!(
        first_line(&report()),
        "Nothing to do. All went well: 4,300 messages archived, 55 archived earlier, 599 still open, 46 in quarantine."
    );
    assert_eq!(
        first_line(&failed()),
        "Please act. 3 of 91 windows failed, and 433 of 5,433 messages are not archived yet; the others are safe."
    );
    let unaccounted = Messages { source: 5003, ..report().messages };
    assert_eq!(
        first_line(&RunReport { messages: unaccounted, reconciled: false, ..report() }),
        "Please act. The counts do not add up: 3 of 5,003 messages cannot be accounted for."
    );
    let nothing = RunReport { messages: Messages::default(), recheck: Recheck::default(), ..report() };
    assert_eq!(first_line(&nothing), "Nothing to do. There was nothing to archive.");
    let unconfirmed = first_line(&RunReport { reconciled: false, ..report() });
    assert!(
        unconfirmed.starts_with("Please act. The run ended, but its counts could not be confirmed"),
        "{unconfirmed}"
    );
}

#[test]
fn a_run_that_died_is_told_with_its_cause() {
    let died = RunReport {
        status: RunStatus::Failed,
        reconciled: false,
        windows: Windows { planned: 91, ..Windows::default() },
        messages: Messages::default(),
        failures: vec![failure("", "SourceUnavailable", 0)],
        reported_at: None,
        ..report()
    };
    let mail = mailed_after(&died, &Details::default(), &earlier(), None).rendered;
    assert!(mail.subject.starts_with("Alert archive: Failed before its report ("), "{}", mail.subject);
    for part in [&mail.text, &mail.html] {
        for said in [
            "The run ended before its windows were done (SourceUnavailable)",
            "the whole run",
            "alert-archive rerun weekly-2024-39 --wait",
            "Nothing was counted: it had planned 91 windows.",
        ] {
            assert!(part.contains(said), "{said}: {part}");
        }
        assert!(!part.contains("In the source, in all"), "{part}");
    }
    let row = mail.text.lines().find(|line| line.contains("Failed before its report") && line.contains("2024-07-01"));
    let words: Vec<&str> = row.expect("a row").split_whitespace().collect();
    assert_eq!(words[..3], ["2024-07-01", "-", "-"], "not as if it had found nothing");
}

#[test]
fn a_run_that_died_after_its_report_is_told_with_all_that_had_failed() {
    let after = RunReport { failures: [vec![failure("", "ExecutionDied", 0)], failed().failures].concat(), ..failed() };
    let details = Details { before: Some(Before::default()), ..details() }.told_again();
    let text = mailed(&after, &details).text;
    for said in ["ExecutionDied: the whole run", "433  Not archived yet", "(no change since the last report)"] {
        assert!(text.contains(said), "{said}: {text}");
    }
    assert!(!text.contains("new in quarantine"), "{text}");
}

#[test]
fn the_readme_quotes_what_the_mail_says_of_a_failure_and_of_its_repair() {
    let message =
        "OpenSearch cannot count documents: index `history` is closed (status 400): index_closed_exception: closed";
    let failed = RunReport {
        status: RunStatus::Failed,
        reconciled: false,
        windows: Windows::default(),
        messages: Messages::default(),
        failures: vec![Failure { message: message.into(), ..failure("", "SourceIndexClosed", 0) }],
        reported_at: None,
        ..report()
    };
    let messages = Messages { source: 3000, archived: 2606, open: 367, quarantined: 27, ..Messages::default() };
    let details = Details { before: Some(Before { quarantined: 41, ..before() }), ..details() };
    let repaired = mailed_after(&RunReport { messages, ..report() }, &details, &[], Some("SourceIndexClosed")).rendered;
    let readme = include_str!("../../../README.md");
    let quoted: Vec<&str> =
        readme.split("```text mail\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(quoted.len(), 2);
    for (mail, quoted) in [mailed(&failed, &Details::default()), repaired].iter().zip(quoted) {
        for line in quoted.lines().filter(|line| !line.is_empty()) {
            assert!(mail.text.lines().any(|said| said == line), "`{line}` is not in the mail: {}", mail.text);
        }
    }
}

#[test]
fn what_failed_is_counted_against_the_plan() {
    let mail = mailed(&failed(), &details());
    for said in ["433  Not archived yet, in failed windows", "5,433  In the source, in all"] {
        assert!(mail.text.lines().any(|line| line.trim() == said), "{said}: {}", mail.text);
    }
    assert!(!mail.text.contains("NOT ACCOUNTED FOR"), "{}", mail.text);
}

#[test]
fn what_other_runs_have_committed_is_not_called_missing() {
    let by = |window: &str, by_other_runs| Failure { by_other_runs, ..failure(window, "SourceUnavailable", 100) };
    let of = |failures: Vec<Failure>| RunReport { failures, ..failed() };
    let all = of(vec![by(&window(3), Extent::All), by(&window(4), Extent::All), by(&window(5), Extent::All)]);
    assert_eq!(
        first_line(&all),
        "Please act. 3 of 91 windows failed, and 300 of 5,300 messages were not looked at again, but other runs have \
         committed their windows before; the others are safe."
    );
    let mail = mailed(&all, &details());
    assert!(mail.text.contains("300  In failed windows that other runs have committed"), "{}", mail.text);
    assert!(!mail.text.to_lowercase().contains("not archived yet"), "{}", mail.text);
    let mixed = of(vec![by(&window(3), Extent::Nothing), by(&window(4), Extent::Part), by(&window(5), Extent::All)]);
    assert_eq!(
        first_line(&mixed),
        "Please act. 3 of 91 windows failed, and 100 of 5,300 messages are not archived yet, 100 are in windows of which \
         other runs have committed a part, 100 were not looked at again, but other runs have committed their windows \
         before; the others are safe."
    );
    let mail = mailed(&mixed, &details());
    for said in ["100  Not archived yet, in failed windows", "5,300  In the source, in all"] {
        assert!(mail.text.lines().any(|line| line.trim() == said), "{said}: {}", mail.text);
    }
    assert!(!mail.text.contains("NOT ACCOUNTED FOR"), "{}", mail.text);
    let skipped = Failure { error: "WindowSkipped".into(), ..by(&window(3), Extent::All) };
    let windows = Windows { planned: 91, succeeded: 90, failed: 0 };
    let aside = RunReport { failures: vec![skipped], windows, reconciled: false, ..report() };
    let line = first_line(&aside);
    assert!(line.contains("with 100 of 5,100 messages (100 committed by other runs before)"), "{line}");
}

#[test]
fn failures_are_grouped_by_error_and_neighbours_folded() {
    let mail = mailed(&failed(), &details());
    for part in [&mail.text, &mail.html] {
        for said in [
            "2 windows, 300 messages",
            "2024-07-03 to 2024-07-04: 2 windows",
            "1 window, 133 messages",
            &window(12),
            "CountMismatch was met",
            errors::advice("CountMismatch"),
        ] {
            assert!(part.contains(said), "{said}: {part}");
        }
    }
    assert_eq!(mail.text.matches("SourceUnavailable:").count(), 1, "{}", mail.text);
}

#[test]
fn a_failure_leads_to_the_log_of_one_of_its_windows() {
    let arn = "arn:aws:states:eu-central-1:123456789012:execution:archive-alerts:weekly-2024-39";
    let details = Details { execution_arn: arn.into(), ..details() };
    let mut report = failed();
    report.failures[1].step = Some("query-messages".into());
    let mail = mailed(&report, &details);
    let link = reports::log_of(arn, "query-messages", &window(4)).expect("a link");
    assert!(mail.text.contains(&format!("Open in the console: {link}")), "{}", mail.text);
    assert!(mail.html.contains("#logsV2:log-groups"), "{}", mail.html);
    assert_eq!(mail.text.matches("Open in the console: ").count(), 1, "CountMismatch names no step");
}

#[test]
fn the_archive_and_the_run_are_told_apart() {
    let released = Messages { source: 1, archived: 1, ..Messages::default() };
    let mail = mailed(&RunReport { messages: released, backlog: 952, ..report() }, &details());
    let (now, run) = mail.text.split_once("THIS RUN (").expect("two sections");
    for said in [
        "THE ARCHIVE NOW (all 39 runs, since 2024-01-05, as of 2024-10-01 05:59 UTC)",
        "952,000  Messages in the archive",
        "952  Still open",
        "68  In quarantine",
        "5.0 GB  Size in the archive (20.0 GB in the source: 75 % less)",
        "- To keep these messages costs about $0.11 a month in the archive, and about $4.88 in the source.",
        "Purged there, they save about $4.76 a month",
        "$0.244 in the source (assumed, see source_gb_month), where messages are counted without",
    ] {
        assert!(now.contains(said), "{said}: {now}");
    }
    assert!(run.starts_with("weekly-2024-39, 2024-07-01 to 2024-09-28, scheduled, attempt 1)"), "{run}");
    assert!(now.contains("Complete without a gap: 2019-01-01 to 2024-09-28."), "{now}");
}

#[test]
fn the_size_in_the_source_is_an_estimate_where_it_is_not_known_of_all_and_is_not_told_of_none() {
    let with = |messages| {
        let in_source = SourceSize { messages, bytes: 20_000_000_000 };
        let overview = Overview { in_source, source_gb_month: Some(0.1), ..overview() };
        mailed(&report(), &Details { overview: Some(overview), ..details() }).text
    };
    let half = with(476_000);
    assert!(half.contains("5.0 GB  Size in the archive (about 40.0 GB in the source: 88 % less)"), "{half}");
    assert!(half.contains("about $4.00 in the source.") && half.contains("(as this deployment is set)"), "{half}");
    let none = with(0);
    assert!(none.contains("5.0 GB  Size in the archive\n") && !none.contains("To keep these messages"), "{none}");
}

#[test]
fn a_gap_is_no_good_news_whatever_the_run_did() {
    let gaps = vec![Span { from: at("2024-03-01T00:00:00Z"), to: at("2024-03-03T00:00:00Z") }];
    let details = Details { overview: Some(Overview { gaps, ..overview() }), ..details() };
    let mail = mailed(&report(), &details);
    assert!(mail.text.starts_with("Please act: there are gaps. This run: All went well:"), "{}", mail.text);
    assert!(mail.subject.starts_with("Alert archive: there are gaps ("), "{}", mail.subject);
    assert!(mail.text.contains("2024-03-01 to 2024-03-02"), "{}", mail.text);
}

#[test]
fn what_failed_in_the_run_itself_is_not_called_a_gap_besides() {
    let span = |day: u8| Span {
        from: at(&format!("2024-07-{day:02}T00:00:00Z")),
        to: at(&format!("2024-07-{:02}T00:00:00Z", day + 1)),
    };
    let of = |gaps| Details { overview: Some(Overview { gaps, ..overview() }), ..details() };
    let first = |details: &Details| mailed(&failed(), details).text.lines().next().expect("a line").to_owned();
    assert!(first(&of(vec![span(3), span(4), span(12)])).ends_with("; the others are safe."));
    assert!(first(&of(vec![span(3), span(20)])).ends_with("; the others are safe. Besides: there are gaps."));
}

#[test]
fn a_gap_that_an_operator_has_set_aside_asks_for_nothing_new() {
    let unresolved = set_aside("shard 3 is lost");
    let Unresolved::SkippedWindow { left, .. } = unresolved[0].clone() else { panic!("a window") };
    let details = Details { overview: Some(Overview { gaps: left.clone(), ..overview() }), ..details() };
    let mail = mailed(&RunReport { unresolved, ..report() }, &details);
    assert!(mail.text.starts_with("Nothing new to do. All went well:"), "{}", mail.text);
    for said in ["Without a gap but for what is set aside: 2019-01-01 to 2024-09-28.", "shard 3 is lost", "--undo"] {
        assert!(mail.text.contains(said), "{said}: {}", mail.text);
    }
    assert!(mail.subject.contains("4,300 messages archived"), "{}", mail.subject);
    // Where something else is missing, only that is a gap.
    let gaps = vec![left[0].clone(), Span { from: at("2024-03-01T00:00:00Z"), to: at("2024-03-03T00:00:00Z") }];
    let details = Details { overview: Some(Overview { gaps, ..overview() }), ..details };
    let text = mailed(&RunReport { unresolved: set_aside("shard 3 is lost"), ..report() }, &details).text;
    assert!(text.starts_with("Please act: there are gaps.") && text.contains("1 gap that runs had planned"), "{text}");
}

#[test]
fn what_is_new_in_quarantine_asks_for_a_look() {
    let details = Details { before: Some(Before { quarantined: 66, ..before() }), ..details() };
    let mail = mailed(&report(), &details);
    let said = "Please look: 2 messages new in quarantine. This run: All went well: 4,300 messages archived";
    assert!(mail.text.starts_with(said), "{}", mail.text);
    assert!(mail.subject.starts_with("Alert archive: 2 messages new in quarantine ("), "{}", mail.subject);
    let text = mailed(&failed(), &details).text;
    assert!(text.starts_with("Please act. 3 of 91 windows failed"), "{text}");
    assert!(text.lines().next().is_some_and(|line| line.ends_with("Besides: 2 messages new in quarantine.")), "{text}");
    let fewer = Details { before: Some(Before { quarantined: 70, ..before() }), ..details };
    assert!(mailed(&report(), &fewer).text.starts_with("Nothing to do. "));
}

#[test]
fn changes_since_the_last_mail_and_repairs_are_told() {
    let before = before();
    let text = mailed(&report(), &details()).text;
    for said in ["(+4,300 since the last report)", "(-48 since the last report)", "(no change since the last report)"] {
        assert!(text.contains(said), "{said}: {text}");
    }
    assert!(!text.contains("Repaired"));
    let failed_before = Before { run_id: report().run_id, failed_windows: 1, failed_messages: 433, ..before };
    let text = mailed(&report(), &Details { before: Some(failed_before), ..details() }).text;
    assert!(text.contains("Repaired: 1 window, 433 messages since the last report."), "{text}");
}

#[test]
fn only_what_was_archived_is_compared_with_what_it_became() {
    let size = |messages, bytes| {
        let text = mailed(&RunReport { messages, bytes, ..report() }, &details()).text;
        text.lines().find(|line| line.contains("became")).map(str::to_owned)
    };
    let repeat = Messages { source: 5000, already_archived: 4997, archived: 3, ..Messages::default() };
    let line = size(repeat, Bytes { source: 201_000_000, archive: 30_000 }).expect("a line");
    assert_eq!(line, "- 3 messages of about 121 kB became 30.0 kB in the archive: 76 % less.");
    let nothing = Messages { source: 5000, already_archived: 5000, ..Messages::default() };
    assert_eq!(size(nothing, Bytes { source: 127_000_000, archive: 0 }), None);
}

#[test]
fn the_age_of_an_open_message_is_its_own_and_stands_beside_how_long_it_was_held() {
    let text = mailed(&report(), &details()).text;
    let line = text.lines().find(|line| line.contains("MSG-1")).expect("a line");
    assert!(line.ends_with("273                2"), "{line}");
    assert!(text.contains("Age, days  Held over, days"), "{text}");
}

fn set_aside(reason: &str) -> Vec<Unresolved> {
    let since = at("2024-09-01T10:00:00Z");
    let left = vec![Span { from: at("2024-07-03T00:00:00Z"), to: at("2024-07-04T00:00:00Z") }];
    let (run_id, window_id) = ("weekly-2024-36".to_owned(), window(3));
    vec![
        Unresolved::SkippedWindow { run_id, window_id, reason: reason.into(), since, left },
        Unresolved::excluded(Identity::new("messages-2024", "MSG 17"), reason, since),
    ]
}

#[test]
fn what_is_set_aside_is_told_until_it_is_resolved() {
    let mail = mailed(&RunReport { unresolved: set_aside("shard 3 is lost"), ..report() }, &details());
    for part in [&mail.text, &mail.html.replace("&#x27;", "'")] {
        for said in [
            "Set aside, to be resolved: 1 skipped window and 1 message excluded by an operator.",
            "of weekly-2024-36, for 29 days (since 2024-09-01)",
            "shard 3 is lost",
            &format!("alert-archive skip weekly-2024-36 {} --undo", window(3)),
            "alert-archive quarantine release 'MSG 17' --index messages-2024",
        ] {
            assert!(part.contains(said), "{said} is missing in {part}");
        }
    }
    assert!(mail.text.starts_with("Nothing new to do."), "{}", mail.text);
}

#[test]
fn a_run_with_a_window_set_aside_is_called_so_and_the_window_is_no_failure() {
    let skipped = failure(&window(3), "WindowSkipped", 55);
    let (run_id, window_id) = (report().run_id, skipped.window_id.clone());
    let aside = Unresolved::SkippedWindow { run_id, window_id, reason: "r".into(), since: report().to, left: vec![] };
    let windows = Windows { planned: 91, succeeded: 90, failed: 0 };
    let report = RunReport { failures: vec![skipped], unresolved: vec![aside], windows, reconciled: false, ..report() };
    let mail = mailed(&report, &details());
    assert!(mail.subject.contains("Completed, 1 window set aside"), "{}", mail.subject);
    assert!(
        mail.text.starts_with("Please look. 1 window set aside by an operator, with 55 of 5,055 messages"),
        "{}",
        mail.text
    );
    assert!(!mail.text.contains("What failed"), "{}", mail.text);
    assert_eq!(reports::state(&report), State::Attention);
}

#[test]
fn the_release_of_one_message_is_not_mailed_to_everybody() {
    let instant =
        RunReport { mode: "range".into(), to: report().from + jiff::SignedDuration::from_millis(1), ..report() };
    assert!(!is_for_everybody(&instant));
    assert!(is_for_everybody(&RunReport { status: RunStatus::Failed, ..instant }));
    assert!(is_for_everybody(&report()));
}

#[test]
fn what_other_pipelines_have_published_is_repeated() {
    let feeds = Section::new("Partner feeds", "the last 7 days").headline(State::Bad, "2 files wait.");
    let (report, details, links) = (report(), details(), Links::default());
    let pipelines = [feeds];
    let all = Summary {
        report: &report,
        details: &details,
        pipelines: &pipelines,
        links: &links,
        earlier: &[],
        died_of: None,
        duplicate: false,
        now: report.to,
    };
    let told = mail(&all).expect("a mail").rendered;
    assert!(told.text.contains("PARTNER FEEDS (the last 7 days)\n2 files wait."));
    assert!(told.text.starts_with("Please act: see Partner feeds. This run: All went well: "), "{}", told.text);
    assert!(told.subject.starts_with("Alert archive: see Partner feeds ("), "{}", told.subject);
    let fine = [Section { state: State::Good, ..pipelines[0].clone() }];
    let told = mail(&Summary { pipelines: &fine, ..all }).expect("a mail").rendered;
    assert!(told.text.starts_with("Nothing to do. "), "{}", told.text);
}

fn earlier() -> Vec<Earlier> {
    let run = |n: u64| Earlier {
        mode: "scheduled".into(),
        run_id: format!("weekly-{n}"),
        from: format!("2024-01-{:02}T06:00:00.000Z", n + 1),
        outcome: "Completed".into(),
        messages: Messages { archived: 100 * n, ..Messages::default() },
        not_archived: 0,
        uncounted: false,
    };
    (1..=30).rev().map(run).collect()
}

#[test]
fn the_last_runs_are_a_chart_and_the_same_in_words() {
    let mail = mailed_after(&failed(), &details(), &earlier(), None);
    let png = mail.chart.expect("a chart");
    assert!(png.starts_with(b"\x89PNG"));
    assert!(mail.rendered.html.contains(r#"src="cid:last-runs""#), "{}", mail.rendered.html);
    let text = mail.rendered.text;
    assert!(
        text.contains("THE LAST RUNS (newest first)")
            && text.contains("2024-01-31 06:00")
            && !text.contains("2024-01-04"),
        "{text}"
    );
    // The first run has no others to be compared with.
    let alone = mailed_after(&report(), &details(), &[], None);
    assert!(alone.chart.is_none() && !alone.rendered.html.contains("cid:"));
    assert!(alone.failed_windows.is_none());
}

#[test]
fn the_failed_windows_go_along_as_a_table() {
    let file = mailed(&failed(), &details());
    assert!(file.text.contains("SourceUnavailable"));
    let file = mailed_after(&failed(), &details(), &[], None).failed_windows.expect("a file");
    let text = String::from_utf8(file).expect("UTF-8");
    assert_eq!(text.lines().count(), 4, "{text}");
}

#[test]
fn a_run_that_had_died_and_is_complete_now_says_so() {
    let mail = mailed_after(&report(), &details(), &[], Some("SourceIndexClosed"));
    assert!(
        mail.rendered.text.contains("Recovered: an earlier mail said that this run had ended with SourceIndexClosed.")
    );
    let still = mailed_after(&failed(), &details(), &[], Some("SourceIndexClosed"));
    assert!(!still.rendered.text.contains("Recovered"));
}

#[test]
fn a_list_of_runs_that_cannot_be_read_costs_the_chart_and_not_the_mail() {
    assert_eq!(Earlier::read(b"no JSON"), []);
    assert_eq!(
        Earlier::read(
            br#"{"runs":[{"run_id":1},{"run_id":"r","from":"a","outcome":"b","not_archived":0,
        "messages":{"source":1,"archived":1,"open":0,"quarantined":0,"already_archived":0,"no_alerts":0}}]}"#
        )
        .len(),
        1
    );
}

/// A run in which nothing was read but what another run had held over.
fn recheck(looked_at: Recheck) -> RunReport {
    let (from, to) = (Timestamp::UNIX_EPOCH, at("2024-10-01T06:00:00Z"));
    RunReport { mode: "recheck".into(), from, to, messages: Messages::default(), recheck: looked_at, ..report() }
}

#[test]
fn a_recheck_is_not_about_a_range_and_tells_what_is_gone() {
    let nothing = mailed(&recheck(Recheck::default()), &details());
    assert_eq!(nothing.subject, "Alert archive: nothing new to archive (held-over messages)");
    assert!(nothing.text.starts_with("Nothing to do. There was nothing to archive."), "{}", nothing.text);
    let gone = Recheck { looked_at: 5, open: 3, gone: 2, ..Recheck::default() };
    let mail = mailed_after(&recheck(gone), &details(), &[Earlier::default()], None).rendered;
    let said = "Nothing to do. 5 open messages looked at again: 3 still open, 2 gone from the source.";
    assert!(mail.text.starts_with(said), "{}", mail.text);
    assert!(mail.text.contains("any time") && !mail.text.contains("1970"), "{}", mail.text);
}

#[test]
fn an_extraction_has_archived_nothing_and_lost_nothing() {
    let messages = Messages { source: 1000, open: 140, quarantined: 10, ..Messages::default() };
    let staged = RunReport { mode: "extract".into(), messages, ..report() };
    let mail = mailed(&staged, &details());
    let said = "Nothing to do. Nothing is archived yet: 850 messages wait to be written (alert-archive run --mode \
                process), 140 still open, 10 for quarantine.";
    assert!(mail.text.starts_with(said), "{}", mail.text);
    assert!(mail.subject.contains("850 messages staged"), "{}", mail.subject);
    assert!(mail.text.contains("850  Staged, to be written by mode process"), "{}", mail.text);
    assert!(!mail.text.contains("NOT ACCOUNTED FOR") && reports::all_well(&staged), "{}", mail.text);
    let ranged = RunReport { mode: "range".into(), ..staged };
    assert!(first_line(&ranged).contains("850 of 1,000 messages cannot be accounted for"), "only of an extraction");
}

#[test]
fn beside_failed_windows_only_what_is_committed_is_called_safe() {
    let of = |planned, succeeded| RunReport { windows: Windows { planned, succeeded, failed: 3 }, ..failed() };
    let line = first_line(&of(3, 0));
    assert!(line.ends_with("433 of 5,433 messages are not archived yet."), "no other is there: {line}");
    let line = first_line(&of(5, 0));
    assert!(line.ends_with("are not archived yet; 2 are set aside."), "{line}");
    let line = first_line(&of(91, 87));
    assert!(line.ends_with("are not archived yet; 1 is set aside; the others are safe."), "{line}");
}

#[test]
fn a_run_that_was_refused_did_not_die_and_one_that_died_says_how_it_goes_on() {
    let of = |error: &str| RunReport {
        status: RunStatus::Failed,
        reconciled: false,
        windows: Windows { planned: 3, ..Windows::default() },
        messages: Messages::default(),
        failures: vec![failure("", error, 0)],
        reported_at: None,
        ..report()
    };
    let refused = mailed(&of("RangeBusy"), &Details::default());
    assert!(refused.subject.contains("Refused, its range is busy"), "{}", refused.subject);
    let said = "Please act. The run was refused (RangeBusy), because another run is at work on a part of its range";
    assert!(refused.text.starts_with(said), "{}", refused.text);
    let died = mailed(&of("ExecutionDied"), &Details::default()).text;
    assert!(died.contains("run it again with this command") && !died.contains("Only what failed"), "{died}");
    assert!(mailed(&failed(), &details()).text.contains("Only what failed runs again"));
    let after = RunReport { reported_at: Some("2024-10-01T06:00:00.000Z".into()), ..of("ExecutionDied") };
    let mail = mailed(&after, &details());
    assert!(mail.subject.contains("Failed after its report"), "{}", mail.subject);
    assert!(mail.text.starts_with("Please act. The run failed after its report (ExecutionDied): "), "{}", mail.text);
}

#[test]
fn a_run_that_is_at_work_again_has_not_failed() {
    let again = RunReport {
        status: RunStatus::Running,
        attempt: 2,
        reported_at: Some("2024-10-01T06:00:00.000Z".into()),
        ..failed()
    };
    assert_eq!(reports::sentence(&again), "The run has not finished: at its last report 88 of 91 windows were done.");
    let section = serde_json::json!(reports::archive::run_section(&again, &details())).to_string();
    assert!(section.contains("What had failed, and may run again now") && !section.contains("alert-archive rerun"));
    let windows = Windows { planned: 91, ..Windows::default() };
    let first = RunReport { reported_at: None, failures: vec![], windows, ..again };
    assert_eq!(reports::sentence(&first), "The run has not finished: 91 windows planned.");
}

#[test]
fn a_window_that_was_set_aside_is_not_repaired() {
    let aside = failure(&window(3), "WindowSkipped", 55);
    let windows = Windows { planned: 91, succeeded: 90, failed: 0 };
    let report = RunReport { failures: vec![aside], windows, reconciled: false, ..report() };
    let repaired = |before: Before| {
        let before = Before { run_id: report.run_id.clone(), ..before };
        let text = mailed(&report, &Details { before: Some(before), ..details() }).text;
        text.lines().find(|line| line.contains("Repaired")).map(str::to_owned)
    };
    assert_eq!(repaired(Before { failed_windows: 1, failed_messages: 55, ..Before::default() }), None);
    let two = Before { failed_windows: 2, failed_messages: 488, ..Before::default() };
    assert_eq!(repaired(two.clone()).as_deref(), Some("Repaired: 1 window, 433 messages since the last report."));
    // Set aside before that report already.
    let earlier = Before { set_aside_windows: 1, set_aside_messages: 55, ..two };
    assert_eq!(repaired(earlier).as_deref(), Some("Repaired: 2 windows, 488 messages since the last report."));
}

#[test]
fn twenty_three_failed_windows_are_six_places_and_a_number() {
    let failures: Vec<Failure> = (1..=23).map(|n| failure(&window(n), "SourceUnavailable", 10)).collect();
    let apart: Vec<Failure> = failures.iter().step_by(2).cloned().collect();
    let windows = |failed| Windows { planned: 91, succeeded: 91 - failed, failed };
    let together = mailed(&RunReport { failures, windows: windows(23), ..failed() }, &details()).text;
    assert!(together.contains("2024-07-01 to 2024-07-23: 23 windows"), "{together}");
    let apart = mailed(&RunReport { failures: apart, windows: windows(12), ..failed() }, &details()).text;
    assert!(apart.contains("12 windows, 120 messages") && apart.contains("and 6 ranges more"), "{apart}");
    assert!(apart.contains(&window(11)) && !apart.contains(&window(13)), "{apart}");
}

#[test]
fn an_archive_that_no_range_run_has_filled_is_not_called_empty() {
    let filled = Overview { covered: vec![], ..overview() };
    let text = mailed(&report(), &Details { overview: Some(filled), ..Details::default() }).text;
    assert!(text.contains("No run over a whole range has ended yet.") && !text.contains("archived anything"), "{text}");
    let empty = Overview { covered: vec![], archived: 0, ..overview() };
    let text = mailed(&report(), &Details { overview: Some(empty), ..Details::default() }).text;
    assert!(text.contains("No run has archived anything yet."), "{text}");
}
