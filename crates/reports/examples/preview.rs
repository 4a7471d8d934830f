//! `cargo run -p reports --example preview -- DIR`: writes mails and pages of made-up runs, to look at: one folder a
//! state.

use alerts::counts::{AlertCounts, SourceSize};
use alerts::run::{
    grid::{Cell, CellState, Grid},
    job_run::RunStatus,
    overview::{Day, Overview},
    report::{Before, Details, Failure, OpenMessage, RunReport, Windows},
    span::Span,
    unresolved::Unresolved,
};
use identity::{Identity, instant};
use jiff::{SignedDuration, Timestamp};
use reports::dashboard::{self, Latest, ListedRun, Pipeline, Runs};
use reports::letter::Rendered;
use reports::mail::{CHART, Earlier, Links, Mail, Summary, mail};
use reports::section::{Account, Bar, Colour, Figure, Section, State, Table};
use std::path::PathBuf;
use std::{collections::BTreeMap, env, error::Error, fs};

const DAY: SignedDuration = SignedDuration::from_hours(24);

fn main() -> Result<(), Box<dyn Error>> {
    let dir = PathBuf::from(env::args().nth(1).ok_or("a folder is needed")?);
    // The page tells by the reader's clock when runs stay away.
    let now = instant::parse(&instant::date(Timestamp::now())).ok_or("no date")? + SignedDuration::from_hours(6);
    let well = healthy(now);
    let failing = failed(&well, now);
    let many: Vec<RunReport> =
        (0..400u64).map(|n| earlier(if n == 0 || n % 37 == 5 { &failing } else { &well }, n)).collect();
    let dead = RunReport {
        run_id: "scheduled-dead".into(),
        status: RunStatus::Failed,
        windows: Windows::default(),
        messages: Default::default(),
        recheck: Default::default(),
        sweep: Default::default(),
        undated: 0,
        reconciled: false,
        reported_at: None,
        failures: vec![failure(
            "",
            "SourceUnavailable",
            "OpenSearch at https://search.example.com cannot be reached to count: no answer within 30 s",
            0,
        )],
        ..well.clone()
    };
    let aside = set_aside(&many[1], now);
    for (name, runs, gaps) in [
        ("empty", vec![], 0),
        ("healthy", many[1..5].to_vec(), 0),
        ("failing", [vec![failing.clone()], many[1..9].to_vec()].concat(), 2),
        ("dead", [vec![dead], many[1..9].to_vec()].concat(), 1),
        ("set-aside", [vec![aside], many[2..5].to_vec()].concat(), 1),
        ("many", many.clone(), 3),
    ] {
        write(&dir.join(name), &runs, gaps, now)?;
    }
    println!("{}", dir.display());
    Ok(())
}

fn write(dir: &PathBuf, runs: &[RunReport], gaps: i64, now: Timestamp) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(dir)?;
    let last_completed = runs.iter().find(|run| run.status == RunStatus::Completed).map(|run| run.to);
    let listed: Vec<ListedRun> = runs.iter().map(listed).collect();
    let list = dashboard::runs(&Runs { listed: &listed, unreadable: &[], last_completed, silent_days: 8, now });
    let details = details(now, gaps);
    let ages = dashboard::age_groups((0..640).map(|n| now - SignedDuration::from_hours((n * n) % 7000)), now);
    let reported = runs.iter().find(|run| run.reported_at.is_some());
    let latest = reported.map(|report| {
        let (details, open_ages) = (&details, &ages[..]);
        dashboard::latest(&Latest { report, details, newest: report, details_of_newest: details, open_ages, now })
    });
    let pipelines = if runs.is_empty() { vec![] } else { vec![feeds()] };
    let published: Vec<Pipeline> =
        pipelines.iter().map(|section| Pipeline { name: "feeds".into(), section: section.clone() }).collect();
    fs::write(dir.join("index.html"), dashboard::page(latest.as_ref(), &list, &published, now))?;
    let Some(report) = runs.first() else { return Ok(()) };
    let links = Links {
        dashboard: Some("https://archive.example.com/dashboard/index.html".into()),
        console: Some("https://console.example.com/executions/weekly-2024-40".into()),
    };
    let none = Details::default();
    let details = if report.reported_at.is_some() { &details } else { &none };
    let listed = Earlier::read(list.to_string().as_bytes());
    let (earlier, pipelines, links) = (&listed, &pipelines, &links);
    let told = Summary { report, details, pipelines, links, earlier, died_of: None, duplicate: false, now };
    let Mail { rendered: Rendered { subject, text, html }, chart, failed_windows } = mail(&told)?;
    // A browser finds beside the page what a mail program finds in the mail.
    fs::write(dir.join("mail.html"), html.replace(&format!("cid:{CHART}"), "chart.png"))?;
    fs::write(dir.join("mail.txt"), format!("Subject: {subject}\n\n{text}"))?;
    for (name, body) in [("chart.png", chart), ("failed-windows.csv", failed_windows)] {
        if let Some(body) = body {
            fs::write(dir.join(name), body)?;
        }
    }
    Ok(())
}

