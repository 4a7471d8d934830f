use crate::Error;
use alerts::{
    keys::{index_key, records_key},
    message::entry::Entry,
    window::spool::{PAIR_BYTES, PAIR_DOCUMENTS, Record, SpoolSummary},
};
use errors::describe;
use std::mem;
use storage::{Objects, StoreError};
use tokio::task::JoinSet;

/// Fills pair after pair of a spool, and uploads each while the next one is filled; holds these two, compressed.
pub struct SpoolWriter {
    objects: Objects,
    prefix: String,
    summary: SpoolSummary,
    spooled: u64,
    entries: Vec<Entry>,
    records: Option<zstd::Encoder<'static, Vec<u8>>>,
    raw: u64,
    /// The upload of the pair that was filled last. It ends with the writer: what is dropped uploads nothing more.
    under_way: JoinSet<Result<(), StoreError>>,
}

pub enum SpoolError {
    Store(StoreError),
    Compress(std::io::Error),
}

impl SpoolError {
    pub fn of(self, window_id: &str) -> Error {
        match self {
            SpoolError::Store(error) => Error::Store(error),
            SpoolError::Compress(source) => Error::Compress { window_id: window_id.to_owned(), source },
        }
    }
}

impl SpoolWriter {
    /// Goes on behind what `summary` says is there.
    pub fn new(objects: Objects, prefix: String, summary: SpoolSummary) -> Self {
        SpoolWriter {
            objects,
            prefix,
            summary,
            spooled: 0,
            entries: Vec::new(),
            records: None,
            raw: 0,
            under_way: JoinSet::new(),
        }
    }

    /// Counts documents that an earlier window owns.
    pub fn skip(&mut self, documents: u64) {
        self.summary.foreign += documents;
    }

    pub async fn push(
        &mut self,
        entry: Entry,
        message: &[u8],
        history: &[impl AsRef<[u8]>],
        audit: &[impl AsRef<[u8]>],
    ) -> Result<(), SpoolError> {
        if self.records.is_none() {
            self.records = Some(zstd::Encoder::new(Vec::new(), 1).map_err(SpoolError::Compress)?);
        }
        if let Some(records) = &mut self.records {
            Record::encode(message, history, audit, records).map_err(SpoolError::Compress)?;
        }
        let related: usize = history.iter().map(|body| body.as_ref().len()).sum::<usize>()
            + audit.iter().map(|body| body.as_ref().len()).sum::<usize>();
        self.raw += entry.bytes + related as u64;
        self.summary.documents += 1;
        self.summary.bytes += entry.bytes;
        self.entries.push(entry);
        if self.raw >= PAIR_BYTES || self.entries.len() >= PAIR_DOCUMENTS { self.flush().await } else { Ok(()) }
    }

    /// Writes what is left; returns what the spool holds, all of it stored, and the compressed bytes that this call
    /// wrote.
    pub async fn finish(mut self) -> Result<(SpoolSummary, u64), SpoolError> {
        self.flush().await?;
        self.stored().await?;
        Ok((self.summary, self.spooled))
    }

    /// Ends what failed elsewhere. The next call of this attempt may write the same keys: nothing may arrive behind it.
    pub async fn leave(mut self) {
        if let Err(SpoolError::Store(error)) = self.stored().await {
            tracing::warn!(error = describe(&error), "a pair of a spool that is left was not stored");
        }
    }

    /// Begins to upload the pair that was filled, when the one before it is stored.
    async fn flush(&mut self) -> Result<(), SpoolError> {
        let Some(records) = self.records.take() else { return Ok(()) };
        let body = records.finish().map_err(SpoolError::Compress)?;
        let bytes = body.len() as u64;
        self.stored().await?;
        let (objects, entries) = (self.objects.clone(), mem::take(&mut self.entries));
        let pair = self.summary.pairs;
        let (records, index) = (records_key(&self.prefix, pair), index_key(&self.prefix, pair));
        self.under_way.spawn(async move {
            objects.put(&records, body, "application/zstd").await?;
            objects.put_lines(&index, &entries).await
        });
        self.spooled += bytes;
        self.raw = 0;
        self.summary.pairs += 1;
        // A large document is a pair of its own: two of them at once may be more than the function has.
        if bytes > PAIR_BYTES { self.stored().await } else { Ok(()) }
    }

    /// Waits for the pair that is under way.
    async fn stored(&mut self) -> Result<(), SpoolError> {
        let Some(ended) = self.under_way.join_next().await else { return Ok(()) };
        let ended = ended.unwrap_or_else(|error| {
            Err(StoreError::Unavailable {
                operation: "PutObject",
                bucket: self.objects.bucket().to_owned(),
                key: self.prefix.clone(),
                message: "its task ended".to_owned(),
                source: error.into(),
            })
        });
        ended.map_err(SpoolError::Store)
    }
}
