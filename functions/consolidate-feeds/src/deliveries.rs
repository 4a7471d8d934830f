//! From messages to files: what each event names, whose it is, and which message waits for it.

use crate::{Deps, Error, carry_out::ROWS};
use errors::{Name, Named, describe};
use events::{s3::ObjectEvent, sqs};
use feeds::{
    BatchCounts, DateSource, FeedFile, FeedKey, FileState, Rank, Treatment,
    protocol::{FileFacts, version_of},
};
use futures::{StreamExt, stream};
use jiff::{Timestamp, tz::TimeZone};
use runtime::{Call, Metrics, Unit};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A file that is to come out.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub facts: FileFacts,
    /// The version to ask S3 for; `None` in a bucket without versions, where `tag` must be that of the object.
    pub version_id: Option<String>,
    pub tag: Option<String>,
    /// When it was put into the bucket.
    pub time: Timestamp,
    /// As the event says.
    pub bytes: u64,
    pub rank: Rank,
    /// Positions of the messages that are done with once it is out.
    pub messages: BTreeSet<usize>,
}

/// What became of the messages.
#[derive(Default)]
pub struct Report {
    /// Positions of the messages that failed, each with the first error.
    pub failed: BTreeMap<usize, Name>,
    /// Files that were left because their partner is blocked.
    pub blocked: u64,
    pub counts: BatchCounts,
    /// Records that are larger than an output may be.
    pub large: u64,
}

impl Report {
    pub fn fail(&mut self, messages: impl IntoIterator<Item = usize>, error: &Error) {
        tracing::warn!(error = error.name().as_str(), message = describe(error), "a file did not come out");
        for message in messages {
            self.failed.entry(message).or_insert(error.name());
        }
    }

    /// For CloudWatch; the dashboard and the alarms know these names.
    pub fn metrics(&self, call: &Call) -> Metrics {
        let metrics = Metrics::new().dimension("Step", "consolidate-feeds").duration("Duration", call.took());
        metrics
            .figure("Records", Unit::Count, self.counts.records)
            .figure("Quarantined", Unit::Count, self.counts.quarantined)
            .figure("Objects", Unit::Count, self.counts.objects)
            .figure("Blocked", Unit::Count, self.blocked)
            .figure("Outputs", Unit::Count, self.counts.outputs)
            .figure("OutputBytes", Unit::Bytes, self.counts.bytes)
            .figure("LargeRecords", Unit::Count, self.large)
            .figure("FailedMessages", Unit::Count, self.failed.len() as u64)
    }

    pub fn response(&self, batch: &sqs::Batch) -> sqs::BatchResponse {
        sqs::BatchResponse::of(self.failed.keys().map(|position| batch.messages[*position].id.clone()))
    }
}

/// The files that the messages name, each version once, those of priority partners first.
pub async fn read(deps: &Deps, batch: &sqs::Batch, call: &Call, report: &mut Report) -> VecDeque<Delivery> {
    let mut files: BTreeMap<(String, String), Delivery> = BTreeMap::new();
    let mut order = Vec::new();
    let mut wanted = Vec::new();
    let mut blocked = Vec::new();
    for (position, message) in batch.messages.iter().enumerate() {
        let created = message.created();
        if let Some(error) = created.first_error {
            report.fail([position], &error.into());
        }
        for event in created.objects {
            match delivery(deps, event, call.now()).await {
                Ok((delivery, false)) => wanted.push((position, delivery)),
                Ok((delivery, true)) => blocked.push((position, delivery)),
                Err(error) => report.fail([position], &error),
            }
        }
    }
    // A partner that is blocked may deliver as much as any other.
    let mut noted = stream::iter(blocked)
        .map(|(position, delivery)| async move {
            let is_left = is_left(deps, &delivery.facts, call).await;
            (position, delivery, is_left)
        })
        .buffered(ROWS);
    while let Some((position, delivery, is_left)) = noted.next().await {
        match is_left {
            Ok(true) => report.blocked += 1,
            // It had begun to come out before its partner was blocked.
            Ok(false) => wanted.push((position, delivery)),
            Err(error) => report.fail([position], &error),
        }
    }
    for (position, delivery) in wanted {
        let key = (delivery.facts.object.clone(), delivery.facts.version.clone());
        let known = files.entry(key.clone()).or_insert_with(|| {
            order.push(key);
            delivery
        });
        known.messages.insert(position);
    }
    let mut deliveries: Vec<Delivery> = order.iter().filter_map(|key| files.remove(key)).collect();
    deliveries.sort_by_key(|delivery| delivery.rank);
    deliveries.into()
}

/// A file, and whether its partner is blocked.
async fn delivery(deps: &Deps, event: ObjectEvent, now: Timestamp) -> Result<(Delivery, bool), Error> {
    if event.bucket != deps.source.bucket() {
        return Err(Error::ForeignBucket(event.bucket));
    }
    let key = FeedKey::parse(&event.key).map_err(|why| Error::unknown_content_type(&event.key, why))?;
    let rules = deps.partners.rules(key.content_type, now).await?.ok_or_else(|| Error::UnknownContentType {
        key: event.key.clone(),
        why: format!("the partners' table has no row {:?}", key.content_type),
    })?;
    let version_id = event.version_id.clone();
    let version = version_of(version_id.as_deref(), event.sequencer.as_deref());
    let facts = FileFacts {
        object: event.key.clone(),
        version,
        content_type: key.content_type.to_owned(),
        partner: key.partner.to_owned(),
        date: key.date.unwrap_or_else(|| event.at.to_zoned(TimeZone::UTC).date()),
        date_from: if key.date.is_some() { DateSource::Path } else { DateSource::Event },
    };
    let (rank, is_blocked) = match rules.treatment(key.partner) {
        Treatment::Consolidate(rank) => (rank, false),
        Treatment::Blocked => (Rank::Other, true),
    };
    let messages = BTreeSet::new();
    let bytes = event.size.unwrap_or_default();
    Ok((Delivery { facts, version_id, tag: event.etag, time: event.at, bytes, rank, messages }, is_blocked))
}

/// Notes that a blocked partner's file is left where it is, unless records of it are out or on their way.
async fn is_left(deps: &Deps, facts: &FileFacts, call: &Call) -> Result<bool, Error> {
    if call.is_ending() {
        return Err(Error::OutOfTime { key: facts.object.clone() });
    }
    let now = call.now();
    let update =
        deps.files.update(&facts.object, Some(&facts.version), |row| Ok::<_, Error>(FeedFile::block(row, facts, now)));
    Ok(update.await?.is_some_and(|row| row.state == FileState::Blocked))
}
