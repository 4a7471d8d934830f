//! The commit that the command is built from, for `--version`.

use std::process::Command;

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

fn main() {
    // Outside a checkout, such as in an archive of the sources, nothing is known.
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "commit not known".into());
    println!("cargo:rustc-env=ALERT_ARCHIVE_COMMIT={commit}");
    println!("cargo:rerun-if-changed=build.rs");
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo:rerun-if-changed={log}");
    }
}
