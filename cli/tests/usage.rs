//! What the command line does not understand: exit code 2, before anything is asked.

use std::process::Command;

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
