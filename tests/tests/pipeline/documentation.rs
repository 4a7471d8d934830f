//! What the documentation tells people to type is typed here, as it stands, on a deployment. (Whether commands of other
//! programs are right is looked at by local/test_docs.py.)

use crate::{tests, warehouse};
use anyhow::{Context, Result, ensure};
use fixtures::Disposition;
use jiff::{Timestamp, ToSpan};
use pipeline_tests::{Cloud, Message, Stretch, documents::iso, runs::PATIENCE};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::process::Command;

tests![every_command_of_the_documentation_does_what_it_says];

const PAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const CLOSED: &str = r#"[{"status":"closed"}]"#;
const UNKNOWN: &str = r#"[{"status":"resolved"}]"#;

/// Lines of the documentation that call the command line, each with the exit code that its comment names.
fn told() -> Result<BTreeMap<String, i32>> {
    let docs = std::fs::read_dir(format!("{PAGES}/docs"))?.map(|page| Ok(page?.path()));
    let pages = docs.collect::<Result<Vec<_>>>()?.into_iter().filter(|page| page.extension() == Some("md".as_ref()));
    let mut lines = BTreeMap::new();
    for page in pages.chain([Path::new(PAGES).join("README.md")]) {
        let (text, mut is_shell) = (std::fs::read_to_string(&page)?, false);
        for line in text.lines().map(str::trim) {
            if line.starts_with("```") {
                is_shell = line == "```sh";
            }
            // What is cut in pieces by a pipe is read by another program.
            if is_shell && line.starts_with("alert-archive ") && !line.ends_with('|') {
                let (command, comment) = line.split_once(" # ").unwrap_or((line, ""));
                let code = comment.trim().strip_prefix("exit code ").map_or(Ok(0), str::parse)?;
                lines.insert(command.trim().to_owned(), code);
            }
        }
    }
    Ok(lines)
}

/// Types lines of the documentation, each of them once.
struct Typist<'a> {
    cloud: &'a Cloud,
    left: BTreeMap<String, i32>,
    /// What stands in capitals in the documentation, and what it is here.
    names: Vec<(&'static str, String)>,
}

impl Typist<'_> {
    /// The line must be there, and end as it says.
    async fn types(&mut self, line: &str) -> Result<()> {
        let code = self.left.get(line).copied().unwrap_or_default();
        self.ends_with(code, line).await
    }

    async fn ends_with(&mut self, code: i32, line: &str) -> Result<()> {
        self.left.remove(line).with_context(|| format!("the documentation does not tell: {line}"))?;
        let typed = self.names.iter().fold(line.to_owned(), |typed, (name, here)| typed.replace(name, here));
        let program = self.cloud.program.parent().context("a folder")?;
        let path = format!("{}:{}", program.display(), std::env::var("PATH")?);
        let mut shell = Command::new("bash");
        shell.args(["-c", &typed]).current_dir(&self.cloud.scratch).env("PATH", path).kill_on_drop(true);
        let ended = tokio::time::timeout(PATIENCE, shell.output());
        let ended = ended
            .await
            .with_context(|| format!("{typed} does not end"))?
            .with_context(|| format!("bash -c {typed}"))?;
        let (printed, said) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
        ensure!(ended.status.code() == Some(code), "{typed}: {}, not {code}\n{printed}\n{said}", ended.status);
        Ok(())
    }

    fn call(&mut self, name: &'static str, here: &str) {
        self.names.retain(|(known, _)| *known != name);
        self.names.push((name, here.to_owned()));
    }
}

fn variable(name: &str) -> Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set"))
}

fn stretch() -> Stretch {
    Stretch { year: 2024, prefix: "MSG".into() }
}

fn message(id: &str, at: &str, alerts: &str) -> Message {
    let disposition = if alerts == CLOSED { Disposition::Closed } else { Disposition::Quarantined };
    Message::with_alerts(&stretch(), id, at, alerts, disposition)
}

