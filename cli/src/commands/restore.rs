use super::{bar, range_of};
use crate::archive::Archive;
use alerts::message::document;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use columnar::ArchivedRow;
use serde_json::json;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::Duration;

/// Bytes that are sent to an index at once.
const BULK_BYTES: usize = 4 << 20;

#[derive(Args)]
#[command(after_help = "\
Examples:
  alert-archive restore --id MSG-17 --out msg-17.json
  alert-archive restore --from 2024-07-01 --to 2024-07-02 --into-index restored-messages --rate 500
  alert-archive restore --from 2019-01-01 --to 2020-01-01 --out 2019.jsonl

Messages come back byte for byte, as the source gave them; in a file they are separated by a line feed. In an index, a
message that stands there already is left as it is: it may be a newer version. To restore again changes nothing. An index
from which the archive reads is refused, because everything in it would be looked at again.")]
pub struct Restore {
    /// One message
    #[arg(long, required_unless_present = "from", conflicts_with_all = ["from", "to"])]
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
    /// File that takes the messages; must not exist
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
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
        let (keys, range) = match &self.id {
            Some(id) => (self.keys_of(archive, id).await?, None),
            None => {
                let (from, to) = range_of(self.from.as_deref(), self.to.as_deref())?;
                (archive.parquet_keys(from, to).await?, Some((from, to)))
            }
        };
        let mut target = Target::open(archive, &self).await?;
        let progress = bar(keys.len(), "objects");
        let (mut restored, mut seen) = (0u64, HashMap::new());
        for key in &keys {
            for row in columnar::rows(archive.objects.get(key).await?)
                .with_context(|| format!("{key} is no Parquet object"))?
            {
                let row = row.with_context(|| format!("{key} is damaged"))?;
                let is_wanted = self.id.as_ref().is_none_or(|id| *id == row.identity.id)
                    && range.is_none_or(|(from, to)| from <= row.timestamp && row.timestamp < to)
                    && self.source_index.as_ref().is_none_or(|index| *index == row.identity.source_index);
                if !is_wanted {
                    continue;
                }
                ensure!(
                    document::version(&row.record.message) == row.version,
                    "{key}: message {} is not what was archived",
                    row.identity.id
                );
                if let Some(other) = seen
                    .insert(row.identity.id.clone(), row.identity.source_index.clone())
                    .filter(|_| self.into_index.is_some())
                {
                    bail!(
                        "message {} stands in {other} and in {}: one index cannot take both; choose with --source-index",
                        row.identity.id,
                        row.identity.source_index
                    );
                }
                let handed_over = target.put(row).await?;
                restored += 1;
                if let Some(rate) = self.rate {
                    // After what was handed over, not by the clock: what was slow is not made up for in a burst.
                    tokio::time::sleep(Duration::from_secs_f64(handed_over as f64 / f64::from(rate))).await;
                }
            }
            progress.inc(1);
            progress.set_message(format!("{restored} messages"));
        }
        let there = target.finish().await?;
        progress.finish_and_clear();
        let found = restored;
        restored -= there;
        if self.json {
            say!("{}", json!({"restored": restored, "already_there": there, "objects": keys.len()}));
        } else {
            say!("restored {restored} messages from {} objects", keys.len());
            if there > 0 {
                say!("{there} more stood there already and are left as they are");
            }
        }
        if found == 0 {
            eprintln!("nothing in the archive matches");
        }
        Ok(found > 0)
    }

    async fn keys_of(&self, archive: &Archive, id: &str) -> Result<Vec<String>> {
        let rows = archive.ledger.rows.partition(id).await?;
        let paths =
            rows.iter().filter_map(|row| row.s3_path.as_deref()).filter_map(|path| archive.objects.key_of(path));
        let mut keys: Vec<String> =
            paths.filter(|key| key.starts_with("archive/parquet/")).map(str::to_owned).collect();
        keys.sort();
        keys.dedup();
        if keys.is_empty() {
            bail!("message {id} is not in the archive; alert-archive find {id} tells where it is");
        }
        Ok(keys)
    }
}

enum Target {
    File(BufWriter<File>),
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
        if let Some(path) = &restore.out {
            let file = File::create_new(path).with_context(|| format!("{} cannot be created", path.display()))?;
            return Ok(Target::File(BufWriter::new(file)));
        }
        let source =
            archive.source()?.context("OPENSEARCH_URL is not set: it names the cluster that takes the messages")?;
        let index = restore.into_index.clone().unwrap_or_default();
        ensure!(
            restore.force || !source.is_read_from(&index).await?,
            "the archive reads from {index}: what is restored there would be looked at by every run; choose another index, or --force"
        );
        let most = restore.rate.map_or(usize::MAX, |rate| rate as usize);
        Ok(Target::Index { source: Box::new(source), index, batch: Vec::new(), bytes: 0, most, there: 0 })
    }

    /// Takes a message; returns how many it has handed over by that.
    async fn put(&mut self, row: ArchivedRow) -> Result<usize> {
        let message = row.record.message;
        match self {
            Target::File(file) => {
                file.write_all(&message)?;
                file.write_all(b"\n")?;
                Ok(1)
            }
            Target::Index { batch, bytes, most, .. } => {
                *bytes += message.len();
                batch.push((row.identity.id, message));
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
            Target::File(mut file) => {
                file.flush()?;
                file.get_ref().sync_all()?;
                Ok(0)
            }
            Target::Index { there, .. } => Ok(there),
        }
    }
}
