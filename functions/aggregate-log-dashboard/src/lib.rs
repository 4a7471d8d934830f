//! Writes what the page shows of log errors: a section beside those of the other pipelines.

use aws_config::SdkConfig;
use errors::{Name, Named};
use log_entries::{PAYLOAD, ReportTask};
use logs::LogReport;
use reports::dashboard::{PAGE_KEY, Pipeline, first_page, section_key};
use reports::log_errors::section;
use runtime::{Call, Config, ConfigMissing, Metrics};
use storage::{Objects, StoreError};

/// Means nothing as long as there are no runs.
const SILENT_DAYS: u64 = 8;

pub struct Deps {
    pub archive: Objects,
}

impl Deps {
    pub fn from_env(aws: &SdkConfig) -> Result<Self, ConfigMissing> {
        let mut config = Config::default();
        let deps = Deps { archive: Objects::new(aws, config.required("ALERT_ARCHIVE_BUCKET")) };
        config.check()?;
        Ok(deps)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("payload version {0} is not {PAYLOAD}")]
    Version(u32),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Named for Error {
    fn name(&self) -> Name {
        match self {
            Error::Version(_) => Name::InvalidInput,
            Error::Store(error) => error.name(),
        }
    }
}

pub async fn handle(deps: &Deps, task: ReportTask, call: Call) -> Result<(), Error> {
    if task.v != PAYLOAD {
        return Err(Error::Version(task.v));
    }
    let report: LogReport = deps.archive.get_json(&task.report_key).await?;
    let (section, now) = (section(&report), call.now());
    deps.archive.put_json(&section_key("logs"), &section.published(now)).await?;
    // Where the archive has not run yet, nothing else has written the page.
    if deps.archive.head(PAGE_KEY).await?.is_none() {
        let pipeline = Pipeline { name: "logs".into(), section };
        deps.archive.put(PAGE_KEY, first_page(&[pipeline], SILENT_DAYS, now), "text/html; charset=utf-8").await?;
    }
    let metrics = Metrics::new().dimension("Step", "aggregate-log-dashboard").property("Report", &task.id);
    metrics.duration("Duration", call.took()).write();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use network::Calm;
    use reports::section::Section;
    use runtime::ManualClock;
    use std::time::Duration;
    use storage::MemoryObjects;

    #[tokio::test]
    async fn the_section_is_written_and_the_page_only_where_there_is_none() {
        let archive = Objects::over(MemoryObjects::new(Calm::shared()).bucket("archive"), "archive");
        archive.put_json("r.json", &LogReport::default()).await.expect("stored");
        let deps = Deps { archive };
        let task = || ReportTask { v: PAYLOAD, id: "one".into(), report_key: "r.json".into() };
        let call = Call::new(ManualClock::at(Timestamp::UNIX_EPOCH), Duration::from_secs(60));
        handle(&deps, task(), call.clone()).await.expect("written");
        let section = deps.archive.get("dashboard/data/logs.json").await.expect("written");
        assert_eq!(Section::read(&section).expect("a section").headline, "no errors found.");
        let page = deps.archive.get(PAGE_KEY).await.expect("written");
        assert!(String::from_utf8_lossy(&page).contains("<html"));
        deps.archive.put(PAGE_KEY, "another", "text/html").await.expect("stored");
        handle(&deps, task(), call.clone()).await.expect("written");
        assert_eq!(deps.archive.get(PAGE_KEY).await.expect("there"), "another");
        let old = ReportTask { v: PAYLOAD + 1, ..task() };
        assert_eq!(handle(&deps, old, call).await.expect_err("refused").name(), Name::InvalidInput);
    }
}
