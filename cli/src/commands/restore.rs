use super::{bar, range_of};
use crate::archive::{Archive, NotFound};
use alerts::{
    keys::PARQUET,
    message::{document, tracking::Row},
};
use anyhow::{Context, Result, bail, ensure};
use clap::{Args, builder::NonEmptyStringValueParser};
use columnar::ArchivedRow;
use jiff::Timestamp;
use reports::{bytes, count};
use serde_json::json;
use std::collections::HashMap;
use std::fs::Permissions;
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::NamedTempFile;

/// Bytes that are sent to an index at once.
const BULK_BYTES: usize = 4 << 20;

#[derive(Args)]
#[command(after_help = "\
Examples:
  alert-archive restore --id MSG-17 --out msg-17.json
  alert-archive restore --from 2024-07-01 --to 2024-07-02 --into-index restored-messages --rate 500
  alert-archive restore --from 2019-01-01 --to 2020-01-01 --out 2019.jsonl --dry-run
  alert-archive restore --id MSG-17 --with-history --out - | jq .audit

Messages come back byte for byte, as the source gave them; in a file they are separated by a line feed. A file is there
when it is whole, or not at all. In an index, a message that stands there already is left as it is: it may be a newer
version. To restore again changes nothing. An index from which the archive reads is refused, because everything in it
would be looked at again. What is about to be done is said on standard error first; --dry-run counts, and does nothing.
With --out - only messages go to standard output, and what was done is said on standard error.")]
pub struct Restore {
    /// One message
    #[arg(
        long,
        required_unless_present = "from",
        conflicts_with_all = ["from", "to"],
        value_parser = NonEmptyStringValueParser::new()
    )]
    id: Option<String>,
    /// First instant of a range of message timestamps, in UTC
    #[arg(long, value_name = "D", requires = "to")]
    from: Option<String>,
    /// End of the range, not included
    #[arg(long, value_name = "D", requires = "from")]
    to: Option<String>,
    /// Only messages of this index of the source
    #[arg(long, value_name = "NAME")]
    source_index: Option<String>,
    /// Index that takes the messages, at OPENSEARCH_URL
    #[arg(long, value_name = "NAME", required_unless_present = "out", conflicts_with = "out")]
    into_index: Option<String>,
    /// File that takes the messages, and must not exist; `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// With history and audit trail: one {"message":…,"history":[…],"audit":[…]} a message
    #[arg(long, conflicts_with = "into_index")]
    with_history: bool,
    /// Count what would be restored, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// At most so many messages a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Also into an index from which the archive reads
    #[arg(long, requires = "into_index")]
    force: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Restore {
    pub async fn call(self, archive: &Archive) -> Result<bool> {
        let target = Target::open(archive, &self).await?;
        self.restore(archive, target).await
    }

    async fn restore(&self, archive: &Archive, mut target: Target) -> Result<bool> {
        let range = match &self.id {
            Some(_) => None,
            None => Some(range_of(self.from.as_deref(), self.to.as_deref())?),
        };
        let keys = match (&self.id, range) {
            (Some(id), _) => self.keys_of(archive, id).await?,
            (None, Some((from, to))) => archive.parquet_keys(from, to).await?,
            (None, None) => Vec::new(),
        };
        eprintln!("{}", self.plan(keys.len(), range, &target));
        let progress = bar(keys.len(), "objects");
        let (mut found, mut size, mut indices) = (0u64, 0u64, HashMap::new());
        for key in &keys {
            for row in columnar::rows(archive.objects.get(key).await?)
                .with_context(|| format!("{key} is not a Parquet object"))?
            {
                let row = row.with_context(|| format!("{key} is damaged"))?;
                if !self.is_wanted(&row, range) {
                    continue;
                }
                ensure!(
                    document::version(&row.record.message) == row.version,
                    "{key}: message {} is not what was archived",
                    row.identity.id
                );
                if self.into_index.is_some() {
                    let (id, index) = (row.identity.id.clone(), row.identity.source_index.clone());
                    if let Some(other) = indices.insert(id.clone(), index.clone()) {
                        bail!(
                            "message {id} stands in {other} and in {index}: one index cannot take both; choose with \
                            --source-index"
                        );
                    }
                }
                found += 1;
                size += row.record.message.len() as u64;
                let handed_over = target.put(row).await?;
                if let Some(rate) = self.rate {
                    // After what was handed over, not by the clock: what was slow is not made up for in a burst.
                    tokio::time::sleep(Duration::from_secs_f64(handed_over as f64 / f64::from(rate))).await;
                }
            }
            progress.inc(1);
            progress.set_message(format!("{found} messages"));
        }
        let is_on_standard_output = matches!(target, Target::Stream { .. });
        let there = target.finish().await?;
        progress.finish_and_clear();
        let told = match (self.json, self.dry_run) {
            (true, true) => json!({"would_restore": found, "bytes": size, "objects": keys.len()}).to_string(),
            (true, false) => {
                json!({"restored": found - there, "already_there": there, "bytes": size, "objects": keys.len()})
                    .to_string()
            }
            (false, dry_run) => {
                let did = if dry_run { "would restore" } else { "restored" };
                let objects = count(keys.len() as u64, "object");
                let rest = if there > 0 {
                    format!("\n{there} more stood there already and are left as they are")
                } else {
                    String::new()
                };
                format!("{did} {}, {}, from {objects}{rest}", count(found - there, "message"), bytes(size))
            }
        };
        if is_on_standard_output {
            eprintln!("{told}");
        } else {
            say!("{told}");
        }
        if found == 0 {
            eprintln!("nothing in the archive matches");
        }
        Ok(found > 0)
    }

    /// What is about to be done, for a person to stop it.
    fn plan(&self, objects: usize, range: Option<(Timestamp, Timestamp)>, target: &Target) -> String {
        let what = match (&self.id, range) {
            (None, Some((from, to))) => format!("messages of {}", reports::range(from, to)),
            _ => format!("message {}", self.id.as_deref().unwrap_or_default()),
        };
        let history = if self.with_history { " with history and audit trail" } else { "" };
        let of = self.source_index.as_ref().map(|index| format!(" that stood in {index}")).unwrap_or_default();
        let objects = count(objects as u64, "object");
        let place = match target {
            Target::Nowhere => "nowhere: this is a dry run".to_owned(),
            Target::Stream { .. } => "standard output".to_owned(),
            Target::File { path, .. } => path.display().to_string(),
            Target::Index { index, .. } => format!("index {index}; what stands there already is left as it is"),
        };
        format!("{what}{of}{history}: read from {objects} of the archive, written to {place}")
    }

    fn is_wanted(&self, row: &ArchivedRow, range: Option<(Timestamp, Timestamp)>) -> bool {
        self.id.as_ref().is_none_or(|id| *id == row.identity.id)
            && range.is_none_or(|(from, to)| from <= row.timestamp && row.timestamp < to)
            && self.source_index.as_ref().is_none_or(|index| *index == row.identity.source_index)
    }

    async fn keys_of(&self, archive: &Archive, id: &str) -> Result<Vec<String>> {
        let rows = archive.ledger.rows.partition(id).await?;
        // Of a message that is in quarantine by now, an earlier version may stand in the archive.
        let objects = rows.iter().filter_map(Row::archived_object);
        let mut keys: Vec<String> = objects.filter(|key| key.starts_with(PARQUET)).map(str::to_owned).collect();
        keys.sort();
        keys.dedup();
        if keys.is_empty() {
            let told = format!(
                "message {id} is not in the archive; alert-archive find {} tells where it is",
                reports::quoted(id)
            );
            return Err(NotFound(told).into());
        }
        Ok(keys)
    }
}

