use super::store::{
    Algorithm, Checksum, Complete, Condition, Content, Get, Head, ListPage, Listed, ObjectStore, Part, PartDone, Put,
    PutEnd,
};
use crate::StoreError;
use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use network::{Answer, Broken, Network, Request, through};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    io,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Keys of one page of a list, as S3 has it.
const LIST_PAGE: usize = 1000;
/// S3 refuses smaller parts, other than the last.
const LEAST_PART: usize = 5 << 20;

/// S3 in memory, for unit tests and simulations: entity tags, versions, conditional writes with 409 and 412, pages,
/// multipart uploads. Clones share the buckets; each may have a [`Network`] of its own.
#[derive(Clone)]
pub struct MemoryObjects {
    buckets: Arc<Mutex<BTreeMap<String, Bucket>>>,
    network: Arc<dyn Network>,
    list_page: usize,
    chunk: usize,
}

#[derive(Clone, Default)]
struct Bucket {
    has_versions: bool,
    /// Newest last.
    keys: BTreeMap<String, Vec<Version>>,
    uploads: BTreeMap<String, Parts>,
    /// Grows with each change; numbers versions and uploads.
    changes: u64,
}

#[derive(Clone)]
struct Version {
    id: String,
    /// `None`: a delete marker.
    body: Option<Bytes>,
    tag: String,
    sha256: Option<String>,
}

#[derive(Clone)]
struct Parts {
    key: String,
    algorithm: Algorithm,
    bodies: BTreeMap<i32, Bytes>,
}

impl Bucket {
    fn newest(&self, key: &str) -> Option<&Version> {
        self.keys.get(key)?.last().filter(|version| version.body.is_some())
    }

    /// What changes whenever the key does, also when the bytes are the same again.
    fn state_of(&self, key: &str) -> Option<String> {
        self.keys.get(key)?.last().map(|version| version.id.clone())
    }

    fn write(&mut self, key: &str, body: Option<Bytes>, sha256: Option<String>) {
        self.changes += 1;
        // The same bytes have the same entity tag, as with MD5.
        let digest = body.as_deref().map(crate::sha256_hex).unwrap_or_default();
        let tag = format!("\"{}\"", &digest[..digest.len().min(32)]);
        let version = Version { id: format!("v{:08}", self.changes), body, tag, sha256 };
        let versions = self.keys.entry(key.to_owned()).or_default();
        if !self.has_versions {
            versions.clear();
        }
        versions.push(version);
    }

    /// `None`: the condition holds.
    fn refusal(&self, key: &str, condition: Condition<'_>, begun: &Option<String>) -> Option<PutEnd> {
        if condition != Condition::None && self.state_of(key) != *begun {
            return Some(PutEnd::Conflict);
        }
        let holds = match condition {
            Condition::None => true,
            Condition::Absent => self.newest(key).is_none(),
            Condition::Tag(tag) => self.newest(key).is_some_and(|version| version.tag == tag),
        };
        (!holds).then_some(PutEnd::Refused)
    }
}

impl MemoryObjects {
    pub fn new(network: Arc<dyn Network>) -> Self {
        MemoryObjects { buckets: Arc::default(), network, list_page: LIST_PAGE, chunk: 64 << 10 }
    }

    pub fn bucket(self, name: &str) -> Self {
        self.buckets().insert(name.to_owned(), Bucket::default());
        self
    }

    pub fn bucket_with_versions(self, name: &str) -> Self {
        self.buckets().insert(name.to_owned(), Bucket { has_versions: true, ..Bucket::default() });
        self
    }

    /// The same buckets, seen through another network.
    pub fn through(&self, network: Arc<dyn Network>) -> Self {
        MemoryObjects { network, ..self.clone() }
    }

    /// A copy of the buckets, which goes its own way from here on.
    pub fn copied(&self) -> Self {
        MemoryObjects { buckets: Arc::new(Mutex::new(self.buckets().clone())), ..self.clone() }
    }

    /// So many keys a page of a list, instead of 1000.
    pub fn with_list_pages_of(self, keys: usize) -> Self {
        MemoryObjects { list_page: keys, ..self }
    }

    /// So many bytes a piece of a body.
    pub fn with_chunks_of(self, bytes: usize) -> Self {
        MemoryObjects { chunk: bytes, ..self }
    }

    /// All keys of a bucket and their bytes, without a request.
    pub fn contents(&self, bucket: &str) -> BTreeMap<String, Bytes> {
        let buckets = self.buckets();
        let keys = buckets.get(bucket).into_iter().flat_map(|bucket| &bucket.keys);
        keys.filter_map(|(key, versions)| Some((key.clone(), versions.last()?.body.clone()?))).collect()
    }

    /// Multipart uploads of a bucket that are neither completed nor aborted.
    pub fn unfinished_uploads(&self, bucket: &str) -> usize {
        self.buckets().get(bucket).map_or(0, |bucket| bucket.uploads.len())
    }

    /// Removes all keys under a prefix without a request, as a lifecycle rule does.
    pub fn expire(&self, bucket: &str, prefix: &str) {
        if let Some(bucket) = self.buckets().get_mut(bucket) {
            bucket.keys.retain(|key, _| !key.starts_with(prefix));
        }
    }

