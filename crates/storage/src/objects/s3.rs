use super::store::{
    Algorithm, Checksum, Complete, Condition, Content, Get, Head, ListPage, Listed, ObjectStore, Part, PartDone, Put,
    PutEnd,
};
use crate::StoreError;
use async_trait::async_trait;
use aws_sdk_s3::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    primitives::ByteStream,
    types::{ChecksumAlgorithm, ChecksumMode, CompletedMultipartUpload, CompletedPart},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use futures::{StreamExt, stream};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::{error::Error, io};

/// What a key in the header of a copy is written in percent signs.
const COPY_SOURCE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// S3 itself. The client tries a request that fails in passing again. Of an upload it signs the checksum: to hash the
/// bytes once more for the signature would cost as much as to hash them for S3, and the connection is encrypted.
pub(crate) struct S3 {
    client: Client,
}

impl S3 {
    pub(crate) fn new(config: &aws_config::SdkConfig) -> Self {
        let builder = aws_sdk_s3::config::Builder::from(config);
        // A custom endpoint (the local cloud) knows no bucket host names.
        let builder = builder.force_path_style(config.endpoint_url().is_some());
        S3 { client: Client::from_conf(builder.build()) }
    }
}

#[async_trait]
impl ObjectStore for S3 {
    async fn get(&self, get: Get<'_>) -> Result<Option<Content>, StoreError> {
        let request = self.client.get_object().bucket(get.bucket).key(get.key);
        let request = request.set_version_id(get.version.map(str::to_owned)).set_if_match(get.tag.map(str::to_owned));
        // Only the checksum of a whole object can be compared.
        let request = match get.from {
            0 => request.checksum_mode(ChecksumMode::Enabled),
            from => request.range(format!("bytes={from}-")),
        };
        let answer = match request.send().await {
            Ok(answer) => answer,
            // The last one is the response for a version that is a delete marker.
            Err(error) if is_one_of(&error, &["NoSuchKey", "NoSuchVersion", "MethodNotAllowed"]) => return Ok(None),
            Err(error) if is_one_of(&error, &["PreconditionFailed"]) => {
                return Err(StoreError::Changed { bucket: get.bucket.to_owned(), key: get.key.to_owned() });
            }
            Err(error) => return Err(fault("GetObject", get.bucket, get.key, error)),
        };
        let bytes = answer.content_length().unwrap_or(0).max(0) as u64 + get.from;
        let tag = answer.e_tag().unwrap_or_default().to_owned();
        let body = stream::unfold(answer.body, |mut body| async move {
            let chunk = body.next().await?;
            Some((chunk.map_err(io::Error::other), body))
        });
        Ok(Some(Content { bytes, tag, version: answer.version_id, body: body.boxed() }))
    }

    async fn head(&self, bucket: &str, key: &str) -> Result<Option<Head>, StoreError> {
        let request = self.client.head_object().bucket(bucket).key(key).checksum_mode(ChecksumMode::Enabled);
        match request.send().await {
            Ok(answer) => Ok(Some(Head {
                bytes: answer.content_length().unwrap_or(0).max(0) as u64,
                sha256: answer.checksum_sha256().and_then(in_hex),
            })),
            Err(error) if error.raw_response().is_some_and(|raw| raw.status().as_u16() == 404) => Ok(None),
            Err(error) => Err(fault("HeadObject", bucket, key, error)),
        }
    }

    async fn put(&self, put: Put<'_>) -> Result<PutEnd, StoreError> {
        let request = self.client.put_object().bucket(put.bucket).key(put.key).content_type(put.content_type);
        let (sha256, crc32) = in_base64(put.checksum);
        let request = request.set_checksum_sha256(sha256).set_checksum_crc32(crc32);
        let request = request.checksum_algorithm(known(put.checksum.algorithm()));
        let request = match put.condition {
            Condition::None => request,
            Condition::Absent => request.if_none_match("*"),
            Condition::Tag(tag) => request.if_match(tag),
        };
        let request = request.body(ByteStream::from(put.body)).customize().disable_payload_signing();
        end_of(request.send().await, "PutObject", put.bucket, put.key, put.condition)
    }

    async fn copy(&self, bucket: &str, from: &str, to: &str) -> Result<bool, StoreError> {
        let source = format!("{bucket}/{}", utf8_percent_encode(from, COPY_SOURCE));
        let request = self.client.copy_object().bucket(bucket).key(to).copy_source(source);
        match request.checksum_algorithm(ChecksumAlgorithm::Sha256).send().await {
            Ok(_) => Ok(true),
            Err(error) if is_one_of(&error, &["NoSuchKey"]) => Ok(false),
            Err(error) => Err(fault("CopyObject", bucket, from, error)),
        }
    }

    async fn delete(&self, bucket: &str, key: &str) -> Result<(), StoreError> {
        let deleted = self.client.delete_object().bucket(bucket).key(key).send().await;
        deleted.map(|_| ()).map_err(|error| fault("DeleteObject", bucket, key, error))
    }

    async fn list(&self, bucket: &str, prefix: &str, after: Option<&str>) -> Result<ListPage, StoreError> {
        let request = self.client.list_objects_v2().bucket(bucket).prefix(prefix);
        let answer = request.set_start_after(after.map(str::to_owned)).send().await;
        let answer = answer.map_err(|error| fault("ListObjectsV2", bucket, prefix, error))?;
        let is_truncated = answer.is_truncated().unwrap_or(false);
        let listed = answer.contents.unwrap_or_default().into_iter();
        let listed = listed.filter_map(|object| Some((object.key?, object.size)));
        let objects = listed.map(|(key, size)| Listed { key, bytes: size.unwrap_or(0).max(0) as u64 }).collect();
        Ok(ListPage { objects, is_truncated })
    }

