//! Looking at documents by name, without their bodies.

use crate::{
    OpenSearch, SourceError,
    opensearch::{NamedHit, Sighting},
    page,
    related::named,
};
use ::opensearch::http::Method;
use alerts::message::entry::Written;
use identity::Identity;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Names in one page of what was written.
const PAGE: u64 = 2000;

/// Documents that are looked up with one request.
pub const NAMES_AT_ONCE: usize = 1000;
const LISTING: &str = "list what was written";

/// One document of an answer to `_mget`.
#[derive(Deserialize)]
struct Looked {
    #[serde(rename = "_index")]
    index: String,
    #[serde(rename = "_id")]
    id: String,
    #[serde(default)]
    found: bool,
    #[serde(flatten)]
    written: Option<Written>,
    #[serde(default)]
    error: Value,
}

#[derive(Deserialize)]
struct Reply<T> {
    docs: Vec<T>,
}

/// A document with a part of its body; none where it cannot be read.
#[derive(Deserialize)]
struct Body {
    #[serde(rename = "_source")]
    source: Option<Box<RawValue>>,
}

/// An index, and how far each of its shards has numbered its writes.
#[derive(Clone, Debug, PartialEq)]
pub struct IndexWrites {
    pub index: String,
    /// Names the numbering: another one when an index of this name is made anew, and when a shard of it begins a new
    /// history of writes, because it was restored in place or from a copy that was behind. Both number on from less.
    pub uuid: String,
    /// By shard: all writes up to this number are on every copy; -1 before the first.
    pub shards: BTreeMap<String, i64>,
}

/// Writes of one shard.
#[derive(Clone, Copy, Debug)]
pub struct WrittenAfter<'a> {
    /// The index or alias that is asked, and the concrete index that is meant.
    pub name: &'a str,
    pub index: &'a str,
    pub shard: &'a str,
    /// Numbers of the writes: above this one, and up to that.
    pub above: i64,
    pub up_to: i64,
    /// Only documents with an instant before this one.
    pub before: Option<Timestamp>,
    /// Keyword fields that say to which messages a document belongs.
    pub message_fields: &'a [&'static str],
}

/// A document by name, the number of its write, and the messages that it belongs to where that was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    pub seq_no: i64,
    pub sighting: Sighting,
    pub messages: Vec<String>,
}

#[derive(Deserialize)]
struct Stats {
    indices: BTreeMap<String, IndexStats>,
}

#[derive(Deserialize)]
struct IndexStats {
    uuid: String,
    shards: BTreeMap<String, Vec<CopyStats>>,
}

#[derive(Deserialize)]
struct CopyStats {
    routing: Routing,
    seq_no: Option<SequenceNumbers>,
    #[serde(default)]
    commit: Commit,
}

#[derive(Default, Deserialize)]
struct Commit {
    #[serde(default)]
    user_data: CommitData,
}

#[derive(Default, Deserialize)]
struct CommitData {
    history_uuid: Option<String>,
}

#[derive(Deserialize)]
struct Routing {
    primary: bool,
}

#[derive(Deserialize)]
struct SequenceNumbers {
    global_checkpoint: i64,
}

#[derive(Deserialize)]
struct Page {
    timed_out: bool,
    #[serde(rename = "_shards")]
    shards: page::Shards,
    hits: Hits,
}

#[derive(Deserialize)]
struct Hits {
    hits: Vec<Named>,
}

#[derive(Deserialize)]
struct Named {
    #[serde(flatten)]
    place: NamedHit,
    #[serde(default)]
    sort: Vec<i64>,
}

/// The uuid of an index and, where they are told, a hash of the histories of its shards.
fn numbering(uuid: String, histories: &[String]) -> String {
    if histories.is_empty() {
        return uuid;
    }
    format!("{uuid}@{}", hex::encode(&Sha256::digest(histories.join("/"))[..8]))
}

impl OpenSearch {
    /// How far the writes of each index behind a name are numbered.
    pub async fn writes(&self, name: &str) -> Result<Vec<IndexWrites>, SourceError> {
        let path = format!("/{name}/_stats/docs?level=shards");
        let stats: Stats = self.json("read the numbers of writes", Method::Get, &path, Value::Null, name).await?;
        let writes = |(index, stats): (String, IndexStats)| {
            let mut histories = Vec::new();
            let shards = stats.shards.into_iter().map(|(shard, copies)| {
                let primary = copies.into_iter().find(|copy| copy.routing.primary);
                let what =
                    || format!("shard {shard} of index {index} has no primary that tells the number of its writes");
                let Some(CopyStats { seq_no: Some(numbers), commit, .. }) = primary else {
                    return Err(SourceError::PageIncomplete { what: what() });
                };
                histories.extend(commit.user_data.history_uuid);
                Ok((shard, numbers.global_checkpoint))
            });
            let shards = shards.collect::<Result<_, SourceError>>()?;
            Ok(IndexWrites { index, uuid: numbering(stats.uuid, &histories), shards })
        };
        stats.indices.into_iter().map(writes).collect()
    }

