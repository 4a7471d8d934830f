//! `cargo run -p reports --example preview_logs -- DIR`: writes mails and pages of made-up log reports, to look at: one
//! folder a state.

use identity::instant;
use jiff::{SignedDuration, Timestamp};
use logs::{DamagedFile, FileShare, Finding, LogReport, Share};
use reports::dashboard::{Pipeline, first_page};
use reports::log_errors::{letter, section};
use std::path::PathBuf;
use std::{env, error::Error, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = PathBuf::from(env::args().nth(1).ok_or("a folder is needed")?);
    let now = Timestamp::now();
    for (name, report) in [("nothing", nothing(now)), ("few", errors(now, 3)), ("many", errors(now, 100))] {
        let dir = dir.join(name);
        fs::create_dir_all(&dir)?;
        let pipeline = Pipeline { name: "logs".into(), section: section(&report) };
        fs::write(dir.join("index.html"), first_page(&[pipeline], 8, now))?;
        let mail = letter(&report, false, Some("https://archive.example.com/dashboard/index.html")).render()?;
        fs::write(dir.join("mail.html"), mail.html)?;
        fs::write(dir.join("mail.txt"), format!("Subject: {}\n\n{}", mail.subject, mail.text))?;
    }
    println!("{}", dir.display());
    Ok(())
}

fn nothing(now: Timestamp) -> LogReport {
    let (from, to) = (instant::iso(now - SignedDuration::from_hours(24)), instant::iso(now));
    LogReport { id: "scheduled".into(), from, to, ..LogReport::default() }
}

fn finding(n: u64, now: Timestamp) -> Finding {
    let kinds = [
        ("com.acme.shop.orders.internal.OrderRepositoryException", "order 483773 not stored"),
        ("TypeError", "Cannot read properties of undefined (reading '<script>alert(1)</script>')"),
        ("smtplib.SMTPServerDisconnected", "Connection unexpectedly closed: timed out"),
        ("panic", "runtime error: invalid memory address or nil pointer dereference"),
    ];
    let (exception, message) = kinds[n as usize % kinds.len()];
    let frame =
        |at: u64| format!("\tat com.acme.shop.orders.internal.OrderRepository.store(OrderRepository.java:{at})");
    Finding {
        fingerprint: format!("{n:016x}"),
        service: ["shop", "pay", "mail-sender-with-a-long-name"][n as usize % 3].into(),
        category: ["database", "program-fault", "network"][n as usize % 3].into(),
        level: "ERROR".into(),
        exception: Some(exception.into()),
        message: message.into(),
        count: 4000 / (n + 1),
        before: n * 7 % 50,
        first_seen: Some(instant::iso(now - SignedDuration::from_hours(20))),
        last_before: n.is_multiple_of(2).then(|| instant::iso(now - SignedDuration::from_hours(900))),
        object: format!("shop/2024/07/01/ip-10-0-0-{n}.eu-central-1.compute.internal-app-20240701T1000.log.gz"),
        line: 120_000 + n,
        stack: n.is_multiple_of(3).then(|| (0..20).map(frame).collect::<Vec<_>>().join("\n")),
    }
}

fn errors(now: Timestamp, kinds: u64) -> LogReport {
    let some = |from: u64, to: u64| (from..to).map(|n| finding(n, now)).collect::<Vec<_>>();
    let share = |label: &str, count, before| Share { label: label.into(), count, before };
    let file = |n: u64| FileShare { object: finding(n, now).object, count: 900 / (n + 1) };
    let hour = |n: u64| share(&instant::iso(now - SignedDuration::from_hours(24 - n as i64))[..13], n * 37 % 400, 0);
    let damage = DamagedFile { object: finding(7, now).object, error: "GzipTruncated".into(), lines: 12_345 };
    LogReport {
        entries: 48_211,
        entries_before: 1_904,
        kinds,
        by_category: vec![share("database", 40_000, 1_200), share("program-fault", 8_000, 0), share("other", 211, 704)],
        by_service: vec![share("shop", 40_000, 1_200), share("mail-sender-with-a-long-name", 8_211, 704)],
        new: some(0, kinds / 2),
        back: some(kinds / 2, kinds / 2 + 1),
        top: some(0, kinds),
        frequent: some(0, kinds.min(5)),
        worst_files: (0..kinds).map(file).collect(),
        by_hour: (0..24).map(hour).collect(),
        damaged: vec![damage],
        unread_files: vec![file(3)],
        late_entries: 17,
        late: some(2, 3),
        ..nothing(now)
    }
}
