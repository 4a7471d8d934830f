//! The paths: three steps as they are deployed, and the parts of which they are made.

use crate::recorded::Recorded;
use alerts::{
    message::{
        classification::{Disposition, Rules, classify},
        document,
        entry::Entry,
        tracking::{Claim, Staging},
    },
    source::Source,
    window::{plan::Window, spool::Record},
};
use archive::Guesses;
use clap::ValueEnum;
use columnar::{ObjectWriter, Origin};
use fixtures::{Message, Spec, Wording};
use memory_cloud::{
    Cloud,
    given::{RUN, day, from, task},
};
use sources::{Drain, Sources};
use tokio::runtime::Runtime;

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
}

/// What a path does, and how many bytes it made.
type Work<'a> = Box<dyn FnOnce() -> u64 + 'a>;

pub struct Corpus {
    messages: Vec<Message>,
}

impl Corpus {
    /// Messages of one day, in order of time.
    pub fn new(count: u64, alone: bool) -> Self {
        let Window { from, to, .. } = day(0);
        let spec = Spec { count, from, to, wording: Wording::Wide, ..Spec::default() };
        let mut messages: Vec<Message> = fixtures::generate(&spec).collect();
        messages.sort_by_key(|message| message.timestamp);
        if alone {
            for message in &mut messages {
                (message.history, message.audit) = Default::default();
            }
        }
        Corpus { messages }
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
                Box::new(move || corpus.messages.iter().filter(is_archived).count() as u64)
            }
            Path::Hash => Box::new(|| {
                corpus.messages.iter().map(|message| document::version(&message.document.source).len() as u64).sum()
            }),
            Path::Spool => {
                let records = corpus.records();
                Box::new(move || spool(&records))
            }
            Path::Parquet => {
                let records = corpus.records();
                Box::new(move || parquet(records))
            }
            Path::Ledger => {
                let (cloud, entries) = (Cloud::default(), corpus.entries());
                Box::new(move || runtime.block_on(ledger(&cloud, &entries)))
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
    let source = Recorded::before(&cloud).source();
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
    Box::new(move || runtime.block_on(drain()))
}

fn spool(records: &[(Entry, Record)]) -> u64 {
    let mut out = zstd::Encoder::new(Vec::new(), 1).expect("an encoder");
    for (_, record) in records {
        Record::encode(&record.message, &record.history, &record.audit, &mut out).expect("encoded");
    }
    out.finish().expect("compressed").len() as u64
}

fn parquet(records: Vec<(Entry, Record)>) -> u64 {
    let mut writer = ObjectWriter::new(Origin { run_id: RUN.into(), archived_at: from() }).expect("a writer");
    for (entry, record) in records {
        writer.push(&entry, record).expect("a row");
    }
    writer.finish().expect("an object").len() as u64
}

async fn ledger(cloud: &Cloud, entries: &[Entry]) -> u64 {
    let claim = Claim { run_id: RUN.into(), window_id: day(0).window_id, attempt: 1 };
    let (staging, entries) = (Staging::new(claim, from(), false), entries.iter().collect::<Vec<_>>());
    let staged = cloud.tracking().stage_all(&entries, &staging, false, &mut Guesses::default(), || false).await;
    staged.expect("staged").expect("in time").len() as u64
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

/// The steps of one window over one cloud.
struct Steps {
    cloud: Cloud,
    source: sources::OpenSearch,
}

impl Steps {
    fn new(corpus: &Corpus) -> Self {
        let cloud = filled(corpus);
        let source = Recorded::before(&cloud).source();
        Steps { cloud, source }
    }

    /// Everything before a step; before the first one, the source's answers to it.
    async fn up_to(&self, path: Path) {
        if let Path::QueryMessages = path {
            let rehearsal = Steps { cloud: Cloud::default(), source: self.source.clone() };
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

    async fn run(&self, path: Path) -> u64 {
        match path {
            Path::QueryMessages => self.query().await,
            Path::ClassifyAlerts => self.classify().await,
            _ => self.write().await,
        }
        let prefix = if let Path::WritePartitions = path { "archive/parquet" } else { "spool" };
        self.cloud.keys(prefix).values().sum::<usize>() as u64
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
            cold_storage: false,
        };
        write_partitions::handle(&deps, task(day(0), Some(1)), self.cloud.call()).await.expect("written");
    }
}
