//! Takes the messages that S3 sends for new partner files, and puts the files' records into objects of at most 500 KB.
//! Each record comes out once; why is said in [`feeds::protocol`], whose steps the modules here carry out.

mod carry_out;
mod consolidate;
mod deliveries;
mod partners;
mod round;

pub use deliveries::Report;
pub use partners::Partners;

use aws_config::SdkConfig;
use errors::{Name, Named};
use events::{s3::NotificationError, sqs};
use feeds::{Batch, FeedFile, Format, KeyError, Numbers, protocol::MOST_OUTPUTS};
use jiff::Timestamp;
use runtime::{Call, Config, ConfigMissing};
use std::time::Duration;
use storage::{LedgerError, Objects, StoreError, Table};

/// Where the function reads and writes.
pub struct Deps {
    pub source: Objects,
    pub feeds: Objects,
    /// Intents and staged bytes: nothing but outputs and quarantine may lie in the feeds' own bucket.
    pub archive: Objects,
    pub files: Table<FeedFile>,
    pub batches: Table<Batch>,
    pub numbers: Table<Numbers>,
    pub partners: Partners,
    pub format: Format,
    pub limits: Limits,
}

/// What bounds the memory, and with it the size of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A round ends when its outputs hold so many bytes.
    pub round_bytes: usize,
    /// A round ends when it has so many outputs.
    pub round_outputs: usize,
    /// Files of a round.
    pub round_files: usize,
    /// A round reads for so long, and at least one line.
    pub round_time: Duration,
    /// A line of more bytes is no record.
    pub line_bytes: usize,
    /// How long a call waits for files that another function holds.
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            round_bytes: 16 << 20,
            round_outputs: MOST_OUTPUTS as usize,
            round_files: 2_000,
            // Half a lease: the other half is for what comes after.
            round_time: Duration::from_secs(10),
            line_bytes: 128 << 20,
            // A lease lasts 20 seconds.
            patience: Duration::from_secs(30),
        }
    }
}

impl Deps {
    pub fn from_env(aws: &SdkConfig) -> Result<Self, ConfigMissing> {
        let mut config = Config::default();
        let batches = config.required("ALERT_ARCHIVE_FEED_BATCHES_TABLE");
        let deps = Deps {
            source: Objects::new(aws, config.required("ALERT_ARCHIVE_FEEDS_SOURCE_BUCKET")),
            feeds: Objects::new(aws, config.required("ALERT_ARCHIVE_FEEDS_BUCKET")),
            archive: Objects::new(aws, config.required("ALERT_ARCHIVE_BUCKET")),
            files: Table::new(aws, config.required("ALERT_ARCHIVE_FEED_FILES_TABLE")),
            batches: Table::new(aws, batches.clone()),
            numbers: Table::new(aws, batches),
            partners: Partners::new(Table::new(aws, config.required("ALERT_ARCHIVE_FEEDS_PARTNERS_TABLE"))),
            format: config.parsed("ALERT_ARCHIVE_FEEDS_COMPRESSION", Format::Plain),
            limits: Limits::default(),
        };
        config.check()?;
        Ok(deps)
    }
}

/// Why a file did not come out. Its messages are delivered again, and end in the dead-letter queue when it stays so.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Event(#[from] NotificationError),
    #[error("the event is about bucket {0}, which is not the source of the feeds")]
    ForeignBucket(String),
    #[error("the content type of {key:?} is not known: {why}")]
    UnknownContentType { key: String, why: String },
    #[error("{key:?} in version {version} does not exist")]
    FileMissing { key: String, version: String },
    #[error("{key:?} is held by batch {batch}, whose function may be alive until {until}")]
    FileBusy { key: String, batch: String, until: Timestamp },
    #[error("the call had no time left for {key:?}")]
    OutOfTime { key: String },
    #[error("batch {batch} was taken over by another function, again and again")]
    Overtaken { batch: String },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Error {
    fn unknown_content_type(key: &str, why: KeyError) -> Self {
        Error::UnknownContentType { key: key.to_owned(), why: why.to_string() }
    }
}

impl Named for Error {
    fn name(&self) -> Name {
        match self {
            Error::Event(error) => error.name(),
            Error::ForeignBucket(_) => Name::ForeignBucket,
            Error::UnknownContentType { .. } => Name::UnknownContentType,
            Error::FileMissing { .. } => Name::FeedFileMissing,
            Error::FileBusy { .. } | Error::Overtaken { .. } => Name::FeedFileBusy,
            Error::OutOfTime { .. } => Name::OutOfTime,
            Error::Store(error) => error.name(),
            Error::Ledger(error) => error.name(),
        }
    }
}

/// The call itself never fails: a message whose files did not all come out is named in the response.
pub async fn handle(deps: &Deps, batch: sqs::Batch, call: Call) -> Result<sqs::BatchResponse, Error> {
    let report = work(deps, &batch, &call).await;
    report.metrics(&call).write();
    Ok(report.response(&batch))
}

/// Brings out the files that the messages name, and says what became of them.
pub async fn work(deps: &Deps, batch: &sqs::Batch, call: &Call) -> Report {
    let mut report = Report::default();
    let deliveries = deliveries::read(deps, batch, call, &mut report).await;
    consolidate::all(deps, deliveries, call, &mut report).await;
    report
}