async fn history(cloud: &Cloud, what: &str) -> Result<()> {
    let url = format!("{}/history/{what}", cloud.opensearch_url);
    let (status, body) = cloud.http.send(hyper::Method::POST, &url, "").await?;
    ensure!(status.is_success(), "{what}: {}", String::from_utf8_lossy(&body));
    Ok(())
}

async fn every_command_of_the_documentation_does_what_it_says(cloud: &Cloud) -> Result<()> {
    let messages = [
        message("1", "2019-01-15T10:00:00Z", CLOSED),
        message("2", "2019-03-01T10:00:00Z", CLOSED),
        message("17", "2024-07-01T10:00:00Z", CLOSED),
        message("18", "2024-07-02T10:00:00Z", UNKNOWN),
        message("19", "2024-07-03T10:00:00Z", UNKNOWN),
        message("20", "2024-07-04T10:00:00Z", UNKNOWN),
        message("21", "2024-10-05T10:00:00Z", CLOSED),
        message("22", "2024-11-05T10:00:00Z", CLOSED),
    ];
    let began = Instant::now();
    cloud.load(&messages).await?;
    cloud.run("2024-07-01", "2024-08-01").await?.completed()?;
    let mut typist = Typist { cloud, left: told()?, names: Vec::new() };
    std::fs::copy(Path::new(PAGES).join("crates/reports/prices.json"), cloud.scratch.join("my-region.json"))
        .context("prices.json")?;
    for line in [
        "alert-archive run --from 2019-01-01 --to 2019-02-01 --dry-run",
        "alert-archive run --from 2019-01-01 --to 2019-02-01 --wait",
        "alert-archive run --from 2019-01-01 --to 2019-07-01 --wait",
        "alert-archive run --from 2019-01 --to 2020-01 --dry-run",
        "alert-archive run --from 2024-07 --to 2024-08 --dry-run",
        "alert-archive cost --from 2019-01 --to 2026-01",
        "alert-archive cost --from 2019-01-01 --to 2026-01-01",
        "alert-archive cost --from 2024-07 --to 2024-08 --prices my-region.json",
        "alert-archive status",
        "alert-archive watch latest",
        "alert-archive watermark",
        "alert-archive doctor",
        "alert-archive verify",
        "alert-archive verify --deep",
        "alert-archive verify --deep --repair --dry-run",
        "alert-archive find MSG-17",
        "alert-archive open --older-than 30d",
        "alert-archive restore --from 2019-01-01 --to 2020-01-01 --out 2019.jsonl --dry-run",
        "alert-archive restore --from 2019-01-01 --to 2020-01-01 --out 2019.jsonl",
        "alert-archive restore --id MSG-17 --with-history --out -",
    ] {
        typist.types(line).await?;
    }
    let restored = std::fs::read_to_string(cloud.scratch.join("2019.jsonl"))?;
    ensure!(restored.lines().count() == 2, "{restored}");

    cloud.source.create_index("restored", fixtures::load::Kind::Messages).await?;
    typist.types("alert-archive restore --from 2024-07-01 --to 2024-07-02 --into-index restored").await?;
    typist.types("alert-archive restore --from 2024-07-01 --to 2024-07-02 --into-index restored --rate 500").await?;

    // What is in quarantine; the documentation calls it MSG-17 and MSG-18. The second first: names are put in in order.
    typist.call("MSG-18", "MSG-19");
    typist.call("MSG-17", "MSG-18");
    typist.types("alert-archive quarantine").await?;
    typist.types("alert-archive quarantine show MSG-17").await?;
    typist.types("alert-archive quarantine show MSG-17 --raw > MSG-17.json").await?;
    let raw = std::fs::read(cloud.scratch.join("MSG-18.json"))?;
    ensure!(raw == messages[3].source, "{}", String::from_utf8_lossy(&raw));
    let release = "alert-archive quarantine release --reason unrecognised_status";
    typist.types(&format!("{release} --from 2024-07-01 --to 2024-08-01 --dry-run")).await?;
    // Their source has put them right.
    let closed = |message: &Message| self::message(message.name(), &iso(message.at), CLOSED);
    cloud.load(&messages[3..6].iter().map(closed).collect::<Vec<_>>()).await?;
    typist.types("alert-archive quarantine release MSG-17 MSG-18").await?;
    typist.types(release).await?;
    typist.names.clear();

    // The mishap, and the way out of it.
    history(cloud, "_close").await?;
    typist.types("alert-archive run --from 2024-10-01 --to 2024-11-01 --wait").await?;
    typist.ends_with(1, "alert-archive status latest").await?;
    history(cloud, "_open").await?;
    typist.types("alert-archive rerun latest --wait").await?;

    // A window that keeps failing.
    let failed = cloud.while_denied("spool/", async || cloud.run("2024-11-01", "2024-12-01").await).await?;
    let (run_id, window) = (failed.run_id(), failed.report["failures"][0]["window_id"].as_str());
    let window = window.with_context(|| format!("a failed window: {:#}", failed.report))?;
    typist.call("RUN", run_id);
    typist.call("WINDOW", window);
    typist.types("alert-archive skip RUN WINDOW --reason 'shard 3 is lost'").await?;
    cloud.archive(&["skip", run_id, window, "--undo"]).await?;
    typist.call("MSG-17", "MSG-22");
    typist.types("alert-archive quarantine add MSG-17 --reason 'kills its window'").await?;
    cloud.archive(&["quarantine", "release", "MSG-22"]).await?;
    cloud.redrive(run_id).await?.completed()?;
    cloud.verify(&stretch()).await?;

    cloud.set_watermark(Some(&(Timestamp::now() - 2.hours()).to_string())).await?;
    typist.types("alert-archive run --mode scheduled --catch-up").await?;
    typist.types("alert-archive purge --before 2020-01-01 --dry-run").await?;
    typist.types("alert-archive purge --before 2020-01-01 --rate 500").await?;
    let gone = cloud.archive(&["verify", "--from", "2019-01-01", "--to", "2020-01-01", "--deep", "--json"]).await?;
    ensure!(gone.well, "{:#}", gone.report);

    // A partner's file, and a week of orders.
    fixtures::feeds::put_partners(&cloud.dynamodb, &variable("ALERT_ARCHIVE_FEEDS_PARTNERS_TABLE")?).await?;
    let (bucket, key) = (variable("ALERT_ARCHIVE_FEEDS_SOURCE_BUCKET")?, "offers/acme/2026/01/02/offers.jsonl");
    cloud.s3.put_object().bucket(bucket).key(key).body(b"{\"id\":1}\n".to_vec().into()).send().await?;
    typist.call("KEY", key);
    while !cloud.archive(&["feeds", "trace", key]).await?.well {
        ensure!(began.elapsed() < 2 * PATIENCE, "{key} does not come out");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    cloud.archive(&["warehouse", "apply", warehouse::ORDERS, "--wait"]).await?;
    warehouse::script("orders.sql", &[]).await?;
    for line in [
        "alert-archive warehouse ingest --wait",
        "alert-archive warehouse status",
        "alert-archive feeds trace KEY",
        "alert-archive feeds status",
        "alert-archive feeds replay-dlq --dry-run",
        "alert-archive feeds replay-dlq",
        "alert-archive logs status",
        "alert-archive logs errors --from 2024-07-01 --to 2024-07-02",
        "alert-archive logs replay-dlq --dry-run",
        "alert-archive logs replay-dlq",
    ] {
        typist.types(line).await?;
    }
    // No log of that week is there.
    let search = "alert-archive logs search 'connection reset' --from 2024-07-01 --to 2024-07-08 --context 3";
    typist.ends_with(3, search).await?;
    ensure!(typist.left.is_empty(), "no test types these: {:#?}", typist.left.keys());
    let url = format!("{}/restored", cloud.opensearch_url);
    cloud.http.send(hyper::Method::DELETE, &url, "").await?;
    // The others count what is late, held over and set aside.
    cloud.begin_anew().await?;
    Ok(())
}
