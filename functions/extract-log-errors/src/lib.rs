//! Started by S3 through a queue: reads each new log object once and writes its errors as Parquet, and what it adds to
//! each fingerprint into DynamoDB. An event twice, out of order or at the same time changes nothing; an object that is
//! written again replaces what its earlier version left.

mod claim;
mod commit;
mod extraction;

use aws_config::SdkConfig;
use claim::{Claimed, Holder};
use errors::{Name, Named, describe};
use events::s3::{NotificationError, ObjectEvent};
use events::sqs::{self, Batch, BatchResponse, Message};
use jiff::Timestamp;
use ledger::Superseded;
use lines::Limits;
use log_entries::{ColumnsError, LogObject, ObjectVersion, Occurrence, SETTINGS, Sightings, VersionIntent};
use logs::{LIMITS, Settings, SettingsError};
use runtime::{Call, Config, ConfigMissing, Metrics, Unit};
use std::time::Duration;
use storage::{LedgerError, Objects, StoreError, Table};

/// How long a call waits for another one that works on the same object, and how often it looks. Most objects are done
/// within seconds; a message that fails stays hidden for longer than a call may take.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_secs(1);

pub struct Deps {
    pub logs: Objects,
    pub archive: Objects,
    pub objects: Table<LogObject>,
    pub occurrences: Table<Occurrence>,
    pub sightings: Table<Sightings>,
    pub limits: Limits,
    /// Kinds of errors that are noted of one object. Only texts that are no log's have as many.
    pub kinds: usize,
}

