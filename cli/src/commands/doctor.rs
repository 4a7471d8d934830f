//! Looks whether everything that the archive needs is there, can be reached and may be used, and says what to do about
//! what is not. Starts nothing and writes nothing.

use crate::{
    archive::{self, Archive},
    explain,
};
use alerts::run::job_run::RunStatus;
use anyhow::Result;
use aws_config::SdkConfig;
use aws_credential_types::provider::ProvideCredentials;
use clap::Args;
use errors::{Named, describe};
use jiff::Timestamp;
use mail::Ses;
use runtime::Config;
use serde::Serialize;
use sources::{Auth, Indices, OpenSearch};
use std::time::Duration;

/// For one look: what does not answer by then is out of reach.
const PATIENCE: Duration = Duration::from_secs(15);
/// Days without a completed run after which a weekly schedule is overdue.
const SILENT_DAYS: u64 = 8;

#[derive(Args)]
#[command(after_help = "\
Examples:
  alert-archive doctor
  alert-archive doctor --json | jq '.[] | select(.state != \"ok\")'

Whether functions may do what they have to is not tried: they have roles of their own, and `terraform plan` shows them.
Exit code 0 when nothing is wrong; what is only worth a look is no fault.")]
pub struct Doctor {
    /// Print JSON: an array of what was looked at
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Ok,
    /// Not wrong by itself.
    Look,
    Wrong,
    /// It could not be looked at.
    Skipped,
}

#[derive(Debug, Serialize)]
struct Look {
    what: &'static str,
    state: Verdict,
    found: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    what_to_do: String,
}

impl Look {
    fn ok(what: &'static str, found: impl Into<String>) -> Self {
        Look { what, state: Verdict::Ok, found: found.into(), what_to_do: String::new() }
    }

    fn other(state: Verdict, what: &'static str, found: impl Into<String>, what_to_do: impl Into<String>) -> Self {
        Look { what, state, found: found.into(), what_to_do: what_to_do.into() }
    }

    /// An error of ours brings its advice along.
    fn of<E: Named + 'static>(what: &'static str, answer: Result<String, E>) -> Self {
        match answer {
            Ok(found) => Look::ok(what, found),
            Err(error) => {
                let name = error.name();
                let found = explain::what(&error);
                let advice = explain::what_to_do(&found, name);
                Look::other(Verdict::Wrong, what, format!("{name}: {found}"), advice)
            }
        }
    }
}

async fn in_time(what: &'static str, look: impl Future<Output = Look>) -> Look {
    within(PATIENCE, what, look).await
}

async fn within(patience: Duration, what: &'static str, look: impl Future<Output = Look>) -> Look {
    tokio::time::timeout(patience, look).await.unwrap_or_else(|_| {
        let found = format!("no answer within {} s", patience.as_secs());
        let advice =
            "Look at the address (AWS_ENDPOINT_URL, OPENSEARCH_URL), the network, and security groups between.";
        Look::other(Verdict::Wrong, what, found, advice)
    })
}

impl Doctor {
    pub async fn call(self) -> Result<bool> {
        let mut looks = Vec::new();
        let mut config = Config::default();
        for variable in archive::ALL {
            config.required(variable);
        }
        let named = config.check();
        let is_named = named.is_ok();
        looks.push(match named {
            Ok(()) => Look::ok("configuration", "bucket, tables and state machine are named"),
            Err(error) => Look::other(
                Verdict::Wrong,
                "configuration",
                error.to_string(),
                "In a checkout, run eval \"$(make -s env)\"; on AWS, export what `terraform output` says.",
            ),
        });
        let aws = runtime::aws_config().await;
        looks.push(region(&aws));
        let credentials = in_time("credentials", credentials(&aws)).await;
        let has_credentials = credentials.state == Verdict::Ok;
        looks.push(credentials);
        if is_named && has_credentials && aws.region().is_some() {
            let archive = Archive::from_env(archive::ALL).await?;
            looks.extend(services(&archive).await);
            looks.push(in_time("mail", mail_sender(&archive.aws)).await);
        } else {
            let found = "bucket, tables, state machine and mail were not looked at";
            looks.push(Look::other(Verdict::Skipped, "AWS", found, "Put right what is wrong above, then ask again."));
        }
        looks.extend(source(&aws).await);
        self.print(&looks)
    }

