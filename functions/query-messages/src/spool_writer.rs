use crate::Error;
use alerts::{
    keys::{index_key, records_key},
    message::entry::Entry,
    window::spool::{PAIR_BYTES, PAIR_DOCUMENTS, Record, SpoolSummary},
};
use storage::{Objects, StoreError};

/// Fills pair after pair of a spool; holds one of them, compressed.
pub struct SpoolWriter {
    objects: Objects,
    prefix: String,
    summary: SpoolSummary,
    spooled: u64,
    entries: Vec<Entry>,
    records: Option<zstd::Encoder<'static, Vec<u8>>>,
    raw: u64,
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
        SpoolWriter { objects, prefix, summary, spooled: 0, entries: Vec::new(), records: None, raw: 0 }
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

    /// Writes what is left; returns what the spool holds and the compressed bytes that this call wrote.
    pub async fn finish(mut self) -> Result<(SpoolSummary, u64), SpoolError> {
        self.flush().await?;
        Ok((self.summary, self.spooled))
    }

    async fn flush(&mut self) -> Result<(), SpoolError> {
        let Some(records) = self.records.take() else { return Ok(()) };
        let body = records.finish().map_err(SpoolError::Compress)?;
        self.spooled += body.len() as u64;
        let pair = self.summary.pairs;
        self.objects
            .put(&records_key(&self.prefix, pair), body, "application/zstd")
            .await
            .map_err(SpoolError::Store)?;
        self.objects.put_lines(&index_key(&self.prefix, pair), &self.entries).await.map_err(SpoolError::Store)?;
        self.entries.clear();
        self.raw = 0;
        self.summary.pairs += 1;
        Ok(())
    }
}