impl Deps {
    pub fn from_env(aws: &SdkConfig) -> Result<Self, ConfigMissing> {
        let mut config = Config::default();
        let errors = config.required("ALERT_ARCHIVE_LOG_ERRORS_TABLE");
        let deps = Deps {
            logs: Objects::new(aws, config.required("ALERT_ARCHIVE_LOGS_BUCKET")),
            archive: Objects::new(aws, config.required("ALERT_ARCHIVE_BUCKET")),
            objects: Table::new(aws, config.required("ALERT_ARCHIVE_LOG_OBJECTS_TABLE")),
            occurrences: Table::new(aws, errors.clone()),
            sightings: Table::new(aws, errors),
            limits: Limits {
                bytes: config.parsed("ALERT_ARCHIVE_LOGS_MAX_BYTES", LIMITS.bytes),
                ratio: config.parsed("ALERT_ARCHIVE_LOGS_MAX_RATIO", LIMITS.ratio),
            },
            kinds: 10_000,
        };
        config.check()?;
        Ok(deps)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Notification(#[from] NotificationError),
    #[error("the event tells of bucket {bucket}, this function reads {expected}")]
    OtherBucket { bucket: String, expected: String },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("{key} is not UTF-8")]
    PatternsText { key: &'static str },
    #[error("{key}, {source}")]
    Patterns { key: &'static str, source: SettingsError },
    #[error("{key} cannot be extracted in the time of one call: give the function more time or memory")]
    OutOfTime { key: String },
    #[error("{key} is at work elsewhere until {until}")]
    Busy { key: String, until: Timestamp },
    #[error("{key}: another call has taken over")]
    Superseded { key: String, source: Superseded },
    #[error("the entries of {key} cannot be written as Parquet")]
    Columns { key: String, source: ColumnsError },
}

impl Named for Error {
    fn name(&self) -> Name {
        match self {
            Error::Notification(error) => error.name(),
            Error::OtherBucket { .. } => Name::InvalidInput,
            Error::Store(error) => error.name(),
            Error::Ledger(error) => error.name(),
            Error::PatternsText { .. } | Error::Patterns { .. } => Name::LogPatternsInvalid,
            Error::OutOfTime { .. } => Name::LogTooLong,
            Error::Busy { .. } | Error::Superseded { .. } => Name::LogBusy,
            Error::Columns { .. } => Name::EncodingFailed,
        }
    }
}

pub async fn handle(deps: &Deps, batch: Batch, call: Call) -> Result<BatchResponse, Error> {
    // Read once a call: a changed pattern file counts from the next batch on.
    let settings = settings(&deps.archive).await?;
    // One object after the other: each uses the processor to the full, and memory is that of one.
    Ok(sqs::handle_each(&batch, 1, async |message| deliver(deps, &settings, message, &call).await).await)
}

/// The deployment's pattern file in front of what is built in.
pub async fn settings(archive: &Objects) -> Result<Settings, Error> {
    let Some(body) = archive.find(SETTINGS).await? else { return Ok(Settings::built_in()) };
    let text = std::str::from_utf8(&body).map_err(|_| Error::PatternsText { key: SETTINGS })?;
    Settings::parse(text).map_err(|source| Error::Patterns { key: SETTINGS, source })
}

/// All objects of a message are tried before it fails for one of them: it comes again as a whole, and with one that
/// can never be read it ends in the dead-letter queue.
async fn deliver(deps: &Deps, settings: &Settings, message: &Message, call: &Call) -> Result<(), Error> {
    let created = message.created();
    let mut first_error = created.first_error.map(Error::from);
    for event in &created.objects {
        let Err(error) = extract(deps, settings, event, call).await else { continue };
        tracing::warn!(object = event.key, error = error.name().as_str(), what = describe(&error), "not extracted");
        first_error = first_error.or(Some(error));
    }
    first_error.map_or(Ok(()), Err)
}

/// Sees to it that the object's entries are those of this version, or of a later one.
async fn extract(deps: &Deps, settings: &Settings, event: &ObjectEvent, call: &Call) -> Result<(), Error> {
    if event.bucket != deps.logs.bucket() {
        let (bucket, expected) = (event.bucket.clone(), deps.logs.bucket().to_owned());
        return Err(Error::OtherBucket { bucket, expected });
    }
    let key = &event.key;
    let sequencer = event.sequencer.clone().unwrap_or_default();
    let mut waited = Duration::ZERO;
    loop {
        match claim::claim(deps, event, call).await? {
            Claimed::Done => return Ok(()),
            Claimed::Busy { until } if waited >= PATIENCE || call.is_ending() => {
                return Err(Error::Busy { key: key.clone(), until });
            }
            Claimed::Busy { .. } => {
                call.sleep(PAUSE).await;
                waited += PAUSE;
            }
            Claimed::Resume { holder, intent } => {
                commit::carry_out(deps, key, &intent).await?;
                holder.complete(deps, &intent, call).await?;
                commit::clean_up(deps, &holder, &intent).await?;
                if intent.version.sequencer >= sequencer {
                    return Ok(());
                }
            }
            Claimed::Begin { holder, before } => {
                let intent = match begin(deps, settings, event, &holder, before.map(|before| *before), call).await {
                    Ok(intent) => intent,
                    Err(error) => {
                        // The next call need not wait for the lease; when even this fails, it does.
                        if let Err(unnoted) = holder.fail(deps, &error, call).await {
                            tracing::warn!(object = key, error = unnoted.name().as_str(), "the failure is not noted");
                        }
                        return Err(error);
                    }
                };
                holder.complete(deps, &intent, call).await?;
                commit::clean_up(deps, &holder, &intent).await?;
                tell(&intent.version, event, call);
                return Ok(());
            }
        }
    }
}

async fn begin(
    deps: &Deps,
    settings: &Settings,
    event: &ObjectEvent,
    holder: &Holder,
    before: Option<ObjectVersion>,
    call: &Call,
) -> Result<VersionIntent, Error> {
    let intent = extraction::run(deps, settings, event, holder, before, call).await?;
    holder.prepare(deps, &intent, call).await?;
    commit::carry_out(deps, &event.key, &intent).await?;
    Ok(intent)
}

fn tell(version: &ObjectVersion, event: &ObjectEvent, call: &Call) {
    if version.unlisted > 0 {
        let (object, entries) = (event.key.as_str(), version.unlisted);
        tracing::warn!(object, entries, "more kinds of errors than are noted of one log");
    }
    Metrics::new()
        .dimension("Step", "extract-log-errors")
        .property("Object", &event.key)
        .duration("Duration", call.took())
        .figure("PackedBytes", Unit::Bytes, event.size.unwrap_or(0))
        .figure("UnpackedBytes", Unit::Bytes, version.bytes)
        .figure("Lines", Unit::Count, version.lines)
        .figure("Entries", Unit::Count, version.entries)
        .figure("UnparsedLines", Unit::Count, version.unparsed)
        .figure("UnlistedEntries", Unit::Count, version.unlisted)
        .figure("DamagedObjects", Unit::Count, u64::from(version.damaged.is_some()))
        .write();
}
