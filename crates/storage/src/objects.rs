mod memory;
mod reader;
mod s3;
mod store;
mod upload;

pub use memory::MemoryObjects;
pub use reader::ObjectReader;
pub use store::{
    Algorithm, Checksum, Complete, Condition, Content, Get, Head, ListPage, Listed, ObjectStore, Part, PartDone, Put,
    PutEnd, StoreError,
};
pub use upload::Upload;

use bytes::Bytes;
use futures::{Stream, stream};
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use std::{error::Error, ops::Range, sync::Arc, time::Duration};

/// How often a conditional write is tried again while another of the same key is under way.
const TRIES: usize = 8;

/// Objects of one bucket.
#[derive(Clone)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    bucket: String,
}

/// Some bytes of an object, and what the whole of it is.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectPart {
    pub body: Bytes,
    pub object_bytes: u64,
    pub tag: String,
}

/// The end of a write that must not overwrite.
#[derive(Clone, Debug, PartialEq)]
pub enum PutOnce {
    Created(Head),
    /// The key holds another content.
    Exists(Head),
}

impl Objects {
    pub fn new(config: &aws_config::SdkConfig, bucket: String) -> Self {
        Objects { store: Arc::new(s3::S3::new(config)), bucket }
    }

    /// Objects of a bucket of another store than S3, such as [`MemoryObjects`].
    pub fn over(store: impl ObjectStore + 'static, bucket: impl Into<String>) -> Self {
        Objects { store: Arc::new(store), bucket: bucket.into() }
    }

    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    pub fn uri(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.bucket)
    }

    /// The key of an `s3://bucket/key` of this bucket.
    pub fn key_of<'a>(&self, uri: &'a str) -> Option<&'a str> {
        uri.strip_prefix("s3://")?.strip_prefix(self.bucket.as_str())?.strip_prefix('/')
    }

    /// Begins to read an object, or one version of it, without holding it in memory.
    pub async fn open(&self, key: &str, version: Option<&str>) -> Result<ObjectReader, StoreError> {
        let opened = ObjectReader::open(self.store.clone(), &self.bucket, key, version).await?;
        opened.ok_or_else(|| self.missing(key))
    }

    pub async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.find(key).await?.ok_or_else(|| self.missing(key))
    }

    /// `None` when there is no such object.
    pub async fn find(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        Ok(self.find_versioned(key).await?.map(|(body, _)| body))
    }

    /// The object and its entity tag, for [`Objects::replace`].
    pub async fn find_versioned(&self, key: &str) -> Result<Option<(Bytes, String)>, StoreError> {
        let opened = ObjectReader::open(self.store.clone(), &self.bucket, key, None).await?;
        let Some(reader) = opened else { return Ok(None) };
        let tag = reader.tag().to_owned();
        Ok(Some((reader.collect().await?, tag)))
    }

    /// The bytes of `range`, as far as the object has them, and nothing behind them; `None` when there is no such object.
    /// `range` begins within the object. With a `tag`, another object in its place is [`StoreError::Changed`].
    pub async fn find_part(
        &self,
        key: &str,
        range: Range<u64>,
        tag: Option<&str>,
    ) -> Result<Option<ObjectPart>, StoreError> {
        let get = Get { bucket: &self.bucket, key, version: None, from: range.start, tag };
        let Some(reader) = ObjectReader::open_at(self.store.clone(), get).await? else { return Ok(None) };
        let (object_bytes, tag) = (reader.bytes(), reader.tag().to_owned());
        let body = reader.collect_next(range.end.saturating_sub(range.start)).await?;
        Ok(Some(ObjectPart { body, object_bytes, tag }))
    }

    /// `None` when there is no such object.
    pub async fn head(&self, key: &str) -> Result<Option<Head>, StoreError> {
        self.store.head(&self.bucket, key).await
    }

    /// Writes or overwrites. S3 refuses the upload when the bytes do not arrive as they were sent.
    pub async fn put(&self, key: &str, body: impl Into<Bytes>, content_type: &str) -> Result<(), StoreError> {
        let body = body.into();
        let checksum = Algorithm::Sha256.of(&body);
        self.put_checked(key, body, checksum, content_type).await
    }

    async fn put_checked(
        &self,
        key: &str,
        body: Bytes,
        checksum: Checksum,
        content_type: &str,
    ) -> Result<(), StoreError> {
        for round in 0..TRIES {
            match self.put_if(key, body.clone(), checksum, content_type, Condition::None).await? {
                PutEnd::Stored => return Ok(()),
                PutEnd::Refused | PutEnd::Conflict => self.pause(round).await,
            }
        }
        Err(self.contended(key))
    }

    /// Writes a key that does not exist yet, and looks whether it arrived. After a retry S3 returns 412 for one's own
    /// success: then the content decides. While another upload of the key is under way (409), nothing is decided yet.
    pub async fn put_once(&self, key: &str, body: Bytes, content_type: &str) -> Result<PutOnce, StoreError> {
        let checksum = Algorithm::Sha256.of(&body);
        self.put_once_checked(key, body, checksum, content_type).await
    }

    /// As [`Objects::put_once`], of a body whose sha256 is known, in hex: large bodies are hashed once.
    pub async fn put_once_hashed(
        &self,
        key: &str,
        body: Bytes,
        sha256: &str,
        content_type: &str,
    ) -> Result<PutOnce, StoreError> {
        let mut digest = [0; 32];
        hex::decode_to_slice(sha256, &mut digest).map_err(|_| self.corrupt(key, "its sha256 is none"))?;
        self.put_once_checked(key, body, Checksum::Sha256(digest), content_type).await
    }

    async fn put_once_checked(
        &self,
        key: &str,
        body: Bytes,
        checksum: Checksum,
        content_type: &str,
    ) -> Result<PutOnce, StoreError> {
        let own = Head { bytes: body.len() as u64, sha256: checksum.sha256() };
        for round in 0..TRIES {
            let end = self.put_if(key, body.clone(), checksum, content_type, Condition::Absent).await?;
            if end == PutEnd::Conflict {
                self.pause(round).await;
                continue;
            }
            match self.head(key).await? {
                Some(head) if head == own => return Ok(PutOnce::Created(head)),
                Some(head) => return Ok(PutOnce::Exists(head)),
                None if end == PutEnd::Stored => return Err(self.corrupt(key, "it is not there after its upload")),
                // It was removed between the refusal and the look.
                None => self.pause(round).await,
            }
        }
        Err(self.contended(key))
    }

    /// Overwrites the object that has entity tag `tag`; `false` when it has changed in between.
    pub async fn replace(&self, key: &str, body: Bytes, content_type: &str, tag: &str) -> Result<bool, StoreError> {
        let checksum = Algorithm::Sha256.of(&body);
        for round in 0..TRIES {
            match self.put_if(key, body.clone(), checksum, content_type, Condition::Tag(tag)).await? {
                PutEnd::Stored => return Ok(true),
                PutEnd::Refused => return Ok(false),
                PutEnd::Conflict => self.pause(round).await,
            }
        }
        Err(self.contended(key))
    }

    /// Begins to write an object whose bytes are still to come.
    pub fn upload(&self, key: &str, content_type: &str) -> Upload {
        Upload::new(self.clone(), key.to_owned(), content_type.to_owned(), Algorithm::Sha256)
    }

    /// As [`Objects::upload`], of bytes that only this caller writes under the key, and that are compared with a sha256
    /// kept elsewhere when they are read: S3 verifies them by a CRC-32.
    pub fn staged_upload(&self, key: &str, content_type: &str) -> Upload {
        Upload::new(self.clone(), key.to_owned(), content_type.to_owned(), Algorithm::Crc32)
    }

    /// Copies an object of at most 5 GB, without its bytes passing here.
    pub async fn copy(&self, from: &str, to: &str) -> Result<(), StoreError> {
        let exists = self.store.copy(&self.bucket, from, to).await?;
        if exists { Ok(()) } else { Err(self.missing(from)) }
    }

    /// Removes an object; one that is not there is removed already.
    pub async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.store.delete(&self.bucket, key).await
    }

    /// Keys under a prefix, in order.
    pub async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let (mut keys, mut after) = (Vec::new(), None);
        loop {
            let page = self.store.list(&self.bucket, prefix, after.as_deref()).await?;
            keys.extend(page.objects.into_iter().map(|object| object.key));
            if !page.is_truncated {
                return Ok(keys);
            }
            after = keys.last().cloned();
        }
    }

    /// Objects under a prefix, in order of their keys, from the one behind `after` on; a page in memory at a time.
    pub fn pages(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> impl Stream<Item = Result<Vec<Listed>, StoreError>> + Send + 'static {
        let start = Some(after.map(str::to_owned));
        let (store, bucket, prefix) = (self.store.clone(), self.bucket.clone(), prefix.to_owned());
        stream::try_unfold(start, move |position| {
            let (store, bucket, prefix) = (store.clone(), bucket.clone(), prefix.clone());
            async move {
                let Some(after) = position else { return Ok(None) };
                let page = store.list(&bucket, &prefix, after.as_deref()).await?;
                let last = page.objects.last().map(|object| object.key.clone());
                Ok(Some((page.objects, last.filter(|_| page.is_truncated).map(Some))))
            }
        })
    }

    pub async fn get_json<T: DeserializeOwned>(&self, key: &str) -> Result<T, StoreError> {
        let body = self.get(key).await?;
        serde_json::from_slice(&body).map_err(|error| self.corrupt(key, error))
    }

    /// As [`Objects::get_json`]; `None` when there is no such object.
    pub async fn find_json<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, StoreError> {
        match self.get_json(key).await {
            Ok(value) => Ok(Some(value)),
            Err(StoreError::Missing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub async fn put_json<T: Serialize>(&self, key: &str, value: &T) -> Result<(), StoreError> {
        let body = serde_json::to_vec(value).map_err(|error| self.corrupt(key, error))?;
        self.put(key, body, "application/json").await
    }

    /// Writes over what had this entity tag, or where nothing was; `false` when that has changed in between.
    pub async fn put_json_over<T: Serialize>(
        &self,
        key: &str,
        tag: Option<&str>,
        value: &T,
    ) -> Result<bool, StoreError> {
        let body = serde_json::to_vec(value).map_err(|error| self.corrupt(key, error))?;
        match tag {
            Some(tag) => self.replace(key, body.into(), "application/json", tag).await,
            None => Ok(matches!(self.put_once(key, body.into(), "application/json").await?, PutOnce::Created(_))),
        }
    }

    /// Reads zstd-compressed JSON lines.
    pub async fn get_lines<T: DeserializeOwned>(&self, key: &str) -> Result<Vec<T>, StoreError> {
        self.decode_lines(key, &self.get(key).await?)
    }

    /// As [`Objects::get_lines`]; `None` when there is no such object.
    pub async fn find_lines<T: DeserializeOwned>(&self, key: &str) -> Result<Option<Vec<T>>, StoreError> {
        self.find(key).await?.map(|body| self.decode_lines(key, &body)).transpose()
    }

    /// Decodes what [`Objects::get_lines`] would read; `key` is for the error.
    pub fn decode_lines<T: DeserializeOwned>(&self, key: &str, body: &[u8]) -> Result<Vec<T>, StoreError> {
        let body = zstd::decode_all(body).map_err(|error| self.corrupt(key, error))?;
        let lines = serde_json::Deserializer::from_slice(&body).into_iter();
        lines.collect::<Result<_, _>>().map_err(|error| self.corrupt(key, error))
    }

    /// Writes zstd-compressed JSON lines.
    pub async fn put_lines<T: Serialize>(&self, key: &str, lines: &[T]) -> Result<(), StoreError> {
        self.put(key, self.encode_lines(key, lines)?, "application/zstd").await
    }

    /// Writes zstd-compressed JSON lines to a key that does not exist yet.
    pub async fn put_lines_once<T: Serialize>(&self, key: &str, lines: &[T]) -> Result<PutOnce, StoreError> {
        self.put_once(key, self.encode_lines(key, lines)?, "application/zstd").await
    }

    fn encode_lines<T: Serialize>(&self, key: &str, lines: &[T]) -> Result<Bytes, StoreError> {
        let mut body = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut body, line).map_err(|error| self.corrupt(key, error))?;
            body.push(b'\n');
        }
        Ok(zstd::encode_all(body.as_slice(), 3).map_err(|error| self.corrupt(key, error))?.into())
    }

    pub fn corrupt(&self, key: &str, what: impl std::fmt::Display) -> StoreError {
        StoreError::Corrupt { bucket: self.bucket.clone(), key: key.into(), what: what.to_string() }
    }

    async fn put_if(
        &self,
        key: &str,
        body: Bytes,
        checksum: Checksum,
        content_type: &str,
        condition: Condition<'_>,
    ) -> Result<PutEnd, StoreError> {
        self.store.put(Put { bucket: &self.bucket, key, body, checksum, content_type, condition }).await
    }

    async fn pause(&self, round: usize) {
        self.store.wait(Duration::from_millis(50 << round.min(6))).await;
    }

    fn missing(&self, key: &str) -> StoreError {
        StoreError::Missing { bucket: self.bucket.clone(), key: key.into() }
    }

    fn contended(&self, key: &str) -> StoreError {
        StoreError::Contended { bucket: self.bucket.clone(), key: key.into(), tries: TRIES }
    }

    fn unavailable(
        &self,
        operation: &'static str,
        key: &str,
        message: &str,
        source: impl Error + Send + Sync + 'static,
    ) -> StoreError {
        let (bucket, key, message) = (self.bucket.clone(), key.to_owned(), message.to_owned());
        StoreError::Unavailable { operation, bucket, key, message, source: source.into() }
    }
}

/// The sha256 of an object's bytes, in hex.
pub fn sha256_hex(body: &[u8]) -> String {
    hex::encode(Sha256::digest(body))
}
