use super::{
    Head, Objects, PutOnce, StoreError,
    memory::sha256_of_parts,
    store::{Algorithm, Complete, Condition, Part, PartDone, PutEnd},
};
use bytes::{Bytes, BytesMut};
use tokio::task::JoinSet;

/// Size of a part. S3 takes 10,000 of them, which is 80 GB.
const PART_BYTES: usize = 8 << 20;
/// Parts under way at once; with the one that is filled, three of them are in memory.
const PARTS_AT_ONCE: usize = 2;
/// How often the end of an upload is tried while others write the key.
const TRIES: usize = 6;

/// Writes an object of any size while its bytes come in, with bounded memory. Nothing is to be seen under the key
/// before [`Upload::finish`]; an upload that is dropped before is aborted.
pub struct Upload {
    objects: Objects,
    key: String,
    content_type: String,
    algorithm: Algorithm,
    /// Once the first part is full.
    id: Option<String>,
    filling: BytesMut,
    under_way: JoinSet<Result<PartDone, StoreError>>,
    done: Vec<PartDone>,
    parts: i32,
    bytes: u64,
}

impl Upload {
    pub(super) fn new(objects: Objects, key: String, content_type: String, algorithm: Algorithm) -> Self {
        Upload {
            objects,
            key,
            content_type,
            algorithm,
            id: None,
            filling: BytesMut::new(),
            under_way: JoinSet::new(),
            done: Vec::new(),
            parts: 0,
            bytes: 0,
        }
    }

    /// Bytes taken so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PART_BYTES - self.filling.len()));
            self.filling.extend_from_slice(now);
            self.bytes += now.len() as u64;
            bytes = later;
            if self.filling.len() == PART_BYTES {
                self.send_part().await?;
            }
        }
        Ok(())
    }

    async fn send_part(&mut self) -> Result<(), StoreError> {
        let store = self.objects.store.clone();
        let (bucket, key) = (self.objects.bucket.clone(), self.key.clone());
        let id = match &self.id {
            Some(id) => id.clone(),
            None => {
                let id = store.create_upload(&bucket, &key, &self.content_type, self.algorithm).await?;
                self.id.insert(id).clone()
            }
        };
        while self.under_way.len() >= PARTS_AT_ONCE {
            self.await_part().await?;
        }
        self.parts += 1;
        let (number, body, algorithm) = (self.parts, self.filling.split().freeze(), self.algorithm);
        self.under_way.spawn(async move {
            let checksum = algorithm.of(&body);
            store.put_part(Part { bucket: &bucket, key: &key, upload_id: &id, number, body: &body, checksum }).await
        });
        Ok(())
    }

    async fn await_part(&mut self) -> Result<(), StoreError> {
        let Some(part) = self.under_way.join_next().await else { return Ok(()) };
        let part = part.map_err(|error| self.objects.unavailable("UploadPart", &self.key, "its task ended", error))?;
        self.done.push(part?);
        Ok(())
    }

    /// Makes what was written the object, whatever stood there.
    pub async fn finish(self) -> Result<Head, StoreError> {
        let (objects, key) = (self.objects.clone(), self.key.clone());
        match self.end(Condition::None).await? {
            PutOnce::Created(head) => Ok(head),
            PutOnce::Exists(head) => Err(objects.corrupt(&key, format!("its upload ended in other bytes: {head:?}"))),
        }
    }

    /// As [`Objects::put_once`]: makes what was written the object unless there is another.
    pub async fn finish_once(self) -> Result<PutOnce, StoreError> {
        self.end(Condition::Absent).await
    }

    async fn end(mut self, condition: Condition<'_>) -> Result<PutOnce, StoreError> {
        let (objects, key) = (self.objects.clone(), self.key.clone());
        if self.id.is_none() {
            let body: Bytes = std::mem::take(&mut self.filling).freeze();
            let checksum = self.algorithm.of(&body);
            if condition == Condition::Absent {
                return objects.put_once_checked(&key, body, checksum, &self.content_type).await;
            }
            let bytes = body.len() as u64;
            objects.put_checked(&key, body, checksum, &self.content_type).await?;
            return Ok(PutOnce::Created(Head { bytes, sha256: checksum.sha256() }));
        }
        if !self.filling.is_empty() {
            self.send_part().await?;
        }
        while !self.under_way.is_empty() {
            self.await_part().await?;
        }
        self.done.sort_by_key(|part| part.number);
        let own = Head { bytes: self.bytes, sha256: sha256_of_parts(&self.done) };
        let id = self.id.clone().unwrap_or_default();
        for round in 0..TRIES {
            let (bucket, parts) = (objects.bucket.as_str(), self.done.as_slice());
            let complete = Complete { bucket, key: &key, upload_id: &id, parts, condition };
            match objects.store.complete_upload(complete).await? {
                PutEnd::Conflict => objects.pause(round).await,
                PutEnd::Stored => {
                    self.id = None;
                    return Ok(PutOnce::Created(own));
                }
                // Perhaps by one's own success, whose answer was lost. If not, the parts are of no use any more.
                PutEnd::Refused => match objects.head(&key).await? {
                    Some(head) => {
                        self.abort().await?;
                        return Ok(if head == own { PutOnce::Created(head) } else { PutOnce::Exists(head) });
                    }
                    None => objects.pause(round).await,
                },
            }
        }
        Err(StoreError::Contended { bucket: objects.bucket.clone(), key, tries: TRIES })
    }

    /// Removes what was uploaded. Dropping does the same, but cannot tell whether it succeeded.
    pub async fn abort(mut self) -> Result<(), StoreError> {
        self.under_way.shutdown().await;
        match self.id.take() {
            Some(id) => self.objects.store.abort_upload(&self.objects.bucket, &self.key, &id).await,
            None => Ok(()),
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        // Outside of a runtime nothing can be sent; the bucket's lifecycle rule removes what is left.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (objects, key) = (self.objects.clone(), std::mem::take(&mut self.key));
        let mut under_way = std::mem::take(&mut self.under_way);
        runtime.spawn(async move {
            under_way.shutdown().await;
            if let Err(error) = objects.store.abort_upload(&objects.bucket, &key, &id).await {
                tracing::warn!(key, error = errors::describe(&error), "an unfinished upload was not removed");
            }
        });
    }
}