/// As a run leaves its windows: those that failed are named in its report.
fn listed(report: &RunReport) -> ListedRun {
    let done = (0..report.windows.succeeded).map(|n| {
        let from = report.from + SignedDuration::from_hours(2 * n as i64);
        let to = from + SignedDuration::from_hours(2);
        let window_id = format!("{}--{}", instant::compact(from), instant::compact(to));
        let (messages, seconds) = (40 + n * 7919 % 1900, Some(4 + n * 31 % 50));
        Cell { window_id, state: CellState::Done, messages, seconds, error: None, step: None }
    });
    let failed = report.failures.iter().filter(|failure| !failure.window_id.is_empty()).map(|failure| Cell {
        window_id: failure.window_id.clone(),
        state: if failure.error == "WindowSkipped" { CellState::SetAside } else { CellState::Failed },
        messages: failure.messages,
        seconds: Some(61),
        error: Some(failure.error.clone()),
        step: failure.step.clone(),
    });
    let mut grid: Grid = if report.reported_at.is_some() { done.chain(failed).collect() } else { Grid::new() };
    grid.sort_by(|left, right| left.window_id.cmp(&right.window_id));
    let execution_arn = format!("arn:aws:states:eu-central-1:123456789012:execution:archive-alerts:{}", report.run_id);
    ListedRun { report: report.clone(), execution_arn, grid }
}

fn healthy(now: Timestamp) -> RunReport {
    let report: RunReport = serde_json::from_str(include_str!("../tests/report.json")).expect("a report");
    RunReport {
        run_id: "scheduled-20241001-20241001T060000123".into(),
        from: now - DAY * 7,
        to: now,
        started_at: Some(instant::iso(now - SignedDuration::from_mins(3))),
        reported_at: Some(instant::iso(now)),
        ..report
    }
}

fn failure(window: &str, error: &str, message: &str, messages: u64) -> Failure {
    let step = (!window.is_empty()).then(|| "query-messages".to_owned());
    let (window_id, error, message) = (window.into(), error.into(), message.into());
    Failure { window_id, error, message, messages, step, ..Failure::default() }
}

fn failed(well: &RunReport, now: Timestamp) -> RunReport {
    let window = |from: i64, length: i64| {
        let from = now - DAY * from as i32;
        format!("{}--{}", instant::compact(from), instant::compact(from + DAY * length as i32))
    };
    let mut failures: Vec<Failure> = (0..20)
        .map(|n| {
            failure(
                &window(60 - n, 1),
                "SourceUnavailable",
                "OpenSearch cannot search now (status 503): all shards failed",
                120 + n as u64,
            )
        })
        .collect();
    failures.push(failure(&window(30, 1), "CountMismatch", "1,203 documents counted, 1,201 read", 1203));
    failures.push(failure(&window(20, 2), "CountMismatch", "77 documents counted, 76 read", 77));
    let since = now - SignedDuration::from_hours(400);
    let reason = "shard 3 of messages-2024 is lost until the snapshot is restored, ticket 4711".to_owned();
    let (run_id, window_id) = ("weekly-2024-37".to_owned(), window(90, 1));
    RunReport {
        status: RunStatus::Failed,
        reconciled: false,
        windows: Windows { planned: 91, succeeded: 69, failed: 22 },
        failures,
        unresolved: vec![
            Unresolved::SkippedWindow { run_id, window_id, reason, since, left: Vec::new() },
            Unresolved::excluded(
                Identity::new("messages-2024", "MSG-20240711-0000142-9ab3f0"),
                "its history kills the function",
                since,
            ),
        ],
        ..well.clone()
    }
}

/// A run that went well, after one in which a window was skipped.
fn set_aside(well: &RunReport, now: Timestamp) -> RunReport {
    let left = vec![gap(now, 0)];
    let window_id = format!("{}--{}", instant::compact(left[0].from), instant::compact(left[0].to));
    let (run_id, reason) = ("weekly-2024-37".to_owned(), "shard 3 is lost, ticket 4711".to_owned());
    let skipped = Unresolved::SkippedWindow { run_id, window_id, reason, since: now - DAY * 17, left };
    RunReport { unresolved: vec![skipped], ..well.clone() }
}

fn gap(now: Timestamp, n: i64) -> Span {
    Span { from: now - DAY * (100 * n + 60) as i32, to: now - DAY * (100 * n + 55) as i32 }
}

