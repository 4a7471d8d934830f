//! The paths: steps as they are deployed, and the parts of which they are made.

use crate::recorded::Recorded;
use alerts::{
    message::{
        classification::{Disposition, Rules, classify},
        document,
        entry::Entry,
        tracking::{Claim, Staging},
    },
    run::payloads::{PlanRequest, Version},
    source::Source,
    window::{plan::Window, spool::Record},
};
use archive::Guesses;
use bytes::Bytes;
use clap::ValueEnum;
use columnar::{ObjectWriter, Origin, writer::Packing};
use fixtures::{Message, Spec, Wording};
use jiff::{SignedDuration, Timestamp};
use memory_cloud::{
    Cloud,
    given::{RUN, day, from, task},
};
use serde_json::json;
use sources::{Drain, Sources};
use std::collections::BTreeMap;
use tokio::runtime::Runtime;

/// What is planned by `plan`: years, and days of them that hold messages.
const YEARS: (&str, &str) = ("2002-01-01", "2024-01-01");
const BUSY_DAYS: i64 = 1722;

#[derive(Clone, Copy, ValueEnum)]
pub enum Path {
    /// Part: pages of the source, from bytes to documents.
    Read,
    /// Part: what becomes of each message.
    Classify,
    /// Part: the version of each message.
    Hash,
    /// Part: records of the spool, compressed.
    Spool,
    /// Part: an object of the archive.
    Parquet,
    /// Part: rows of the ledger, staged.
    Ledger,
    /// Step: the window into its spool.
    QueryMessages,
    /// Step: the spool's index into rows.
    ClassifyAlerts,
    /// Step: the spool into the archive, without copies, and the rows completed.
    WritePartitions,
    /// Step: windows over 22 years, of which 1,722 days hold three messages each. Takes no other messages.
    Plan,
}

/// What a path made.
#[derive(Default)]
pub struct Made {
    pub bytes: u64,
    pub object: Option<Bytes>,
    /// What the source was asked for, where it was asked.
    pub requests: BTreeMap<String, usize>,
}

impl Made {
    fn bytes(bytes: u64) -> Self {
        Made { bytes, ..Made::default() }
    }
}

type Work<'a> = Box<dyn FnOnce() -> Made + 'a>;

pub struct Corpus {
    messages: Vec<Message>,
    cold: bool,
}

impl Corpus {
    /// Messages of one day, in order of time.
    pub fn new(count: u64, alone: bool, cold: bool) -> Self {
        let Window { from, to, .. } = day(0);
        let spec = Spec { count, from, to, wording: Wording::Wide, ..Spec::default() };
        let mut messages: Vec<Message> = fixtures::generate(&spec).collect();
        messages.sort_by_key(|message| message.timestamp);
        if alone {
            for message in &mut messages {
                (message.history, message.audit) = Default::default();
            }
        }
        Corpus { messages, cold }
    }

    pub fn bytes(&self) -> u64 {
        self.messages.iter().map(|message| message.document.source.len() as u64).sum()
    }

    fn entries(&self) -> Vec<Entry> {
        let rules = Rules::default();
        let entry = |message: &Message| {
            let (id, source) = (&message.document.id, &message.document.source);
            Entry {
                index: "messages".into(),
                id: id.clone(),
                at: message.timestamp,
                version: document::version(source),
                related: String::new(),
                related_bytes: 0,
                bytes: source.len() as u64,
                source: Source::Opensearch,
                written: None,
                outcome: classify(&rules, id, source),
            }
        };
        self.messages.iter().map(entry).collect()
    }

    /// Those that are archived, each with its history and audit.
    fn records(&self) -> Vec<(Entry, Record)> {
        let bodies =
            |documents: &[fixtures::Fixture]| documents.iter().map(|document| document.source.clone()).collect();
        let record = |message: &Message| Record {
            message: message.document.source.clone(),
            history: bodies(&message.history),
            audit: bodies(&message.audit),
        };
        let all = self.entries().into_iter().zip(self.messages.iter().map(record));
        all.filter(|(entry, _)| entry.outcome.disposition == Disposition::Closed).collect()
    }
}

