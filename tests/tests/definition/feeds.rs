//! The figures that the partner feeds were promised with.

use crate::plan::{Resource, of_kind};
use serde_json::json;

fn only(kind: &'static str, address: &str) -> &'static Resource {
    let found = of_kind(kind).find(|resource| resource.address == address);
    found.unwrap_or_else(|| panic!("the plan has no {address}"))
}

#[test]
fn messages_of_partner_files_come_as_promised() {
    let queue = only("aws_sqs_queue", "module.feeds.aws_sqs_queue.events");
    assert_eq!(
        (&queue.values["receive_wait_time_seconds"], &queue.values["visibility_timeout_seconds"]),
        (&json!(20), &json!(450))
    );
    assert_eq!(queue.json("redrive_policy")["maxReceiveCount"], 10);
    let mapping = only("aws_lambda_event_source_mapping", "module.feeds.aws_lambda_event_source_mapping.events");
    assert_eq!(mapping.values["batch_size"], 10);
    assert_eq!(mapping.values["maximum_batching_window_in_seconds"], 120);
    assert_eq!(mapping.values["function_response_types"], json!(["ReportBatchItemFailures"]));
    let function = only("aws_lambda_function", "module.consolidate_feeds.aws_lambda_function.function");
    assert_eq!(function.values["timeout"], 90);
    assert_eq!(function.values["ephemeral_storage"][0]["size"], 512);
}

#[test]
fn only_the_source_bucket_may_send_and_it_sends_whatever_is_created() {
    let policy = only("aws_sqs_queue_policy", "module.feeds.aws_sqs_queue_policy.events").json("policy");
    let statements = policy["Statement"].as_array().expect("statements");
    assert_eq!(statements.len(), 1);
    assert_eq!(statements[0]["Principal"], json!({"Service": "s3.amazonaws.com"}));
    let sources = &statements[0]["Condition"]["ArnEquals"]["aws:SourceArn"];
    assert_eq!(sources, &json!(["arn:aws:s3:::alert-archive-feeds-source-123456789012"]));
    let notification = only("aws_s3_bucket_notification", "module.feeds.aws_s3_bucket_notification.source");
    assert_eq!(notification.values["queue"][0]["events"], json!(["s3:ObjectCreated:*"]));
}

#[test]
fn partner_files_are_encrypted_replicated_and_versioned_and_the_partners_table_is_provisioned() {
    let table = only("aws_dynamodb_table", "module.feeds_partners.aws_dynamodb_table.table");
    assert_eq!((&table.values["read_capacity"], &table.values["write_capacity"]), (&json!(5), &json!(2)));
    let at = |kind: &str| format!("module.feeds.module.source.{kind}.bucket");
    let encryption = "aws_s3_bucket_server_side_encryption_configuration";
    assert!(of_kind(encryption).any(|resource| resource.address == at(encryption)));
    let versioning = only("aws_s3_bucket_versioning", &at("aws_s3_bucket_versioning"));
    assert_eq!(versioning.values["versioning_configuration"][0]["status"], "Enabled");
    let replication = "aws_s3_bucket_replication_configuration";
    let replicated = only(replication, &format!("{}[0]", at(replication)));
    let destination = &replicated.values["rule"][0]["destination"][0]["bucket"];
    assert_eq!(destination, "arn:aws:s3:::alert-archive-feeds-replica-123456789012");
}