enum Target {
    /// A dry run.
    Nowhere,
    /// Standard output.
    Stream { out: Box<dyn Write>, with_history: bool },
    /// A file that takes its name when it is whole.
    File { file: BufWriter<NamedTempFile>, path: PathBuf, with_history: bool },
    Index {
        source: Box<sources::OpenSearch>,
        index: String,
        batch: Vec<(String, Vec<u8>)>,
        bytes: usize,
        /// Messages that are sent at once: no more than a second may have.
        most: usize,
        /// Messages that stood in the index already.
        there: u64,
    },
}

impl Target {
    async fn open(archive: &Archive, restore: &Restore) -> Result<Self> {
        let with_history = restore.with_history;
        match &restore.out {
            _ if restore.dry_run => return Ok(Target::Nowhere),
            Some(path) if path == Path::new("-") => {
                return Ok(Target::Stream { out: Box::new(BufWriter::new(std::io::stdout())), with_history });
            }
            Some(path) => return Target::file(path, with_history),
            None => {}
        }
        let source =
            archive.source()?.context("OPENSEARCH_URL is not set: it names the cluster that takes the messages")?;
        let index = restore.into_index.clone().unwrap_or_default();
        ensure!(
            restore.force || !source.is_read_from(&index).await?,
            "the archive reads from {index}: what is restored there would be looked at by every run; choose another \
            index, or --force"
        );
        let most = restore.rate.map_or(usize::MAX, |rate| rate as usize);
        Ok(Target::Index { source: Box::new(source), index, batch: Vec::new(), bytes: 0, most, there: 0 })
    }

