use super::Deployment;
use crate::commands::range_of;
use anyhow::Result;
use clap::Args;
use log_entries::{Filter, Group, groups};
use std::process::ExitCode;

#[derive(Args)]
#[command(after_help = "\
Examples:
  alert-archive logs errors --from 2024-07-01 --to 2024-07-02
  alert-archive logs errors --from 2024-07-01T10:00:00Z --to 2024-07-01T12:00:00Z --service shop --json | jq '.[0]'

Errors with the same fingerprint are the same error. Secrets are masked. An entry without a time counts on the date in
its object's key.")]
pub struct Errors {
    /// UTC date or instant, inclusive
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// UTC date or instant, exclusive
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Only this service, the first component of the object's key; may be repeated
    #[arg(long, value_name = "SERVICE")]
    service: Vec<String>,
    /// Only this exception type, category or fingerprint; may be repeated
    #[arg(long = "type", value_name = "TYPE")]
    error_type: Vec<String>,
    /// Print JSON: an array of errors, the most frequent first
    #[arg(long)]
    json: bool,
}

impl Errors {
    pub async fn call(self) -> Result<ExitCode> {
        let (from, to) = range_of(self.from.as_deref(), self.to.as_deref())?;
        let deployment = Deployment::from_env().await?;
        let filter = Filter { from, to, services: self.service, error_types: self.error_type };
        let found = groups(&deployment.archive(), &filter, &deployment.settings().await?.masks).await?;
        if self.json {
            say!("{}", serde_json::to_string_pretty(&found)?);
            return Ok(ExitCode::SUCCESS);
        }
        for group in &found {
            print(group)?;
        }
        let entries: u64 = found.iter().map(|group| group.count).sum();
        say!("{entries} error entries of {} kinds", found.len());
        Ok(ExitCode::SUCCESS)
    }
}

fn print(group: &Group) -> Result<()> {
    let Group { fingerprint, category, service, level, exception, message, count, sample, .. } = group;
    let seen = |time: &Option<String>| time.clone().unwrap_or_else(|| "no time".into());
    let kind = exception.as_deref().map(|exception| format!("{exception}: ")).unwrap_or_default();
    let first_line = message.lines().next().unwrap_or_default();
    say!("{count:>7}  {level:<5}  {service}  {category}  {fingerprint}");
    // Escape sequences in a log must not reach the terminal.
    let text: String =
        format!("{kind}{first_line}").chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(300).collect();
    say!("         {text}");
    say!("         {} to {}; {}:{}", seen(&group.first_seen), seen(&group.last_seen), sample.object, sample.line);
    Ok(())
}