    async fn create_upload(
        &self,
        bucket: &str,
        key: &str,
        content_type: &str,
        algorithm: Algorithm,
    ) -> Result<String, StoreError> {
        let request = self.client.create_multipart_upload().bucket(bucket).key(key).content_type(content_type);
        let answer = request.checksum_algorithm(known(algorithm)).send().await;
        let answer = answer.map_err(|error| fault("CreateMultipartUpload", bucket, key, error))?;
        Ok(answer.upload_id.unwrap_or_default())
    }

    async fn put_part(&self, part: Part<'_>) -> Result<PartDone, StoreError> {
        let request = self.client.upload_part().bucket(part.bucket).key(part.key).upload_id(part.upload_id);
        let (sha256, crc32) = in_base64(part.checksum);
        let request = request.set_checksum_sha256(sha256).set_checksum_crc32(crc32);
        let request = request.part_number(part.number).checksum_algorithm(known(part.checksum.algorithm()));
        let request = request.body(ByteStream::from(part.body.clone())).customize().disable_payload_signing();
        let answer = request.send().await;
        let answer = answer.map_err(|error| fault("UploadPart", part.bucket, part.key, error))?;
        Ok(PartDone { number: part.number, tag: answer.e_tag.unwrap_or_default(), checksum: part.checksum })
    }

    async fn complete_upload(&self, complete: Complete<'_>) -> Result<PutEnd, StoreError> {
        let parts = complete.parts.iter().map(|part| {
            let (sha256, crc32) = in_base64(part.checksum);
            let done = CompletedPart::builder().part_number(part.number).e_tag(&part.tag);
            done.set_checksum_sha256(sha256).set_checksum_crc32(crc32).build()
        });
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts.collect())).build();
        let request = self.client.complete_multipart_upload().bucket(complete.bucket).key(complete.key);
        let request = request.upload_id(complete.upload_id).multipart_upload(parts);
        let request = match complete.condition {
            Condition::None => request,
            Condition::Absent => request.if_none_match("*"),
            Condition::Tag(tag) => request.if_match(tag),
        };
        let Complete { bucket, key, condition, .. } = complete;
        end_of(request.send().await, "CompleteMultipartUpload", bucket, key, condition)
    }

    async fn abort_upload(&self, bucket: &str, key: &str, upload_id: &str) -> Result<(), StoreError> {
        match self.client.abort_multipart_upload().bucket(bucket).key(key).upload_id(upload_id).send().await {
            Ok(_) => Ok(()),
            Err(error) if is_one_of(&error, &["NoSuchUpload"]) => Ok(()),
            Err(error) => Err(fault("AbortMultipartUpload", bucket, key, error)),
        }
    }
}

fn end_of<T, E, R>(
    answer: Result<T, SdkError<E, R>>,
    operation: &'static str,
    bucket: &str,
    key: &str,
    condition: Condition<'_>,
) -> Result<PutEnd, StoreError>
where
    E: Error + Send + Sync + ProvideErrorMetadata + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    match answer {
        Ok(_) => Ok(PutEnd::Stored),
        // An upload that is unknown was completed by an earlier try, or aborted: the object tells.
        Err(error) if is_one_of(&error, &["PreconditionFailed", "NoSuchUpload"]) => Ok(PutEnd::Refused),
        Err(error) if is_one_of(&error, &["ConditionalRequestConflict", "OperationAborted"]) => Ok(PutEnd::Conflict),
        // What is to be replaced is gone. A key that holds nothing has no entity tag either.
        Err(error) if is_one_of(&error, &["NoSuchKey"]) && matches!(condition, Condition::Tag(_)) => {
            Ok(PutEnd::Refused)
        }
        Err(error) => Err(fault(operation, bucket, key, error)),
    }
}

fn known(algorithm: Algorithm) -> ChecksumAlgorithm {
    match algorithm {
        Algorithm::Sha256 => ChecksumAlgorithm::Sha256,
        Algorithm::Crc32 => ChecksumAlgorithm::Crc32,
    }
}

/// As S3 takes it: its sha256 or its CRC-32.
fn in_base64(checksum: Checksum) -> (Option<String>, Option<String>) {
    match checksum {
        Checksum::Sha256(sha256) => (Some(BASE64_STANDARD.encode(sha256)), None),
        Checksum::Crc32(crc32) => (None, Some(BASE64_STANDARD.encode(crc32.to_be_bytes()))),
    }
}

/// From base64, as S3 gives it, perhaps with the number of parts behind it.
fn in_hex(checksum: &str) -> Option<String> {
    let (digest, parts) = match checksum.split_once('-') {
        Some((digest, parts)) => (digest, Some(parts)),
        None => (checksum, None),
    };
    let digest = hex::encode(BASE64_STANDARD.decode(digest).ok()?);
    Some(parts.map_or(digest.clone(), |parts| format!("{digest}-{parts}")))
}

fn is_one_of<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>, codes: &[&str]) -> bool {
    error.code().is_some_and(|code| codes.contains(&code))
}

fn fault<E, R>(operation: &'static str, bucket: &str, key: &str, error: SdkError<E, R>) -> StoreError
where
    E: Error + Send + Sync + ProvideErrorMetadata + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    let (bucket, key) = (bucket.to_owned(), key.to_owned());
    let message = [error.code(), error.message()].into_iter().flatten().collect::<Vec<_>>().join(": ");
    match error.code() {
        Some("NoSuchBucket") => StoreError::BucketMissing { operation, bucket, key },
        Some("AccessDenied" | "InvalidAccessKeyId" | "SignatureDoesNotMatch") => {
            StoreError::Denied { operation, bucket, key, message }
        }
        _ => StoreError::Unavailable { operation, bucket, key, message, source: Box::new(error) },
    }
}
