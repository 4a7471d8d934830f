//! What stands in the archive, as readers who know nothing of the product see it: Parquet through DuckDB,
//! everything else by decompressing it.

use crate::{Cloud, Stretch};
use anyhow::{Context, Result, ensure};
use identity::Identity;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

/// A row of a Parquet object, as `read_archive.py` prints it.
#[derive(Clone, Debug, Deserialize)]
pub struct Archived {
    pub message_id: String,
    pub source_index: String,
    pub date: String,
    /// The object's key below the folder that was read.
    pub key: String,
    pub timestamp_ms: i64,
    pub sha256: String,
    pub version: String,
    pub run_id: String,
    pub alert_count: u64,
    pub no_alerts: bool,
    pub history_count: u64,
    pub audit_count: u64,
    pub message: String,
    pub history: Vec<String>,
    pub audit: Vec<String>,
}

impl Archived {
    pub fn identity(&self) -> Identity {
        Identity::new(&self.source_index, &self.message_id)
    }
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Quarantined {
    pub source_index: String,
    pub id: String,
    pub reason: String,
    pub source_base64: String,
}

static FOLDERS: AtomicU32 = AtomicU32::new(0);

impl Cloud {
    /// Every row that DuckDB finds under `archive/parquet` in the stretch's year.
    pub async fn archived(&self, stretch: &Stretch) -> Result<Vec<Archived>> {
        self.parquet(&format!("archive/parquet/date={}-", stretch.year)).await
    }

    /// Earlier versions of replaced rows.
    pub async fn superseded(&self, stretch: &Stretch) -> Result<Vec<Archived>> {
        self.parquet(&format!("archive/superseded/date={}-", stretch.year)).await
    }

    pub async fn parquet(&self, prefix: &str) -> Result<Vec<Archived>> {
        let objects = self.get_many(self.keys(prefix).await?.into_keys()).await?;
        if objects.is_empty() {
            return Ok(Vec::new());
        }
        let folder = self.scratch.join(format!("read-{}", FOLDERS.fetch_add(1, Ordering::Relaxed)));
        for (key, body) in objects {
            let path = folder.join(key);
            std::fs::create_dir_all(path.parent().context("a key has a folder")?)?;
            std::fs::write(path, body)?;
        }
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/read_archive.py");
        let output = tokio::process::Command::new(&self.python).arg(script).arg(&folder).output().await?;
        ensure!(output.status.success(), "DuckDB cannot read {prefix}: {}", String::from_utf8_lossy(&output.stderr));
        std::fs::remove_dir_all(&folder)?;
        serde_json::from_slice(&output.stdout).context("read_archive.py")
    }

    async fn lines(&self, prefix: &str) -> Result<Vec<Vec<u8>>> {
        let mut lines = Vec::new();
        for (key, body) in self.get_many(self.keys(prefix).await?.into_keys()).await? {
            let body = zstd::decode_all(body.as_ref()).with_context(|| key.clone())?;
            ensure!(body.ends_with(b"\n"), "{key} does not end with a line break");
            lines.extend(body[..body.len() - 1].split(|byte| *byte == b'\n').map(<[u8]>::to_vec));
        }
        Ok(lines)
    }

    pub async fn quarantined(&self, stretch: &Stretch) -> Result<Vec<Quarantined>> {
        let lines = self.lines(&format!("quarantine/date={}-", stretch.year)).await?;
        lines.iter().map(|line| Ok(serde_json::from_slice(line)?)).collect()
    }

    pub async fn jsonl(&self, stretch: &Stretch) -> Result<Vec<Vec<u8>>> {
        self.lines(&format!("archive/jsonl/date={}-", stretch.year)).await
    }

    /// Per-message objects by key.
    pub async fn message_objects(&self, stretch: &Stretch) -> Result<BTreeMap<String, bytes::Bytes>> {
        self.get_many(self.keys(&format!("archive/messages/date={}-", stretch.year)).await?.into_keys()).await
    }

    /// The manifests of a run.
    pub async fn manifests(&self, run_id: &str) -> Result<Vec<Value>> {
        let keys = self.keys("archive/_commits/").await?.into_keys().filter(|key| key.contains(&format!("/{run_id}-")));
        self.get_many(keys).await?.values().map(|body| Ok(serde_json::from_slice(body)?)).collect()
    }
}
