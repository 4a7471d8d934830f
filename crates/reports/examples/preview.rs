//! `cargo run -p reports --example preview -- DIR`: writes a mail and a dashboard of made-up runs, to look at.

use alerts::run::unresolved::Unresolved;
use alerts::run::{
    job_run::RunStatus,
    report::{Failure, OpenMessage, RunReport, Windows},
};
use identity::Identity;
use jiff::{SignedDuration, Timestamp};
use reports::dashboard::{self, Latest};
use reports::mail::{self, Links, Summary};
use std::path::PathBuf;
use std::{env, error::Error, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = PathBuf::from(env::args().nth(1).ok_or("a folder is needed")?);
    let now: Timestamp = "2024-10-01T06:00:00Z".parse()?;
    let well: RunReport = serde_json::from_str(include_str!("../tests/report.json"))?;
    let mut failed = RunReport {
        run_id: "weekly-2024-40".into(),
        status: RunStatus::Failed,
        windows: Windows { planned: 91, succeeded: 89, failed: 2 },
        ..well.clone()
    };
    for (day, error, message) in [
        ("03", "CountMismatch", "1,203 documents counted, 1,201 read"),
        ("12", "SourceUnavailable", "no answer within 30 s"),
    ] {
        failed.failures.push(Failure {
            window_id: format!("202407{day}T000000.000Z--202407{day}T120000.000Z"),
            error: error.into(),
            message: message.into(),
        });
    }
    let since = now - SignedDuration::from_hours(400);
    let window_id = "20240604T000000.000Z--20240605T000000.000Z".to_owned();
    let reason = "shard 3 of messages-2024 is lost until the snapshot is restored, ticket 4711".to_owned();
    failed.unresolved = vec![
        Unresolved::SkippedWindow { run_id: "weekly-2024-37".into(), window_id, reason, since, left: Vec::new() },
        Unresolved::excluded(
            Identity::new("messages-2024", "MSG-20240711-0000142-9ab3f0"),
            "its history kills the function, see ticket 4712",
            since,
        ),
    ];
    let open: Vec<OpenMessage> = (0..12)
        .map(|n| {
            let timestamp = now - SignedDuration::from_hours(24 * (480 - 37 * n));
            OpenMessage {
                message_id: format!("MSG-{}-{n:07}-4fe29a", timestamp.strftime("%Y%m%d")),
                source_index: "messages".into(),
                timestamp,
                first_seen_open: timestamp + SignedDuration::from_hours(100),
            }
        })
        .collect();
    let reasons = [
        ("unrecognised_status".to_owned(), 31),
        ("message_id_absent".to_owned(), 9),
        ("unreadable_document".to_owned(), 6),
    ];
    let links = Links {
        dashboard: Some("https://archive.example.com/dashboard/index.html".into()),
        console: Some("https://console.example.com/executions/weekly-2024-40".into()),
    };

    fs::create_dir_all(dir.join("data"))?;
    for (name, report, duplicate) in [("well", &well, false), ("failed", &failed, true)] {
        let summary =
            Summary { report, oldest_open: &open, quarantine_reasons: &reasons, links: &links, duplicate, now };
        let rendered = mail::summary(&summary)?;
        fs::write(dir.join(format!("{name}.txt")), format!("{}\n\n{}", rendered.subject, rendered.text))?;
        fs::write(dir.join(format!("{name}.html")), rendered.html)?;
    }
    let mut runs = vec![failed.clone()];
    for n in 0..26u64 {
        let mut run = RunReport { run_id: format!("weekly-2024-{:02}", 39 - n), ..well.clone() };
        let earlier = SignedDuration::from_hours(24 * 7 * n as i64);
        (run.from, run.to) = (run.to - earlier - SignedDuration::from_hours(168), run.to - earlier);
        run.messages.archived = 3000 + n * 7919 % 2200;
        run.messages.source =
            run.messages.archived + run.messages.open + run.messages.quarantined + run.messages.already_archived;
        runs.push(run);
    }
    let months: Vec<(String, u64)> = (1..=9).map(|n| (format!("2024-{n:02}"), 9000 + n * 4801 % 7000)).collect();
    let open_ages = dashboard::age_groups((0..640).map(|n| now - SignedDuration::from_hours((n * n) % 7000)), now);
    let latest = Latest {
        report: &failed,
        oldest_open: &open,
        open_ages: &open_ages,
        quarantine_reasons: &reasons,
        archived_by_month: &months,
        now,
    };
    fs::write(dir.join("index.html"), dashboard::page())?;
    fs::write(dir.join("data/latest.json"), dashboard::latest(&latest).to_string())?;
    fs::write(dir.join("data/runs.json"), dashboard::runs(&runs, &[], now).to_string())?;
    println!("{}", dir.display());
    Ok(())
}
