//! The mail as a recipient gets it, taken apart again.

use alerts::run::unresolved::{Span, Unresolved};
use alerts::{
    counts::{Bytes, Messages},
    run::{
        job_run::RunStatus,
        report::{Failure, OpenMessage, Recheck, RunReport, Sweep, Windows},
    },
};
use identity::Identity;
use jiff::Timestamp;
use reports::mail::{self, Links, Rendered, Summary};

fn at(text: &str) -> Timestamp {
    text.parse().expect("an instant")
}

fn report() -> RunReport {
    RunReport {
        run_id: "weekly-2024-39".into(),
        mode: "scheduled".into(),
        from: at("2024-07-01T00:00:00Z"),
        to: at("2024-09-29T00:00:00Z"),
        status: RunStatus::Completed,
        attempt: 1,
        windows: Windows { planned: 91, succeeded: 91, failed: 0 },
        messages: Messages {
            source: 5000,
            archived: 4300,
            open: 599,
            quarantined: 46,
            already_archived: 55,
            no_alerts: 51,
        },
        recheck: Recheck { looked_at: 112, closed: 70, open: 41, gone: 1, read: 71, ..Recheck::default() },
        sweep: Sweep { late: 4, changed: 2, reopened: 1 },
        collisions: 0,
        undated: 3,
        absent: vec![],
        backlog: 640,
        bytes: Bytes { source: 127_179_533, archive: 28_400_000 },
        reconciled: true,
        failures: vec![],
        unresolved: vec![],
    }
}

fn failed() -> RunReport {
    let failure = |window: &str, error: &str, message: &str| Failure {
        window_id: window.into(),
        error: error.into(),
        message: message.into(),
    };
    RunReport {
        status: RunStatus::Failed,
        windows: Windows { planned: 91, succeeded: 89, failed: 2 },
        failures: vec![
            failure(
                "20240703T000000.000Z--20240704T000000.000Z",
                "CountMismatch",
                "1,203 documents counted, 1,201 read",
            ),
            failure("20240812T000000.000Z--20240813T000000.000Z", "SourceUnavailable", "connection refused"),
        ],
        ..report()
    }
}

fn open(id: &str, since: &str) -> OpenMessage {
    OpenMessage {
        message_id: id.into(),
        source_index: "messages".into(),
        timestamp: at(since),
        first_seen_open: at(since),
    }
}

fn sent(
    report: &RunReport,
    open: &[OpenMessage],
    reasons: &[(String, u64)],
    links: Links,
    duplicate: bool,
) -> Rendered {
    let now = at("2024-10-01T06:00:00Z");
    let summary = Summary { report, oldest_open: open, quarantine_reasons: reasons, links: &links, duplicate, now };
    mail::summary(&summary).expect("a mail")
}

fn plain(report: &RunReport) -> Rendered {
    sent(report, &[], &[], Links::default(), false)
}

#[test]
fn the_first_line_says_how_it_went() {
    for (report, first) in [
        (report(), "All went well: 4,300 messages archived, 599 still open, 46 in quarantine."),
        (
            failed(),
            "2 of 91 windows failed; the others are safe: 4,300 messages archived, 599 still open, 46 in quarantine.",
        ),
        (
            RunReport { messages: Messages { source: 5003, ..report().messages }, reconciled: false, ..report() },
            "The counts do not add up: 3 of 5,003 messages cannot be accounted for.",
        ),
        (
            RunReport { messages: Messages::default(), recheck: Recheck::default(), ..report() },
            "There was nothing to archive.",
        ),
        (
            RunReport { messages: Messages::default(), ..report() },
            "112 open messages looked at again: 70 closed since, 41 still open.",
        ),
        (
            RunReport {
                status: RunStatus::Failed,
                windows: Windows::default(),
                messages: Messages::default(),
                ..report()
            },
            "The run failed before its windows were done; nothing was lost, but it has to run again.",
        ),
        (
            RunReport { reconciled: false, ..report() },
            "The run ended, but its counts could not be confirmed: 4,300 messages archived, 599 still open, 46 in quarantine.",
        ),
    ] {
        let mail = plain(&report);
        assert_eq!(mail.text.lines().next(), Some(first));
        assert!(mail.html.contains(first), "{}", mail.html);
    }
}

