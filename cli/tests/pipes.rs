//! What the command line does when the reader of what it tells has gone away, as behind `| head`.

use std::path::Path;
use std::process::{Command, Output, Stdio};

fn alert_archive(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_alert-archive"));
    // Nothing of a deployment.
    command.args(arguments).env_clear();
    command
}

fn unread() -> Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

/// Its exit code, and that it says nothing of the pipe.
fn code_of(output: &Output) -> Option<i32> {
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!told.contains("panicked") && !told.contains("pipe"), "{told}");
    output.status.code()
}

#[test]
fn the_exit_code_tells_how_it_went_although_no_one_reads_what_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let wrong = folder.path().join("wrong.yaml");
    std::fs::write(&wrong, "version: 2\n").expect("a file");
    let right = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/warehouse/orders.yaml");
    for (file, expected) in [(right.as_path(), 0), (&wrong, 1)] {
        let file = file.to_str().expect("a path in UTF-8");
        for arguments in [&["warehouse", "check", file, "--json"][..], &["warehouse", "check", file]] {
            let output = alert_archive(arguments).stdout(unread()).output().expect("it runs");
            assert_eq!(code_of(&output), Some(expected), "{arguments:?}");
        }
    }
}

#[test]
fn no_reader_of_standard_error_is_no_reason_to_panic() {
    let status = alert_archive(&["status"]).stderr(unread()).status().expect("it runs");
    assert_eq!(status.code(), Some(1), "nothing is deployed");
}

#[test]
fn a_script_that_no_one_takes_is_not_handed_over() {
    let output = alert_archive(&["completions", "bash"]).stdout(unread()).output().expect("it runs");
    assert_eq!(code_of(&output), Some(1));
    assert!(output.stderr.is_empty(), "quiet");
    let whole = alert_archive(&["completions", "bash"]).output().expect("it runs");
    assert!(whole.status.success() && whole.stdout.len() > 10_000);
}
