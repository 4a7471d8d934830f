use async_trait::async_trait;
use bytes::Bytes;
use errors::{Name, Named};
use futures::stream::BoxStream;
use sha2::{Digest, Sha256};
use std::{error::Error, io, time::Duration};

/// The requests that S3 knows; each method is one of them. [`Objects`](crate::Objects) says what they are for.
#[async_trait]
pub trait ObjectStore: Send + Sync {
    /// `None` when there is no such object or version.
    async fn get(&self, get: Get<'_>) -> Result<Option<Content>, StoreError>;

    /// `None` when there is no such object.
    async fn head(&self, bucket: &str, key: &str) -> Result<Option<Head>, StoreError>;

    async fn put(&self, put: Put<'_>) -> Result<PutEnd, StoreError>;

    /// Copies an object of at most 5 GB within its bucket, without its bytes passing here. `false`: there is no such
    /// object.
    async fn copy(&self, bucket: &str, from: &str, to: &str) -> Result<bool, StoreError>;

    /// Removes an object; one that is not there is removed already.
    async fn delete(&self, bucket: &str, key: &str) -> Result<(), StoreError>;

    /// A page of the keys under a prefix, in order, from the one behind `after` on.
    async fn list(&self, bucket: &str, prefix: &str, after: Option<&str>) -> Result<ListPage, StoreError>;

    /// Begins a multipart upload and returns its id. What is uploaded costs money until it is completed or aborted.
    async fn create_upload(
        &self,
        bucket: &str,
        key: &str,
        content_type: &str,
        algorithm: Algorithm,
    ) -> Result<String, StoreError>;

    async fn put_part(&self, part: Part<'_>) -> Result<PartDone, StoreError>;

    /// Makes the parts, in the order of their numbers, one object.
    async fn complete_upload(&self, complete: Complete<'_>) -> Result<PutEnd, StoreError>;

    async fn abort_upload(&self, bucket: &str, key: &str, upload_id: &str) -> Result<(), StoreError>;

    /// Waits before another try.
    async fn wait(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Get<'a> {
    pub bucket: &'a str,
    pub key: &'a str,
    /// Of a bucket with versions: this one instead of the newest.
    pub version: Option<&'a str>,
    /// The first byte that is wanted.
    pub from: u64,
    /// Fails with [`StoreError::Changed`] when the object has another entity tag.
    pub tag: Option<&'a str>,
}

/// An object whose bytes are still to come.
pub struct Content {
    /// Of the whole object, whichever part of it was asked for.
    pub bytes: u64,
    pub tag: String,
    /// Of a bucket with versions.
    pub version: Option<String>,
    pub body: BoxStream<'static, io::Result<Bytes>>,
}

/// What S3 says of an object without sending it.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    pub bytes: u64,
    /// Hex; as S3 verified it at the upload. Of an object that was uploaded in parts: the sha256 of their sha256s, a
    /// hyphen and their number. `None` where another checksum came with it.
    pub sha256: Option<String>,
}

/// What a [`Checksum`] is made by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Sha256,
    /// For bytes that are read once more at most, and then compared with a sha256: a twentieth of the work.
    Crc32,
}

impl Algorithm {
    pub fn of(self, body: &[u8]) -> Checksum {
        match self {
            Algorithm::Sha256 => Checksum::Sha256(Sha256::digest(body).into()),
            Algorithm::Crc32 => Checksum::Crc32(crc32fast::hash(body)),
        }
    }
}

/// Goes with bytes that are uploaded: S3 refuses them when others arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    Sha256([u8; 32]),
    Crc32(u32),
}

impl Checksum {
    pub fn algorithm(self) -> Algorithm {
        match self {
            Checksum::Sha256(_) => Algorithm::Sha256,
            Checksum::Crc32(_) => Algorithm::Crc32,
        }
    }

    /// As S3 says it of a whole object, in hex.
    pub fn sha256(self) -> Option<String> {
        match self {
            Checksum::Sha256(sha256) => Some(hex::encode(sha256)),
            Checksum::Crc32(_) => None,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Put<'a> {
    pub bucket: &'a str,
    pub key: &'a str,
    pub body: Bytes,
    /// Of the body.
    pub checksum: Checksum,
    pub content_type: &'a str,
    pub condition: Condition<'a>,
}

/// What must hold of a key for a write to take place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Condition<'a> {
    None,
    /// There is no such object.
    Absent,
    /// The object has this entity tag.
    Tag(&'a str),
}

#[derive(Clone, Debug, PartialEq)]
pub enum PutEnd {
    Stored,
    /// The condition does not hold (412).
    Refused,
    /// Another write of the same key was under way; nothing is decided (409).
    Conflict,
}

#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    pub bucket: &'a str,
    pub key: &'a str,
    pub upload_id: &'a str,
    /// From 1 to 10,000.
    pub number: i32,
    pub body: &'a Bytes,
    /// Of the body, by the upload's algorithm.
    pub checksum: Checksum,
}

/// A part that S3 has verified.
#[derive(Clone, Debug, PartialEq)]
pub struct PartDone {
    pub number: i32,
    pub tag: String,
    pub checksum: Checksum,
}

#[derive(Clone, Copy, Debug)]
pub struct Complete<'a> {
    pub bucket: &'a str,
    pub key: &'a str,
    pub upload_id: &'a str,
    pub parts: &'a [PartDone],
    pub condition: Condition<'a>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ListPage {
    pub objects: Vec<Listed>,
    /// There are more behind the last one.
    pub is_truncated: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    pub key: String,
    pub bytes: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{operation} of s3://{bucket}/{key}: the bucket does not exist")]
    BucketMissing { operation: &'static str, bucket: String, key: String },
    #[error("{operation} of s3://{bucket}/{key} is not allowed: {message}")]
    Denied { operation: &'static str, bucket: String, key: String, message: String },
    #[error("s3://{bucket}/{key} does not exist")]
    Missing { bucket: String, key: String },
    #[error("s3://{bucket}/{key} was replaced or removed while it was being read")]
    Changed { bucket: String, key: String },
    #[error("s3://{bucket}/{key} is damaged: {what}")]
    Corrupt { bucket: String, key: String, what: String },
    #[error("s3://{bucket}/{key} holds other bytes than this run would write: found {found}, wanted {wanted}")]
    Conflict { bucket: String, key: String, found: String, wanted: String },
    #[error("s3://{bucket}/{key} was being written by others at each of {tries} tries")]
    Contended { bucket: String, key: String, tries: usize },
    #[error("{operation} of s3://{bucket}/{key} failed: {message}")]
    Unavailable {
        operation: &'static str,
        bucket: String,
        key: String,
        message: String,
        source: Box<dyn Error + Send + Sync>,
    },
}

impl Named for StoreError {
    fn name(&self) -> Name {
        match self {
            StoreError::BucketMissing { .. } => Name::BucketMissing,
            StoreError::Denied { .. } => Name::StoreDenied,
            StoreError::Missing { .. } => Name::ObjectMissing,
            StoreError::Corrupt { .. } => Name::ObjectCorrupt,
            StoreError::Conflict { .. } => Name::ObjectConflict,
            // A new attempt of the step starts over and reads what is there then.
            StoreError::Changed { .. } | StoreError::Contended { .. } | StoreError::Unavailable { .. } => {
                Name::StoreUnavailable
            }
        }
    }
}
