//! One build over a folder of JSON lines: rows a second, CPU and memory, as a line of JSON. bench/warehouse calls it.
//!
//! Usage: bench_build FOLDER SCHEMA     (objects lie in FOLDER/ingestion, tables come into FOLDER/warehouse)

use async_trait::async_trait;
use build_warehouse::{Deps, Event, SEGMENT_BYTES};
use bytes::Bytes;
use futures::StreamExt;
use network::Calm;
use parameters::MemoryParameters;
use runtime::{Call, SystemClock};
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use storage::{
    Algorithm, Complete, Content, Get, Head, ListPage, Listed, MemoryTables, ObjectStore, Objects, Part, PartDone, Put,
    PutEnd, StoreError, Table,
};
use warehouse_state::{BuildState, SCHEMA_KEY, Warehouse};

/// Bytes that are read at once.
const CHUNK: usize = 1 << 20;

/// Buckets that are folders, so that what is stored takes no memory.
#[derive(Clone)]
struct Folder(PathBuf);

impl Folder {
    fn path(&self, bucket: &str, key: &str) -> PathBuf {
        self.0.join(bucket).join(key)
    }
}

fn failed(operation: &'static str, bucket: &str, key: &str, error: io::Error) -> StoreError {
    let (bucket, key, message) = (bucket.to_owned(), key.to_owned(), error.to_string());
    StoreError::Unavailable { operation, bucket, key, message, source: Box::new(error) }
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { files(&path, found)? } else { found.push(path) }
    }
    Ok(())
}

#[async_trait]
impl ObjectStore for Folder {
    async fn get(&self, get: Get<'_>) -> Result<Option<Content>, StoreError> {
        use io::Read;
        let Ok(mut file) = fs::File::open(self.path(get.bucket, get.key)) else { return Ok(None) };
        let bytes = file.metadata().map_err(|error| failed("GetObject", get.bucket, get.key, error))?.len();
        let chunks = std::iter::from_fn(move || {
            let mut chunk = Vec::with_capacity(CHUNK);
            match file.by_ref().take(CHUNK as u64).read_to_end(&mut chunk) {
                Ok(0) => None,
                Ok(_) => Some(Ok(Bytes::from(chunk))),
                Err(error) => Some(Err(error)),
            }
        });
        let body = futures::stream::iter(chunks).boxed();
        Ok(Some(Content { bytes, tag: bytes.to_string(), version: None, body }))
    }

    async fn head(&self, bucket: &str, key: &str) -> Result<Option<Head>, StoreError> {
        let found = fs::metadata(self.path(bucket, key)).ok();
        Ok(found.map(|found| Head { bytes: found.len(), sha256: None }))
    }

    async fn put(&self, put: Put<'_>) -> Result<PutEnd, StoreError> {
        let path = self.path(put.bucket, put.key);
        let write = || {
            fs::create_dir_all(path.parent().unwrap_or(&self.0))?;
            fs::write(&path, &put.body)
        };
        write().map(|()| PutEnd::Stored).map_err(|error| failed("PutObject", put.bucket, put.key, error))
    }

    async fn copy(&self, bucket: &str, from: &str, to: &str) -> Result<bool, StoreError> {
        let path = self.path(bucket, to);
        let copy = || {
            fs::create_dir_all(path.parent().unwrap_or(&self.0))?;
            fs::copy(self.path(bucket, from), &path)
        };
        copy().map(|_| true).map_err(|error| failed("CopyObject", bucket, from, error))
    }

    async fn delete(&self, bucket: &str, key: &str) -> Result<(), StoreError> {
        fs::remove_file(self.path(bucket, key)).map_err(|error| failed("DeleteObject", bucket, key, error))
    }

    async fn list(&self, bucket: &str, prefix: &str, _after: Option<&str>) -> Result<ListPage, StoreError> {
        let (root, mut found) = (self.0.join(bucket), Vec::new());
        // A folder that is not there has no objects.
        let _ = files(&root.join(prefix), &mut found);
        let listed = found.into_iter().filter_map(|path| {
            let key = path.strip_prefix(&root).ok()?.to_str()?.to_owned();
            Some(Listed { key, bytes: fs::metadata(&path).ok()?.len() })
        });
        let mut objects: Vec<Listed> = listed.collect();
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(ListPage { objects, is_truncated: false })
    }

    async fn create_upload(
        &self,
        bucket: &str,
        key: &str,
        _content_type: &str,
        _algorithm: Algorithm,
    ) -> Result<String, StoreError> {
        Err(failed("CreateMultipartUpload", bucket, key, io::ErrorKind::Unsupported.into()))
    }

    async fn put_part(&self, part: Part<'_>) -> Result<PartDone, StoreError> {
        Err(failed("UploadPart", part.bucket, part.key, io::ErrorKind::Unsupported.into()))
    }

    async fn complete_upload(&self, complete: Complete<'_>) -> Result<PutEnd, StoreError> {
        Err(failed("CompleteMultipartUpload", complete.bucket, complete.key, io::ErrorKind::Unsupported.into()))
    }

    async fn abort_upload(&self, _bucket: &str, _key: &str, _upload_id: &str) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Seconds of CPU that this process has used, and its greatest resident memory in MB.
fn used() -> (f64, u64) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse().ok());
    ((ticks(11) + ticks(12)) / 100.0, peak.unwrap_or(0_u64) / 1024)
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, folder, schema] = arguments.as_slice() else { panic!("usage: bench_build FOLDER SCHEMA") };
    let (folder, tables) = (Folder(folder.into()), MemoryTables::new(Calm::shared()).table("rows", "name", None));
    let deps = Deps {
        ingestion: Objects::over(folder.clone(), "ingestion"),
        warehouse: Objects::over(folder.clone(), "warehouse"),
        archive: Objects::over(folder, "archive"),
        feeds: None,
        rows: Warehouse::new(Table::over(tables.clone(), "rows"), Table::over(tables, "rows")),
        parameters: Arc::new(MemoryParameters::default()),
        parameter_prefix: "/bench".into(),
        segment_bytes: SEGMENT_BYTES,
    };
    let schema = fs::read(schema).expect("the schema file");
    deps.warehouse.put(SCHEMA_KEY, schema, "application/yaml").await.expect("the schema file");
    let began = Instant::now();
    let call = Call::new(SystemClock::shared(), Duration::from_secs(3600));
    build_warehouse::handle(&deps, Event::default(), call).await.expect("a build");
    let seconds = began.elapsed().as_secs_f64();
    let key = deps.rows.build().await.expect("row").and_then(|row| row.state).expect("state");
    let state: BuildState = deps.warehouse.get_lines(&key).await.expect("state").pop().expect("state");
    let lines: u64 = state.sources.values().map(|source| source.rows).sum();
    let (cpu, memory) = used();
    let rows: u64 = state.tables.values().map(|table| table.rows).sum();
    println!(
        "{}",
        serde_json::json!({
            "lines": lines, "rows": rows, "seconds": seconds, "cpu_seconds": cpu, "memory_mb": memory,
        })
    );
}