#[test]
fn a_failed_window_comes_with_its_error_and_what_to_do() {
    let mail = plain(&failed());
    for part in [&mail.text, &mail.html] {
        for said in [
            "CountMismatch",
            "1,203 documents counted, 1,201 read",
            "The source changed while it was read: run the window again.",
            "20240812T000000.000Z--20240813T000000.000Z",
            "alert-archive rerun weekly-2024-39 --redrive",
        ] {
            assert!(part.contains(said), "{said} is missing in {part}");
        }
    }
    assert!(
        mail.subject.contains("Alert archive: 2 of 91 windows failed (2024-07-01 to 2024-09-28)"),
        "{}",
        mail.subject
    );
}

fn set_aside(reason: &str) -> Vec<Unresolved> {
    let since = at("2024-09-01T10:00:00Z");
    let left = vec![Span { from: at("2024-07-03T00:00:00Z"), to: at("2024-07-04T00:00:00Z") }];
    let window_id = "20240703T000000.000Z--20240704T000000.000Z".into();
    vec![
        Unresolved::SkippedWindow { run_id: "weekly-2024-36".into(), window_id, reason: reason.into(), since, left },
        Unresolved::excluded(Identity::new("messages-2024", "MSG 17"), reason, since),
    ]
}

#[test]
fn what_is_set_aside_is_told_until_it_is_resolved() {
    let mail = plain(&RunReport { unresolved: set_aside("shard 3 is lost"), ..report() });
    for part in [&mail.text, &mail.html.replace("&#x27;", "'")] {
        for said in [
            "All went well: 4,300 messages archived, 599 still open, 46 in quarantine. Set aside, to be resolved: 1 skipped window and 1 message excluded by an operator.",
            "of weekly-2024-36, for 29 days (since 2024-09-01): shard 3 is lost",
            "alert-archive skip weekly-2024-36 20240703T000000.000Z--20240704T000000.000Z --undo",
            "alert-archive quarantine release 'MSG 17' --index messages-2024",
        ] {
            assert!(part.contains(said), "{said} is missing in {part}");
        }
    }
    assert!(!plain(&report()).text.contains("SET ASIDE"));
    let hostile = plain(&RunReport { unresolved: set_aside("x\r\nBcc: a@example.com\r\n<script>"), ..report() });
    assert!(
        !hostile.html.contains("<script") && !hostile.text.lines().any(|line| line.starts_with("Bcc")),
        "{}",
        hostile.text
    );
}

#[test]
fn a_window_that_was_skipped_is_no_failed_one() {
    let skipped = Failure { error: "WindowSkipped".into(), ..failed().failures[0].clone() };
    let set_aside = vec![Unresolved::SkippedWindow {
        run_id: report().run_id,
        window_id: skipped.window_id.clone(),
        reason: "r".into(),
        since: report().to,
        left: vec![],
    }];
    let windows = Windows { planned: 91, succeeded: 90, failed: 0 };
    let mail =
        plain(&RunReport { failures: vec![skipped], unresolved: set_aside, windows, reconciled: false, ..report() });
    assert!(!mail.text.contains("FAILED WINDOWS") && mail.text.contains("SET ASIDE"), "{}", mail.text);
}

#[test]
fn many_failed_windows_are_cut_short_and_counted() {
    let failures = vec![failed().failures[0].clone(); 25];
    let mail = plain(&RunReport { failures, ..failed() });
    assert!(mail.text.contains("and 15 more") && mail.html.contains("and 15 more"));
}

