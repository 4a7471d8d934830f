//! The function over a folder instead of S3, for `make bench-feeds`: every line is checked, packed, hashed, staged and
//! written as in Lambda; only the network is missing.
//!
//! Usage: bench_consolidate FOLDER OUT     (files of FOLDER become objects in OUT)

use async_trait::async_trait;
use bytes::Bytes;
use consolidate_feeds::{Deps, Limits, Partners, handle};
use feeds::Format;
use futures::{StreamExt, stream};
use network::Calm;
use runtime::{Call, SystemClock};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use storage::{
    Algorithm, Complete, Condition, Content, Get, Head, ListPage, MemoryTables, ObjectStore, Objects, Part, PartDone,
    Put, PutEnd, StoreError, Table,
};

/// Messages of a call, as with a large batch size.
const BATCH: usize = 500;
const PIECE: usize = 256 << 10;
/// As [`storage::Upload`] cuts them.
const PART: u64 = 8 << 20;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [folder, out] = &arguments[..] else { return Err("two folders are needed: FOLDER OUT".into()) };
    let disk = Disk { source: folder.clone(), out: out.clone(), heads: Arc::default() };
    for bucket in ["feeds", "archive"] {
        fs::create_dir_all(out.join(bucket))?;
    }
    let tables = MemoryTables::new(Calm::shared()).table("files", "object", Some("version"));
    let tables = tables.table("batches", "batch", None).table("partners", "content_type", None);
    let partners: Table<feeds::Rules> = Table::over(tables.clone(), "partners");
    partners.put(&feeds::Rules { content_type: "offers".into(), ..feeds::Rules::default() }).await?;
    let deps = Deps {
        source: Objects::over(disk.clone(), "source"),
        feeds: Objects::over(disk.clone(), "feeds"),
        archive: Objects::over(disk, "archive"),
        files: Table::over(tables.clone(), "files"),
        batches: Table::over(tables.clone(), "batches"),
        numbers: Table::over(tables, "batches"),
        partners: Partners::new(partners),
        format: Format::Plain,
        limits: Limits::default(),
    };
    let mut files: Vec<(String, u64)> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        files.push((entry.file_name().to_string_lossy().into_owned(), entry.metadata()?.len()));
    }
    files.sort();
    for batch in files.chunks(BATCH) {
        let messages: Vec<Value> = batch.iter().enumerate().map(message).collect();
        let batch = serde_json::from_value(json!({"Records": messages}))?;
        let response = handle(&deps, batch, Call::new(SystemClock::shared(), Duration::from_secs(900))).await?;
        if response != events::sqs::BatchResponse::default() {
            return Err(format!("{response:?}").into());
        }
    }
    Ok(())
}

fn message((at, (name, bytes)): (usize, &(String, u64))) -> Value {
    let object =
        json!({"key": format!("offers/acme/2026/11/21/{name}"), "size": bytes, "versionId": "v1", "eTag": name});
    let record = json!({
        "eventVersion": "2.1", "eventSource": "aws:s3", "eventName": "ObjectCreated:Put",
        "eventTime": "2026-11-21T06:00:00Z", "s3": {"bucket": {"name": "source"}, "object": object},
    });
    json!({"messageId": at.to_string(), "body": json!({"Records": [record]}).to_string()})
}

/// Objects as files; keys are those of this program.
#[derive(Clone)]
struct Disk {
    source: PathBuf,
    out: PathBuf,
    /// What S3 keeps beside an object.
    heads: Arc<Mutex<HashMap<PathBuf, Head>>>,
}

impl Disk {
    fn path(&self, bucket: &str, key: &str) -> PathBuf {
        match bucket {
            "source" => self.source.join(key.rsplit('/').next().unwrap_or(key)),
            bucket => self.out.join(bucket).join(key.replace('/', "|")),
        }
    }

    fn upload(&self, id: &str) -> PathBuf {
        self.out.join(id)
    }

    fn heads(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, Head>> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failed(operation: &'static str, path: &Path, error: io::Error) -> StoreError {
    let (bucket, key, message) = (String::new(), path.display().to_string(), error.to_string());
    StoreError::Unavailable { operation, bucket, key, message, source: error.into() }
}

#[async_trait]
impl ObjectStore for Disk {
    async fn get(&self, get: Get<'_>) -> Result<Option<Content>, StoreError> {
        let path = self.path(get.bucket, get.key);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("GetObject", &path, error)),
        };
        let bytes = file.metadata().map_err(|error| failed("GetObject", &path, error))?.len();
        let body = stream::unfold(file, move |mut file| async move {
            let mut piece = vec![0; PIECE.min(bytes as usize + 1)];
            match file.read(&mut piece) {
                Ok(0) => None,
                Ok(read) => {
                    piece.truncate(read);
                    Some((Ok(Bytes::from(piece)), file))
                }
                Err(error) => Some((Err(error), file)),
            }
        });
        Ok(Some(Content { bytes, tag: String::new(), version: get.version.map(str::to_owned), body: body.boxed() }))
    }

    async fn head(&self, bucket: &str, key: &str) -> Result<Option<Head>, StoreError> {
        Ok(self.heads().get(&self.path(bucket, key)).cloned())
    }

    async fn put(&self, put: Put<'_>) -> Result<PutEnd, StoreError> {
        let path = self.path(put.bucket, put.key);
        if put.condition == Condition::Absent && path.exists() {
            return Ok(PutEnd::Refused);
        }
        let sha256 = put.checksum.sha256();
        fs::write(&path, &put.body).map_err(|error| failed("PutObject", &path, error))?;
        self.heads().insert(path, Head { bytes: put.body.len() as u64, sha256 });
        Ok(PutEnd::Stored)
    }

    async fn copy(&self, bucket: &str, from: &str, to: &str) -> Result<bool, StoreError> {
        let path = self.path(bucket, from);
        fs::copy(&path, self.path(bucket, to)).map(|_| true).map_err(|error| failed("CopyObject", &path, error))
    }

    async fn delete(&self, bucket: &str, key: &str) -> Result<(), StoreError> {
        let path = self.path(bucket, key);
        fs::remove_file(&path).map_err(|error| failed("DeleteObject", &path, error))
    }

    async fn list(&self, _: &str, _: &str, _: Option<&str>) -> Result<ListPage, StoreError> {
        Ok(ListPage::default())
    }

    async fn create_upload(&self, _: &str, key: &str, _: &str, _: Algorithm) -> Result<String, StoreError> {
        Ok(format!("upload-{}", key.replace('/', "|")))
    }

    async fn put_part(&self, part: Part<'_>) -> Result<PartDone, StoreError> {
        let path = self.upload(part.upload_id);
        let file = File::options().create(true).write(true).truncate(false).open(&path);
        let written = file.and_then(|file| file.write_all_at(part.body, (part.number as u64 - 1) * PART));
        written.map_err(|error| failed("UploadPart", &path, error))?;
        Ok(PartDone { number: part.number, tag: String::new(), checksum: part.checksum })
    }

    async fn complete_upload(&self, complete: Complete<'_>) -> Result<PutEnd, StoreError> {
        let (from, to) = (self.upload(complete.upload_id), self.path(complete.bucket, complete.key));
        fs::rename(&from, &to).map_err(|error| failed("CompleteMultipartUpload", &to, error))?;
        Ok(PutEnd::Stored)
    }

    async fn abort_upload(&self, _: &str, _: &str, _: &str) -> Result<(), StoreError> {
        Ok(())
    }
}