    fn print(&self, looks: &[Look]) -> Result<bool> {
        let wrong = looks.iter().filter(|look| matches!(look.state, Verdict::Wrong)).count();
        if self.json {
            say!("{}", serde_json::to_string_pretty(looks)?);
            return Ok(wrong == 0);
        }
        for Look { what, state, found, what_to_do } in looks {
            let mark = match state {
                Verdict::Ok => "ok",
                Verdict::Look => "! ",
                Verdict::Wrong => "X ",
                Verdict::Skipped => "- ",
            };
            say!("{mark} {what:<14} {found}");
            if !what_to_do.is_empty() {
                say!("{:17} what to do: {what_to_do}", "");
            }
        }
        match wrong {
            0 => say!("\nNothing is wrong."),
            wrong => say!("\n{} wrong.", reports::count(wrong as u64, "thing")),
        }
        Ok(wrong == 0)
    }
}

fn region(aws: &SdkConfig) -> Look {
    match aws.region() {
        Some(region) => Look::ok("region", region.as_ref()),
        None => Look::other(
            Verdict::Wrong,
            "region",
            "none is set",
            "Set AWS_REGION to where the archive is deployed, such as eu-central-1.",
        ),
    }
}

async fn credentials(aws: &SdkConfig) -> Look {
    const WHAT: &str = "credentials";
    const ADVICE: &str = "Log in again, or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.";
    let Some(provider) = aws.credentials_provider() else {
        return Look::other(Verdict::Wrong, WHAT, "there are none", ADVICE);
    };
    match provider.provide_credentials().await {
        Err(error) => Look::other(Verdict::Wrong, WHAT, describe(&error), ADVICE),
        Ok(found) => match found.expiry() {
            Some(at) if at <= std::time::SystemTime::now() => {
                Look::other(Verdict::Wrong, WHAT, "they have expired", ADVICE)
            }
            _ => Look::ok(WHAT, "found"),
        },
    }
}

/// Bucket, tables, state machine, and how the runs are doing.
async fn services(archive: &Archive) -> Vec<Look> {
    let bucket = async {
        let listed = archive.objects.list("dashboard/").await;
        Look::of("bucket", listed.map(|_| format!("{} can be listed", archive.objects.uri(""))))
    };
    let tracking = async {
        let row = archive.ledger.rows.get("no message", Some("no index")).await;
        Look::of("messages", row.map(|_| format!("table {} can be read", archive.ledger.rows.name())))
    };
    let windows = async {
        let rows = archive.windows.rows.partition("no run").await;
        Look::of("windows", rows.map(|_| format!("table {} can be read", archive.windows.rows.name())))
    };
    let machine = async {
        // Step Functions tells a missing execution from what may not be asked; a missing state machine it does not
        // tell.
        let running = archive.workflow.is_running(&archive.execution_arn("no-such-execution")).await;
        Look::of("state machine", running.map(|_| format!("{} can be asked", archive.state_machine_arn)))
    };
    let looks = futures::join!(
        in_time("bucket", bucket),
        in_time("messages", tracking),
        in_time("windows", windows),
        in_time("state machine", machine),
        in_time("runs", runs(archive)),
    );
    vec![looks.0, looks.1, looks.2, looks.3, looks.4]
}

async fn runs(archive: &Archive) -> Look {
    const WHAT: &str = "runs";
    let scanned = match archive.job_runs.runs.scan().await {
        Ok(scanned) => scanned,
        Err(error) => return Look::of(WHAT, Err(error)),
    };
    if let Some(error) = scanned.malformed.first() {
        let advice = "A row of job-runs was changed by hand: bring it back from the table's point-in-time recovery.";
        return Look::other(Verdict::Wrong, WHAT, describe(error), advice);
    }
    let completed = scanned.rows.iter().filter(|run| run.status == RunStatus::Completed).map(|run| run.updated_at);
    let days = completed.max().map(|at| reports::days(at, Timestamp::now()));
    match days {
        None => Look::other(
            Verdict::Look,
            WHAT,
            "none has completed yet",
            "Start one: alert-archive run --from 2024-07-01 --to 2024-10-01 --wait",
        ),
        Some(days) if days > SILENT_DAYS => Look::other(
            Verdict::Look,
            WHAT,
            format!("none has completed for {}", reports::count(days, "day")),
            "alert-archive status shows how the last ones ended; look whether the schedule is enabled.",
        ),
        Some(days) => Look::ok(WHAT, format!("the last one completed {} ago", reports::count(days, "day"))),
    }
}

