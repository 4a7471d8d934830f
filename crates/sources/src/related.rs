use crate::{
    OpenSearch, SourceError,
    opensearch::{Answer, KEEP_ALIVE, until_whole},
    page,
};
use bytes::Bytes;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};

/// Documents of one page of history or audit.
const PAGE: u64 = 1000;

/// Reads what belongs to messages (history or audit) from one point in time.
pub struct Related {
    source: OpenSearch,
    point_in_time: String,
    /// The keyword field that names the message.
    field: String,
    shard_doc: bool,
}

/// What belongs to a batch of messages: bodies by message, in order of time, index and id.
#[derive(Default)]
pub struct Found {
    pub bodies: HashMap<String, Vec<Bytes>>,
    /// Messages of which a related document is no JSON.
    pub unreadable: HashSet<String>,
}

/// A related document and where it belongs in its list: instant, index, id.
struct Placed {
    place: (Option<i64>, String, String),
    body: Bytes,
}

impl Related {
    pub async fn open(source: &OpenSearch, index: &str) -> Result<Self, SourceError> {
        let field = source.check_mapping(index).await?;
        let shard_doc = source.has_shard_doc().await?;
        let point_in_time = source.open_point_in_time(index).await?;
        Ok(Related { source: source.clone(), point_in_time, field, shard_doc })
    }

    pub async fn close(self) {
        self.source.close_point_in_time(&self.point_in_time).await;
    }

    /// All documents of the messages `ids`.
    pub async fn of(&self, ids: &[&str]) -> Result<Found, SourceError> {
        let mut found = Found::default();
        let mut batches = vec![ids];
        while let Some(batch) = batches.pop() {
            if batch.is_empty() {
                continue;
            }
            match until_whole(|| self.batch(batch)).await? {
                Some(bodies) => found.bodies.extend(bodies),
                None if batch.len() == 1 => {
                    found.unreadable.insert(batch[0].to_owned());
                }
                None => {
                    let (left, right) = batch.split_at(batch.len() / 2);
                    batches.extend([left, right]);
                }
            }
        }
        Ok(found)
    }

    /// `None`: one of the documents is no JSON.
    async fn batch(&self, ids: &[&str]) -> Result<Option<HashMap<String, Vec<Bytes>>>, SourceError> {
        let wanted: HashSet<&str> = ids.iter().copied().collect();
        let tiebreaker = if self.shard_doc { "_shard_doc" } else { "_id" };
        let (mut after, mut size): (Option<Vec<Value>>, u64) = (None, PAGE);
        // In order of (timestamp, index, id): what the sort of the pages leaves open among equal instants is settled here.
        let mut collected: HashMap<String, Vec<Placed>> = HashMap::new();
        loop {
            let mut body = json!({
                "size": size, "track_total_hits": false, "query": {"terms": {&self.field: ids}}, "docvalue_fields": [&self.field],
                "pit": {"id": self.point_in_time, "keep_alive": KEEP_ALIVE},
                "sort": [{"timestamp": "asc"}, {tiebreaker: "asc"}, {"_index": "asc"}],
            });
            if let Some(after) = &after {
                body["search_after"] = json!(after);
            }
            let body = match self.source.search("read history and audit", body, size == 1).await? {
                Answer::Body(body) => body,
                Answer::TooLarge(_) => {
                    size = (size / 4).max(1);
                    continue;
                }
            };
            let Some(hits) = page::parse(&body)? else { return Ok(None) };
            let Some(last) = hits.last() else { break };
            after = Some(last.sort.clone());
            for hit in hits {
                let named = hit.fields[&self.field].as_array().cloned().unwrap_or_default();
                for id in named.iter().filter_map(Value::as_str).filter(|id| wanted.contains(id)) {
                    // A copy of its own, so that one small document does not keep its whole page in memory.
                    let body = Bytes::copy_from_slice(&hit.source);
                    let place = (hit.sort.first().and_then(Value::as_i64), hit.index.clone(), hit.id.clone());
                    collected.entry(id.to_owned()).or_default().push(Placed { place, body });
                }
            }
        }
        let in_order = collected.into_iter().map(|(id, mut documents)| {
            documents.sort_by(|left, right| left.place.cmp(&right.place));
            (id, documents.into_iter().map(|document| document.body).collect())
        });
        Ok(Some(in_order.collect()))
    }
}
