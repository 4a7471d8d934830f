//! Adds up what the partner feeds came to, every hour, and puts it where the page shows it and the weekly mail finds
//! it.

use aws_config::SdkConfig;
use errors::{Name, Named};
use feeds::{Batch, FeedFile, FeedsStatus, Totals, protocol::BLOCKED_INDEX};
use jiff::SignedDuration;
use queue::{Queue, QueueError};
use reports::{dashboard::section_key, feeds::section};
use runtime::{Call, Config, ConfigMissing};
use serde::Deserialize;
use storage::{LedgerError, Objects, StoreError, Table};

/// What counts as recent.
const WEEK: SignedDuration = SignedDuration::from_hours(7 * 24);

pub struct Deps {
    pub archive: Objects,
    pub batches: Table<Batch>,
    pub files: Table<FeedFile>,
    pub queue: Queue,
    pub dead: Queue,
}

impl Deps {
    pub fn from_env(aws: &SdkConfig) -> Result<Self, ConfigMissing> {
        let mut config = Config::default();
        let deps = Deps {
            archive: Objects::new(aws, config.required("ALERT_ARCHIVE_BUCKET")),
            batches: Table::new(aws, config.required("ALERT_ARCHIVE_FEED_BATCHES_TABLE")),
            files: Table::new(aws, config.required("ALERT_ARCHIVE_FEED_FILES_TABLE")),
            queue: Queue::new(aws, config.required("ALERT_ARCHIVE_FEEDS_QUEUE_URL")),
            dead: Queue::new(aws, config.required("ALERT_ARCHIVE_FEEDS_DLQ_URL")),
        };
        config.check()?;
        Ok(deps)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Queue(#[from] QueueError),
}

impl Named for Error {
    fn name(&self) -> Name {
        match self {
            Error::Ledger(error) => error.name(),
            Error::Store(error) => error.name(),
            Error::Queue(error) => error.name(),
        }
    }
}

/// What the schedule sends; nothing in it matters.
#[derive(Debug, Deserialize)]
pub struct Request {}

pub async fn handle(deps: &Deps, _request: Request, call: Call) -> Result<FeedsStatus, Error> {
    let since = call.now() - WEEK;
    let mut totals = Totals::default();
    deps.batches.for_each(|batch| totals.add(&batch, since)).await?;
    let blocked = deps.files.count(BLOCKED_INDEX, (BLOCKED_INDEX, BLOCKED_INDEX), "state", "Blocked").await?;
    let (waiting, failed) = (deps.queue.depth().await?.total(), deps.dead.depth().await?.total());
    let status = FeedsStatus::new(&totals, blocked, waiting, failed);
    deps.archive.put_json(&section_key("feeds"), &section(&status, &totals.recent).published(call.now())).await?;
    Ok(status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use feeds::{BatchCounts, Plan};
    use jiff::Timestamp;
    use ledger::Keyed;
    use network::Calm;
    use queue::MemoryQueues;
    use reports::section::{Section, State};
    use runtime::ManualClock;
    use std::time::Duration;
    use storage::{MemoryObjects, MemoryTables};

    #[tokio::test]
    async fn the_page_and_the_mail_get_what_came_out_and_what_failed() {
        let now: Timestamp = "2026-11-22T06:00:00Z".parse().expect("an instant");
        let tables = MemoryTables::new(Calm::shared()).table("batches", "batch", None);
        let tables =
            tables.table("files", "object", Some("version")).index("files", BLOCKED_INDEX, BLOCKED_INDEX, "state");
        let batches: Table<Batch> = Table::over(tables.clone(), "batches");
        for (name, days, records) in [("new", 1, 7), ("old", 30, 100)] {
            let at = now - SignedDuration::from_hours(24 * days);
            let counts = BatchCounts { objects: 2, records, outputs: 1, ..BatchCounts::default() };
            let plan = Plan { key: "k".into(), counts, oldest: at };
            let batch = Batch::begin(name, at);
            let work = batch.work.prepare(1, plan, at).and_then(|work| work.complete(1, at)).expect("its own");
            assert!(batches.put(&Batch { work, ..batch }.revised(1)).await.expect("written"));
        }
        let queues = MemoryQueues::default();
        queues.put("dead", "a message");
        let objects = MemoryObjects::new(Calm::shared()).bucket("archive");
        let deps = Deps {
            archive: Objects::over(objects.clone(), "archive"),
            batches,
            files: Table::over(tables, "files"),
            queue: Queue::over(queues.clone(), "live"),
            dead: Queue::over(queues, "dead"),
        };
        let call = Call::new(ManualClock::at(now), Duration::from_secs(60));
        let status = handle(&deps, Request {}, call).await.expect("reported");
        assert_eq!((status.objects, status.records, status.waiting, status.failed), (4, 107, 0, 1));
        let published = objects.contents("archive").remove(&section_key("feeds")).expect("written");
        let section = Section::read(&published).expect("a section");
        assert_eq!(section.headline, "1 message failed ten times. 2 files came out as 1 object.");
        assert_eq!(section.state, State::Bad);
    }
}
