//! What a queue delivers to a function, and what the function returns: the event source mapping has
//! `ReportBatchItemFailures`, so that only the messages that failed come again, and end in the dead-letter queue when
//! they fail too often.

use crate::s3::{self, NotificationError, ObjectChange, ObjectEvent};
use errors::{Named, describe};
use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};

/// A batch of messages.
#[derive(Clone, Debug, Deserialize)]
pub struct Batch {
    #[serde(rename = "Records")]
    pub messages: Vec<Message>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    #[serde(rename = "messageId")]
    pub id: String,
    #[serde(default)]
    pub body: String,
    #[serde(default)]
    attributes: Attributes,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Attributes {
    #[serde(rename = "ApproximateReceiveCount")]
    receive_count: Option<String>,
}

impl Message {
    /// How often the message was delivered, this time included; about, as SQS says.
    pub fn deliveries(&self) -> u64 {
        self.attributes.receive_count.as_deref().and_then(|count| count.parse().ok()).unwrap_or(1)
    }

    /// The objects that the message tells of; none for S3's test event.
    pub fn events(&self) -> Result<Vec<Result<ObjectEvent, NotificationError>>, NotificationError> {
        s3::read(self.body.as_bytes())
    }

    /// The objects that were created, as most functions want them: other events are done with. One record that cannot
    /// be used fails the message in the end, but not before the others are done: `first_error` comes with them.
    pub fn created(&self) -> Created {
        let mut created = Created::default();
        match self.events() {
            Err(error) => created.first_error = Some(error),
            Ok(events) => {
                for event in events {
                    match event {
                        Ok(event) if event.change == ObjectChange::Created => created.objects.push(event),
                        Ok(_) => {}
                        Err(error) => created.first_error = created.first_error.or(Some(error)),
                    }
                }
            }
        }
        created
    }
}

/// What a message says of objects that were created.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Created {
    pub objects: Vec<ObjectEvent>,
    /// Fail the message with it, once `objects` are done.
    pub first_error: Option<NotificationError>,
}

/// The messages that must come again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchResponse {
    pub batch_item_failures: Vec<BatchItemFailure>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchItemFailure {
    pub item_identifier: String,
}

impl BatchResponse {
    pub fn of(failed: impl IntoIterator<Item = String>) -> Self {
        BatchResponse {
            batch_item_failures: failed.into_iter().map(|id| BatchItemFailure { item_identifier: id }).collect(),
        }
    }
}

/// Handles each message by itself, `at_once` of them at a time, and returns those that failed. An error is logged by
/// its name; neither it nor a message that cannot be read takes another message with it.
pub async fn handle_each<E: Named>(
    batch: &Batch,
    at_once: usize,
    handle: impl AsyncFn(&Message) -> Result<(), E>,
) -> BatchResponse {
    let handle = &handle;
    let outcomes = batch.messages.iter().map(|message| async move {
        let error = handle(message).await.err()?;
        let (id, deliveries) = (message.id.as_str(), message.deliveries());
        tracing::error!(message = id, deliveries, error = error.name().as_str(), what = describe(&error), "failed");
        Some(message.id.clone())
    });
    let outcomes = stream::iter(outcomes).buffered(at_once.max(1)).collect::<Vec<_>>().await;
    BatchResponse::of(outcomes.into_iter().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn record(name: &str, key: &str) -> Value {
        json!({
            "eventVersion": "2.1", "eventSource": "aws:s3", "eventTime": "2026-11-16T06:00:00.000Z", "eventName": name,
            "s3": {"bucket": {"name": "b-1"}, "object": {"key": key, "size": 5, "sequencer": "0A"}},
        })
    }

    fn batch(bodies: &[String]) -> Batch {
        let message = |(number, body): (usize, &String)| {
            json!({
                "messageId": format!("m{number}"), "receiptHandle": "r", "body": body, "eventSource": "aws:sqs",
                "attributes": {"ApproximateReceiveCount": "3", "SentTimestamp": "1"}, "messageAttributes": {},
            })
        };
        let records: Vec<Value> = bodies.iter().enumerate().map(message).collect();
        serde_json::from_value(json!({"Records": records})).expect("a batch")
    }

    fn notification(records: &[Value]) -> String {
        json!({"Records": records}).to_string()
    }

    #[tokio::test]
    async fn only_the_messages_that_failed_come_again() {
        let good = notification(&[record("ObjectCreated:Put", "a")]);
        let bodies =
            [good.clone(), "no JSON".to_owned(), good, r#"{"Event":"s3:TestEvent"}"#.to_owned(), String::new()];
        let batch = batch(&bodies);
        for at_once in [0, 1, 10] {
            let response = handle_each(&batch, at_once, async |message| match message.created().first_error {
                Some(error) => Err(error),
                None => Ok(()),
            });
            let answer = json!({"batchItemFailures": [{"itemIdentifier": "m1"}, {"itemIdentifier": "m4"}]});
            assert_eq!(json!(response.await), answer);
        }
        assert_eq!(batch.messages[0].deliveries(), 3);
        assert_eq!(json!(BatchResponse::default()), json!({"batchItemFailures": []}));
    }

    #[test]
    fn the_good_objects_of_a_message_are_done_before_it_fails_for_a_bad_one() {
        let records = [
            record("ObjectCreated:Put", "a+b"),
            record("ObjectRemoved:Delete", "c"),
            record("ObjectCreated:Put", "%ZZ"),
            record("ObjectCreated:Copy", "d"),
        ];
        let created = batch(&[notification(&records)]).messages[0].created();
        assert_eq!(created.objects.iter().map(|object| object.key.as_str()).collect::<Vec<_>>(), ["a b", "d"]);
        assert_eq!(created.first_error.map(|error| error.name().as_str()), Some("EventKeyUnreadable"));
        assert_eq!(batch(&[notification(&[])]).messages[0].created(), Created::default());
    }

    #[test]
    fn a_batch_whose_messages_have_no_id_is_refused() {
        // Its failures could not be told, and the queue would take all of it as done.
        assert!(serde_json::from_value::<Batch>(json!({"Records": [{"body": "x"}]})).is_err());
        assert!(serde_json::from_value::<Batch>(json!({"records": []})).is_err());
    }
}