/// Whether SES lets the archive's sender send.
async fn mail_sender(aws: &SdkConfig) -> Look {
    const WHAT: &str = "mail";
    let Some(from) = Config::default().optional("ALERT_ARCHIVE_MAIL_FROM") else {
        let found = "the sender was not looked at: ALERT_ARCHIVE_MAIL_FROM is not set";
        return Look::other(Verdict::Skipped, WHAT, found, "Export what `terraform output archive_environment` says.");
    };
    match Ses::new(aws).is_verified(&from).await {
        Ok(true) => Look::ok(WHAT, format!("SES has verified {from}")),
        Ok(false) => Look::other(
            Verdict::Wrong,
            WHAT,
            format!("SES has not verified {from}, nor its domain"),
            "Follow the link in the mail that SES sent to that address, or set up the domain's DKIM records.",
        ),
        Err(error) => Look::of(WHAT, Err(error)),
    }
}

/// The source: reachable, and mapped as the archive needs it.
async fn source(aws: &SdkConfig) -> Vec<Look> {
    const WHAT: &str = "source";
    let mut config = Config::default();
    let Some(url) = config.optional("OPENSEARCH_URL") else {
        let found = "it was not looked at: OPENSEARCH_URL is not set";
        return vec![Look::other(Verdict::Skipped, WHAT, found, "Set it to look at the mapping from here.")];
    };
    let (auth, indices) = (Auth::from_env(&mut config, aws), Indices::from_env(&mut config));
    let connected = match config.check() {
        Ok(()) => OpenSearch::connect(&url, auth, aws, indices),
        Err(error) => {
            return vec![Look::other(Verdict::Wrong, WHAT, error.to_string(), "Correct the variable.")];
        }
    };
    let source = match connected {
        Ok(source) => source,
        Err(error) => return vec![Look::of(WHAT, Err(error))],
    };
    let mut looks = Vec::new();
    for (what, index) in [
        ("messages", source.indices.messages.clone()),
        ("history", source.indices.history.clone()),
        ("audit", source.indices.audit.clone()),
    ] {
        let mapping = async {
            let told = |_| format!("{what} stand in `{index}`, mapped as they must be");
            Look::of(WHAT, source.check_mapping(&index).await.map(told))
        };
        looks.push(in_time(WHAT, mapping).await);
        // The same node would be waited for once more.
        if looks.last().is_some_and(|look| look.state == Verdict::Wrong) {
            return looks;
        }
    }
    let undated = async {
        match source.undated().await {
            Ok(0) => Look::ok(WHAT, "every message has a timestamp"),
            Ok(undated) => Look::other(
                Verdict::Look,
                WHAT,
                format!("{} without a usable timestamp", reports::count(undated, "message")),
                "No window holds them: give them a timestamp, or keep them elsewhere.",
            ),
            Err(error) => Look::of(WHAT, Err(error)),
        }
    };
    looks.push(in_time(WHAT, undated).await);
    looks
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage::StoreError;

    #[tokio::test]
    async fn what_does_not_answer_is_told_and_not_waited_for() {
        let look = within(Duration::ZERO, "bucket", std::future::pending()).await;
        assert_eq!((look.state, look.found.as_str()), (Verdict::Wrong, "no answer within 0 s"));
        assert!(!look.what_to_do.is_empty());
    }

    #[test]
    fn an_error_brings_its_advice_along() {
        let missing = StoreError::Missing { bucket: "b".into(), key: "k".into() };
        let look = Look::of("bucket", Err(missing));
        assert!(look.found.starts_with("ObjectMissing: ") && !look.what_to_do.is_empty(), "{look:?}");
    }
}
