//! `alert-archive`: what an operator and a script call, on the local cloud and on AWS alike.

/// Prints a line. Ids, reasons and messages are other people's words: none of them acts on the terminal.
macro_rules! say {
    ($($text:tt)*) => { $crate::print::unless_unread($crate::print::line(&format!($($text)*)))? };
}

/// The same on standard error, in the place of the macro that every command knows, which panics when its reader has
/// gone away.
macro_rules! eprintln {
    ($($text:tt)*) => { $crate::print::aside(&format!($($text)*)) };
}

mod archive;
mod commands;
mod explain;
mod print;

use archive::Archive;
use clap::{CommandFactory, Parser, Subcommand};
use errors::{Name, Named};
use std::io::Write;
use std::process::ExitCode;

/// Archives closed alert messages from OpenSearch to S3, and tells what became of each.
#[derive(Parser)]
#[command(
    version = concat!(env!("CARGO_PKG_VERSION"), " (", env!("ALERT_ARCHIVE_COMMIT"), ")"),
    propagate_version = true,
    max_term_width = 110,
    after_help = "\
Examples:
  alert-archive run --from 2024-07-01 --to 2024-10-01 --wait
  alert-archive status --json
  alert-archive rerun latest --wait

The archive is found through ALERT_ARCHIVE_BUCKET, ALERT_ARCHIVE_JOB_RUNS_TABLE, ALERT_ARCHIVE_WINDOWS_TABLE,
ALERT_ARCHIVE_MESSAGE_TRACKING_TABLE and ALERT_ARCHIVE_STATE_MACHINE_ARN, and AWS as by any AWS tool.
In a checkout of the project, eval \"$(make -s env)\" sets them all for the local cloud.

A run is named by its id, by the beginning of it, or by `latest`. Dates are UTC: 2024-07-01, 2024-07 (its first day),
2024-07-01T12:00:00Z, today, yesterday, 7d (seven days ago), now.

Exit code: 0 when all went well (a run is completed, and everything is accounted for), 1 when something did not,
2 when the command was not understood, 3 when what it names does not exist."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a run over a range of message timestamps
    Run(commands::run::Run),
    /// Follow a run until it ends
    Watch(commands::watch::Watch),
    /// Show a run's report, or all runs, newest first
    Status(commands::status::Status),
    /// Run the failed windows of a run again
    Rerun(commands::rerun::Rerun),
    /// Stop a run that is at work
    Cancel(commands::cancel::Cancel),
    /// Show where the next scheduled run begins, or correct it
    Watermark(commands::watermark::Watermark),
    /// Set a window aside that keeps failing, with a reason, so that the run can end
    Skip(commands::skip::Skip),
    /// Compare source, ledger, manifests and objects; name everything that differs
    Verify(commands::verify::Verify),
    /// Delete from the source what is proved to be archived
    Purge(commands::purge::Purge),
    /// Tell where a message is
    Find(commands::find::Find),
    /// List messages that are held over because an alert is open
    Open(commands::open::Open),
    /// List messages in quarantine, show one, exclude one from its window, or release one
    Quarantine(commands::quarantine::Quarantine),
    /// Bring messages back, into an index or a file, byte for byte
    Restore(commands::restore::Restore),
    /// Ingest a database, and build dimensions and facts from it
    Warehouse(commands::warehouse::Warehouse),
    /// Errors found in the gz logs in S3, and the logs themselves
    Logs(commands::logs::Logs),
    /// Partner feeds: count, trace a file, deliver failed messages again
    Feeds(commands::feeds::Feeds),
    /// Estimate what archiving a range costs, and tell what runs have used
    Cost(commands::cost::CostOf),
    /// Look whether all that the archive needs is there and can be reached
    Doctor(commands::doctor::Doctor),
    /// Print a script that completes commands in a shell
    #[command(after_help = "Example:\n  source <(alert-archive completions bash)")]
    Completions { shell: clap_complete::Shell },
}

