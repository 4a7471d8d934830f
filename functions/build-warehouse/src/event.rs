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
}
