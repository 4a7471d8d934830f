//! Looks whether everything that the archive needs is there, can be reached and may be used, and says what to do about
//! what is not. Starts nothing and writes nothing.

use super::status::overdue;
use crate::{
    archive::{self, Archive},
    explain,
};
use alerts::run::job_run::{RunStatus, last_sign};
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
        in_time("runs", runs(archive, Timestamp::now())),
    );
    vec![looks.0, looks.1, looks.2, looks.3, looks.4]
}

async fn runs(archive: &Archive, now: Timestamp) -> Look {
    const WHAT: &str = "runs";
    let scanned = match archive.job_runs.runs.scan().await {
        Ok(scanned) => scanned,
        Err(error) => return Look::of(WHAT, Err(error)),
    };
    if let Some(error) = scanned.malformed.first() {
        let advice = "A row of job-runs was changed by hand: bring it back from the table's point-in-time recovery.";
        return Look::other(Verdict::Wrong, WHAT, describe(error), advice);
    }
    let silent_days = match archive.silent_days().await {
        Ok(days) => days,
        Err(error) => return Look::of(WHAT, Err(error)),
    };
    if let Some(told) = overdue(&scanned.rows, silent_days, now) {
        let advice = "alert-archive status shows how the last ones ended; look whether the schedule is enabled.";
        return Look::other(Verdict::Look, WHAT, told, advice);
    }
    match last_sign(&scanned.rows) {
        Some((run, at)) if run.status == RunStatus::Completed => {
            Look::ok(WHAT, format!("the last one completed {} ago", reports::count(reports::days(at, now), "day")))
        }
        _ => Look::other(
            Verdict::Look,
            WHAT,
            "none has completed yet",
            "Start one: alert-archive run --from 2024-07-01 --to 2024-10-01 --wait",
        ),
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
    match connected {
        Ok(source) => mapping(&source).await,
        Err(error) => vec![Look::of(WHAT, Err(error))],
    }
}

async fn mapping(source: &OpenSearch) -> Vec<Look> {
    const WHAT: &str = "source";
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
    use crate::commands::given::{archive_over, given};
    use async_trait::async_trait;
    use jiff::SignedDuration;
    use memory_cloud::{Cloud, given::RUN};
    use network::{Broken, Calm, Network, Request};
    use serde_json::json;
    use std::sync::Arc;
    use storage::{Item, StoreError};

    fn states(looks: &[Look]) -> Vec<(&'static str, Verdict)> {
        looks.iter().map(|look| (look.what, look.state)).collect()
    }

    /// A service that does not answer.
    struct Silent(&'static str);

    #[async_trait]
    impl Network for Silent {
        async fn sent(&self, request: &Request) -> Result<(), Broken> {
            if request.service == self.0 { Err(Broken) } else { Ok(()) }
        }
    }

    #[tokio::test]
    async fn each_service_is_looked_at_and_the_one_that_fails_is_named_with_what_to_do() {
        let world = given().await;
        let well = services(&world.archive).await;
        let names = ["bucket", "messages", "windows", "state machine", "runs"];
        assert_eq!(well.iter().map(|look| look.what).collect::<Vec<_>>(), names);
        assert!(well.iter().take(4).all(|look| look.state == Verdict::Ok), "{well:?}");
        for (service, wrong) in [("s3", &["bucket", "runs"][..]), ("states", &["state machine"])] {
            let looks = services(&archive_over(&world.cloud.through(Arc::new(Silent(service))))).await;
            let found: Vec<&Look> = looks.iter().filter(|look| look.state == Verdict::Wrong).collect();
            assert_eq!(found.iter().map(|look| look.what).collect::<Vec<_>>(), wrong, "{service}");
            assert!(found.iter().all(|look| !look.what_to_do.is_empty()), "{found:?}");
        }
    }

    #[tokio::test]
    async fn how_long_runs_may_stay_away_is_what_the_deployment_says() {
        let world = given().await;
        let ended = world.archive.job_runs.get(RUN).await.expect("read").expect("a run").updated_at;
        let after = async |days: i64| runs(&world.archive, ended + SignedDuration::from_hours(24 * days)).await;
        assert_eq!((after(8).await.state, after(9).await.state), (Verdict::Ok, Verdict::Look));
        world.archive.objects.put_json("dashboard/data/runs.json", &json!({"silent_days": 2})).await.expect("written");
        let look = after(3).await;
        assert_eq!(
            (look.state, look.found.as_str()),
            (Verdict::Look, "no run has completed for 3 days; one is due every 2")
        );
        assert!(look.what_to_do.contains("the schedule"));
    }

    #[tokio::test]
    async fn an_archive_without_a_run_is_no_fault_and_a_row_that_cannot_be_read_is_one() {
        let cloud = Cloud::default();
        let archive = archive_over(&cloud);
        let look = runs(&archive, Timestamp::now()).await;
        assert_eq!((look.state, look.found.as_str()), (Verdict::Look, "none has completed yet"));
        let broken: Item = serde_dynamo::to_item(json!({"run_id": "r0", "mode": "no mode"})).expect("an item");
        cloud.tables.plant("job-runs", broken);
        let look = runs(&archive, Timestamp::now()).await;
        assert_eq!(look.state, Verdict::Wrong);
        assert!(look.found.starts_with("row r0 of table job-runs is not readable"), "{look:?}");
    }

    #[tokio::test]
    async fn the_source_is_looked_at_until_something_is_wrong() {
        let world = given().await;
        let looks = mapping(&world.source(Calm::shared())).await;
        assert_eq!(states(&looks), [("source", Verdict::Ok); 4], "{looks:?}");
        world.cloud.node.put("messages", "undated", r#"{"message_id":"undated"}"#);
        let looks = mapping(&world.source(Calm::shared())).await;
        let last = looks.last().expect("a look");
        assert_eq!((last.state, last.found.as_str()), (Verdict::Look, "1 message without a usable timestamp"));
        let looks = mapping(&world.source(Arc::new(Silent("source")))).await;
        assert_eq!(states(&looks), [("source", Verdict::Wrong)], "the same node is not waited for again");
    }

    #[tokio::test]
    async fn no_region_and_no_credentials_are_told_as_what_they_are() {
        let none = SdkConfig::builder().build();
        for look in [region(&none), credentials(&none).await] {
            assert_eq!(look.state, Verdict::Wrong, "{look:?}");
            assert!(look.what_to_do.contains("AWS_"), "{look:?}");
        }
    }

    #[test]
    fn only_what_is_wrong_is_a_fault() {
        let doctor = Doctor { json: true };
        let of = |state| [Look::ok("bucket", "there"), Look::other(state, "runs", "none", "Start one")];
        assert!(doctor.print(&of(Verdict::Look)).expect("told") && doctor.print(&of(Verdict::Skipped)).expect("told"));
        assert!(!doctor.print(&of(Verdict::Wrong)).expect("told"));
    }

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