#[test]
fn text_and_html_tell_the_same_counts() {
    let reasons = [("unrecognised_status".to_owned(), 31), ("message_id_absent".to_owned(), 15)];
    let mail = sent(&report(), &[open("MSG-1", "2024-01-02T00:00:00Z")], &reasons, Links::default(), false);
    let numbers = |text: &str| {
        let mut numbers: Vec<String> = text
            .split(|c: char| !(c.is_ascii_digit() || c == ','))
            .map(|word| word.trim_matches(',').to_owned())
            .filter(|word| !word.is_empty())
            .collect();
        numbers.sort();
        numbers.dedup();
        numbers
    };
    // Only what is shown: without head, tags and entities.
    let body = mail.html.split_once("<body").expect("a body").1;
    let mut shown = String::new();
    for piece in body.split('<').skip(1) {
        shown.push_str(piece.split_once('>').map_or("", |(_, text)| text));
        shown.push(' ');
    }
    let shown = shown.replace("&#9632;", "").replace("&#x27;", "'").replace("&#x2f;", "/");
    assert_eq!(numbers(&mail.text), numbers(&shown));
    for (count, label) in [
        ("4,300", "Archived"),
        ("55", "Archived earlier"),
        ("599", "Still open, held over"),
        ("46", "In quarantine"),
        ("5,000", "In the source, in all"),
    ] {
        assert!(mail.text.lines().any(|line| line.trim() == format!("{count}  {label}")), "{label}: {}", mail.text);
    }
    assert!(mail.text.contains("273 days  MSG-1"), "{}", mail.text);
}

#[test]
fn a_duplicate_says_so_everywhere() {
    let mail = sent(&report(), &[], &[], Links::default(), true);
    assert!(mail.subject.contains("[duplicate] Alert archive"));
    assert!(mail.text.starts_with("DUPLICATE:") && mail.html.contains("<strong>Duplicate:</strong>"));
    assert!(!plain(&report()).html.contains("uplicate"));
}

#[test]
fn hostile_text_changes_neither_headers_nor_lines_nor_markup() {
    let bad =
        "x\r\nBcc: thief@example.com\r\n\r\n--=_alert-archive_=\r\n<script>alert(1)</script>\"'&\u{202e}{{ 7*7 }}";
    let failure = Failure { window_id: bad.into(), error: bad.into(), message: bad.into() };
    let report = RunReport { run_id: bad.into(), mode: bad.into(), failures: vec![failure], ..failed() };
    let message = OpenMessage { message_id: bad.into(), source_index: bad.into(), ..open("", "2024-01-02T00:00:00Z") };
    let links = Links {
        dashboard: Some(format!("https://example.com/\"><script>{bad}")),
        console: Some("javascript:alert(1)".into()),
    };
    let mail = sent(&report, &[message], &[(bad.to_owned(), 1)], links, false);
    assert_eq!(mail.subject.lines().count(), 1, "{}", mail.subject);
    for part in [&mail.text, &mail.html] {
        assert!(!part.lines().any(|line| line.starts_with("Bcc") || line.starts_with("--=")), "{part}");
        assert!(!part.contains('\u{202e}') && part.contains("{{ 7*7 }}") && !part.contains("javascript:"), "{part}");
    }
    assert!(!mail.html.contains("<script") && mail.html.contains("&lt;script&gt;"), "{}", mail.html);
}

#[test]
fn unicode_reaches_the_reader_as_it_is() {
    let mail = sent(&report(), &[open("Größe-漢字-🚨", "2024-01-02T00:00:00Z")], &[], Links::default(), false);
    assert!(mail.text.contains("Größe-漢字-🚨") && mail.html.contains("Größe-漢字-🚨"));
}

#[test]
fn only_web_addresses_are_linked() {
    let links = Links {
        dashboard: Some("https://example.com/dashboard?a=1&b=2".into()),
        console: Some("ftp://example.com".into()),
    };
    let mail = sent(&report(), &[], &[], links, false);
    assert!(mail.text.contains("Dashboard: https://example.com/dashboard?a=1&b=2") && !mail.text.contains("ftp:"));
    assert!(mail.html.contains("a=1&amp;b=2"), "{}", mail.html);
}