impl Command {
    /// Whether it starts a run or follows one.
    fn has_run(&self) -> bool {
        match self {
            Command::Run(command) => command.has_run(),
            Command::Quarantine(command) => command.has_run(),
            Command::Watch(_) | Command::Rerun(_) => true,
            _ => false,
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let has_run = cli.command.has_run();
    let outcome = tokio::select! {
        outcome = dispatch(cli.command) => outcome,
        _ = tokio::signal::ctrl_c() => {
            // A run goes on in the cloud; only the command ends.
            match has_run {
                true => eprintln!("stopped; the run goes on. Come back to it with: alert-archive watch latest"),
                false => eprintln!("stopped"),
            }
            return ExitCode::from(130);
        }
    };
    match outcome {
        Ok(code) => code,
        // What was asked for is what the reader did not take: quiet, but not well.
        Err(error) if is_closed_pipe(&error) => ExitCode::FAILURE,
        Err(error) => {
            let what = explain::what(error.as_ref());
            eprintln!("error: {what}");
            if let Some(name) = name_of(&error) {
                eprintln!("what to do: {}", explain::what_to_do(&what, name));
            }
            if error.is::<commands::Usage>() {
                ExitCode::from(2)
            } else if error.is::<archive::NotFound>() {
                ExitCode::from(3)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

/// The stable name of an error, where it has one.
fn name_of(error: &anyhow::Error) -> Option<Name> {
    error.chain().find_map(|cause| {
        let of_store = cause.downcast_ref::<storage::StoreError>().map(Named::name);
        let of_table = || cause.downcast_ref::<storage::LedgerError>().map(Named::name);
        let of_source = || cause.downcast_ref::<sources::SourceError>().map(Named::name);
        let of_workflow = || cause.downcast_ref::<workflow::WorkflowError>().map(Named::name);
        let of_verify = || cause.downcast_ref::<verify::Error>().and_then(verify::Error::name);
        of_store.or_else(of_table).or_else(of_source).or_else(of_workflow).or_else(of_verify)
    })
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Each command asks for the configuration that it needs.
async fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    let went_well = match command {
        Command::Run(command) => command.call(&Archive::from_env(archive::RUNS).await?).await,
        Command::Watch(command) => command.call(&Archive::from_env(archive::RUNS).await?).await,
        Command::Status(command) => {
            let archive = Archive::from_env(command.needs()).await?;
            command.call(&archive).await
        }
        Command::Rerun(command) => command.call(&Archive::from_env(archive::RUNS).await?).await,
        Command::Cancel(command) => command.call(&Archive::from_env(archive::RUNS).await?).await,
        Command::Watermark(command) => command.call(&Archive::from_env(&[archive::JOB_RUNS]).await?).await,
        Command::Skip(command) => command.call(&Archive::from_env(&[archive::JOB_RUNS, archive::WINDOWS]).await?).await,
        Command::Verify(command) => command.call(&Archive::from_env(archive::ALL).await?).await,
        Command::Purge(command) => command.call(&Archive::from_env(archive::ALL).await?).await,
        Command::Find(command) => command.call(&Archive::from_env(&[archive::TRACKING]).await?).await,
        Command::Open(command) => command.call(&Archive::from_env(&[archive::TRACKING]).await?).await,
        Command::Quarantine(command) => command.call(&Archive::from_env(archive::ALL).await?).await,
        Command::Restore(command) => {
            command.call(&Archive::from_env(&[archive::BUCKET, archive::TRACKING]).await?).await
        }
        Command::Warehouse(command) => command.call().await,
        Command::Feeds(command) => command.call().await,
        Command::Cost(command) => command.call(&Archive::from_env(&[archive::BUCKET, archive::JOB_RUNS]).await?).await,
        Command::Doctor(command) => command.call().await,
        Command::Completions { shell } => {
            // Into memory first: the generator panics when its reader has gone away.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "alert-archive", &mut script);
            std::io::stdout().write_all(&script)?;
            Ok(true)
        }
        Command::Logs(command) => return command.call().await,
    };
    Ok(if went_well? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_command_that_has_a_run_tells_that_it_goes_on() {
        let has_run = |arguments: &str| {
            let arguments = format!("alert-archive {arguments}");
            Cli::try_parse_from(arguments.split(' ')).expect("understood").command.has_run()
        };
        for with in ["run --mode recheck --wait", "watch", "rerun latest", "quarantine release MSG-17"] {
            assert!(has_run(with), "{with}");
        }
        for without in [
            "run --from 2024-07 --to 2024-08 --dry-run",
            "verify --deep",
            "logs search disk --from 2024-07-01 --to 2024-07-02",
            "feeds status",
            "quarantine",
            "quarantine release MSG-17 --dry-run",
        ] {
            assert!(!has_run(without), "{without}");
        }
    }
}
