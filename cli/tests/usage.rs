//! What the command line does not understand, and what it cannot begin: told before anything is asked.

use std::process::Command;

#[test]
fn a_region_that_is_missing_is_told_by_each_command_that_needs_one() {
    for arguments in [&["status"][..], &["feeds", "status"], &["logs", "status"], &["warehouse", "status"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_alert-archive"));
        command.args(arguments).env_clear().env("AWS_EC2_METADATA_DISABLED", "true");
        for variable in [
            "BUCKET",
            "JOB_RUNS_TABLE",
            "FEEDS_SOURCE_BUCKET",
            "FEEDS_BUCKET",
            "FEED_FILES_TABLE",
            "FEED_BATCHES_TABLE",
            "FEEDS_PARTNERS_TABLE",
            "FEEDS_QUEUE_URL",
            "FEEDS_DLQ_URL",
            "LOGS_BUCKET",
            "LOG_OBJECTS_TABLE",
            "LOGS_QUEUE_URL",
            "LOGS_DLQ_URL",
            "INGESTION_BUCKET",
            "WAREHOUSE_BUCKET",
            "WAREHOUSE_TABLE",
        ] {
            command.env(format!("ALERT_ARCHIVE_{variable}"), "there");
        }
        let output = command.output().expect("it runs");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.starts_with("error: no AWS region is set; set AWS_REGION"), "{arguments:?}: {told}");
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    }
}

#[test]
fn an_empty_id_names_nothing() {
    for arguments in [
        &["find", ""][..],
        &["quarantine", "show", ""],
        &["quarantine", "release", "m", ""],
        &["restore", "--id", "", "--out", "-"],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_alert-archive")).args(arguments).output().expect("it runs");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}