impl Path {
    pub fn prepare<'a>(self, corpus: &'a Corpus, runtime: &'a Runtime) -> Work<'a> {
        match self {
            Path::Read => read(corpus, runtime),
            Path::Classify => {
                let rules = Rules::default();
                let is_archived = move |message: &&Message| {
                    classify(&rules, &message.document.id, &message.document.source).reason.is_none()
                };
                Box::new(move || Made::bytes(corpus.messages.iter().filter(is_archived).count() as u64))
            }
            Path::Hash => Box::new(|| {
                let hash = |message: &Message| document::version(&message.document.source).len() as u64;
                Made::bytes(corpus.messages.iter().map(hash).sum())
            }),
            Path::Spool => {
                let records = corpus.records();
                Box::new(move || Made::bytes(spool(&records)))
            }
            Path::Parquet => {
                let records = corpus.records();
                Box::new(move || parquet(records, corpus.cold))
            }
            Path::Ledger => {
                let (cloud, entries) = (Cloud::default(), corpus.entries());
                Box::new(move || Made::bytes(runtime.block_on(ledger(&cloud, &entries))))
            }
            Path::Plan => {
                let steps = Steps::before(years());
                runtime.block_on(steps.rehearse_plan());
                Box::new(move || runtime.block_on(steps.plan_years()))
            }
            Path::QueryMessages | Path::ClassifyAlerts | Path::WritePartitions => {
                let steps = Steps::new(corpus);
                runtime.block_on(steps.up_to(self));
                Box::new(move || runtime.block_on(steps.run(self)))
            }
        }
    }
}

fn read<'a>(corpus: &Corpus, runtime: &'a Runtime) -> Work<'a> {
    let cloud = filled(corpus);
    let recorded = Recorded::before(&cloud);
    let source = recorded.source();
    let drain = async move || {
        let mut drain = Drain::open(&source, &day(0)).await.expect("a point in time");
        drain.count().await.expect("a count");
        let mut bytes = 0;
        loop {
            let page = drain.next_page().await.expect("a page");
            if page.is_empty() {
                return bytes;
            }
            bytes += page.iter().map(|document| document.hit.source.len() as u64).sum::<u64>();
        }
    };
    // Once for the answers.
    runtime.block_on(drain());
    recorded.take_requests();
    Box::new(move || Made { bytes: runtime.block_on(drain()), requests: recorded.take_requests(), object: None })
}

fn spool(records: &[(Entry, Record)]) -> u64 {
    let mut out = zstd::Encoder::new(Vec::new(), 1).expect("an encoder");
    for (_, record) in records {
        Record::encode(&record.message, &record.history, &record.audit, &mut out).expect("encoded");
    }
    out.finish().expect("compressed").len() as u64
}

fn parquet(records: Vec<(Entry, Record)>, cold: bool) -> Made {
    let origin = Origin { run_id: RUN.into(), archived_at: from() };
    let packing = if cold { Packing::COLD } else { Packing::BALANCED };
    let mut writer = ObjectWriter::packed(origin, packing).expect("a writer");
    for (entry, record) in records {
        writer.push(&entry, record).expect("a row");
    }
    let object = writer.finish().expect("an object");
    Made { bytes: object.len() as u64, object: Some(object), requests: BTreeMap::new() }
}

async fn ledger(cloud: &Cloud, entries: &[Entry]) -> u64 {
    let claim = Claim { run_id: RUN.into(), window_id: day(0).window_id, attempt: 1 };
    let (staging, entries) = (Staging::new(claim, from(), false), entries.iter().collect::<Vec<_>>());
    let staged = cloud.tracking().stage_all(&entries, &staging, &mut Guesses::default(), || false).await;
    staged.expect("staged").decisions.expect("in time").len() as u64
}

fn filled(corpus: &Corpus) -> Cloud {
    let cloud = Cloud::default();
    for message in &corpus.messages {
        for document in [&message.document].into_iter().chain(&message.history).chain(&message.audit) {
            let source = std::str::from_utf8(&document.source).expect("the generator writes UTF-8");
            cloud.node.put(&document.index, &document.id, source);
        }
    }
    cloud
}

/// Three small messages on each of [`BUSY_DAYS`], spread over [`YEARS`].
fn years() -> Cloud {
    let cloud = Cloud::default();
    let [from, to] = [YEARS.0, YEARS.1].map(|date| format!("{date}T00:00:00Z").parse::<Timestamp>().expect("a day"));
    let days = to.duration_since(from).as_hours() / 24;
    for busy in 0..BUSY_DAYS {
        let day = from + SignedDuration::from_hours(24 * (busy * days / BUSY_DAYS));
        for hour in [1, 9, 20] {
            let at = day + SignedDuration::from_hours(hour);
            cloud.put_message(&format!("{busy}-{hour}"), &at.to_string(), "closed");
        }
    }
    cloud
}

