//! `alert-archive logs`: errors found in logs, and the logs themselves.

mod errors;
mod replay;
mod search;
mod status;

use crate::archive;
use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use log_entries::{LogObject, SETTINGS};
use logs::Settings;
use queue::Queue;
use runtime::Config;
use std::process::ExitCode;
use storage::{Objects, Table};

#[derive(Args)]
pub struct Logs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List errors of a time range, the most frequent first
    Errors(errors::Errors),
    /// Deliver again what failed too often, once its cause is gone
    ReplayDlq(replay::ReplayDlq),
    /// Search the gz logs in S3 for a text
    Search(search::Search),
    /// Tell what was extracted, what is damaged, and what waits
    Status(status::Status),
}

impl Logs {
    pub async fn call(self) -> Result<ExitCode> {
        match self.command {
            Command::Errors(command) => command.call().await,
            Command::ReplayDlq(command) => command.call().await,
            Command::Search(command) => command.call().await,
            Command::Status(command) => command.call().await,
        }
    }
}

/// What is deployed of the log error report, as far as a command needs it.
struct Deployment {
    aws: aws_config::SdkConfig,
    names: Names,
}

struct Names {
    archive: String,
    logs: String,
    objects: String,
    queue: String,
    dead: String,
}

impl Deployment {
    async fn from_env() -> Result<Self> {
        let mut config = Config::default();
        let names = Names {
            archive: config.required("ALERT_ARCHIVE_BUCKET"),
            logs: config.required("ALERT_ARCHIVE_LOGS_BUCKET"),
            objects: config.required("ALERT_ARCHIVE_LOG_OBJECTS_TABLE"),
            queue: config.required("ALERT_ARCHIVE_LOGS_QUEUE_URL"),
            dead: config.required("ALERT_ARCHIVE_LOGS_DLQ_URL"),
        };
        config.check().context("the log error report is not named; in a checkout, run: eval \"$(make -s env)\"")?;
        Ok(Deployment { aws: archive::aws().await?, names })
    }

    fn archive(&self) -> Objects {
        Objects::new(&self.aws, self.names.archive.clone())
    }

    fn logs(&self) -> Objects {
        Objects::new(&self.aws, self.names.logs.clone())
    }

    fn objects(&self) -> Table<LogObject> {
        Table::new(&self.aws, self.names.objects.clone())
    }

    fn queue(&self) -> Queue {
        Queue::new(&self.aws, self.names.queue.clone())
    }

    fn dead_letters(&self) -> Queue {
        Queue::new(&self.aws, self.names.dead.clone())
    }

    /// The deployment's patterns, for masks and for the times in lines.
    async fn settings(&self) -> Result<Settings> {
        let archive = self.archive();
        let Some(body) = archive.find(SETTINGS).await? else { return Ok(Settings::built_in()) };
        let text = std::str::from_utf8(&body).with_context(|| format!("{SETTINGS} is not UTF-8"))?;
        Settings::parse(text).with_context(|| archive.uri(SETTINGS))
    }
}
