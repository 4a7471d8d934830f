use super::store::{Content, Get, ObjectStore};
use crate::StoreError;
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use std::{io, sync::Arc, time::Duration};
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;

/// How often in a row a connection may break without a single byte more.
const TRIES: u32 = 6;

/// The bytes of one object, piece by piece; never all of them. Where a connection breaks, the next one goes on at the
/// byte behind the last, of the very same object: another that has come into its place is [`StoreError::Changed`].
pub struct ObjectReader {
    store: Arc<dyn ObjectStore>,
    bucket: String,
    key: String,
    content: Content,
    position: u64,
}

impl ObjectReader {
    pub(super) async fn open(
        store: Arc<dyn ObjectStore>,
        bucket: &str,
        key: &str,
        version: Option<&str>,
    ) -> Result<Option<Self>, StoreError> {
        Self::open_at(store, Get { bucket, key, version, from: 0, tag: None }).await
    }

    pub(super) async fn open_at(store: Arc<dyn ObjectStore>, get: Get<'_>) -> Result<Option<Self>, StoreError> {
        let found = store.get(get).await?;
        let (bucket, key, position) = (get.bucket.to_owned(), get.key.to_owned(), get.from);
        Ok(found.map(|content| ObjectReader { store, bucket, key, content, position }))
    }

    /// Size of the whole object.
    pub fn bytes(&self) -> u64 {
        self.content.bytes
    }

    /// The entity tag, for [`Objects::replace`](crate::Objects::replace).
    pub fn tag(&self) -> &str {
        &self.content.tag
    }

    /// The version that is read, in a bucket with versions.
    pub fn version(&self) -> Option<&str> {
        self.content.version.as_deref()
    }

    /// The next bytes; `None` at the end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, StoreError> {
        let mut tries = 0;
        loop {
            let broken = match self.content.body.next().await {
                Some(Ok(piece)) if piece.is_empty() => continue,
                Some(Ok(piece)) => {
                    self.position += piece.len() as u64;
                    return Ok(Some(piece));
                }
                None if self.position == self.content.bytes => return Ok(None),
                None => io::Error::from(io::ErrorKind::UnexpectedEof),
                // All bytes are here, and S3's checksum of them is another.
                Some(Err(error)) if self.position == self.content.bytes => {
                    let (bucket, key) = (self.bucket.clone(), self.key.clone());
                    return Err(StoreError::Corrupt { bucket, key, what: error.to_string() });
                }
                Some(Err(error)) => error,
            };
            if tries == TRIES {
                return Err(self.unavailable(broken));
            }
            self.store.wait(Duration::from_millis(100 << tries)).await;
            tries += 1;
            self.reopen().await?;
        }
    }

    async fn reopen(&mut self) -> Result<(), StoreError> {
        let changed = || StoreError::Changed { bucket: self.bucket.clone(), key: self.key.clone() };
        let version = self.content.version.clone();
        let get = Get {
            bucket: &self.bucket,
            key: &self.key,
            version: version.as_deref(),
            from: self.position,
            tag: Some(&self.content.tag),
        };
        let content = self.store.get(get).await?.ok_or_else(changed)?;
        if content.bytes != self.content.bytes {
            return Err(changed());
        }
        self.content = content;
        Ok(())
    }

    fn unavailable(&self, source: io::Error) -> StoreError {
        let message = format!("the connection broke {TRIES} times at byte {} of {}", self.position, self.content.bytes);
        let (bucket, key) = (self.bucket.clone(), self.key.clone());
        StoreError::Unavailable { operation: "GetObject", bucket, key, message, source: source.into() }
    }

    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, StoreError>> + Send + 'static {
        stream::try_unfold(self, |mut reader| async move { Ok(reader.chunk().await?.map(|piece| (piece, reader))) })
    }

    /// As a reader of bytes; a [`StoreError`] is the source of its errors.
    pub fn into_read(self) -> impl AsyncRead + Send + Unpin + 'static {
        StreamReader::new(self.into_stream().map_err(io::Error::other).boxed())
    }

    /// The next `bytes` of the object, or all that is left of it; what lies behind them is not fetched.
    pub(super) async fn collect_next(mut self, bytes: u64) -> Result<Bytes, StoreError> {
        let mut next = BytesMut::new();
        while (next.len() as u64) < bytes {
            let Some(piece) = self.chunk().await? else { break };
            next.extend_from_slice(&piece);
        }
        next.truncate(usize::try_from(bytes).unwrap_or(usize::MAX));
        Ok(next.freeze())
    }

    /// The whole object in memory.
    pub async fn collect(mut self) -> Result<Bytes, StoreError> {
        let Some(first) = self.chunk().await? else { return Ok(Bytes::new()) };
        if first.len() as u64 == self.bytes() {
            // The end, and with it the checksum.
            self.chunk().await?;
            return Ok(first);
        }
        let mut whole = BytesMut::with_capacity(self.bytes() as usize);
        whole.extend_from_slice(&first);
        while let Some(piece) = self.chunk().await? {
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }
}
