use aws_sdk_s3::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    primitives::ByteStream,
    types::{ChecksumAlgorithm, ChecksumMode},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use errors::{Name, Named};
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use std::error::Error;

/// Objects of one bucket.
#[derive(Clone)]
pub struct Objects {
    client: Client,
    bucket: String,
}

/// What S3 says of an object without sending it.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    pub bytes: u64,
    /// Hex; as S3 verified it at the upload.
    pub sha256: Option<String>,
}

/// The end of a write that must not overwrite.
#[derive(Clone, Debug, PartialEq)]
pub enum PutOnce {
    Created,
    /// The key is taken: by this very content after a retry, or by another.
    Exists(Head),
}

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{operation} of s3://{bucket}/{key}: the bucket does not exist")]
    BucketMissing { operation: &'static str, bucket: String, key: String },
    #[error("{operation} of s3://{bucket}/{key} is not allowed: {message}")]
    Denied { operation: &'static str, bucket: String, key: String, message: String },
    #[error("s3://{bucket}/{key} does not exist")]
    Missing { bucket: String, key: String },
    #[error("s3://{bucket}/{key} is damaged: {what}")]
    Corrupt { bucket: String, key: String, what: String },
    #[error("s3://{bucket}/{key} holds other bytes than this run would write: found {found}, wanted {wanted}")]
    Conflict { bucket: String, key: String, found: String, wanted: String },
    #[error("{operation} of s3://{bucket}/{key} failed: {message}")]
    Unavailable { operation: &'static str, bucket: String, key: String, message: String, source: Box<dyn Error + Send + Sync> },
}

impl Named for StoreError {
    fn name(&self) -> Name {
        match self {
            StoreError::BucketMissing { .. } => Name::BucketMissing,
            StoreError::Denied { .. } => Name::StoreDenied,
            StoreError::Missing { .. } => Name::ObjectMissing,
            StoreError::Corrupt { .. } => Name::ObjectCorrupt,
            StoreError::Conflict { .. } => Name::ObjectConflict,
            StoreError::Unavailable { .. } => Name::StoreUnavailable,
        }
    }
}

impl Objects {
    pub fn new(config: &aws_config::SdkConfig, bucket: String) -> Self {
        let builder = aws_sdk_s3::config::Builder::from(config);
        // A custom endpoint (the local cloud) knows no bucket host names.
        let builder = builder.force_path_style(config.endpoint_url().is_some());
        Objects { client: Client::from_conf(builder.build()), bucket }
    }

    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    pub fn uri(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.bucket)
    }

    pub async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.find(key).await?.ok_or_else(|| StoreError::Missing { bucket: self.bucket.clone(), key: key.into() })
    }

    /// `None` when there is no such object.
    pub async fn find(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        Ok(self.find_versioned(key).await?.map(|(body, _)| body))
    }

    /// The object and its entity tag, for [`Objects::replace`].
    pub async fn find_versioned(&self, key: &str) -> Result<Option<(Bytes, String)>, StoreError> {
        let answer = match self.client.get_object().bucket(&self.bucket).key(key).checksum_mode(ChecksumMode::Enabled).send().await {
            Ok(answer) => answer,
            Err(error) if error.code() == Some("NoSuchKey") => return Ok(None),
            Err(error) => return Err(self.error("GetObject", key, error)),
        };
        let tag = answer.e_tag().unwrap_or_default().to_owned();
        let body = answer.body.collect().await.map_err(|error| StoreError::Unavailable {
            operation: "GetObject",
            bucket: self.bucket.clone(),
            key: key.into(),
            message: "the answer broke off".into(),
            source: error.into(),
        })?;
        Ok(Some((body.into_bytes(), tag)))
    }

    /// `None` when there is no such object.
    pub async fn head(&self, key: &str) -> Result<Option<Head>, StoreError> {
        match self.client.head_object().bucket(&self.bucket).key(key).checksum_mode(ChecksumMode::Enabled).send().await {
            Ok(answer) => Ok(Some(Head {
                bytes: answer.content_length().unwrap_or(0) as u64,
                sha256: answer.checksum_sha256().and_then(|text| BASE64_STANDARD.decode(text).ok()).map(hex::encode),
            })),
            Err(error) if error.raw_response().is_some_and(|raw| raw.status().as_u16() == 404) => Ok(None),
            Err(error) => Err(self.error("HeadObject", key, error)),
        }
    }

    /// Writes or overwrites. S3 refuses the upload when the bytes do not arrive as they were sent.
    pub async fn put(&self, key: &str, body: impl Into<Bytes>, content_type: &str) -> Result<(), StoreError> {
        let body = body.into();
        let sha256 = BASE64_STANDARD.encode(Sha256::digest(&body));
        let put = self.client.put_object().bucket(&self.bucket).key(key).content_type(content_type);
        let put = put.checksum_algorithm(ChecksumAlgorithm::Sha256).checksum_sha256(sha256).body(ByteStream::from(body));
        put.send().await.map(|_| ()).map_err(|error| self.error("PutObject", key, error))
    }

    /// Writes a key that nobody has written yet, and looks whether it arrived.
    /// After a retry S3 answers 412 to one's own success: then the content decides.
    pub async fn put_once(&self, key: &str, body: Bytes, content_type: &str) -> Result<PutOnce, StoreError> {
        let digest = Sha256::digest(&body);
        let put = self.client.put_object().bucket(&self.bucket).key(key).content_type(content_type).if_none_match("*");
        let put = put.checksum_algorithm(ChecksumAlgorithm::Sha256).checksum_sha256(BASE64_STANDARD.encode(digest));
        let length = body.len() as u64;
        let outcome = put.body(ByteStream::from(body)).send().await;
        match outcome {
            Ok(_) => {}
            Err(error) if matches!(error.code(), Some("PreconditionFailed" | "ConditionalRequestConflict")) => {}
            Err(error) => return Err(self.error("PutObject", key, error)),
        }
        let corrupt = |what: String| StoreError::Corrupt { bucket: self.bucket.clone(), key: key.into(), what };
        let head = self.head(key).await?.ok_or_else(|| corrupt("it is not there after its upload".into()))?;
        let own = Head { bytes: length, sha256: Some(hex::encode(digest)) };
        Ok(if head == own { PutOnce::Created } else { PutOnce::Exists(head) })
    }

    /// Overwrites the object that has entity tag `tag`; `false` when it has changed in between.
    pub async fn replace(&self, key: &str, body: Bytes, content_type: &str, tag: &str) -> Result<bool, StoreError> {
        let sha256 = BASE64_STANDARD.encode(Sha256::digest(&body));
        let put = self.client.put_object().bucket(&self.bucket).key(key).content_type(content_type).if_match(tag);
        let put = put.checksum_algorithm(ChecksumAlgorithm::Sha256).checksum_sha256(sha256).body(ByteStream::from(body));
        match put.send().await {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.code(), Some("PreconditionFailed" | "ConditionalRequestConflict")) => Ok(false),
            Err(error) => Err(self.error("PutObject", key, error)),
        }
    }

    /// Removes an object; one that is not there is removed already.
    pub async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let deleted = self.client.delete_object().bucket(&self.bucket).key(key).send().await;
        deleted.map(|_| ()).map_err(|error| self.error("DeleteObject", key, error))
    }

    /// The key of an `s3://bucket/key` of this bucket.
    pub fn key_of<'a>(&self, uri: &'a str) -> Option<&'a str> {
        uri.strip_prefix("s3://")?.strip_prefix(self.bucket.as_str())?.strip_prefix('/')
    }

    /// Keys under a prefix, in order.
    pub async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let mut pages = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix).into_paginator().send();
        let mut keys = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| self.error("ListObjectsV2", prefix, error))?;
            keys.extend(page.contents().iter().filter_map(|object| object.key().map(str::to_owned)));
        }
        Ok(keys)
    }

    pub async fn get_json<T: DeserializeOwned>(&self, key: &str) -> Result<T, StoreError> {
        let body = self.get(key).await?;
        serde_json::from_slice(&body).map_err(|error| self.corrupt(key, error))
    }

    pub async fn put_json<T: Serialize>(&self, key: &str, value: &T) -> Result<(), StoreError> {
        let body = serde_json::to_vec(value).map_err(|error| self.corrupt(key, error))?;
        self.put(key, body, "application/json").await
    }

    /// Reads zstd-compressed JSON lines.
    pub async fn get_lines<T: DeserializeOwned>(&self, key: &str) -> Result<Vec<T>, StoreError> {
        self.decode_lines(key, &self.get(key).await?)
    }

    /// As [`Objects::get_lines`]; `None` when there is no such object.
    pub async fn find_lines<T: DeserializeOwned>(&self, key: &str) -> Result<Option<Vec<T>>, StoreError> {
        self.find(key).await?.map(|body| self.decode_lines(key, &body)).transpose()
    }

    fn decode_lines<T: DeserializeOwned>(&self, key: &str, body: &[u8]) -> Result<Vec<T>, StoreError> {
        let body = zstd::decode_all(body).map_err(|error| self.corrupt(key, error))?;
        serde_json::Deserializer::from_slice(&body).into_iter().collect::<Result<_, _>>().map_err(|error| self.corrupt(key, error))
    }

    /// Writes zstd-compressed JSON lines.
    pub async fn put_lines<T: Serialize>(&self, key: &str, lines: &[T]) -> Result<(), StoreError> {
        self.put(key, self.encode_lines(key, lines)?, "application/zstd").await
    }

    /// Writes zstd-compressed JSON lines to a key that nobody has written yet.
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

    fn error<E, R>(&self, operation: &'static str, key: &str, error: SdkError<E, R>) -> StoreError
    where
        E: Error + Send + Sync + ProvideErrorMetadata + 'static,
        R: std::fmt::Debug + Send + Sync + 'static,
        SdkError<E, R>: ProvideErrorMetadata,
    {
        let (bucket, key) = (self.bucket.clone(), key.to_owned());
        let code = error.code().map(str::to_owned);
        let message = [error.code(), error.message()].into_iter().flatten().collect::<Vec<_>>().join(": ");
        match code.as_deref() {
            Some("NoSuchBucket") => StoreError::BucketMissing { operation, bucket, key },
            Some("AccessDenied" | "InvalidAccessKeyId" | "SignatureDoesNotMatch") => StoreError::Denied { operation, bucket, key, message },
            _ => StoreError::Unavailable { operation, bucket, key, message, source: Box::new(error) },
        }
    }
}

/// The sha256 of an object's bytes, in hex.
pub fn sha256_hex(body: &[u8]) -> String {
    hex::encode(Sha256::digest(body))
}
