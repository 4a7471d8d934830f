//! AWS publishes types for batches and notifications. What those types spell is understood here, and what this crate
//! returns says to them what it says to Lambda.

use aws_lambda_events::{
    s3::{S3Event, S3EventRecord},
    sqs::{SqsBatchResponse, SqsEvent, SqsMessage},
};
use events::{
    s3::ObjectChange,
    sqs::{Batch, BatchResponse},
};

/// A notification of one object, as the published types spell it.
fn notification(name: &str, key: &str) -> S3Event {
    let mut record = S3EventRecord::default();
    record.event_version = Some("2.1".into());
    record.event_source = Some("aws:s3".into());
    record.event_name = Some(name.into());
    record.s3.bucket.name = Some("logs".into());
    record.s3.object.key = Some(key.into());
    record.s3.object.size = Some(5);
    record.s3.object.version_id = Some("v1".into());
    record.s3.object.sequencer = Some("0A".into());
    let mut event = S3Event::default();
    event.records = vec![record];
    event
}

#[test]
fn a_batch_of_notifications_is_understood() {
    let mut message = SqsMessage::default();
    message.message_id = Some("m1".into());
    message.attributes.insert("ApproximateReceiveCount".into(), "3".into());
    let body = notification("ObjectCreated:Put", "service/2024/07/01/a+b%C3%A4.gz");
    message.body = Some(serde_json::to_string(&body).expect("JSON"));
    let mut event = SqsEvent::default();
    event.records = vec![message];
    let batch: Batch = serde_json::from_value(serde_json::to_value(event).expect("JSON")).expect("a batch");
    let [message] = batch.messages.as_slice() else { panic!("{batch:?}") };
    assert_eq!((message.id.as_str(), message.deliveries()), ("m1", 3));
    let created = message.created();
    assert_eq!(created.first_error, None);
    let [object] = created.objects.as_slice() else { panic!("{created:?}") };
    assert_eq!((object.bucket.as_str(), object.key.as_str()), ("logs", "service/2024/07/01/a bä.gz"));
    assert_eq!(
        (object.change, object.size, object.version_id.as_deref()),
        (ObjectChange::Created, Some(5), Some("v1"))
    );
}

#[test]
fn what_failed_is_told_in_the_fields_that_lambda_reads() {
    let response = BatchResponse::of(["m1".to_owned(), "m2".to_owned()]);
    let read: SqsBatchResponse =
        serde_json::from_value(serde_json::to_value(response).expect("JSON")).expect("a response");
    let failed: Vec<&str> = read.batch_item_failures.iter().map(|failure| failure.item_identifier.as_str()).collect();
    assert_eq!(failed, ["m1", "m2"]);
}