    fn file(path: &Path, with_history: bool) -> Result<Self> {
        ensure!(!path.exists(), "{} exists already: name another file, or remove it", path.display());
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // As any new file: what the umask of this process leaves.
        let mut builder = tempfile::Builder::new();
        let file = builder.prefix(".restoring-").permissions(Permissions::from_mode(0o666)).tempfile_in(folder);
        let file = file.with_context(|| format!("{} cannot be created", path.display()))?;
        Ok(Target::File { file: BufWriter::new(file), path: path.to_owned(), with_history })
    }

    /// Takes a message; returns how many it has handed over by that.
    async fn put(&mut self, row: ArchivedRow) -> Result<usize> {
        let record = row.record;
        let line = |out: &mut dyn Write, with_history: bool| {
            let parts = if with_history { record.json_parts() } else { vec![&record.message[..]] };
            parts.into_iter().try_for_each(|part| out.write_all(part))?;
            out.write_all(b"\n")
        };
        match self {
            Target::Nowhere => Ok(0),
            Target::Stream { out, with_history } => Ok(line(out, *with_history).map(|()| 1)?),
            Target::File { file, with_history, .. } => Ok(line(file, *with_history).map(|()| 1)?),
            Target::Index { batch, bytes, most, .. } => {
                *bytes += record.message.len();
                batch.push((row.identity.id, record.message));
                if *bytes >= BULK_BYTES || batch.len() >= *most { self.flush().await } else { Ok(0) }
            }
        }
    }

    async fn flush(&mut self) -> Result<usize> {
        let Target::Index { source, index, batch, bytes, there, .. } = self else { return Ok(0) };
        *there += source.create_documents(index, batch).await?;
        let sent = batch.len();
        batch.clear();
        *bytes = 0;
        Ok(sent)
    }