fn earlier(report: &RunReport, weeks: u64) -> RunReport {
    let back = |at: Timestamp| at - DAY * 7 * weeks as i32;
    let moved = |text: &Option<String>| text.as_deref().and_then(instant::parse).map(|at| instant::iso(back(at)));
    let mut run = report.clone();
    (run.from, run.to) = (back(report.from), back(report.to));
    (run.started_at, run.reported_at) = (moved(&report.started_at), moved(&report.reported_at));
    run.run_id = format!("scheduled-{}-{}", run.to.strftime("%Y%m%d"), run.to.strftime("%Y%m%dT%H%M%S%3f"));
    run.messages.archived = 3000 + weeks * 7919 % 2200;
    run.messages.source =
        run.messages.archived + run.messages.open + run.messages.quarantined + run.messages.already_archived;
    run
}

fn details(now: Timestamp, gaps: i64) -> Details {
    let day = |n: i64| Day {
        date: instant::date(now - DAY * n as i32),
        archived: (n as u64 * 7919) % 240,
        open: if n < 200 && n % 9 == 0 { 3 } else { 0 },
        quarantined: u64::from(n % 301 == 7),
        bytes: (n as u64 * 7919) % 240 * 6_000,
        source_bytes: (n as u64 * 7919) % 240 * 25_000,
    };
    let days: Vec<Day> = (0..2557).rev().filter(|n| n % 11 != 3).map(day).collect();
    let open = |n: i64| {
        let timestamp = now - SignedDuration::from_hours(24 * (480 - 37 * n));
        OpenMessage {
            message_id: format!("MSG-{}-{n:07}-4fe29a", timestamp.strftime("%Y%m%d")),
            source_index: "messages".into(),
            timestamp,
            first_seen_open: timestamp + SignedDuration::from_hours(100),
        }
    };
    let archived = days.iter().map(|day| day.archived).sum();
    let alerts = alerts(&days);
    let overview = Overview {
        as_of: now,
        since: Some(instant::iso(now - DAY * 2557)),
        runs: 366,
        archived,
        bytes: days.iter().map(|day| day.bytes).sum(),
        in_source: SourceSize {
            messages: archived as i64,
            bytes: days.iter().map(|day| day.source_bytes as i64).sum(),
        },
        source_gb_month: None,
        open: 640,
        quarantined: 46,
        quarantine_reasons: vec![
            ("unrecognised_status".into(), 31),
            ("message_id_absent".into(), 9),
            ("unreadable_document".into(), 6),
        ],
        gaps: (0..gaps).map(|n| gap(now, n)).collect(),
        covered: vec![Span { from: now - DAY * 2557, to: now }],
        days,
        alerts,
        oldest_open: (0..10).map(open).collect(),
    };
    let before = Before {
        run_id: "scheduled-20240924".into(),
        archived: archived - 4300,
        open: 655,
        quarantined: 40,
        ..Before::default()
    };
    Details { overview: Some(overview), before: Some(before), ..Details::default() }
}

/// Two alerts a message, of severities that differ in number and of more categories than a chart tells apart.
fn alerts(days: &[Day]) -> BTreeMap<String, AlertCounts> {
    let severities = ["low", "medium", "low", "high", "medium", "low", "critical", ""];
    let mut months: BTreeMap<String, AlertCounts> = BTreeMap::new();
    let mut n = 0;
    for day in days {
        let counts = months.entry(day.date[..7].to_owned()).or_default();
        counts.messages += day.archived as i64;
        for _ in 0..2 * day.archived {
            n += 1;
            // Of twelve, the first ones come more often.
            let category = format!("category {}", (n * n % 144_u64).isqrt());
            counts.add_alert(Some(severities[n as usize % severities.len()]), Some(&category));
        }
    }
    months
}

fn feeds() -> Section {
    Section::new("Partner feeds", "the last 7 days")
        .headline(State::Attention, "2 files wait in the dead-letter queue.")
        .figures(vec![
            Figure::count("Files", 1_204).note("12 more than last week"),
            Figure::new("Size", reports::bytes(12_340_000)),
        ])
        .account(Account::new(
            "Lines read",
            5_000,
            &[("Consolidated", 4_990, Colour::Done), ("Quarantined", 10, Colour::SetAside)],
        ))
        .bars(
            "Records by partner",
            vec![Bar::count("acme", 4_000, Colour::Done), Bar::count("zeta", 990, Colour::Done)],
        )
        .table(
            Table::new("Oldest waiting", &["File", "#Minutes"])
                .rows([["alerts/acme/2024/09/30/a.jsonl.gz".into(), "12".into()]], None),
        )
        .command("Deliver them again:", vec!["alert-archive feeds replay-dlq".into()])
}
