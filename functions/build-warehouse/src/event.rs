//! What starts a build: messages of the queue, each with notifications of S3, or nothing at all.

use events::s3;
use serde::{Deserialize, Serialize};

/// `{}` builds what is to be built.
#[derive(Debug, Default, Deserialize)]
pub struct Event {
    #[serde(rename = "Records", default)]
    records: Vec<Message>,
}

#[derive(Debug, Deserialize)]
struct Message {
    body: String,
}

/// None of the messages comes again.
#[derive(Debug, Default, Serialize)]
pub struct Response {
    #[serde(rename = "batchItemFailures")]
    failures: [(); 0],
}

impl Event {
    /// Keys of the objects that landed in a bucket, with their entity tags. What is no notification is passed over: the
    /// buckets themselves say what has landed.
    pub fn landed(&self, bucket: &str) -> Vec<(String, Option<String>)> {
        let bodies = self.records.iter().filter_map(|message| s3::read(message.body.as_bytes()).ok());
        let events = bodies.flatten().flatten().filter(|event| event.bucket == bucket);
        events.map(|event| (event.key, event.etag)).collect()
    }

    /// Whether all that it tells of are objects of a bucket that no table is built from.
    pub fn is_unwanted(&self, bucket: &str, is_wanted: impl Fn(&str) -> bool) -> bool {
        let is_unwanted = |message: &Message| {
            let events = s3::read(message.body.as_bytes());
            events.is_ok_and(|events| {
                events
                    .iter()
                    .all(|event| event.as_ref().is_ok_and(|event| event.bucket == bucket && !is_wanted(&event.key)))
            })
        };
        !self.records.is_empty() && self.records.iter().all(is_unwanted)
    }
}
