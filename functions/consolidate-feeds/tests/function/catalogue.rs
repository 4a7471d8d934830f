//! A partners' catalogue in the function's world, and what must have come out of it.

use crate::world::{ARCHIVE, FEEDS, SOURCE, World};
use bytes::Bytes;
use feeds::{Batch, BatchCounts, protocol::NUMBERS};
use fixtures::feeds::{
    BLOCKED_PARTNERS, BucketContents, CONTENT_TYPES, Change, Expectation, FeedFile, FeedsSpec, PRIORITY_PARTNERS,
    Treatment, generate,
};
use ledger::WorkState;
use serde_json::Value;
use std::collections::BTreeMap;
use storage::Objects;

/// The date of the events of [`crate::world::event`].
const EVENT_DATE: &str = "2026-11-21";

pub struct Catalogue {
    pub files: BTreeMap<u64, FeedFile>,
    /// The event of each file, in the order in which they were put.
    pub events: Vec<(u64, Value)>,
}

impl Catalogue {
    /// Puts the files, overwrites some and deletes some.
    pub async fn put(world: &World, spec: &FeedsSpec) -> Self {
        for content_type in CONTENT_TYPES {
            world.partners(content_type, &PRIORITY_PARTNERS, &BLOCKED_PARTNERS).await;
        }
        let (mut files, mut events) = (BTreeMap::new(), Vec::new());
        for change in generate(spec) {
            match change {
                Change::Put(file) => {
                    events.push((file.number, world.put(&file.key, file.body.clone()).await));
                    files.insert(file.number, *file);
                }
                Change::Delete { key } => {
                    Objects::over(world.objects.clone(), SOURCE).delete(&key).await.expect("deleted");
                }
            }
        }
        Catalogue { files, events }
    }

    pub fn treatment(&self, file: u64) -> Treatment {
        self.files[&file].treatment
    }

    /// As [`Expectation::check_meanwhile`].
    pub fn check_meanwhile(&self, world: &World, what: &str) {
        self.checked(world, what, |expectation, objects| expectation.check_meanwhile(objects));
    }

    /// As [`Expectation::check`]; and what `alert-archive feeds status` adds up is what lies there.
    pub fn check(&self, world: &World, what: &str) {
        let found = self.checked(world, what, |expectation, objects| expectation.check(objects));
        let rows = world.tables.contents("batches").into_iter();
        let rows = rows.filter(|row| row["batch"].as_s().is_ok_and(|batch| batch != NUMBERS));
        let mut counts = BatchCounts::default();
        for row in rows {
            let batch: Batch = serde_dynamo::from_item(row).expect("a batch");
            if batch.work.state() == WorkState::Done {
                counts += batch.work.intent().expect("what is done was intended").counts;
            }
        }
        let expected = BatchCounts {
            objects: self.files.values().filter(|file| file.comes_out()).count() as u64,
            records: found.record_count(),
            bytes: found.bytes,
            outputs: found.outputs,
            quarantined: found.quarantined.len() as u64,
        };
        assert_eq!(counts, expected, "{what}");
    }

    fn checked(
        &self,
        world: &World,
        what: &str,
        check: impl Fn(&Expectation, &BTreeMap<String, Bytes>) -> anyhow::Result<BucketContents>,
    ) -> BucketContents {
        let expectation = Expectation { files: &self.files, event_dates: &[EVENT_DATE.to_owned()] };
        check(&expectation, &world.objects.contents(FEEDS)).unwrap_or_else(|error| panic!("{what}: {error:#}"))
    }
}

#[tokio::test]
async fn a_catalogue_with_all_its_dirt_comes_out_as_it_was_put() {
    let world = World::new();
    let catalogue = Catalogue::put(&world, &FeedsSpec { files: 600, ..FeedsSpec::default() }).await;
    for events in catalogue.events.chunks(20) {
        let messages: Vec<Vec<Value>> =
            events.chunks(2).map(|pair| pair.iter().map(|(_, event)| event.clone()).collect()).collect();
        let failed = world.deliver(&messages.iter().map(Vec::as_slice).collect::<Vec<_>>()).await;
        let is_unknown = |(file, _): &(u64, Value)| catalogue.treatment(*file) == Treatment::Unknown;
        let hopeless = events.chunks(2).enumerate().filter(|(_, pair)| pair.iter().any(is_unknown));
        assert_eq!(failed, hopeless.map(|(at, _)| at).collect::<Vec<_>>());
    }
    catalogue.check(&world, "once");
    let staged = world.objects.contents(ARCHIVE).into_keys().filter(|key| key.starts_with("feeds/staged/"));
    assert_eq!(staged.count(), 0);
}
