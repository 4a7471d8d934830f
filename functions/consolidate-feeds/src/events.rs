//! Stands in until the crate of this name is there.

pub use ::events::s3::{Change, NotificationError, ObjectEvent, read};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

#[derive(Deserialize)]
pub struct SqsBatch {
    #[serde(rename = "Records")]
    records: Vec<Message>,
}

#[derive(Deserialize)]
pub struct Message {
    #[serde(rename = "messageId")]
    pub message_id: String,
    pub body: String,
}

#[derive(Serialize)]
pub struct SqsResponse {
    #[serde(rename = "batchItemFailures")]
    pub failures: Vec<Failed>,
}

#[derive(Serialize)]
pub struct Failed {
    #[serde(rename = "itemIdentifier")]
    pub message_id: String,
}

impl SqsBatch {
    pub fn messages(&self) -> impl Iterator<Item = &Message> {
        self.records.iter()
    }

    pub fn response(&self, failed: &BTreeSet<usize>) -> SqsResponse {
        let failures = failed.iter().map(|at| Failed { message_id: self.records[*at].message_id.clone() });
        SqsResponse { failures: failures.collect() }
    }
}