/// The steps of one window, or the plan of many, over one cloud.
struct Steps {
    cloud: Cloud,
    recorded: Recorded,
    source: sources::OpenSearch,
    cold: bool,
}

impl Steps {
    fn new(corpus: &Corpus) -> Self {
        Steps { cold: corpus.cold, ..Steps::before(filled(corpus)) }
    }

    fn before(cloud: Cloud) -> Self {
        let recorded = Recorded::before(&cloud);
        Steps { source: recorded.source(), recorded, cloud, cold: false }
    }

    /// The same source before another cloud, which learns its answers.
    fn rehearsal(&self) -> Self {
        let (recorded, source) = (self.recorded.clone(), self.source.clone());
        Steps { cloud: Cloud::default(), recorded, source, cold: self.cold }
    }

    async fn rehearse_plan(&self) {
        self.rehearsal().plan_years().await;
    }

    async fn plan_years(&self) -> Made {
        let input = json!({"mode": "range", "from": YEARS.0, "to": YEARS.1});
        let execution_arn = self.cloud.start(RUN, &input).await;
        let deps = plan_windows::Deps {
            sources: Sources::over(self.source.clone()),
            objects: self.cloud.objects(),
            job_runs: self.cloud.job_runs(),
            windows: self.cloud.windows(),
            ledger: self.cloud.tracking(),
            workflow: self.cloud.workflow(),
            target: 4000,
            most_windows: 2000,
            most_found: 100_000,
            settle: SignedDuration::from_mins(60),
        };
        self.recorded.take_requests();
        let request = PlanRequest { v: Version, input, run_id: RUN.into(), execution_arn };
        let plan = plan_windows::handle(&deps, request, self.cloud.call()).await.expect("planned");
        let bytes = self.cloud.keys(&plan.windows_key).values().sum::<usize>() as u64;
        let mut requests = self.recorded.take_requests();
        requests.insert("windows".into(), plan.windows as usize);
        Made { bytes, requests, object: None }
    }

    /// Everything before a step; before the first one, the source's answers to it.
    async fn up_to(&self, path: Path) {
        if let Path::QueryMessages = path {
            let rehearsal = self.rehearsal();
            rehearsal.plan().await;
            rehearsal.query().await;
        }
        self.plan().await;
        if let Path::ClassifyAlerts | Path::WritePartitions = path {
            self.query().await;
        }
        if let Path::WritePartitions = path {
            self.classify().await;
        }
    }

    async fn plan(&self) {
        self.cloud.given_window(&day(0), |planned| planned).await;
    }

    async fn run(&self, path: Path) -> Made {
        self.recorded.take_requests();
        match path {
            Path::QueryMessages => self.query().await,
            Path::ClassifyAlerts => self.classify().await,
            _ => self.write().await,
        }
        let prefix = if let Path::WritePartitions = path { "archive/parquet" } else { "spool" };
        let bytes = self.cloud.keys(prefix).values().sum::<usize>() as u64;
        Made { bytes, requests: self.recorded.take_requests(), object: None }
    }

    async fn query(&self) {
        let deps = query_messages::Deps {
            sources: Sources::over(self.source.clone()),
            objects: self.cloud.objects(),
            job_runs: self.cloud.job_runs(),
            windows: self.cloud.windows(),
            rules: Rules::default(),
        };
        query_messages::handle(&deps, task(day(0), None), self.cloud.call()).await.expect("drained");
    }

    async fn classify(&self) {
        let deps = classify_alerts::Deps {
            objects: self.cloud.objects(),
            windows: self.cloud.windows(),
            ledger: self.cloud.tracking(),
        };
        classify_alerts::handle(&deps, task(day(0), Some(1)), self.cloud.call()).await.expect("classified");
    }

    async fn write(&self) {
        let deps = write_partitions::Deps {
            objects: self.cloud.objects(),
            job_runs: self.cloud.job_runs(),
            windows: self.cloud.windows(),
            ledger: self.cloud.tracking(),
            jsonl: false,
            message_json: false,
            cold_storage: self.cold,
        };
        write_partitions::handle(&deps, task(day(0), Some(1)), self.cloud.call()).await.expect("written");
    }
}