    fn buckets(&self) -> MutexGuard<'_, BTreeMap<String, Bucket>> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(
        &self,
        operation: &'static str,
        bucket: &str,
        key: &str,
        work: impl FnOnce(&mut Bucket) -> T,
    ) -> Result<T, StoreError> {
        let missing = || StoreError::BucketMissing { operation, bucket: bucket.to_owned(), key: key.to_owned() };
        self.buckets().get_mut(bucket).map(work).ok_or_else(missing)
    }

    async fn request<T: Send>(
        &self,
        operation: &'static str,
        bucket: &str,
        key: &str,
        work: impl Fn(&mut Bucket) -> T + Send + Sync,
    ) -> Result<T, StoreError> {
        let request = Request { service: "s3", operation, subject: format!("{bucket}/{key}") };
        let answer = through(&*self.network, &request, || self.with(operation, bucket, key, &work)).await;
        answer.map_err(|broken| unavailable(operation, bucket, key, broken))?
    }

    /// A write that needs time to arrive: a change of its key meanwhile makes it a conflict, when it has a condition.
    async fn write(
        &self,
        operation: &'static str,
        bucket: &str,
        key: &str,
        condition: Condition<'_>,
        work: impl Fn(&mut Bucket) -> Result<PutEnd, StoreError> + Send,
    ) -> Result<PutEnd, StoreError> {
        let request = Request { service: "s3", operation, subject: format!("{bucket}/{key}") };
        loop {
            let begun = self.with(operation, bucket, key, |bucket| bucket.state_of(key))?;
            let sent = self.network.sent(&request).await;
            sent.map_err(|broken| unavailable(operation, bucket, key, broken))?;
            let end = self.with(operation, bucket, key, |bucket| match bucket.refusal(key, condition, &begun) {
                Some(refusal) => Ok(refusal),
                None => work(bucket),
            })?;
            match self.network.answered(&request).await {
                Answer::Arrives => return end,
                Answer::IsLost => return Err(unavailable(operation, bucket, key, Broken)),
                Answer::IsLostAndRetried => {}
            }
        }
    }
}

#[async_trait]
impl ObjectStore for MemoryObjects {
    async fn get(&self, get: Get<'_>) -> Result<Option<Content>, StoreError> {
        let found = self.request("GetObject", get.bucket, get.key, |bucket| {
            let mut versions = bucket.keys.get(get.key)?.iter();
            let version = match get.version {
                Some(id) => versions.find(|version| version.id == id),
                None => versions.next_back(),
            };
            Some((version?.body.clone()?, version?.clone(), bucket.has_versions))
        });
        let Some((body, version, has_versions)) = found.await? else { return Ok(None) };
        if get.tag.is_some_and(|tag| tag != version.tag) {
            return Err(StoreError::Changed { bucket: get.bucket.to_owned(), key: get.key.to_owned() });
        }
        let bytes = body.len() as u64;
        let (mut rest, chunk, network) = (body.slice(get.from.min(bytes) as usize..), self.chunk, self.network.clone());
        let mut pieces = Vec::new();
        while !rest.is_empty() {
            pieces.push(rest.split_to(chunk.min(rest.len())));
        }
        // The first piece comes with the answer; before each other one the connection may break.
        let subject = format!("{}/{}", get.bucket, get.key);
        let request = Request { service: "s3", operation: "GetObjectBody", subject };
        let body = stream::iter(pieces.into_iter().enumerate()).then(move |(number, piece)| {
            let (network, request) = (network.clone(), request.clone());
            async move {
                if number > 0 {
                    through(&*network, &request, || ()).await.map_err(io::Error::other)?;
                }
                Ok(piece)
            }
        });
        let version_id = has_versions.then_some(version.id);
        Ok(Some(Content { bytes, tag: version.tag, version: version_id, body: body.boxed() }))
    }

    async fn head(&self, bucket: &str, key: &str) -> Result<Option<Head>, StoreError> {
        self.request("HeadObject", bucket, key, |bucket| {
            let version = bucket.newest(key)?;
            Some(Head { bytes: version.body.as_ref()?.len() as u64, sha256: version.sha256.clone() })
        })
        .await
    }

    async fn put(&self, put: Put<'_>) -> Result<PutEnd, StoreError> {
        self.write("PutObject", put.bucket, put.key, put.condition, |bucket| {
            if put.checksum.algorithm().of(&put.body) != put.checksum {
                return Err(rejected("PutObject", put.bucket, put.key, "BadDigest"));
            }
            bucket.write(put.key, Some(put.body.clone()), put.checksum.sha256());
            Ok(PutEnd::Stored)
        })
        .await
    }

    async fn copy(&self, bucket: &str, from: &str, to: &str) -> Result<bool, StoreError> {
        self.request("CopyObject", bucket, from, |bucket| {
            let found = bucket.newest(from).and_then(|version| version.body.clone());
            let exists = found.is_some();
            if let Some(body) = found {
                let sha256 = crate::sha256_hex(&body);
                bucket.write(to, Some(body), Some(sha256));
            }
            exists
        })
        .await
    }

