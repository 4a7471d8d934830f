//! Writes the page of log errors, and the figures behind it, beside the archive's dashboard.

use aws_config::SdkConfig;
use errors::{Name, Named};
use log_entries::{PAYLOAD, ReportTask};
use logs::LogReport;
use reports::log_errors::log_errors;
use runtime::{Call, Config, ConfigMissing};
use storage::{Objects, StoreError};

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
    #[error("the page cannot be made")]
    Render(#[from] reports::log_errors::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Named for Error {
    fn name(&self) -> Name {
        match self {
            Error::Version(_) => Name::InvalidInput,
            Error::Render(_) => Name::MailRejected,
            Error::Store(error) => error.name(),
        }
    }
}

pub async fn handle(deps: &Deps, task: ReportTask, _: Call) -> Result<(), Error> {
    if task.v != PAYLOAD {
        return Err(Error::Version(task.v));
    }
    let report: LogReport = deps.archive.get_json(&task.report_key).await?;
    let page = log_errors(&report, false, None)?.html;
    deps.archive.put("dashboard/log-errors.html", page, "text/html; charset=utf-8").await?;
    deps.archive.put_json("dashboard/data/log-errors.json", &report).await?;
    Ok(())
}