    /// Lets searches see everything that was written. `false` when the source does not allow that.
    pub async fn refresh(&self, name: &str) -> Result<bool, SourceError> {
        let path = format!("/{name}/_refresh");
        match self.json::<Value>("refresh", Method::Post, &path, Value::Null, name).await {
            Ok(_) => Ok(true),
            Err(SourceError::Rejected { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A page of what was written, in order of its numbers; empty at the end.
    pub async fn written_after(&self, writes: WrittenAfter<'_>) -> Result<Vec<Write>, SourceError> {
        let page = self.until_whole(|| self.written_after_once(writes)).await?;
        let write = |named: Named| {
            let mut messages = Vec::new();
            for field in writes.message_fields {
                let values = named.place.fields.get(*field).into_iter().flatten();
                messages.extend(values.filter_map(Value::as_str).map(str::to_owned));
            }
            let seq_no = named.sort.first().copied()?;
            Some(Write { seq_no, sighting: named.place.sighting(), messages })
        };
        let unreadable = || SourceError::Unreadable { doing: LISTING, reason: "a hit has no sort value".into() };
        page.into_iter().map(|named| write(named).ok_or_else(unreadable)).collect()
    }

    async fn written_after_once(&self, writes: WrittenAfter<'_>) -> Result<Vec<Named>, SourceError> {
        let WrittenAfter { name, index, shard, above, up_to, before, message_fields } = writes;
        let numbers = json!({"range": {"_seq_no": {"gt": above, "lte": up_to}}});
        let mut filter = vec![json!({"term": {"_index": index}}), numbers];
        filter.extend(
            before.map(
                |before| json!({"range": {"timestamp": {"lt": before.as_millisecond(), "format": "epoch_millis"}}}),
            ),
        );
        let mut fields = vec![json!({"field": "timestamp", "format": "epoch_millis"})];
        fields.extend(message_fields.iter().map(|field| json!({"field": field})));
        let body = json!({
            "size": PAGE, "track_total_hits": false, "_source": false, "seq_no_primary_term": true,
            "query": {"bool": {"filter": filter}}, "docvalue_fields": fields, "sort": [{"_seq_no": "asc"}],
        });
        let path = format!("/{name}/_search?allow_partial_search_results=false&preference=_shards:{shard}");
        let page: Page = self.json(LISTING, Method::Post, &path, body, name).await?;
        page.shards.check(page.timed_out, None)?;
        Ok(page.hits.hits)
    }

    /// The messages that documents of history or audit name in their bodies: a keyword leaves out a long id, and may
    /// hold one in other letters. A document that cannot be read names none.
    pub async fn named_in(&self, documents: &[Identity]) -> Result<BTreeSet<String>, SourceError> {
        let mut names = BTreeSet::new();
        for batch in documents.chunks(NAMES_AT_ONCE) {
            let part = json!(["message_id"]);
            let name = |one: &Identity| json!({"_index": one.source_index, "_id": one.id, "_source": part});
            let body = json!({"docs": batch.iter().map(name).collect::<Vec<_>>()});
            let Reply::<Body> { docs } = self.json(LISTING, Method::Post, "/_mget", body, "").await?;
            let sources = docs.iter().filter_map(|document| document.source.as_ref());
            names.extend(sources.filter_map(|source| named(source.get().as_bytes())).flatten());
        }
        Ok(names)
    }

    /// The write that made each of these documents what it is now, whether a search finds it already or not. Documents
    /// that do not stand where their name says are absent: one that has a routing of its own may stand there all the
    /// same.
    pub async fn written(&self, documents: &[Identity]) -> Result<HashMap<Identity, Written>, SourceError> {
        let mut written = HashMap::with_capacity(documents.len());
        for batch in documents.chunks(NAMES_AT_ONCE) {
            for document in self.until_whole(|| self.written_at_once(batch)).await? {
                let place = Identity::new(document.index, document.id);
                written.extend(document.written.filter(|_| document.found).map(|written| (place, written)));
            }
        }
        Ok(written)
    }

    async fn written_at_once(&self, documents: &[Identity]) -> Result<Vec<Looked>, SourceError> {
        let name = |document: &Identity| json!({"_index": document.source_index, "_id": document.id, "_source": false});
        let body = json!({"docs": documents.iter().map(name).collect::<Vec<_>>()});
        let doing = "look for held-over messages";
        let Reply::<Looked> { docs } = self.json(doing, Method::Post, "/_mget", body, &self.indices.messages).await?;
        for document in &docs {
            // An index that is gone holds nothing. Whatever else went wrong does not say that the document is gone.
            match document.error["type"].as_str() {
                None | Some("index_not_found_exception") => {}
                Some(kind) => return Err(SourceError::PageIncomplete { what: format!("{doing}: {kind}") }),
            }
        }
        if docs.len() != documents.len() {
            let what = format!("{} of {} documents were looked up", docs.len(), documents.len());
            return Err(SourceError::PageIncomplete { what });
        }
        Ok(docs)
    }
}
