//! How functions that S3 events start hear of objects: [`s3`] reads a notification, [`sqs`] the batch of messages that
//! a queue delivers, each with a notification as its body, and returns which of them must come again. Deliveries come
//! twice, late and in any order, and every principal that may send to a queue can send anything. Pure but for the log;
//! what is done with an object, and every type of a pipeline, stay outside.

pub mod s3;
pub mod sqs;