    /// Returns how many messages stood in the index already.
    async fn finish(mut self) -> Result<u64> {
        self.flush().await?;
        match self {
            Target::Nowhere => Ok(0),
            Target::Stream { mut out, .. } => {
                out.flush()?;
                Ok(0)
            }
            Target::File { file, path, .. } => {
                let file = file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
                file.as_file().sync_all()?;
                file.persist_noclobber(&path).with_context(|| format!("{} cannot be created", path.display()))?;
                Ok(0)
            }
            Target::Index { there, .. } => Ok(there),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::given::{IDS, body, given};
    use alerts::message::classification::Disposition;
    use clap::Parser;
    use std::sync::{Arc, Mutex};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        restore: Restore,
    }

    fn typed(words: &str) -> Restore {
        Line::try_parse_from(["restore"].into_iter().chain(words.split_whitespace())).expect("understood").restore
    }

    /// What standard output has taken.
    #[derive(Clone, Default)]
    struct Taken(Arc<Mutex<Vec<u8>>>);

    impl Write for Taken {
        fn write(&mut self, part: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("no panic").write(part)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    const DAY: &str = "--from 2024-07-01 --to 2024-07-02";

    #[tokio::test]
    async fn a_file_holds_each_message_byte_for_byte_and_is_never_overwritten() {
        let (world, folder) = (given().await, tempfile::tempdir().expect("a folder"));
        let path = folder.path().join("day.jsonl");
        let command = || typed(&format!("{DAY} --out {}", path.display()));
        assert!(command().call(&world.archive).await.expect("restored"));
        let whole: String = IDS.iter().map(|id| body(id) + "\n").collect();
        assert_eq!(std::fs::read_to_string(&path).expect("a file"), whole);
        let refused = command().call(&world.archive).await.expect_err("it is there").to_string();
        assert!(refused.contains("exists already"), "{refused}");
        assert_eq!(std::fs::read_to_string(&path).expect("a file"), whole);
    }

    #[tokio::test]
    async fn a_restore_that_fails_and_a_dry_run_leave_no_file() {
        let (world, folder) = (given().await, tempfile::tempdir().expect("a folder"));
        let left = || std::fs::read_dir(folder.path()).expect("a folder").count();
        let out = format!("--out {}", folder.path().join("day.jsonl").display());
        assert!(typed(&format!("{DAY} {out} --dry-run")).call(&world.archive).await.expect("counted"));
        assert_eq!(left(), 0);
        let second = world.key.replace("/date=2024-07-01/", "/date=2024-07-01/zz-");
        world.archive.objects.put(&second, &b"no Parquet"[..], "application/octet-stream").await.expect("written");
        let failed = typed(&format!("{DAY} {out}")).call(&world.archive).await.expect_err("an object is damaged");
        assert!(failed.to_string().contains("not a Parquet object"), "{failed:#}");
        assert_eq!(left(), 0);
    }

    #[tokio::test]
    async fn standard_output_takes_messages_alone_or_with_history_and_audit() {
        let world = given().await;
        for (more, expected) in [
            ("", body("b") + "\n"),
            (
                "--with-history",
                format!("{{\"message\":{},\"history\":[{{\"event\": \"opened\"}}],\"audit\":[]}}\n", body("b")),
            ),
        ] {
            let (taken, command) = (Taken::default(), typed(&format!("--id b -o - {more}")));
            let target = Target::Stream { out: Box::new(taken.clone()), with_history: command.with_history };
            assert!(command.restore(&world.archive, target).await.expect("restored"));
            assert_eq!(String::from_utf8(taken.0.lock().expect("no panic").clone()).expect("text"), expected);
        }
        let opened = Target::open(&world.archive, &typed("--id b --out -")).await.expect("a target");
        assert!(matches!(opened, Target::Stream { .. }));
    }

    #[tokio::test]
    async fn what_will_be_done_is_said_first() {
        let world = given().await;
        let range = range_of(Some("2024-07-01"), Some("2024-07-02")).expect("a range");
        let command = typed(&format!("{DAY} --source-index messages --with-history --out -"));
        let target = Target::open(&world.archive, &command).await.expect("a target");
        assert_eq!(
            command.plan(3, Some(range), &target),
            "messages of 2024-07-01 that stood in messages with history and audit trail: read from 3 objects of the \
             archive, written to standard output"
        );
        assert!(typed("--id b --out x --dry-run").plan(1, None, &Target::Nowhere).ends_with("this is a dry run"));
    }

    #[tokio::test]
    async fn the_archived_version_of_a_message_that_is_in_quarantine_by_now_comes_back_by_its_id() {
        let world = given().await;
        let rows = &world.archive.ledger.rows;
        let row = rows.get("b", Some("messages")).await.expect("read").expect("a row");
        let quarantine = world.archive.objects.uri("quarantine/date=2024-07-01/w2.r2.0000.jsonl.zst");
        let quarantined = Row {
            disposition: Disposition::Quarantined,
            archived_path: row.s3_path.clone(),
            s3_path: Some(quarantine),
            revision: row.revision + 1,
            ..row
        };
        assert!(rows.put(&quarantined).await.expect("written"));
        let taken = Taken::default();
        let target = Target::Stream { out: Box::new(taken.clone()), with_history: false };
        assert!(typed("--id b --out -").restore(&world.archive, target).await.expect("restored"));
        assert_eq!(taken.0.lock().expect("no panic").clone(), (body("b") + "\n").into_bytes());
    }

    #[tokio::test]
    async fn a_message_that_is_not_in_the_archive_is_not_found() {
        let missing = typed("--id nobody --out -").call(&given().await.archive).await.expect_err("it is not there");
        assert!(missing.is::<NotFound>(), "{missing:#}");
    }
}