    async fn delete(&self, bucket: &str, key: &str) -> Result<(), StoreError> {
        self.request("DeleteObject", bucket, key, |bucket| {
            if bucket.has_versions {
                bucket.write(key, None, None);
            } else {
                bucket.changes += 1;
                bucket.keys.remove(key);
            }
        })
        .await
    }

    async fn list(&self, bucket: &str, prefix: &str, after: Option<&str>) -> Result<ListPage, StoreError> {
        self.request("ListObjectsV2", bucket, prefix, |bucket| {
            let from = match after.filter(|after| *after >= prefix) {
                Some(after) => Bound::Excluded(after),
                None => Bound::Included(prefix),
            };
            let keys = bucket.keys.range::<str, _>((from, Bound::Unbounded));
            let keys = keys.take_while(|(key, _)| key.starts_with(prefix));
            let mut objects = keys.filter_map(|(key, versions)| {
                let body = versions.last()?.body.as_ref()?;
                Some(Listed { key: key.clone(), bytes: body.len() as u64 })
            });
            let page = objects.by_ref().take(self.list_page).collect();
            ListPage { objects: page, is_truncated: objects.next().is_some() }
        })
        .await
    }

    async fn create_upload(
        &self,
        bucket: &str,
        key: &str,
        _: &str,
        algorithm: Algorithm,
    ) -> Result<String, StoreError> {
        self.request("CreateMultipartUpload", bucket, key, |bucket| {
            bucket.changes += 1;
            let id = format!("u{:08}", bucket.changes);
            let parts = Parts { key: key.to_owned(), algorithm, bodies: BTreeMap::new() };
            bucket.uploads.insert(id.clone(), parts);
            id
        })
        .await
    }

    async fn put_part(&self, part: Part<'_>) -> Result<PartDone, StoreError> {
        let algorithm = part.checksum.algorithm();
        let stored = self.request("UploadPart", part.bucket, part.key, |bucket| {
            let upload = bucket.uploads.get_mut(part.upload_id).filter(|upload| upload.key == part.key);
            let upload = upload.ok_or("NoSuchUpload")?;
            if upload.algorithm != algorithm {
                return Err("InvalidRequest");
            }
            if algorithm.of(part.body) != part.checksum {
                return Err("BadDigest");
            }
            upload.bodies.insert(part.number, part.body.clone());
            Ok(())
        });
        stored.await?.map_err(|what| rejected("UploadPart", part.bucket, part.key, what))?;
        let tag = format!("\"{}\"", &crate::sha256_hex(part.body)[..32]);
        Ok(PartDone { number: part.number, tag, checksum: part.checksum })
    }

    async fn complete_upload(&self, complete: Complete<'_>) -> Result<PutEnd, StoreError> {
        let Complete { bucket: name, key, upload_id, parts, condition } = complete;
        let invalid = |what: &'static str| rejected("CompleteMultipartUpload", name, key, what);
        self.write("CompleteMultipartUpload", name, key, condition, |bucket| {
            let Some(upload) = bucket.uploads.get(upload_id) else { return Ok(PutEnd::Refused) };
            let mut body = Vec::new();
            for (position, part) in parts.iter().enumerate() {
                let bytes = upload.bodies.get(&part.number).ok_or_else(|| invalid("InvalidPart"))?;
                if position + 1 < parts.len() && bytes.len() < LEAST_PART {
                    return Err(invalid("EntityTooSmall"));
                }
                body.extend_from_slice(bytes);
            }
            bucket.uploads.remove(upload_id);
            bucket.write(key, Some(body.into()), sha256_of_parts(parts));
            Ok(PutEnd::Stored)
        })
        .await
    }

    async fn abort_upload(&self, bucket: &str, key: &str, upload_id: &str) -> Result<(), StoreError> {
        self.request("AbortMultipartUpload", bucket, key, |bucket| {
            bucket.uploads.remove(upload_id);
        })
        .await
    }

    async fn wait(&self, time: Duration) {
        self.network.wait(time).await;
    }
}

/// What S3 keeps as the sha256 of an object that came in parts.
pub(super) fn sha256_of_parts(parts: &[PartDone]) -> Option<String> {
    let mut digest = Sha256::new();
    for part in parts {
        let Checksum::Sha256(sha256) = part.checksum else { return None };
        digest.update(sha256);
    }
    Some(format!("{}-{}", hex::encode(digest.finalize()), parts.len()))
}

fn unavailable(operation: &'static str, bucket: &str, key: &str, broken: Broken) -> StoreError {
    let (bucket, key, message) = (bucket.to_owned(), key.to_owned(), broken.to_string());
    StoreError::Unavailable { operation, bucket, key, message, source: broken.into() }
}

fn rejected(operation: &'static str, bucket: &str, key: &str, what: &'static str) -> StoreError {
    let (bucket, key, message) = (bucket.to_owned(), key.to_owned(), what.to_owned());
    StoreError::Unavailable { operation, bucket, key, message, source: what.into() }
}
