use super::Deployment;
use anyhow::Result;
use clap::Args;
use queue::Message;
use std::process::ExitCode;

#[derive(Args)]
#[command(after_help = "\
Examples:
  alert-archive logs replay-dlq --dry-run
  alert-archive logs replay-dlq

A log that was extracted meanwhile stays as it is.")]
pub struct ReplayDlq {
    /// Only list the logs
    #[arg(long)]
    dry_run: bool,
    /// Print JSON: one object
    #[arg(long)]
    json: bool,
}

impl ReplayDlq {
    pub async fn call(self) -> Result<ExitCode> {
        let deployment = Deployment::from_env().await?;
        let (mut messages, mut objects) = (0_u64, Vec::new());
        let mut look = |message: &Message| {
            messages += 1;
            let events = events::s3::read(message.body.as_bytes()).unwrap_or_default();
            objects.extend(events.into_iter().flatten().map(|event| event.key));
        };
        if self.dry_run {
            deployment.dead_letters().peek(&mut look).await?;
        } else {
            deployment.dead_letters().replay_to(&deployment.queue(), &mut look).await?;
        }
        if self.json {
            let replayed = if self.dry_run { 0 } else { messages };
            let report = serde_json::json!({"messages": messages, "replayed": replayed, "objects": objects});
            say!("{}", serde_json::to_string_pretty(&report)?);
            return Ok(ExitCode::SUCCESS);
        }
        for object in &objects {
            say!("{object}");
        }
        if self.dry_run {
            say!("{messages} messages are in the dead-letter queue; without --dry-run they are delivered again");
        } else {
            say!("{messages} messages are delivered again; follow them with: alert-archive logs status");
        }
        Ok(ExitCode::SUCCESS)
    }
}
